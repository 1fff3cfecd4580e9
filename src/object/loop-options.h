/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What iothread and main-loop objects have in common: the settings of a loop, as properties that can be changed live.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "loop/loop.h"

struct error;
struct json;

enum { LOOP_SETTINGS_THREADS_MAX = 64 };

/* In the schema's terms; all from 0 up. */
struct loop_settings {
    int64_t poll_max_ns;
    int64_t poll_grow;
    int64_t poll_shrink;
    int64_t aio_max_batch;
    int64_t thread_pool_min;
    int64_t thread_pool_max;
};

/* The order of the members above. */
enum loop_setting {
    LOOP_SETTING_POLL_MAX_NS,
    LOOP_SETTING_POLL_GROW,
    LOOP_SETTING_POLL_SHRINK,
    LOOP_SETTING_AIO_MAX_BATCH,
    LOOP_SETTING_THREAD_POOL_MIN,
    LOOP_SETTING_THREAD_POOL_MAX,
};

/* Whether each is in range and they agree. */
bool loop_settings_check(const struct loop_settings *settings, struct error **err) MUST_CHECK;

/* As the loop takes them; `name` is borrowed. */
struct loop_options loop_settings_options(const struct loop_settings *settings, const char *name);
int64_t loop_settings_get(const struct loop_settings *settings, enum loop_setting which);

/* Changes one, in `settings` and in the running `loop`; on failure neither has changed. */
bool loop_settings_change(struct loop_settings *settings, enum loop_setting which, const struct json *value,
                          struct loop *loop, struct error **err) MUST_CHECK;
