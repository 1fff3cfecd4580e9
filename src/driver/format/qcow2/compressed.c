/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Compressed clusters. The one that was read last is kept, so that reading through it in small steps inflates it once.
 * It is known by its descriptor; before anything else may get the same one, it is forgotten.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "driver/format/qcow2/allocation.h"
#include "driver/format/qcow2/compress.h"
#include "driver/format/qcow2/request.h"
#include "loop/loop.h"

/* Inflated data; freed by whoever lets it go last. */
struct qcow2_inflated {
    uint64_t entry;
    uint64_t bytes;
    uint32_t references; /* atomic */
    uint8_t *data;
};

static void inflated_unref(struct qcow2_inflated *inflated)
{
    if (!inflated || __atomic_sub_fetch(&inflated->references, 1, __ATOMIC_ACQ_REL))
        return;
    loop_buffer_put(inflated->data, inflated->bytes);
    loop_release(inflated, sizeof(*inflated));
}

void qcow2_compressed_forget(struct qcow2_image *image)
{
    struct qcow2_inflated *inflated;

    spin_lock(&image->compressed_spin);
    inflated = TAKE(image->inflated);
    spin_unlock(&image->compressed_spin);
    inflated_unref(inflated);
}

/* The one that is kept, if it is this. */
static struct qcow2_inflated *find_inflated(struct qcow2_image *image, uint64_t entry)
{
    struct qcow2_inflated *inflated;

    spin_lock(&image->compressed_spin);
    inflated = image->inflated && image->inflated->entry == entry ? image->inflated : NULL;
    if (inflated)
        __atomic_add_fetch(&inflated->references, 1, __ATOMIC_RELAXED);
    spin_unlock(&image->compressed_spin);
    return inflated;
}

/* Takes over the caller's reference. */
static void keep_inflated(struct qcow2_image *image, struct qcow2_inflated *inflated)
{
    struct qcow2_inflated *before;

    spin_lock(&image->compressed_spin);
    before = image->inflated;
    image->inflated = inflated;
    spin_unlock(&image->compressed_spin);
    inflated_unref(before);
}

/* Says once why compressed clusters cannot be had, where that is this build's fault. */
static void tell_unavailable(struct qcow2_image *image)
{
    AUTO(error) error = NULL;

    if (!qcow2_compression_available(image->header->compression_type, &error) &&
        !__atomic_exchange_n(&image->told_unavailable, true, __ATOMIC_RELAXED))
        log_warning("Node '%s': %s", node_name(image->node), error_message(error));
}

/* Reads and inflates. The data may end with the file, in the middle of its last sector. */
static int CO_FN co_inflate(struct qcow2_image *image, struct qcow2_compressed_extent where, uint8_t *to)
{
    uint8_t *raw;
    int ret;

    if (where.offset >= node_length(edge_child(image->file)))
        return -EIO;
    raw = loop_buffer_get(where.bytes);
    if (!raw)
        return -ENOMEM;
    co_edge_event(image->file, BLKDEBUG_EVENT_READ_COMPRESSED);
    ret = co_edge_pread(image->file, where.offset, where.bytes, raw, 0);
    if (!ret)
        ret = co_qcow2_decompress(image->header->compression_type, raw, where.bytes, to, image->cluster_size);
    if (unlikely(ret == -ENOTSUP))
        tell_unavailable(image);
    loop_buffer_put(raw, where.bytes);
    return ret;
}

static struct qcow2_inflated *inflated_new(const struct qcow2_image *image, uint64_t entry)
{
    struct qcow2_inflated *inflated = loop_alloc(sizeof(*inflated));

    *inflated = (struct qcow2_inflated){.entry = entry, .bytes = image->cluster_size, .references = 1};
    inflated->data = loop_buffer_get(inflated->bytes);
    if (inflated->data)
        return inflated;
    loop_release(inflated, sizeof(*inflated));
    return NULL;
}

int CO_FN co_qcow2_read_compressed(struct qcow2_image *image, uint64_t entry, uint64_t in_cluster,
                                   const struct io_vector *iov)
{
    struct qcow2_inflated *inflated = find_inflated(image, entry);
    int ret = 0;

    if (!inflated) {
        inflated = inflated_new(image, entry);
        if (!inflated)
            return -ENOMEM;
        ret = co_inflate(image, qcow2_compressed_extent(entry, image->cluster_bits), inflated->data);
    }
    if (!ret) {
        io_vector_write(iov, 0, inflated->data + in_cluster, iov->size);
        /* Worth keeping where there is more to read of it. */
        if (in_cluster + iov->size < image->cluster_size) {
            keep_inflated(image, inflated);
            return 0;
        }
    }
    inflated_unref(inflated);
    return ret;
}

/* --- writing --- */

/* The cluster, compressed, in *ret_data (a buffer of a cluster). -ENOSPC: it does not get smaller. */
static int CO_FN co_deflate(struct qcow2_image *image, uint64_t bytes, const struct io_vector *iov, uint8_t *to,
                            size_t *ret_size)
{
    uint8_t *from = loop_buffer_get(image->cluster_size);
    int ret;

    if (!from)
        return -ENOMEM;
    io_vector_read(iov, 0, from, bytes);
    memset(from + bytes, 0, image->cluster_size - bytes);
    /* One byte is saved at least. */
    ret = co_qcow2_compress(image->header->compression_type, from, image->cluster_size, to, image->cluster_size - 1,
                            ret_size);
    if (unlikely(ret == -ENOTSUP))
        tell_unavailable(image);
    loop_buffer_put(from, image->cluster_size);
    return ret;
}

/* Stores compressed data and names it. */
static int CO_FN co_store_deflated(struct qcow2_image *image, uint64_t guest, const uint8_t *data, size_t size)
{
    struct qcow2_allocation claim = {.guest = guest, .clusters = 1};
    uint64_t offset;
    int ret;

    co_qcow2_allocation_claim(image, &claim);
    ret = co_qcow2_l2_own(image, guest);
    if (!ret)
        ret = co_qcow2_alloc_bytes(image, (uint32_t)size, &offset);
    if (!ret) {
        co_edge_event(image->file, BLKDEBUG_EVENT_WRITE_COMPRESSED);
        ret = co_edge_pwrite(image->file, offset, size, data, 0);
        co_edge_event(image->file, BLKDEBUG_EVENT_L2_UPDATE_COMPRESSED);
        if (!ret)
            ret = co_qcow2_entry_replace(image, guest,
                                         qcow2_compressed_entry(offset, (uint32_t)size, image->cluster_bits));
        if (ret)
            qcow2_free_clusters(image, offset, size, QCOW2_FREE_NEVER);
    }
    qcow2_allocation_end(image, &claim);
    return ret;
}

static int CO_FN co_write_one_compressed(struct qcow2_image *image, uint64_t guest, uint64_t bytes,
                                         const struct io_vector *iov)
{
    uint8_t *data = loop_buffer_get(image->cluster_size);
    size_t size;
    int ret;

    if (!data)
        return -ENOMEM;
    ret = co_deflate(image, bytes, iov, data, &size);
    if (!ret)
        ret = co_store_deflated(image, guest, data, size);
    else if (ret == -ENOSPC)
        ret = co_qcow2_write_range(image, guest, bytes, iov, 0);
    loop_buffer_put(data, image->cluster_size);
    return ret;
}

int CO_FN co_qcow2_write_compressed(struct qcow2_image *image, uint64_t guest, uint64_t bytes,
                                    const struct io_vector *iov)
{
    uint64_t size = align_up(image->header->size, 512);
    int ret = 0;

    if (image->has_data_file)
        return -ENOTSUP;
    if (!is_aligned(guest, image->cluster_size) || (!is_aligned(bytes, image->cluster_size) && guest + bytes != size))
        return -EINVAL;
    for (uint64_t done = 0; done < bytes && !ret; done += image->cluster_size) {
        uint64_t now = MIN(bytes - done, image->cluster_size);
        size_t room = io_vector_slice_count(iov, done, now) * sizeof(struct iovec);
        struct iovec *segments = loop_alloc(room);
        struct io_vector part = io_vector_slice(iov, done, now, segments);

        ret = co_write_one_compressed(image, guest + done, now, &part);
        loop_release(segments, room);
    }
    return ret;
}
