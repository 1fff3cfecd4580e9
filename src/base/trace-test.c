/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/trace.h"

#include <glib/gstdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"

static unsigned evaluated;

static int argument(void)
{
    return (int)++evaluated;
}

static void points(void)
{
    TRACE(test_alpha, "value %d", argument());
    TRACE(test_beta, "no argument");
    TRACE(other_gamma, "%s of %zu bytes, %u%%", "text", (size_t)7, 5u);
}

static int64_t fixed_time_us(void)
{
    return 1700000000000042;
}

static void off_evaluates_nothing(void)
{
    evaluated = 0;
    g_assert_cmpuint(trace_enable("-*"), ==, 3);
    points();
    g_assert_cmpuint(evaluated, ==, 0);
}

static void names_sorted(void)
{
    g_autofree const char **names = trace_names();

    g_assert_cmpstr(names[0], ==, "other_gamma");
    g_assert_cmpstr(names[1], ==, "test_alpha");
    g_assert_cmpstr(names[2], ==, "test_beta");
    g_assert_null(names[3]);
}

static void patterns(void)
{
    g_autofree char *unmatched = NULL;

    g_assert_cmpuint(trace_enable("test_*"), ==, 2);
    g_assert_cmpuint(trace_enable("-test_bet?"), ==, 1);
    g_assert_cmpuint(trace_enable("none"), ==, 0);
    trace_enable_list("# comment\n\n  other_gamma \nmissing\nlost\n-*\n", &unmatched);
    g_assert_cmpstr(unmatched, ==, "missing");
}

/* Runs the points with the output in a file; its lines without the thread's id. */
static char *traced(void)
{
    AUTO(error) err = NULL;
    g_autofree char *path = NULL;
    g_autofree char *text = NULL;
    g_autoptr(GString) result = g_string_new(NULL);
    int fd = g_file_open_tmp("ashlar-trace-XXXXXX", &path, NULL);

    g_assert_cmpint(fd, >=, 0);
    g_close(fd, NULL);
    g_assert_true(trace_open(path, &err));
    points();
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_unlink(path);

    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line && **line; line++)
        g_string_append_printf(result, "%s\n", *line + strspn(*line, "0123456789"));
    return g_string_free(g_steal_pointer(&result), FALSE);
}

static void output_lines(void)
{
    trace_enable("*");
    trace_enable("-test_beta");
    evaluated = 0;
    g_autofree char *without_time = traced();
    g_assert_cmpstr(without_time, ==, ":test_alpha value 1\n:other_gamma text of 7 bytes, 5%\n");

    trace_set_clock(fixed_time_us);
    trace_enable("-*");
    trace_enable("test_beta");
    g_autofree char *with_time = traced();
    g_assert_cmpstr(with_time, ==, "@1700000000.000042:test_beta no argument\n");
    trace_enable("-*");
}

static void output_refused(void)
{
    AUTO(error) err = NULL;

    g_assert_false(trace_open("/dev/null/trace", &err));
    g_assert_cmpstr(error_message(err), ==, "Error opening logfile /dev/null/trace: Not a directory");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/trace/off-evaluates-nothing", off_evaluates_nothing);
    g_test_add_func("/trace/names-sorted", names_sorted);
    g_test_add_func("/trace/patterns", patterns);
    g_test_add_func("/trace/output-lines", output_lines);
    g_test_add_func("/trace/output-refused", output_refused);
    return g_test_run();
}
