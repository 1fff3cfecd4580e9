/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Another width of reference counts. The new blocks and their table are written behind everything that is in use, and
 * count themselves; one write of the header makes them valid, and only then the old ones are let go.
 */
#include "driver/format/qcow2/amend.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "driver/format/qcow2/qcow2.h"
#include "driver/format/qcow2/refcount-block.h"
#include "loop/loop.h"

struct width_change {
    struct qcow2_image *image;
    unsigned order;      /* the new one */
    unsigned block_bits; /* log2 of the counts in a new block */
    uint64_t entries;    /* of the new table that are in use */
    uint64_t *table;     /* owned; while counting: 1 for a block that there will be */
    uint64_t first;      /* cluster: what is in use ends there, and what is new begins */
    uint64_t blocks;     /* of the new kind */
    uint64_t table_clusters;
    uint8_t *old_block; /* buffers of a cluster each */
    uint8_t *new_block;
    uint64_t old_index; /* of what is in old_block; UINT64_MAX: nothing */
    const struct qcow2_amend_progress *progress;
};

static uint64_t entries_max(const struct width_change *change)
{
    (void)change;
    return QCOW2_REFCOUNT_TABLE_BYTES_MAX / 8;
}

/* The old count; blocks are read as they are come across. */
static int CO_FN co_old_count(struct width_change *change, uint64_t cluster, uint64_t *ret)
{
    struct qcow2_image *image = change->image;
    uint64_t index = cluster >> image->refcount_block_bits;
    uint64_t entry = index < image->refcount_table_entries ? image->refcount_table[index] : 0;

    *ret = 0;
    if (!entry)
        return 0;
    if (index != change->old_index) {
        int result =
            co_edge_pread(image->file, entry & QCOW2_REFCOUNT_OFFSET_MASK, image->cluster_size, change->old_block, 0);

        change->old_index = UINT64_MAX;
        if (result)
            return result;
        change->old_index = index;
    }
    *ret = qcow2_refcount_load(change->old_block, image->header->refcount_order,
                               cluster & ((UINT64_C(1) << image->refcount_block_bits) - 1));
    return 0;
}

/* There will be blocks for the clusters from `first` to before `end`. */
static bool mark_blocks(struct width_change *change, uint64_t first, uint64_t end, struct error **err)
{
    for (uint64_t index = first >> change->block_bits; index <= (end - 1) >> change->block_bits; index++) {
        if (index >= entries_max(change))
            return error_set(err,
                             "With counts of %u bits the refcount table would be too large: cluster %" PRIu64
                             " needs entry %" PRIu64 ", at most %" PRIu64 " are supported",
                             1u << change->order, first, index, entries_max(change));
        if (!change->table[index])
            change->blocks++;
        change->table[index] = 1;
        change->entries = MAX(change->entries, index + 1);
    }
    return true;
}

static bool take_count(struct width_change *change, uint64_t cluster, uint64_t count, struct error **err)
{
    uint64_t max = UINT64_MAX >> (64 - (1u << change->order));

    if (!count)
        return true;
    if (count > max)
        return error_set(err,
                         "Cannot decrease refcount entry width to %u bits: Cluster at offset %#" PRIx64
                         " has a refcount of %" PRIu64,
                         1u << change->order, cluster << change->image->cluster_bits, count);
    change->first = cluster + 1;
    return mark_blocks(change, cluster, cluster + 1, err);
}

/* Looks at all counts: do they fit, and which blocks will there be? */
static bool CO_FN co_scan(struct width_change *change, struct error **err)
{
    struct qcow2_image *image = change->image;

    for (uint64_t index = 0; index < image->refcount_table_entries; index++) {
        uint64_t cluster = index << image->refcount_block_bits;
        uint64_t end = (index + 1) << image->refcount_block_bits;

        qcow2_amend_report(change->progress, index, 2 * image->refcount_table_entries);
        for (; image->refcount_table[index] && cluster < end; cluster++) {
            uint64_t count;
            int ret = co_old_count(change, cluster, &count);

            if (ret)
                return error_set_errno(err, ret, "Could not read the refcount block at offset %#" PRIx64,
                                       image->refcount_table[index]);
            if (!take_count(change, cluster, count, err))
                return false;
        }
    }
    return true;
}

/* Blocks for the new blocks and the new table, too: more of them until they suffice. */
static bool count_new(struct width_change *change, struct error **err)
{
    uint64_t before;

    do {
        before = change->blocks + change->table_clusters;
        change->table_clusters = (change->entries * 8 + change->image->cluster_size - 1) >> change->image->cluster_bits;
        if (!mark_blocks(change, change->first, change->first + change->blocks + change->table_clusters, err))
            return false;
    } while (before != change->blocks + change->table_clusters);
    return true;
}

static uint64_t new_end(const struct width_change *change)
{
    return change->first + change->blocks + change->table_clusters;
}

static int CO_FN co_write_block(struct width_change *change, uint64_t index, uint64_t offset)
{
    struct qcow2_image *image = change->image;
    uint64_t cluster = index << change->block_bits;
    uint64_t end = MIN((index + 1) << change->block_bits, new_end(change));
    int ret = 0;

    memset(change->new_block, 0, image->cluster_size);
    for (uint64_t at = 0; cluster < end && !ret; at++, cluster++) {
        uint64_t count = 1;

        if (cluster < change->first)
            ret = co_old_count(change, cluster, &count);
        qcow2_refcount_store(change->new_block, change->order, at, count);
    }
    if (!ret)
        ret = co_qcow2_overlap_check(image, offset, image->cluster_size, 0);
    co_edge_event(image->file, BLKDEBUG_EVENT_REFBLOCK_UPDATE);
    return ret ? ret : co_edge_pwrite(image->file, offset, image->cluster_size, change->new_block, 0);
}

static int CO_FN co_write_all(struct width_change *change)
{
    struct qcow2_image *image = change->image;
    uint64_t padded = change->table_clusters << (image->cluster_bits - 3);
    uint64_t at = change->first << image->cluster_bits;
    int ret = 0;

    for (uint64_t index = 0; index < change->entries && !ret; index++) {
        qcow2_amend_report(change->progress, change->entries + index, 2 * change->entries);
        if (!change->table[index])
            continue;
        ret = co_write_block(change, index, at);
        change->table[index] = at;
        at += image->cluster_size;
    }
    assert(ret || at == (change->first + change->blocks) << image->cluster_bits);
    co_edge_event(image->file, BLKDEBUG_EVENT_REFTABLE_UPDATE);
    if (!ret)
        ret = co_qcow2_table_write(image, at, padded, change->table, QCOW2_METADATA_REFCOUNT_TABLE);
    return ret ? ret : co_edge_flush(image->file);
}

/* The old table and its blocks are free. */
static int CO_FN co_free_old(struct qcow2_image *image, const struct qcow2_header *before, const uint64_t *table)
{
    uint64_t bytes = (uint64_t)before->refcount_table_clusters << image->cluster_bits;
    int ret = co_qcow2_refcount_add(image, before->refcount_table_offset, bytes, -1);

    for (uint64_t i = 0; i < bytes / 8 && !ret; i++) {
        if (table[i])
            ret = co_qcow2_refcount_add(image, table[i], image->cluster_size, -1);
    }
    return ret ? ret : co_qcow2_settle(image);
}

/* From here on the new counts are the image's. */
static int CO_FN co_switch(struct width_change *change)
{
    struct qcow2_image *image = change->image;
    struct qcow2_header before = *image->header;
    g_autofree uint64_t *old_table =
        g_memdup2(image->refcount_table, image->refcount_table_entries * sizeof(*image->refcount_table));
    int ret;

    image->header->refcount_order = change->order;
    image->header->refcount_table_offset = (change->first + change->blocks) << image->cluster_bits;
    image->header->refcount_table_clusters = (uint32_t)change->table_clusters;
    ret = co_qcow2_header_update_fields(image, true);
    if (ret) {
        image->header->refcount_order = before.refcount_order;
        image->header->refcount_table_offset = before.refcount_table_offset;
        image->header->refcount_table_clusters = before.refcount_table_clusters;
        return ret;
    }
    image->refcount_block_bits = change->block_bits;
    image->refcount_max = UINT64_MAX >> (64 - (1u << change->order));
    image->fresh_from = MAX(image->fresh_from, new_end(change) << image->cluster_bits);
    qcow2_caches_drop(image);
    ret = co_qcow2_refcount_table_load(image);
    if (!ret)
        ret = co_qcow2_overlap_load(image, image->overlap.mask);
    return ret ? ret : co_free_old(image, &before, old_table);
}

static bool CO_FN co_change(struct width_change *change, struct error **err)
{
    int ret;

    if (!co_scan(change, err) || !count_new(change, err))
        return false;
    ret = co_write_all(change);
    if (ret)
        return error_set_errno(err, ret, "Could not write the new reference counts");
    ret = co_switch(change);
    return !ret || error_set_errno(err, ret, "Could not change the width of reference counts");
}

bool CO_FN co_qcow2_amend_refcount_order(struct qcow2_image *image, unsigned order,
                                         const struct qcow2_amend_progress *progress, struct error **err)
{
    struct width_change change = {
        .image = image,
        .order = order,
        .block_bits = image->cluster_bits + 3 - order,
        .old_index = UINT64_MAX,
        .progress = progress,
    };
    int ret = co_qcow2_settle(image);
    bool ok;

    assert(order <= QCOW2_REFCOUNT_ORDER_MAX);
    if (ret)
        return error_set_errno(err, ret, "Could not write back the image's metadata");
    qcow2_caches_drop(image);
    /* With room for the padding to whole clusters. */
    change.table = g_try_new0(uint64_t, entries_max(&change) + image->cluster_size / 8);
    change.old_block = loop_buffer_get(image->cluster_size);
    change.new_block = loop_buffer_get(image->cluster_size);
    ok = change.table && change.old_block && change.new_block;
    ok = ok ? co_change(&change, err) : error_set_errno(err, ENOMEM, "Could not change the width of reference counts");
    if (change.old_block)
        loop_buffer_put(change.old_block, image->cluster_size);
    if (change.new_block)
        loop_buffer_put(change.new_block, image->cluster_size);
    g_free(change.table);
    return ok;
}
