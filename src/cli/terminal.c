/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/terminal.h"

#include <assert.h>
#include <glib.h>
#include <langinfo.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { WARNING_PERCENT = 75, ALARM_PERCENT = 90 };

unsigned terminal_columns(void)
{
    struct winsize size;

    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : TERMINAL_COLUMNS_DEFAULT;
}

struct terminal terminal_look(void)
{
    const char *no_colour = g_getenv("NO_COLOR");
    const char *kind = g_getenv("TERM");
    bool there = isatty(STDOUT_FILENO);

    return (struct terminal){
        .there = there,
        .columns = terminal_columns(),
        .colour = there && !(no_colour && *no_colour) && kind && strcmp(kind, "dumb") != 0,
        .unicode = !strcmp(nl_langinfo(CODESET), "UTF-8"),
    };
}

static unsigned character_columns(gunichar c)
{
    return g_unichar_iszerowidth(c) ? 0 : g_unichar_iswide(c) ? 2 : 1;
}

unsigned text_columns(const char *text)
{
    unsigned columns = 0;

    for (const char *c = text; *c; c = g_utf8_next_char(c))
        columns += character_columns(g_utf8_get_char(c));
    return columns;
}

char *text_printable(const char *text)
{
    GString *shown = g_string_new(NULL);

    while (*text) {
        gunichar c = g_utf8_get_char_validated(text, -1);

        if (c == (gunichar)-1 || c == (gunichar)-2 || !g_unichar_isprint(c)) {
            g_string_append_printf(shown, "\\x%02x", (unsigned char)*text++);
        } else {
            g_string_append_unichar(shown, c);
            text = g_utf8_next_char(text);
        }
    }
    return g_string_free(shown, FALSE);
}

char *text_fit(const struct terminal *terminal, const char *text, unsigned columns)
{
    const char *mark = terminal->unicode ? "…" : "~";
    unsigned used = 0;
    const char *end = text;

    if (text_columns(text) <= columns || !columns)
        return g_strdup(columns ? text : "");
    while (*end && used + character_columns(g_utf8_get_char(end)) < columns) {
        used += character_columns(g_utf8_get_char(end));
        end = g_utf8_next_char(end);
    }
    return g_strdup_printf("%.*s%s", (int)(end - text), text, mark);
}

/* In hundredths, rounded down, so that full means full; -1: of nothing. */
static int percent_of(uint64_t used, uint64_t total)
{
    return total ? (int)(100.0 * (double)MIN(used, total) / (double)total) : -1;
}

static const char *colour_of(int percent)
{
    return percent >= ALARM_PERCENT ? "\033[31m" : percent >= WARNING_PERCENT ? "\033[33m" : "\033[32m";
}

char *usage_bar(const struct terminal *terminal, uint64_t used, uint64_t total, unsigned columns)
{
    const char *full = terminal->unicode ? "█" : "#";
    const char *empty = terminal->unicode ? "░" : "-";
    int percent = MAX(percent_of(used, total), 0);
    unsigned marks = (unsigned)percent * columns / 100;
    GString *bar = g_string_new(terminal->colour && columns ? colour_of(percent) : NULL);

    if (!marks && used && total && columns)
        marks = 1; /* something is not nothing */
    assert(marks <= columns);
    for (unsigned i = 0; i < columns; i++)
        g_string_append(bar, i < marks ? full : empty);
    if (terminal->colour && columns)
        g_string_append(bar, "\033[0m");
    return g_string_free(bar, FALSE);
}

char *usage_percent(uint64_t used, uint64_t total)
{
    int percent = percent_of(used, total);

    return percent < 0 ? g_strdup("   -") : g_strdup_printf("%3d%%", percent);
}
