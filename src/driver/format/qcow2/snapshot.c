/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internal snapshots. Each change is one or two writes of the header's fields, which lie in its first sector and thus
 * change together. Before such a write all that the new state needs is durable, and the old state is untouched but for
 * counts that are too high; after it, what only the old state needed is let go. So a crash at any point leaves one of
 * the two, and leaks. The difficulty are the COPIED flags: a flag that does not go with its count is an error, and the
 * two do not lie in one place. For each operation:
 *
 * Creating: all counts rise from 1, and all flags go. The L2 tables without flags are copies, in a new L1 table (the
 * snapshot keeps the old ones), and the counts are raised in copies of the refcount structures (shadow.c). The header
 * then names the new L1 table, the new counts and the new snapshot table in one write.
 *
 * Deleting, first: the header names a snapshot table without it. The counts of what it had are now too high, and the
 * flags of what the disk shares with it are clear, which is a leak and no error. Second: counts are lowered in a
 * shadow; L2 tables that get flags by that are copied; the header names the new counts and the new L1 table.
 *
 * Applying: the counts of what the snapshot has rise first. That is a leak as long as it is not the disk's: what the
 * disk shares with the snapshot has no flag, and flags in tables that only a snapshot has say nothing (they are cleared
 * meanwhile). The header then names a copy of its L1 table; all that this leads to belongs to both. Last, the counts of
 * what the disk had are lowered; none of them falls to 1 while the disk names it, so no flag has to be set.
 *
 * What fails is put right by a repair, which may change flags and counts in their places; the dirty bit is set
 * meanwhile where the version has one.
 */
#include "driver/format/qcow2/snapshot.h"
#include "base/units.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "block/dirty-bitmap.h"
#include "driver/format/qcow2/check.h"
#include "driver/format/qcow2/qcow2.h"

static const struct qcow2_snapshot_table no_snapshots;

/* --- the table in memory --- */

bool CO_FN co_qcow2_snapshots_load(struct qcow2_image *image, struct error **err)
{
    struct qcow2_snapshot_table table = {0};

    if (!co_qcow2_snapshot_table_load(image->file, image->header, false, &table, err))
        return false;
    qcow2_snapshots_free(image);
    image->snapshots = g_new0(struct qcow2_snapshots, 1);
    image->snapshots->table = table;
    return true;
}

void qcow2_snapshots_free(struct qcow2_image *image)
{
    if (image->snapshots)
        qcow2_snapshot_table_done(&image->snapshots->table);
    g_free(TAKE(image->snapshots));
}

const struct qcow2_snapshot_table *qcow2_snapshots(const struct qcow2_image *image)
{
    return image->snapshots ? &image->snapshots->table : &no_snapshots;
}

bool qcow2_snapshot_is_sound(const struct qcow2_image *image, const struct qcow2_snapshot *snapshot)
{
    return is_aligned(snapshot->l1_table_offset, image->cluster_size) && snapshot->l1_size <= QCOW2_L1_BYTES_MAX / 8 &&
           snapshot->l1_table_offset < QCOW2_HOST_OFFSET_MAX;
}

static bool snapshot_check(const struct qcow2_image *image, const struct qcow2_snapshot *snapshot, struct error **err)
{
    if (qcow2_snapshot_is_sound(image, snapshot))
        return true;
    return error_set(err,
                     "Snapshot '%s' ('%s') is broken: its L1 table has %" PRIu32 " entries at offset %#" PRIx64
                     "; at most %d at a multiple of %" PRIu64 " are valid",
                     snapshot->id, snapshot->name, snapshot->l1_size, snapshot->l1_table_offset, QCOW2_L1_BYTES_MAX / 8,
                     image->cluster_size);
}

/* The index, or -1. NULL: any. */
static ssize_t snapshot_find(const struct qcow2_image *image, const char *id, const char *name)
{
    const struct qcow2_snapshot_table *table = qcow2_snapshots(image);

    for (size_t i = 0; i < table->count; i++) {
        if ((!id || strcmp(table->items[i].id, id) == 0) && (!name || strcmp(table->items[i].name, name) == 0))
            return (ssize_t)i;
    }
    return -1;
}

static struct snapshot_info *snapshot_info(const struct qcow2_snapshot *snapshot)
{
    struct snapshot_info *info = g_new0(struct snapshot_info, 1);
    uint64_t second = NS_PER_S;

    info->id = g_strdup(snapshot->id);
    info->name = g_strdup(snapshot->name);
    info->vm_state_size = (int64_t)MIN(snapshot->vm_state_size, INT64_MAX);
    info->date_sec = snapshot->date_sec;
    info->date_nsec = snapshot->date_nsec;
    info->vm_clock_sec = (int64_t)(snapshot->vm_clock_nsec / second);
    info->vm_clock_nsec = (int64_t)(snapshot->vm_clock_nsec % second);
    info->has_icount = snapshot->icount != QCOW2_SNAPSHOT_NO_ICOUNT;
    info->icount = info->has_icount ? (int64_t)snapshot->icount : 0;
    return info;
}

struct snapshot_info_array *CO_FN co_qcow2_snapshot_list(struct node *node, struct error **err)
{
    const struct qcow2_snapshot_table *table = qcow2_snapshots(qcow2_image_of(node));
    struct snapshot_info_array *list = g_new0(struct snapshot_info_array, 1);

    list->count = table->count;
    list->items = g_new0(struct snapshot_info *, table->count);
    for (size_t i = 0; i < table->count; i++)
        list->items[i] = snapshot_info(&table->items[i]);
    return list;
}

/* --- changes --- */

/* Writes a table to clusters of its own. An empty one needs none. */
static int CO_FN co_table_store(struct qcow2_image *image, const struct qcow2_snapshot *snapshots, size_t count,
                                uint64_t *ret_offset, size_t *ret_bytes, struct error **err)
{
    g_autofree uint8_t *data = qcow2_snapshot_table_encode(snapshots, count, image->header->size, ret_bytes, err);
    int ret;

    *ret_offset = 0;
    if (!data)
        return -EFBIG;
    if (!*ret_bytes)
        return 0;
    ret = co_qcow2_alloc_clusters(image, *ret_bytes, ret_offset);
    if (ret == 0)
        ret = co_qcow2_overlap_check(image, *ret_offset, *ret_bytes, 0);
    if (ret == 0)
        ret = co_edge_pwrite(image->file, *ret_offset, *ret_bytes, data, 0);
    if (ret == 0)
        return 0;
    if (*ret_offset)
        qcow2_free_clusters(image, *ret_offset, *ret_bytes, QCOW2_FREE_NEVER);
    error_set_errno(err, ret, "Could not write the snapshot table");
    return ret;
}

/* Writes an L1 table to clusters of its own. An empty one needs none. */
static int CO_FN co_l1_store(struct qcow2_image *image, const uint64_t *l1, uint32_t size, enum qcow2_metadata kind,
                             uint64_t *ret_offset)
{
    int ret;

    *ret_offset = 0;
    if (!size)
        return 0;
    ret = co_qcow2_alloc_clusters(image, (uint64_t)size * 8, ret_offset);
    if (ret)
        return ret;
    ret = co_qcow2_table_write(image, *ret_offset, size, l1, kind);
    if (ret)
        qcow2_free_clusters(image, *ret_offset, (uint64_t)size * 8, QCOW2_FREE_NEVER);
    return ret;
}

static void l1_clear_flags(uint64_t *l1, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++)
        l1[i] &= QCOW2_L1_OFFSET_MASK;
}

/* The file says all there is, and nothing is cached. */
static int CO_FN co_change_begin(struct qcow2_image *image, struct error **err)
{
    int ret = co_qcow2_settle(image);

    if (ret)
        error_set_errno(err, ret, "Could not write back the image's metadata");
    else
        qcow2_caches_drop(image);
    return ret;
}

/* What the change let go becomes free. */
static int CO_FN co_change_end(struct qcow2_image *image)
{
    int ret = co_qcow2_settle(image);

    qcow2_caches_drop(image);
    return ret;
}

/* After a failure the image is repaired at once, or by whoever opens it next. True: it is whole. */
static bool CO_FN co_change_undo(struct qcow2_image *image)
{
    int ret;

    qcow2_shadow_drop(image);
    qcow2_caches_drop(image);
    /* Of a header whose write has failed nobody knows what it says: it is to say what was before. */
    ret = image->header->version >= 3 ? co_qcow2_mark_dirty(image) : 0;
    if (!ret)
        ret = co_qcow2_header_update_fields(image, true);
    if (!co_qcow2_recover(image))
        return true;
    image->keep_dirty = true;
    if (ret)
        node_fence(image->node, 0, 0, "The header could not be written, and what it says now is not known");
    return false;
}

/* The header says what is to be true from now on; on failure it is as before. */
static int CO_FN co_switch_header(struct qcow2_image *image, const struct qcow2_header *before)
{
    int ret = co_qcow2_shadow_switch(image);

    if (ret) {
        image->header->size = before->size;
        image->header->l1_size = before->l1_size;
        image->header->l1_table_offset = before->l1_table_offset;
        image->header->snapshot_count = before->snapshot_count;
        image->header->snapshots_offset = before->snapshots_offset;
    }
    return ret;
}

int CO_FN co_qcow2_snapshots_rewrite(struct qcow2_image *image, struct error **err)
{
    struct qcow2_snapshot_table *table = image->snapshots ? &image->snapshots->table : NULL;
    struct qcow2_header before = *image->header;
    uint64_t offset;
    size_t bytes;
    int ret;

    if (!table || !table->count)
        return 0;
    ret = co_table_store(image, table->items, table->count, &offset, &bytes, err);
    if (ret)
        return ret;
    ret = co_qcow2_settle(image);
    if (ret == 0) {
        image->header->snapshots_offset = offset;
        ret = co_switch_header(image, &before);
    }
    if (ret) {
        qcow2_free_clusters(image, offset, bytes, QCOW2_FREE_NEVER);
        error_set_errno(err, ret, "Could not move the snapshot table");
        return ret;
    }
    qcow2_free_clusters(image, before.snapshots_offset, table->bytes, QCOW2_FREE_OTHER);
    table->bytes = bytes;
    qcow2_overlap_refresh(image);
    return 0;
}

/* A snapshot table that is in the file, and about to be named by the header. */
struct stored_table {
    struct qcow2_snapshot *items; /* the caller's until the switch */
    size_t count;
    uint64_t offset;
    size_t bytes;
};

/* The header names it, and what `image->header` says else. The old entries are the caller's by then. */
static int CO_FN co_table_switch(struct qcow2_image *image, const struct stored_table *table,
                                 const struct qcow2_header *before, struct error **err)
{
    uint64_t old_bytes = qcow2_snapshots(image)->bytes;
    int ret;

    image->header->snapshot_count = (uint32_t)table->count;
    image->header->snapshots_offset = table->offset;
    ret = co_switch_header(image, before);
    if (ret) {
        /* Nobody knows whether the header was written: what it may name stays. */
        error_set_errno(err, ret, "Could not update the header for the new snapshot table");
        return ret;
    }
    if (old_bytes)
        qcow2_free_clusters(image, before->snapshots_offset, old_bytes, QCOW2_FREE_OTHER);
    if (!image->snapshots)
        image->snapshots = g_new0(struct qcow2_snapshots, 1);
    image->snapshots->table =
        (struct qcow2_snapshot_table){.items = table->items, .count = table->count, .bytes = table->bytes};
    qcow2_overlap_refresh(image);
    return 0;
}

/* Uses `l1` (taken), which the header names by now; the clusters of the old table are let go. */
static void l1_replace(struct qcow2_image *image, uint64_t *l1, uint64_t old_offset)
{
    if (image->header->l1_size)
        qcow2_free_clusters(image, old_offset, (uint64_t)image->header->l1_size * 8, QCOW2_FREE_SNAPSHOT);
    g_free(image->l1);
    image->l1 = l1;
    qcow2_overlap_refresh(image);
}

static char *next_id(const struct qcow2_image *image)
{
    const struct qcow2_snapshot_table *table = qcow2_snapshots(image);
    uint64_t highest = 0;

    for (size_t i = 0; i < table->count; i++) {
        uint64_t id = 0;

        if (g_ascii_string_to_unsigned(table->items[i].id, 10, 0, UINT64_MAX - 1, &id, NULL))
            highest = MAX(highest, id);
    }
    return g_strdup_printf("%" PRIu64, highest + 1);
}

/* --- create --- */

static struct qcow2_snapshot snapshot_from_info(const struct qcow2_image *image, const struct snapshot_info *info)
{
    return (struct qcow2_snapshot){
        .l1_size = image->header->l1_size,
        .date_sec = (uint32_t)info->date_sec,
        .date_nsec = (uint32_t)info->date_nsec,
        .vm_clock_nsec = (uint64_t)info->vm_clock_sec * NS_PER_S + (uint64_t)info->vm_clock_nsec,
        .vm_state_size = (uint64_t)info->vm_state_size,
        .disk_size = image->header->size,
        .has_disk_size = true,
        .icount = info->has_icount ? (uint64_t)info->icount : QCOW2_SNAPSHOT_NO_ICOUNT,
        .extra_bytes = QCOW2_SNAPSHOT_EXTRA_BYTES,
        .id = g_strdup(info->id),
        .name = g_strdup(info->name),
    };
}

/* What is to be in the file before counts are raised: tables without flags in `l1`, and L1 tables of both. */
static int CO_FN co_prepare_tables(struct qcow2_image *image, uint64_t *l1, struct qcow2_snapshot *snapshot,
                                   uint64_t *ret_l1_offset, struct error **err)
{
    uint32_t l1_size = image->header->l1_size;
    g_autofree uint64_t *old = g_memdup2(image->l1, (size_t)l1_size * 8);
    int ret = co_qcow2_flags_copy(image, true, l1);

    l1_clear_flags(old, l1_size);
    if (ret == 0)
        ret = co_l1_store(image, old, l1_size, QCOW2_METADATA_INACTIVE_L1, &snapshot->l1_table_offset);
    if (ret == 0)
        ret = co_l1_store(image, l1, l1_size, QCOW2_METADATA_ACTIVE_L1, ret_l1_offset);
    if (ret)
        error_set_errno(err, ret, "Could not copy the L1 table for the snapshot");
    return ret;
}

/* All that the disk has gets a second reference, except for the L2 tables of which `l1` has copies. */
static int CO_FN co_share_all(struct qcow2_image *image, const uint64_t *l1, struct error **err)
{
    int ret = co_qcow2_shadow_begin(image);

    if (ret == 0)
        ret = co_qcow2_walk(image, image->l1, image->header->l1_size, QCOW2_WALK_RAISE, l1);
    if (ret == 0)
        ret = co_qcow2_settle(image);
    if (ret == -EINVAL)
        error_set(err,
                  "Could not raise the reference counts for the snapshot: a cluster has the highest count that %u bits "
                  "can say, %" PRIu64,
                  1u << image->header->refcount_order, image->refcount_max);
    else if (ret)
        error_set_errno(err, ret, "Could not raise the reference counts for the snapshot");
    return ret;
}

static int CO_FN co_create_switch(struct qcow2_image *image, const struct stored_table *table, uint64_t *l1,
                                  uint64_t l1_offset, struct error **err)
{
    struct qcow2_header before = *image->header;
    struct qcow2_snapshot *old = qcow2_snapshots(image)->items;
    int ret;

    if (image->header->l1_size)
        image->header->l1_table_offset = l1_offset;
    ret = co_table_switch(image, table, &before, err);
    if (ret)
        return ret;
    g_free(old);
    l1_replace(image, l1, before.l1_table_offset);
    return 0;
}

/* On success the snapshot has been taken. */
static int CO_FN co_create(struct qcow2_image *image, struct qcow2_snapshot *snapshot, struct error **err)
{
    const struct qcow2_snapshot_table *now = qcow2_snapshots(image);
    struct stored_table table = {.count = now->count + 1};
    g_autofree struct qcow2_snapshot *all = g_new(struct qcow2_snapshot, table.count);
    g_autofree uint64_t *l1 = g_new(uint64_t, MAX(image->header->l1_size, 1));
    uint64_t l1_offset;
    int ret = co_prepare_tables(image, l1, snapshot, &l1_offset, err);

    if (now->count)
        memcpy(all, now->items, now->count * sizeof(*all));
    all[now->count] = *snapshot;
    table.items = all;
    if (ret == 0)
        ret = co_table_store(image, all, table.count, &table.offset, &table.bytes, err);
    if (ret == 0)
        ret = co_share_all(image, l1, err);
    if (ret == 0)
        ret = co_create_switch(image, &table, l1, l1_offset, err);
    if (ret)
        return ret;
    all = NULL;
    l1 = NULL;
    *snapshot = (struct qcow2_snapshot){0};
    ret = co_qcow2_overlap_add_snapshot(image, &table.items[table.count - 1]);
    if (ret)
        error_set_errno(err, ret, "Could not read the new snapshot's L1 table");
    return ret;
}

/* Why there can be no snapshot of it. */
static bool create_check(const struct qcow2_image *image, const struct snapshot_info *info, struct error **err)
{
    if (image->has_data_file)
        return error_set_errno(err, ENOTSUP, "An image with an external data file cannot have internal snapshots");
    if (qcow2_snapshots(image)->count >= QCOW2_SNAPSHOTS_MAX)
        return error_set_errno(err, EFBIG, "The image has %d snapshots, which is the limit", QCOW2_SNAPSHOTS_MAX);
    if (info->id && *info->id && snapshot_find(image, info->id, NULL) >= 0)
        return error_set_errno(err, EEXIST, "A snapshot with the id '%s' exists", info->id);
    if (!info->name || strlen(info->name) > UINT16_MAX)
        return error_set(err, "The name of a snapshot has at most %d bytes", UINT16_MAX);
    return true;
}

bool CO_FN co_qcow2_snapshot_create(struct node *node, struct snapshot_info *info, struct error **err)
{
    struct qcow2_image *image = qcow2_image_of(node);
    struct qcow2_snapshot snapshot;
    int ret;

    if (!create_check(image, info, err))
        return false;
    if (!info->id || !*info->id) {
        g_free(info->id);
        info->id = next_id(image);
    }
    if (co_change_begin(image, err))
        return false;
    snapshot = snapshot_from_info(image, info);
    ret = co_create(image, &snapshot, err);
    qcow2_snapshot_clear(&snapshot);
    if (ret) {
        (void)co_change_undo(image);
        /* Where it got into the table nevertheless, nobody would know of it. */
        if (snapshot_find(image, info->id, NULL) >= 0)
            snapshot_info_free(co_qcow2_snapshot_delete(node, info->id, NULL, NULL));
        return false;
    }
    ret = co_change_end(image);
    /* It is there, and whole. */
    if (ret)
        log_warning("Node '%s': has leaked clusters after snapshot '%s': %s", node_name(node), info->name,
                    g_strerror(-ret));
    return true;
}

/* --- apply --- */

/* The snapshot's L1 table, as long as the disk needs it; owned. */
static uint64_t *CO_FN co_snapshot_l1(struct qcow2_image *image, const struct qcow2_snapshot *snapshot, uint64_t size,
                                      uint32_t *ret_size, struct error **err)
{
    uint64_t needed = qcow2_l1_entries(size, image->cluster_bits, qcow2_has_subclusters(image->header));
    g_autofree uint64_t *l1 = NULL;
    int ret;

    if (size > NODE_LENGTH_MAX || needed > QCOW2_L1_BYTES_MAX / 8) {
        error_set(err, "Snapshot '%s' is broken: its disk size of %" PRIu64 " bytes is too large", snapshot->id, size);
        return NULL;
    }
    *ret_size = MAX((uint32_t)needed, snapshot->l1_size);
    l1 = g_new0(uint64_t, MAX(*ret_size, 1));
    ret = co_qcow2_table_read(image, snapshot->l1_table_offset, snapshot->l1_size, l1);
    if (ret) {
        error_set_errno(err, ret, "Could not read the L1 table of snapshot '%s'", snapshot->id);
        return NULL;
    }
    return g_steal_pointer(&l1);
}

/* Whoever keeps track of changes has to take all of the disk again. */
static void mark_all_changed(struct qcow2_image *image)
{
    struct dirty_bitmap *bitmap = NULL;

    while ((bitmap = dirty_bitmap_next(image->node, bitmap))) {
        if (dirty_bitmap_enabled(bitmap) && !dirty_bitmap_inconsistent(bitmap) && !dirty_bitmap_read_only(bitmap))
            dirty_bitmap_set(bitmap, 0, node_length(image->node));
    }
}

/* Makes `l1` the disk's, then lets go what it had. */
static int CO_FN co_apply(struct qcow2_image *image, const uint64_t *l1, uint32_t l1_size, uint64_t size,
                          struct error **err)
{
    struct qcow2_header *header = image->header;
    struct qcow2_header before = *header;
    g_autofree uint64_t *old = g_memdup2(image->l1, (size_t)header->l1_size * 8);
    uint64_t offset;
    int ret;

    /* Everything will belong to the snapshot and to the disk: nothing may be written in place. */
    ret = co_qcow2_walk(image, l1, l1_size, QCOW2_WALK_REVIVE, NULL);
    if (ret == 0)
        ret = co_l1_store(image, l1, l1_size, QCOW2_METADATA_ACTIVE_L1, &offset);
    if (ret == 0)
        ret = co_qcow2_settle(image);
    if (ret == 0) {
        header->l1_table_offset = offset;
        header->l1_size = l1_size;
        header->size = size;
        ret = co_switch_header(image, &before);
    }
    if (ret == 0)
        ret = co_qcow2_l1_load(image);
    if (ret) {
        error_set_errno(err, ret, "Could not switch to the snapshot's L1 table");
        return ret;
    }
    qcow2_caches_drop(image);
    node_set_length(image->node, size);
    mark_all_changed(image);
    ret = co_qcow2_overlap_load(image, image->overlap.mask);
    if (ret == 0)
        ret = co_qcow2_walk(image, old, before.l1_size, QCOW2_WALK_LOWER, NULL);
    if (ret == 0 && before.l1_size)
        qcow2_free_clusters(image, before.l1_table_offset, (uint64_t)before.l1_size * 8, QCOW2_FREE_OTHER);
    if (ret)
        error_set_errno(err, ret, "Could not free the clusters of the former state");
    return ret;
}

bool CO_FN co_qcow2_snapshot_apply(struct node *node, const char *selector, struct error **err)
{
    struct qcow2_image *image = qcow2_image_of(node);
    const struct qcow2_snapshot *snapshot;
    g_autofree uint64_t *l1 = NULL;
    ssize_t index = snapshot_find(image, selector, NULL);
    uint64_t size;
    uint32_t l1_size;
    int ret;

    if (image->has_data_file)
        return error_set_errno(err, ENOTSUP, "An image with an external data file cannot have internal snapshots");
    if (index < 0)
        index = snapshot_find(image, NULL, selector);
    if (index < 0)
        return error_set_errno(err, ENOENT, "There is no snapshot '%s'", selector);
    snapshot = &qcow2_snapshots(image)->items[index];
    if (!snapshot_check(image, snapshot, err))
        return false;
    size = snapshot->has_disk_size ? snapshot->disk_size : image->header->size;
    l1 = co_snapshot_l1(image, snapshot, size, &l1_size, err);
    if (!l1 || co_change_begin(image, err))
        return false;
    l1_clear_flags(l1, l1_size);
    ret = co_apply(image, l1, l1_size, size, err);
    if (ret) {
        (void)co_change_undo(image);
        return false;
    }
    dirty_bitmaps_record_all(node);
    ret = co_change_end(image);
    return ret == 0 || error_set_errno(err, ret, "Could not complete going back to snapshot '%s'", selector);
}

/* --- load --- */

/* The header in memory is as if the snapshot were the disk; nobody writes it, for the node is read-only. */
bool CO_FN co_qcow2_snapshot_load(struct node *node, const char *id, const char *name, struct error **err)
{
    struct qcow2_image *image = qcow2_image_of(node);
    ssize_t index = snapshot_find(image, id, name);
    const struct qcow2_snapshot *snapshot;
    uint64_t size;
    int ret;

    if (image->writable)
        return error_set(err, "A snapshot can be shown by a read-only node only; '%s' is open for writing",
                         node_name(node));
    if (index < 0)
        return error_set_errno(err, ENOENT, "There is no snapshot with id '%s' and name '%s'", id ? id : "(any)",
                               name ? name : "(any)");
    snapshot = &qcow2_snapshots(image)->items[index];
    size = snapshot->has_disk_size ? snapshot->disk_size : image->header->size;
    if (!snapshot_check(image, snapshot, err))
        return false;
    if (size > NODE_LENGTH_MAX)
        return error_set(err, "Snapshot '%s' is broken: its disk size of %" PRIu64 " bytes is too large", snapshot->id,
                         size);
    image->header->l1_table_offset = snapshot->l1_table_offset;
    image->header->l1_size = snapshot->l1_size;
    image->header->size = size;
    ret = co_qcow2_l1_load(image);
    if (ret)
        return error_set_errno(err, ret, "Could not read the L1 table of snapshot '%s'", snapshot->id);
    qcow2_caches_drop(image);
    node_set_length(node, size);
    return true;
}

/* --- delete --- */

/* The disk's tables with flags for what is its own now; `ret_l1`: owned. Counts are those of the shadow. */
static int CO_FN co_own_again(struct qcow2_image *image, uint64_t **ret_l1, uint64_t *ret_l1_offset)
{
    uint32_t l1_size = image->header->l1_size;
    g_autofree uint64_t *l1 = g_new(uint64_t, MAX(l1_size, 1));
    int ret = co_qcow2_flags_copy(image, false, l1);

    if (ret == 0)
        ret = co_l1_store(image, l1, l1_size, QCOW2_METADATA_ACTIVE_L1, ret_l1_offset);
    if (ret == 0)
        ret = co_qcow2_settle(image);
    if (ret == 0)
        *ret_l1 = TAKE(l1);
    return ret;
}

static int CO_FN co_release_switch(struct qcow2_image *image, uint64_t *l1, uint64_t l1_offset)
{
    struct qcow2_header before = *image->header;
    int ret;

    if (before.l1_size)
        image->header->l1_table_offset = l1_offset;
    ret = co_switch_header(image, &before);
    if (ret) {
        g_free(l1);
        return ret;
    }
    for (uint32_t i = 0; i < before.l1_size; i++) {
        if ((l1[i] ^ image->l1[i]) & QCOW2_L1_OFFSET_MASK)
            qcow2_free_clusters(image, image->l1[i] & QCOW2_L1_OFFSET_MASK, image->cluster_size, QCOW2_FREE_SNAPSHOT);
    }
    l1_replace(image, l1, before.l1_table_offset);
    return 0;
}

/* Lets go what only the snapshot had; what the disk has for itself now, it may write in place again. */
static int CO_FN co_release(struct qcow2_image *image, const struct qcow2_snapshot *snapshot, const uint64_t *l1)
{
    uint64_t *own, own_offset;
    int ret = co_qcow2_shadow_begin(image);

    if (ret == 0)
        ret = co_qcow2_walk(image, l1, snapshot->l1_size, QCOW2_WALK_LOWER, NULL);
    if (ret == 0 && snapshot->l1_size)
        qcow2_free_clusters(image, snapshot->l1_table_offset, (uint64_t)snapshot->l1_size * 8, QCOW2_FREE_SNAPSHOT);
    if (ret == 0)
        ret = co_qcow2_settle(image);
    if (ret == 0)
        ret = co_own_again(image, &own, &own_offset);
    return ret ? ret : co_release_switch(image, own, own_offset);
}

/* The snapshot's entry is gone from the table; it is the caller's then, as is the old array. */
static int CO_FN co_drop_entry(struct qcow2_image *image, size_t index, struct error **err)
{
    const struct qcow2_snapshot_table *old = qcow2_snapshots(image);
    struct qcow2_header before;
    struct stored_table rest = {.items = g_new(struct qcow2_snapshot, old->count), .count = old->count - 1};
    int ret;

    memcpy(rest.items, old->items, index * sizeof(*rest.items));
    memcpy(rest.items + index, old->items + index + 1, (rest.count - index) * sizeof(*rest.items));
    ret = co_table_store(image, rest.items, rest.count, &rest.offset, &rest.bytes, err);
    if (ret == 0) {
        ret = co_qcow2_settle(image);
        if (ret)
            error_set_errno(err, ret, "Could not write the snapshot table");
    }
    before = *image->header;
    if (ret == 0)
        ret = co_table_switch(image, &rest, &before, err);
    if (ret)
        g_free(rest.items);
    return ret;
}

static int CO_FN co_delete(struct qcow2_image *image, size_t index, const uint64_t *l1, struct error **err)
{
    struct qcow2_snapshot *old = qcow2_snapshots(image)->items, snapshot = old[index];
    int ret = co_drop_entry(image, index, err);

    if (ret)
        return ret;
    ret = co_release(image, &snapshot, l1);
    if (ret)
        error_set_errno(err, ret, "Could not free the clusters of snapshot '%s'", snapshot.id);
    qcow2_snapshot_clear(&snapshot);
    g_free(old);
    return ret;
}

struct snapshot_info *CO_FN co_qcow2_snapshot_delete(struct node *node, const char *id, const char *name,
                                                     struct error **err)
{
    struct qcow2_image *image = qcow2_image_of(node);
    ssize_t index = snapshot_find(image, id, name);
    AUTO(snapshot_info) info = NULL;
    g_autofree uint64_t *l1 = NULL;
    const struct qcow2_snapshot *snapshot;
    struct error *why = NULL;
    int ret;

    if (index < 0) {
        error_set_errno(err, ENOENT, "There is no snapshot with id '%s' and name '%s'", id ? id : "(any)",
                        name ? name : "(any)");
        return NULL;
    }
    snapshot = &qcow2_snapshots(image)->items[index];
    if (!snapshot_check(image, snapshot, err))
        return NULL;
    info = snapshot_info(snapshot);
    l1 = g_new0(uint64_t, MAX(snapshot->l1_size, 1));
    ret = co_qcow2_table_read(image, snapshot->l1_table_offset, snapshot->l1_size, l1);
    if (ret) {
        error_set_errno(err, ret, "Could not read the L1 table of snapshot '%s'", snapshot->id);
        return NULL;
    }
    if (co_change_begin(image, err))
        return NULL;
    ret = co_delete(image, (size_t)index, l1, &why);
    /* A repair lets go what it had, too. */
    if (ret && (!co_change_undo(image) || snapshot_find(image, info->id, info->name) >= 0)) {
        (void)error_move(err, why);
        return NULL;
    }
    error_free(why);
    ret = ret ? 0 : co_change_end(image);
    if (ret) {
        error_set_errno(err, ret, "Could not complete deleting snapshot '%s'", info->id);
        return NULL;
    }
    return TAKE(info);
}
