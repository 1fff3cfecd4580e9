/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"

static const char *program = "ashlar"; /* const after start */
static log_sink *other_sink;           /* const after start */

static const char *const kinds[] = {
    [LOG_KIND_ERROR] = "", [LOG_KIND_WARNING] = "warning: ", [LOG_KIND_INFO] = "info: "};

void log_set_program(const char *name)
{
    program = name;
}

void log_set_sink(log_sink *sink)
{
    other_sink = sink;
}

/* One fputs() a line, so that lines of several threads do not mix; what would break the line is escaped. */
static void line(const char *name, enum log_kind kind, const char *format, va_list args)
{
    g_autofree char *text = g_strdup_vprintf(format, args);
    g_autoptr(GString) whole = g_string_new(NULL);

    if (other_sink) {
        other_sink(kind, text);
        return;
    }
    g_string_append_printf(whole, "%s%s%s", name, *name ? ": " : "", kinds[kind]);
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
    line(program, LOG_KIND_ERROR, format, args);
    va_end(args);
}

void log_warning(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    line(program, LOG_KIND_WARNING, format, args);
    va_end(args);
}

void log_info(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    line(program, LOG_KIND_INFO, format, args);
    va_end(args);
}

void log_bare_error(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    line("", LOG_KIND_ERROR, format, args);
    va_end(args);
}

void log_report(const struct error *error)
{
    if (error_hint_text(error))
        log_error("%s (%s)", error_message(error), error_hint_text(error));
    else
        log_error("%s", error_message(error));
}
