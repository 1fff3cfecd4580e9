/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the entries of L2 tables say. Pure: bytes in, an extent out; every field that the format restricts is looked at,
 * and what makes no sense is an INVALID extent, which nobody reads or writes.
 */
#include <assert.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "driver/format/qcow2/qcow2.h"

struct qcow2_l2_entry qcow2_l2_entry_load(const struct qcow2_image *image, const uint8_t *slice, unsigned index)
{
    const uint8_t *at = slice + ((size_t)index << image->l2_entry_bits);

    return (struct qcow2_l2_entry){
        .entry = load_be64(at),
        .bitmap = image->subclusters > 1 ? load_be64(at + 8) : 0,
    };
}

void qcow2_l2_entry_store(const struct qcow2_image *image, uint8_t *slice, unsigned index, struct qcow2_l2_entry entry)
{
    uint8_t *at = slice + ((size_t)index << image->l2_entry_bits);

    store_be64(at, entry.entry);
    if (image->subclusters > 1)
        store_be64(at + 8, entry.bitmap);
}

/* --- one entry --- */

static bool compressed_is_valid(const struct qcow2_image *image, struct qcow2_l2_entry entry)
{
    struct qcow2_compressed_extent where = qcow2_compressed_extent(entry.entry, image->cluster_bits);

    return !image->has_data_file && !entry.bitmap && where.offset < QCOW2_HOST_OFFSET_MAX && where.offset;
}

/* `guest`: of the cluster. */
static bool standard_is_valid(const struct qcow2_image *image, uint64_t guest, struct qcow2_l2_entry entry)
{
    uint64_t host = entry.entry & QCOW2_L2_OFFSET_MASK;
    bool zero = entry.entry & QCOW2_ZERO;

    if (entry.entry & QCOW2_L2_RESERVED_MASK || !is_aligned(host, image->cluster_size))
        return false;
    if (zero && (!image->has_zero_flag || image->subclusters > 1))
        return false;
    if (image->has_data_file)
        return !(host || entry.entry & QCOW2_COPIED) || host == guest;
    return host || !(entry.entry & QCOW2_COPIED);
}

static bool is_allocated(const struct qcow2_image *image, uint64_t entry)
{
    return entry & QCOW2_L2_OFFSET_MASK || (image->has_data_file && entry & QCOW2_COPIED);
}

/* The kind of all of a cluster without subclusters. */
static enum qcow2_extent_kind cluster_kind(const struct qcow2_image *image, uint64_t guest, struct qcow2_l2_entry entry)
{
    if (entry.entry & QCOW2_COMPRESSED)
        return compressed_is_valid(image, entry) ? QCOW2_EXTENT_COMPRESSED : QCOW2_EXTENT_INVALID;
    if (!standard_is_valid(image, guest, entry))
        return QCOW2_EXTENT_INVALID;
    if (entry.entry & QCOW2_ZERO)
        return QCOW2_EXTENT_ZERO;
    return is_allocated(image, entry.entry) ? QCOW2_EXTENT_NORMAL : QCOW2_EXTENT_UNALLOCATED;
}

/* The kind of subcluster `sub` of a cluster of which `kind` says what the entry is, and how many from there have it. */
static enum qcow2_extent_kind subcluster_kind(enum qcow2_extent_kind kind, uint64_t bitmap, unsigned sub,
                                              unsigned *ret_count)
{
    uint32_t allocated = (uint32_t)bitmap, zero = (uint32_t)(bitmap >> QCOW2_SUBCLUSTERS);
    uint32_t bit = UINT32_C(1) << sub, same;

    *ret_count = 1;
    if (kind == QCOW2_EXTENT_INVALID)
        return kind;
    if (kind == QCOW2_EXTENT_COMPRESSED) {
        *ret_count = QCOW2_SUBCLUSTERS - sub;
        return kind;
    }
    if (allocated & zero & bit || (allocated & bit && kind == QCOW2_EXTENT_UNALLOCATED))
        return QCOW2_EXTENT_INVALID;
    if (allocated & bit) {
        kind = QCOW2_EXTENT_NORMAL;
        same = allocated & ~zero;
    } else if (zero & bit) {
        kind = QCOW2_EXTENT_ZERO;
        same = zero & ~allocated;
    } else {
        kind = QCOW2_EXTENT_UNALLOCATED;
        same = ~(allocated | zero);
    }
    same = ~(same >> sub);
    *ret_count = MIN(same ? (unsigned)__builtin_ctz(same) : QCOW2_SUBCLUSTERS, QCOW2_SUBCLUSTERS - sub);
    return kind;
}

/* --- runs --- */

/* The entry that goes on where `entry` ends. */
static uint64_t entry_after(const struct qcow2_image *image, uint64_t entry)
{
    return is_allocated(image, entry) ? entry + image->cluster_size : entry;
}

/* How many clusters from `index` on, up to `count`, go on with what the first is. */
static uint64_t clusters_alike(const struct qcow2_image *image, const uint8_t *slice, unsigned index, uint64_t count)
{
    uint64_t entry = load_be64(slice + (size_t)index * 8);
    uint64_t alike = 1;

    while (alike < count) {
        uint64_t next = load_be64(slice + (size_t)(index + alike) * 8);

        if (next != entry_after(image, entry))
            break;
        entry = next;
        alike++;
    }
    return alike;
}

/* The same in subclusters, from subcluster `sub` of the first. */
static uint64_t subclusters_alike(const struct qcow2_image *image, const uint8_t *slice, unsigned index, unsigned sub,
                                  uint64_t count, enum qcow2_extent_kind kind, unsigned first)
{
    uint64_t entry = qcow2_l2_entry_load(image, slice, index).entry;
    uint64_t alike = first;
    bool to_the_end = sub + first == QCOW2_SUBCLUSTERS;

    while (alike < count && to_the_end) {
        struct qcow2_l2_entry next = qcow2_l2_entry_load(image, slice, ++index);
        enum qcow2_extent_kind of_cluster =
            is_allocated(image, next.entry) ? QCOW2_EXTENT_NORMAL : QCOW2_EXTENT_UNALLOCATED;
        unsigned more;

        if (next.entry != entry_after(image, entry) || subcluster_kind(of_cluster, next.bitmap, 0, &more) != kind)
            break;
        entry = next.entry;
        alike += more;
        to_the_end = more == QCOW2_SUBCLUSTERS;
    }
    return alike;
}

struct qcow2_extent qcow2_extent_find(const struct qcow2_image *image, const uint8_t *slice, uint64_t guest,
                                      uint64_t bytes)
{
    unsigned index = qcow2_slice_index(image, guest);
    struct qcow2_l2_entry entry = qcow2_l2_entry_load(image, slice, index);
    uint64_t in_cluster = guest & (image->cluster_size - 1);
    uint64_t in_unit = guest & ((UINT64_C(1) << image->subcluster_bits) - 1);
    uint64_t units = (in_unit + bytes + (UINT64_C(1) << image->subcluster_bits) - 1) >> image->subcluster_bits;
    struct qcow2_extent extent = {
        .kind = cluster_kind(image, guest - in_cluster, entry),
        .entry = entry.entry,
        .copied = entry.entry & QCOW2_COPIED,
    };
    uint64_t alike = 1;

    assert(bytes);
    assert(bytes <= qcow2_slice_rest(image, guest));
    if (image->subclusters > 1) {
        unsigned sub = (unsigned)(in_cluster >> image->subcluster_bits), first;

        extent.kind = subcluster_kind(extent.kind, entry.bitmap, sub, &first);
        alike = first;
        if (extent.kind != QCOW2_EXTENT_COMPRESSED && extent.kind != QCOW2_EXTENT_INVALID)
            alike = subclusters_alike(image, slice, index, sub, units, extent.kind, first);
    } else if (extent.kind != QCOW2_EXTENT_COMPRESSED && extent.kind != QCOW2_EXTENT_INVALID && units > 1) {
        alike = clusters_alike(image, slice, index, units);
    }
    extent.bytes = MIN((alike << image->subcluster_bits) - in_unit, bytes);
    if (extent.kind < QCOW2_EXTENT_COMPRESSED && is_allocated(image, entry.entry)) {
        extent.has_host = true;
        extent.host = (entry.entry & QCOW2_L2_OFFSET_MASK) + in_cluster;
    }
    return extent;
}
