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

/* Logs the message of `error` as an error, its hint after it in parentheses. `error` is borrowed. */
void log_report(const struct error *error);
