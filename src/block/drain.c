/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Drains: making sure that no request is in a part of the graph, and that none comes in.
 *
 * Requests come in through handles, so closing the gates of all handles from which a node can be reached and waiting
 * for what had come through is enough. A request inside always ends: it waits for other requests and for the world, and
 * never for a gate. Drivers with work of their own rest too (struct block_driver_drain): all those in the part of the
 * graph that the closed handles reach, because a request that we wait for may be held back in any of them.
 *
 * A gate has one part for each loop, each with a lock of its own, that its loop takes when a request comes in and when
 * it leaves. Closing sets `closed` in each part under its lock and reads the count of requests under the same lock:
 * whoever came in before is counted, whoever comes later sees the gate closed. There is nothing to order beyond that,
 * and no two loops touch the same cache line unless somebody drains.
 */
#include "block/graph-internal.h"

#include <assert.h>

#include "base/trace.h"

/* --- the gate of a handle --- */

void CO_FN co_handle_close_gate(struct handle *handle)
{
    struct handle_part *part;

    if (handle->closings++ == 0) {
        spin_lock(&handle->parts.spin);
        handle->closed = true;
        for (unsigned i = 0; (part = per_loop_next(&handle->parts, &i));) {
            spin_lock(&part->spin);
            part->closed = true;
            spin_unlock(&part->spin);
        }
        spin_unlock(&handle->parts.spin);
        if (handle->ops && handle->ops->co_drain_begin)
            handle->ops->co_drain_begin(handle->opaque);
    }
    /* Parts that are made from now on are closed from the start, with nothing in flight. */
    for (unsigned i = 0; (part = per_loop_next(&handle->parts, &i));) {
        spin_lock(&part->spin);
        while (part->in_flight)
            co_waiter_wait(&part->drains, &part->spin);
        spin_unlock(&part->spin);
    }
}

void handle_open_gate(struct handle *handle)
{
    struct handle_part *part;

    assert(handle->closings);
    if (--handle->closings)
        return;
    spin_lock(&handle->parts.spin);
    handle->closed = false;
    for (unsigned i = 0; (part = per_loop_next(&handle->parts, &i));) {
        spin_lock(&part->spin);
        part->closed = false;
        waiters_wake(&part->waiters);
        spin_unlock(&part->spin);
    }
    spin_unlock(&handle->parts.spin);
    if (handle->ops && handle->ops->drain_end)
        handle->ops->drain_end(handle->opaque);
}

/* --- what a drain covers --- */

/* Adds `node` to the list and the set where it is new there. */
static void visit(GPtrArray *list, GHashTable *seen, struct node *node)
{
    if (g_hash_table_add(seen, node))
        g_ptr_array_add(list, node);
}

/* All nodes from which the first `list->len` can be reached, added to the list; their handles to `handles`. */
static void add_ancestors(GPtrArray *list, GHashTable *seen, GPtrArray *handles)
{
    for (unsigned i = 0; i < list->len; i++) {
        struct node *node = g_ptr_array_index(list, i);

        for (unsigned j = 0; j < node->parents->len; j++) {
            struct edge *edge = g_ptr_array_index(node->parents, j);

            if (edge->parent)
                visit(list, seen, edge->parent);
            else
                g_ptr_array_add(handles, edge->handle);
        }
    }
}

static void add_descendants(GPtrArray *list, GHashTable *seen)
{
    for (unsigned i = 0; i < list->len; i++) {
        struct node *node = g_ptr_array_index(list, i);

        for (unsigned j = 0; j < node->children->len; j++) {
            struct edge *edge = g_ptr_array_index(node->children, j);

            visit(list, seen, edge->child);
        }
    }
}

/* A driver that is not open yet, or no longer, has no work to rest from; it learns of the drain as it opens. */
void node_rest(struct node *node)
{
    if (!node->driver_open || node->resting || !node->driver->drain)
        return;
    node->resting = true;
    node->driver->drain->begin(node);
}

static void node_resume(struct node *node)
{
    if (!node->resting)
        return;
    node->resting = false;
    if (node->driver_open)
        node->driver->drain->end(node);
}

/* Lets the drivers of the nodes let go what they hold back, and waits for the requests of the handles. */
static void CO_FN co_drain_run(struct drain *drain)
{
    for (unsigned i = 0; i < drain->nodes->len; i++) {
        struct node *node = g_ptr_array_index(drain->nodes, i);

        if (node->drains++ == 0)
            node_rest(node);
    }
    for (unsigned i = 0; i < drain->handles->len; i++)
        co_handle_close_gate(g_ptr_array_index(drain->handles, i));
    for (unsigned i = 0; i < drain->nodes->len; i++) {
        struct node *node = g_ptr_array_index(drain->nodes, i);

        if (node->resting && node->driver->drain->co_wait)
            node->driver->drain->co_wait(node);
    }
}

void CO_FN co_drain_begin(struct drain *drain, struct node *const *nodes, unsigned count)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);

    drain->handles = g_ptr_array_new();
    drain->nodes = g_ptr_array_new();
    for (unsigned i = 0; i < count; i++)
        visit(drain->nodes, seen, nodes[i]);
    add_ancestors(drain->nodes, seen, drain->handles);
    add_descendants(drain->nodes, seen);
    TRACE(block_drain_begin, "nodes %u first %s handles %u", drain->nodes->len, nodes[0]->name, drain->handles->len);
    co_drain_run(drain);
}

void drain_end(struct drain *drain)
{
    TRACE(block_drain_end, "nodes %u handles %u", drain->nodes->len, drain->handles->len);
    for (unsigned i = 0; i < drain->nodes->len; i++) {
        struct node *node = g_ptr_array_index(drain->nodes, i);

        assert(node->drains);
        if (--node->drains == 0)
            node_resume(node);
    }
    for (unsigned i = 0; i < drain->handles->len; i++)
        handle_open_gate(g_ptr_array_index(drain->handles, i));
    g_ptr_array_free(drain->nodes, true);
    g_ptr_array_free(drain->handles, true);
}

/* Other handles go on; but what a driver below holds back must go, or this would wait for it. */
void CO_FN co_handle_drain(struct handle *handle)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    struct drain drain = {.handles = g_ptr_array_new(), .nodes = g_ptr_array_new()};

    co_graph_lock(handle->graph);
    g_ptr_array_add(drain.handles, handle);
    visit(drain.nodes, seen, handle->root.child);
    add_descendants(drain.nodes, seen);
    co_drain_run(&drain);
    drain_end(&drain);
    graph_unlock(handle->graph);
}
