/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How a file wants to be read and written past the page cache, and that its calls wait. */
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "loop/file.h"
#include "loop/loop.h"

int fd_set_blocking(int fd)
{
    int flags;

    if (loop_get_backend(loop_current()) == LOOP_SIM)
        return 0;
    flags = fcntl(fd, F_GETFL);
    return flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0 ? -errno : 0;
}

bool fd_is_writable(int fd)
{
    int flags;

    if (loop_get_backend(loop_current()) == LOOP_SIM)
        return true;
    flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_ACCMODE) != O_RDONLY;
}

int fd_set_direct(int fd, bool direct)
{
    int flags;

    if (loop_get_backend(loop_current()) == LOOP_SIM)
        return 0;
    flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    return fcntl(fd, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT) < 0 ? -errno : 0;
}

struct alignment_query {
    int fd;
    uint32_t memory;
    uint32_t offset;
};

static int alignment_work(void *opaque)
{
#ifdef STATX_DIOALIGN
    struct alignment_query *query = opaque;
    struct statx stat;

    /* By the system call's number: the C library's structure may be older than the system. */
    if (syscall(SYS_statx, query->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stat) < 0)
        return -errno;
    if (!(stat.stx_mask & STATX_DIOALIGN) || !stat.stx_dio_mem_align || !stat.stx_dio_offset_align)
        return -ENOTSUP;
    query->memory = stat.stx_dio_mem_align;
    query->offset = stat.stx_dio_offset_align;
    return 0;
#else
    return -ENOTSUP;
#endif
}

int CO_FN co_file_direct_alignment(int fd, uint32_t *ret_memory, uint32_t *ret_offset)
{
    struct alignment_query query = {.fd = fd};
    int result = loop_get_backend(loop_current()) == LOOP_SIM ? -ENOTSUP : co_worker_run(alignment_work, &query);

    if (result < 0)
        return result;
    *ret_memory = query.memory;
    *ret_offset = query.offset;
    return 0;
}
