/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The state of a virtual machine, which is stored with its snapshots: it lies behind the disk, as if that were longer,
 * from the first place on that the L1 entries of the disk itself do not reach. Nothing of it shows through to a backing
 * image. Not a busy place: whole clusters are written.
 */
#include "driver/format/qcow2/vm-state.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "driver/format/qcow2/request.h"
#include "loop/loop.h"

static unsigned table_bits(const struct qcow2_image *image)
{
    return image->cluster_bits + image->l2_bits;
}

uint64_t qcow2_vm_state_offset(const struct qcow2_image *image)
{
    return qcow2_l1_entries(image->header->size, image->cluster_bits, image->subclusters > 1) << table_bits(image);
}

/* The guest offset of `offset` in the state. */
static int place_of(const struct qcow2_image *image, uint64_t offset, uint64_t bytes, uint64_t *ret)
{
    uint64_t start = qcow2_vm_state_offset(image);

    /* A data file has the disk and nothing else. */
    if (image->has_data_file)
        return -ENOTSUP;
    if (image->no_io)
        return -EIO;
    if (!range_fits(offset, bytes, NODE_LENGTH_MAX - start))
        return -EFBIG;
    *ret = start + offset;
    return 0;
}

static int CO_FN co_read_piece(struct qcow2_image *image, uint64_t guest, const struct qcow2_extent *extent,
                               const struct io_vector *iov, size_t at)
{
    size_t size = io_vector_slice_count(iov, at, extent->bytes) * sizeof(struct iovec);
    struct iovec *segments;
    struct io_vector part;
    int ret;

    if (extent->kind == QCOW2_EXTENT_UNALLOCATED) {
        io_vector_fill(iov, at, 0, extent->bytes);
        return 0;
    }
    segments = loop_alloc(size);
    part = io_vector_slice(iov, at, extent->bytes, segments);
    ret = co_qcow2_read_extent(image, guest, extent, &part, 0);
    loop_release(segments, size);
    return ret;
}

static int CO_FN co_read(struct qcow2_image *image, uint64_t guest, const struct io_vector *iov)
{
    int ret = 0;

    for (uint64_t done = 0; done < iov->size && !ret;) {
        struct qcow2_extent extent;
        struct qcow2_hold hold;

        ret = co_qcow2_extent_get(image, guest + done, iov->size - done, &extent, &hold);
        if (ret)
            break;
        ret = co_read_piece(image, guest + done, &extent, iov, done);
        qcow2_hold_end(&hold);
        done += extent.bytes;
    }
    return ret;
}

int CO_FN co_qcow2_vm_state_read(struct node *node, uint64_t offset, const struct io_vector *iov)
{
    struct qcow2_image *image = node_state(node);
    uint64_t guest;
    int ret = place_of(image, offset, iov->size, &guest);

    co_edge_event(image->file, BLKDEBUG_EVENT_VMSTATE_LOAD);
    return ret ? ret : co_read(image, guest, iov);
}

/* The cluster at `guest`, whole, with `bytes` of `iov` from `at` on in it at `from`. */
static int CO_FN co_write_cluster(struct qcow2_image *image, uint64_t guest, uint64_t from, uint64_t bytes,
                                  const struct io_vector *iov, size_t at, uint8_t *buffer)
{
    struct iovec segment = {.iov_base = buffer, .iov_len = image->cluster_size};
    struct io_vector whole = io_vector_of(&segment, 1);
    int ret = bytes == image->cluster_size ? 0 : co_read(image, guest, &whole);

    assert(range_fits(from, bytes, image->cluster_size));
    if (ret)
        return ret;
    io_vector_read(iov, at, buffer + from, bytes);
    return co_qcow2_write_range(image, guest, image->cluster_size, &whole, 0);
}

int CO_FN co_qcow2_vm_state_write(struct node *node, uint64_t offset, const struct io_vector *iov)
{
    struct qcow2_image *image = node_state(node);
    uint8_t *buffer;
    uint64_t guest;
    int ret = place_of(image, offset, iov->size, &guest);

    co_edge_event(image->file, BLKDEBUG_EVENT_VMSTATE_SAVE);
    if (!ret && iov->size)
        ret = co_qcow2_l1_reserve(image, guest + iov->size, NULL);
    if (ret)
        return ret;
    buffer = loop_buffer_get(image->cluster_size);
    if (!buffer)
        return -ENOMEM;
    for (uint64_t done = 0, bytes; done < iov->size && !ret; done += bytes) {
        uint64_t from = (guest + done) & (image->cluster_size - 1);

        bytes = MIN(iov->size - done, image->cluster_size - from);
        ret = co_write_cluster(image, guest + done - from, from, bytes, iov, done, buffer);
    }
    loop_buffer_put(buffer, image->cluster_size);
    return ret;
}

int CO_FN co_qcow2_vm_state_drop(struct qcow2_image *image)
{
    uint64_t bytes = UINT64_C(1) << table_bits(image);
    uint64_t guest = qcow2_vm_state_offset(image);
    uint64_t end = (uint64_t)image->header->l1_size << table_bits(image);
    int ret = 0;

    for (; guest < end && !ret; guest += bytes) {
        if (qcow2_l1_entry(image, guest))
            ret = co_qcow2_forget(image, guest, bytes);
    }
    return ret;
}
