/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pipe: the FIFOs PATH.in (what we read) and PATH.out (what we write), or one, PATH, for both. */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>

#include "base/error.h"
#include "chardev/chardev-internal.h"
#include "chardev/fifo.h"
#include "loop/file.h"
#include "loop/socket.h"

struct pipe_chardev {
    int in_fd;
    int out_fd; /* may be the same */
};

static bool CO_FN co_pipe_create(struct chardev *chardev, const struct chardev_backend *backend, struct error **err)
{
    const char *path = backend->u.pipe.data->device;
    g_autofree char *in_path = g_strdup_printf("%s.in", path);
    g_autofree char *out_path = g_strdup_printf("%s.out", path);
    AUTO(fd) in_fd = co_fifo_or_file_open(in_path, O_RDWR, 0);
    AUTO(fd) out_fd = co_fifo_or_file_open(out_path, O_RDWR, 0);
    struct pipe_chardev *pipe = chardev->state;

    if (in_fd >= 0 && out_fd >= 0) {
        pipe->in_fd = TAKE_FD(in_fd);
        pipe->out_fd = TAKE_FD(out_fd);
    } else {
        int fd = co_fifo_or_file_open(path, O_RDWR, 0);

        if (fd < 0)
            return error_set_errno(err, fd, "Could not open '%s'", path);
        pipe->in_fd = fd;
        pipe->out_fd = fd;
    }
    chardev_opened(chardev);
    return true;
}

static void CO_FN co_pipe_destroy(struct chardev *chardev)
{
    struct pipe_chardev *pipe = chardev->state;

    if (pipe->out_fd != pipe->in_fd)
        fd_close(pipe->out_fd);
    fd_close(pipe->in_fd);
}

static ssize_t CO_FN co_pipe_read(struct chardev_frontend *frontend, void *to, size_t size)
{
    struct pipe_chardev *pipe = frontend->chardev->state;

    return co_fd_read(pipe->in_fd, to, size);
}

static int CO_FN co_pipe_write(struct chardev *chardev, const void *from, size_t size)
{
    struct pipe_chardev *pipe = chardev->state;

    return co_fd_write_all(pipe->out_fd, from, size);
}

const struct chardev_ops chardev_pipe_ops = {
    .kind = CHARDEV_BACKEND_KIND_PIPE,
    .state_size = sizeof(struct pipe_chardev),
    .permanent = true,
    .co_create = co_pipe_create,
    .co_destroy = co_pipe_destroy,
    .co_read = co_pipe_read,
    .co_write = co_pipe_write,
};
