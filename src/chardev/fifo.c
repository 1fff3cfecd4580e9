/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* FIFOs that we open without waiting for somebody at the other end. */
#include "chardev/fifo.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <sys/stat.h>

#include "loop/file.h"

/* The FIFO that `fd` is, which is closed, opened for both directions; or -errno. */
static int CO_FN co_fifo_reopen(int fd)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
    int both = co_file_open(path, O_RDWR | O_NOCTTY | O_NONBLOCK, 0);

    fd_close(fd);
    return both;
}

int co_fifo_or_file_open(const char *path, int flags, mode_t mode)
{
    struct stat status;
    int fd = co_file_open(path, flags | O_NOCTTY | O_NONBLOCK, mode);
    int result;

    /* A FIFO that nobody reads cannot be opened for writing alone. */
    if (fd == -ENXIO)
        return co_file_open(path, O_RDWR | O_NOCTTY | O_NONBLOCK, 0);
    if (fd < 0)
        return fd;
    result = co_file_stat(fd, &status);
    if (result < 0) {
        fd_close(fd);
        return result;
    }
    return S_ISFIFO(status.st_mode) ? co_fifo_reopen(fd) : fd;
}
