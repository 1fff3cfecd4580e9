/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finding free clusters. The allocator keeps a window: a run of clusters that are free, in a refcount block that is
 * pinned. Taking from it is a few instructions under a spin lock, so allocating writes wait for each other only when
 * the window is used up and one of them looks for the next.
 *
 * Keeps: (1) clusters of the window are free until they are taken from it: all others who allocate hold alloc_lock and
 * close the window first; (2) nothing below free_hint is free, but for the window; (3) beyond fresh_from nothing was
 * ever written.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "base/checked.h"
#include "driver/format/qcow2/qcow2.h"

enum { WINDOW_BYTES_MAX = 64 << 20 };

void qcow2_alloc_hint(struct qcow2_image *image, uint64_t cluster)
{
    spin_lock(&image->alloc_spin);
    image->free_hint = MIN(image->free_hint, cluster);
    spin_unlock(&image->alloc_spin);
}

/* Returns the window's clusters. Under alloc_spin. */
static void window_close(struct qcow2_image *image)
{
    struct qcow2_window *window = &image->window;

    if (window->block) {
        struct qcow2_shard *shard = qcow2_cache_shard(image->refcounts, window->block->key);

        spin_lock(&shard->spin);
        qcow2_cache_unlock(shard, window->block);
        if (window->next < window->end)
            image->free_hint = MIN(image->free_hint, window->next);
    }
    *window = (struct qcow2_window){0};
}

void qcow2_alloc_reset(struct qcow2_image *image)
{
    spin_lock(&image->alloc_spin);
    window_close(image);
    image->compressed_next = 0;
    spin_unlock(&image->alloc_spin);
}

/* Whether all of the run may be handed out, as to how it was used before: not both fresh and used. Under alloc_spin. */
static uint64_t same_freshness(const struct qcow2_image *image, uint64_t cluster, uint64_t count, bool *ret_fresh)
{
    uint64_t fresh_from = image->fresh_from >> image->cluster_bits;

    *ret_fresh = cluster >= fresh_from;
    return *ret_fresh ? count : MIN(count, fresh_from - cluster);
}

static void note_taken(struct qcow2_image *image, uint64_t end)
{
    image->fresh_from = MAX(image->fresh_from, end << image->cluster_bits);
}

/* Takes from the window. Under alloc_spin. */
static bool take_from_window(struct qcow2_image *image, uint64_t wanted, struct qcow2_run *ret_run)
{
    struct qcow2_window *window = &image->window;
    struct qcow2_shard *shard;
    uint64_t count;

    if (!window->block || window->next == window->end)
        return false;
    count = same_freshness(image, window->next, MIN(wanted, window->end - window->next), &ret_run->fresh);
    shard = qcow2_cache_shard(image->refcounts, window->block->key);
    spin_lock(&shard->spin);
    for (uint64_t i = 0; i < count; i++) {
        assert(!qcow2_refcount_of(image, window->block, window->next + i));
        qcow2_refcount_change(image, shard, window->block, window->next + i, 1);
    }
    spin_unlock(&shard->spin);
    ret_run->offset = window->next << image->cluster_bits;
    ret_run->clusters = count;
    window->next += count;
    note_taken(image, window->next);
    return true;
}

/* --- looking for free clusters; under alloc_lock --- */

/*
 * The first free cluster from `from` on in its block, and how many there are in a row, up to `most`. The block is
 * locked and pinned. *ret_count 0: none.
 */
static int CO_FN co_search_block(struct qcow2_image *image, uint64_t from, uint64_t most, uint64_t *ret_first,
                                 uint64_t *ret_count, struct qcow2_table **ret_block)
{
    uint64_t index = from >> image->refcount_block_bits;
    uint64_t end = (index + 1) << image->refcount_block_bits;
    uint64_t cluster = from, count = 0;
    int ret = co_qcow2_refcount_block_ensure(image, index);

    if (!ret)
        ret = co_qcow2_cache_lock(image->refcounts, index, ret_block);
    if (ret)
        return ret;
    while (cluster < end && qcow2_refcount_of(image, *ret_block, cluster))
        cluster++;
    while (cluster + count < end && count < most && !qcow2_refcount_of(image, *ret_block, cluster + count))
        count++;
    *ret_first = cluster;
    *ret_count = count;
    return 0;
}

static bool beyond_format(const struct qcow2_image *image, uint64_t cluster)
{
    return cluster >= QCOW2_HOST_OFFSET_MAX >> image->cluster_bits;
}

/* Clusters with count 0 in which metadata lies: the counts are wrong. */
static int CO_FN co_check_free(struct qcow2_image *image, uint64_t first, uint64_t count)
{
    return co_qcow2_overlap_check(image, first << image->cluster_bits, count << image->cluster_bits, 0);
}

static int CO_FN co_window_open(struct qcow2_image *image)
{
    uint64_t most = MAX(WINDOW_BYTES_MAX >> image->cluster_bits, 1);
    uint64_t from, first, count = 0;
    struct qcow2_table *block;
    int ret;

    spin_lock(&image->alloc_spin);
    window_close(image);
    from = image->free_hint;
    image->free_hint = UINT64_MAX;
    spin_unlock(&image->alloc_spin);
    for (;;) {
        struct qcow2_shard *shard;

        if (beyond_format(image, from)) {
            qcow2_alloc_hint(image, from);
            return -EFBIG;
        }
        ret = co_search_block(image, from, most, &first, &count, &block);
        if (ret) {
            qcow2_alloc_hint(image, from);
            return ret;
        }
        shard = qcow2_cache_shard(image->refcounts, block->key);
        if (count) {
            qcow2_cache_unlock_pinned(shard);
            break;
        }
        from = (block->key + 1) << image->refcount_block_bits;
        qcow2_cache_unlock(shard, block);
    }
    ret = co_check_free(image, first, count);
    spin_lock(&image->alloc_spin);
    /* What was freed meanwhile has lowered the hint. */
    image->free_hint = MIN(image->free_hint, first + count);
    image->window = (struct qcow2_window){.block = block, .next = first, .end = first + count};
    if (ret)
        window_close(image);
    spin_unlock(&image->alloc_spin);
    return ret;
}

int CO_FN co_qcow2_alloc_run(struct qcow2_image *image, uint64_t wanted, struct qcow2_run *ret_run)
{
    bool taken;
    int ret = 0;

    assert(wanted);
    co_edge_event(image->file, BLKDEBUG_EVENT_CLUSTER_ALLOC);
    spin_lock(&image->alloc_spin);
    taken = take_from_window(image, wanted, ret_run);
    spin_unlock(&image->alloc_spin);
    if (likely(taken))
        return 0;
    co_mutex_lock(&image->alloc_lock);
    while (!taken && !ret) {
        spin_lock(&image->alloc_spin);
        taken = take_from_window(image, wanted, ret_run);
        spin_unlock(&image->alloc_spin);
        if (!taken)
            ret = co_window_open(image);
    }
    co_mutex_unlock(&image->alloc_lock);
    return ret;
}

/* --- several clusters in a row --- */

/* How many clusters from `at` on are free, up to `most`, in the one block that counts `at`; in a missing one, all. */
static int CO_FN co_count_free(struct qcow2_image *image, uint64_t at, uint64_t most, uint64_t *ret_skip,
                               uint64_t *ret_count)
{
    uint64_t index = at >> image->refcount_block_bits, first;
    struct qcow2_table *block;
    int ret;

    if (!qcow2_refcount_table_entry(image, index)) {
        *ret_skip = 0;
        *ret_count = MIN(most, ((index + 1) << image->refcount_block_bits) - at);
        return 0;
    }
    ret = co_search_block(image, at, most, &first, ret_count, &block);
    if (ret)
        return ret;
    qcow2_cache_unlock(qcow2_cache_shard(image->refcounts, index), block);
    *ret_skip = first - at;
    return 0;
}

static uint64_t missing_blocks(const struct qcow2_image *image, uint64_t first, uint64_t count)
{
    uint64_t missing = 0;

    for (uint64_t i = first >> image->refcount_block_bits; i <= (first + count - 1) >> image->refcount_block_bits; i++)
        missing += !qcow2_refcount_table_entry(image, i);
    return missing;
}

/*
 * Finds `wanted` free clusters in a row from `from` on, and before them as many as blocks are missing to count all of
 * these, *ret_missing.
 */
static int CO_FN co_find_row(struct qcow2_image *image, uint64_t from, uint64_t wanted, uint64_t *ret_first,
                             uint64_t *ret_missing)
{
    uint64_t run = 0, start = from;

    *ret_missing = 0;
    while (run < wanted + *ret_missing) {
        uint64_t at = start + run, skip, count;
        int ret = beyond_format(image, at + wanted + *ret_missing) ? -EFBIG : 0;

        if (!ret && at >> image->refcount_block_bits >= image->refcount_table_entries) {
            /* The table grows into what is looked at here. */
            ret = co_qcow2_refcount_table_reserve(image, at >> image->refcount_block_bits);
            run = 0;
            if (!ret)
                continue;
        }
        if (!ret)
            ret = co_count_free(image, at, wanted + *ret_missing - run, &skip, &count);
        if (ret)
            return ret;
        if (skip) {
            start = at + skip;
            run = 0;
        }
        run += count;
        *ret_missing = run ? missing_blocks(image, start, run) : 0;
    }
    *ret_first = start;
    return 0;
}

/* Raises the counts of those clusters of [first, end) that existing blocks count, or none. */
static int CO_FN co_count_row(struct qcow2_image *image, uint64_t first, uint64_t end, int64_t delta)
{
    int ret = 0;

    for (uint64_t at = first, stop; at < end && !ret; at = stop) {
        uint64_t index = at >> image->refcount_block_bits;

        stop = MIN(end, (index + 1) << image->refcount_block_bits);
        if (!qcow2_refcount_table_entry(image, index))
            continue;
        ret = co_qcow2_refcount_add(image, at << image->cluster_bits, (stop - at) << image->cluster_bits, delta);
        /* What cannot be lowered again is a leak. */
        if (ret && delta > 0)
            (void)co_count_row(image, first, at, -delta);
    }
    return ret;
}

/*
 * Raises the counts of clusters that are free; the first `missing` become the blocks that are missing to count all.
 * These are named when nothing can fail any more.
 */
static int CO_FN co_take_row(struct qcow2_image *image, uint64_t first, uint64_t missing, uint64_t wanted)
{
    uint64_t count = missing + wanted, place = first, end = first + count;
    uint64_t first_block = first >> image->refcount_block_bits, last_block = (end - 1) >> image->refcount_block_bits;
    int ret = co_check_free(image, first, count);

    if (!ret)
        ret = co_count_row(image, first, end, 1);
    if (ret)
        return ret;
    for (uint64_t i = first_block; !ret && i <= last_block; i++) {
        if (!qcow2_refcount_table_entry(image, i))
            ret = co_qcow2_refcount_block_write(image, i, place++ << image->cluster_bits, first, end);
    }
    if (ret) {
        (void)co_count_row(image, first, end, -1);
        return ret;
    }
    assert(place == first + missing);
    place = first;
    for (uint64_t i = first_block; i <= last_block; i++) {
        if (!qcow2_refcount_table_entry(image, i))
            qcow2_refcount_block_name(image, i, place++ << image->cluster_bits);
    }
    spin_lock(&image->alloc_spin);
    note_taken(image, end);
    if (image->free_hint == first)
        image->free_hint = end;
    spin_unlock(&image->alloc_spin);
    return 0;
}

static int CO_FN co_alloc_row(struct qcow2_image *image, uint64_t wanted, uint64_t *ret_first)
{
    uint64_t from, missing;
    int ret;

    spin_lock(&image->alloc_spin);
    window_close(image);
    from = image->free_hint;
    spin_unlock(&image->alloc_spin);
    ret = co_find_row(image, from, wanted, ret_first, &missing);
    if (!ret)
        ret = co_take_row(image, *ret_first, missing, wanted);
    *ret_first += missing;
    return ret;
}

int CO_FN co_qcow2_alloc_clusters(struct qcow2_image *image, uint64_t bytes, uint64_t *ret_offset)
{
    uint64_t wanted = (bytes + image->cluster_size - 1) >> image->cluster_bits, first;
    int ret;

    assert(bytes && bytes <= QCOW2_HOST_OFFSET_MAX);
    if (wanted == 1) {
        struct qcow2_run run;

        ret = co_qcow2_alloc_run(image, 1, &run);
        *ret_offset = run.offset;
        return ret;
    }
    co_edge_event(image->file, BLKDEBUG_EVENT_CLUSTER_ALLOC);
    co_mutex_lock(&image->alloc_lock);
    ret = co_alloc_row(image, wanted, &first);
    co_mutex_unlock(&image->alloc_lock);
    *ret_offset = first << image->cluster_bits;
    return ret;
}

/* --- compressed clusters, which share host clusters --- */

/* One more name for a cluster that has one at least; false: it has none, or the count has no room. */
static int CO_FN co_share(struct qcow2_image *image, uint64_t offset, bool *ret_shared)
{
    uint64_t cluster = offset >> image->cluster_bits;
    uint64_t index = cluster >> image->refcount_block_bits, count;
    struct qcow2_shard *shard = qcow2_cache_shard(image->refcounts, index);
    struct qcow2_table *block;
    int ret = co_qcow2_cache_lock(image->refcounts, index, &block);

    if (ret)
        return ret;
    count = qcow2_refcount_of(image, block, cluster);
    *ret_shared = count && count < image->refcount_max;
    if (*ret_shared)
        qcow2_refcount_change(image, shard, block, cluster, count + 1);
    qcow2_cache_unlock(shard, block);
    return 0;
}

/* A place for `bytes` where the last one ended, or at the start of a new cluster. Under alloc_lock. */
static int CO_FN co_place_bytes(struct qcow2_image *image, uint32_t bytes, uint64_t *ret_offset)
{
    uint64_t next = image->compressed_next, first;
    uint64_t room = next ? image->cluster_size - (next & (image->cluster_size - 1)) : 0;
    bool shared = false;
    int ret;

    if (room >= bytes) {
        ret = co_share(image, next, &shared);
        if (ret || shared) {
            *ret_offset = next;
            return ret;
        }
        room = 0;
    }
    ret = co_alloc_row(image, 1, &first);
    if (ret)
        return ret;
    *ret_offset = first << image->cluster_bits;
    if (room && next + room == *ret_offset) {
        ret = co_share(image, next, &shared);
        /* It need not go on there. */
        ret = 0;
        if (shared)
            *ret_offset = next;
    }
    return ret;
}

int CO_FN co_qcow2_alloc_bytes(struct qcow2_image *image, uint32_t bytes, uint64_t *ret_offset)
{
    int ret;

    assert(bytes && bytes <= image->cluster_size);
    co_edge_event(image->file, BLKDEBUG_EVENT_CLUSTER_ALLOC_BYTES);
    co_mutex_lock(&image->alloc_lock);
    ret = co_place_bytes(image, bytes, ret_offset);
    if (!ret) {
        uint64_t next = *ret_offset + bytes;

        spin_lock(&image->alloc_spin);
        image->compressed_next = is_aligned(next, image->cluster_size) ? 0 : next;
        spin_unlock(&image->alloc_spin);
    }
    co_mutex_unlock(&image->alloc_lock);
    return ret;
}

void CO_FN co_qcow2_alloc_stop_sharing(struct qcow2_image *image, uint64_t offset, uint64_t bytes)
{
    co_mutex_lock(&image->alloc_lock);
    spin_lock(&image->alloc_spin);
    if (image->compressed_next && ranges_overlap(image->compressed_next, 1, offset, bytes))
        image->compressed_next = 0;
    spin_unlock(&image->alloc_spin);
    co_mutex_unlock(&image->alloc_lock);
}

/* --- the end of the image --- */

int CO_FN co_qcow2_last_cluster(struct qcow2_image *image, uint64_t *ret_end)
{
    *ret_end = 0;
    for (uint64_t index = image->refcount_table_entries; index-- > 0;) {
        uint64_t first = index << image->refcount_block_bits;
        uint64_t cluster = (index + 1) << image->refcount_block_bits;
        struct qcow2_table *block;
        int ret;

        if (!qcow2_refcount_table_entry(image, index))
            continue;
        ret = co_qcow2_cache_lock(image->refcounts, index, &block);
        if (ret)
            return ret;
        while (cluster > first && !qcow2_refcount_of(image, block, cluster - 1))
            cluster--;
        qcow2_cache_unlock(qcow2_cache_shard(image->refcounts, index), block);
        if (cluster > first) {
            *ret_end = cluster;
            return 0;
        }
    }
    return 0;
}
