/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"

static const char *program = "ashlar"; /* const after start */

void log_set_program(const char *name)
{
    program = name;
}

/* One fputs() a line, so that lines of several threads do not mix; what would break the line is escaped. */
static void line(const char *kind, const char *format, va_list args)
{
    g_autofree char *text = g_strdup_vprintf(format, args);
    g_autoptr(GString) whole = g_string_new(NULL);

    g_string_append_printf(whole, "%s: %s", program, kind);
    for (const char *c = text; *c; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            g_string_append_printf(whole, "\\x%02x", (unsigned char)*c);
        else
            g_string_append_c(whole, *c);
    }
    g_string_append_c(whole, '\n');
    (void)fputs(whole->str, stderr);
}

void log_error(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    line("", format, args);
    va_end(args);
}

void log_warning(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    line("warning: ", format, args);
    va_end(args);
}

void log_info(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    line("info: ", format, args);
    va_end(args);
}

void log_report(const struct error *error)
{
    if (error_hint_text(error))
        log_error("%s (%s)", error_message(error), error_hint_text(error));
    else
        log_error("%s", error_message(error));
}
