/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading: each extent that the request touches is one request to the child that has it, straight into the memory of
 * whoever reads.
 */
#include "driver/format/qcow2/request.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "base/checked.h"
#include "crypto/block-crypt.h"
#include "driver/format/qcow2/qcow2.h"
#include "loop/loop.h"

/*
 * Data must have been written before its cluster was named, so a cluster of which nothing is inside the file is not
 * there at all; what of a cluster is beyond the end was never written.
 */
int CO_FN co_qcow2_check_inside(struct qcow2_image *image, uint64_t guest, uint64_t host)
{
    uint64_t cluster = align_down(host, image->cluster_size);

    if (image->has_data_file || cluster < node_length(edge_child(image->data)))
        return 0;
    return co_qcow2_corrupt(image, cluster, image->cluster_size,
                            "Data cluster %#" PRIx64 " of guest offset %#" PRIx64
                            " lies outside of the image file of %" PRIu64 " bytes",
                            cluster, guest, node_length(edge_child(image->data)));
}

static int CO_FN co_read_data(struct qcow2_image *image, uint64_t guest, uint64_t host, const struct io_vector *iov,
                              unsigned flags)
{
    int ret = 0;

    if (unlikely(!range_fits(host, iov->size, node_length(edge_child(image->data)))))
        ret = co_qcow2_check_inside(image, guest, host);
    co_edge_event(image->data, BLKDEBUG_EVENT_READ_AIO);
    if (!ret)
        ret = co_edge_preadv(image->data, host, iov->size, iov, flags);
    if (unlikely(!ret && image->crypt))
        ret = co_block_crypt_decrypt(image->crypt, qcow2_crypt_offset(image, guest, host), NULL, iov, 0, iov->size);
    return ret;
}

/* What an unallocated range reads as. */
static int CO_FN co_read_backing(struct qcow2_image *image, uint64_t guest, const struct io_vector *iov)
{
    struct edge *backing = node_backing(image->node);

    if (backing) {
        co_edge_event(image->file, BLKDEBUG_EVENT_READ_BACKING_AIO);
        return co_edge_preadv(backing, guest, iov->size, iov, 0);
    }
    io_vector_fill(iov, 0, 0, iov->size);
    return 0;
}

int CO_FN co_qcow2_read_extent(struct qcow2_image *image, uint64_t guest, const struct qcow2_extent *extent,
                               const struct io_vector *iov, unsigned flags)
{
    assert(iov->size <= extent->bytes);
    switch (extent->kind) {
    case QCOW2_EXTENT_NORMAL:
        return co_read_data(image, guest, extent->host, iov, flags);
    case QCOW2_EXTENT_UNALLOCATED:
        return co_read_backing(image, guest, iov);
    case QCOW2_EXTENT_ZERO:
        io_vector_fill(iov, 0, 0, iov->size);
        return 0;
    case QCOW2_EXTENT_COMPRESSED:
        return co_qcow2_read_compressed(image, extent->entry, guest & (image->cluster_size - 1), iov);
    case QCOW2_EXTENT_INVALID:
        break;
    }
    return -EIO;
}

/* A part of the request's memory. */
static int CO_FN co_read_part(struct qcow2_image *image, uint64_t guest, const struct qcow2_extent *extent,
                              const struct io_vector *iov, size_t at, unsigned flags)
{
    size_t size = io_vector_slice_count(iov, at, extent->bytes) * sizeof(struct iovec);
    struct iovec *segments = loop_alloc(size);
    struct io_vector part = io_vector_slice(iov, at, extent->bytes, segments);
    int ret = co_qcow2_read_extent(image, guest, extent, &part, flags);

    loop_release(segments, size);
    return ret;
}

int CO_FN co_qcow2_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                          unsigned flags)
{
    struct qcow2_image *image = node_state(node);
    int ret = image->no_io ? -EIO : 0;

    for (uint64_t done = 0; done < bytes && !ret;) {
        struct qcow2_extent extent;
        struct qcow2_hold hold;

        ret = co_qcow2_extent_get(image, offset + done, bytes - done, &extent, &hold);
        if (ret)
            break;
        if (likely(extent.bytes == bytes))
            ret = co_qcow2_read_extent(image, offset, &extent, iov, flags);
        else
            ret = co_read_part(image, offset + done, &extent, iov, done, flags);
        qcow2_hold_end(&hold);
        done += extent.bytes;
    }
    return ret;
}
