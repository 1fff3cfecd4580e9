/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pty: a new pseudo-terminal, whose other side is opened by whom it may concern. A session lasts while somebody has it
 * open. The kernel tells of an end by hanging up the terminal, but of a beginning only by inotify.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <limits.h>
#include <poll.h>
#include <pty.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <termios.h>
#include <unistd.h>

#include "base/error.h"
#include "chardev/chardev-internal.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "loop/socket.h"

struct pty_chardev {
    int master_fd;
    int inotify_fd;
    char *link;  /* to the terminal, made by us; NULL: none */
    bool ended;  /* this session: the terminal is closed, all input has been read */
    bool let_go; /* so too: the front end wants no more of it */
    struct co_task *keeper;
    struct co_task *watch; /* the keeper's; NULL: not needed */
};

/* --- sessions --- */

/* Whether somebody has the terminal open, or has left something to read: 1 or 0, or -errno. */
static int CO_FN co_pty_attended(const struct pty_chardev *pty)
{
    int ready = co_fd_poll(pty->master_fd, POLLIN | POLLOUT);

    if (ready < 0)
        return ready;
    return ready & POLLIN || !(ready & POLLHUP);
}

/* Waits until somebody opens the terminal, or has tried: 0 or -errno. */
static int CO_FN co_pty_await_open(const struct pty_chardev *pty)
{
    char events[sizeof(struct inotify_event) + NAME_MAX + 1];
    ssize_t size = co_fd_read(pty->inotify_fd, events, sizeof(events));

    return size < 0 ? (int)size : 0;
}

/* Whether there is something to read: 1 or 0, or -errno. */
static int CO_FN co_pty_has_input(const struct pty_chardev *pty)
{
    int ready = co_fd_poll(pty->master_fd, POLLIN | POLLOUT);

    return ready < 0 ? ready : !!(ready & POLLIN);
}

/* Notices that the terminal is closed again, while nobody reads; not while there is something to read. */
static void CO_FN co_pty_watch(void *opaque)
{
    struct chardev *chardev = opaque;
    struct pty_chardev *pty = chardev->state;

    if (co_fd_poll(pty->master_fd, POLLRDHUP) < 0)
        return;
    if (co_pty_has_input(pty) == 0)
        pty->ended = true;
    co_condition_broadcast(&chardev->changed);
}

static void CO_FN co_pty_watch_end(struct pty_chardev *pty)
{
    struct co_task *watch = TAKE(pty->watch);

    if (!watch)
        return;
    co_task_cancel(watch);
    co_task_join(watch);
}

/* Until the terminal is closed again and all has been read, as a reader finds out: 0 or -errno. */
static int CO_FN co_pty_await_close(struct chardev *chardev)
{
    struct pty_chardev *pty = chardev->state;
    int result = 0;

    while (result >= 0 && !pty->ended && !pty->let_go) {
        if (chardev->frontend_count)
            co_pty_watch_end(pty);
        else if (!pty->watch)
            pty->watch = co_task_start(loop_current(), co_pty_watch, chardev);
        if (!pty->ended && !pty->watch == !!chardev->frontend_count)
            result = co_condition_wait(&chardev->changed, NULL);
    }
    co_pty_watch_end(pty);
    return result;
}

/* Nobody can be thrown off a terminal: waits until it is closed, and drops what is still sent. 0 or -errno. */
static int CO_FN co_pty_ignore(const struct pty_chardev *pty)
{
    int result = co_fd_poll(pty->master_fd, POLLRDHUP);

    (void)tcflush(pty->master_fd, TCIFLUSH);
    return result;
}

static void CO_FN co_pty_keep(void *opaque)
{
    struct chardev *chardev = opaque;
    struct pty_chardev *pty = chardev->state;

    for (;;) {
        int result = co_pty_attended(pty);

        if (result == 0) {
            result = co_pty_await_open(pty);
        } else if (result > 0) {
            pty->ended = false;
            pty->let_go = false;
            chardev_opened(chardev);
            result = co_pty_await_close(chardev);
            chardev_closed(chardev);
            if (result >= 0 && pty->let_go && !pty->ended)
                result = co_pty_ignore(pty);
        }
        if (result < 0)
            return;
    }
}

/* --- data --- */

static void pty_end(struct chardev *chardev)
{
    struct pty_chardev *pty = chardev->state;

    pty->ended = true;
    co_condition_broadcast(&chardev->changed);
}

static ssize_t CO_FN co_pty_read(struct chardev_frontend *frontend, void *to, size_t size)
{
    struct chardev *chardev = frontend->chardev;
    struct pty_chardev *pty = chardev->state;
    ssize_t result = co_fd_read(pty->master_fd, to, size);

    if (result != 0 && result != -EIO)
        return result;
    pty_end(chardev);
    return 0;
}

static int CO_FN co_pty_write(struct chardev *chardev, const void *from, size_t size)
{
    struct pty_chardev *pty = chardev->state;
    int result = co_fd_write_all(pty->master_fd, from, size);

    if (result != -EIO)
        return result;
    pty_end(chardev);
    return -EPIPE;
}

static void pty_hang_up(struct chardev_frontend *frontend)
{
    struct pty_chardev *pty = frontend->chardev->state;

    pty->let_go = true;
    co_condition_broadcast(&frontend->chardev->changed);
}

/* --- life --- */

/* Switches off echo and all else that a terminal does to bytes; whoever opens it may think otherwise. */
static void pty_make_raw(const char *path)
{
    AUTO(fd) fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct termios raw;

    if (fd < 0 || tcgetattr(fd, &raw))
        return;
    cfmakeraw(&raw);
    (void)tcsetattr(fd, TCSANOW, &raw);
}

static bool pty_open(struct chardev *chardev, struct error **err)
{
    struct pty_chardev *pty = chardev->state;
    char path[PATH_MAX];

    pty->master_fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (pty->master_fd < 0 || grantpt(pty->master_fd) || unlockpt(pty->master_fd) ||
        ptsname_r(pty->master_fd, path, sizeof(path)))
        return error_set_errno(err, errno, "Failed to create PTY");
    chardev->pty = g_strdup(path);
    pty_make_raw(path);
    pty->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (pty->inotify_fd < 0 || inotify_add_watch(pty->inotify_fd, path, IN_OPEN) < 0)
        return error_set_errno(err, errno, "Failed to watch PTY '%s'", path);
    return true;
}

static bool pty_make_link(struct chardev *chardev, const char *link, struct error **err)
{
    struct pty_chardev *pty = chardev->state;

    if (!link)
        return true;
    if (symlink(chardev->pty, link))
        return error_set_errno(err, errno, "Failed to create PTY symlink '%s'", link);
    pty->link = g_strdup(link);
    return true;
}

static void CO_FN co_pty_done(struct pty_chardev *pty)
{
    if (pty->link)
        (void)co_file_unlink(pty->link);
    g_free(pty->link);
    fd_close(pty->inotify_fd);
    fd_close(pty->master_fd);
}

static bool CO_FN co_pty_create(struct chardev *chardev, const struct chardev_backend *backend, struct error **err)
{
    struct pty_chardev *pty = chardev->state;

    pty->master_fd = -1;
    pty->inotify_fd = -1;
    if (!pty_open(chardev, err) || !pty_make_link(chardev, backend->u.pty.data->path, err)) {
        co_pty_done(pty);
        return false;
    }
    pty->keeper = co_task_start(loop_current(), co_pty_keep, chardev);
    return true;
}

static void CO_FN co_pty_destroy(struct chardev *chardev)
{
    struct pty_chardev *pty = chardev->state;

    co_task_cancel(pty->keeper);
    co_task_join(pty->keeper);
    co_pty_done(pty);
}

static char *pty_describe(const struct chardev *chardev)
{
    return g_strdup_printf("pty:%s", chardev->pty);
}

const struct chardev_ops chardev_pty_ops = {
    .kind = CHARDEV_BACKEND_KIND_PTY,
    .state_size = sizeof(struct pty_chardev),
    .co_create = co_pty_create,
    .co_destroy = co_pty_destroy,
    .co_read = co_pty_read,
    .co_write = co_pty_write,
    .hang_up = pty_hang_up,
    .describe = pty_describe,
};
