/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The length of a node. It changes by truncation, by writes that may grow the node, and where the world outside changes
 * it; those above whose own length follows are told on the main loop.
 *
 * Keeps: (1) a length is a multiple of NODE_LENGTH_ALIGNMENT, rounded up (interfaces of old count sectors, and users
 * compare; a driver shows zeroes between its real end and this one); (2) at most NODE_LENGTH_MAX.
 */
#include "block/graph-internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "base/checked.h"
#include "base/error.h"
#include "block/dirty-bitmap.h"

uint64_t node_length(const struct node *node)
{
    return __atomic_load_n(&node->length, __ATOMIC_ACQUIRE);
}

/* --- telling those above --- */

static uint64_t length_by_child(const struct node *node)
{
    if (node->driver->length_by_child)
        return node->driver->length_by_child(node, node_length(node->primary->child));
    return node_length(node->primary->child);
}

static bool follows_child(const struct node *node)
{
    return node->driver->length_by_child || (node->driver->kind == BLOCK_DRIVER_FILTER && !node->driver->co_length);
}

/* On the main loop, without suspending: nothing of the graph can change under it. */
static void tell_parents(struct node *node)
{
    for (unsigned i = 0; i < node->parents->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->parents, i);

        if (edge->handle && edge->handle->ops && edge->handle->ops->resized)
            edge->handle->ops->resized(edge->handle->opaque, node_length(node));
        else if (edge->parent && edge->parent->primary == edge && follows_child(edge->parent))
            node_set_length(edge->parent, length_by_child(edge->parent));
    }
}

static void co_tell_parents(void *opaque)
{
    struct node *node = opaque;

    __atomic_store_n(&node->resize_noticed, false, __ATOMIC_SEQ_CST);
    tell_parents(node);
    co_group_done(&node->notices);
}

static void length_changed(struct node *node)
{
    if (!__atomic_load_n(&node->watched, __ATOMIC_RELAXED))
        return;
    if (__atomic_exchange_n(&node->resize_noticed, true, __ATOMIC_SEQ_CST))
        return;
    co_group_add(&node->notices, 1);
    co_spawn(node->graph->loop, co_tell_parents, node);
}

void node_set_length(struct node *node, uint64_t length)
{
    uint64_t old_length;

    assert(length <= NODE_LENGTH_MAX);
    length = align_up(length, NODE_LENGTH_ALIGNMENT);
    old_length = __atomic_exchange_n(&node->length, length, __ATOMIC_ACQ_REL);
    if (length < old_length)
        dirty_bitmaps_shrink(node);
    if (length != old_length)
        length_changed(node);
}

void node_raise_length(struct node *node, uint64_t end)
{
    uint64_t wanted = align_up(end, NODE_LENGTH_ALIGNMENT);
    uint64_t length = node_length(node);

    do {
        if (wanted <= length)
            return;
    } while (!__atomic_compare_exchange_n(&node->length, &length, wanted, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    length_changed(node);
}

/* --- asking --- */

bool CO_FN co_node_refresh_length(struct node *node, struct error **err)
{
    int64_t length;

    if (node->driver->co_length)
        length = node->driver->co_length(node);
    else if (follows_child(node))
        length = (int64_t)length_by_child(node);
    else
        return true;
    if (length > (int64_t)NODE_LENGTH_MAX)
        length = -EFBIG;
    if (length < 0)
        return error_set_errno(err, (int)length, "Could not refresh total sector count");
    node_set_length(node, (uint64_t)length);
    return true;
}

/* --- changing --- */

static int truncate_too_large(uint64_t length, struct error **err)
{
    error_set(err, "offset(%" PRIu64 ") exceeds maximum(%" PRIu64 ")", length, (uint64_t)NODE_LENGTH_MAX);
    return -EFBIG;
}

static int CO_FN co_truncate_by_driver(struct node *node, const struct truncate_request *request, struct error **err)
{
    if (node->driver->co_truncate)
        return node->driver->co_truncate(node, request, err);
    if (node->driver->kind == BLOCK_DRIVER_FILTER)
        return co_edge_truncate(node->primary, request, err);
    error_set(err, "Image format driver does not support resize");
    return -ENOTSUP;
}

int CO_FN co_node_truncate(struct node *node, const struct truncate_request *request, struct error **err)
{
    struct truncate_request wanted = *request;
    uint64_t old_length = node_length(node);
    struct node_part *part = node_part(node);
    int ret;

    if (request->length > NODE_LENGTH_MAX)
        return truncate_too_large(request->length, err);
    if (node->read_only || __atomic_load_n(&node->hooks, __ATOMIC_RELAXED) & NODE_HOOK_FENCED) {
        error_set(err, "Image is read-only: node '%s'", node->name);
        return -EACCES;
    }
    /* A longer backing image must not shine through where the overlay grows. */
    if (node->backing && request->length > old_length && node_length(node->backing->child) > old_length)
        wanted.zero = true;
    wanted.length = align_up(request->length, node->limits.request_alignment);
    ret = co_truncate_by_driver(node, &wanted, err);
    counter_add(&part->changes, 1);
    if (ret)
        return ret;
    if (node->driver->co_length || follows_child(node))
        return co_node_refresh_length(node, err) ? 0 : -EIO;
    node_set_length(node, wanted.length);
    return 0;
}

int CO_FN co_edge_truncate(struct edge *edge, const struct truncate_request *request, struct error **err)
{
    assert(__atomic_load_n(&edge->perm, __ATOMIC_RELAXED) & PERM_RESIZE);
    return co_node_truncate(edge->child, request, err);
}

/* Whoever wants to resize asks for the permission first, so that nobody who relies on the length is surprised. */
bool CO_FN co_node_resize(struct node *node, uint64_t length, struct error **err)
{
    struct handle_options options = {.name = "block_resize", .perm = PERM_RESIZE, .shared = PERM_ALL};
    struct truncate_request request = {.length = length, .exact = true};
    struct handle *handle = co_handle_new(node, &options, err);
    struct drain drain;
    int ret;

    if (!handle)
        return false;
    co_graph_lock(node->graph);
    co_drain_begin(&drain, &node, 1);
    ret = co_node_truncate(node, &request, err);
    drain_end(&drain);
    graph_unlock(node->graph);
    co_handle_free(handle);
    return !ret;
}
