/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon's log, in libvirt's manner: lines have a level and a category; outputs say what goes where, filters which
 * levels of which categories go at all. There is one a process, as there is one standard error. Main thread, but lines
 * may come from any.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct pool_error;

enum pool_log_level { POOL_LOG_DEBUG = 1, POOL_LOG_INFO, POOL_LOG_WARNING, POOL_LOG_ERROR };

/* Where in the sources a line comes from. */
struct pool_log_place {
    const char *file, *function;
    int line;
};

#define pool_log(level, category, ...)                                                                                 \
    pool_log_line(level, category, &(const struct pool_log_place){__FILE__, __func__, __LINE__}, __VA_ARGS__)
#define pool_log_debug(category, ...) pool_log(POOL_LOG_DEBUG, category, __VA_ARGS__)
#define pool_log_info(category, ...) pool_log(POOL_LOG_INFO, category, __VA_ARGS__)
#define pool_log_warning(category, ...) pool_log(POOL_LOG_WARNING, category, __VA_ARGS__)
#define pool_log_error(category, ...) pool_log(POOL_LOG_ERROR, category, __VA_ARGS__)

/* Any thread. */
void pool_log_line(enum pool_log_level level, const char *category, const struct pool_log_place *place,
                   const char *format, ...) PRINTF_LIKE(4, 5);

/* The level of categories that no filter names; a level from text ("3", "warn"), false: there is none such. */
void pool_log_set_level(enum pool_log_level level);
bool pool_log_parse_level(const char *text, enum pool_log_level *ret);

/* Outputs as "LEVEL:stderr LEVEL:file:PATH ..."; filters as "LEVEL:MATCH ...". NULL or blank: the default again. On an
 * error all stays as it was. A file that is made is for its owner alone. */
bool pool_log_set_outputs(const char *text, struct pool_error **err);
bool pool_log_set_filters(const char *text, struct pool_error **err);

/* What NULL means to pool_log_set_outputs(); copied. */
void pool_log_set_default_outputs(const char *text);

/* As they are, in the form in which they can be set; owned. Their number in *ret_count. */
char *pool_log_get_outputs(unsigned *ret_count);
char *pool_log_get_filters(unsigned *ret_count);

/* Where the system's logs listen, in place of the usual sockets; borrowed. Before anything is logged. */
void pool_log_set_system_sockets(const char *journal, const char *syslog);

/* Closes all outputs; lines after that go to standard error. */
void pool_log_close(void);
