/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/trace.h"

#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"

/* The linker's bounds of the section; weak, since a program may have no point at all. */
extern struct trace_point __start_trace_points[] __attribute__((weak, visibility("hidden")));
extern struct trace_point __stop_trace_points[] __attribute__((weak, visibility("hidden")));

static GMutex output_lock;
static FILE *output;                        /* NULL: standard error; output_lock */
static int64_t (*clock_wall_time_us)(void); /* NULL: none; const after start */

static size_t point_count(void)
{
    /* Compared as numbers: to the compiler the two bounds are different objects. */
    return ((uintptr_t)__stop_trace_points - (uintptr_t)__start_trace_points) / sizeof(struct trace_point);
}

void trace_emit(const struct trace_point *point, const char *format, ...)
{
    int64_t now_us = clock_wall_time_us ? clock_wall_time_us() : -1;
    g_autoptr(GString) line = g_string_new(NULL);
    va_list args;

    g_string_append_printf(line, "%d", (int)gettid());
    if (now_us >= 0)
        g_string_append_printf(line, "@%" PRId64 ".%06" PRId64, now_us / 1000000, now_us % 1000000);
    g_string_append_printf(line, ":%s ", point->name);
    va_start(args, format);
    g_string_append_vprintf(line, format, args);
    va_end(args);
    g_string_append_c(line, '\n');

    g_mutex_lock(&output_lock);
    (void)fputs(line->str, output ? output : stderr);
    if (output)
        (void)fflush(output);
    g_mutex_unlock(&output_lock);
}

unsigned trace_enable(const char *pattern)
{
    bool enabled = pattern[0] != '-';
    unsigned matches = 0;

    if (!enabled)
        pattern++;
    for (size_t i = 0; i < point_count(); i++) {
        if (fnmatch(pattern, __start_trace_points[i].name, 0))
            continue;
        __atomic_store_n(&__start_trace_points[i].enabled, enabled, __ATOMIC_RELAXED);
        matches++;
    }
    return matches;
}

void trace_enable_list(const char *text, char **ret_unmatched)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    *ret_unmatched = NULL;
    for (char **line = lines; *line; line++) {
        const char *pattern = g_strstrip(*line);

        if (!pattern[0] || pattern[0] == '#')
            continue;
        if (!trace_enable(pattern) && !*ret_unmatched)
            *ret_unmatched = g_strdup(pattern);
    }
}

static gint name_order(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

const char **trace_names(void)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();

    for (size_t i = 0; i < point_count(); i++)
        g_ptr_array_add(names, (gpointer)(uintptr_t)__start_trace_points[i].name);
    g_ptr_array_sort(names, name_order);

    /* A point in a header's inline function is there once for each file that includes it. */
    for (guint i = names->len; i > 1; i--) {
        if (!strcmp(names->pdata[i - 1], names->pdata[i - 2]))
            g_ptr_array_remove_index(names, i - 1);
    }
    g_ptr_array_add(names, NULL);
    return (const char **)g_ptr_array_free(g_steal_pointer(&names), FALSE);
}

bool trace_open(const char *path, struct error **err)
{
    FILE *file = fopen(path, "we");

    if (!file)
        return error_set_errno(err, errno, "Error opening logfile %s", path);
    g_mutex_lock(&output_lock);
    if (output)
        (void)fclose(output);
    output = file;
    g_mutex_unlock(&output_lock);
    return true;
}

void trace_set_clock(int64_t (*wall_time_us)(void))
{
    clock_wall_time_us = wall_time_us;
}
