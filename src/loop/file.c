/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files: the way in to the running loop's back end, and what is made of its operations. */
#include "loop/file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <limits.h>
#include <string.h>

#include "base/error.h"
#include "loop/loop-internal.h"

static const struct loop_file_ops *file_ops(void)
{
    return loop_self()->ops->file;
}

int co_file_open(const char *path, int flags, mode_t mode)
{
    CO_ASSERT();
    return file_ops()->co_open(path, flags, mode);
}

void fd_close(int fd)
{
    struct loop *loop = loop_current();

    if (fd < 0)
        return;
    if (loop)
        loop->ops->file->close(fd);
    else
        posix_file_close(fd);
}

bool file_engine_available(enum file_engine engine, struct error **err)
{
    return engine == FILE_ENGINE_DEFAULT || file_ops()->engine_available(loop_self(), engine, err);
}

/* A read may find nothing in memory, and then others had better go on; so it is left to the loop in any case. */
static ssize_t CO_FN co_transfer_at_once(const struct file_request *request)
{
    if (request->write && loop_self()->may_block)
        return posix_transfer(request);
    return file_ops()->co_transfer(request, FILE_ENGINE_DEFAULT);
}

ssize_t co_file_preadv(int fd, const struct iovec *iov, int count, uint64_t offset, enum file_engine engine)
{
    struct file_request request = {.fd = fd, .iov = iov, .iov_count = count, .offset = offset};

    CO_ASSERT();
    assert(count > 0);
    assert(count <= IOV_MAX);
    assert(offset <= INT64_MAX);
    return engine == FILE_ENGINE_AT_ONCE ? co_transfer_at_once(&request) : file_ops()->co_transfer(&request, engine);
}

ssize_t co_file_pwritev(int fd, const struct iovec *iov, int count, uint64_t offset, int rwf_flags,
                        enum file_engine engine)
{
    struct file_request request = {
        .fd = fd, .write = true, .iov = iov, .iov_count = count, .offset = offset, .rwf_flags = rwf_flags};

    CO_ASSERT();
    assert(count > 0);
    assert(count <= IOV_MAX);
    assert(offset <= INT64_MAX);
    return engine == FILE_ENGINE_AT_ONCE ? co_transfer_at_once(&request) : file_ops()->co_transfer(&request, engine);
}

void file_limit_batch(uint32_t requests)
{
    loop_self()->batch_hint = requests;
}

/* Moves all of it, however often the system cuts. */
static int CO_FN co_transfer_exact(int fd, void *data, size_t size, uint64_t offset, bool write)
{
    size_t done = 0;

    while (done < size) {
        struct iovec iov = {.iov_base = (char *)data + done, .iov_len = MIN(size - done, (size_t)1 << 30)};
        ssize_t moved;

        if (write)
            moved = co_file_pwritev(fd, &iov, 1, offset + done, 0, FILE_ENGINE_DEFAULT);
        else
            moved = co_file_preadv(fd, &iov, 1, offset + done, FILE_ENGINE_DEFAULT);
        if (moved <= 0)
            return moved < 0 ? (int)moved : -EIO;
        done += (size_t)moved;
    }
    return 0;
}

int co_file_read_exact(int fd, void *to, size_t size, uint64_t offset)
{
    CO_ASSERT();
    return co_transfer_exact(fd, to, size, offset, false);
}

int co_file_write_exact(int fd, const void *from, size_t size, uint64_t offset)
{
    CO_ASSERT();
    return co_transfer_exact(fd, (void *)(uintptr_t)from, size, offset, true);
}

int co_file_sync(int fd, bool data_only)
{
    CO_ASSERT();
    return file_ops()->co_sync(fd, data_only);
}

int co_file_allocate(int fd, int mode, uint64_t offset, uint64_t bytes)
{
    CO_ASSERT();
    return file_ops()->co_allocate(fd, mode, offset, bytes);
}

int co_file_truncate(int fd, uint64_t length)
{
    CO_ASSERT();
    return file_ops()->co_truncate(fd, length);
}

int co_file_stat(int fd, struct stat *ret)
{
    CO_ASSERT();
    return file_ops()->co_stat(fd, ret);
}

int64_t co_file_seek(int fd, int64_t offset, int whence)
{
    CO_ASSERT();
    return file_ops()->co_seek(fd, offset, whence);
}

ssize_t co_file_copy_range(int from, uint64_t from_offset, int to, uint64_t to_offset, size_t bytes)
{
    CO_ASSERT();
    return file_ops()->co_copy_range(from, from_offset, to, to_offset, bytes);
}

int co_file_advise(int fd, uint64_t offset, uint64_t bytes, int advice)
{
    CO_ASSERT();
    return file_ops()->co_advise(fd, offset, bytes, advice);
}

int co_file_ioctl(int fd, unsigned long request, void *argument)
{
    CO_ASSERT();
    return file_ops()->co_ioctl(fd, request, argument);
}

int co_file_unlink(const char *path)
{
    CO_ASSERT();
    return file_ops()->co_unlink(path);
}

int co_file_rename(const char *from, const char *to)
{
    CO_ASSERT();
    return file_ops()->co_rename(from, to);
}

int file_lock_set(int fd, uint64_t start, uint64_t length, enum file_lock lock)
{
    struct loop *loop = loop_current();

    return loop ? loop->ops->file->lock_set(fd, start, length, lock) : posix_file_lock_set(fd, start, length, lock);
}

int file_lock_test(int fd, uint64_t start, uint64_t length, enum file_lock lock, pid_t *ret_pid)
{
    struct loop *loop = loop_current();

    return loop ? loop->ops->file->lock_test(fd, start, length, lock, ret_pid)
                : posix_file_lock_test(fd, start, length, lock, ret_pid);
}

/* Reads to the end, since what stat() says of pipes and /proc is nothing. */
static ssize_t CO_FN co_load_all(int fd, size_t limit, GByteArray *to)
{
    enum { PIECE = 64 * 1024 };

    for (;;) {
        guint before = to->len;
        ssize_t moved;

        g_byte_array_set_size(to, before + PIECE);
        moved = co_fd_read(fd, to->data + before, PIECE);
        if (moved < 0)
            return moved;
        g_byte_array_set_size(to, before + (guint)moved);
        if (!moved)
            return 0;
        if (to->len > limit)
            return -EFBIG;
    }
}

bool co_file_load(const char *path, size_t limit, char **ret_data, size_t *ret_size, struct error **err)
{
    AUTO(fd) fd = -1;
    g_autoptr(GByteArray) data = g_byte_array_new();
    ssize_t result;

    CO_ASSERT();
    assert(limit < INT32_MAX);
    fd = co_file_open(path, O_RDONLY, 0);
    if (fd < 0)
        return error_set_errno(err, fd, "Failed to open '%s'", path);
    result = co_load_all(fd, limit, data);
    if (result == -EFBIG)
        return error_set(err, "'%s' is larger than %zu bytes", path, limit);
    if (result < 0)
        return error_set_errno(err, (int)result, "Failed to read '%s'", path);
    *ret_size = data->len;
    g_byte_array_append(data, (const guint8 *)"", 1);
    *ret_data = (char *)g_byte_array_free(g_steal_pointer(&data), FALSE);
    return true;
}
