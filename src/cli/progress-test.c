/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/units.h"
#include "cli/progress.h"

#include <glib.h>
#include <string.h>

static void expect(const struct progress *progress, int64_t seconds, unsigned columns, const char *want)
{
    g_autofree char *line = progress_line(progress, progress->started_ns + seconds * NS_PER_S, columns);

    g_assert_cmpstr(line, ==, want);
    g_assert_cmpuint(strlen(line), <=, columns);
}

static void test_terminal(void)
{
    struct progress progress = {.started_ns = 5 * NS_PER_S, .total = 100 << 20, .done = 50 << 20};

    expect(&progress, 10, 200, "[###############---------------]  50.0%  5 MiB/s  0:10 left");
    expect(&progress, 10, 80, "[###############---------------]  50.0%  5 MiB/s  0:10 left");
    expect(&progress, 10, 50, "[#####-----]  50.0%  5 MiB/s  0:10 left");
    expect(&progress, 10, 47, " 50.0%  5 MiB/s  0:10 left");
    expect(&progress, 10, 30, " 50.0%  5 MiB/s  0:10 left");
    expect(&progress, 10, 20, " 50.0%");
    expect(&progress, 50000, 80, "[###############---------------]  50.0%  1.02 KiB/s  13:53:20 left");
    progress.done = 0;
    expect(&progress, 0, 50, "[----------]   0.0%");
    expect(&progress, 0, 47, "  0.0%");
    expect(&progress, 0, 80, "[------------------------------]   0.0%");
    progress.done = progress.total;
    expect(&progress, 61, 80, "[##############################] 100.0%  1.64 MiB/s  1:01 in all");
    /* The longest that there is. */
    progress.total = progress.done = UINT64_C(368640000000);
    expect(&progress, 360000, 60, "[####################] 100.0%  0.977 MiB/s  99:59:59 in all");
}

/* What a driver reports is no number of bytes. */
static void test_own_units(void)
{
    struct progress progress = {.total = 8, .done = 2, .own_units = true};

    expect(&progress, 3, 80, "[#######-----------------------]  25.0%  0:09 left");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/progress/terminal", test_terminal);
    g_test_add_func("/progress/own-units", test_own_units);
    return g_test_run();
}
