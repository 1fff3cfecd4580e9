/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lines for the person who runs the program: "PROGRAM: text" on standard error. Libraries do not log; the edge logs
 * once. */
#pragma once

#include "base/compiler.h"

struct error;

/* The name before each line; `name` must stay. */
void log_set_program(const char *name);

void log_error(const char *format, ...) PRINTF_LIKE(1, 2);
void log_warning(const char *format, ...) PRINTF_LIKE(1, 2);
void log_info(const char *format, ...) PRINTF_LIKE(1, 2);
/* An error without the program's name before it: programs match on the line from its start. */
void log_bare_error(const char *format, ...) PRINTF_LIKE(1, 2);

/* Where lines go instead, unescaped and without the program's name; NULL: to standard error again. Any thread may call
 * `sink`. */
enum log_kind { LOG_KIND_ERROR, LOG_KIND_WARNING, LOG_KIND_INFO };
typedef void log_sink(enum log_kind kind, const char *text);
void log_set_sink(log_sink *sink);

/* Logs the message of `error` as an error, its hint after it in parentheses. `error` is borrowed. */
void log_report(const struct error *error);
