/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mux: several front ends on one chardev, the base. All may write; input goes to the one in focus, which Ctrl-A c hands
 * to the next.
 *
 * One coroutine, the pump, is the base's reader. Keeps:
 * (1) a session of the mux lies within one of the base;
 * (2) when the base's input ends, the session lasts until each front end has let go of it, so that all can answer.
 */
#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "chardev/chardev-internal.h"
#include "chardev/mux-escape.h"
#include "loop/loop.h"

enum { MUX_INPUT_MAX = 4096, PUMP_PIECE = 4096 };

/* What a front end has not read yet. */
struct mux_port {
    char input[MUX_INPUT_MAX];
    size_t from;
    size_t to;
};

struct mux_chardev {
    struct chardev_frontend *base;
    struct co_task *pump;
    struct chardev_frontend *focus; /* NULL: there is no front end */
    struct mux_escape escape;
    bool input_ended; /* of this session */
    bool closing;     /* a front end wants this session to end */
    bool timestamps;
    bool at_line_start;
    int64_t timestamps_from_ns;
};

static struct mux_chardev *mux_of(const struct chardev *chardev)
{
    assert(chardev->ops == &chardev_mux_ops);
    return chardev->state;
}

/* --- front ends --- */

static void mux_attach(struct chardev_frontend *frontend)
{
    frontend->port = g_new0(struct mux_port, 1);
    mux_of(frontend->chardev)->focus = frontend;
}

/* The front end behind `from`, in a circle; NULL where there is no other. */
static struct chardev_frontend *next_frontend(const struct chardev *chardev, const struct chardev_frontend *from)
{
    for (unsigned i = 0; i < chardev->frontend_count; i++) {
        struct chardev_frontend *next = chardev->frontends[(i + 1) % chardev->frontend_count];

        if (chardev->frontends[i] == from)
            return next == from ? NULL : next;
    }
    return NULL;
}

static void mux_detach(struct chardev_frontend *frontend)
{
    struct mux_chardev *mux = mux_of(frontend->chardev);

    if (mux->focus == frontend)
        mux->focus = next_frontend(frontend->chardev, frontend);
    g_free(frontend->port);
}

static ssize_t CO_FN co_mux_read(struct chardev_frontend *frontend, void *to, size_t size)
{
    struct chardev *chardev = frontend->chardev;
    struct mux_chardev *mux = mux_of(chardev);
    struct mux_port *port = frontend->port;
    uint64_t session = chardev->session;
    size_t moved;

    while (port->from == port->to) {
        int result;

        if (!chardev->open || chardev->session != session || mux->input_ended)
            return 0;
        result = co_condition_wait(&chardev->changed, NULL);
        if (result < 0)
            return result;
    }
    moved = MIN(size, port->to - port->from);
    memcpy(to, port->input + port->from, moved);
    port->from += moved;
    co_condition_broadcast(&chardev->changed);
    return (ssize_t)moved;
}

/* "[00:01:02.345] ", since the time stamps were switched on. */
static void append_timestamp(const struct mux_chardev *mux, GString *text)
{
    int64_t ms = (loop_now_ns() - mux->timestamps_from_ns) / 1000000;

    g_string_append_printf(text, "[%02" PRId64 ":%02d:%02d.%03d] ", ms / 3600000, (int)(ms / 60000 % 60),
                           (int)(ms / 1000 % 60), (int)(ms % 1000));
}

static int CO_FN co_mux_write(struct chardev *chardev, const void *from, size_t size)
{
    struct mux_chardev *mux = mux_of(chardev);
    const char *bytes = from;
    GString *text;
    int result;

    if (!mux->timestamps) {
        mux->at_line_start = size ? bytes[size - 1] == '\n' : mux->at_line_start;
        return co_chardev_write(mux->base, from, size);
    }
    text = g_string_sized_new(size);
    for (size_t i = 0; i < size; i++) {
        if (mux->at_line_start)
            append_timestamp(mux, text);
        g_string_append_c(text, bytes[i]);
        mux->at_line_start = bytes[i] == '\n';
    }
    result = co_chardev_write(mux->base, text->str, text->len);
    g_string_free(text, TRUE);
    return result;
}

static void mux_hang_up(struct chardev_frontend *frontend)
{
    struct mux_chardev *mux = mux_of(frontend->chardev);

    if (mux->input_ended || !mux->base->chardev->ops->hang_up)
        return;
    mux->closing = true;
    chardev_hang_up(mux->base);
}

/* --- the pump --- */

static void mux_begin_session(struct chardev *chardev)
{
    struct mux_chardev *mux = mux_of(chardev);

    mux->input_ended = false;
    mux->closing = false;
    mux->at_line_start = true;
    mux_escape_begin(&mux->escape);
    for (unsigned i = 0; i < chardev->frontend_count; i++)
        *(struct mux_port *)chardev->frontends[i]->port = (struct mux_port){0};
    chardev_opened(chardev);
}

/* Hands input to the front end in focus, when there is one with room: 0, or -errno when the session is over. */
static int CO_FN co_mux_hand_over(struct chardev *chardev, const char *from, size_t size)
{
    struct mux_chardev *mux = mux_of(chardev);

    while (size) {
        struct mux_port *port = mux->focus ? mux->focus->port : NULL;
        size_t moved;

        if (mux->closing)
            return -EPIPE;
        if (port && port->from == port->to)
            port->from = port->to = 0;
        if (!port || port->to == MUX_INPUT_MAX) {
            int result = co_condition_wait(&chardev->changed, NULL);

            if (result < 0)
                return result;
            continue;
        }
        moved = MIN(size, MUX_INPUT_MAX - port->to);
        memcpy(port->input + port->to, from, moved);
        port->to += moved;
        from += moved;
        size -= moved;
        co_condition_broadcast(&chardev->changed);
    }
    return 0;
}

static void mux_switch_timestamps(struct mux_chardev *mux)
{
    mux->timestamps = !mux->timestamps;
    mux->timestamps_from_ns = loop_now_ns();
}

/* Does what the person at the other end asks for by Ctrl-A and a letter. */
static int CO_FN co_mux_obey(struct chardev *chardev, enum mux_action action)
{
    struct mux_chardev *mux = mux_of(chardev);
    struct chardev_frontend *next;
    struct chardev_registry *registry = chardev->registry;
    const char *help = mux_escape_help();

    switch (action) {
    case MUX_HELP:
        return co_chardev_write(mux->base, help, strlen(help));
    case MUX_NEXT:
        next = next_frontend(chardev, mux->focus);
        if (next)
            mux->focus = next;
        return 0;
    case MUX_BREAK:
        chardev_note_break(chardev);
        return 0;
    case MUX_TIMESTAMPS:
        mux_switch_timestamps(mux);
        return 0;
    case MUX_QUIT:
        if (registry->quit)
            registry->quit(registry->quit_opaque);
        return 0;
    case MUX_INPUT:
        break;
    }
    g_assert_not_reached();
}

/* All input of a session: 0 at its end, or -errno. */
static int CO_FN co_mux_pump_input(struct chardev *chardev)
{
    struct mux_chardev *mux = mux_of(chardev);
    g_autofree char *bytes = g_malloc(PUMP_PIECE);
    int result = 0;

    while (!result && !mux->closing) {
        ssize_t size = co_chardev_read(mux->base, bytes, PUMP_PIECE);

        if (size <= 0)
            return (int)size;
        for (size_t at = 0; !result && at < (size_t)size;) {
            struct mux_escape_found found;

            at += mux_escape_decode(&mux->escape, bytes + at, (size_t)size - at, &found);
            if (found.action == MUX_INPUT)
                result = co_mux_hand_over(chardev, found.input, found.input_size);
            else
                result = co_mux_obey(chardev, found.action);
        }
    }
    return result;
}

/* Whether a front end takes part in the session, or has not come to it yet. */
static bool mux_wanted(const struct chardev *chardev)
{
    for (unsigned i = 0; i < chardev->frontend_count; i++) {
        const struct chardev_frontend *frontend = chardev->frontends[i];

        if (frontend->session == chardev->session || frontend->last_session != chardev->session)
            return true;
    }
    return false;
}

static void CO_FN co_mux_pump(void *opaque)
{
    struct chardev *chardev = opaque;
    struct mux_chardev *mux = mux_of(chardev);

    while (!co_chardev_wait_open(mux->base)) {
        int result;

        mux_begin_session(chardev);
        result = co_mux_pump_input(chardev);
        mux->input_ended = true;
        co_condition_broadcast(&chardev->changed);
        while (!result && !mux->closing && mux_wanted(chardev))
            result = co_condition_wait(&chardev->changed, NULL);
        chardev_closed(chardev);
        chardev_hang_up(mux->base);
    }
}

/* --- life --- */

static bool CO_FN co_mux_create(struct chardev *chardev, const struct chardev_backend *backend, struct error **err)
{
    const char *id = backend->u.mux.data->chardev;
    struct chardev *base = chardev_find(chardev->registry, id);
    struct mux_chardev *mux = chardev->state;

    if (!base)
        return error_set(err, "mux: base chardev %s not found", id);
    mux->base = chardev_claim_for(base, chardev, err);
    if (!mux->base)
        return false;
    mux->pump = co_task_start(loop_current(), co_mux_pump, chardev);
    return true;
}

static void CO_FN co_mux_destroy(struct chardev *chardev)
{
    struct mux_chardev *mux = mux_of(chardev);

    co_task_cancel(mux->pump);
    co_task_join(mux->pump);
    co_chardev_release(mux->base);
}

static void CO_FN co_mux_send_break(struct chardev *chardev)
{
    struct chardev *base = mux_of(chardev)->base->chardev;

    if (base->ops->co_send_break)
        base->ops->co_send_break(base);
}

const struct chardev_ops chardev_mux_ops = {
    .kind = CHARDEV_BACKEND_KIND_MUX,
    .state_size = sizeof(struct mux_chardev),
    .frontends_max = CHARDEV_FRONTENDS_MAX,
    .co_create = co_mux_create,
    .co_destroy = co_mux_destroy,
    .attach = mux_attach,
    .detach = mux_detach,
    .co_read = co_mux_read,
    .co_write = co_mux_write,
    .hang_up = mux_hang_up,
    .co_send_break = co_mux_send_break,
};
