/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Streams to and from the libraries. Decompressing trusts nothing: the output never passes its buffer, and after the
 * last byte that was wanted the stream is asked for one more, which must not come.
 */
#include "driver/format/qcow2/compress.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>

#include "base/error.h"
#include "driver/compression-config.h"
#include "loop/loop.h"

#ifdef ASHLAR_ZLIB
#include <zlib.h>
#endif
#ifdef ASHLAR_ZSTD
#include <zstd.h>
#include <zstd_errors.h>
#endif

static_assert(QCOW2_CLUSTER_SIZE_MAX <= INT_MAX, "sizes fit the libraries' integers");

/* --- zlib --- */

#ifdef ASHLAR_ZLIB

/* WRITE: other programs decompress with no larger window than 4 KiB. READ: the largest there is takes any. */
enum { ZLIB_WRITE_WINDOW_BITS = 12, ZLIB_READ_WINDOW_BITS = 15, ZLIB_MEMORY_LEVEL = 9 };

static int zlib_compress(const void *from, size_t size, void *to, size_t capacity, size_t *ret_size)
{
    z_stream stream = {0};
    int ret = deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -ZLIB_WRITE_WINDOW_BITS, ZLIB_MEMORY_LEVEL,
                           Z_DEFAULT_STRATEGY);

    if (ret != Z_OK)
        return ret == Z_MEM_ERROR ? -ENOMEM : -EIO;
    stream.next_in = (Bytef *)(uintptr_t)from;
    stream.avail_in = (uInt)size;
    stream.next_out = to;
    stream.avail_out = (uInt)capacity;
    ret = deflate(&stream, Z_FINISH);
    *ret_size = capacity - stream.avail_out;
    (void)deflateEnd(&stream);
    if (ret == Z_STREAM_END)
        return 0;
    return ret == Z_OK || ret == Z_BUF_ERROR ? -ENOSPC : -EIO;
}

/* Whether a stream whose output is full has more to give. */
static bool zlib_has_more(z_stream *stream)
{
    Bytef extra;

    stream->next_out = &extra;
    stream->avail_out = 1;
    (void)inflate(stream, Z_FINISH);
    return !stream->avail_out;
}

static int zlib_decompress(const void *from, size_t from_size, void *to, size_t size)
{
    z_stream stream = {.next_in = (Bytef *)(uintptr_t)from, .avail_in = (uInt)from_size};
    int ret = inflateInit2(&stream, -ZLIB_READ_WINDOW_BITS);
    bool ok;

    if (ret != Z_OK)
        return ret == Z_MEM_ERROR ? -ENOMEM : -EIO;
    stream.next_out = to;
    stream.avail_out = (uInt)size;
    ret = inflate(&stream, Z_FINISH);
    /* A stream without its end mark is complete all the same where it has given all. */
    ok = !stream.avail_out && (ret == Z_STREAM_END || ((ret == Z_BUF_ERROR || ret == Z_OK) && !zlib_has_more(&stream)));
    (void)inflateEnd(&stream);
    return ok ? 0 : ret == Z_MEM_ERROR ? -ENOMEM : -EIO;
}

#else

static int zlib_compress(const void *from, size_t size, void *to, size_t capacity, size_t *ret_size)
{
    return -ENOTSUP;
}

static int zlib_decompress(const void *from, size_t from_size, void *to, size_t size)
{
    return -ENOTSUP;
}

#endif

/* --- Zstandard --- */

#ifdef ASHLAR_ZSTD

/* No frame makes us take more memory than 2 to this for what it refers back to; a cluster has 2 to the 21 at most. */
enum { ZSTD_WINDOW_BITS_MAX = 24 };

static int zstd_compress(const void *from, size_t size, void *to, size_t capacity, size_t *ret_size)
{
    size_t ret = ZSTD_compress(to, capacity, from, size, ZSTD_CLEVEL_DEFAULT);

    if (!ZSTD_isError(ret)) {
        *ret_size = ret;
        return 0;
    }
    switch (ZSTD_getErrorCode(ret)) {
    case ZSTD_error_dstSize_tooSmall:
        return -ENOSPC;
    case ZSTD_error_memory_allocation:
        return -ENOMEM;
    default:
        return -EIO;
    }
}

static int zstd_run(ZSTD_DCtx *context, ZSTD_inBuffer *in, void *to, size_t size)
{
    ZSTD_outBuffer out = {.dst = to, .size = size};
    uint8_t byte;
    ZSTD_outBuffer extra = {.dst = &byte, .size = 1};
    size_t left = 1;

    while (out.pos < out.size) {
        size_t before = in->pos + out.pos;

        left = ZSTD_decompressStream(context, &out, in);
        /* Nothing moved: the input has ended too early; or the frame is done, and what follows is not its own. */
        if (ZSTD_isError(left) || in->pos + out.pos == before || (!left && out.pos < out.size))
            return -EIO;
    }
    if (left) {
        left = ZSTD_decompressStream(context, &extra, in);
        if (ZSTD_isError(left) || extra.pos)
            return -EIO;
    }
    return 0;
}

static int zstd_decompress(const void *from, size_t from_size, void *to, size_t size)
{
    ZSTD_DCtx *context = ZSTD_createDCtx();
    ZSTD_inBuffer in = {.src = from, .size = from_size};
    int ret;

    if (!context)
        return -ENOMEM;
    ret = ZSTD_isError(ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, ZSTD_WINDOW_BITS_MAX))
              ? -EIO
              : zstd_run(context, &in, to, size);
    (void)ZSTD_freeDCtx(context);
    return ret;
}

#else

static int zstd_compress(const void *from, size_t size, void *to, size_t capacity, size_t *ret_size)
{
    return -ENOTSUP;
}

static int zstd_decompress(const void *from, size_t from_size, void *to, size_t size)
{
    return -ENOTSUP;
}

#endif

/* --- any of them --- */

bool qcow2_compression_available(enum qcow2_compression type, struct error **err)
{
    switch (type) {
    case QCOW2_COMPRESSION_ZLIB:
#ifndef ASHLAR_ZLIB
        return error_set(err, "Compression type 'zlib' is not in this build: it needs zlib (zlib1g-dev)");
#endif
        return true;
    case QCOW2_COMPRESSION_ZSTD:
#ifndef ASHLAR_ZSTD
        return error_set(err, "Compression type 'zstd' is not in this build: it needs libzstd (libzstd-dev)");
#endif
        return true;
    }
    return error_set(err, "qcow2: unknown compression type: %u", type);
}

int qcow2_compress(enum qcow2_compression type, const void *from, size_t size, void *to, size_t capacity,
                   size_t *ret_size)
{
    size_t compressed = 0;
    int ret;

    assert(size);
    assert(size <= QCOW2_CLUSTER_SIZE_MAX);
    ret = type == QCOW2_COMPRESSION_ZSTD ? zstd_compress(from, size, to, capacity, &compressed)
                                         : zlib_compress(from, size, to, capacity, &compressed);
    if (ret)
        return ret;
    assert(compressed);
    assert(compressed <= capacity);
    *ret_size = compressed;
    return 0;
}

int qcow2_decompress(enum qcow2_compression type, const void *from, size_t from_size, void *to, size_t size)
{
    assert(size);
    assert(size <= QCOW2_CLUSTER_SIZE_MAX);
    assert(from_size <= 2 * QCOW2_CLUSTER_SIZE_MAX);
    return type == QCOW2_COMPRESSION_ZSTD ? zstd_decompress(from, from_size, to, size)
                                          : zlib_decompress(from, from_size, to, size);
}

/* --- on a worker thread --- */

struct compression_work {
    enum qcow2_compression type;
    const void *from;
    size_t from_size;
    void *to;
    size_t to_size;
    size_t *ret_size;
};

static int compress_work(void *opaque)
{
    const struct compression_work *work = opaque;

    return qcow2_compress(work->type, work->from, work->from_size, work->to, work->to_size, work->ret_size);
}

static int decompress_work(void *opaque)
{
    const struct compression_work *work = opaque;

    return qcow2_decompress(work->type, work->from, work->from_size, work->to, work->to_size);
}

int CO_FN co_qcow2_compress(enum qcow2_compression type, const void *from, size_t size, void *to, size_t capacity,
                            size_t *ret_size)
{
    struct compression_work work = {
        .type = type, .from = from, .from_size = size, .to = to, .to_size = capacity, .ret_size = ret_size};

    return co_worker_run(compress_work, &work);
}

int CO_FN co_qcow2_decompress(enum qcow2_compression type, const void *from, size_t from_size, void *to, size_t size)
{
    struct compression_work work = {.type = type, .from = from, .from_size = from_size, .to = to, .to_size = size};

    return co_worker_run(decompress_work, &work);
}
