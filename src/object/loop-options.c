/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "object/loop-options.h"

#include <assert.h>
#include <inttypes.h>

#include "base/error.h"
#include "schema/json.h"

/* What is known of a setting: its place in the struct and its limit. */
static const struct {
    const char *name;
    size_t offset;
    int64_t limit;
} table[] = {
    [LOOP_SETTING_POLL_MAX_NS] = {"poll-max-ns", offsetof(struct loop_settings, poll_max_ns), INT64_MAX},
    [LOOP_SETTING_POLL_GROW] = {"poll-grow", offsetof(struct loop_settings, poll_grow), INT64_MAX},
    [LOOP_SETTING_POLL_SHRINK] = {"poll-shrink", offsetof(struct loop_settings, poll_shrink), INT64_MAX},
    [LOOP_SETTING_AIO_MAX_BATCH] = {"aio-max-batch", offsetof(struct loop_settings, aio_max_batch), INT64_MAX},
    [LOOP_SETTING_THREAD_POOL_MIN] = {"thread-pool-min", offsetof(struct loop_settings, thread_pool_min), INT64_MAX},
    [LOOP_SETTING_THREAD_POOL_MAX] = {"thread-pool-max", offsetof(struct loop_settings, thread_pool_max), INT64_MAX},
};

int64_t loop_settings_get(const struct loop_settings *settings, enum loop_setting which)
{
    assert(which < G_N_ELEMENTS(table));
    return *(const int64_t *)((const char *)settings + table[which].offset);
}

bool loop_settings_check(const struct loop_settings *settings, struct error **err)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        int64_t value = loop_settings_get(settings, i);

        if (value < 0 || value > table[i].limit)
            return error_set(err, "%s value must be in range [0, %" PRId64 "]", table[i].name, table[i].limit);
    }
    if (settings->thread_pool_max == 0 || settings->thread_pool_max > INT32_MAX)
        return error_set(err,
                         "bad thread-pool-min/thread-pool-max values: the maximum %" PRId64 " is not in range [1, %d]",
                         settings->thread_pool_max, INT32_MAX);
    if (settings->thread_pool_min > settings->thread_pool_max)
        return error_set(err, "bad thread-pool-min/thread-pool-max values: %" PRId64 " is more than %" PRId64,
                         settings->thread_pool_min, settings->thread_pool_max);
    return true;
}

struct loop_options loop_settings_options(const struct loop_settings *settings, const char *name)
{
    return (struct loop_options){
        .name = name,
        .poll_max_ns = (uint64_t)settings->poll_max_ns,
        .poll_grow = (uint64_t)settings->poll_grow,
        .poll_shrink = (uint64_t)settings->poll_shrink,
        .aio_max_batch = (uint64_t)settings->aio_max_batch,
        .worker_threads_min = (uint32_t)MIN(settings->thread_pool_min, UINT32_MAX),
        .worker_threads_max = (uint32_t)MIN(settings->thread_pool_max, UINT32_MAX),
    };
}

bool loop_settings_change(struct loop_settings *settings, enum loop_setting which, const struct json *value,
                          struct loop *loop, struct error **err)
{
    struct loop_settings changed = *settings;

    assert(which < G_N_ELEMENTS(table));
    if (json_get_kind(value) != JSON_INT)
        return error_set(err, "Invalid parameter type for '%s', expected: integer", table[which].name);
    *(int64_t *)((char *)&changed + table[which].offset) = json_get_int(value);
    if (!loop_settings_check(&changed, err))
        return false;

    struct loop_options options = loop_settings_options(&changed, NULL);
    if (!loop_configure(loop, &options, err))
        return false;
    *settings = changed;
    return true;
}
