/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From version 2 to 3 and back. What only version 3 can say is first said otherwise: clusters that read as zeroes
 * become unallocated where nothing lies behind them, and clusters full of zeroes elsewhere, in the disk and in all
 * snapshots. The header comes last, so a crash leaves an image of the old version with the same content.
 */
#include "driver/format/qcow2/amend.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "driver/format/qcow2/qcow2.h"
#include "driver/format/qcow2/request.h"
#include "driver/format/qcow2/snapshot.h"
#include "loop/loop.h"

/* --- to version 3 --- */

static bool needs_extra_data(const struct qcow2_snapshot_table *table)
{
    for (size_t i = 0; i < table->count; i++) {
        if (table->items[i].extra_bytes < QCOW2_SNAPSHOT_EXTRA_BYTES_V3)
            return true;
    }
    return false;
}

bool CO_FN co_qcow2_amend_upgrade(struct qcow2_image *image, struct error **err)
{
    assert(image->header->version == 2);
    if (needs_extra_data(qcow2_snapshots(image)) && co_qcow2_snapshots_rewrite(image, err))
        return false;
    image->header->version = 3;
    if (co_qcow2_header_update(image, true, err)) {
        image->header->version = 2;
        return false;
    }
    image->has_zero_flag = true;
    return true;
}

/* --- to version 2 --- */

bool qcow2_amend_downgrade_check(const struct qcow2_image *image, unsigned refcount_order, struct error **err)
{
    const struct qcow2_header *header = image->header;
    uint64_t features = header->incompatible_features & ~(uint64_t)(QCOW2_DIRTY | QCOW2_CORRUPT);

    if (refcount_order != QCOW2_REFCOUNT_ORDER_V2)
        return error_set(err, "compat=0.10 requires refcount_bits=16");
    if (image->has_data_file)
        return error_set(err, "Cannot downgrade an image with a data file");
    if (features)
        return error_set(err, "Cannot downgrade an image with incompatible features %#" PRIx64 " set", features);
    if (header->has_bitmaps)
        return error_set(err, "Cannot downgrade an image with persistent bitmaps");
    return true;
}

/* References that may be given up once no table in the file has them any more. */
struct dropped {
    uint64_t offset;
    uint64_t count;
};

struct expansion {
    struct qcow2_image *image;
    uint64_t *table;  /* buffer: an L2 table */
    uint8_t *zeroes;  /* a cluster of them; NULL: not encrypted, so the file makes them itself */
    GArray *dropped;  /* struct dropped */
    bool has_backing; /* something may lie behind what is unallocated */
    uint64_t done;    /* L1 entries */
    uint64_t total;
    const struct qcow2_amend_progress *progress;
};

static int CO_FN co_zero_cluster(struct expansion *expansion, uint64_t guest, uint64_t host)
{
    struct qcow2_image *image = expansion->image;
    struct iovec segment = {.iov_base = expansion->zeroes, .iov_len = image->cluster_size};
    struct io_vector iov = io_vector_of(&segment, 1);
    int ret = co_qcow2_overlap_check(image, host, image->cluster_size, 0);

    if (ret)
        return ret;
    if (expansion->zeroes)
        return co_qcow2_write_data(image, guest, host, &iov, 0);
    return co_edge_pwrite_zeroes(image->file, host, image->cluster_size, 0);
}

/* The entry without the flag, for an L2 table that `tables` references lead to. */
static int CO_FN co_expand_entry(struct expansion *expansion, uint64_t guest, uint64_t tables, uint64_t *entry)
{
    struct qcow2_image *image = expansion->image;
    uint64_t host = *entry & QCOW2_L2_OFFSET_MASK;
    uint64_t count = 0;
    int ret = host ? co_qcow2_refcount_get(image, host, &count) : 0;

    /* Somebody else may show what the cluster holds. */
    if (!ret && host && count != tables) {
        g_array_append_val(expansion->dropped, ((struct dropped){.offset = host, .count = tables}));
        host = 0;
    }
    if (!ret && !host && expansion->has_backing) {
        ret = co_qcow2_alloc_clusters(image, image->cluster_size, &host);
        if (!ret && tables > 1)
            ret = co_qcow2_refcount_add(image, host, image->cluster_size, (int64_t)tables - 1);
    }
    if (!ret && host)
        ret = co_zero_cluster(expansion, guest, host);
    if (!ret)
        *entry = host | (host && tables == 1 ? QCOW2_COPIED : 0);
    return ret;
}

static int CO_FN co_expand_table(struct expansion *expansion, uint64_t l1_entry, uint64_t first_guest)
{
    struct qcow2_image *image = expansion->image;
    uint64_t offset = l1_entry & QCOW2_L1_OFFSET_MASK;
    uint64_t entries = UINT64_C(1) << image->l2_bits;
    uint64_t tables;
    bool changed = false;
    int ret = co_qcow2_l2_check(image, l1_entry);

    if (!ret)
        ret = co_qcow2_refcount_get(image, offset, &tables);
    if (!ret)
        ret = co_qcow2_table_read(image, offset, entries, expansion->table);
    for (uint64_t i = 0; i < entries && !ret; i++) {
        uint64_t *entry = &expansion->table[i];

        if (*entry & QCOW2_COMPRESSED || !(*entry & QCOW2_ZERO))
            continue;
        ret = co_expand_entry(expansion, first_guest + (i << image->cluster_bits), tables, entry);
        changed = true;
    }
    if (ret || !changed)
        return ret;
    /* Counts of what is new and its content before the table names it. */
    ret = co_qcow2_write_back(image, true);
    return ret ? ret
               : co_qcow2_table_write(image, offset, entries, expansion->table,
                                      QCOW2_METADATA_ACTIVE_L2 | QCOW2_METADATA_INACTIVE_L2);
}

static int CO_FN co_expand_l1(struct expansion *expansion, const uint64_t *l1, uint32_t size)
{
    struct qcow2_image *image = expansion->image;
    int ret = 0;

    for (uint32_t i = 0; i < size && !ret; i++) {
        qcow2_amend_report(expansion->progress, expansion->done++, expansion->total);
        if (l1[i] & QCOW2_L1_OFFSET_MASK)
            ret = co_expand_table(expansion, l1[i], (uint64_t)i << (image->cluster_bits + image->l2_bits));
    }
    return ret;
}

static int CO_FN co_expand_snapshot(struct expansion *expansion, const struct qcow2_snapshot *snapshot)
{
    g_autofree uint64_t *l1 = NULL;
    int ret;

    if (!qcow2_snapshot_is_sound(expansion->image, snapshot))
        return -EIO;
    l1 = g_try_new(uint64_t, MAX(snapshot->l1_size, 1));
    ret = l1 ? co_qcow2_table_read(expansion->image, snapshot->l1_table_offset, snapshot->l1_size, l1) : -ENOMEM;
    return ret ? ret : co_expand_l1(expansion, l1, snapshot->l1_size);
}

/* What the tables no longer name. */
static int CO_FN co_drop(struct expansion *expansion)
{
    struct qcow2_image *image = expansion->image;
    int ret = co_edge_flush(image->file);

    for (unsigned i = 0; i < expansion->dropped->len && !ret; i++) {
        const struct dropped *dropped = &g_array_index(expansion->dropped, struct dropped, i);

        ret = co_qcow2_refcount_add(image, dropped->offset, image->cluster_size, -(int64_t)dropped->count);
    }
    return ret;
}

static int CO_FN co_expand_all(struct expansion *expansion)
{
    struct qcow2_image *image = expansion->image;
    const struct qcow2_snapshot_table *snapshots = qcow2_snapshots(image);
    int ret;

    expansion->total = image->header->l1_size;
    for (size_t i = 0; i < snapshots->count; i++)
        expansion->total += snapshots->items[i].l1_size;
    ret = co_expand_l1(expansion, image->l1, image->header->l1_size);
    for (size_t i = 0; i < snapshots->count && !ret; i++)
        ret = co_expand_snapshot(expansion, &snapshots->items[i]);
    if (!ret)
        ret = co_drop(expansion);
    return ret;
}

/* Makes do without the flag that a cluster reads as zeroes. All is in the file before and after. */
static int CO_FN co_expand_zeroes(struct qcow2_image *image, const struct qcow2_amend_progress *progress)
{
    struct expansion expansion = {
        .image = image, .has_backing = image->header->backing_file || node_backing(image->node), .progress = progress};
    int ret = co_qcow2_settle(image);

    if (ret)
        return ret;
    qcow2_caches_drop(image);
    expansion.table = g_try_new(uint64_t, UINT64_C(1) << image->l2_bits);
    expansion.zeroes = image->crypt ? g_try_malloc0(image->cluster_size) : NULL;
    expansion.dropped = g_array_new(false, false, sizeof(struct dropped));
    ret = expansion.table && (!image->crypt || expansion.zeroes) ? co_expand_all(&expansion) : -ENOMEM;
    if (!ret)
        ret = co_qcow2_settle(image);
    qcow2_caches_drop(image);
    g_array_free(expansion.dropped, true);
    g_free(expansion.zeroes);
    g_free(expansion.table);
    return ret;
}

bool CO_FN co_qcow2_amend_downgrade(struct qcow2_image *image, const struct qcow2_amend_progress *progress,
                                    struct error **err)
{
    struct qcow2_header *header = image->header;
    struct qcow2_header before;
    int ret;

    assert(header->version == 3);
    if (!qcow2_amend_downgrade_check(image, header->refcount_order, err))
        return false;
    ret = co_expand_zeroes(image, progress);
    if (!ret)
        ret = co_qcow2_mark_clean(image);
    if (ret)
        return error_set_errno(err, ret, "Could not turn clusters that read as zeroes into ones that version 2 knows");
    before = *header;
    header->version = 2;
    header->incompatible_features = header->compatible_features = header->autoclear_features = 0;
    if (co_qcow2_header_update(image, true, err)) {
        header->version = before.version;
        header->incompatible_features = before.incompatible_features;
        header->compatible_features = before.compatible_features;
        header->autoclear_features = before.autoclear_features;
        header->header_length = before.header_length;
        return false;
    }
    image->has_zero_flag = false;
    image->settings.lazy_refcounts = false;
    return true;
}
