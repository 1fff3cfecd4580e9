/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Another size of the disk. What grows first gets its tables, then zeroes where something would shine through, then its
 * clusters if they are to be allocated beforehand; the header, which makes it visible, comes last. What shrinks is
 * invisible first.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "driver/format/qcow2/allocation.h"
#include "driver/format/qcow2/bitmap.h"
#include "driver/format/qcow2/request.h"
#include "driver/format/qcow2/snapshot.h"
#include "driver/format/qcow2/vm-state.h"
#include "loop/loop.h"

/* --- a larger L1 table --- */

/* The header with the table at another place, durably; as it was where that fails. */
static int CO_FN co_l1_switch(struct qcow2_image *image, uint64_t *l1, uint64_t offset, uint32_t entries)
{
    struct qcow2_header *header = image->header;
    uint64_t old_offset = header->l1_table_offset;
    uint32_t old_entries = header->l1_size;
    int ret;

    header->l1_table_offset = offset;
    header->l1_size = entries;
    ret = co_qcow2_header_update_fields(image, true);
    header->l1_size = old_entries;
    if (ret) {
        header->l1_table_offset = old_offset;
        return ret;
    }
    qcow2_retire(image, image->l1);
    __atomic_store_n(&image->l1, l1, __ATOMIC_RELEASE);
    __atomic_store_n(&header->l1_size, entries, __ATOMIC_RELEASE);
    qcow2_overlap_set_range(&image->overlap, QCOW2_METADATA_ACTIVE_L1, offset, (uint64_t)entries * 8);
    if (old_entries)
        qcow2_free_clusters(image, old_offset, (uint64_t)old_entries * 8, QCOW2_FREE_OTHER);
    return 0;
}

/* Under l1_lock: no entry changes. */
static int CO_FN co_l1_move(struct qcow2_image *image, uint32_t entries)
{
    uint64_t *l1 = g_try_new0(uint64_t, entries);
    uint64_t offset = 0;
    int ret = l1 ? 0 : -ENOMEM;

    co_edge_event(image->file, BLKDEBUG_EVENT_L1_GROW_ALLOC_TABLE);
    if (!ret)
        ret = co_qcow2_alloc_clusters(image, (uint64_t)entries * 8, &offset);
    /* All that is in memory is in the file then, so the new table is right from the start. */
    if (!ret)
        ret = co_qcow2_write_back(image, true);
    co_mutex_lock(&image->write_back_lock);
    if (!ret) {
        memcpy(l1, image->l1, image->header->l1_size * sizeof(*l1));
        co_edge_event(image->file, BLKDEBUG_EVENT_L1_GROW_WRITE_TABLE);
        ret = co_qcow2_table_write(image, offset, entries, l1, 0);
    }
    if (!ret)
        ret = co_edge_flush(image->file);
    co_edge_event(image->file, BLKDEBUG_EVENT_L1_GROW_ACTIVATE_TABLE);
    if (!ret)
        ret = co_l1_switch(image, l1, offset, entries);
    co_mutex_unlock(&image->write_back_lock);
    if (ret) {
        g_free(l1);
        if (offset)
            qcow2_free_clusters(image, offset, (uint64_t)entries * 8, QCOW2_FREE_NEVER);
    }
    return ret;
}

int CO_FN co_qcow2_l1_reserve(struct qcow2_image *image, uint64_t size, struct error **err)
{
    uint64_t entries = qcow2_l1_entries(size, image->cluster_bits, image->subclusters > 1);
    int ret = 0;

    if (entries > QCOW2_L1_BYTES_MAX / 8) {
        error_set(err,
                  "Image size too large for file format: %" PRIu64 " bytes need an L1 table of %" PRIu64
                  " entries, at most %d with clusters of %" PRIu64 " bytes",
                  size, entries, QCOW2_L1_BYTES_MAX / 8, image->cluster_size);
        return -EFBIG;
    }
    co_mutex_lock(&image->l1_lock);
    if (entries > image->header->l1_size)
        ret = co_l1_move(image, (uint32_t)entries);
    co_mutex_unlock(&image->l1_lock);
    if (ret)
        error_set_errno(err, ret, "Failed to grow the L1 table");
    return ret;
}

/* Where the state of a machine lay comes disk, and nothing of it may show there. */
static int CO_FN co_l1_grow(struct qcow2_image *image, uint64_t from, uint64_t to, struct error **err)
{
    bool subclusters = image->subclusters > 1;
    int ret = 0;

    if (qcow2_l1_entries(to, image->cluster_bits, subclusters) >
        qcow2_l1_entries(from, image->cluster_bits, subclusters))
        ret = co_qcow2_vm_state_drop(image);
    if (ret) {
        error_set_errno(err, ret, "Could not give up the state of the virtual machine that lies behind the disk");
        return ret;
    }
    return co_qcow2_l1_reserve(image, to, err);
}

/* --- clusters beforehand --- */

/* What the storage of new clusters must be like before they are named. */
static int CO_FN co_prepare_storage(struct qcow2_image *image, uint64_t host, uint64_t bytes, bool fresh,
                                    enum prealloc_mode mode)
{
    enum { STEP_BYTES = 1 << 20 };
    uint8_t *zeroes;
    int ret = 0;

    if (mode == PREALLOC_MODE_METADATA && fresh)
        return 0;
    if (mode != PREALLOC_MODE_FULL)
        return co_edge_pwrite_zeroes(image->data, host, bytes, 0);
    zeroes = loop_buffer_get(STEP_BYTES);
    if (!zeroes)
        return -ENOMEM;
    memset(zeroes, 0, STEP_BYTES);
    for (uint64_t done = 0; done < bytes && !ret; done += STEP_BYTES)
        ret = co_edge_pwrite(image->data, host + done, MIN(bytes - done, STEP_BYTES), zeroes, 0);
    loop_buffer_put(zeroes, STEP_BYTES);
    return ret;
}

/* Where a run of clusters is unallocated from `guest` on, gives it clusters; how far it came in *ret_bytes. */
static int CO_FN co_preallocate_step(struct qcow2_image *image, uint64_t guest, uint64_t bytes, enum prealloc_mode mode,
                                     uint64_t *ret_bytes, uint64_t *ret_end)
{
    struct qcow2_allocation allocation = {.guest = guest, .keep = image->has_data_file, .host = guest};
    struct qcow2_run run = {.offset = guest};
    struct qcow2_extent extent;
    struct qcow2_hold hold;
    int ret = co_qcow2_extent_get(image, guest, bytes, &extent, &hold);

    if (ret)
        return ret;
    qcow2_hold_end(&hold);
    *ret_bytes = extent.bytes;
    *ret_end = extent.has_host ? extent.host + extent.bytes : 0;
    if (extent.kind != QCOW2_EXTENT_UNALLOCATED || extent.has_host)
        return 0;
    ret = co_qcow2_l2_own(image, guest);
    run.clusters = align_up(extent.bytes, image->cluster_size) >> image->cluster_bits;
    if (!ret && !image->has_data_file)
        ret = co_qcow2_alloc_run(image, run.clusters, &run);
    if (ret)
        return ret;
    allocation.clusters = run.clusters;
    allocation.host = run.offset;
    *ret_bytes = run.clusters << image->cluster_bits;
    *ret_end = run.offset + *ret_bytes;
    co_qcow2_allocation_claim(image, &allocation);
    ret = co_prepare_storage(image, run.offset, *ret_bytes, run.fresh, mode);
    if (ret) {
        qcow2_allocation_abort(image, &allocation);
        return ret;
    }
    return co_qcow2_allocation_link(image, &allocation, guest, *ret_bytes);
}

/* The file reaches at least to `end`. */
static int CO_FN co_file_reach(struct edge *edge, uint64_t end, enum prealloc_mode mode, struct error **err)
{
    struct truncate_request request = {.length = end, .preallocation = mode};

    if (node_length(edge_child(edge)) >= end)
        return 0;
    return co_edge_truncate(edge, &request, err);
}

int CO_FN co_qcow2_preallocate(struct qcow2_image *image, uint64_t from, uint64_t to, enum prealloc_mode mode,
                               struct error **err)
{
    uint64_t guest = align_down(from, image->cluster_size), end = 0;
    int ret = 0;

    to = align_up(to, image->cluster_size);
    while (guest < to && !ret) {
        uint64_t bytes = MIN(to - guest, qcow2_slice_rest(image, guest)), here = 0;

        ret = co_preallocate_step(image, guest, bytes, mode, &bytes, &here);
        guest += bytes;
        end = MAX(end, here);
    }
    if (ret)
        error_set_errno(err, ret, "Could not preallocate clusters at guest offset %" PRIu64, guest);
    else if (!image->has_data_file)
        ret = co_file_reach(image->file, end, PREALLOC_MODE_OFF, err);
    return ret;
}

/* --- growing --- */

/* Makes [from, to), inside one cluster, read as zeroes. */
static int CO_FN co_zero_rest(struct qcow2_image *image, uint64_t from, uint64_t to)
{
    uint8_t *zeroes = loop_buffer_get(to - from);
    struct iovec segment = {.iov_base = zeroes, .iov_len = to - from};
    struct io_vector iov = io_vector_of(&segment, 1);
    int ret = zeroes ? 0 : -ENOMEM;

    if (!ret) {
        memset(zeroes, 0, to - from);
        ret = co_qcow2_write_range(image, from, to - from, &iov, 0);
        loop_buffer_put(zeroes, to - from);
    }
    return ret;
}

/* Nothing may shine through in what comes: neither what the last cluster has behind the old end, nor a longer backing
 * image. */
static int CO_FN co_zero_added(struct qcow2_image *image, uint64_t from, uint64_t to, bool zero, struct error **err)
{
    struct edge *backing = node_backing(image->node);
    uint64_t cluster_end = align_up(from, image->cluster_size);
    uint64_t backing_end = backing ? align_up(node_length(edge_child(backing)), image->cluster_size) : 0;
    int ret = 0;

    if (from < cluster_end)
        ret = co_zero_rest(image, from, cluster_end);
    if (!ret && zero && cluster_end < MIN(to, backing_end)) {
        ret = co_qcow2_zero_clusters(image, cluster_end,
                                     MIN(align_up(to, image->cluster_size), backing_end) - cluster_end);
        for (uint64_t at = cluster_end; ret == -ENOTSUP && at < MIN(to, backing_end); at += image->cluster_size) {
            int written = co_zero_rest(image, at, at + image->cluster_size);

            if (written)
                ret = written;
            else if (at + image->cluster_size >= MIN(to, backing_end))
                ret = 0;
        }
    }
    if (ret)
        error_set_errno(err, ret, "Failed to zero out the new area");
    return ret;
}

static int CO_FN co_set_size(struct qcow2_image *image, uint64_t size, struct error **err)
{
    uint64_t before = image->header->size;
    int ret;

    image->header->size = size;
    ret = co_qcow2_header_update_fields(image, true);
    if (ret) {
        image->header->size = before;
        error_set_errno(err, ret, "Failed to update the image size");
    }
    return ret;
}

static int CO_FN co_grow(struct qcow2_image *image, const struct truncate_request *request, struct error **err)
{
    uint64_t from = image->header->size, to = request->length;
    int ret = co_l1_grow(image, from, to, err);

    if (!ret)
        ret = co_zero_added(image, from, to, request->zero, err);
    if (!ret && image->has_data_file)
        ret = co_file_reach(
            image->data, to,
            request->preallocation == PREALLOC_MODE_METADATA ? PREALLOC_MODE_OFF : request->preallocation, err);
    if (!ret && (request->preallocation != PREALLOC_MODE_OFF || image->data_file_raw))
        ret = co_qcow2_preallocate(image, align_up(from, image->cluster_size), to,
                                   image->has_data_file ? PREALLOC_MODE_METADATA : request->preallocation, err);
    if (!ret) {
        ret = co_qcow2_write_back(image, true);
        if (ret)
            error_set_errno(err, ret, "Could not make the new tables durable");
    }
    return ret ? ret : co_set_size(image, to, err);
}

/* --- shrinking --- */

/* Cuts the file behind the last cluster in use. What does not work is only space that is not saved. */
static void CO_FN co_cut_file(struct qcow2_image *image)
{
    struct truncate_request request = {0};
    uint64_t end;

    qcow2_alloc_reset(image);
    co_edge_event(image->file, BLKDEBUG_EVENT_L1_SHRINK_WRITE_TABLE);
    if (co_qcow2_write_back(image, true) || co_qcow2_write_back(image, true))
        return;
    if (co_qcow2_last_cluster(image, &end))
        return;
    request.length = end << image->cluster_bits;
    if (request.length < node_length(edge_child(image->file)))
        (void)co_edge_truncate(image->file, &request, NULL);
}

static int CO_FN co_shrink(struct qcow2_image *image, const struct truncate_request *request, struct error **err)
{
    uint64_t from = align_up(request->length, image->cluster_size);
    uint64_t to = align_up(image->header->size, image->cluster_size);
    int ret;

    if (request->preallocation != PREALLOC_MODE_OFF) {
        error_set(err, "Preallocation can't be used for shrinking an image");
        return -EINVAL;
    }
    ret = co_set_size(image, request->length, err);
    if (!ret && from < to) {
        co_edge_event(image->file, BLKDEBUG_EVENT_L1_SHRINK_FREE_L2_CLUSTERS);
        ret = co_qcow2_forget(image, from, to - from);
        if (ret)
            error_set_errno(err, ret, "Failed to discard what is cut off");
    }
    if (!ret)
        co_cut_file(image);
    return ret;
}

int CO_FN co_qcow2_truncate(struct node *node, const struct truncate_request *request, struct error **err)
{
    struct qcow2_image *image = node_state(node);

    if (request->length % NODE_LENGTH_ALIGNMENT) {
        error_set(err, "The new size must be a multiple of %d: it is %" PRIu64, NODE_LENGTH_ALIGNMENT, request->length);
        return -EINVAL;
    }
    if (image->header->version < 3 && qcow2_snapshots(image)->count) {
        error_set(err, "Can't resize a v2 image which has snapshots");
        return -ENOTSUP;
    }
    if (!qcow2_bitmaps_can_resize(image, request->length, err))
        return -ENOTSUP;
    if (request->length > image->header->size)
        return co_grow(image, request, err);
    if (request->length < image->header->size)
        return co_shrink(image, request, err);
    return 0;
}
