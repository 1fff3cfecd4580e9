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

/* One fputs() a line, so that lines of several threads do not mix. */
static void line(const char *kind, const char *format, va_list args)
{
    g_autofree char *text = g_strdup_vprintf(format, args);
    g_autofree char *whole = g_strdup_printf("%s: %s%s\n", program, kind, text);

    (void)fputs(whole, stderr);
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
    log_error("%s", error_message(error));
    if (error_hint_text(error))
        (void)fprintf(stderr, "%s\n", error_hint_text(error));
}
