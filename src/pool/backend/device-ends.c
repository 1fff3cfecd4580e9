/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/backend/device-ends.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "pool/pool-error.h"

enum { END_BYTES = 1 << 20 };

static int CO_FN co_clear(int fd, void *zeroes)
{
    int64_t size = co_file_seek(fd, 0, SEEK_END);
    struct stat status;
    uint64_t last;
    int ret = co_file_stat(fd, &status);

    if (ret || size < 0)
        return ret ? ret : (int)size;
    /* A file of that name would lose what it has. */
    if (!S_ISBLK(status.st_mode))
        return -ENOTBLK;
    last = (uint64_t)size > END_BYTES ? (uint64_t)size - END_BYTES : 0;
    ret = co_file_write_exact(fd, zeroes, MIN((size_t)size, (size_t)END_BYTES), 0);
    if (!ret && last)
        ret = co_file_write_exact(fd, zeroes, END_BYTES, last);
    return ret ? ret : co_file_sync(fd, true);
}

bool CO_FN co_device_clear_ends(const char *device, struct pool_error **err)
{
    /* What is mounted, or part of a volume group that is in use, is not free to be cleared. */
    AUTO(fd) fd = co_file_open(device, O_RDWR | O_EXCL | O_NONBLOCK, 0);
    void *zeroes;
    int ret = -ENOMEM;

    if (fd < 0)
        return pool_error_set_errno(err, fd, "cannot open device '%s'", device);
    zeroes = loop_buffer_get(END_BYTES);
    if (zeroes) {
        memset(zeroes, 0, END_BYTES);
        ret = co_clear(fd, zeroes);
        loop_buffer_put(zeroes, END_BYTES);
    }
    /* Nodes of partitions that are not there any more would be in the way. Not all devices can have any. */
    if (!ret)
        (void)co_file_ioctl(fd, BLKRRPART, NULL);
    return !ret || pool_error_set_errno(err, ret, "cannot clear the label of device '%s'", device);
}
