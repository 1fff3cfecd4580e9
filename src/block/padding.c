/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Ranges and memory that a driver does not take as they are: unaligned, too large, in too many segments, or in memory
 * at odd addresses. They are cut into pieces that it takes, with a buffer in between where nothing else helps.
 */
#include "block/graph-internal.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/checked.h"
#include "loop/loop.h"

/* A request up to this size that needs a buffer gets one for all of it; of a larger one, parts. */
enum { BUFFER_BYTES_MAX = 256 * 1024 };

/* How much of a range of a vector a driver takes as it is, at once. */
struct piece {
    uint64_t bytes;    /* 0: none, it needs a buffer */
    unsigned segments; /* that these bytes touch */
};

static uint64_t buffer_bytes(const struct node *node, uint64_t bytes)
{
    uint64_t limit = MIN(MAX((uint64_t)BUFFER_BYTES_MAX, node->limits.request_alignment), node->transfer_max);

    return MIN(bytes, limit);
}

static bool memory_fits(const struct node *node, const struct iovec *segment)
{
    uint64_t alignment = node->limits.memory_alignment;

    return alignment <= 1 || is_aligned((uintptr_t)segment->iov_base | segment->iov_len, alignment);
}

bool node_takes(const struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov)
{
    if (!is_aligned(offset | bytes, node->limits.request_alignment) || bytes > node->transfer_max)
        return false;
    if (iov->count > IOV_MAX)
        return false;
    for (unsigned i = 0; node->limits.memory_alignment > 1 && i < iov->count; i++) {
        if (!memory_fits(node, &iov->segments[i]))
            return false;
    }
    return true;
}

/* The piece of [at, at + bytes) of the vector that begins at `at`. */
static struct piece next_piece(const struct node *node, const struct io_vector *iov, size_t at, uint64_t bytes)
{
    struct piece piece = {0};
    uint64_t room = align_down(MIN(bytes, node->transfer_max), node->limits.request_alignment);
    size_t skip = at;

    for (unsigned i = 0; i < iov->count && room && piece.segments < IOV_MAX; i++) {
        struct iovec segment = iov->segments[i];
        uint64_t here;

        if (skip >= segment.iov_len) {
            skip -= segment.iov_len;
            continue;
        }
        segment.iov_base = (char *)segment.iov_base + skip;
        segment.iov_len -= skip;
        skip = 0;
        here = MIN(segment.iov_len, room);
        segment.iov_len = here;
        if (!memory_fits(node, &segment))
            break;
        piece.bytes += here;
        piece.segments++;
        room -= here;
    }
    piece.bytes = align_down(piece.bytes, node->limits.request_alignment);
    return piece;
}

/* Moves a piece between the vector and the driver; all of it is aligned. */
static int CO_FN co_move_piece(struct node *node, bool write, uint64_t offset, struct piece piece,
                               const struct io_vector *iov, size_t at, unsigned flags)
{
    size_t size = piece.segments * sizeof(struct iovec);
    struct iovec *segments = loop_alloc(size);
    struct io_vector slice = io_vector_slice(iov, at, piece.bytes, segments);
    int ret;

    if (write)
        ret = node->driver->co_pwritev(node, offset, piece.bytes, &slice, flags);
    else
        ret = node->driver->co_preadv(node, offset, piece.bytes, &slice, flags);
    loop_release(segments, size);
    return ret;
}

static int CO_FN co_buffer_read(struct node *node, uint64_t offset, uint64_t bytes, void *buffer)
{
    struct iovec segment = {.iov_base = buffer, .iov_len = bytes};
    struct io_vector iov = {.segments = &segment, .count = 1, .size = bytes};

    return node->driver->co_preadv(node, offset, bytes, &iov, 0);
}

static int CO_FN co_buffer_write(struct node *node, uint64_t offset, uint64_t bytes, const void *buffer, unsigned flags)
{
    struct iovec segment = {.iov_base = (void *)(uintptr_t)buffer, .iov_len = bytes};
    struct io_vector iov = {.segments = &segment, .count = 1, .size = bytes};

    return node->driver->co_pwritev(node, offset, bytes, &iov, flags);
}

/* --- reading --- */

/* Reads what the request has in common with one buffer's worth of blocks; as much as fits, the length in *ret_bytes. */
static int CO_FN co_read_buffered(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                  size_t at, uint64_t *ret_bytes)
{
    uint64_t alignment = node->limits.request_alignment;
    uint64_t start = align_down(offset, alignment);
    uint64_t size = buffer_bytes(node, align_up(offset + bytes, alignment) - start);
    uint64_t useful = MIN(bytes, start + size - offset);
    void *buffer = loop_buffer_get(size);
    int ret;

    if (!buffer)
        return -ENOMEM;
    ret = co_buffer_read(node, start, size, buffer);
    if (!ret)
        io_vector_write(iov, at, (char *)buffer + (offset - start), useful);
    loop_buffer_put(buffer, size);
    *ret_bytes = useful;
    return ret;
}

int CO_FN co_pieces_read(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                         unsigned flags)
{
    size_t at = 0;
    int ret = 0;

    while (bytes && !ret) {
        struct piece piece = {0};
        uint64_t done;

        if (is_aligned(offset, node->limits.request_alignment))
            piece = next_piece(node, iov, at, bytes);
        done = piece.bytes;
        if (done)
            ret = co_move_piece(node, false, offset, piece, iov, at, flags);
        else
            ret = co_read_buffered(node, offset, bytes, iov, at, &done);
        at += done;
        offset += done;
        bytes -= done;
    }
    return ret;
}

/* --- writing --- */

/* The block at `offset` as it is now; beyond the node's end there is nothing to keep. */
static int CO_FN co_read_block(struct node *node, uint64_t offset, void *buffer)
{
    uint64_t alignment = node->limits.request_alignment;

    if (offset >= node_length(node)) {
        memset(buffer, 0, alignment);
        return 0;
    }
    return co_buffer_read(node, offset, alignment, buffer);
}

/* Fills the blocks of `buffer` that the request [offset, offset + bytes) covers in part only. */
static int CO_FN co_read_around(struct node *node, uint64_t start, uint64_t size, uint64_t offset, uint64_t bytes,
                                char *buffer)
{
    uint64_t alignment = node->limits.request_alignment;
    uint64_t last = start + size - alignment;
    int ret = 0;

    if (offset > start) {
        co_node_event(node, BLKDEBUG_EVENT_PWRITEV_RMW_HEAD);
        ret = co_read_block(node, start, buffer);
        co_node_event(node, BLKDEBUG_EVENT_PWRITEV_RMW_AFTER_HEAD);
    }
    if (!ret && offset + bytes < start + size && (last != start || offset == start)) {
        co_node_event(node, BLKDEBUG_EVENT_PWRITEV_RMW_TAIL);
        ret = co_read_block(node, last, buffer + (last - start));
        co_node_event(node, BLKDEBUG_EVENT_PWRITEV_RMW_AFTER_TAIL);
    }
    return ret;
}

static int CO_FN co_write_buffered(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                   size_t at, unsigned flags, uint64_t *ret_bytes)
{
    uint64_t alignment = node->limits.request_alignment;
    uint64_t start = align_down(offset, alignment);
    uint64_t size = buffer_bytes(node, align_up(offset + bytes, alignment) - start);
    uint64_t useful = MIN(bytes, start + size - offset);
    char *buffer = loop_buffer_get(size);
    int ret;

    if (!buffer)
        return -ENOMEM;
    ret = co_read_around(node, start, size, offset, useful, buffer);
    if (!ret) {
        if (iov)
            io_vector_read(iov, at, buffer + (offset - start), useful);
        else
            memset(buffer + (offset - start), 0, useful);
        if (start != offset || size != useful)
            co_node_event(node, BLKDEBUG_EVENT_PWRITEV);
        ret = co_buffer_write(node, start, size, buffer, flags);
    }
    loop_buffer_put(buffer, size);
    *ret_bytes = useful;
    return ret;
}

/* Zeroes for the inside of a range: the same memory, over and over. */
static int CO_FN co_write_zero_piece(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    enum { ZERO_BYTES = 64 * 1024, ZERO_SEGMENTS = 64 };
    static const char zeroes[ZERO_BYTES] __attribute__((aligned(LOOP_BUFFER_ALIGNMENT)));
    struct iovec segments[ZERO_SEGMENTS];
    struct io_vector iov = {.segments = segments, .size = bytes};

    assert(bytes <= sizeof(zeroes) * ZERO_SEGMENTS);
    for (uint64_t left = bytes; left; iov.count++) {
        segments[iov.count].iov_base = (void *)(uintptr_t)zeroes;
        segments[iov.count].iov_len = MIN(left, sizeof(zeroes));
        left -= segments[iov.count].iov_len;
    }
    return node->driver->co_pwritev(node, offset, bytes, &iov, flags);
}

static struct piece next_zero_piece(const struct node *node, uint64_t bytes)
{
    uint64_t limit = MIN(node->transfer_max, (uint64_t)4 * 1024 * 1024);

    return (struct piece){.bytes = align_down(MIN(bytes, limit), node->limits.request_alignment)};
}

int CO_FN co_pieces_write(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                          unsigned flags)
{
    size_t at = 0;
    int ret = 0;

    while (bytes && !ret) {
        struct piece piece = {0};
        uint64_t done;

        if (is_aligned(offset, node->limits.request_alignment))
            piece = iov ? next_piece(node, iov, at, bytes) : next_zero_piece(node, bytes);
        done = piece.bytes;
        if (!done)
            ret = co_write_buffered(node, offset, bytes, iov, at, flags, &done);
        else if (iov)
            ret = co_move_piece(node, true, offset, piece, iov, at, flags);
        else
            ret = co_write_zero_piece(node, offset, piece.bytes, flags);
        at += done;
        offset += done;
        bytes -= done;
    }
    return ret;
}
