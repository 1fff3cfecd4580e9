/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing. What the image owns alone (COPIED) is written in place. Everything else is an allocation: new clusters are
 * taken, the old content around the data is copied where it is not just zeroes, all in one write; only then the L2
 * table in memory names the new place. Until that, guest clusters of an allocation are registered in their shard, and
 * whoever wants to change the same ones waits.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "crypto/block-crypt.h"
#include "driver/format/qcow2/allocation.h"
#include "driver/format/qcow2/request.h"
#include "loop/loop.h"

enum { ENCRYPTED_PIECE_BYTES = 1 << 20 };

/* --- in place --- */

/* In pieces: what a request can make us hold is bounded. */
static int CO_FN co_encrypted_write(struct qcow2_image *image, uint64_t guest, uint64_t host,
                                    const struct io_vector *iov)
{
    uint64_t offset = qcow2_crypt_offset(image, guest, host);
    size_t piece = MIN(iov->size, ENCRYPTED_PIECE_BYTES);
    uint8_t *buffer = loop_buffer_get(piece);
    int ret = buffer ? 0 : -ENOMEM;

    for (size_t done = 0; done < iov->size && !ret; done += piece) {
        size_t size = MIN(piece, iov->size - done);

        ret = co_block_crypt_encrypt(image->crypt, offset + done, iov, done, buffer, size);
        if (!ret)
            ret = co_edge_pwrite(image->data, host + done, size, buffer, 0);
    }
    if (buffer)
        loop_buffer_put(buffer, piece);
    return ret;
}

int CO_FN co_qcow2_write_data(struct qcow2_image *image, uint64_t guest, uint64_t host, const struct io_vector *iov,
                              unsigned flags)
{
    co_edge_event(image->data, BLKDEBUG_EVENT_WRITE_AIO);
    if (unlikely(image->crypt))
        return co_encrypted_write(image, guest, host, iov);
    return co_edge_pwritev(image->data, host, iov->size, iov, flags & IO_REGISTERED);
}

static int CO_FN co_write_in_place(struct qcow2_image *image, uint64_t guest, uint64_t host,
                                   const struct io_vector *iov, unsigned flags)
{
    /* Data clusters were guarded when they were taken; this is for tables of an image that name metadata as data. */
    int ret = image->has_data_file ? 0 : co_qcow2_overlap_check(image, host, iov->size, 0);

    if (unlikely(!ret && !range_fits(host, iov->size, node_length(edge_child(image->data)))))
        ret = co_qcow2_check_inside(image, guest, host);
    return ret ? ret : co_qcow2_write_data(image, guest, host, iov, flags);
}

/* --- the data around --- */

/* What of [from, to) has to be there beside the data that is written. */
struct surroundings {
    uint64_t from; /* guest; the write's start or before */
    uint64_t to;
    bool zero_head;
    bool zero_tail;
};

/* Whether [guest, guest + bytes) reads as zeroes, as far as tables can tell. */
static int CO_FN co_reads_zero(struct qcow2_image *image, uint64_t guest, uint64_t bytes, bool *ret_zero)
{
    *ret_zero = true;
    for (uint64_t done = 0; done < bytes && *ret_zero;) {
        struct qcow2_extent extent;
        struct qcow2_hold hold;
        int ret = co_qcow2_extent_get(image, guest + done, bytes - done, &extent, &hold);

        if (ret)
            return ret;
        qcow2_hold_end(&hold);
        if (extent.kind == QCOW2_EXTENT_UNALLOCATED)
            *ret_zero = !qcow2_backing_reaches(image, guest + done);
        else
            *ret_zero = extent.kind == QCOW2_EXTENT_ZERO;
        done += extent.bytes;
    }
    return 0;
}

static int CO_FN co_look_around(struct qcow2_image *image, const struct qcow2_allocation *allocation, uint64_t guest,
                                uint64_t bytes, struct surroundings *ret_around)
{
    uint64_t unit = qcow2_copy_unit(image, allocation);
    struct surroundings around = {.from = align_down(guest, unit), .to = align_up(guest + bytes, unit)};
    int ret;

    /* A subcluster that is there already needs nothing around. */
    if (allocation->keep && image->subclusters > 1)
        qcow2_trim_copy(allocation, image, guest, bytes, &around.from, &around.to);
    ret = co_reads_zero(image, around.from, guest - around.from, &around.zero_head);
    if (!ret)
        ret = co_reads_zero(image, guest + bytes, around.to - guest - bytes, &around.zero_tail);
    *ret_around = around;
    return ret;
}

/* Fills memory with what the disk has now. */
static int CO_FN co_read_old(struct qcow2_image *image, uint64_t guest, uint64_t bytes, bool zero, uint8_t *to)
{
    struct iovec segment = {.iov_base = to, .iov_len = bytes};
    struct io_vector iov = io_vector_of(&segment, 1);

    if (!bytes)
        return 0;
    if (zero) {
        memset(to, 0, bytes);
        return 0;
    }
    co_edge_event(image->file, BLKDEBUG_EVENT_COW_READ);
    return co_qcow2_preadv(image->node, guest, bytes, &iov, 0);
}

/* One write of head, data and tail. */
static int CO_FN co_write_around(struct qcow2_image *image, uint64_t guest, const struct io_vector *iov, uint64_t host,
                                 const struct surroundings *around)
{
    uint64_t head = guest - around->from, tail = around->to - guest - iov->size;
    size_t size = (iov->count + 2) * sizeof(struct iovec);
    struct iovec *segments = loop_alloc(size);
    uint8_t *buffer = loop_buffer_get(head + tail);
    struct io_vector all;
    unsigned count = 0;
    int ret = buffer ? 0 : -ENOMEM;

    if (!ret)
        ret = co_read_old(image, around->from, head, around->zero_head, buffer);
    if (!ret)
        ret = co_read_old(image, guest + iov->size, tail, around->zero_tail, buffer + head);
    if (!ret) {
        if (head)
            segments[count++] = (struct iovec){.iov_base = buffer, .iov_len = head};
        memcpy(segments + count, iov->segments, iov->count * sizeof(*segments));
        count += iov->count;
        if (tail)
            segments[count++] = (struct iovec){.iov_base = buffer + head, .iov_len = tail};
        all = io_vector_of(segments, count);
        co_edge_event(image->data, BLKDEBUG_EVENT_COW_WRITE);
        ret = co_qcow2_write_data(image, around->from, host - head, &all, 0);
    }
    if (buffer)
        loop_buffer_put(buffer, head + tail);
    loop_release(segments, size);
    return ret;
}

enum { ZERO_BUFFER_BYTES_MAX = 256 << 10 };

/* Zeroes around the data by the file itself, where that is much. */
static int CO_FN co_zero_around(struct qcow2_image *image, uint64_t guest, uint64_t bytes, uint64_t host,
                                struct surroundings *around)
{
    uint64_t head = guest - around->from, tail = around->to - guest - bytes;
    int ret = 0;

    co_edge_event(image->data, BLKDEBUG_EVENT_CLUSTER_ALLOC_SPACE);
    if (head && around->zero_head)
        ret = co_edge_pwrite_zeroes(image->data, host - head, head, 0);
    if (!ret && tail && around->zero_tail)
        ret = co_edge_pwrite_zeroes(image->data, host + bytes, tail, 0);
    if (around->zero_head)
        around->from = guest;
    if (around->zero_tail)
        around->to = guest + bytes;
    return ret;
}

/* The data and what must be around it, at `host` for `guest`. */
static int CO_FN co_write_new(struct qcow2_image *image, const struct qcow2_allocation *allocation, uint64_t guest,
                              const struct io_vector *iov, unsigned flags)
{
    uint64_t host = allocation->host + (guest - allocation->guest);
    struct surroundings around;
    int ret = co_look_around(image, allocation, guest, iov->size, &around);

    if (ret)
        return ret;
    /* What was never written reads as zeroes. */
    if (allocation->fresh && !image->crypt) {
        around.from = around.zero_head ? guest : around.from;
        around.to = around.zero_tail ? guest + iov->size : around.to;
    }
    if (!image->crypt && around.to - around.from - iov->size > ZERO_BUFFER_BYTES_MAX)
        ret = co_zero_around(image, guest, iov->size, host, &around);
    if (ret)
        return ret;
    if (around.from == guest && around.to == guest + iov->size)
        return co_qcow2_write_data(image, guest, host, iov, flags);
    return co_write_around(image, guest, iov, host, &around);
}

/* --- one step of a request --- */

static int CO_FN co_write_allocating(struct qcow2_image *image, struct qcow2_allocation *allocation, uint64_t guest,
                                     const struct io_vector *iov, unsigned flags)
{
    int ret = co_write_new(image, allocation, guest, iov, flags);

    if (ret) {
        qcow2_allocation_abort(image, allocation);
        return ret;
    }
    return co_qcow2_allocation_link(image, allocation, guest, iov->size);
}

/* Writes as much as can be done in one go, from `at` in the request; how much in *ret_bytes. */
static int CO_FN co_write_step(struct qcow2_image *image, uint64_t guest, uint64_t bytes, const struct io_vector *iov,
                               size_t at, unsigned flags, uint64_t *ret_bytes)
{
    struct qcow2_write_plan plan;
    struct io_vector part = *iov;
    struct iovec *segments = NULL;
    size_t size = 0;
    int ret = co_qcow2_write_plan(image, guest, bytes, &plan);

    if (ret)
        return ret;
    *ret_bytes = plan.bytes;
    if (plan.bytes != iov->size) {
        size = io_vector_slice_count(iov, at, plan.bytes) * sizeof(struct iovec);
        segments = loop_alloc(size);
        part = io_vector_slice(iov, at, plan.bytes, segments);
    }
    if (plan.in_place) {
        ret = co_write_in_place(image, guest, plan.host, &part, flags);
        qcow2_hold_end(&plan.hold);
    } else {
        ret = co_write_allocating(image, &plan.allocation, guest, &part, flags);
    }
    if (segments)
        loop_release(segments, size);
    return ret;
}

int CO_FN co_qcow2_write_range(struct qcow2_image *image, uint64_t guest, uint64_t bytes, const struct io_vector *iov,
                               unsigned flags)
{
    int ret = 0;

    for (uint64_t done = 0, step = 0; done < bytes && !ret; done += step)
        ret = co_write_step(image, guest + done, bytes - done, iov, done, flags, &step);
    return ret;
}

int CO_FN co_qcow2_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                           unsigned flags)
{
    struct qcow2_image *image = node_state(node);

    if (unlikely(image->no_io))
        return -EIO;
    /* The disk ends where its header says; the core shows it up to a whole sector. */
    if (unlikely(!range_fits(offset, bytes, align_up(image->header->size, 512))))
        return -ENOSPC;
    if (unlikely(flags & IO_COMPRESSED))
        return co_qcow2_write_compressed(image, offset, bytes, iov);
    return co_qcow2_write_range(image, offset, bytes, iov, flags);
}
