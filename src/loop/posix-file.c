/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files by the system's calls, on worker threads: what the real back ends do where they have no better way. */
#include "loop/loop-internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* A call as handed to a worker; `result` where an int is too narrow. */
struct file_call {
    const struct file_request *request;
    const char *path;
    const char *other_path;
    void *argument;
    int fd;
    int other_fd;
    int flags;
    mode_t mode;
    uint64_t offset;
    uint64_t other_offset;
    uint64_t bytes;
    int64_t result;
};

/* --- opening and closing --- */

static int open_work(void *opaque)
{
    struct file_call *call = opaque;
    int fd;

    do {
        fd = open(call->path, call->flags | O_CLOEXEC, call->mode);
    } while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

int posix_co_file_open(const char *path, int flags, mode_t mode)
{
    struct file_call call = {.path = path, .flags = flags, .mode = mode};

    return co_worker_pool_run(open_work, &call);
}

void posix_file_close(int fd)
{
    int failed = close(fd);

    assert(!failed || errno != EBADF);
}

/* --- data --- */

ssize_t posix_transfer(const struct file_request *request)
{
    off_t offset = (off_t)request->offset;
    ssize_t moved;

    do {
        if (request->write)
            moved = pwritev2(request->fd, request->iov, request->iov_count, offset, request->rwf_flags);
        else
            moved = preadv2(request->fd, request->iov, request->iov_count, offset, request->rwf_flags);
    } while (moved < 0 && errno == EINTR);
    return moved < 0 ? -errno : moved;
}

static int transfer_work(void *opaque)
{
    struct file_call *call = opaque;

    call->result = posix_transfer(call->request);
    return 0;
}

ssize_t co_posix_transfer(const struct file_request *request)
{
    struct file_call call = {.request = request};

    co_worker_pool_run(transfer_work, &call);
    return (ssize_t)call.result;
}

ssize_t file_read_blocking(int fd, void *to, size_t size, uint64_t offset)
{
    size_t done = 0;

    while (done < size) {
        ssize_t got = pread(fd, (char *)to + done, size - done, (off_t)(offset + done));

        if (got < 0 && errno != EINTR)
            return -errno;
        if (!got)
            break;
        if (got > 0)
            done += (size_t)got;
    }
    return (ssize_t)done;
}

int file_resize_blocking(int fd, uint64_t length, uint64_t allocated)
{
    int failed;

    do {
        failed = ftruncate(fd, (off_t)length);
    } while (failed && errno == EINTR);
    while (!failed && allocated) {
        failed = fallocate(fd, 0, 0, (off_t)allocated);
        if (!failed || errno != EINTR)
            break;
        failed = 0;
    }
    if (!failed)
        return 0;
    return errno == ENOSYS ? -EOPNOTSUPP : -errno;
}

static int sync_work(void *opaque)
{
    const struct file_call *call = opaque;
    int failed;

    do {
        failed = call->flags ? fdatasync(call->fd) : fsync(call->fd);
    } while (failed && errno == EINTR);
    return failed ? -errno : 0;
}

int posix_co_file_sync(int fd, bool data_only)
{
    struct file_call call = {.fd = fd, .flags = data_only};

    return co_worker_pool_run(sync_work, &call);
}

static int allocate_work(void *opaque)
{
    const struct file_call *call = opaque;
    int failed;

    do {
        failed = fallocate(call->fd, call->flags, (off_t)call->offset, (off_t)call->bytes);
    } while (failed && errno == EINTR);
    return failed ? -errno : 0;
}

int posix_co_file_allocate(int fd, int mode, uint64_t offset, uint64_t bytes)
{
    struct file_call call = {.fd = fd, .flags = mode, .offset = offset, .bytes = bytes};

    return co_worker_pool_run(allocate_work, &call);
}

static int truncate_work(void *opaque)
{
    const struct file_call *call = opaque;
    int failed;

    do {
        failed = ftruncate(call->fd, (off_t)call->bytes);
    } while (failed && errno == EINTR);
    return failed ? -errno : 0;
}

int posix_co_file_truncate(int fd, uint64_t length)
{
    struct file_call call = {.fd = fd, .bytes = length};

    return co_worker_pool_run(truncate_work, &call);
}

static int copy_range_work(void *opaque)
{
    struct file_call *call = opaque;
    off_t from = (off_t)call->offset;
    off_t to = (off_t)call->other_offset;
    ssize_t moved;

    do {
        moved = copy_file_range(call->fd, &from, call->other_fd, &to, call->bytes, 0);
    } while (moved < 0 && errno == EINTR);
    call->result = moved < 0 ? -errno : moved;
    return 0;
}

ssize_t posix_co_file_copy_range(int from, uint64_t from_offset, int to, uint64_t to_offset, size_t bytes)
{
    struct file_call call = {
        .fd = from, .offset = from_offset, .other_fd = to, .other_offset = to_offset, .bytes = bytes};

    co_worker_pool_run(copy_range_work, &call);
    return (ssize_t)call.result;
}

/* --- what files are like --- */

static int stat_work(void *opaque)
{
    struct file_call *call = opaque;

    return fstat(call->fd, call->argument) ? -errno : 0;
}

int posix_co_file_stat(int fd, struct stat *ret)
{
    struct file_call call = {.fd = fd, .argument = ret};

    return co_worker_pool_run(stat_work, &call);
}

static int seek_work(void *opaque)
{
    struct file_call *call = opaque;

    call->result = lseek(call->fd, (off_t)call->offset, call->flags);
    if (call->result < 0)
        call->result = -errno;
    return 0;
}

int64_t posix_co_file_seek(int fd, int64_t offset, int whence)
{
    struct file_call call = {.fd = fd, .offset = (uint64_t)offset, .flags = whence};

    co_worker_pool_run(seek_work, &call);
    return call.result;
}

static int advise_work(void *opaque)
{
    const struct file_call *call = opaque;

    return -posix_fadvise(call->fd, (off_t)call->offset, (off_t)call->bytes, call->flags);
}

int posix_co_file_advise(int fd, uint64_t offset, uint64_t bytes, int advice)
{
    struct file_call call = {.fd = fd, .offset = offset, .bytes = bytes, .flags = advice};

    return co_worker_pool_run(advise_work, &call);
}

static int ioctl_work(void *opaque)
{
    const struct file_call *call = opaque;
    int result;

    do {
        result = ioctl(call->fd, (unsigned long)call->offset, call->argument);
    } while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : result;
}

int posix_co_file_ioctl(int fd, unsigned long request, void *argument)
{
    struct file_call call = {.fd = fd, .offset = request, .argument = argument};

    return co_worker_pool_run(ioctl_work, &call);
}

static int unlink_work(void *opaque)
{
    const struct file_call *call = opaque;

    return unlink(call->path) ? -errno : 0;
}

int posix_co_file_unlink(const char *path)
{
    struct file_call call = {.path = path};

    return co_worker_pool_run(unlink_work, &call);
}

static int rename_work(void *opaque)
{
    const struct file_call *call = opaque;

    return rename(call->path, call->other_path) ? -errno : 0;
}

int posix_co_file_rename(const char *from, const char *to)
{
    struct file_call call = {.path = from, .other_path = to};

    return co_worker_pool_run(rename_work, &call);
}

/* --- locks --- */

static struct flock lock_range(uint64_t start, uint64_t length, enum file_lock lock)
{
    static const short types[] = {
        [FILE_LOCK_NONE] = F_UNLCK,
        [FILE_LOCK_SHARED] = F_RDLCK,
        [FILE_LOCK_EXCLUSIVE] = F_WRLCK,
    };

    /* Open-file-description locks want l_pid to be 0. */
    return (struct flock){.l_type = types[lock], .l_whence = SEEK_SET, .l_start = (off_t)start, .l_len = (off_t)length};
}

int posix_file_lock_set(int fd, uint64_t start, uint64_t length, enum file_lock lock)
{
    struct flock range = lock_range(start, length, lock);

    if (!fcntl(fd, F_OFD_SETLK, &range))
        return 0;
    return errno == EACCES ? -EAGAIN : -errno;
}

int posix_file_lock_test(int fd, uint64_t start, uint64_t length, enum file_lock lock, pid_t *ret_pid)
{
    struct flock range = lock_range(start, length, lock);

    assert(lock != FILE_LOCK_NONE);
    if (fcntl(fd, F_OFD_GETLK, &range))
        return -errno;
    if (range.l_type == F_UNLCK)
        return 0;
    if (ret_pid)
        *ret_pid = range.l_pid > 0 ? range.l_pid : 0;
    return 1;
}
