/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The content of a volume as a stream. A volume is marked as in use only until its stream is open: a client that is
 * slow to read or write keeps nobody from the pool.
 *
 * An upload that is said to be finished is on the disk. So that there is little to wait for at the end, what has been
 * written is sent there all along.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io-vector.h"
#include "loop/file.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "pool/backend/wipe.h"
#include "pool/pool-error.h"
#include "pool/replace-file.h"
#include "pool/storage-internal.h"
#include "pool/volume-job.h"

enum {
    STREAM_SPARSE = 1,
    LOOK_BYTES = 256 * 1024,
    WRITE_BACK_BYTES = 8 * 1024 * 1024, /* so much written: it is sent to the disk */
};

struct volume_stream {
    struct pool *pool; /* referenced */
    int fd;
    uint64_t position;
    uint64_t end; /* UINT64_MAX: none is set */
    bool upload;
    bool sparse;
    bool is_device;
    bool thrifty; /* of a device that has less room than it is long: zeroes that are there already are not written */
    char *path;
    uint64_t written; /* bytes since the last time that they were sent to the disk */
    bool writing_back;
    struct co_condition written_back;
};

/* An error of streams, as clients know who says it. */
static bool fail(struct pool_error **err, int result, const char *format, ...) PRINTF_LIKE(3, 4);
static bool fail(struct pool_error **err, int result, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_autofree char *what = g_strdup_vprintf(format, args);
    va_end(args);
    pool_error_set_errno(err, result, "%s", what);
    if (err)
        (*err)->domain = POOL_DOMAIN_STREAMS;
    return false;
}

static bool CO_FN co_open(struct volume_stream *stream, const char *path, struct pool_error **err)
{
    struct stat status;
    int ret;
    int access = !stream->upload ? O_RDONLY : stream->thrifty ? O_RDWR : O_WRONLY;

    stream->fd = co_file_open(path, access | O_NONBLOCK | O_NOCTTY, 0);
    if (stream->fd < 0)
        return fail(err, stream->fd, "Unable to open stream for '%s'", path);
    ret = co_file_stat(stream->fd, &status);
    if (!ret && S_ISDIR(status.st_mode))
        ret = -EISDIR;
    /* Somebody may have put a pipe there since it was looked at, and reading that would wait for ever. */
    if (!ret && !S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
        ret = -EMEDIUMTYPE;
    if (!ret)
        ret = fd_set_blocking(stream->fd);
    stream->is_device = !ret && S_ISBLK(status.st_mode);
    return !ret || fail(err, ret, "Unable to open stream for '%s'", path);
}

/* Whether what is to come can begin there at all: how far that goes is for the file system to say. */
static bool CO_FN co_go_to(struct volume_stream *stream, uint64_t offset, struct pool_error **err)
{
    int64_t ret = offset <= INT64_MAX ? co_file_seek(stream->fd, (int64_t)offset, SEEK_SET) : -EINVAL;

    if (ret >= 0) {
        stream->position = offset;
        return true;
    }
    return fail(err, (int)ret, "Unable to seek %s to %llu", stream->path, (unsigned long long)offset);
}

static void free_stream(struct volume_stream *stream)
{
    assert(!stream->writing_back);
    fd_close(stream->fd);
    co_condition_done(&stream->written_back);
    g_free(stream->path);
    g_free(stream);
}

static struct volume_stream *CO_FN co_stream_new(struct volume_job *job, uint64_t offset, uint64_t length,
                                                 unsigned flags, bool upload, struct pool_error **err)
{
    struct volume_stream *stream = g_new0(struct volume_stream, 1);
    bool ok;

    stream->fd = -1;
    stream->path = g_strdup(job->volume->target.path);
    stream->upload = upload;
    stream->sparse = flags & STREAM_SPARSE;
    stream->thrifty = job->volume->sparse;
    stream->end = UINT64_MAX;
    if (length && __builtin_add_overflow(offset, length, &stream->end))
        stream->end = UINT64_MAX;
    volume_job_go(job);
    ok = co_open(stream, stream->path, err) && co_go_to(stream, offset, err);
    co_volume_job_return(job);
    if (ok) {
        stream->pool = pool_ref(job->pool);
        return stream;
    }
    free_stream(stream);
    return NULL;
}

static bool check_transfers(const struct pool *pool, bool upload, struct pool_error **err)
{
    return pool->backend->flags & BACKEND_TRANSFERS ||
           pool_error_set(err, POOL_ERROR_NO_SUPPORT, "storage pool doesn't support volume %s",
                          upload ? "upload" : "download");
}

static struct volume_stream *CO_FN co_open_stream(struct storage *storage, const struct volume_id *id, uint64_t offset,
                                                  uint64_t length, unsigned flags, bool upload, struct pool_error **err)
{
    struct volume_stream *stream = NULL;
    struct volume_job job;
    bool ok;

    if (!pool_error_check_flags(err, flags, STREAM_SPARSE, upload ? "storageVolUpload" : "storageVolDownload"))
        return NULL;
    if (!co_volume_begin(storage, id, &job, err))
        return NULL;
    /* Reading does not mind others who use it. */
    ok = upload ? volume_check_free(job.volume, err) : volume_check_built(job.volume, err);
    if (ok && check_transfers(job.pool, upload, err))
        stream = co_stream_new(&job, offset, length, flags, upload, err);
    volume_end(&job);
    return stream;
}

struct volume_stream *CO_FN co_storage_volume_download(struct storage *storage, const struct volume_id *volume,
                                                       uint64_t offset, uint64_t length, unsigned flags,
                                                       struct pool_error **err)
{
    return co_open_stream(storage, volume, offset, length, flags, false, err);
}

struct volume_stream *CO_FN co_storage_volume_upload(struct storage *storage, const struct volume_id *volume,
                                                     uint64_t offset, uint64_t length, unsigned flags,
                                                     struct pool_error **err)
{
    return co_open_stream(storage, volume, offset, length, flags, true, err);
}

void CO_FN co_volume_stream_close(struct volume_stream *stream)
{
    if (!stream)
        return;
    while (stream->writing_back)
        co_condition_wait_always(&stream->written_back, NULL);
    if (stream->upload && !stream->pool->removed)
        pool_refresh_later(stream->pool);
    pool_unref(stream->pool);
    free_stream(stream);
}

/* --- reading --- */

/* The length of the hole at the stream's position, 0: there is data, or the end, or nobody can tell. -errno. */
static int64_t CO_FN co_hole_length(const struct volume_stream *stream)
{
    int64_t data = co_file_seek(stream->fd, (int64_t)stream->position, SEEK_DATA);
    int64_t end;

    if (data >= 0)
        return data - (int64_t)stream->position;
    if (data != -ENXIO)
        return 0;
    end = co_file_seek(stream->fd, 0, SEEK_END);
    return end > (int64_t)stream->position ? end - (int64_t)stream->position : MIN(end, 0);
}

int64_t CO_FN co_volume_stream_read(struct volume_stream *stream, void *buffer, size_t size, uint64_t *hole,
                                    struct pool_error **err)
{
    struct iovec segment = {.iov_base = buffer, .iov_len = MIN(size, stream->end - stream->position)};
    int64_t hole_length;
    int64_t data_end;
    ssize_t got;

    assert(!stream->upload);
    *hole = 0;
    if (!segment.iov_len)
        return 0;
    if (stream->sparse && !stream->is_device) {
        hole_length = co_hole_length(stream);
        if (hole_length > 0) {
            *hole = MIN((uint64_t)hole_length, stream->end - stream->position);
            stream->position += *hole;
            return 0;
        }
        data_end = co_file_seek(stream->fd, (int64_t)stream->position, SEEK_HOLE);
        if (data_end > (int64_t)stream->position)
            segment.iov_len = MIN(segment.iov_len, (uint64_t)data_end - stream->position);
    }
    got = co_file_preadv(stream->fd, &segment, 1, stream->position, FILE_ENGINE_DEFAULT);
    if (got < 0) {
        fail(err, (int)got, "cannot read from stream");
        return -1;
    }
    stream->position += (uint64_t)got;
    return got;
}

/* --- writing --- */

/* What goes past the length that was announced does not fit. */
static bool check_room(const struct volume_stream *stream, uint64_t size, struct pool_error **err)
{
    assert(stream->upload);
    return (size <= stream->end - stream->position && stream->position + size <= INT64_MAX) ||
           fail(err, ENOSPC, "cannot write to stream");
}

static void CO_FN co_write_back(void *opaque)
{
    struct volume_stream *stream = opaque;

    while (stream->written >= WRITE_BACK_BYTES) {
        stream->written = 0;
        co_file_write_back(stream->fd);
    }
    stream->writing_back = false;
    co_condition_broadcast(&stream->written_back);
}

static void note_written(struct volume_stream *stream, uint64_t bytes)
{
    stream->position += bytes;
    stream->written += bytes;
    if (stream->written < WRITE_BACK_BYTES || stream->writing_back)
        return;
    stream->writing_back = true;
    co_spawn(loop_current(), co_write_back, stream);
}

bool CO_FN co_volume_stream_write(struct volume_stream *stream, const struct iovec *segments, int count,
                                  struct pool_error **err)
{
    struct io_vector all = io_vector_of(segments, (unsigned)count);
    ssize_t written;

    assert(count <= VOLUME_STREAM_SEGMENTS_MAX);
    if (!check_room(stream, all.size, err))
        return false;
    for (size_t done = 0; done < all.size; done += (size_t)written) {
        struct iovec left[VOLUME_STREAM_SEGMENTS_MAX];
        struct io_vector rest = io_vector_slice(&all, done, all.size - done, left);

        written = co_file_pwritev(stream->fd, rest.segments, (int)rest.count, stream->position, 0, FILE_ENGINE_THREADS);
        if (written <= 0)
            return fail(err, written ? (int)written : -ENOSPC, "cannot write to stream");
        note_written(stream, (uint64_t)written);
    }
    return true;
}

static bool is_zero(const uint8_t *data, size_t size)
{
    return !data[0] && !memcmp(data, data + 1, size - 1);
}

/* A hole of a device: where that is sparse itself, what is zero already takes up no room. */
static int CO_FN co_clear(const struct volume_stream *stream, uint64_t length)
{
    const bool *closing = &stream->pool->storage->closing;
    void *buffer;
    int ret = 0;

    if (!stream->thrifty)
        return co_wipe_range(stream->fd, stream->position, length, closing);
    buffer = loop_buffer_get(LOOK_BYTES);
    if (!buffer)
        return -ENOMEM;
    for (uint64_t done = 0; !ret && done < length; done += LOOK_BYTES) {
        size_t size = MIN((uint64_t)LOOK_BYTES, length - done);

        ret = *closing ? -ECANCELED : co_file_read_exact(stream->fd, buffer, size, stream->position + done);
        if (!ret && !is_zero(buffer, size))
            ret = co_wipe_range(stream->fd, stream->position + done, size, closing);
    }
    loop_buffer_put(buffer, LOOK_BYTES);
    return ret;
}

/* A file ends with the hole, as libvirt's does: cutting it before the hole first makes sure that it reads as zeroes. */
static int CO_FN co_cut(const struct volume_stream *stream, uint64_t length)
{
    int ret = co_file_truncate(stream->fd, stream->position);

    return ret ? ret : co_file_truncate(stream->fd, stream->position + length);
}

bool CO_FN co_volume_stream_write_hole(struct volume_stream *stream, uint64_t length, struct pool_error **err)
{
    int ret;

    if (!stream->sparse)
        return pool_error_set(err, POOL_ERROR_INTERNAL, "unexpected stream hole");
    if (length > INT64_MAX)
        return pool_error_set(err, POOL_ERROR_OVERFLOW, "the stream has a hole of %llu bytes",
                              (unsigned long long)length);
    if (!check_room(stream, length, err))
        return false;
    ret = stream->is_device ? co_clear(stream, length) : co_cut(stream, length);
    if (ret)
        return fail(err, ret, "cannot make a hole of %llu bytes", (unsigned long long)length);
    stream->position += length;
    return true;
}

bool CO_FN co_volume_stream_finish(struct volume_stream *stream, struct pool_error **err)
{
    int ret;

    assert(stream->upload);
    ret = co_file_sync(stream->fd, false);
    if (!ret && !stream->is_device)
        ret = co_sync_name(stream->path);
    return !ret || fail(err, ret, "cannot bring '%s' to the disk", stream->path);
}
