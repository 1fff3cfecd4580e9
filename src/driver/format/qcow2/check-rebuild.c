/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * New refcount structures, behind everything that is in use, and the new snapshot table where one is needed. The old
 * ones stay as they are until the header, in one write inside its first sector, names the new ones; by then these are
 * durable. Nothing refers to the clusters of the old ones after that, so they count as free from the start.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/error.h"
#include "block/node.h"
#include "driver/format/qcow2/check-internal.h"
#include "driver/format/qcow2/refcount-block.h"

enum { BLOCKS_MAX = QCOW2_REFCOUNT_TABLE_BYTES_MAX / 8 };

/* What will be where. */
struct plan {
    uint8_t *snapshot_table; /* owned; NULL: stays */
    size_t snapshot_bytes;
    uint64_t snapshot_first; /* cluster */
    uint64_t block_first;    /* cluster of the first refcount block; the others follow, in the order of the table */
    uint64_t block_count;
    uint64_t table_first; /* cluster */
    uint64_t table_clusters;
};

static bool block_is_used(const struct qcow2_check *check, uint64_t block)
{
    return check->block_used[block / 8] >> block % 8 & 1;
}

static void use_blocks(struct qcow2_check *check, uint64_t first, uint64_t count)
{
    unsigned bits = qcow2_refcount_block_bits(check->header);

    for (uint64_t block = first >> bits; count && block <= (first + count - 1) >> bits && block < BLOCKS_MAX; block++) {
        check->block_used[block / 8] |= (uint8_t)(1u << block % 8);
        check->block_used_end = MAX(check->block_used_end, block + 1);
    }
}

/* Finds room, including that for the refcounts of the new structures themselves. */
static bool plan_layout(struct qcow2_check *check, struct plan *plan)
{
    uint64_t cluster_size = check->cluster_size;
    uint64_t before;

    plan->snapshot_first = MAX(check->used_end, 1);
    plan->block_first = plan->snapshot_first + align_up(plan->snapshot_bytes, cluster_size) / cluster_size;
    use_blocks(check, plan->snapshot_first, plan->block_first - plan->snapshot_first);
    plan->block_count = 0;
    do {
        uint64_t end = check->block_used_end;

        before = plan->block_count + plan->table_clusters;
        plan->block_count = 0;
        for (uint64_t block = 0; block < end; block++)
            plan->block_count += block_is_used(check, block);
        plan->table_clusters = MAX(align_up(end * 8, cluster_size) / cluster_size, 1);
        plan->table_first = plan->block_first + plan->block_count;
        if ((plan->table_first + plan->table_clusters - 1) >> qcow2_refcount_block_bits(check->header) >= BLOCKS_MAX)
            return error_set(&check->error,
                             "No refcount table of at most %d bytes can describe an image of %" PRIu64 " bytes",
                             QCOW2_REFCOUNT_TABLE_BYTES_MAX, check->file_length);
        use_blocks(check, plan->block_first, plan->block_count + plan->table_clusters);
    } while (plan->block_count + plan->table_clusters > before);
    check->additions[0] = (struct qcow2_check_addition){plan->snapshot_first, plan->block_first - plan->snapshot_first};
    check->additions[1] = (struct qcow2_check_addition){plan->block_first, plan->block_count + plan->table_clusters};
    check->cluster_count = MAX(check->cluster_count, plan->table_first + plan->table_clusters);
    return true;
}

/* The refcount blocks of the window. */
static int CO_FN co_blocks_store(struct qcow2_check *check, const struct plan *plan, uint8_t *table, uint64_t *next)
{
    unsigned bits = qcow2_refcount_block_bits(check->header);
    unsigned order = check->header->refcount_order;
    uint64_t end = MIN((check->window_first + check->window_max) >> bits, BLOCKS_MAX);
    g_autofree uint8_t *data = g_malloc(check->cluster_size);

    for (uint64_t block = check->window_first >> bits; block < end; block++) {
        uint64_t offset;
        int ret;

        if (!block_is_used(check, block))
            continue;
        assert(*next < plan->block_count);
        memset(data, 0, check->cluster_size);
        for (uint64_t i = 0; i < UINT64_C(1) << bits; i++)
            qcow2_refcount_store(data, order, i, qcow2_check_references(check, (block << bits) + i));
        offset = (plan->block_first + (*next)++) << check->header->cluster_bits;
        store_be64(table + block * 8, offset);
        co_edge_event(check->file, BLKDEBUG_EVENT_REFBLOCK_UPDATE);
        ret = co_qcow2_check_write(check, offset, data, check->cluster_size);
        if (ret < 0)
            return ret;
    }
    return 0;
}

static int CO_FN co_structures_store(struct qcow2_check *check, const struct plan *plan)
{
    unsigned cluster_bits = check->header->cluster_bits;
    unsigned bits = qcow2_refcount_block_bits(check->header);
    size_t table_bytes = plan->table_clusters << cluster_bits;
    g_autofree uint8_t *table = g_malloc0(table_bytes);
    uint64_t next = 0, block = 0;
    int ret = 0;

    qcow2_check_window_done(check);
    while (ret == 0 && next < plan->block_count) {
        while (!block_is_used(check, block))
            block++;
        qcow2_check_window(check, align_down(block << bits, check->window_max));
        ret = co_qcow2_check_walk(check, false);
        if (ret == 0)
            ret = co_blocks_store(check, plan, table, &next);
        block = MIN((check->window_first + check->window_max) >> bits, BLOCKS_MAX - 1);
    }
    assert(ret < 0 || next == plan->block_count);
    if (ret == 0 && plan->snapshot_bytes)
        ret = co_qcow2_check_write(check, plan->snapshot_first << cluster_bits, plan->snapshot_table,
                                   plan->snapshot_bytes);
    co_edge_event(check->file, BLKDEBUG_EVENT_REFTABLE_UPDATE);
    if (ret == 0)
        ret = co_qcow2_check_write(check, plan->table_first << cluster_bits, table, table_bytes);
    return ret;
}

/* Makes the new structures durable, then the image's. */
static int CO_FN co_switch(struct qcow2_check *check, const struct plan *plan)
{
    struct qcow2_header *header = check->header;
    int ret = co_edge_flush(check->file);

    if (ret < 0)
        return ret;
    header->refcount_table_offset = plan->table_first << header->cluster_bits;
    header->refcount_table_clusters = (uint32_t)plan->table_clusters;
    if (check->snapshots_rewrite) {
        header->snapshots_offset = plan->snapshot_bytes ? plan->snapshot_first << header->cluster_bits : 0;
        header->snapshot_count = (uint32_t)check->snapshots.count;
        check->snapshots.bytes = plan->snapshot_bytes;
    }
    ret = co_qcow2_header_store_fields(check->file, header);
    return ret < 0 ? ret : co_edge_flush(check->file);
}

static int CO_FN co_plan_carry_out(struct qcow2_check *check, struct plan *plan)
{
    int ret;

    qcow2_check_window(check, 0);
    ret = co_qcow2_check_walk(check, false);
    if (ret < 0)
        return ret;
    if (!plan_layout(check, plan))
        return -EFBIG;
    ret = co_structures_store(check, plan);
    if (ret == 0)
        ret = co_switch(check, plan);
    qcow2_check_forget(check);
    if (ret < 0 && !check->error)
        error_set_errno(&check->error, ret, "Could not write new refcount structures");
    return ret;
}

int CO_FN co_qcow2_check_rebuild(struct qcow2_check *check)
{
    struct plan plan = {0};
    int ret;

    if (check->rebuild)
        qcow2_check_say(check, "Rebuilding refcount structure");
    if (check->snapshots_rewrite) {
        plan.snapshot_table = qcow2_snapshot_table_encode(check->snapshots.items, check->snapshots.count,
                                                          check->header->size, &plan.snapshot_bytes, &check->error);
        if (!plan.snapshot_table)
            return -EFBIG;
    }
    check->block_used = g_malloc0(BLOCKS_MAX / 8);
    check->block_used_max = BLOCKS_MAX;
    check->block_used_end = 0;
    check->quiet = true;
    check->recount = true;
    check->old_refcount = false;
    ret = co_plan_carry_out(check, &plan);
    check->quiet = false;
    g_free(TAKE(check->block_used));
    g_free(plan.snapshot_table);
    if (ret < 0)
        return ret;

    check->file_length =
        MAX(check->file_length, (plan.table_first + plan.table_clusters) << check->header->cluster_bits);
    check->used_end = plan.table_first + plan.table_clusters;
    check->result.corruptions_fixed += check->refcount_corruptions;
    check->result.corruptions -= check->refcount_corruptions;
    check->refcount_corruptions = 0;
    check->result.leaks_fixed += check->result.leaks;
    check->result.leaks = 0;
    check->result.check_errors = 0;
    return 0;
}
