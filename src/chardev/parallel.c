/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* parallel: a parallel port of the host, claimed for as long as the chardev lives. Output only, as for a printer. */
#include <errno.h>
#include <fcntl.h>
#include <linux/ppdev.h>
#include <sys/ioctl.h>

#include "base/error.h"
#include "chardev/chardev-internal.h"
#include "loop/file.h"
#include "loop/socket.h"

struct parallel_chardev {
    int fd;
};

static bool CO_FN co_parallel_create(struct chardev *chardev, const struct chardev_backend *backend, struct error **err)
{
    const char *path = backend->u.parallel.data->device;
    struct parallel_chardev *parallel = chardev->state;
    AUTO(fd) fd = co_file_open(path, O_RDWR | O_NOCTTY | O_NONBLOCK, 0);
    int result;

    if (fd < 0)
        return error_set_errno(err, fd, "Could not open '%s'", path);
    result = co_file_ioctl(fd, PPCLAIM, NULL);
    if (result < 0)
        return error_set_errno(err, result, "not a parallel port");
    parallel->fd = TAKE_FD(fd);
    chardev_opened(chardev);
    return true;
}

static void CO_FN co_parallel_destroy(struct chardev *chardev)
{
    struct parallel_chardev *parallel = chardev->state;

    (void)co_file_ioctl(parallel->fd, PPRELEASE, NULL);
    fd_close(parallel->fd);
}

static int CO_FN co_parallel_write(struct chardev *chardev, const void *from, size_t size)
{
    struct parallel_chardev *parallel = chardev->state;

    return co_fd_write_all(parallel->fd, from, size);
}

const struct chardev_ops chardev_parallel_ops = {
    .kind = CHARDEV_BACKEND_KIND_PARALLEL,
    .state_size = sizeof(struct parallel_chardev),
    .permanent = true,
    .co_create = co_parallel_create,
    .co_destroy = co_parallel_destroy,
    .co_write = co_parallel_write,
};
