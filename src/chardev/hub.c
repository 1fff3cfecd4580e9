/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hub: several chardevs, the bases, for one front end. Output goes to all of them that somebody is at, the slowest one
 * setting the pace; input comes from any.
 *
 * Each base has a coroutine, its pump, that reads it. A session of the hub lasts while a base has one, and then until
 * the front end has let go of it.
 */
#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "chardev/chardev-internal.h"
#include "loop/loop.h"

enum { HUB_INPUT_MAX = 4096 };

struct hub_base {
    struct chardev *hub;
    struct chardev_frontend *frontend; /* of the base */
    struct co_task *pump;
    char input[HUB_INPUT_MAX]; /* not read yet */
    size_t from;
    size_t to;
    bool talking; /* its input has not ended */
};

struct hub_chardev {
    struct hub_base *bases[CHARDEV_HUB_MAX];
    unsigned count;
    unsigned next; /* base whose input comes first */
};

static struct hub_chardev *hub_of(const struct chardev *chardev)
{
    assert(chardev->ops == &chardev_hub_ops);
    return chardev->state;
}

static bool hub_talking(const struct hub_chardev *hub)
{
    for (unsigned i = 0; i < hub->count; i++) {
        if (hub->bases[i]->talking)
            return true;
    }
    return false;
}

/* --- the front end --- */

/* What the bases have in turn, as far as it is there; 0: nothing. */
static size_t hub_take(struct hub_chardev *hub, void *to, size_t size)
{
    for (unsigned i = 0; i < hub->count; i++) {
        struct hub_base *base = hub->bases[(hub->next + i) % hub->count];
        size_t moved = MIN(size, base->to - base->from);

        if (!moved)
            continue;
        memcpy(to, base->input + base->from, moved);
        base->from += moved;
        hub->next = (hub->next + i + 1) % hub->count;
        return moved;
    }
    return 0;
}

static ssize_t CO_FN co_hub_read(struct chardev_frontend *frontend, void *to, size_t size)
{
    struct chardev *chardev = frontend->chardev;
    uint64_t session = chardev->session;

    for (;;) {
        size_t moved = hub_take(hub_of(chardev), to, size);
        int result;

        if (moved) {
            co_condition_broadcast(&chardev->changed);
            return (ssize_t)moved;
        }
        if (!chardev->open || chardev->session != session || !hub_talking(hub_of(chardev)))
            return 0;
        result = co_condition_wait(&chardev->changed, NULL);
        if (result < 0)
            return result;
    }
}

static int CO_FN co_hub_write(struct chardev *chardev, const void *from, size_t size)
{
    struct hub_chardev *hub = hub_of(chardev);
    int result = -EPIPE;

    for (unsigned i = 0; i < hub->count; i++) {
        int one = co_chardev_write(hub->bases[i]->frontend, from, size);

        if (one == -ECANCELED || one == -ETIMEDOUT)
            return one;
        result = one ? result : 0;
    }
    return result;
}

static void hub_hang_up(struct chardev_frontend *frontend)
{
    struct hub_chardev *hub = hub_of(frontend->chardev);

    bool stays = false;

    chardev_closed(frontend->chardev);
    for (unsigned i = 0; i < hub->count; i++) {
        struct hub_base *base = hub->bases[i];

        if (base->frontend->chardev->ops->hang_up)
            chardev_hang_up(base->frontend);
        else
            stays = stays || base->talking;
    }
    if (stays)
        chardev_opened(frontend->chardev);
}

/* --- pumps --- */

/* Hands on all input of the base: 0 at its end, or -errno. */
static int CO_FN co_hub_pump_input(struct hub_base *base)
{
    for (;;) {
        ssize_t size;

        if (base->from == base->to)
            base->from = base->to = 0;
        if (base->to == HUB_INPUT_MAX) {
            int result = co_condition_wait(&base->hub->changed, NULL);

            if (result < 0)
                return result;
            continue;
        }
        size = co_chardev_read(base->frontend, base->input + base->to, HUB_INPUT_MAX - base->to);
        if (size <= 0)
            return (int)size;
        base->to += (size_t)size;
        co_condition_broadcast(&base->hub->changed);
    }
}

static void CO_FN co_hub_pump(void *opaque)
{
    struct hub_base *base = opaque;
    struct chardev *chardev = base->hub;

    while (!co_chardev_wait_open(base->frontend)) {
        uint64_t session;
        int result;

        base->talking = true;
        base->from = base->to = 0;
        if (!chardev->open)
            chardev_opened(chardev);
        result = co_hub_pump_input(base);
        session = chardev->session;
        base->talking = false;
        co_condition_broadcast(&chardev->changed);
        /* The last one waits for its answer: until the front end hangs up, or somebody else begins to talk. */
        while (result >= 0 && chardev->open && chardev->session == session && chardev->frontend_count &&
               !hub_talking(hub_of(chardev)))
            result = co_condition_wait(&chardev->changed, NULL);
        chardev_hang_up(base->frontend);
        if (!hub_talking(hub_of(chardev)) && chardev->session == session)
            chardev_closed(chardev);
    }
}

/* --- life --- */

static void CO_FN co_hub_base_free(struct hub_base *base)
{
    if (base->pump)
        co_task_cancel(base->pump);
    co_task_join(base->pump);
    co_chardev_release(base->frontend);
    g_free(base);
}

static void CO_FN co_hub_destroy(struct chardev *chardev)
{
    struct hub_chardev *hub = hub_of(chardev);

    while (hub->count)
        co_hub_base_free(hub->bases[--hub->count]);
}

static bool hub_claim(struct chardev *chardev, const char *id, struct error **err)
{
    struct hub_chardev *hub = hub_of(chardev);
    struct chardev *base_chardev = chardev_find(chardev->registry, id);
    struct chardev_frontend *frontend;
    struct hub_base *base;

    if (!base_chardev)
        return error_set(err, "hub: chardev can't be found by id '%s'", id);
    frontend = chardev_claim_for(base_chardev, chardev, err);
    if (!frontend)
        return false;
    base = g_new0(struct hub_base, 1);
    base->hub = chardev;
    base->frontend = frontend;
    hub->bases[hub->count++] = base;
    return true;
}

static bool CO_FN co_hub_create(struct chardev *chardev, const struct chardev_backend *backend, struct error **err)
{
    const struct string_array *ids = backend->u.hub.data->chardevs;
    struct hub_chardev *hub = hub_of(chardev);

    if (!ids->count)
        return error_set(err, "hub: 'chardevs' list is empty");
    if (ids->count > CHARDEV_HUB_MAX)
        return error_set(err, "hub: too many uses of chardevs: %zu, maximum is %d", ids->count, CHARDEV_HUB_MAX);
    for (size_t i = 0; i < ids->count; i++) {
        if (!hub_claim(chardev, ids->items[i], err)) {
            co_hub_destroy(chardev);
            return false;
        }
    }
    for (unsigned i = 0; i < hub->count; i++)
        hub->bases[i]->pump = co_task_start(loop_current(), co_hub_pump, hub->bases[i]);
    return true;
}

static void CO_FN co_hub_send_break(struct chardev *chardev)
{
    struct hub_chardev *hub = hub_of(chardev);

    for (unsigned i = 0; i < hub->count; i++) {
        struct chardev *base = hub->bases[i]->frontend->chardev;

        if (base->ops->co_send_break)
            base->ops->co_send_break(base);
    }
}

const struct chardev_ops chardev_hub_ops = {
    .kind = CHARDEV_BACKEND_KIND_HUB,
    .state_size = sizeof(struct hub_chardev),
    .co_create = co_hub_create,
    .co_destroy = co_hub_destroy,
    .co_read = co_hub_read,
    .co_write = co_hub_write,
    .hang_up = hub_hang_up,
    .co_send_break = co_hub_send_break,
};
