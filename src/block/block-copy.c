/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keeps: (1) a cluster is marked, or claimed by one coroutine, or done; (2) whoever has claimed is inside a request, so
 * waiting for a claim inside a request always ends; (3) a claim that fails leaves its clusters marked.
 */
#include "block/block-copy.h"

#include <assert.h>
#include <errno.h>

#include "base/bitmap.h"
#include "base/checked.h"
#include "base/units.h"
#include "block/graph-change.h"
#include "block/graph-internal.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

/* How much goes through memory at a time, and what is taken at once by somebody who copies. */
enum { STEP_BYTES = 1024 * 1024 };

/*
 * The same while others change the target, too: the system lets a file be changed by one writer at a time, and memory
 * that it has never used before may cost it two milliseconds a megabyte. So long a guest's write would have to wait.
 */
enum { SHARED_STEP_BYTES = 128 * 1024 };
#define SHARED_NS INT64_C(100000000) /* for so long after each of theirs */

/* How often and for how long a job's step waits for writers that are saving, and what they save is no work any more. */
enum { GIVE_WAY_TIMES = 4 };
#define GIVE_WAY_NS INT64_C(125000)

/* So much is written before the system is told to begin bringing it to the medium: enough for its requests to be large.
 */
enum { FLUSH_AHEAD_BYTES = 32 * 1024 * 1024 };

/*
 * Between files in memory more pieces at once would only drive each other out of the processor's caches between being
 * read and being written.
 */
enum { PARALLEL_NEAR = 4 };

struct block_copy {
    struct edge *source; /* const, as all up to `discard_source` */
    struct edge *target;
    uint64_t length;
    uint32_t cluster_size;
    unsigned shift;
    unsigned write_flags;
    unsigned zero_flags;
    bool explicit_zeroes;
    bool copy_range;
    bool discard_source;
    bool flush_ahead;
    bool gives_way;

    struct co_mutex steps; /* of a job that gives way: one at a time waits, or writes */
    unsigned saving;       /* atomic: writers that are having something saved */
    int64_t shared_ns;     /* atomic: when somebody else last had to do with the target; of the loops' time */

    struct spin_lock spin; /* of the rest */
    struct bitmap *marked; /* a bit a cluster */
    struct block_copy_claim *claims;
    uint64_t done;          /* bytes */
    uint64_t flush_at;      /* of `done`: when the target is told next of the flush to come */
    struct waiter *waiters; /* for the end of a claim */
};

struct block_copy *block_copy_new(const struct block_copy_options *options)
{
    struct block_copy *copy = g_new0(struct block_copy, 1);

    assert(is_power_of_two(options->cluster_size));
    copy->source = options->source;
    copy->target = options->target;
    copy->length = options->length;
    copy->zero_flags = IO_MAY_UNMAP;
    copy->cluster_size = options->cluster_size;
    copy->shift = (unsigned)__builtin_ctz(options->cluster_size);
    copy->marked = bitmap_new((options->length + options->cluster_size - 1) >> copy->shift);
    return copy;
}

void block_copy_free(struct block_copy *copy)
{
    if (!copy)
        return;
    assert(!copy->claims);
    assert(!copy->waiters);
    assert(!copy->saving);
    co_mutex_done(&copy->steps);
    bitmap_free(copy->marked);
    g_free(copy);
}

void block_copy_set_compress(struct block_copy *copy, bool compress)
{
    copy->write_flags = (copy->write_flags & ~(unsigned)IO_COMPRESSED) | (compress ? IO_COMPRESSED : 0);
}

void block_copy_set_copy_range(struct block_copy *copy, bool use)
{
    copy->copy_range = use;
}

void block_copy_set_in_place(struct block_copy *copy)
{
    copy->explicit_zeroes = true;
    copy->write_flags = IO_UNCHANGED;
    copy->zero_flags = IO_MAY_UNMAP | IO_UNCHANGED;
}

void block_copy_set_explicit_zeroes(struct block_copy *copy)
{
    copy->explicit_zeroes = true;
}

void block_copy_set_serialising(struct block_copy *copy)
{
    copy->write_flags |= IO_SERIALISING;
    copy->zero_flags |= IO_SERIALISING;
}

void block_copy_set_unmap(struct block_copy *copy, bool unmap)
{
    copy->zero_flags = (copy->zero_flags & ~(unsigned)IO_MAY_UNMAP) | (unmap ? IO_MAY_UNMAP : 0);
}

void block_copy_set_discard_source(struct block_copy *copy, bool discard)
{
    copy->discard_source = discard;
}

void block_copy_set_flush_ahead(struct block_copy *copy)
{
    copy->flush_ahead = true;
    copy->flush_at = FLUSH_AHEAD_BYTES;
}

bool block_copy_is_near(const struct block_copy *copy)
{
    return node_is_near(copy->source->child) && node_is_near(copy->target->child) &&
           !(copy->write_flags & IO_COMPRESSED);
}

void block_copy_set_gives_way(struct block_copy *copy)
{
    copy->gives_way = true;
}

unsigned block_copy_parallel(const struct block_copy *copy, unsigned limit)
{
    return block_copy_is_near(copy) ? MIN(limit, PARALLEL_NEAR) : limit;
}

uint32_t block_copy_cluster_size(const struct block_copy *copy)
{
    return copy->cluster_size;
}

uint64_t block_copy_length(const struct block_copy *copy)
{
    return copy->length;
}

/* --- marks --- */

/* The first cluster that begins at or behind `offset`, but no more than there are. */
static uint64_t cluster_up(const struct block_copy *copy, uint64_t offset)
{
    return MIN((offset + copy->cluster_size - 1) >> copy->shift, bitmap_size(copy->marked));
}

/* Both under the lock. */
static void mark(struct block_copy *copy, uint64_t offset, uint64_t bytes)
{
    uint64_t first = MIN(offset, copy->length) >> copy->shift;
    uint64_t end = cluster_up(copy, MIN(offset + bytes, copy->length));

    if (first < end)
        bitmap_set(copy->marked, first, end - first);
}

static void unmark(struct block_copy *copy, uint64_t offset, uint64_t bytes)
{
    uint64_t first = cluster_up(copy, offset);
    uint64_t end = offset + bytes >= copy->length ? bitmap_size(copy->marked) : (offset + bytes) >> copy->shift;

    if (first < end)
        bitmap_clear(copy->marked, first, end - first);
}

void block_copy_mark(struct block_copy *copy, uint64_t offset, uint64_t bytes)
{
    spin_lock(&copy->spin);
    mark(copy, offset, bytes);
    spin_unlock(&copy->spin);
}

void block_copy_unmark(struct block_copy *copy, uint64_t offset, uint64_t bytes)
{
    spin_lock(&copy->spin);
    unmark(copy, offset, bytes);
    spin_unlock(&copy->spin);
}

uint64_t block_copy_remaining(struct block_copy *copy)
{
    uint64_t bytes;

    spin_lock(&copy->spin);
    bytes = bitmap_count(copy->marked) << copy->shift;
    if (bytes && bitmap_get(copy->marked, bitmap_size(copy->marked) - 1))
        bytes -= (bitmap_size(copy->marked) << copy->shift) - copy->length;
    for (const struct block_copy_claim *claim = copy->claims; claim; claim = claim->next)
        bytes += claim->copies ? claim->bytes : 0;
    spin_unlock(&copy->spin);
    return bytes;
}

/* The first marked run in [offset, end), in bytes; under the lock. */
static bool find_marked(const struct block_copy *copy, uint64_t offset, uint64_t end, uint64_t *ret_offset,
                        uint64_t *ret_bytes)
{
    uint64_t first, count;

    if (offset >= end)
        return false;
    if (!bitmap_next_run(copy->marked, offset >> copy->shift, cluster_up(copy, end), &first, &count))
        return false;
    *ret_offset = first << copy->shift;
    *ret_bytes = MIN(count << copy->shift, copy->length - *ret_offset);
    return true;
}

bool block_copy_is_marked(struct block_copy *copy, uint64_t offset, uint64_t bytes, uint64_t *ret_bytes)
{
    uint64_t first = offset >> copy->shift, end = cluster_up(copy, offset + bytes);
    uint64_t until;
    bool marked;

    assert(offset + bytes <= copy->length);
    spin_lock(&copy->spin);
    marked = bitmap_get(copy->marked, first);
    until = marked ? bitmap_next_clear(copy->marked, first, end) : bitmap_next_set(copy->marked, first, end);
    spin_unlock(&copy->spin);
    *ret_bytes = MIN(until << copy->shift, offset + bytes) - offset;
    return marked;
}

uint64_t block_copy_done(struct block_copy *copy)
{
    uint64_t done;

    spin_lock(&copy->spin);
    done = copy->done;
    spin_unlock(&copy->spin);
    return done;
}

bool block_copy_next(struct block_copy *copy, uint64_t from, uint64_t *ret_offset, uint64_t *ret_bytes)
{
    bool found;

    spin_lock(&copy->spin);
    found = find_marked(copy, from, copy->length, ret_offset, ret_bytes);
    spin_unlock(&copy->spin);
    return found;
}

/* --- copying what has been claimed --- */

/* Whether the target reads as zeroes there already, so that it stays as sparse as it is. */
static bool CO_FN co_target_is_zero(struct block_copy *copy, uint64_t offset, uint64_t bytes)
{
    while (bytes) {
        struct block_extent extent;

        if (co_edge_block_status(copy->target, offset, bytes, true, &extent) || !(extent.flags & BLOCK_ZERO))
            return false;
        offset += extent.bytes;
        bytes -= extent.bytes;
    }
    return true;
}

static int CO_FN co_copy_data(struct block_copy *copy, uint64_t offset, uint64_t bytes, bool *ret_is_read)
{
    struct iovec segment = {.iov_base = loop_buffer_get(bytes), .iov_len = bytes};
    struct io_vector iov = io_vector_of(&segment, 1);
    int ret;

    if (!segment.iov_base)
        return -ENOMEM;
    /* Had in one piece, room costs less than block by block as the data comes in. */
    if (copy->gives_way && bytes > SHARED_STEP_BYTES)
        (void)co_edge_reserve(copy->target, offset, bytes);
    ret = co_edge_preadv(copy->source, offset, bytes, &iov, 0);
    *ret_is_read = ret < 0;
    if (!ret) {
        ret = co_edge_pwritev(copy->target, offset, bytes, &iov, copy->write_flags);
        /* What a format cannot store compressed (the end of a disk) is stored as it is. */
        if (ret == -ENOTSUP && copy->write_flags & IO_COMPRESSED)
            ret = co_edge_pwritev(copy->target, offset, bytes, &iov, copy->write_flags & ~(unsigned)IO_COMPRESSED);
    }
    loop_buffer_put(segment.iov_base, bytes);
    return ret;
}

static int CO_FN co_copy_extent(struct block_copy *copy, uint64_t offset, const struct block_extent *extent,
                                bool *ret_is_read)
{
    int ret = -ENOTSUP;

    if (extent->flags & BLOCK_ZERO) {
        *ret_is_read = false;
        if (!copy->explicit_zeroes && co_target_is_zero(copy, offset, extent->bytes))
            return 0;
        return co_edge_pwrite_zeroes(copy->target, offset, extent->bytes, copy->zero_flags);
    }
    if (copy->copy_range && !(copy->write_flags & IO_SERIALISING) && extent->flags & BLOCK_DATA &&
        extent->flags & BLOCK_OFFSET_VALID && !(extent->flags & BLOCK_FILTERED) &&
        extent->host->driver->kind == BLOCK_DRIVER_PROTOCOL)
        ret = co_edge_copy_from(copy->target, offset, extent->bytes, extent->host, extent->host_offset, 0);
    return ret == -ENOTSUP ? co_copy_data(copy, offset, extent->bytes, ret_is_read) : ret;
}

/* Somebody's request waits for this one. */
static void note_sharing(struct block_copy *copy)
{
    __atomic_store_n(&copy->shared_ns, loop_turn_time_ns(), __ATOMIC_RELAXED);
}

static bool is_shared(const struct block_copy *copy)
{
    int64_t shared_ns = __atomic_load_n(&copy->shared_ns, __ATOMIC_RELAXED);

    return copy->gives_way && shared_ns && loop_turn_time_ns() - shared_ns < SHARED_NS;
}

/* A step of a job's that gives way. It does so for a while only: writers that never rest must not keep it for ever. */
static int CO_FN co_copy_politely(struct block_copy *copy, uint64_t offset, const struct block_extent *extent,
                                  bool *ret_is_read)
{
    int ret;

    co_mutex_lock(&copy->steps);
    for (int i = 0; i < GIVE_WAY_TIMES && __atomic_load_n(&copy->saving, __ATOMIC_RELAXED); i++)
        (void)co_sleep_ns(GIVE_WAY_NS);
    ret = co_copy_extent(copy, offset, extent, ret_is_read);
    co_mutex_unlock(&copy->steps);
    return ret;
}

static int CO_FN co_copy_claimed(struct block_copy *copy, const struct block_copy_claim *claim, bool *ret_is_read)
{
    uint64_t offset = claim->offset, bytes = claim->bytes;
    int ret = 0;

    while (bytes && !ret) {
        bool shared = is_shared(copy) && !claim->saves;
        struct block_extent extent;

        *ret_is_read = true;
        ret = co_edge_block_status(copy->source, offset, bytes, true, &extent);
        if (ret)
            break;
        if (!(extent.flags & BLOCK_ZERO))
            extent.bytes = MIN(extent.bytes, shared ? SHARED_STEP_BYTES : STEP_BYTES);
        /* A format compresses whole clusters. */
        if (copy->write_flags & IO_COMPRESSED && extent.bytes < bytes) {
            uint64_t cut = align_down(offset + extent.bytes, copy->cluster_size);

            if (cut > offset) {
                extent.bytes = cut - offset;
            } else {
                extent.bytes = MIN(bytes, copy->cluster_size);
                extent.flags = BLOCK_DATA;
            }
        }
        if (shared && !(extent.flags & BLOCK_ZERO))
            ret = co_copy_politely(copy, offset, &extent, ret_is_read);
        else
            ret = co_copy_extent(copy, offset, &extent, ret_is_read);
        offset += extent.bytes;
        bytes -= extent.bytes;
    }
    if (!ret && copy->discard_source)
        (void)co_edge_pdiscard(copy->source, claim->offset, claim->bytes);
    return ret;
}

/* --- claims --- */

/* What a claim of [offset, offset + bytes) conflicts with; under the lock. */
static bool overlaps_claim(const struct block_copy *copy, uint64_t offset, uint64_t end)
{
    for (const struct block_copy_claim *claim = copy->claims; claim; claim = claim->next) {
        if (claim->offset < end && offset < claim->offset + claim->bytes)
            return true;
    }
    return false;
}

static void add_claim(struct block_copy *copy, struct block_copy_claim *claim)
{
    claim->next = copy->claims;
    copy->claims = claim;
}

static void remove_claim(struct block_copy *copy, struct block_copy_claim *claim)
{
    struct block_copy_claim **at = &copy->claims;

    while (*at != claim)
        at = &(*at)->next;
    *at = claim->next;
    waiters_wake(&copy->waiters);
}

/* Under the lock, before and after, and not in between. */
static int CO_FN co_copy_and_release(struct block_copy *copy, struct block_copy_claim *claim, bool *ret_is_read)
{
    uint64_t first = claim->offset >> copy->shift;
    uint64_t count = (claim->bytes + copy->cluster_size - 1) >> copy->shift;
    int ret;

    bitmap_clear(copy->marked, first, count);
    add_claim(copy, claim);
    spin_unlock(&copy->spin);
    ret = co_copy_claimed(copy, claim, ret_is_read);
    spin_lock(&copy->spin);
    if (ret)
        bitmap_set(copy->marked, first, count);
    else
        copy->done += claim->bytes;
    remove_claim(copy, claim);
    return ret;
}

/* Under the lock, before and after, and not in between. One at a time does it, while the others go on copying. */
static void CO_FN co_flush_ahead(struct block_copy *copy)
{
    if (copy->done < copy->flush_at)
        return;
    copy->flush_at = UINT64_MAX;
    spin_unlock(&copy->spin);
    co_edge_flush_soon(copy->target);
    spin_lock(&copy->spin);
    copy->flush_at = copy->done + FLUSH_AHEAD_BYTES;
}

void CO_FN co_block_copy_flush_ahead(struct block_copy *copy)
{
    spin_lock(&copy->spin);
    co_flush_ahead(copy);
    spin_unlock(&copy->spin);
}

int CO_FN co_block_copy(struct block_copy *copy, uint64_t offset, uint64_t bytes, bool wait, bool *ret_is_read)
{
    uint64_t start = align_down(offset, copy->cluster_size);
    uint64_t end = MIN(align_up(offset + bytes, copy->cluster_size), copy->length);
    uint64_t at = start; /* what lies before has been copied: who marks it again does not keep us here */
    int ret = 0;

    if (wait)
        __atomic_fetch_add(&copy->saving, 1, __ATOMIC_RELAXED);
    spin_lock(&copy->spin);
    while (!ret) {
        struct block_copy_claim claim = {.copies = true, .saves = wait, .owner = co_self()};

        if (!find_marked(copy, at, end, &claim.offset, &claim.bytes)) {
            if (!wait || !overlaps_claim(copy, start, end))
                break;
            co_waiter_wait(&copy->waiters, &copy->spin);
            /* What somebody else could not copy is marked again. */
            at = start;
        } else if (overlaps_claim(copy, claim.offset, claim.offset + claim.bytes)) {
            /* Marked again while it is being copied: what was read first must not be written last. */
            co_waiter_wait(&copy->waiters, &copy->spin);
        } else {
            if (wait)
                note_sharing(copy);
            ret = co_copy_and_release(copy, &claim, ret_is_read);
            at = claim.offset + claim.bytes;
            if (copy->flush_ahead)
                co_flush_ahead(copy);
        }
    }
    spin_unlock(&copy->spin);
    if (wait)
        __atomic_fetch_sub(&copy->saving, 1, __ATOMIC_RELAXED);
    return ret;
}

int CO_FN co_block_copy_flush(struct block_copy *copy)
{
    return co_edge_flush(copy->target);
}

uint64_t CO_FN co_block_copy_zeroes(struct block_copy *copy, uint64_t offset, uint64_t bytes)
{
    struct block_extent extent;

    if (co_edge_block_status(copy->source, offset, bytes, true, &extent) || !(extent.flags & BLOCK_ZERO))
        return 0;
    return extent.bytes;
}

/* --- writers --- */

void CO_FN co_block_copy_claim(struct block_copy *copy, struct block_copy_claim *claim, uint64_t offset, uint64_t bytes)
{
    claim->offset = align_down(offset, copy->cluster_size);
    claim->bytes = align_up(offset + bytes, copy->cluster_size) - claim->offset;
    claim->copies = false;
    claim->overtaken = false;
    claim->past = false;
    claim->owner = co_self();
    note_sharing(copy);
    spin_lock(&copy->spin);
    while (overlaps_claim(copy, claim->offset, claim->offset + claim->bytes))
        co_waiter_wait(&copy->waiters, &copy->spin);
    add_claim(copy, claim);
    spin_unlock(&copy->spin);
}

void block_copy_release(struct block_copy *copy, struct block_copy_claim *claim, uint64_t offset, uint64_t bytes,
                        bool done)
{
    spin_lock(&copy->spin);
    if (!done || claim->overtaken)
        mark(copy, offset, bytes);
    else
        unmark(copy, offset, bytes);
    remove_claim(copy, claim);
    spin_unlock(&copy->spin);
}

bool block_copy_changed(struct block_copy *copy, uint64_t offset, uint64_t bytes)
{
    struct coroutine *self = co_self();
    bool own = false;

    spin_lock(&copy->spin);
    for (struct block_copy_claim *claim = copy->claims; claim && !own; claim = claim->next)
        own = claim->owner == self;
    for (struct block_copy_claim *claim = copy->claims; claim && !own; claim = claim->next)
        claim->overtaken |= !claim->copies && claim->offset < offset + bytes && offset < claim->offset + claim->bytes;
    if (!own)
        mark(copy, offset, bytes);
    spin_unlock(&copy->spin);
    return !own;
}

/* One that the running coroutine has; under the lock. */
static struct block_copy_claim *find_own_claim(const struct block_copy *copy)
{
    struct coroutine *self = co_self();
    struct block_copy_claim *claim = copy->claims;

    while (claim && claim->owner != self)
        claim = claim->next;
    return claim;
}

void CO_FN co_block_copy_before(struct block_copy *copy, uint64_t offset, uint64_t bytes)
{
    struct block_copy_claim *claim;
    bool own;

    spin_lock(&copy->spin);
    own = find_own_claim(copy);
    spin_unlock(&copy->spin);
    if (own)
        return;
    claim = g_new(struct block_copy_claim, 1);
    co_block_copy_claim(copy, claim, offset, bytes);
    claim->past = true;
}

void block_copy_after(struct block_copy *copy)
{
    struct block_copy_claim *claim;
    bool past;

    spin_lock(&copy->spin);
    claim = find_own_claim(copy);
    assert(claim);
    past = claim->past;
    if (past)
        remove_claim(copy, claim);
    spin_unlock(&copy->spin);
    if (past)
        g_free(claim);
}
