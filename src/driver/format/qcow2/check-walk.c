/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Going through everything in an image that refers to clusters. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/error.h"
#include "driver/format/qcow2/check-internal.h"
#include "driver/format/qcow2/overlap.h"

/* A walk over one L1 table. */
struct walk {
    bool disk;            /* counts the clusters of the disk */
    bool active;          /* the table in use, in which repairs are made */
    uint64_t next_offset; /* where the cluster after the last one would lie, were it not fragmented; 0: none yet */
    uint64_t l2_offset;   /* of the table being walked */
    int l2_writable;      /* -1: not looked yet */
};

/* The bitmap directory's entries, as far as needed here. */
enum {
    BITMAP_ENTRY_BYTES = 24,
    BITMAP_AT_TABLE_OFFSET = 0,
    BITMAP_AT_TABLE_SIZE = 8,
    BITMAP_AT_NAME_SIZE = 18,
    BITMAP_AT_EXTRA_SIZE = 20,
    BITMAP_DIRECTORY_BYTES_MAX = 64 << 20,
    BITMAP_TABLE_SIZE_MAX = (8 << 20) / 8 * 8,
};
#define BITMAP_OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define BITMAP_RESERVED_MASK UINT64_C(0xff000000000001fe)

int CO_FN co_qcow2_check_l2_part(struct qcow2_check *check, uint64_t l2_offset, unsigned first, unsigned *ret_count)
{
    unsigned entry_bytes = qcow2_l2_entry_bytes(check->header);
    unsigned rest = (1u << qcow2_l2_bits(check->header)) - first;

    *ret_count = MIN(rest, QCOW2_CHECK_TABLE_BYTES / entry_bytes);
    return co_qcow2_check_read(check, l2_offset + (uint64_t)first * entry_bytes, check->l2_buffer,
                               (size_t)*ret_count * entry_bytes);
}

static void count_fragment(struct qcow2_check *check, struct walk *walk, uint64_t offset)
{
    if (!walk->disk)
        return;
    check->result.allocated_clusters++;
    if (walk->next_offset && offset != walk->next_offset)
        check->result.fragmented_clusters++;
    walk->next_offset = offset + check->cluster_size;
}

static void walk_compressed(struct qcow2_check *check, struct walk *walk, unsigned index, uint64_t entry,
                            uint64_t subclusters)
{
    struct qcow2_compressed_extent extent = qcow2_compressed_extent(entry & ~QCOW2_COPIED, check->header->cluster_bits);
    uint64_t start = align_down(extent.offset, QCOW2_COMPRESSED_SECTOR);

    if (entry & QCOW2_COPIED)
        qcow2_check_corruption(check,
                               "ERROR: coffset=0x%" PRIx64 ": copied flag must never be set for compressed clusters",
                               extent.offset);
    if (check->header->incompatible_features & QCOW2_DATA_FILE) {
        qcow2_check_corruption(check, "ERROR compressed cluster %u with data file, entry=0x%" PRIx64, index, entry);
        return;
    }
    if (subclusters) {
        qcow2_check_corruption(
            check, "ERROR compressed cluster %u with non-zero subcluster allocation bitmap, entry=0x%" PRIx64, index,
            entry);
        return;
    }
    if (walk->disk) {
        check->result.allocated_clusters++;
        check->result.compressed_clusters++;
        /* What is compressed does not lie in one piece by its nature. */
        check->result.fragmented_clusters++;
    }
    qcow2_check_refer(check, start, extent.offset + extent.bytes - start);
}

/* A zero cluster whose host offset can't be loses it: nothing is lost thereby. 1: done. */
static int CO_FN co_drop_preallocation(struct qcow2_check *check, struct walk *walk, unsigned index, uint64_t entry)
{
    bool extended = qcow2_has_subclusters(check->header);
    uint64_t offset = walk->l2_offset + (uint64_t)index * qcow2_l2_entry_bytes(check->header);
    bool may_write;
    int ret;

    if (walk->l2_writable < 0) {
        ret =
            co_qcow2_check_may_write(check, walk->l2_offset, check->cluster_size,
                                     walk->active ? QCOW2_METADATA_ACTIVE_L2 : QCOW2_METADATA_INACTIVE_L2, &may_write);
        if (ret < 0)
            return ret;
        walk->l2_writable = may_write;
    }
    if (!walk->l2_writable)
        return 0;
    /* With subclusters, which of them read as zeroes stays in the bitmap. */
    ret = co_qcow2_check_store64(check, offset, extended ? 0 : QCOW2_ZERO);
    return ret < 0 ? ret : 1;
}

/* A standard cluster with a host offset. */
static int CO_FN co_walk_allocated(struct qcow2_check *check, struct walk *walk, unsigned index, uint64_t entry,
                                   uint64_t subclusters)
{
    bool extended = qcow2_has_subclusters(check->header);
    uint64_t offset = entry & QCOW2_L2_OFFSET_MASK;
    bool zero = extended ? !(subclusters & QCOW2_SUBCLUSTERS_ALLOCATED) && subclusters : entry & QCOW2_ZERO;

    if (extended && (subclusters >> QCOW2_SUBCLUSTERS) & subclusters)
        qcow2_check_corruption(
            check, "ERROR offset=%" PRIx64 ": Allocated cluster has corrupted subcluster allocation bitmap", offset);
    if (!is_aligned(offset, check->cluster_size)) {
        if (zero && check->repair & IMAGE_REPAIR_ERRORS && !check->quiet) {
            int ret = co_drop_preallocation(check, walk, index, entry);

            if (ret < 0)
                return ret;
            if (ret > 0) {
                qcow2_check_say(check,
                                "Repairing offset=%" PRIx64 ": Preallocated cluster is not properly aligned; L2 entry "
                                "corrupted.",
                                offset);
                check->result.corruptions_fixed++;
                return 0;
            }
        }
        qcow2_check_corruption(check,
                               "ERROR offset=%" PRIx64 ": %s cluster is not properly aligned; L2 entry corrupted.",
                               offset, zero ? "Preallocated" : "Data");
    }
    count_fragment(check, walk, offset);
    if (!(check->header->incompatible_features & QCOW2_DATA_FILE))
        qcow2_check_refer(check, offset, check->cluster_size);
    return 0;
}

static int CO_FN co_walk_l2_entry(struct qcow2_check *check, struct walk *walk, unsigned index, const uint8_t *at)
{
    bool extended = qcow2_has_subclusters(check->header);
    uint64_t entry = load_be64(at);
    uint64_t subclusters = extended ? load_be64(at + 8) : 0;

    if (entry & QCOW2_COMPRESSED) {
        walk_compressed(check, walk, index, entry, subclusters);
        return 0;
    }
    if (entry & QCOW2_L2_RESERVED_MASK)
        qcow2_check_corruption(check, "ERROR found l2 entry with reserved bits set: %" PRIx64, entry);
    /* In a data file, the flag tells a cluster at offset 0 from none. */
    if (entry & QCOW2_L2_OFFSET_MASK ||
        (check->header->incompatible_features & QCOW2_DATA_FILE && entry & QCOW2_COPIED))
        return co_walk_allocated(check, walk, index, entry, subclusters);
    if (subclusters & QCOW2_SUBCLUSTERS_ALLOCATED)
        qcow2_check_corruption(check, "ERROR: Unallocated cluster has non-zero subcluster allocation map");
    return 0;
}

static int CO_FN co_walk_l2(struct qcow2_check *check, struct walk *walk, uint64_t l2_offset)
{
    unsigned entry_bytes = qcow2_l2_entry_bytes(check->header);
    unsigned count, entries = 1u << qcow2_l2_bits(check->header);

    walk->l2_offset = l2_offset;
    walk->l2_writable = -1;
    for (unsigned first = 0; first < entries; first += count) {
        int ret = co_qcow2_check_l2_part(check, l2_offset, first, &count);

        if (ret < 0) {
            /* What cannot be read cannot be counted, and what is not counted would be freed. */
            error_set_errno(&check->error, ret, "Could not read the L2 table at offset %" PRIu64, l2_offset);
            return ret;
        }
        for (unsigned i = 0; i < count; i++) {
            const uint8_t *at = check->l2_buffer + (size_t)i * entry_bytes;

            if (!load_be64(at) && (entry_bytes == 8 || !load_be64(at + 8)))
                continue;
            ret = co_walk_l2_entry(check, walk, first + i, at);
            if (ret < 0)
                return ret;
        }
    }
    return 0;
}

static int CO_FN co_walk_l1_entry(struct qcow2_check *check, struct walk *walk, uint64_t entry)
{
    uint64_t l2_offset = entry & QCOW2_L1_OFFSET_MASK;

    if (entry & QCOW2_L1_RESERVED_MASK)
        qcow2_check_corruption(check, "ERROR found L1 entry with reserved bits set: %" PRIx64, entry);
    if (!l2_offset)
        return 0;
    qcow2_check_refer(check, l2_offset, check->cluster_size);
    if (!is_aligned(l2_offset, check->cluster_size))
        qcow2_check_corruption(check, "ERROR l2_offset=%" PRIx64 ": Table is not cluster aligned; L1 entry corrupted",
                               l2_offset);
    return l2_offset < check->file_length ? co_walk_l2(check, walk, l2_offset) : 0;
}

static int CO_FN co_walk_l1(struct qcow2_check *check, uint64_t offset, uint32_t size, bool active, bool disk)
{
    struct walk walk = {.disk = disk, .active = active};
    uint32_t step = QCOW2_CHECK_TABLE_BYTES / 8;

    if (!size)
        return 0;
    qcow2_check_refer(check, offset, (uint64_t)size * 8);
    for (uint32_t first = 0; first < size && offset + (uint64_t)first * 8 < check->file_length; first += step) {
        uint32_t count = MIN(size - first, step);
        int ret = co_qcow2_check_read(check, offset + (uint64_t)first * 8, check->l1_buffer, (size_t)count * 8);

        if (ret < 0) {
            error_set_errno(&check->error, ret, "Could not read the L1 table at offset %" PRIu64, offset);
            return ret;
        }
        for (uint32_t i = 0; i < count; i++) {
            uint64_t entry = load_be64(check->l1_buffer + (size_t)i * 8);

            ret = entry ? co_walk_l1_entry(check, &walk, entry) : 0;
            check->l1_done++;
            if (ret == 0 && entry)
                ret = qcow2_check_tick_window(check, QCOW2_CHECK_WALK_SHARE * (double)check->l1_done /
                                                         (double)check->l1_total);
            if (ret < 0)
                return ret;
        }
    }
    return 0;
}

static int CO_FN co_walk_snapshots(struct qcow2_check *check)
{
    for (size_t i = 0; i < check->snapshots.count; i++) {
        const struct qcow2_snapshot *snapshot = &check->snapshots.items[i];
        int ret;

        if (!is_aligned(snapshot->l1_table_offset, check->cluster_size)) {
            qcow2_check_corruption(check,
                                   "ERROR snapshot %s (%s) l1_offset=%#" PRIx64
                                   ": L1 table is not cluster aligned; snapshot table entry corrupted",
                                   snapshot->id, snapshot->name, snapshot->l1_table_offset);
            continue;
        }
        if (snapshot->l1_size > QCOW2_L1_BYTES_MAX / 8) {
            qcow2_check_corruption(check,
                                   "ERROR snapshot %s (%s) l1_size=%#" PRIx32
                                   ": L1 table is too large; snapshot table entry corrupted",
                                   snapshot->id, snapshot->name, snapshot->l1_size);
            continue;
        }
        ret = co_walk_l1(check, snapshot->l1_table_offset, snapshot->l1_size, false, false);
        if (ret < 0)
            return ret;
    }
    /* A table that is about to be replaced is not needed any more. */
    if (!check->snapshots_rewrite)
        qcow2_check_refer(check, check->header->snapshots_offset, check->snapshots.bytes);
    return 0;
}

static int CO_FN co_walk_bitmap_table(struct qcow2_check *check, uint64_t offset, uint32_t size)
{
    qcow2_check_refer(check, offset, (uint64_t)size * 8);
    for (uint32_t i = 0; i < size && offset + (uint64_t)i * 8 < check->file_length; i++) {
        uint64_t entry, cluster;
        int ret = co_qcow2_check_load64(check, offset + (uint64_t)i * 8, &entry);

        if (ret < 0) {
            error_set_errno(&check->error, ret, "Could not read the bitmap table at offset %" PRIu64, offset);
            return ret;
        }
        cluster = entry & BITMAP_OFFSET_MASK;
        if (entry & BITMAP_RESERVED_MASK || (cluster && entry & 1) || !is_aligned(cluster, check->cluster_size)) {
            error_set(&check->error, "Bitmap table at offset %" PRIu64 " is broken: entry %" PRIu32 " is 0x%016" PRIx64,
                      offset, i, entry);
            return -EINVAL;
        }
        if (cluster)
            qcow2_check_refer(check, cluster, check->cluster_size);
    }
    return 0;
}

/* Bitmaps that cannot be understood stop the check: freeing what they may refer to would be worse. */
static int CO_FN co_walk_bitmaps(struct qcow2_check *check)
{
    const struct qcow2_bitmaps_extension *bitmaps = &check->header->bitmaps;
    uint64_t at = 0;
    int ret;

    if (!check->header->has_bitmaps || !(check->header->autoclear_features & QCOW2_BITMAPS_CONSISTENT))
        return 0;
    if (!is_aligned(bitmaps->directory_offset, check->cluster_size) ||
        bitmaps->directory_bytes > BITMAP_DIRECTORY_BYTES_MAX ||
        !range_fits(bitmaps->directory_offset, bitmaps->directory_bytes, check->file_length)) {
        error_set(&check->error, "Bitmap directory of %" PRIu64 " bytes at offset %" PRIu64 " is invalid",
                  bitmaps->directory_bytes, bitmaps->directory_offset);
        return -EINVAL;
    }
    qcow2_check_refer(check, bitmaps->directory_offset, bitmaps->directory_bytes);
    for (uint32_t i = 0; i < bitmaps->count; i++) {
        uint8_t entry[BITMAP_ENTRY_BYTES];
        uint64_t table_offset;
        uint32_t table_size;

        if (bitmaps->directory_bytes - at < sizeof(entry)) {
            error_set(&check->error, "Bitmap directory of %" PRIu64 " bytes ends in entry %" PRIu32 " of %" PRIu32,
                      bitmaps->directory_bytes, i, bitmaps->count);
            return -EINVAL;
        }
        ret = co_qcow2_check_read(check, bitmaps->directory_offset + at, entry, sizeof(entry));
        if (ret < 0) {
            error_set_errno(&check->error, ret, "Could not read bitmap directory entry %" PRIu32, i);
            return ret;
        }
        at += align_up(sizeof(entry) + (uint64_t)load_be32(entry + BITMAP_AT_EXTRA_SIZE) +
                           load_be16(entry + BITMAP_AT_NAME_SIZE),
                       8);
        table_offset = load_be64(entry + BITMAP_AT_TABLE_OFFSET);
        table_size = load_be32(entry + BITMAP_AT_TABLE_SIZE);
        if (at > bitmaps->directory_bytes || !is_aligned(table_offset, check->cluster_size) ||
            table_size > BITMAP_TABLE_SIZE_MAX) {
            error_set(&check->error,
                      "Bitmap directory entry %" PRIu32 " is broken: table of %" PRIu32 " entries at offset %" PRIu64,
                      i, table_size, table_offset);
            return -EINVAL;
        }
        ret = co_walk_bitmap_table(check, table_offset, table_size);
        if (ret < 0)
            return ret;
    }
    return 0;
}

static void walk_refcount_block(struct qcow2_check *check, uint64_t index, uint64_t entry)
{
    uint64_t offset = entry & QCOW2_REFCOUNT_OFFSET_MASK;
    uint64_t cluster = offset >> check->header->cluster_bits;
    uint64_t before = check->result.corruptions;

    if (entry & QCOW2_REFCOUNT_RESERVED_MASK) {
        qcow2_check_corruption(check, "ERROR refcount table entry %" PRIu64 " has reserved bits set", index);
    } else if (!is_aligned(offset, check->cluster_size)) {
        qcow2_check_corruption(
            check, "ERROR refcount block %" PRIu64 " is not cluster aligned; refcount table entry corrupted", index);
    } else if (offset >= check->file_length) {
        qcow2_check_corruption(check, "ERROR refcount block %" PRIu64 " is outside image", index);
    } else {
        qcow2_check_refer(check, offset, check->cluster_size);
        if (cluster < check->window_first || qcow2_check_references(check, cluster) <= 1)
            return;
        qcow2_check_corruption_here(check, "ERROR refcount block %" PRIu64 " refcount=%" PRIu64, index,
                                    qcow2_check_references(check, cluster));
    }
    check->rebuild = true;
    check->refcount_corruptions += check->result.corruptions - before;
}

static int CO_FN co_walk_refcount(struct qcow2_check *check)
{
    uint64_t offset = check->header->refcount_table_offset;
    uint64_t bytes = (uint64_t)check->header->refcount_table_clusters << check->header->cluster_bits;
    uint64_t before = check->result.corruptions;

    qcow2_check_refer(check, offset, bytes);
    if (check->result.corruptions > before) {
        check->rebuild = true;
        check->refcount_corruptions += check->result.corruptions - before;
    }
    for (uint64_t at = 0; at < bytes && offset + at < check->file_length; at += 8) {
        uint64_t entry;
        int ret = co_qcow2_check_load64(check, offset + at, &entry);

        if (ret < 0) {
            error_set_errno(&check->error, ret, "Could not read the refcount table at offset %" PRIu64, offset);
            return ret;
        }
        if (entry)
            walk_refcount_block(check, at / 8, entry);
    }
    return 0;
}

int CO_FN co_qcow2_check_walk(struct qcow2_check *check, bool disk)
{
    const struct qcow2_header *header = check->header;
    int ret;

    check->l1_done = 0;
    check->l1_total = header->l1_size;
    for (size_t i = 0; i < check->snapshots.count; i++)
        check->l1_total += check->snapshots.items[i].l1_size;
    qcow2_check_refer(check, 0, check->cluster_size);
    ret = co_walk_l1(check, header->l1_table_offset, header->l1_size, true, disk);
    if (ret == 0)
        ret = co_walk_snapshots(check);
    if (ret == 0 && header->has_crypto)
        qcow2_check_refer(check, header->crypto_offset, header->crypto_bytes);
    if (ret == 0)
        ret = co_walk_bitmaps(check);
    if (ret == 0 && check->old_refcount)
        ret = co_walk_refcount(check);
    for (unsigned i = 0; ret == 0 && i < G_N_ELEMENTS(check->additions); i++)
        qcow2_check_refer(check, check->additions[i].first << header->cluster_bits,
                          check->additions[i].count << header->cluster_bits);
    return ret;
}

int CO_FN co_qcow2_check_may_write(struct qcow2_check *check, uint64_t offset, uint64_t bytes, unsigned kind, bool *ret)
{
    const struct qcow2_header *header = check->header;
    uint64_t table = header->refcount_table_offset;
    uint64_t table_bytes = (uint64_t)header->refcount_table_clusters << header->cluster_bits;

    *ret = false;
    if (!is_aligned(offset, check->cluster_size) ||
        !range_fits(offset, bytes, align_up(check->file_length, check->cluster_size)) ||
        ranges_overlap(0, check->cluster_size, offset, bytes) || ranges_overlap(table, table_bytes, offset, bytes) ||
        ranges_overlap(header->snapshots_offset, check->snapshots.bytes, offset, bytes))
        return 0;
    if (kind != QCOW2_METADATA_ACTIVE_L1 &&
        ranges_overlap(header->l1_table_offset, (uint64_t)header->l1_size * 8, offset, bytes))
        return 0;
    for (size_t i = 0; i < check->snapshots.count; i++) {
        const struct qcow2_snapshot *snapshot = &check->snapshots.items[i];

        /* What is no valid table guards nothing. */
        if (is_aligned(snapshot->l1_table_offset, check->cluster_size) &&
            snapshot->l1_table_offset < check->file_length && snapshot->l1_size <= QCOW2_L1_BYTES_MAX / 8 &&
            ranges_overlap(snapshot->l1_table_offset, (uint64_t)snapshot->l1_size * 8, offset, bytes))
            return 0;
    }
    for (uint64_t at = 0; at < table_bytes && table + at < check->file_length; at += 8) {
        uint64_t entry;
        int result = co_qcow2_check_load64(check, table + at, &entry);

        if (result < 0)
            return result;
        if (entry < check->file_length &&
            ranges_overlap(entry & QCOW2_REFCOUNT_OFFSET_MASK, check->cluster_size, offset, bytes))
            return 0;
    }
    *ret = true;
    return 0;
}
