/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a write to its clusters: what can be written in place, what needs a place, and who else is at it. All that is
 * decided, and registered, in one look under the lock of the slice's shard.
 */
#include "driver/format/qcow2/allocation.h"

#include <assert.h>
#include <errno.h>

#include "base/checked.h"
#include "driver/format/qcow2/request.h"

/* --- who else --- */

static uint64_t allocation_bytes(const struct qcow2_image *image, const struct qcow2_allocation *allocation)
{
    return allocation->clusters << image->cluster_bits;
}

/* The first byte of [guest, guest + bytes) that is in an allocation, from `guest`; `bytes`: none. Under the lock. */
static uint64_t free_distance(const struct qcow2_image *image, const struct qcow2_shard *shard, uint64_t guest,
                              uint64_t bytes)
{
    const struct qcow2_allocation *other = shard->allocations;

    for (; unlikely(other); other = other->next) {
        if (ranges_overlap(guest, bytes, other->guest, allocation_bytes(image, other)))
            bytes = other->guest > guest ? other->guest - guest : 0;
    }
    return bytes;
}

static void register_locked(struct qcow2_shard *shard, struct qcow2_allocation *allocation)
{
    allocation->next = shard->allocations;
    shard->allocations = allocation;
}

static void end_locked(struct qcow2_shard *shard, struct qcow2_allocation *allocation)
{
    struct qcow2_allocation **link = &shard->allocations;

    while (*link != allocation) {
        assert(*link);
        link = &(*link)->next;
    }
    *link = allocation->next;
    waiters_wake(&shard->waiters);
}

static struct qcow2_shard *shard_of(const struct qcow2_image *image, const struct qcow2_allocation *allocation)
{
    return qcow2_cache_shard(image->l2, qcow2_slice_of(image, allocation->guest));
}

void CO_FN co_qcow2_allocation_claim(struct qcow2_image *image, struct qcow2_allocation *allocation)
{
    struct qcow2_shard *shard = shard_of(image, allocation);
    uint64_t bytes = allocation_bytes(image, allocation);

    assert(bytes <= qcow2_slice_rest(image, allocation->guest));
    spin_lock(&shard->spin);
    while (free_distance(image, shard, allocation->guest, bytes) < bytes)
        co_waiter_wait(&shard->waiters, &shard->spin);
    register_locked(shard, allocation);
    spin_unlock(&shard->spin);
}

void qcow2_allocation_end(struct qcow2_image *image, struct qcow2_allocation *allocation)
{
    struct qcow2_shard *shard = shard_of(image, allocation);

    spin_lock(&shard->spin);
    end_locked(shard, allocation);
    spin_unlock(&shard->spin);
}

void qcow2_allocation_abort(struct qcow2_image *image, struct qcow2_allocation *allocation)
{
    qcow2_allocation_end(image, allocation);
    if (!allocation->keep)
        qcow2_free_clusters(image, allocation->host, allocation_bytes(image, allocation), QCOW2_FREE_NEVER);
}

/* --- what to do --- */

static bool is_own(struct qcow2_l2_entry entry)
{
    return !(entry.entry & QCOW2_COMPRESSED) && entry.entry & QCOW2_COPIED && entry.entry & QCOW2_L2_OFFSET_MASK;
}

/* Whether the content of the cluster outside of what is written cannot be told by the bitmap of a new place. */
static bool needs_whole(const struct qcow2_image *image, struct qcow2_l2_entry entry)
{
    return image->subclusters > 1 && (entry.entry & QCOW2_COMPRESSED || entry.bitmap & QCOW2_SUBCLUSTERS_ALLOCATED);
}

/* Whether the cluster at `index` can go on the allocation that has `count` clusters before it. */
static bool joins(const struct qcow2_image *image, const uint8_t *slice, const struct qcow2_allocation *allocation,
                  uint64_t count)
{
    uint64_t guest = allocation->guest + (count << image->cluster_bits);
    struct qcow2_l2_entry entry = qcow2_l2_entry_load(image, slice, qcow2_slice_index(image, guest));
    struct qcow2_extent extent = qcow2_extent_find(image, slice, guest, 1);

    if (extent.kind == QCOW2_EXTENT_INVALID || (extent.kind == QCOW2_EXTENT_NORMAL && extent.copied))
        return false;
    if (image->subclusters > 1 && (allocation->keep || allocation->whole || needs_whole(image, entry)))
        return false;
    if (image->has_data_file)
        return true;
    if (allocation->keep)
        return entry.entry == allocation->first.entry + (count << image->cluster_bits);
    return !is_own(entry);
}

/* As much of the write as one allocation can take. */
static void plan_allocation(const struct qcow2_image *image, const uint8_t *slice, uint64_t guest, uint64_t bytes,
                            struct qcow2_write_plan *plan)
{
    struct qcow2_allocation *allocation = &plan->allocation;
    uint64_t in_cluster = guest & (image->cluster_size - 1);
    uint64_t most = (in_cluster + bytes + image->cluster_size - 1) >> image->cluster_bits;

    *allocation = (struct qcow2_allocation){
        .guest = guest - in_cluster,
        .clusters = 1,
        .first = qcow2_l2_entry_load(image, slice, qcow2_slice_index(image, guest)),
    };
    allocation->keep = image->has_data_file || is_own(allocation->first);
    allocation->whole = !allocation->keep && needs_whole(image, allocation->first);
    if (allocation->keep)
        allocation->host = image->has_data_file ? allocation->guest : allocation->first.entry & QCOW2_L2_OFFSET_MASK;
    while (allocation->clusters < most && joins(image, slice, allocation, allocation->clusters))
        allocation->clusters++;
    plan->bytes = MIN(bytes, allocation_bytes(image, allocation) - in_cluster);
}

enum plan_result { PLAN_READY, PLAN_WAIT, PLAN_INVALID };

/* Under the lock of the shard that has the table. */
static enum plan_result make_plan(const struct qcow2_image *image, struct qcow2_shard *shard, const uint8_t *slice,
                                  uint64_t guest, uint64_t bytes, struct qcow2_write_plan *plan)
{
    struct qcow2_extent extent;

    if (unlikely(shard->allocations)) {
        uint64_t start = align_down(guest, image->cluster_size);
        uint64_t end = align_up(guest + bytes, image->cluster_size);
        uint64_t distance = free_distance(image, shard, start, end - start);

        if (!distance)
            return PLAN_WAIT;
        bytes = MIN(bytes, distance - (guest - start));
    }
    extent = qcow2_extent_find(image, slice, guest, bytes);
    if (unlikely(extent.kind == QCOW2_EXTENT_INVALID))
        return PLAN_INVALID;
    plan->in_place = extent.kind == QCOW2_EXTENT_NORMAL && extent.copied;
    if (likely(plan->in_place)) {
        plan->bytes = extent.bytes;
        plan->host = extent.host;
        qcow2_hold_begin(image, shard, &extent, &plan->hold);
    } else {
        plan_allocation(image, slice, guest, bytes, plan);
        register_locked(shard, &plan->allocation);
    }
    return PLAN_READY;
}

/* Looks, and waits and looks again. */
static int CO_FN co_look(struct qcow2_image *image, uint64_t guest, uint64_t bytes, struct qcow2_write_plan *plan)
{
    uint64_t slice = qcow2_slice_of(image, guest);
    struct qcow2_shard *shard = qcow2_cache_shard(image->l2, slice);
    uint64_t here = MIN(bytes, qcow2_slice_rest(image, guest));
    enum plan_result result;

    do {
        struct qcow2_table *table;

        spin_lock(&shard->spin);
        table = qcow2_cache_find(image->l2, shard, slice);
        if (unlikely(!table)) {
            int ret;

            spin_unlock(&shard->spin);
            ret = co_qcow2_cache_lock(image->l2, slice, &table);
            if (ret)
                return ret;
            qcow2_cache_unpin(shard, table);
        }
        result = make_plan(image, shard, table->data, guest, here, plan);
        if (unlikely(result == PLAN_WAIT))
            co_waiter_wait(&shard->waiters, &shard->spin);
        spin_unlock(&shard->spin);
    } while (unlikely(result == PLAN_WAIT));
    if (unlikely(result == PLAN_INVALID)) {
        struct qcow2_extent extent;
        struct qcow2_hold hold;
        int ret = co_qcow2_extent_get(image, guest, 1, &extent, &hold);

        qcow2_hold_end(&hold);
        return ret ? ret : -EIO;
    }
    return 0;
}

/* Gives a registered allocation its clusters; fewer than it wants, where there are no more in a row. */
static int CO_FN co_take_clusters(struct qcow2_image *image, struct qcow2_write_plan *plan, uint64_t guest)
{
    struct qcow2_allocation *allocation = &plan->allocation;
    struct qcow2_run run;
    int ret = co_qcow2_l2_own(image, allocation->guest);

    if (ret || allocation->keep)
        return ret;
    ret = co_qcow2_alloc_run(image, allocation->clusters, &run);
    if (ret)
        return ret;
    allocation->host = run.offset;
    allocation->fresh = run.fresh;
    if (run.clusters < allocation->clusters) {
        struct qcow2_shard *shard = shard_of(image, allocation);

        spin_lock(&shard->spin);
        allocation->clusters = run.clusters;
        waiters_wake(&shard->waiters);
        spin_unlock(&shard->spin);
        plan->bytes = MIN(plan->bytes, allocation->guest + allocation_bytes(image, allocation) - guest);
    }
    return 0;
}

int CO_FN co_qcow2_write_plan(struct qcow2_image *image, uint64_t guest, uint64_t bytes,
                              struct qcow2_write_plan *ret_plan)
{
    int ret = co_qcow2_owners_check(image);

    if (likely(!ret))
        ret = co_look(image, guest, bytes, ret_plan);
    if (ret || likely(ret_plan->in_place))
        return ret;
    ret = co_take_clusters(image, ret_plan, guest);
    if (ret)
        qcow2_allocation_end(image, &ret_plan->allocation);
    return ret;
}

/* --- what goes with the data --- */

uint64_t qcow2_copy_unit(const struct qcow2_image *image, const struct qcow2_allocation *allocation)
{
    return allocation->whole ? image->cluster_size : UINT64_C(1) << image->subcluster_bits;
}

void qcow2_trim_copy(const struct qcow2_allocation *allocation, const struct qcow2_image *image, uint64_t guest,
                     uint64_t bytes, uint64_t *from, uint64_t *to)
{
    uint64_t in_cluster = image->cluster_size - 1;
    unsigned first = (unsigned)((guest & in_cluster) >> image->subcluster_bits);
    unsigned last = (unsigned)(((guest + bytes - 1) & in_cluster) >> image->subcluster_bits);

    assert(allocation->clusters == 1 || image->has_data_file);
    if (allocation->clusters > 1)
        return;
    if (allocation->first.bitmap & qcow2_subcluster_allocated(first))
        *from = guest;
    if (allocation->first.bitmap & qcow2_subcluster_allocated(last))
        *to = guest + bytes;
}

/* --- the new entries --- */

/* Subclusters of the cluster at `cluster` that [from, to) touches, as bits of the low half. */
static uint64_t subclusters_of(const struct qcow2_image *image, uint64_t cluster, uint64_t from, uint64_t to)
{
    uint64_t end = cluster + image->cluster_size;
    unsigned first, last;

    from = MAX(from, cluster);
    to = MIN(to, end);
    assert(from < to);
    first = (unsigned)((from - cluster) >> image->subcluster_bits);
    last = (unsigned)((to - 1 - cluster) >> image->subcluster_bits);
    return (QCOW2_SUBCLUSTERS_ALLOCATED >> (QCOW2_SUBCLUSTERS - 1 - last)) & (QCOW2_SUBCLUSTERS_ALLOCATED << first);
}

static struct qcow2_l2_entry new_entry(const struct qcow2_image *image, const struct qcow2_allocation *allocation,
                                       uint64_t index, struct qcow2_l2_entry old, uint64_t from, uint64_t to)
{
    uint64_t cluster = allocation->guest + (index << image->cluster_bits);
    struct qcow2_l2_entry entry = {.entry = (allocation->host + (index << image->cluster_bits)) | QCOW2_COPIED};
    uint64_t written;

    if (image->subclusters == 1)
        return entry;
    written = allocation->whole ? QCOW2_SUBCLUSTERS_ALLOCATED : subclusters_of(image, cluster, from, to);
    if (old.entry & QCOW2_COMPRESSED)
        old.bitmap = 0;
    entry.bitmap = (old.bitmap | written) & ~(written << QCOW2_SUBCLUSTERS);
    return entry;
}

void qcow2_entry_free(struct qcow2_image *image, uint64_t entry, enum qcow2_free_reason reason)
{
    if (entry & QCOW2_COMPRESSED) {
        struct qcow2_compressed_extent where = qcow2_compressed_extent(entry, image->cluster_bits);

        qcow2_free_clusters(image, where.offset, where.bytes, reason);
    } else if (entry & QCOW2_L2_OFFSET_MASK && !image->has_data_file) {
        qcow2_free_clusters(image, entry & QCOW2_L2_OFFSET_MASK, image->cluster_size, reason);
    }
}

int CO_FN co_qcow2_allocation_link(struct qcow2_image *image, struct qcow2_allocation *allocation, uint64_t guest,
                                   uint64_t bytes)
{
    uint64_t slice = qcow2_slice_of(image, allocation->guest);
    struct qcow2_shard *shard = qcow2_cache_shard(image->l2, slice);
    unsigned first = qcow2_slice_index(image, allocation->guest);
    struct qcow2_table *table;
    int ret = co_qcow2_cache_lock(image->l2, slice, &table);

    if (ret) {
        qcow2_allocation_abort(image, allocation);
        return ret;
    }
    for (uint64_t i = 0; i < allocation->clusters; i++) {
        struct qcow2_l2_entry old = qcow2_l2_entry_load(image, table->data, first + (unsigned)i);

        qcow2_l2_entry_store(image, table->data, first + (unsigned)i,
                             new_entry(image, allocation, i, old, guest, guest + bytes));
        if (!allocation->keep && unlikely(old.entry))
            qcow2_entry_free(image, old.entry, QCOW2_FREE_OTHER);
    }
    qcow2_table_set_dirty(image->l2, shard, table, first << image->l2_entry_bits,
                          (uint32_t)allocation->clusters << image->l2_entry_bits);
    end_locked(shard, allocation);
    qcow2_cache_unlock(shard, table);
    return 0;
}

int CO_FN co_qcow2_entry_replace(struct qcow2_image *image, uint64_t guest, uint64_t entry)
{
    uint64_t slice = qcow2_slice_of(image, guest);
    struct qcow2_shard *shard = qcow2_cache_shard(image->l2, slice);
    unsigned index = qcow2_slice_index(image, guest);
    struct qcow2_l2_entry old;
    struct qcow2_table *table;
    int ret = co_qcow2_cache_lock(image->l2, slice, &table);

    if (ret)
        return ret;
    old = qcow2_l2_entry_load(image, table->data, index);
    qcow2_l2_entry_store(image, table->data, index, (struct qcow2_l2_entry){.entry = entry});
    qcow2_table_set_dirty(image->l2, shard, table, index << image->l2_entry_bits, 1u << image->l2_entry_bits);
    qcow2_entry_free(image, old.entry, QCOW2_FREE_OTHER);
    qcow2_cache_unlock(shard, table);
    return 0;
}
