/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads, writes and flushes. The whole request in one call of the system is the fast way; what it leaves over is done
 * piece by piece.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>

#include "base/checked.h"
#include "driver/protocol/file/file.h"
#include "loop/loop.h"

static void limit_batch(const struct file_node *file)
{
    if (unlikely(file->batch_max))
        file_limit_batch(file->batch_max);
}

/* A walk through a request's memory. */
struct cursor {
    const struct io_vector *iov;
    unsigned segment;
    size_t skip; /* bytes of that segment */
};

static void cursor_advance(struct cursor *cursor, size_t bytes)
{
    while (bytes) {
        size_t left = cursor->iov->segments[cursor->segment].iov_len - cursor->skip;

        if (bytes < left) {
            cursor->skip += bytes;
            return;
        }
        bytes -= left;
        cursor->segment++;
        cursor->skip = 0;
    }
}

/* What comes next: all that is left, or first the rest of a segment that has been begun. */
static const struct iovec *cursor_segments(const struct cursor *cursor, struct iovec *rest, int *ret_count)
{
    const struct iovec *segment = &cursor->iov->segments[cursor->segment];

    if (!cursor->skip) {
        *ret_count = (int)(cursor->iov->count - cursor->segment);
        return segment;
    }
    *rest = (struct iovec){(char *)segment->iov_base + cursor->skip, segment->iov_len - cursor->skip};
    *ret_count = 1;
    return rest;
}

/*
 * The file ends inside a request, `done` bytes from its `offset`. What lies behind the end that we know is only there
 * to fill the last sector, and reads as zeroes; before it, somebody has cut the file, and the data is lost.
 */
static int read_past_end(const struct file_node *file, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                         size_t done)
{
    if (offset + done < file_known_length(file))
        return -EIO;
    io_vector_fill(iov, done, 0, bytes - done);
    return 0;
}

/* Goes on with a read of which the first call has brought only `done` bytes. */
static int CO_FN co_read_rest(struct file_node *file, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                              size_t done)
{
    struct cursor cursor = {.iov = iov};

    cursor_advance(&cursor, done);
    while (done < bytes) {
        struct iovec rest;
        int count;
        const struct iovec *segments = cursor_segments(&cursor, &rest, &count);
        ssize_t got;

        /* Direct I/O comes back with an odd count only at the end of the file. */
        if (!is_aligned(offset + done, file->request_alignment))
            return read_past_end(file, offset, bytes, iov, done);
        got = co_file_preadv(file->fd, segments, count, offset + done, file->engine);
        if (got < 0)
            return (int)got;
        if (got == 0)
            return read_past_end(file, offset, bytes, iov, done);
        cursor_advance(&cursor, (size_t)got);
        done += (size_t)got;
    }
    return 0;
}

int CO_FN file_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                         unsigned flags)
{
    struct file_node *file = node_state(node);
    ssize_t got;

    if (unlikely(flags & IO_PREFETCH)) {
        /* Only ever a hint: the system may not know it for this file. */
        (void)co_file_advise(file->fd, offset, bytes, POSIX_FADV_WILLNEED);
        return 0;
    }
    assert(iov->size == bytes);
    limit_batch(file);
    got = co_file_preadv(file->fd, iov->segments, (int)iov->count, offset, file->engine);
    if (likely(got == (ssize_t)bytes))
        return 0;
    return got < 0 ? (int)got : co_read_rest(file, offset, bytes, iov, (size_t)got);
}

/* The whole write, however many calls it takes. */
static int CO_FN co_write_all(struct file_node *file, uint64_t offset, const struct io_vector *iov, int rwf_flags)
{
    bool at_once = file->engine == FILE_ENGINE_DEFAULT && !file->direct;
    enum file_engine engine = at_once ? FILE_ENGINE_AT_ONCE : file->engine;
    struct cursor cursor = {.iov = iov};
    size_t done = 0;

    while (done < iov->size) {
        struct iovec rest;
        int count;
        const struct iovec *segments = cursor_segments(&cursor, &rest, &count);
        ssize_t put;

        limit_batch(file);
        if (likely(at_once && file->is_near && !rwf_flags))
            put = co_file_pwritev_paced(file->fd, segments, count, offset + done, &file->write_pace);
        else
            put = co_file_pwritev(file->fd, segments, count, offset + done, rwf_flags, engine);
        if (put < 0)
            return (int)put;
        /* The system has taken nothing of what it has room for: it would go on so for ever. */
        if (put == 0)
            return -ENOSPC;
        if (put == (ssize_t)(iov->size - done))
            return 0;
        cursor_advance(&cursor, (size_t)put);
        done += (size_t)put;
    }
    return 0;
}

static int CO_FN co_write_durably(struct file_node *file, uint64_t offset, const struct io_vector *iov)
{
    int result;

    if (file_supports(file, FILE_SYNC_WRITE)) {
        result = co_write_all(file, offset, iov, RWF_DSYNC);
        if (result != -EOPNOTSUPP)
            return result;
        file_set_unsupported(file, FILE_SYNC_WRITE);
    }
    result = co_write_all(file, offset, iov, 0);
    return result < 0 ? result : co_file_sync(file->fd, true);
}

int CO_FN file_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                          unsigned flags)
{
    struct file_node *file = node_state(node);
    bool grows = offset + bytes > file_known_length(file);
    int result;

    assert(iov->size == bytes);
    if (unlikely(grows))
        co_rwlock_read_lock(&file->growth);
    if (unlikely(flags & IO_FUA && !file->no_flush))
        result = co_write_durably(file, offset, iov);
    else
        result = co_write_all(file, offset, iov, 0);
    if (unlikely(grows)) {
        if (result == 0)
            file_raise_length(file, offset + bytes);
        co_rwlock_unlock(&file->growth);
    }
    file_status_written(file);
    return result;
}

void CO_FN file_co_flush_soon(struct node *node)
{
    const struct file_node *file = node_state(node);

    if (file->kind == FILE_REGULAR && !file->direct && !file->no_flush)
        co_file_write_back(file->fd);
}

bool file_is_near(const struct node *node)
{
    const struct file_node *file = node_state(node);

    return file->is_near && !file->direct;
}

int CO_FN file_co_flush(struct node *node)
{
    struct file_node *file = node_state(node);

    return file->no_flush ? 0 : co_file_sync(file->fd, true);
}
