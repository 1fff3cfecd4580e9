/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/progress.h"

#include <assert.h>
#include <glib.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/units.h"
#include "cli/size-text.h"
#include "cli/terminal.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/socket.h"

enum { BAR_COLUMNS_MIN = 8, BAR_COLUMNS_MAX = 30 };
#define REDRAW_NS (NS_PER_S / 10)

static double percent_of(const struct progress *progress)
{
    if (!progress->total)
        return 0;
    return 100.0 * (double)MIN(progress->done, progress->total) / (double)progress->total;
}

/* "12:34", or "1:02:03"; owned. */
static char *duration_text(double seconds)
{
    unsigned whole = (unsigned)CLAMP(seconds, 0, 359999);

    if (whole >= 3600)
        return g_strdup_printf("%u:%02u:%02u", whole / 3600, whole / 60 % 60, whole % 60);
    return g_strdup_printf("%u:%02u", whole / 60, whole % 60);
}

/* The most that stands beside the bar, whose width so is the same from the first line to the last. */
enum { TEXT_COLUMNS = sizeof("[] 100.0%  0.977 MiB/s  99:59:59 in all") - 1 };

char *progress_line(const struct progress *progress, int64_t now_ns, unsigned columns)
{
    double percent = percent_of(progress);
    double seconds = (double)(now_ns - progress->started_ns) / (double)NS_PER_S;
    double rate = seconds > 0 ? (double)progress->done / seconds : 0;
    bool through = progress->done >= progress->total;
    double left_seconds = rate > 0 ? (double)(progress->total - MIN(progress->done, progress->total)) / rate : 0;
    g_autofree char *rate_shown = progress->own_units ? NULL : size_text((uint64_t)rate);
    g_autofree char *time = duration_text(through ? seconds : left_seconds);
    GString *line = g_string_new(NULL);
    unsigned bar, text;

    g_string_printf(line, "%5.1f%%", percent);
    if (rate_shown && rate > 0)
        g_string_append_printf(line, "  %s/s", rate_shown);
    if (through || rate > 0)
        g_string_append_printf(line, "  %s %s", time, through ? "in all" : "left");
    /* What does not fit would begin a new line each time; the last column stays free for the cursor. */
    text = (unsigned)line->len;
    if (text + 1 > columns)
        g_string_truncate(line, MIN(text, strlen("100.0%")));
    else if (columns > TEXT_COLUMNS + BAR_COLUMNS_MIN) {
        bar = MIN(columns - 1 - TEXT_COLUMNS, BAR_COLUMNS_MAX);
        g_string_prepend(line, "] ");
        for (unsigned i = bar; i-- > 0;)
            g_string_prepend_c(line, i < (unsigned)(percent * bar / 100) ? '#' : '-');
        g_string_prepend_c(line, '[');
    }
    return g_string_free(line, false);
}

static void draw_bar(const struct progress *progress)
{
    g_autofree char *line = progress_line(progress, loop_now_ns(), terminal_columns());

    printf("\r%s\033[K", line);
}

static void show(struct progress *progress)
{
    double percent = percent_of(progress);

    progress->shown_percent = percent;
    progress->shown_ns = loop_now_ns();
    __atomic_store_n(&progress->cleared, false, __ATOMIC_RELAXED);
    if (progress->terminal)
        draw_bar(progress);
    else
        printf("    (%3.2f/100%%)\r", percent);
    (void)fflush(stdout);
}

static void changed(struct progress *progress)
{
    double percent;

    if (!progress->shown || progress->ended)
        return;
    percent = percent_of(progress);
    if (progress->terminal ? loop_turn_time_ns() - progress->shown_ns < REDRAW_NS
                           : percent - progress->shown_percent < 1.0 && percent < 100.0)
        return;
    if (percent > progress->shown_percent)
        show(progress);
}

static void report(struct image_progress *image, uint64_t done, uint64_t total)
{
    struct progress *progress = container_of(image, struct progress, image);

    progress->own_units = true;
    progress->done = done;
    progress->total = total;
    changed(progress);
}

static void CO_FN co_answer_signals(void *opaque)
{
    const struct progress *progress = opaque;
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    while (co_signal_wait(&set) >= 0)
        (void)fprintf(stderr, "    (%3.2f/100%%)\n", percent_of(progress));
}

void progress_begin(struct progress *progress, bool shown, uint64_t total)
{
    *progress = (struct progress){
        .image = {.report = report},
        .shown = shown,
        .terminal = shown && isatty(STDOUT_FILENO),
        .total = total,
        .started_ns = loop_now_ns(),
        .shown_percent = -1,
    };
    if (shown)
        show(progress);
    else
        progress->signals = co_task_start(loop_current(), co_answer_signals, progress);
}

void progress_add(struct progress *progress, uint64_t bytes)
{
    progress->done += bytes;
    changed(progress);
}

/* With all of it shown where it is `complete`. */
static void end_line(struct progress *progress, bool complete)
{
    if (complete) {
        progress->done = progress->total;
        if (!progress->total)
            progress->done = progress->total = 1;
        show(progress);
    }
    if (!__atomic_load_n(&progress->cleared, __ATOMIC_RELAXED))
        printf("\n");
    (void)fflush(stdout);
    progress->ended = true;
}

void progress_make_way(struct progress *progress, bool complete)
{
    if (!progress->terminal || progress->ended)
        return;
    if (complete) {
        end_line(progress, true);
        return;
    }
    __atomic_store_n(&progress->cleared, true, __ATOMIC_RELAXED);
    printf("\r\033[K");
    (void)fflush(stdout);
}

void CO_FN co_progress_end(struct progress *progress, bool complete)
{
    if (progress->signals) {
        co_task_cancel(progress->signals);
        co_task_join(progress->signals);
        progress->signals = NULL;
    }
    if (progress->shown && !progress->ended)
        end_line(progress, complete);
}
