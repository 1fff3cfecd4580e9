/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Handles: where requests come in. A request takes its loop's part of the gate (drain.c), is checked against the node's
 * bounds and the handle's permissions, counted, and given to the node.
 */
#include "block/graph-internal.h"
#include "block/latency.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/trace.h"
#include "gen/events.h"
#include "loop/loop.h"

/* --- making and freeing; main loop --- */

static void part_init(struct per_loop *per_loop, void *part)
{
    ((struct handle_part *)part)->closed = container_of(per_loop, struct handle, parts)->closed;
}

static void handle_done(struct handle *handle)
{
    edge_done(&handle->root);
    per_loop_done(&handle->parts);
    g_free(handle->name);
    g_free(handle);
}

struct handle *co_handle_new(struct node *node, const struct handle_options *options, struct error **err)
{
    struct graph *graph = node->graph;
    struct handle *handle = g_new0(struct handle, 1);
    struct transaction *transaction;
    bool ok;

    assert(loop_current() == graph->loop);
    if (node->inactive && options->perm && !options->bears_inactive) {
        error_set(err, "Node '%s' is inactive", node->name);
        g_free(handle);
        return NULL;
    }
    edge_init(&handle->root, "root", EDGE_FILTERED | EDGE_PRIMARY, NULL, handle);
    per_loop_init(&handle->parts, sizeof(struct handle_part), part_init);
    handle->graph = graph;
    handle->writethrough = options->writethrough;
    handle->follows_length = options->follows_length;
    handle->stays = options->stays;
    handle->bears_inactive = options->bears_inactive;
    handle->occupies = options->occupies;
    handle->reports_errors = options->reports_errors;
    handle->name = g_strdup(options->name);
    handle->ops = options->ops;
    handle->opaque = options->opaque;

    co_graph_lock(graph);
    edge_attach(&handle->root, node);
    transaction = transaction_new();
    edge_set_permissions(transaction, &handle->root, options->perm, options->shared);
    ok = co_transaction_end(transaction, co_permissions_update(transaction, &node, 1, err));
    if (ok) {
        __atomic_store_n(&handle->perm, options->perm, __ATOMIC_RELAXED);
        g_ptr_array_add(graph->handles, handle);
    } else {
        edge_detach(&handle->root);
    }
    graph_unlock(graph);
    if (!ok) {
        handle_done(handle);
        return NULL;
    }
    return handle;
}

bool CO_FN co_handle_set_permissions(struct handle *handle, uint32_t perm, uint32_t shared, struct error **err)
{
    struct transaction *transaction;
    bool ok;

    /* A request that was allowed at the handle finds the edges below as they were. */
    co_handle_close_gate(handle);
    co_graph_lock(handle->graph);
    transaction = transaction_new();
    edge_set_permissions(transaction, &handle->root, perm, shared);
    ok = co_transaction_end(transaction, co_permissions_update(transaction, &handle->root.child, 1, err));
    if (ok)
        __atomic_store_n(&handle->perm, perm, __ATOMIC_RELAXED);
    graph_unlock(handle->graph);
    handle_open_gate(handle);
    return ok;
}

void CO_FN co_handle_free(struct handle *handle)
{
    struct handle_part *part;
    struct node *node;

    if (!handle)
        return;
    assert(loop_current() == handle->graph->loop);
    co_handle_drain(handle);
    co_handle_close_gate(handle);
    co_graph_lock(handle->graph);
    node = handle->root.child;
    for (unsigned i = 0; (part = per_loop_next(&handle->parts, &i));) {
        assert(!part->waiters);
        io_statistics_add(&node->past, &part->statistics);
    }
    g_ptr_array_remove(handle->graph->handles, handle);
    edge_detach(&handle->root);
    co_permissions_relax(&node, 1);
    graph_unlock(handle->graph);
    handle_done(handle);
    co_node_release(node);
}

struct edge *handle_edge(struct handle *handle)
{
    return &handle->root;
}

struct node *handle_node(const struct handle *handle)
{
    return handle->root.child;
}

const char *handle_name(const struct handle *handle)
{
    return handle->name;
}

uint64_t handle_length(const struct handle *handle)
{
    return node_length(handle->root.child);
}

bool handle_is_read_only(const struct handle *handle)
{
    return handle->root.child->read_only;
}

const struct node_limits *handle_limits(const struct handle *handle)
{
    return &handle->root.child->limits;
}

void handle_get_statistics(const struct handle *handle, struct io_statistics *ret)
{
    struct handle_part *part;

    *ret = (struct io_statistics){0};
    for (unsigned i = 0; (part = per_loop_next(&handle->parts, &i));)
        io_statistics_add(ret, &part->statistics);
}

/* --- a request's way in and out; any loop --- */

static struct handle_part *CO_FN co_enter(struct handle *handle)
{
    struct handle_part *part = per_loop_get(&handle->parts);

    spin_lock(&part->spin);
    while (unlikely(part->closed))
        co_waiter_wait(&part->waiters, &part->spin);
    part->in_flight++;
    spin_unlock(&part->spin);
    return part;
}

/* The same, but NULL where requests wait. */
static struct handle_part *try_enter(struct handle *handle)
{
    struct handle_part *part = per_loop_get(&handle->parts);
    bool closed;

    spin_lock(&part->spin);
    closed = part->closed;
    if (!closed)
        part->in_flight++;
    spin_unlock(&part->spin);
    return closed ? NULL : part;
}

static void leave(struct handle *handle, struct handle_part *part)
{
    /* Its counters are this loop's alone, so a request ends where it began. */
    assert(part == per_loop_peek(&handle->parts, loop_index(loop_current())));
    spin_lock(&part->spin);
    assert(part->in_flight);
    if (--part->in_flight == 0 && unlikely(part->drains))
        waiters_wake(&part->drains);
    spin_unlock(&part->spin);
}

/* Tells of a request that failed; not of one that was only tried. */
static void report_error(const struct handle *handle, enum io_kind kind, int result)
{
    g_autofree char *none = g_strdup("");
    g_autofree char *reason = g_strdup(g_strerror(-result));
    struct block_io_error_event data = {
        .device = none,
        .qom_path = none,
        .node_name = handle->root.child->name,
        .operation = kind == IO_KIND_READ ? IO_OPERATION_TYPE_READ : IO_OPERATION_TYPE_WRITE,
        .action = BLOCK_ERROR_ACTION_REPORT,
        .has_nospace = true,
        .nospace = result == -ENOSPC,
        .reason = reason,
    };

    if (handle->graph->events && result != -ENOTSUP && result != -EAGAIN && result != -ECANCELED)
        event_send_block_io_error(handle->graph->events, &data);
}

/* The filters that jobs and backups put above a node stand for it. */
static void measure(const struct handle *handle, enum io_kind kind, int64_t start_ns, int64_t now_ns)
{
    const struct node *node = handle->root.child;

    while (!node->latency && node->driver->nameless && node->primary)
        node = node->primary->child;
    if (node->latency)
        latency_record(node->latency, kind, start_ns, now_ns);
}

/* Counts a request that began at `start_ns`, and lets it out. */
static int finish(struct handle *handle, struct handle_part *part, enum io_kind kind, uint64_t bytes, int64_t start_ns,
                  int result)
{
    struct io_counters *counters = &part->statistics.kinds[kind];
    int64_t now_ns = loop_turn_time_ns();

    TRACE(block_request, "%s kind %u bytes %" PRIu64 " result %d after %" PRId64 " ns", handle->root.child->name, kind,
          bytes, result, now_ns - start_ns);
    counter_set(&part->statistics.last_ns, (uint64_t)now_ns);
    if (likely(!result)) {
        counter_add(&counters->operations, 1);
        counter_add(&counters->bytes, bytes);
        counter_add(&counters->time_ns, (uint64_t)(now_ns - start_ns));
        if (unlikely(__atomic_load_n(&handle->graph->latencies, __ATOMIC_RELAXED)))
            measure(handle, kind, start_ns, now_ns);
    } else {
        counter_add(&counters->failed, 1);
        if (handle->reports_errors)
            report_error(handle, kind, result);
    }
    leave(handle, part);
    return result;
}

/* Refuses a request for what it asks. */
static int refuse(struct handle *handle, struct handle_part *part, enum io_kind kind, int result)
{
    counter_add(&part->statistics.kinds[kind].invalid, 1);
    leave(handle, part);
    return result;
}

/* 0, or why a change of the range is refused. */
static int check_change(const struct handle *handle, uint64_t offset, uint64_t bytes, unsigned flags)
{
    uint32_t perm = __atomic_load_n(&handle->perm, __ATOMIC_RELAXED);

    if (unlikely(!(perm & PERM_WRITE) && !(flags & IO_UNCHANGED && perm & PERM_WRITE_UNCHANGED)))
        return -EPERM;
    if (unlikely(!range_fits(offset, bytes, node_length(handle->root.child)))) {
        if (!(perm & PERM_RESIZE) || !range_fits(offset, bytes, NODE_LENGTH_MAX))
            return -ENOSPC;
    }
    return 0;
}

int CO_FN co_handle_preadv(struct handle *handle, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                           unsigned flags)
{
    struct handle_part *part = co_enter(handle);
    int64_t start_ns;
    int ret;

    assert(iov ? iov->size == bytes : (flags & IO_PREFETCH) != 0);
    if (unlikely(!range_fits(offset, bytes, node_length(handle->root.child))))
        return refuse(handle, part, IO_KIND_READ, -EIO);
    start_ns = loop_turn_time_ns();
    ret = co_node_preadv(handle->root.child, offset, bytes, iov, flags);
    return finish(handle, part, IO_KIND_READ, bytes, start_ns, ret);
}

int CO_FN co_handle_pwritev(struct handle *handle, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                            unsigned flags)
{
    struct handle_part *part = co_enter(handle);
    int64_t start_ns;
    int ret;

    assert(iov->size == bytes);
    ret = check_change(handle, offset, bytes, flags);
    if (unlikely(ret))
        return refuse(handle, part, IO_KIND_WRITE, ret);
    if (handle->writethrough)
        flags |= IO_FUA;
    start_ns = loop_turn_time_ns();
    ret = co_node_pwritev(handle->root.child, offset, bytes, iov, flags);
    return finish(handle, part, IO_KIND_WRITE, bytes, start_ns, ret);
}

int CO_FN co_handle_pread(struct handle *handle, uint64_t offset, uint64_t bytes, void *to, unsigned flags)
{
    struct iovec segment = {.iov_base = to, .iov_len = bytes};
    struct io_vector iov = {.segments = &segment, .count = 1, .size = bytes};

    return co_handle_preadv(handle, offset, bytes, &iov, flags);
}

int CO_FN co_handle_pwrite(struct handle *handle, uint64_t offset, uint64_t bytes, const void *from, unsigned flags)
{
    struct iovec segment = {.iov_base = (void *)(uintptr_t)from, .iov_len = bytes};
    struct io_vector iov = {.segments = &segment, .count = 1, .size = bytes};

    return co_handle_pwritev(handle, offset, bytes, &iov, flags);
}

int CO_FN co_handle_pwrite_zeroes(struct handle *handle, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct handle_part *part = co_enter(handle);
    int ret = check_change(handle, offset, bytes, flags);
    int64_t start_ns;

    if (unlikely(ret))
        return refuse(handle, part, IO_KIND_WRITE, ret);
    if (handle->writethrough)
        flags |= IO_FUA;
    start_ns = loop_turn_time_ns();
    ret = co_node_pwrite_zeroes(handle->root.child, offset, bytes, flags);
    return finish(handle, part, IO_KIND_WRITE, bytes, start_ns, ret);
}

int CO_FN co_handle_pdiscard(struct handle *handle, uint64_t offset, uint64_t bytes)
{
    struct handle_part *part = co_enter(handle);
    int64_t start_ns;
    int ret = check_change(handle, offset, bytes, 0);

    if (!ret && !range_fits(offset, bytes, node_length(handle->root.child)))
        ret = -EIO;
    if (unlikely(ret))
        return refuse(handle, part, IO_KIND_UNMAP, ret);
    start_ns = loop_turn_time_ns();
    ret = co_node_pdiscard(handle->root.child, offset, bytes);
    return finish(handle, part, IO_KIND_UNMAP, bytes, start_ns, ret);
}

int CO_FN co_handle_flush(struct handle *handle)
{
    struct handle_part *part = co_enter(handle);
    int64_t start_ns = loop_turn_time_ns();

    return finish(handle, part, IO_KIND_FLUSH, 0, start_ns, co_node_flush(handle->root.child));
}

int CO_FN co_handle_truncate(struct handle *handle, uint64_t length, struct error **err)
{
    struct truncate_request request = {.length = length, .exact = true};

    return co_handle_truncate_as(handle, &request, err);
}

int CO_FN co_handle_truncate_as(struct handle *handle, const struct truncate_request *request, struct error **err)
{
    struct handle_part *part;
    int ret;

    if (!(__atomic_load_n(&handle->perm, __ATOMIC_RELAXED) & PERM_RESIZE)) {
        error_set_errno(err, EPERM, "Cannot resize node '%s'", handle->root.child->name);
        return -EPERM;
    }
    part = co_enter(handle);
    ret = co_node_truncate(handle->root.child, request, err);
    leave(handle, part);
    return ret;
}

int CO_FN co_handle_call(struct handle *handle, int (*co_call)(struct node *node, void *opaque), void *opaque)
{
    struct handle_part *part = co_enter(handle);
    int ret = co_call(handle->root.child, opaque);

    leave(handle, part);
    return ret;
}

int CO_FN co_handle_reserve(struct handle *handle, uint64_t offset, uint64_t bytes)
{
    struct handle_part *part = co_enter(handle);
    int ret = check_change(handle, offset, bytes, 0);

    if (!ret)
        ret = co_node_reserve(handle->root.child, offset, bytes);
    leave(handle, part);
    return ret;
}

/* --- between two handles: see copy.c --- */

/* Into both. Nobody waits at one gate while inside the other: a drain of both would wait for that for ever. */
static void CO_FN co_enter_both(struct handle *a, struct handle *b, struct handle_part **ret_a,
                                struct handle_part **ret_b)
{
    for (;;) {
        *ret_a = co_enter(a);
        *ret_b = try_enter(b);
        if (*ret_b)
            return;
        leave(a, *ret_a);
        leave(b, co_enter(b));
    }
}

int CO_FN co_handle_copy_range(struct handle *from, uint64_t from_offset, struct handle *to, uint64_t to_offset,
                               uint64_t bytes, unsigned flags)
{
    struct handle_part *from_part;
    struct handle_part *to_part;
    int64_t start_ns;
    int ret;

    co_enter_both(from, to, &from_part, &to_part);
    ret = range_fits(from_offset, bytes, node_length(from->root.child)) ? check_change(to, to_offset, bytes, flags)
                                                                        : -EIO;
    if (unlikely(ret)) {
        leave(from, from_part);
        return refuse(to, to_part, IO_KIND_WRITE, ret);
    }
    if (to->writethrough)
        flags |= IO_FUA;
    start_ns = loop_turn_time_ns();
    ret = co_node_copy_range(from->root.child, from_offset, to->root.child, to_offset, bytes, flags);
    finish(from, from_part, IO_KIND_READ, bytes, start_ns, ret);
    return finish(to, to_part, IO_KIND_WRITE, bytes, start_ns, ret);
}

/* --- what lies where: see status.c --- */

int CO_FN co_handle_block_status(struct handle *handle, uint64_t offset, uint64_t bytes, struct block_extent *ret)
{
    struct handle_part *part;
    int result;

    if (!bytes || !range_fits(offset, bytes, handle_length(handle)))
        return -EINVAL;
    part = co_enter(handle);
    result = co_chain_block_status(handle->root.child, offset, bytes, true, ret, NULL);
    leave(handle, part);
    return result;
}

int CO_FN co_handle_allocation_depth(struct handle *handle, uint64_t offset, uint64_t bytes, uint64_t *ret_bytes)
{
    struct block_extent extent;
    struct handle_part *part;
    int depth = 0;
    int result;

    if (!bytes || !range_fits(offset, bytes, handle_length(handle)))
        return -EINVAL;
    part = co_enter(handle);
    result = co_chain_block_status(handle->root.child, offset, bytes, false, &extent, &depth);
    leave(handle, part);
    if (result < 0)
        return result;
    *ret_bytes = extent.bytes;
    return depth;
}
