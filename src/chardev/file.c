/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file: output goes to one file, input, if any, comes from another, until its end. */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>

#include "base/error.h"
#include "chardev/chardev-internal.h"
#include "chardev/fifo.h"
#include "loop/file.h"
#include "loop/socket.h"

struct file_chardev {
    int in_fd; /* -1: no input */
    int out_fd;
};

static bool CO_FN co_file_chardev_create(struct chardev *chardev, const struct chardev_backend *backend,
                                         struct error **err)
{
    const struct chardev_file *options = backend->u.file.data;
    struct file_chardev *file = chardev->state;
    int output = O_CREAT | (options->has_append && options->append ? O_APPEND : O_TRUNC);
    AUTO(fd) in_fd = -1;

    if (options->in) {
        in_fd = co_fifo_or_file_open(options->in, O_RDONLY, 0);
        if (in_fd < 0)
            return error_set_errno(err, in_fd, "Could not open '%s'", options->in);
    }
    file->out_fd = co_fifo_or_file_open(options->out, O_WRONLY | output, 0666);
    if (file->out_fd < 0)
        return error_set_errno(err, file->out_fd, "Could not open '%s'", options->out);
    file->in_fd = TAKE_FD(in_fd);
    chardev_opened(chardev);
    return true;
}

static void CO_FN co_file_chardev_destroy(struct chardev *chardev)
{
    struct file_chardev *file = chardev->state;

    fd_close(file->in_fd);
    fd_close(file->out_fd);
}

static ssize_t CO_FN co_file_chardev_read(struct chardev_frontend *frontend, void *to, size_t size)
{
    struct file_chardev *file = frontend->chardev->state;

    return file->in_fd < 0 ? co_frontend_wait_end(frontend) : co_fd_read(file->in_fd, to, size);
}

static int CO_FN co_file_chardev_write(struct chardev *chardev, const void *from, size_t size)
{
    struct file_chardev *file = chardev->state;

    return co_fd_write_all(file->out_fd, from, size);
}

const struct chardev_ops chardev_file_ops = {
    .kind = CHARDEV_BACKEND_KIND_FILE,
    .state_size = sizeof(struct file_chardev),
    .permanent = true,
    .co_create = co_file_chardev_create,
    .co_destroy = co_file_chardev_destroy,
    .co_read = co_file_chardev_read,
    .co_write = co_file_chardev_write,
};
