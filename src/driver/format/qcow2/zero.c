/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Zero writes and discards: changes of L2 entries alone. Whatever cannot be said by an entry is left to the core, which
 * writes zeroes, or forgets the discard.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "base/checked.h"
#include "driver/format/qcow2/allocation.h"
#include "driver/format/qcow2/request.h"

enum entry_change {
    CHANGE_ZERO,       /* reads as zeroes; the place is kept where it is the image's own */
    CHANGE_ZERO_UNMAP, /* reads as zeroes; the place is given up */
    CHANGE_DISCARD,    /* reads as zeroes, as a rule; the place is given up unless the options say otherwise */
    CHANGE_FORGET,     /* unallocated: it is no longer part of the disk */
};

/* --- one entry --- */

static bool has_host(struct qcow2_l2_entry entry)
{
    return !(entry.entry & QCOW2_COMPRESSED) && entry.entry & (QCOW2_L2_OFFSET_MASK | QCOW2_COPIED);
}

static bool is_own(struct qcow2_l2_entry entry)
{
    return has_host(entry) && entry.entry & QCOW2_COPIED;
}

static bool is_unallocated(struct qcow2_l2_entry entry)
{
    return !entry.entry && !entry.bitmap;
}

/* The entry of a cluster all of which reads as zeroes, at the place that `host` has (0: none). */
static struct qcow2_l2_entry zero_entry(const struct qcow2_image *image, uint64_t host)
{
    if (image->subclusters > 1)
        return (struct qcow2_l2_entry){.entry = host, .bitmap = QCOW2_SUBCLUSTERS_ZERO};
    return (struct qcow2_l2_entry){.entry = host | QCOW2_ZERO};
}

/* Version 2 knows no zero clusters: only what has no backing image behind it can be given up. */
static int change_v2(const struct qcow2_image *image, uint64_t guest, enum entry_change change,
                     struct qcow2_l2_entry *entry)
{
    bool backing = qcow2_backing_reaches(image, guest);

    if (is_unallocated(*entry))
        return backing && change != CHANGE_FORGET ? -ENOTSUP : 0;
    if (change == CHANGE_ZERO || (backing && change != CHANGE_FORGET))
        return -ENOTSUP;
    *entry = (struct qcow2_l2_entry){0};
    return 0;
}

static int change_whole(const struct qcow2_image *image, uint64_t guest, enum entry_change change,
                        struct qcow2_l2_entry *entry)
{
    uint64_t own = is_own(*entry) ? entry->entry & (QCOW2_COPIED | QCOW2_L2_OFFSET_MASK) : 0;

    if (!image->has_zero_flag)
        return change_v2(image, guest, change, entry);
    switch (change) {
    case CHANGE_ZERO:
        *entry = zero_entry(image, own);
        return 0;
    case CHANGE_ZERO_UNMAP:
        *entry = zero_entry(image, image->settings.discard_no_unref ? own : 0);
        return 0;
    case CHANGE_DISCARD:
        if (!is_unallocated(*entry) || qcow2_backing_reaches(image, guest))
            *entry = zero_entry(image, image->settings.discard_no_unref ? own : 0);
        return 0;
    case CHANGE_FORGET:
        *entry = (struct qcow2_l2_entry){0};
        return 0;
    }
    assert(!"change");
    return -EINVAL;
}

/* Subclusters [first, end) of a cluster. */
static int change_part(enum entry_change change, unsigned first, unsigned end, struct qcow2_l2_entry *entry)
{
    uint64_t bits = (QCOW2_SUBCLUSTERS_ALLOCATED >> (QCOW2_SUBCLUSTERS - (end - first))) << first;

    if (entry->entry & QCOW2_COMPRESSED)
        return -ENOTSUP;
    assert(change == CHANGE_ZERO || change == CHANGE_ZERO_UNMAP);
    entry->bitmap = (entry->bitmap & ~bits) | bits << QCOW2_SUBCLUSTERS;
    return 0;
}

/* --- a range inside one slice --- */

struct entries_change {
    enum entry_change change;
    uint64_t guest; /* aligned to subclusters, as is the next */
    uint64_t bytes;
};

/* The old entries' places are no longer named. */
static void entry_let_go(struct qcow2_image *image, enum entry_change change, struct qcow2_l2_entry old,
                         struct qcow2_l2_entry new)
{
    uint64_t host = old.entry & QCOW2_L2_OFFSET_MASK;

    if (old.entry & QCOW2_COMPRESSED || host != (new.entry &QCOW2_L2_OFFSET_MASK))
        qcow2_entry_free(image, old.entry, change == CHANGE_FORGET ? QCOW2_FREE_OTHER : QCOW2_FREE_REQUEST);
}

/* Changes the entry of the cluster at `cluster`. Under the lock. */
static int change_entry(struct qcow2_image *image, uint8_t *slice, uint64_t cluster,
                        const struct entries_change *change)
{
    unsigned index = qcow2_slice_index(image, cluster);
    struct qcow2_l2_entry old = qcow2_l2_entry_load(image, slice, index), new = old;
    uint64_t from = MAX(change->guest, cluster), to = MIN(change->guest + change->bytes, cluster + image->cluster_size);
    struct qcow2_extent extent = qcow2_extent_find(image, slice, cluster, 1);
    int ret;

    if (extent.kind == QCOW2_EXTENT_INVALID)
        return -EINVAL;
    if (to - from == image->cluster_size)
        ret = change_whole(image, cluster, change->change, &new);
    else
        ret = change_part(change->change, (unsigned)((from - cluster) >> image->subcluster_bits),
                          (unsigned)((to - cluster) >> image->subcluster_bits), &new);
    if (ret)
        return ret;
    qcow2_l2_entry_store(image, slice, index, new);
    entry_let_go(image, change->change, old, new);
    return 0;
}

/* Changes as many entries as can be; the first that can't ends it. */
static int CO_FN co_change_claimed(struct qcow2_image *image, const struct entries_change *change)
{
    uint64_t slice = qcow2_slice_of(image, change->guest);
    struct qcow2_shard *shard = qcow2_cache_shard(image->l2, slice);
    uint64_t cluster = align_down(change->guest, image->cluster_size), end = change->guest + change->bytes;
    struct qcow2_table *table;
    uint64_t done = cluster;
    int ret = co_qcow2_cache_lock(image->l2, slice, &table);

    if (ret)
        return ret;
    for (; done < end && !ret; done += image->cluster_size)
        ret = change_entry(image, table->data, done, change);
    if (done > cluster)
        qcow2_table_set_dirty(image->l2, shard, table, qcow2_slice_index(image, cluster) << image->l2_entry_bits,
                              (uint32_t)((done - cluster) >> image->cluster_bits) << image->l2_entry_bits);
    qcow2_cache_unlock(shard, table);
    return ret == -EINVAL ? co_qcow2_corrupt(image, 0, 0, "L2 entry of guest offset %#" PRIx64 " makes no sense",
                                             done - image->cluster_size)
                          : ret;
}

/* What changes in the data file, where there is one: it lies at the guest's offset. */
static int CO_FN co_change_data_file(struct qcow2_image *image, const struct entries_change *change)
{
    bool unmap = change->change != CHANGE_ZERO;

    if (!image->has_data_file || change->change == CHANGE_FORGET)
        return 0;
    if (image->data_file_raw)
        return co_edge_pwrite_zeroes(image->data, change->guest, change->bytes, unmap ? IO_MAY_UNMAP : 0);
    if (unmap && image->settings.pass_discard[QCOW2_FREE_REQUEST])
        (void)co_edge_pdiscard(image->data, change->guest, change->bytes);
    return 0;
}

static int CO_FN co_change_slice(struct qcow2_image *image, const struct entries_change *change)
{
    uint64_t start = align_down(change->guest, image->cluster_size);
    uint64_t end = align_up(change->guest + change->bytes, image->cluster_size);
    struct qcow2_allocation claim = {.guest = start, .clusters = (end - start) >> image->cluster_bits};
    int ret;

    co_qcow2_allocation_claim(image, &claim);
    ret = co_change_data_file(image, change);
    if (!ret)
        ret = co_qcow2_l2_own(image, start);
    if (!ret)
        ret = co_change_claimed(image, change);
    qcow2_allocation_end(image, &claim);
    return ret;
}

/* Whether there is nothing to do for it where no L2 table is. */
static bool nothing_there(const struct qcow2_image *image, const struct entries_change *change)
{
    if (qcow2_l1_entry(image, change->guest) || image->data_file_raw)
        return false;
    switch (change->change) {
    case CHANGE_FORGET:
        return true;
    case CHANGE_DISCARD:
        return !qcow2_backing_reaches(image, change->guest);
    default:
        return !image->has_zero_flag && !qcow2_backing_reaches(image, change->guest);
    }
}

static int CO_FN co_change_range(struct qcow2_image *image, uint64_t guest, uint64_t bytes, enum entry_change change)
{
    int ret = 0;

    for (uint64_t done = 0; done < bytes && !ret;) {
        struct entries_change part = {.change = change, .guest = guest + done};

        part.bytes = MIN(bytes - done, qcow2_slice_rest(image, part.guest));
        if (!nothing_there(image, &part))
            ret = co_change_slice(image, &part);
        done += part.bytes;
    }
    return ret;
}

int CO_FN co_qcow2_forget(struct qcow2_image *image, uint64_t guest, uint64_t bytes)
{
    return co_change_range(image, guest, bytes, CHANGE_FORGET);
}

int CO_FN co_qcow2_make_empty(struct node *node)
{
    struct qcow2_image *image = node_state(node);
    uint64_t bytes = align_up(image->header->size, image->cluster_size);

    co_edge_event(image->file, BLKDEBUG_EVENT_EMPTY_IMAGE_PREPARE);
    return bytes ? co_qcow2_forget(image, 0, bytes) : 0;
}

int CO_FN co_qcow2_zero_clusters(struct qcow2_image *image, uint64_t guest, uint64_t bytes)
{
    return co_change_range(image, guest, bytes, CHANGE_ZERO);
}

/* --- requests --- */

/* A part of a (sub)cluster: done if it reads as zeroes already. */
static int CO_FN co_zero_part(struct qcow2_image *image, uint64_t guest, uint64_t bytes)
{
    struct qcow2_extent extent;
    struct qcow2_hold hold;
    int ret;

    if (image->data_file_raw)
        return -ENOTSUP;
    ret = co_qcow2_extent_get(image, guest, bytes, &extent, &hold);
    if (ret)
        return ret;
    qcow2_hold_end(&hold);
    if (extent.bytes < bytes)
        return -ENOTSUP;
    if (extent.kind == QCOW2_EXTENT_ZERO)
        return 0;
    return extent.kind == QCOW2_EXTENT_UNALLOCATED && !node_backing(image->node) ? 0 : -ENOTSUP;
}

int CO_FN co_qcow2_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct qcow2_image *image = node_state(node);
    uint64_t unit = UINT64_C(1) << image->subcluster_bits;
    uint64_t size = align_up(image->header->size, 512), end = offset + bytes;

    if (!range_fits(offset, bytes, size))
        return -ENOSPC;
    /* Nothing is behind the end of the disk. */
    if (end == size)
        end = align_up(end, unit);
    if (!is_aligned(offset | end, unit))
        return co_zero_part(image, offset, bytes);
    return co_change_range(image, offset, end - offset, flags & IO_MAY_UNMAP ? CHANGE_ZERO_UNMAP : CHANGE_ZERO);
}

int CO_FN co_qcow2_pdiscard(struct node *node, uint64_t offset, uint64_t bytes)
{
    struct qcow2_image *image = node_state(node);

    if (!is_aligned(offset | bytes, image->cluster_size))
        return -ENOTSUP;
    return co_change_range(image, offset, bytes, CHANGE_DISCARD);
}
