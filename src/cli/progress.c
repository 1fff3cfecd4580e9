/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/progress.h"

#include <assert.h>
#include <glib.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/size-text.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/socket.h"

enum { BAR_COLUMNS = 30 };
#define SECOND_NS INT64_C(1000000000)
#define REDRAW_NS (SECOND_NS / 10)

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

static void draw_bar(const struct progress *progress, double percent)
{
    double seconds = (double)(loop_now_ns() - progress->started_ns) / (double)SECOND_NS;
    double rate = seconds > 0 ? (double)progress->done / seconds : 0;
    g_autofree char *rate_shown = size_text((uint64_t)rate);
    g_autofree char *left = duration_text(rate > 0 ? (double)(progress->total - progress->done) / rate : 0);
    g_autofree char *took = duration_text(seconds);
    unsigned filled = (unsigned)(percent * BAR_COLUMNS / 100);
    char bar[BAR_COLUMNS + 1];

    for (unsigned i = 0; i < BAR_COLUMNS; i++)
        bar[i] = i < filled ? '#' : '-';
    bar[BAR_COLUMNS] = '\0';
    printf("\r[%s] %5.1f%%  %s/s  %s %s\033[K", bar, percent, rate_shown,
           progress->done < progress->total ? left : took, progress->done < progress->total ? "left" : "in all");
}

static void show(struct progress *progress)
{
    double percent = percent_of(progress);

    progress->shown_percent = percent;
    progress->shown_ns = loop_now_ns();
    if (progress->terminal)
        draw_bar(progress, percent);
    else
        printf("    (%3.2f/100%%)\r", percent);
    (void)fflush(stdout);
}

static void changed(struct progress *progress)
{
    double percent;

    if (!progress->shown)
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

void CO_FN co_progress_end(struct progress *progress, bool complete)
{
    if (progress->signals) {
        co_task_cancel(progress->signals);
        co_task_join(progress->signals);
        progress->signals = NULL;
    }
    if (!progress->shown)
        return;
    if (complete) {
        progress->done = progress->total;
        if (!progress->total)
            progress->done = progress->total = 1;
        show(progress);
    }
    printf("\n");
    (void)fflush(stdout);
}
