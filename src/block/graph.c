/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/graph.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "base/trace.h"
#include "block/graph-internal.h"
#include "gen/types.h"
#include "loop/loop.h"

struct graph *graph_new(struct object_registry *objects, struct event_sink *events)
{
    struct graph *graph = g_new0(struct graph, 1);

    graph->loop = loop_current();
    assert(graph->loop);
    graph->objects = objects;
    graph->events = events;
    graph->drivers = block_drivers;
    graph->nodes = g_ptr_array_new();
    graph->handles = g_ptr_array_new();
    graph->names = g_hash_table_new(g_str_hash, g_str_equal);
    return graph;
}

void CO_FN co_graph_lock(struct graph *graph)
{
    assert(loop_current() == graph->loop);
    if (graph->lock_owner != co_self()) {
        co_mutex_lock(&graph->lock);
        assert(!graph->lock_depth);
        graph->lock_owner = co_self();
    }
    graph->lock_depth++;
}

void graph_unlock(struct graph *graph)
{
    assert(graph->lock_owner == co_self());
    assert(graph->lock_depth);
    if (--graph->lock_depth)
        return;
    graph->lock_owner = NULL;
    co_mutex_unlock(&graph->lock);
}

struct object_registry *graph_objects(const struct graph *graph)
{
    return graph->objects;
}

void graph_set_metadata_only(struct graph *graph, bool metadata_only)
{
    graph->metadata_only = metadata_only;
}

void graph_set_drivers(struct graph *graph, const struct block_driver *const *drivers)
{
    assert(!graph->nodes->len);
    graph->drivers = drivers;
}

void CO_FN co_graph_free(struct graph *graph)
{
    if (!graph)
        return;
    assert(!graph->handles->len);
    /* Newest first: what stands on others goes before them. Closing one takes along what nobody else needs. */
    for (;;) {
        struct node *owned = NULL;

        for (unsigned i = graph->nodes->len; i > 0 && !owned; i--) {
            struct node *node = g_ptr_array_index(graph->nodes, i - 1);

            if (node->monitor_owned)
                owned = node;
        }
        if (!owned)
            break;
        owned->monitor_owned = false;
        co_node_release(owned);
    }
    assert(!graph->nodes->len);
    assert(!g_hash_table_size(graph->names));
    g_ptr_array_free(graph->nodes, true);
    g_ptr_array_free(graph->handles, true);
    g_hash_table_destroy(graph->names);
    co_mutex_done(&graph->lock);
    g_free(graph);
}

bool CO_FN co_graph_add(struct graph *graph, const struct blockdev_options *options, struct error **err)
{
    struct node_origin origin = {0};
    struct node *node;

    if (!options->node_name)
        return error_set(err, "'node-name' must be specified for the root node");
    node = co_node_open(graph, options, &origin, err);
    if (!node)
        return false;
    node->monitor_owned = true;
    TRACE(graph_add, "node %s driver %s", node->name, node->driver->name);
    return true;
}

/* Who keeps `node` from being deleted: a parent that is a handle, before one that is a node; NULL: nobody. */
static const struct edge *find_user(const struct node *node)
{
    const struct edge *found = NULL;

    for (unsigned i = 0; i < node->parents->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->parents, i);

        if (edge->handle)
            return edge;
        found = edge;
    }
    return found;
}

bool CO_FN co_graph_delete(struct graph *graph, const char *name, struct error **err)
{
    struct node *node = graph_find(graph, name, err);
    const struct edge *user;

    if (!node)
        return false;
    user = find_user(node);
    if (user && user->handle) {
        g_autofree char *who = edge_describe_parent(user);

        return error_set(err, "Node %s is in use: by %s", name, who);
    }
    if (!node->monitor_owned)
        return error_set(err, "Node %s is not owned by the monitor", name);
    if (!node_check_no_overlay(node, err))
        return false;
    if (user)
        return error_set(err, "Block device %s is in use: by node '%s' as '%s'", name, user->parent->name, user->name);
    TRACE(graph_delete, "node %s", name);
    node->monitor_owned = false;
    co_node_release(node);
    return true;
}

struct handle *CO_FN co_graph_open(struct graph *graph, const struct blockdev_ref *ref,
                                   const struct handle_options *options, struct error **err)
{
    struct node_origin origin = {0};
    struct handle *handle;
    struct node *node;

    if (ref->kind == BLOCKDEV_REF_KIND_REFERENCE) {
        node = graph_find(graph, ref->u.reference, NULL);
        if (node)
            return co_handle_new(node, options, err);
        error_set(err, "Cannot find device='%s' nor node-name='%s'", ref->u.reference, ref->u.reference);
        return NULL;
    }
    assert(ref->kind == BLOCKDEV_REF_KIND_DEFINITION);
    node = co_node_open(graph, ref->u.definition, &origin, err);
    if (!node)
        return NULL;
    /* Nobody may find it, and let it go again, before the handle keeps it. */
    node->hidden = true;
    handle = co_handle_new(node, options, err);
    node->hidden = false;
    if (!handle)
        co_node_release(node);
    return handle;
}

struct node *graph_find(struct graph *graph, const char *name, struct error **err)
{
    struct node *node = g_hash_table_lookup(graph->names, name);

    if (!node || node->hidden) {
        error_set(err, "Failed to find node with node-name='%s'", name);
        return NULL;
    }
    return node;
}

size_t graph_node_count(const struct graph *graph)
{
    return graph->nodes->len;
}

struct node *graph_node_at(const struct graph *graph, size_t index)
{
    assert(index < graph->nodes->len);
    return g_ptr_array_index(graph->nodes, index);
}
