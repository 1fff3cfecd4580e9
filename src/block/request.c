/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests at a node, from a handle or an edge, within bounds: counted, serialised where that is needed, cut to what
 * the driver takes, shown to those who watch writes, and given to the driver.
 *
 * The short way is for requests that need nothing of it: a few tests, the driver, a few counters.
 */
#include "block/graph-internal.h"

#include <assert.h>
#include <errno.h>

#include "base/checked.h"
#include "base/io-vector.h"
#include "block/dirty-bitmap.h"
#include "loop/loop.h"

/* What a changing request does. */
enum change_kind { CHANGE_WRITE, CHANGE_ZERO, CHANGE_DISCARD, CHANGE_COPY };

struct change {
    enum change_kind kind;
    uint64_t offset;
    uint64_t bytes;
    const struct io_vector *iov; /* CHANGE_WRITE */
    struct node *from;           /* CHANGE_COPY */
    uint64_t from_offset;
    unsigned flags;
};

/* Whatever else may keep a request from the short way is in one word of the node. */
static inline bool has_hooks(const struct node *node)
{
    return unlikely(__atomic_load_n(&node->hooks, __ATOMIC_RELAXED));
}

static inline void count(struct node_part *part, enum io_kind kind, uint64_t bytes, int result)
{
    struct io_counters *counters = &part->statistics.kinds[kind];

    if (likely(!result)) {
        counter_add(&counters->operations, 1);
        counter_add(&counters->bytes, bytes);
    } else {
        counter_add(&counters->failed, 1);
    }
}

/* --- reads --- */

/* Reads into nowhere, for a driver that cannot just load its caches. */
static int CO_FN co_prefetch(struct node *node, uint64_t offset, uint64_t bytes)
{
    enum { STEP_BYTES = 1024 * 1024 };
    uint64_t size = MIN(bytes, STEP_BYTES);
    void *buffer = loop_buffer_get(size);
    int ret = buffer ? 0 : -ENOMEM;

    while (bytes && !ret) {
        uint64_t now = MIN(bytes, size);
        struct iovec segment = {.iov_base = buffer, .iov_len = now};
        struct io_vector iov = {.segments = &segment, .count = 1, .size = now};

        ret = co_pieces_read(node, offset, now, &iov, 0);
        offset += now;
        bytes -= now;
    }
    if (buffer)
        loop_buffer_put(buffer, size);
    return ret;
}

static int CO_FN co_read(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                         unsigned flags)
{
    unsigned driver_flags = flags & node->read_flags;

    if (flags & IO_PREFETCH) {
        if (driver_flags & IO_PREFETCH && is_aligned(offset | bytes, node->limits.request_alignment))
            return node->driver->co_preadv(node, offset, bytes, iov, driver_flags);
        return co_prefetch(node, offset, bytes);
    }
    if (node_takes(node, offset, bytes, iov))
        return node->driver->co_preadv(node, offset, bytes, iov, driver_flags);
    return co_pieces_read(node, offset, bytes, iov, driver_flags & ~(unsigned)IO_REGISTERED);
}

static int CO_FN co_read_tracked(struct node *node, struct node_part *part, uint64_t offset, uint64_t bytes,
                                 const struct io_vector *iov, unsigned flags)
{
    struct tracked tracked = {.offset = offset, .bytes = bytes};
    int ret;

    if (node->tracking != NODE_TRACKS_ALL)
        return co_read(node, offset, bytes, iov, flags);
    co_track_begin(part, &tracked);
    ret = co_read(node, offset, bytes, iov, flags);
    track_end(&tracked);
    return ret;
}

static int CO_FN co_read_serialised(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                    unsigned flags)
{
    struct serialiser serialiser = {.offset = offset, .bytes = bytes, .reads_too = true};
    int ret = co_serialise_begin(node, &serialiser, flags & IO_NO_WAIT);

    if (ret)
        return ret;
    ret = co_read(node, offset, bytes, iov, flags);
    serialise_end(node, &serialiser);
    return ret;
}

int CO_FN co_node_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                         unsigned flags)
{
    struct node_part *part = node_part(node);
    int ret;

    if (likely(node->driver->passthrough))
        ret = node->driver->co_preadv(node, offset, bytes, iov, flags);
    else if (unlikely(!bytes))
        ret = 0;
    else if (unlikely(flags & IO_SERIALISING))
        ret = co_read_serialised(node, offset, bytes, iov, flags);
    else if (unlikely(flags | node->tracking))
        ret = co_read_tracked(node, part, offset, bytes, iov, flags);
    else
        ret = co_read(node, offset, bytes, iov, flags);
    count(part, IO_KIND_READ, bytes, ret);
    return ret;
}

/* --- changes --- */

static int CO_FN co_write(struct node *node, const struct change *change)
{
    unsigned flags = change->flags & node->write_flags;

    if (node->driver->passthrough)
        return node->driver->co_pwritev(node, change->offset, change->bytes, change->iov, change->flags);
    if (unlikely(change->flags & IO_COMPRESSED & ~node->write_flags))
        return -ENOTSUP;
    if (node_takes(node, change->offset, change->bytes, change->iov))
        return node->driver->co_pwritev(node, change->offset, change->bytes, change->iov, flags);
    return co_pieces_write(node, change->offset, change->bytes, change->iov, flags & ~(unsigned)IO_REGISTERED);
}

/* The piece of a zero write that begins at `offset`: up to the driver's limits, its ends at its alignment. */
static uint64_t zero_piece_bytes(uint64_t offset, uint64_t bytes, uint64_t unit, uint64_t limit)
{
    uint64_t skew = offset % unit;

    if (skew)
        return MIN(bytes, unit - skew);
    bytes = MIN(bytes, limit);
    return bytes > unit ? bytes - bytes % unit : bytes;
}

/* Units are any number of whole blocks. */
static uint64_t limit_or_none(uint64_t limit, uint64_t unit)
{
    uint64_t none = INT64_MAX - INT64_MAX % unit;

    return limit ? MAX(limit - limit % unit, unit) : none;
}

/* Zeroes by the driver where it can, else from memory. */
static int CO_FN co_zero_piece(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    int ret = -ENOTSUP;

    assert(!(flags & IO_NO_FALLBACK) || node->zero_flags & IO_NO_FALLBACK || !node->driver->co_pwrite_zeroes);
    if (node->driver->co_pwrite_zeroes && is_aligned(offset | bytes, node->limits.request_alignment))
        ret = node->driver->co_pwrite_zeroes(node, offset, bytes, flags & node->zero_flags);
    if (ret == -ENOTSUP && !(flags & IO_NO_FALLBACK))
        ret = co_pieces_write(node, offset, bytes, NULL, flags & node->write_flags);
    return ret;
}

static int CO_FN co_zero(struct node *node, const struct change *change)
{
    uint64_t unit = MAX(node->limits.request_alignment, node->limits.zeroes_alignment);
    uint64_t limit = limit_or_none(node->limits.zeroes_max, unit);
    uint64_t offset = change->offset, bytes = change->bytes;
    unsigned flags = change->flags;
    int ret = 0;

    if (!node->discard_unmap)
        flags &= ~(unsigned)IO_MAY_UNMAP;
    if (node->driver->passthrough)
        return node->driver->co_pwrite_zeroes(node, offset, bytes, flags);
    if (flags & IO_NO_FALLBACK && !(node->zero_flags & IO_NO_FALLBACK))
        return -ENOTSUP;
    while (bytes && !ret) {
        uint64_t now = zero_piece_bytes(offset, bytes, unit, limit);

        ret = co_zero_piece(node, offset, now, flags);
        offset += now;
        bytes -= now;
    }
    return ret;
}

/* Only whole units of the driver: discarding is a hint, and a part of one may be dropped. */
static int CO_FN co_discard(struct node *node, const struct change *change)
{
    uint64_t unit = MAX(node->limits.request_alignment, node->limits.discard_alignment);
    uint64_t limit = limit_or_none(node->limits.discard_max, unit);
    uint64_t at, end;
    int ret = 0;

    if (!node->discard_unmap || !node->driver->co_pdiscard)
        return 0;
    if (node->driver->passthrough)
        return node->driver->co_pdiscard(node, change->offset, change->bytes);
    end = change->offset + change->bytes;
    at = change->offset % unit ? change->offset + unit - change->offset % unit : change->offset;
    end -= end % unit;
    while (at < end && !ret) {
        uint64_t now = MIN(end - at, limit);

        ret = node->driver->co_pdiscard(node, at, now);
        at += now;
    }
    return ret == -ENOTSUP ? 0 : ret;
}

/* Copies by the driver; what it could not take at once is left to the caller. */
static int CO_FN co_copy(struct node *node, const struct change *change)
{
    const struct block_driver *driver = node->driver;
    uint64_t unit = node->limits.request_alignment;
    unsigned flags = change->flags;

    if (!driver->co_copy_from)
        return -ENOTSUP;
    if (!driver->passthrough) {
        if (driver->kind == BLOCK_DRIVER_PROTOCOL && change->from->driver->co_copy_from != driver->co_copy_from)
            return -ENOTSUP;
        if (!is_aligned(change->offset | change->bytes, unit) || change->bytes > node->transfer_max)
            return -ENOTSUP;
        flags &= node->write_flags;
    }
    return driver->co_copy_from(node, change->offset, change->bytes, change->from, change->from_offset, flags);
}

static int CO_FN co_change_by_kind(struct node *node, const struct change *change)
{
    switch (change->kind) {
    case CHANGE_WRITE:
        return co_write(node, change);
    case CHANGE_ZERO:
        return co_zero(node, change);
    case CHANGE_DISCARD:
        return co_discard(node, change);
    case CHANGE_COPY:
        return co_copy(node, change);
    }
    assert(!"kind");
    return -EINVAL;
}

/* What follows from a change that has ended, before anybody hears of it. */
static inline void note_change(struct node *node, struct node_part *part, const struct change *change, int result)
{
    uint64_t end = change->offset + change->bytes;

    counter_add(&part->changes, 1);
    if (likely(!result && change->kind != CHANGE_DISCARD)) {
        counter_raise(&part->statistics.highest, end);
        if (unlikely(end > node_length(node)))
            node_raise_length(node, end);
    }
}

static bool is_write(const struct change *change)
{
    return change->kind == CHANGE_WRITE || change->kind == CHANGE_ZERO;
}

/* What has to be read first is announced before the write itself. */
static void CO_FN co_announce(struct node *node, const struct change *change)
{
    if (!is_write(change) || !is_aligned(change->offset | change->bytes, node->limits.request_alignment))
        return;
    co_node_event(node, change->kind == CHANGE_ZERO ? BLKDEBUG_EVENT_PWRITEV_ZERO : BLKDEBUG_EVENT_PWRITEV);
}

/* The change, made durable where that is asked for and the driver doesn't do it by itself. */
static int CO_FN co_change_durably(struct node *node, struct node_part *part, const struct change *change)
{
    unsigned own = change->kind == CHANGE_ZERO ? node->zero_flags & node->write_flags : node->write_flags;
    int ret;

    if (unlikely(node->driver->debug != NULL))
        co_announce(node, change);
    ret = co_change_by_kind(node, change);
    note_change(node, part, change, ret);
    if (unlikely(node->driver->debug != NULL) && is_write(change))
        co_node_event(node, BLKDEBUG_EVENT_PWRITEV_DONE);
    if (!ret && change->flags & IO_FUA & ~own && !node->driver->passthrough)
        ret = co_node_flush(node);
    return ret;
}

/* Whether the blocks at the ends of the change are to be read first. */
static bool needs_padding(const struct node *node, const struct change *change)
{
    return change->kind != CHANGE_DISCARD && change->kind != CHANGE_COPY &&
           !is_aligned(change->offset | change->bytes, node->limits.request_alignment);
}

static int CO_FN co_change_serialised(struct node *node, struct node_part *part, const struct change *change)
{
    uint64_t alignment = node->limits.request_alignment;
    uint64_t start = align_down(change->offset, alignment);
    struct serialiser serialiser = {
        .offset = start,
        .bytes = align_up(change->offset + change->bytes, alignment) - start,
        .reads_too = change->flags & IO_SERIALISING,
    };
    bool no_wait = serialiser.reads_too && change->flags & IO_NO_WAIT;
    int ret = co_serialise_begin(node, &serialiser, no_wait);

    if (ret)
        return ret;
    ret = co_change_durably(node, part, change);
    serialise_end(node, &serialiser);
    return ret;
}

static int CO_FN co_change_tracked(struct node *node, struct node_part *part, const struct change *change)
{
    struct tracked tracked = {.offset = change->offset, .bytes = change->bytes, .write = true};
    int ret;

    if (node->driver->passthrough || node->tracking == NODE_TRACKS_NOTHING)
        return co_change_durably(node, part, change);
    if (change->flags & IO_SERIALISING || needs_padding(node, change))
        return co_change_serialised(node, part, change);
    co_track_begin(part, &tracked);
    ret = co_change_durably(node, part, change);
    track_end(&tracked);
    return ret;
}

/* --- changes with somebody watching --- */

/* Asks those who watch; one that refuses ends it, and those before it hear of that. */
static int CO_FN co_ask_hooks(struct node *node, const struct change *change)
{
    for (unsigned i = 0; i < node->write_hooks->len; i++) {
        struct write_hook *hook = g_ptr_array_index(node->write_hooks, i);
        int ret = hook->ops->co_before ? hook->ops->co_before(hook, change->offset, change->bytes) : 0;

        if (ret) {
            while (i-- > 0) {
                hook = g_ptr_array_index(node->write_hooks, i);
                if (hook->ops->after)
                    hook->ops->after(hook, change->offset, change->bytes, ret);
            }
            return ret;
        }
    }
    return 0;
}

static void tell_hooks(struct node *node, const struct change *change, int result)
{
    for (unsigned i = 0; i < node->write_hooks->len; i++) {
        struct write_hook *hook = g_ptr_array_index(node->write_hooks, i);

        if (hook->ops->after)
            hook->ops->after(hook, change->offset, change->bytes, result);
    }
}

/* Turns a write of zeroes into a zero write. */
static void detect_zeroes(const struct node *node, struct change *change)
{
    if (change->kind != CHANGE_WRITE || change->flags & IO_COMPRESSED)
        return;
    if (!io_vector_is_zero(change->iov, 0, change->bytes))
        return;
    change->kind = CHANGE_ZERO;
    change->iov = NULL;
    if (node->detect_zeroes == BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP)
        change->flags |= IO_MAY_UNMAP;
}

static int CO_FN co_change_watched(struct node *node, struct node_part *part, struct change *change)
{
    uint32_t hooks = __atomic_load_n(&node->hooks, __ATOMIC_RELAXED);
    int ret;

    if (hooks & NODE_HOOK_FENCED)
        return -EIO;
    if (hooks & NODE_HOOK_DETECT_ZEROES)
        detect_zeroes(node, change);
    if (hooks & NODE_HOOK_THRESHOLD && change->kind != CHANGE_DISCARD)
        write_threshold_check(node, change->offset + change->bytes);
    ret = co_ask_hooks(node, change);
    if (ret)
        return ret;
    ret = co_change_tracked(node, part, change);
    tell_hooks(node, change, ret);
    return ret;
}

/*
 * Bitmaps come without a drain, so this looks at the end of a change and not at its begin: whoever reads the data
 * before it was changed finds it marked later. A failed change may have been made in part; a discard that was left out
 * changes nothing, and what is copied up from a backing image changes nothing that is seen.
 */
static inline void record_change(struct node *node, const struct change *change)
{
    if (likely(!(__atomic_load_n(&node->hooks, __ATOMIC_ACQUIRE) & NODE_HOOK_DIRTY_BITMAPS)))
        return;
    if (change->flags & IO_UNCHANGED)
        return;
    if (change->kind != CHANGE_DISCARD || node->discard_unmap)
        dirty_bitmaps_record(node, change->offset, change->bytes);
}

static int CO_FN co_change(struct node *node, struct node_part *part, struct change *change)
{
    int ret;

    assert(!node->read_only);
    if (unlikely(!change->bytes))
        return change->flags & IO_FUA ? co_node_flush(node) : 0;
    if (has_hooks(node))
        ret = co_change_watched(node, part, change);
    else
        ret = co_change_tracked(node, part, change);
    record_change(node, change);
    return ret;
}

int CO_FN co_node_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                          unsigned flags)
{
    struct node_part *part = node_part(node);
    struct change change = {.kind = CHANGE_WRITE, .offset = offset, .bytes = bytes, .iov = iov, .flags = flags};
    int ret = co_change(node, part, &change);

    count(part, IO_KIND_WRITE, bytes, ret);
    return ret;
}

int CO_FN co_node_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct node_part *part = node_part(node);
    struct change change = {.kind = CHANGE_ZERO, .offset = offset, .bytes = bytes, .flags = flags};
    int ret = co_change(node, part, &change);

    count(part, IO_KIND_WRITE, bytes, ret);
    return ret;
}

int CO_FN co_node_pdiscard(struct node *node, uint64_t offset, uint64_t bytes)
{
    struct node_part *part = node_part(node);
    struct change change = {.kind = CHANGE_DISCARD, .offset = offset, .bytes = bytes};
    int ret = co_change(node, part, &change);

    count(part, IO_KIND_UNMAP, bytes, ret);
    return ret;
}

int CO_FN co_node_copy_from(struct node *node, uint64_t offset, uint64_t bytes, struct node *from, uint64_t from_offset,
                            unsigned flags)
{
    struct node_part *part = node_part(node);
    struct change change = {.kind = CHANGE_COPY,
                            .offset = offset,
                            .bytes = bytes,
                            .from = from,
                            .from_offset = from_offset,
                            .flags = flags};
    int ret = co_change(node, part, &change);

    /* What cannot be done this way is done, and counted, in another. */
    if (ret != -ENOTSUP)
        count(part, IO_KIND_WRITE, bytes, ret);
    return ret;
}

/* --- through edges --- */

/* What lies beyond the child's end reads as zeroes. */
static int CO_FN co_read_beyond(struct node *child, uint64_t length, uint64_t offset, uint64_t bytes,
                                const struct io_vector *iov, unsigned flags)
{
    uint64_t inside = offset < length ? MIN(bytes, length - offset) : 0;
    size_t size = iov ? io_vector_slice_count(iov, 0, inside) * sizeof(struct iovec) : 0;
    int ret = 0;

    if (inside && iov) {
        struct iovec *segments = loop_alloc(size);
        struct io_vector slice = io_vector_slice(iov, 0, inside, segments);

        ret = co_node_preadv(child, offset, inside, &slice, flags);
        loop_release(segments, size);
    } else if (inside) {
        ret = co_node_preadv(child, offset, inside, NULL, flags);
    }
    if (!ret && iov)
        io_vector_fill(iov, inside, 0, bytes - inside);
    return ret;
}

int CO_FN co_edge_preadv(struct edge *edge, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                         unsigned flags)
{
    struct node *child = edge->child;
    uint64_t length = node_length(child);

    if (likely(range_fits(offset, bytes, length)))
        return co_node_preadv(child, offset, bytes, iov, flags);
    return co_read_beyond(child, length, offset, bytes, iov, flags);
}

/* Whether the parent may change the range: what it asks has been checked against its own, so only growth may not be. */
static bool may_change(const struct edge *edge, uint64_t offset, uint64_t bytes, unsigned flags)
{
    uint32_t perm = __atomic_load_n(&edge->perm, __ATOMIC_RELAXED);

    assert(perm & PERM_WRITE || (flags & IO_UNCHANGED && perm & PERM_WRITE_UNCHANGED));
    return likely(range_fits(offset, bytes, node_length(edge->child))) ||
           (perm & PERM_RESIZE && range_fits(offset, bytes, NODE_LENGTH_MAX));
}

int CO_FN co_edge_pwritev(struct edge *edge, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                          unsigned flags)
{
    return may_change(edge, offset, bytes, flags) ? co_node_pwritev(edge->child, offset, bytes, iov, flags) : -EIO;
}

int CO_FN co_edge_pwrite_zeroes(struct edge *edge, uint64_t offset, uint64_t bytes, unsigned flags)
{
    return may_change(edge, offset, bytes, flags) ? co_node_pwrite_zeroes(edge->child, offset, bytes, flags) : -EIO;
}

int CO_FN co_edge_pdiscard(struct edge *edge, uint64_t offset, uint64_t bytes)
{
    return may_change(edge, offset, bytes, 0) ? co_node_pdiscard(edge->child, offset, bytes) : -EIO;
}

/* What of the range is no padding. */
static uint64_t without_padding(const struct edge *edge, uint64_t offset, uint64_t bytes)
{
    uint64_t length = node_length(edge->child);

    if (likely(range_fits(offset, bytes, length)) || __atomic_load_n(&edge->perm, __ATOMIC_RELAXED) & PERM_RESIZE)
        return bytes;
    return offset < length ? length - offset : 0;
}

int CO_FN co_edge_pwritev_padded(struct edge *edge, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                 unsigned flags)
{
    uint64_t inside = without_padding(edge, offset, bytes);
    size_t size = io_vector_slice_count(iov, 0, inside) * sizeof(struct iovec);
    struct iovec *segments;
    struct io_vector part;
    int ret;

    if (likely(inside == bytes))
        return co_edge_pwritev(edge, offset, bytes, iov, flags);
    segments = loop_alloc(size);
    part = io_vector_slice(iov, 0, inside, segments);
    ret = co_edge_pwritev(edge, offset, inside, &part, flags);
    loop_release(segments, size);
    return ret;
}

int CO_FN co_edge_pwrite_zeroes_padded(struct edge *edge, uint64_t offset, uint64_t bytes, unsigned flags)
{
    return co_edge_pwrite_zeroes(edge, offset, without_padding(edge, offset, bytes), flags);
}

int CO_FN co_edge_copy_from(struct edge *edge, uint64_t offset, uint64_t bytes, struct node *from, uint64_t from_offset,
                            unsigned flags)
{
    if (!may_change(edge, offset, bytes, flags))
        return -EIO;
    return co_node_copy_from(edge->child, offset, bytes, from, from_offset, flags);
}

int CO_FN co_node_reserve(struct node *node, uint64_t offset, uint64_t bytes)
{
    return node->driver->co_reserve ? node->driver->co_reserve(node, offset, bytes) : -ENOTSUP;
}

int CO_FN co_edge_reserve(struct edge *edge, uint64_t offset, uint64_t bytes)
{
    return may_change(edge, offset, bytes, IO_UNCHANGED) ? co_node_reserve(edge->child, offset, bytes) : -EIO;
}

int CO_FN co_edge_pread(struct edge *edge, uint64_t offset, uint64_t bytes, void *to, unsigned flags)
{
    struct iovec segment = {.iov_base = to, .iov_len = bytes};
    struct io_vector iov = {.segments = &segment, .count = 1, .size = bytes};

    return co_edge_preadv(edge, offset, bytes, &iov, flags);
}

int CO_FN co_edge_pwrite(struct edge *edge, uint64_t offset, uint64_t bytes, const void *from, unsigned flags)
{
    struct iovec segment = {.iov_base = (void *)(uintptr_t)from, .iov_len = bytes};
    struct io_vector iov = {.segments = &segment, .count = 1, .size = bytes};

    return co_edge_pwritev(edge, offset, bytes, &iov, flags);
}

void CO_FN co_edge_event(struct edge *edge, enum blkdebug_event event)
{
    co_node_event(edge->child, event);
}

int CO_FN co_edge_flush(struct edge *edge)
{
    return co_node_flush(edge->child);
}

void CO_FN co_edge_flush_soon(struct edge *edge)
{
    co_node_flush_soon(edge->child);
}
