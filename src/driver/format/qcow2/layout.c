/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "driver/format/qcow2/layout.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "base/error.h"
#include "block/node.h"
#include "driver/format/qcow2/header.h"

static uint64_t divide_up(uint64_t value, uint64_t by)
{
    return value / by + (value % by != 0);
}

/* Refcount blocks count themselves and the table that lists them: more of them until they suffice. */
static void count_refcounts(uint64_t others, unsigned cluster_bits, unsigned refcount_order, struct qcow2_layout *ret)
{
    uint64_t block_entries = UINT64_C(1) << (cluster_bits + 3 - refcount_order);
    uint64_t blocks = 1;
    uint64_t table = 1;

    for (;;) {
        uint64_t needed = divide_up(others + blocks + table, block_entries);

        if (needed <= blocks)
            break;
        blocks = needed;
        table = divide_up(blocks * 8, UINT64_C(1) << cluster_bits);
    }
    ret->refcount_blocks = blocks;
    ret->refcount_table_clusters = table;
}

static bool check_size(const struct qcow2_layout_request *request, struct error **err)
{
    uint64_t entries = qcow2_l1_entries(request->size, request->cluster_bits, request->subclusters);

    if (request->size > INT64_MAX)
        return error_set(err, "Could not resize image: Image size cannot be negative: it is %" PRIu64, request->size);
    if (request->size > NODE_LENGTH_MAX || entries > QCOW2_L1_BYTES_MAX / 8)
        return error_set(err,
                         "Could not resize image: Failed to grow the L1 table: File too large: %" PRIu64
                         " bytes need %" PRIu64 " entries, at most %d are supported",
                         request->size, entries, QCOW2_L1_BYTES_MAX / 8);
    return true;
}

/* Everything in its order, once it is known how much of each there is. */
static void place(struct qcow2_layout *layout, unsigned cluster_bits)
{
    uint64_t at = 1;

    layout->refcount_table_offset = at << cluster_bits;
    at += layout->refcount_table_clusters;
    layout->refcount_blocks_offset = at << cluster_bits;
    at += layout->refcount_blocks;
    layout->l1_offset = layout->l1_entries ? at << cluster_bits : 0;
    at += layout->l1_clusters;
    layout->crypto_offset = at << cluster_bits;
    at += layout->crypto_clusters;
    layout->l2_offset = at << cluster_bits;
    at += layout->l2_tables;
    layout->data_offset = at << cluster_bits;
    at += layout->data_clusters;
    layout->clusters = at;
}

bool qcow2_layout_make(const struct qcow2_layout_request *request, struct qcow2_layout *ret, struct error **err)
{
    unsigned cluster_bits = request->cluster_bits;
    uint64_t cluster_size = UINT64_C(1) << cluster_bits;
    struct qcow2_layout layout = {0};
    uint64_t others;

    assert(cluster_bits >= QCOW2_CLUSTER_BITS_MIN);
    assert(cluster_bits <= QCOW2_CLUSTER_BITS_MAX);
    if (!check_size(request, err))
        return false;
    layout.l1_entries = qcow2_l1_entries(request->size, cluster_bits, request->subclusters);
    layout.l1_clusters = divide_up(layout.l1_entries * 8, cluster_size);
    layout.crypto_clusters = divide_up(request->crypto_bytes, cluster_size);
    layout.l2_tables = request->tables ? layout.l1_entries : 0;
    layout.data_clusters = divide_up(request->data_bytes, cluster_size);
    others = 1 + layout.l1_clusters + layout.crypto_clusters + layout.l2_tables + layout.data_clusters;
    count_refcounts(others, cluster_bits, request->refcount_order, &layout);
    place(&layout, cluster_bits);
    if (layout.clusters > QCOW2_HOST_OFFSET_MAX >> cluster_bits)
        return error_set_errno(err, EFBIG,
                               "Could not resize image: %" PRIu64 " clusters of %" PRIu64 " bytes are needed",
                               layout.clusters, cluster_size);
    if (layout.refcount_table_clusters * cluster_size > QCOW2_REFCOUNT_TABLE_BYTES_MAX)
        return error_set_errno(err, EFBIG,
                               "Could not resize image: a refcount table of %" PRIu64 " bytes is needed, at most %d "
                               "are supported",
                               layout.refcount_table_clusters * cluster_size, QCOW2_REFCOUNT_TABLE_BYTES_MAX);
    *ret = layout;
    return true;
}
