/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/terminal.h"

#include <glib.h>

static const struct terminal ascii = {.columns = 80};
static const struct terminal letters = {.columns = 80, .unicode = true};
static const struct terminal colours = {.columns = 80, .colour = true};

static void check_bar(const struct terminal *terminal, uint64_t used, uint64_t total, const char *expected)
{
    g_autofree char *bar = usage_bar(terminal, used, total, 10);

    g_assert_cmpstr(bar, ==, expected);
}

static void bars(void)
{
    check_bar(&ascii, 0, 100, "----------");
    check_bar(&ascii, 1, 1000, "#---------");
    check_bar(&ascii, 50, 100, "#####-----");
    check_bar(&ascii, 999, 1000, "#########-");
    check_bar(&ascii, 100, 100, "##########");
    check_bar(&ascii, 500, 100, "##########");
    check_bar(&ascii, UINT64_MAX, UINT64_MAX, "##########");
    check_bar(&ascii, 5, 0, "----------");
    check_bar(&letters, 30, 100, "███░░░░░░░");
    check_bar(&colours, 10, 100, "\033[32m#---------\033[0m");
    check_bar(&colours, 80, 100, "\033[33m########--\033[0m");
    check_bar(&colours, 95, 100, "\033[31m#########-\033[0m");
}

static void no_bar(void)
{
    g_autofree char *bar = usage_bar(&colours, 10, 100, 0);

    g_assert_cmpstr(bar, ==, "");
}

static void check_percent(uint64_t used, uint64_t total, const char *expected)
{
    g_autofree char *percent = usage_percent(used, total);

    g_assert_cmpstr(percent, ==, expected);
}

static void percents(void)
{
    check_percent(0, 7, "  0%");
    check_percent(28, 100, " 28%");
    check_percent(9999, 10000, " 99%");
    check_percent(3, 3, "100%");
    check_percent(3, 0, "   -");
}

static void check_fit(const struct terminal *terminal, const char *text, unsigned columns, const char *expected)
{
    g_autofree char *fit = text_fit(terminal, text, columns);

    g_assert_cmpstr(fit, ==, expected);
}

static void texts_that_fit(void)
{
    check_fit(&ascii, "abcdef", 6, "abcdef");
    check_fit(&ascii, "abcdef", 5, "abcd~");
    check_fit(&letters, "abcdef", 5, "abcd…");
    check_fit(&letters, "äöüß", 4, "äöüß");
    check_fit(&letters, "日本語", 5, "日本…");
    check_fit(&letters, "日本語", 4, "日…");
    check_fit(&ascii, "abc", 1, "~");
    check_fit(&ascii, "abc", 0, "");
    g_assert_cmpuint(text_columns("日本a"), ==, 5);
}

static void check_printable(const char *text, const char *expected)
{
    g_autofree char *shown = text_printable(text);

    g_assert_cmpstr(shown, ==, expected);
}

static void texts_that_would_control(void)
{
    check_printable("plain", "plain");
    check_printable("a\033[31mb\n", "a\\x1b[31mb\\x0a");
    check_printable("\xff\xc3", "\\xff\\xc3");
    check_printable("größe", "größe");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/terminal/bars", bars);
    g_test_add_func("/terminal/no-bar", no_bar);
    g_test_add_func("/terminal/percents", percents);
    g_test_add_func("/terminal/texts-that-fit", texts_that_fit);
    g_test_add_func("/terminal/texts-that-would-control", texts_that_would_control);
    return g_test_run();
}
