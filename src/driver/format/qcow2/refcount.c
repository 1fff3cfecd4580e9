/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reference counts: a table of blocks, each with the counts of a run of clusters. Changes happen in cached blocks,
 * under their shard's lock; blocks may be written at any time, since a count is raised before anything names its
 * cluster, and lowered when nothing on disk does any more.
 *
 * A block that is missing is made in the first cluster that it counts: all of those are free.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "driver/format/qcow2/qcow2.h"
#include "driver/format/qcow2/refcount-block.h"
#include "loop/loop.h"

/* --- counts in a block --- */

void qcow2_refcount_change(struct qcow2_image *image, struct qcow2_shard *shard, struct qcow2_table *block,
                           uint64_t cluster, uint64_t count)
{
    unsigned order = image->header->refcount_order;
    uint64_t index = cluster & ((UINT64_C(1) << image->refcount_block_bits) - 1);

    assert(count <= image->refcount_max);
    qcow2_refcount_store(block->data, order, index, count);
    qcow2_table_set_dirty(image->refcounts, shard, block, (uint32_t)((index << order) / 8), MAX(1u, (1u << order) / 8));
}

uint64_t qcow2_refcount_of(const struct qcow2_image *image, const struct qcow2_table *block, uint64_t cluster)
{
    return qcow2_refcount_load(block->data, image->header->refcount_order,
                               cluster & ((UINT64_C(1) << image->refcount_block_bits) - 1));
}

/* --- the table --- */

uint64_t qcow2_refcount_table_entry(const struct qcow2_image *image, uint64_t index)
{
    /* The count of entries first: the table itself is then at least as new. */
    uint64_t entries = __atomic_load_n(&image->refcount_table_entries, __ATOMIC_ACQUIRE);
    uint64_t *table = __atomic_load_n(&image->refcount_table, __ATOMIC_ACQUIRE);

    return index < entries ? __atomic_load_n(&table[index], __ATOMIC_ACQUIRE) : 0;
}

int CO_FN co_qcow2_refcount_block_load(struct qcow2_image *image, uint64_t index, uint8_t *to)
{
    uint64_t entry = qcow2_refcount_table_entry(image, index);
    uint64_t length = align_up(node_length(edge_child(image->file)), image->cluster_size);

    if (!entry) {
        memset(to, 0, image->cluster_size);
        return 0;
    }
    if (entry & QCOW2_REFCOUNT_RESERVED_MASK || !is_aligned(entry, image->cluster_size))
        return co_qcow2_corrupt(image, entry, image->cluster_size,
                                "Refblock offset %#" PRIx64 " unaligned (reftable index: %#" PRIx64 ")", entry, index);
    if (!range_fits(entry, image->cluster_size, length))
        return co_qcow2_corrupt(image, entry, image->cluster_size,
                                "Refblock offset %#" PRIx64 " outside of the image file of %" PRIu64
                                " bytes (reftable index: %#" PRIx64 ")",
                                entry, length, index);
    co_edge_event(image->file, BLKDEBUG_EVENT_REFBLOCK_LOAD);
    return co_edge_pread(image->file, entry, image->cluster_size, to, 0);
}

static void table_entry_set(struct qcow2_image *image, uint64_t index, uint64_t entry)
{
    __atomic_store_n(&image->refcount_table[index], entry, __ATOMIC_RELEASE);
    spin_lock(&image->alloc_spin);
    if (image->refcount_dirty_first >= image->refcount_dirty_end) {
        image->refcount_dirty_first = index;
        image->refcount_dirty_end = index + 1;
    } else {
        image->refcount_dirty_first = MIN(image->refcount_dirty_first, index);
        image->refcount_dirty_end = MAX(image->refcount_dirty_end, index + 1);
    }
    spin_unlock(&image->alloc_spin);
}

/* Clusters that we write to without having asked for them: they are not fresh. */
static void note_used(struct qcow2_image *image, uint64_t offset, uint64_t bytes)
{
    spin_lock(&image->alloc_spin);
    image->fresh_from = MAX(image->fresh_from, offset + bytes);
    spin_unlock(&image->alloc_spin);
}

/*
 * A block for table entry `index`, written to `offset` with a count of 1 for those clusters of [first, end) that it
 * counts; nothing names it yet. It counts itself from the start: what comes later may fail.
 */
int CO_FN co_qcow2_refcount_block_write(struct qcow2_image *image, uint64_t index, uint64_t offset, uint64_t first,
                                        uint64_t end)
{
    uint64_t start = index << image->refcount_block_bits, stop = (index + 1) << image->refcount_block_bits;
    uint8_t *block = loop_buffer_get(image->cluster_size);
    int ret;

    assert(!qcow2_refcount_table_entry(image, index));
    if (!block)
        return -ENOMEM;
    note_used(image, offset, image->cluster_size);
    memset(block, 0, image->cluster_size);
    for (uint64_t cluster = MAX(first, start); cluster < MIN(end, stop); cluster++)
        qcow2_refcount_store(block, image->header->refcount_order, cluster - start, 1);
    co_edge_event(image->file, BLKDEBUG_EVENT_REFBLOCK_ALLOC_WRITE);
    ret = co_edge_pwrite(image->file, offset, image->cluster_size, block, 0);
    loop_buffer_put(block, image->cluster_size);
    return ret;
}

void qcow2_refcount_block_name(struct qcow2_image *image, uint64_t index, uint64_t offset)
{
    qcow2_overlap_add(&image->overlap, offset, image->cluster_size);
    table_entry_set(image, index, offset);
}

/* A block in the first cluster that it counts. Under alloc_lock. */
static int CO_FN co_block_make(struct qcow2_image *image, uint64_t index)
{
    uint64_t first = index << image->refcount_block_bits, offset = first << image->cluster_bits;
    int ret;

    co_edge_event(image->file, BLKDEBUG_EVENT_REFBLOCK_ALLOC);
    ret = co_qcow2_overlap_check(image, offset, image->cluster_size, 0);
    if (!ret)
        ret = co_qcow2_refcount_block_write(image, index, offset, first, first + 1);
    if (!ret)
        qcow2_refcount_block_name(image, index, offset);
    return ret;
}

/* --- a larger table --- */

struct table_growth {
    uint64_t first;   /* cluster: of the new blocks, then the table */
    uint64_t blocks;  /* that count themselves and the table */
    uint64_t entries; /* of the new table */
    uint64_t table_clusters;
};

static bool growth_plan(const struct qcow2_image *image, uint64_t index, struct table_growth *ret)
{
    uint64_t old = image->refcount_table_entries, per_cluster = image->cluster_size / 8;
    uint64_t per_block = UINT64_C(1) << image->refcount_block_bits;
    uint64_t entries = MAX(index + 1, old + old / 2);

    *ret = (struct table_growth){.first = old << image->refcount_block_bits, .blocks = 1};
    /* More blocks may need a larger table, which may need more blocks. */
    for (;;) {
        uint64_t needed;

        entries = align_up(MAX(entries, old + ret->blocks), per_cluster);
        ret->table_clusters = entries / per_cluster;
        needed = (ret->blocks + ret->table_clusters + per_block - 1) / per_block;
        if (needed <= ret->blocks)
            break;
        ret->blocks = needed;
    }
    ret->entries = entries;
    return entries * 8 <= QCOW2_REFCOUNT_TABLE_BYTES_MAX &&
           (ret->first + ret->blocks + ret->table_clusters) << image->cluster_bits <= QCOW2_HOST_OFFSET_MAX;
}

/* The new blocks, in the file. */
static int CO_FN co_growth_write_blocks(struct qcow2_image *image, const struct table_growth *growth)
{
    uint64_t per_block = UINT64_C(1) << image->refcount_block_bits;
    uint64_t used = growth->blocks + growth->table_clusters;
    uint8_t *block = loop_buffer_get(image->cluster_size);
    int ret = block ? 0 : -ENOMEM;

    for (uint64_t i = 0; i < growth->blocks && !ret; i++) {
        memset(block, 0, image->cluster_size);
        for (uint64_t j = 0; j < per_block && i * per_block + j < used; j++)
            qcow2_refcount_store(block, image->header->refcount_order, j, 1);
        co_edge_event(image->file, BLKDEBUG_EVENT_REFBLOCK_ALLOC_WRITE_BLOCKS);
        ret = co_edge_pwrite(image->file, (growth->first + i) << image->cluster_bits, image->cluster_size, block, 0);
    }
    if (block)
        loop_buffer_put(block, image->cluster_size);
    return ret;
}

/* The header with the new table, durably; as it was where that fails. */
static int CO_FN co_growth_switch(struct qcow2_image *image, uint64_t offset, uint64_t clusters)
{
    struct qcow2_header *header = image->header;
    uint64_t old_offset = header->refcount_table_offset;
    uint32_t old_clusters = header->refcount_table_clusters;
    int ret;

    header->refcount_table_offset = offset;
    header->refcount_table_clusters = (uint32_t)clusters;
    co_edge_event(image->file, BLKDEBUG_EVENT_REFBLOCK_ALLOC_SWITCH_TABLE);
    ret = co_qcow2_header_update_fields(image, true);
    if (ret) {
        header->refcount_table_offset = old_offset;
        header->refcount_table_clusters = old_clusters;
    }
    return ret;
}

/*
 * Moves the table to a place where it can have an entry at `index`. The new place and its blocks are durable before the
 * header names them. Under alloc_lock.
 */
static int CO_FN co_table_grow(struct qcow2_image *image, uint64_t index)
{
    uint64_t old_offset = image->header->refcount_table_offset;
    uint64_t old_bytes = image->refcount_table_entries * 8, offset;
    struct table_growth growth;
    uint64_t *table;
    int ret;

    co_edge_event(image->file, BLKDEBUG_EVENT_REFTABLE_GROW);
    if (!growth_plan(image, index, &growth))
        return -EFBIG;
    table = g_try_new0(uint64_t, growth.entries);
    if (!table)
        return -ENOMEM;
    memcpy(table, image->refcount_table, old_bytes);
    for (uint64_t i = 0; i < growth.blocks; i++)
        table[image->refcount_table_entries + i] = (growth.first + i) << image->cluster_bits;
    offset = (growth.first + growth.blocks) << image->cluster_bits;
    note_used(image, growth.first << image->cluster_bits,
              (growth.blocks + growth.table_clusters) * image->cluster_size);
    ret = co_qcow2_overlap_check(image, growth.first << image->cluster_bits,
                                 (growth.blocks + growth.table_clusters) * image->cluster_size, 0);
    if (!ret)
        ret = co_growth_write_blocks(image, &growth);
    co_edge_event(image->file, BLKDEBUG_EVENT_REFBLOCK_ALLOC_WRITE_TABLE);
    if (!ret)
        ret = co_qcow2_table_write(image, offset, growth.entries, table, 0);
    /* Blocks that the old table does not name in the file yet are named by the new one. */
    if (!ret)
        ret = co_qcow2_refcount_blocks_write(image);
    if (!ret)
        ret = co_edge_flush(image->file);
    if (!ret)
        ret = co_growth_switch(image, offset, growth.table_clusters);
    if (ret) {
        g_free(table);
        return ret;
    }
    qcow2_overlap_add(&image->overlap, growth.first << image->cluster_bits, growth.blocks * image->cluster_size);
    qcow2_overlap_set_range(&image->overlap, QCOW2_METADATA_REFCOUNT_TABLE, offset, growth.entries * 8);
    qcow2_retire(image, image->refcount_table);
    __atomic_store_n(&image->refcount_table, table, __ATOMIC_RELEASE);
    __atomic_store_n(&image->refcount_table_entries, growth.entries, __ATOMIC_RELEASE);
    spin_lock(&image->alloc_spin);
    image->refcount_dirty_first = image->refcount_dirty_end = 0;
    spin_unlock(&image->alloc_spin);
    qcow2_free_clusters(image, old_offset, old_bytes, QCOW2_FREE_OTHER);
    return 0;
}

int CO_FN co_qcow2_refcount_table_reserve(struct qcow2_image *image, uint64_t index)
{
    return index < image->refcount_table_entries ? 0 : co_table_grow(image, index);
}

int CO_FN co_qcow2_refcount_block_ensure(struct qcow2_image *image, uint64_t index)
{
    int ret = co_qcow2_refcount_table_reserve(image, index);

    if (ret)
        return ret;
    return qcow2_refcount_table_entry(image, index) ? 0 : co_block_make(image, index);
}

/* --- counts --- */

int CO_FN co_qcow2_refcount_get(struct qcow2_image *image, uint64_t offset, uint64_t *ret_count)
{
    uint64_t cluster = offset >> image->cluster_bits;
    uint64_t index = cluster >> image->refcount_block_bits;
    struct qcow2_table *block;
    int ret;

    *ret_count = 0;
    if (!qcow2_refcount_table_entry(image, index))
        return 0;
    ret = co_qcow2_cache_lock(image->refcounts, index, &block);
    if (ret)
        return ret;
    *ret_count = qcow2_refcount_of(image, block, cluster);
    qcow2_cache_unlock(qcow2_cache_shard(image->refcounts, index), block);
    return 0;
}

/*
 * Adds to the counts of clusters [first, end) of one block. On failure those before *ret_done have been changed.
 * -ERANGE: one is lower than what is taken away.
 */
static int CO_FN co_add_in_block(struct qcow2_image *image, uint64_t first, uint64_t end, int64_t delta,
                                 uint64_t *ret_done)
{
    uint64_t index = first >> image->refcount_block_bits;
    struct qcow2_shard *shard = qcow2_cache_shard(image->refcounts, index);
    struct qcow2_table *block;
    int ret = co_qcow2_cache_lock(image->refcounts, index, &block);

    *ret_done = first;
    if (ret)
        return ret;
    for (uint64_t cluster = first; cluster < end && !ret; cluster++) {
        uint64_t count = qcow2_refcount_of(image, block, cluster);

        if (delta < 0 ? count < (uint64_t)-delta : (uint64_t)delta > image->refcount_max - count) {
            ret = delta < 0 ? -ERANGE : -EINVAL;
            break;
        }
        qcow2_refcount_change(image, shard, block, cluster, count + (uint64_t)delta);
        *ret_done = cluster + 1;
    }
    qcow2_cache_unlock(shard, block);
    return ret;
}

static int CO_FN co_ensure_locked(struct qcow2_image *image, uint64_t index)
{
    int ret;

    if (qcow2_refcount_table_entry(image, index))
        return 0;
    co_mutex_lock(&image->alloc_lock);
    ret = co_qcow2_refcount_block_ensure(image, index);
    co_mutex_unlock(&image->alloc_lock);
    return ret;
}

static int CO_FN co_add_range(struct qcow2_image *image, uint64_t first, uint64_t end, int64_t delta,
                              uint64_t *ret_done)
{
    uint64_t per_block = UINT64_C(1) << image->refcount_block_bits;
    int ret = 0;

    *ret_done = first;
    while (*ret_done < end && !ret) {
        uint64_t index = *ret_done >> image->refcount_block_bits;
        uint64_t stop = MIN(end, (index + 1) * per_block);

        if (delta > 0)
            ret = co_ensure_locked(image, index);
        else if (!qcow2_refcount_table_entry(image, index))
            ret = -ERANGE;
        if (!ret)
            ret = co_add_in_block(image, *ret_done, stop, delta, ret_done);
    }
    return ret;
}

int CO_FN co_qcow2_refcount_add(struct qcow2_image *image, uint64_t offset, uint64_t bytes, int64_t delta)
{
    uint64_t first = offset >> image->cluster_bits;
    uint64_t end = (offset + bytes + image->cluster_size - 1) >> image->cluster_bits;
    uint64_t done, undone;
    int ret;

    assert(range_fits(offset, bytes, UINT64_C(1) << 63));
    ret = co_add_range(image, first, end, delta, &done);
    if (!ret) {
        if (delta < 0)
            qcow2_alloc_hint(image, first);
        return 0;
    }
    /* The file may fail too, which says nothing about the counts. */
    if (ret == -ERANGE)
        ret = co_qcow2_corrupt(image, done << image->cluster_bits, image->cluster_size,
                               "Reference count of the cluster at %#" PRIx64 " would fall below zero",
                               done << image->cluster_bits);
    if (done > first)
        (void)co_add_range(image, first, done, -delta, &undone);
    return ret;
}

int CO_FN co_qcow2_refcount_set(struct qcow2_image *image, uint64_t offset, uint64_t count)
{
    uint64_t cluster = offset >> image->cluster_bits;
    uint64_t index = cluster >> image->refcount_block_bits;
    struct qcow2_shard *shard = qcow2_cache_shard(image->refcounts, index);
    struct qcow2_table *block;
    int ret;

    if (count > image->refcount_max)
        return -EINVAL;
    ret = co_ensure_locked(image, index);
    if (!ret)
        ret = co_qcow2_cache_lock(image->refcounts, index, &block);
    if (ret)
        return ret;
    qcow2_refcount_change(image, shard, block, cluster, count);
    qcow2_cache_unlock(shard, block);
    if (!count)
        qcow2_alloc_hint(image, cluster);
    return 0;
}
