/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From guest offsets to extents: the L1 table in memory, slices of L2 tables in the cache. A slice is cached by the
 * part of the disk that it maps, so a look-up that hits needs the L1 table for nothing.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "driver/format/qcow2/allocation.h"
#include "loop/loop.h"

static uint64_t l1_load(const struct qcow2_image *image, uint64_t index)
{
    /* The size first: the table that is read next is then at least as new. */
    uint32_t size = __atomic_load_n(&image->header->l1_size, __ATOMIC_ACQUIRE);
    const uint64_t *l1 = __atomic_load_n(&image->l1, __ATOMIC_ACQUIRE);

    return index < size ? __atomic_load_n(&l1[index], __ATOMIC_ACQUIRE) : 0;
}

uint64_t qcow2_l1_entry(const struct qcow2_image *image, uint64_t guest)
{
    return l1_load(image, guest >> image->cluster_bits >> image->l2_bits) & ~QCOW2_L1_UNWRITTEN;
}

int CO_FN co_qcow2_l2_check(struct qcow2_image *image, uint64_t l1_entry)
{
    uint64_t offset = l1_entry & QCOW2_L1_OFFSET_MASK;

    if (unlikely(l1_entry & QCOW2_L1_RESERVED_MASK & ~QCOW2_L1_UNWRITTEN || !is_aligned(offset, image->cluster_size)))
        return co_qcow2_corrupt(image, offset, image->cluster_size,
                                "L2 table offset %#" PRIx64 " unaligned or with reserved bits (L1 entry %#" PRIx64 ")",
                                offset, l1_entry);
    if (unlikely(!offset || !range_fits(offset, image->cluster_size,
                                        align_up(node_length(edge_child(image->file)), image->cluster_size))))
        return co_qcow2_corrupt(image, offset, image->cluster_size,
                                "L2 table offset %#" PRIx64 " outside of the image file of %" PRIu64 " bytes", offset,
                                node_length(edge_child(image->file)));
    return 0;
}

/* --- reading ahead --- */

void qcow2_ahead_drop(struct qcow2_image *image)
{
    struct qcow2_ahead *ahead = &image->ahead;
    uint8_t *data;

    spin_lock(&ahead->spin);
    data = TAKE(ahead->data);
    ahead->count = 0;
    spin_unlock(&ahead->spin);
    if (data)
        loop_buffer_put(data, QCOW2_AHEAD_BYTES);
}

/* Takes the slice from what is there. Else: whether it is the one that follows the last. */
static bool ahead_take(struct qcow2_image *image, uint64_t slice, uint64_t slice_bytes, uint8_t *to, bool *ret_expected)
{
    struct qcow2_ahead *ahead = &image->ahead;
    bool there;

    spin_lock(&ahead->spin);
    *ret_expected = ahead->expected == slice;
    ahead->expected = slice + 1;
    there = slice - ahead->first < ahead->count;
    if (there)
        memcpy(to, ahead->data + (slice - ahead->first) * slice_bytes, slice_bytes);
    spin_unlock(&ahead->spin);
    return there;
}

/* Reads `slice` and those that follow it, all of one table, from `offset`. */
static int CO_FN co_ahead_read(struct qcow2_image *image, uint64_t slice, uint64_t count, uint64_t offset, uint8_t *to)
{
    struct qcow2_ahead *ahead = &image->ahead;
    uint64_t slice_bytes = UINT64_C(1) << (image->slice_bits + image->l2_entry_bits);
    uint8_t *data = loop_buffer_get(QCOW2_AHEAD_BYTES), *old;
    int ret = data ? co_edge_pread(image->file, offset, count * slice_bytes, data, 0) : -ENOMEM;

    assert(count * slice_bytes <= QCOW2_AHEAD_BYTES);
    if (!ret) {
        memcpy(to, data, slice_bytes);
        spin_lock(&ahead->spin);
        old = ahead->data;
        ahead->data = data;
        ahead->first = slice;
        ahead->count = count;
        spin_unlock(&ahead->spin);
        data = old;
    }
    if (data)
        loop_buffer_put(data, QCOW2_AHEAD_BYTES);
    return ret;
}

/* --- slices --- */

int CO_FN co_qcow2_slice_load(struct qcow2_image *image, uint64_t slice, uint8_t *to)
{
    unsigned per_table_bits = image->l2_bits - image->slice_bits;
    uint64_t entry = l1_load(image, slice >> per_table_bits);
    uint64_t slice_bytes = UINT64_C(1) << (image->slice_bits + image->l2_entry_bits);
    uint64_t number = slice & ((UINT64_C(1) << per_table_bits) - 1), in_table = number * slice_bytes;
    uint64_t rest = MIN((UINT64_C(1) << per_table_bits) - number, QCOW2_AHEAD_BYTES / slice_bytes);
    bool expected = false;
    int ret;

    if (!(entry & ~QCOW2_L1_UNWRITTEN)) {
        memset(to, 0, slice_bytes);
        return 0;
    }
    ret = co_qcow2_l2_check(image, entry);
    if (ret)
        return ret;
    if (!image->writable && ahead_take(image, slice, slice_bytes, to, &expected))
        return 0;
    co_edge_event(image->file, BLKDEBUG_EVENT_L2_LOAD);
    if (expected && rest > 1)
        return co_ahead_read(image, slice, rest, (entry & QCOW2_L1_OFFSET_MASK) + in_table, to);
    return co_edge_pread(image->file, (entry & QCOW2_L1_OFFSET_MASK) + in_table, slice_bytes, to, 0);
}

static inline void hold_begin(const struct qcow2_image *image, struct qcow2_shard *shard,
                              const struct qcow2_extent *extent, struct qcow2_hold *hold)
{
    hold->count = NULL;
    if (image->has_data_file || (!extent->has_host && extent->kind != QCOW2_EXTENT_COMPRESSED))
        return;
    hold->count = &shard->holds[shard->epoch & 1];
    __atomic_add_fetch(hold->count, 1, __ATOMIC_RELAXED);
}

void qcow2_hold_begin(const struct qcow2_image *image, struct qcow2_shard *shard, const struct qcow2_extent *extent,
                      struct qcow2_hold *hold)
{
    hold_begin(image, shard, extent, hold);
}

int CO_FN co_qcow2_extent_invalid(struct qcow2_image *image, uint64_t guest, const struct qcow2_extent *extent)
{
    return co_qcow2_corrupt(image, extent->entry & QCOW2_L2_OFFSET_MASK, image->cluster_size,
                            "Cluster allocation %#" PRIx64 " of guest offset %#" PRIx64
                            " is unaligned or has reserved or contradictory bits",
                            extent->entry, guest);
}

int CO_FN co_qcow2_extent_get(struct qcow2_image *image, uint64_t guest, uint64_t bytes,
                              struct qcow2_extent *ret_extent, struct qcow2_hold *hold)
{
    uint64_t slice = qcow2_slice_of(image, guest);
    struct qcow2_shard *shard = qcow2_cache_shard(image->l2, slice);
    uint64_t here = MIN(bytes, qcow2_slice_rest(image, guest));
    struct qcow2_table *table;
    int ret;

    spin_lock(&shard->spin);
    table = qcow2_cache_find(image->l2, shard, slice);
    if (likely(table)) {
        *ret_extent = qcow2_extent_find(image, table->data, guest, here);
        hold_begin(image, shard, ret_extent, hold);
        spin_unlock(&shard->spin);
    } else {
        spin_unlock(&shard->spin);
        hold->count = NULL;
        if (!qcow2_l1_entry(image, guest)) {
            *ret_extent = (struct qcow2_extent){.kind = QCOW2_EXTENT_UNALLOCATED, .bytes = here};
            return 0;
        }
        ret = co_qcow2_cache_lock(image->l2, slice, &table);
        if (ret)
            return ret;
        *ret_extent = qcow2_extent_find(image, table->data, guest, here);
        hold_begin(image, shard, ret_extent, hold);
        qcow2_cache_unlock(shard, table);
    }
    if (unlikely(ret_extent->kind == QCOW2_EXTENT_INVALID)) {
        qcow2_hold_end(hold);
        return co_qcow2_extent_invalid(image, guest, ret_extent);
    }
    return 0;
}

/* --- L2 tables of the image's own --- */

/* The table that several L1 tables share, to its new place. Nobody changes it, so the file has all of it. */
static int CO_FN co_table_copy(struct qcow2_image *image, uint64_t from, uint64_t to)
{
    uint8_t *buffer = loop_buffer_get(image->cluster_size);
    int ret;

    co_edge_event(image->file, BLKDEBUG_EVENT_L2_ALLOC_COW_READ);
    ret = buffer ? co_edge_pread(image->file, from, image->cluster_size, buffer, 0) : -ENOMEM;
    co_edge_event(image->file, BLKDEBUG_EVENT_L2_ALLOC_WRITE);
    if (!ret)
        ret = co_edge_pwrite(image->file, to, image->cluster_size, buffer, 0);
    if (buffer)
        loop_buffer_put(buffer, image->cluster_size);
    return ret;
}

/* A place for the table at `index`, with what the old one says. Under l1_lock. */
static int CO_FN co_table_make(struct qcow2_image *image, uint64_t index, uint64_t old)
{
    uint64_t offset;
    int ret = old ? co_qcow2_l2_check(image, old) : 0;

    if (!ret)
        ret = co_qcow2_alloc_clusters(image, image->cluster_size, &offset);
    if (ret)
        return ret;
    ret = co_qcow2_overlap_check(image, offset, image->cluster_size, QCOW2_METADATA_ACTIVE_L2);
    if (!ret && old)
        ret = co_table_copy(image, old & QCOW2_L1_OFFSET_MASK, offset);
    if (!ret && !old)
        co_edge_event(image->file, BLKDEBUG_EVENT_L2_ALLOC_WRITE);
    if (!ret && !old)
        ret = co_edge_pwrite_zeroes(image->file, offset, image->cluster_size, 0);
    if (ret) {
        qcow2_free_clusters(image, offset, image->cluster_size, QCOW2_FREE_NEVER);
        return ret;
    }
    __atomic_store_n(&image->l1[index], offset | QCOW2_COPIED | QCOW2_L1_UNWRITTEN, __ATOMIC_RELEASE);
    __atomic_store_n(&image->l1_dirty, true, __ATOMIC_RELEASE);
    if (old)
        qcow2_free_clusters(image, old & QCOW2_L1_OFFSET_MASK, image->cluster_size, QCOW2_FREE_OTHER);
    return 0;
}

int CO_FN co_qcow2_l2_own(struct qcow2_image *image, uint64_t guest)
{
    uint64_t index = guest >> image->cluster_bits >> image->l2_bits, entry;
    int ret = co_qcow2_owners_check(image);

    if (unlikely(ret))
        return ret;
    if (likely(l1_load(image, index) & QCOW2_COPIED))
        return 0;
    assert(index < image->header->l1_size);
    co_mutex_lock(&image->l1_lock);
    entry = l1_load(image, index) & ~QCOW2_L1_UNWRITTEN;
    if (!(entry & QCOW2_COPIED))
        ret = co_table_make(image, index, entry);
    co_mutex_unlock(&image->l1_lock);
    return ret;
}
