/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* main-loop: it makes nothing, but gives the settings of the main thread's loop a place. There is one, and it stays. */
#include "object/main-loop.h"

#include "base/error.h"
#include "object/loop-options.h"
#include "object/object.h"
#include "schema/json.h"

struct main_loop {
    struct loop *loop;
    struct loop_settings settings; /* main loop; the loop has a copy */
};

static bool exists(struct object_registry *registry)
{
    for (size_t i = 0; i < object_count(registry); i++) {
        if (object_get_class(object_at(registry, i)) == &main_loop_class)
            return true;
    }
    return false;
}

static bool CO_FN main_loop_co_create(struct object *object, const struct object_options *options, struct error **err)
{
    struct main_loop *state = object_state(object);
    const struct main_loop_properties *wish = &options->u.main_loop;

    if (exists(object_get_registry(object)))
        return error_set(err, "only one main-loop instance allowed");
    state->loop = object_registry_loop(object_get_registry(object));
    state->settings = (struct loop_settings){
        .poll_max_ns = LOOP_POLL_MAX_NS_DEFAULT,
        .aio_max_batch = wish->aio_max_batch,
        .thread_pool_min = wish->thread_pool_min,
        .thread_pool_max = wish->has_thread_pool_max ? wish->thread_pool_max : LOOP_SETTINGS_THREADS_MAX,
    };
    if (!loop_settings_check(&state->settings, err))
        return false;
    struct loop_options loop_options = loop_settings_options(&state->settings, NULL);
    return loop_configure(state->loop, &loop_options, err);
}

static bool main_loop_can_delete(struct object *object, struct error **err)
{
    return error_set(err, "object '%s' is in use, can not be deleted", object_id(object));
}

static struct json *main_loop_get(struct object *object, const struct object_property *property)
{
    struct main_loop *state = object_state(object);

    return json_int(loop_settings_get(&state->settings, property->index));
}

static bool main_loop_set(struct object *object, const struct object_property *property, const struct json *value,
                          struct error **err)
{
    struct main_loop *state = object_state(object);

    return loop_settings_change(&state->settings, property->index, value, state->loop, err);
}

#define SETTING(setting, text, about)                                                                                  \
    {                                                                                                                  \
        .name = text, .type = "int", .description = about, .index = setting, .get = main_loop_get,                     \
        .co_set = main_loop_set                                                                                        \
    }

static const struct object_property properties[] = {
    SETTING(LOOP_SETTING_AIO_MAX_BATCH, "aio-max-batch", "most I/O requests handed over in one go; 0: the default"),
    SETTING(LOOP_SETTING_THREAD_POOL_MIN, "thread-pool-min", "worker threads kept when idle"),
    SETTING(LOOP_SETTING_THREAD_POOL_MAX, "thread-pool-max", "worker threads at most"),
    {.name = NULL},
};

const struct object_class main_loop_class = {
    .type = OBJECT_TYPE_MAIN_LOOP,
    .state_size = sizeof(struct main_loop),
    .properties = properties,
    .co_create = main_loop_co_create,
    .can_delete = main_loop_can_delete,
};
