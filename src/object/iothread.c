/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* iothread: a loop in a thread of its own. Its options are those of the loop, and may be changed while it runs. */
#include "object/iothread.h"

#include <assert.h>
#include <inttypes.h>
#include <stddef.h>

#include "base/error.h"
#include "loop/loop.h"
#include "object/loop-options.h"
#include "object/object.h"
#include "schema/json.h"

struct iothread {
    struct loop_thread *thread;
    struct loop_settings settings; /* main loop; the loop has a copy */
};

static bool CO_FN iothread_co_create(struct object *object, const struct object_options *options, struct error **err)
{
    struct iothread *iothread = object_state(object);
    const struct iothread_properties *wish = &options->u.iothread;

    iothread->settings = (struct loop_settings){
        .poll_max_ns = wish->has_poll_max_ns ? wish->poll_max_ns : LOOP_POLL_MAX_NS_DEFAULT,
        .poll_grow = wish->poll_grow,
        .poll_shrink = wish->poll_shrink,
        .aio_max_batch = wish->aio_max_batch,
        .thread_pool_min = wish->thread_pool_min,
        .thread_pool_max = wish->has_thread_pool_max ? wish->thread_pool_max : LOOP_SETTINGS_THREADS_MAX,
    };
    if (!loop_settings_check(&iothread->settings, err))
        return false;

    g_autofree char *name = g_strdup_printf("IO %s", object_id(object));
    struct loop_options loop_options = loop_settings_options(&iothread->settings, name);
    iothread->thread = loop_thread_new(&loop_options, err);
    return iothread->thread != NULL;
}

static void CO_FN iothread_co_destroy(struct object *object)
{
    struct iothread *iothread = object_state(object);

    co_loop_thread_free(iothread->thread);
}

static struct json *iothread_get(struct object *object, const struct object_property *property)
{
    struct iothread *iothread = object_state(object);

    return json_int(loop_settings_get(&iothread->settings, property->index));
}

static bool iothread_set(struct object *object, const struct object_property *property, const struct json *value,
                         struct error **err)
{
    struct iothread *iothread = object_state(object);

    return loop_settings_change(&iothread->settings, property->index, value, loop_thread_loop(iothread->thread), err);
}

#define SETTING(setting, text, about)                                                                                  \
    {                                                                                                                  \
        .name = text, .type = "int", .description = about, .index = setting, .get = iothread_get,                      \
        .co_set = iothread_set                                                                                         \
    }

static const struct object_property properties[] = {
    SETTING(LOOP_SETTING_POLL_MAX_NS, "poll-max-ns", "longest busy polling before sleeping, in ns; 0: none"),
    SETTING(LOOP_SETTING_POLL_GROW, "poll-grow", "factor by which polling grows; 0: the default"),
    SETTING(LOOP_SETTING_POLL_SHRINK, "poll-shrink",
            "divisor by which polling shrinks; 0: it stops when it does not pay"),
    SETTING(LOOP_SETTING_AIO_MAX_BATCH, "aio-max-batch", "most I/O requests handed over in one go; 0: the default"),
    SETTING(LOOP_SETTING_THREAD_POOL_MIN, "thread-pool-min", "worker threads kept when idle"),
    SETTING(LOOP_SETTING_THREAD_POOL_MAX, "thread-pool-max", "worker threads at most"),
    {.name = NULL},
};

struct loop *iothread_loop(struct object *object)
{
    struct iothread *iothread = object_state(object);

    assert(object_get_class(object) == &iothread_class);
    return loop_thread_loop(iothread->thread);
}

struct loop *iothread_hold_loop(struct object_registry *registry, const char *id, struct object **ret_object,
                                struct error **err)
{
    struct object *object = object_find(registry, id);

    if (!object || object_get_class(object) != &iothread_class) {
        error_set(err, "iothread \"%s\" not found", id);
        return NULL;
    }
    *ret_object = object_hold(object);
    return iothread_loop(object);
}

const struct object_class iothread_class = {
    .type = OBJECT_TYPE_IOTHREAD,
    .state_size = sizeof(struct iothread),
    .properties = properties,
    .co_create = iothread_co_create,
    .co_destroy = iothread_co_destroy,
};
