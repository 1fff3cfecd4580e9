/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Front ends: taking part in the sessions of a chardev, reading and writing. */
#include <assert.h>
#include <errno.h>
#include <glib.h>

#include "base/error.h"
#include "base/trace.h"
#include "chardev/chardev-internal.h"
#include "loop/coroutine.h"
#include "loop/socket.h"

struct chardev_frontend *chardev_claim_for(struct chardev *chardev, struct chardev *relay, struct error **err)
{
    unsigned limit = chardev->ops->frontends_max ? chardev->ops->frontends_max : 1;
    struct chardev_frontend *frontend;

    assert(limit <= CHARDEV_FRONTENDS_MAX);
    if (chardev->frontend_count >= limit) {
        error_set(err, "Device '%s' is in use", chardev->id);
        return NULL;
    }
    frontend = g_new0(struct chardev_frontend, 1);
    frontend->chardev = chardev;
    frontend->relay = relay;
    chardev->frontends[chardev->frontend_count++] = frontend;
    if (chardev->ops->attach)
        chardev->ops->attach(frontend);
    co_condition_broadcast(&chardev->changed);
    return frontend;
}

struct chardev_frontend *chardev_claim(struct chardev_registry *registry, const char *id, struct error **err)
{
    struct chardev *chardev = chardev_find(registry, id);

    if (!chardev) {
        error_set(err, "chardev \"%s\" not found", id);
        return NULL;
    }
    return chardev_claim_for(chardev, NULL, err);
}

static bool frontend_in_session(const struct chardev_frontend *frontend)
{
    const struct chardev *chardev = frontend->chardev;

    return frontend->session && chardev->open && chardev->session == frontend->session;
}

void chardev_hang_up(struct chardev_frontend *frontend)
{
    struct chardev *chardev = frontend->chardev;

    if (frontend_in_session(frontend) && chardev->ops->hang_up)
        chardev->ops->hang_up(frontend);
    frontend->session = 0;
    co_condition_broadcast(&chardev->changed);
}

void co_chardev_release(struct chardev_frontend *frontend)
{
    struct chardev *chardev;
    unsigned at = 0;

    if (!frontend)
        return;
    chardev = frontend->chardev;
    /* Who has said all it has to say must not keep the next one waiting until somebody becomes the front end. */
    if (frontend->input_ended)
        chardev_hang_up(frontend);
    while (chardev->frontends[at] != frontend) {
        at++;
        assert(at < chardev->frontend_count);
    }
    if (chardev->ops->detach)
        chardev->ops->detach(frontend);
    chardev->frontend_count--;
    for (; at < chardev->frontend_count; at++)
        chardev->frontends[at] = chardev->frontends[at + 1];
    chardev->frontends[chardev->frontend_count] = NULL;
    g_free(frontend);
    co_condition_broadcast(&chardev->changed);
}

bool chardev_in_use(const struct chardev *chardev)
{
    for (unsigned i = 0; i < chardev->frontend_count; i++) {
        const struct chardev *relay = chardev->frontends[i]->relay;

        if (!relay || chardev_in_use(relay))
            return true;
    }
    return false;
}

void chardev_opened(struct chardev *chardev)
{
    assert(!chardev->open);
    chardev->open = true;
    chardev->session++;
    TRACE(chardev_open, "chardev %s session %llu", chardev->id, (unsigned long long)chardev->session);
    co_condition_broadcast(&chardev->changed);
}

void chardev_closed(struct chardev *chardev)
{
    if (!chardev->open)
        return;
    chardev->open = false;
    TRACE(chardev_close, "chardev %s session %llu", chardev->id, (unsigned long long)chardev->session);
    co_condition_broadcast(&chardev->changed);
}

void chardev_note_break(struct chardev *chardev)
{
    chardev->break_count++;
    TRACE(chardev_break, "chardev %s", chardev->id);
}

/* Whether there is a session that the front end, which is in none, can take part in. */
static bool frontend_can_join(const struct chardev_frontend *frontend)
{
    const struct chardev *chardev = frontend->chardev;

    if (!chardev->open)
        return false;
    return chardev->ops->permanent ? !chardev->input_ended : chardev->session != frontend->last_session;
}

int co_chardev_wait_open(struct chardev_frontend *frontend)
{
    struct chardev *chardev = frontend->chardev;

    if (co_cancelled())
        return -ECANCELED;
    if (frontend_in_session(frontend) && !frontend->input_ended)
        return 0;
    chardev_hang_up(frontend);
    while (!frontend_can_join(frontend)) {
        int result = co_condition_wait(&chardev->changed, NULL);

        if (result < 0)
            return result;
    }
    frontend->session = chardev->session;
    frontend->last_session = chardev->session;
    frontend->input_ended = false;
    return 0;
}

ssize_t co_frontend_wait_end(struct chardev_frontend *frontend)
{
    while (frontend_in_session(frontend)) {
        int result = co_condition_wait(&frontend->chardev->changed, NULL);

        if (result < 0)
            return result;
    }
    return 0;
}

ssize_t co_chardev_read(struct chardev_frontend *frontend, void *to, size_t size)
{
    struct chardev *chardev = frontend->chardev;
    ssize_t result;

    assert(size > 0);
    if (!frontend_in_session(frontend) || frontend->input_ended)
        return 0;
    result = chardev->ops->co_read ? chardev->ops->co_read(frontend, to, size) : co_frontend_wait_end(frontend);
    assert(result <= (ssize_t)size);
    if (result > 0 || result == -ECANCELED || result == -ETIMEDOUT)
        return result;
    frontend->input_ended = true;
    if (chardev->ops->permanent)
        chardev->input_ended = true;
    return result;
}

int co_fd_write_all(int fd, const void *from, size_t size)
{
    const char *at = from;

    while (size) {
        ssize_t moved = co_fd_write(fd, at, size);

        if (moved <= 0)
            return moved < 0 ? (int)moved : -EIO;
        at += moved;
        size -= (size_t)moved;
    }
    return 0;
}

int co_chardev_write(struct chardev_frontend *frontend, const void *from, size_t size)
{
    struct chardev *chardev = frontend->chardev;
    int result = -EPIPE;

    co_mutex_lock(&chardev->write_mutex);
    if (frontend_in_session(frontend)) {
        result = chardev->ops->co_write ? chardev->ops->co_write(chardev, from, size) : 0;
        /* A log that cannot be written any more must not end the conversation that it is of. */
        if (!result && chardev->log_fd >= 0)
            (void)co_fd_write_all(chardev->log_fd, from, size);
    }
    co_mutex_unlock(&chardev->write_mutex);
    return result;
}
