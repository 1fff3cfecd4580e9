/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Edges: a parent's link to a child. The parent is a node, which owns the edge, or a handle, which has it inside.
 *
 * Keeps: (1) an attached edge is in child->parents, and in parent->children where the parent is a node; (2) a node's
 * height is one more than that of its highest child, so the graph has no cycle.
 */
#include "block/graph-internal.h"

#include <assert.h>

#include "base/error.h"

void edge_init(struct edge *edge, const char *name, unsigned role, struct node *parent, struct handle *handle)
{
    assert(!parent != !handle);
    *edge = (struct edge){.name = g_strdup(name), .role = role, .parent = parent, .handle = handle, .shared = PERM_ALL};
}

void edge_done(struct edge *edge)
{
    assert(!edge->child);
    g_free(edge->name);
}

/* --- what a node knows because of its children and parents --- */

static unsigned height_of(const struct node *node)
{
    unsigned height = 0;

    for (unsigned i = 0; i < node->children->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->children, i);

        height = MAX(height, edge->child->height);
    }
    return height + 1;
}

/* Upward, as far as anything changes. */
static void update_heights(struct node *start)
{
    g_autoptr(GPtrArray) work = g_ptr_array_new();

    g_ptr_array_add(work, start);
    while (work->len) {
        struct node *node = g_ptr_array_remove_index_fast(work, work->len - 1);
        unsigned height = height_of(node);

        if (height == node->height)
            continue;
        node->height = height;
        for (unsigned i = 0; i < node->parents->len; i++) {
            struct edge *edge = g_ptr_array_index(node->parents, i);

            if (edge->parent)
                g_ptr_array_add(work, edge->parent);
        }
    }
}

/* Whether somebody wants to hear of the node's length: handles that say so, and nodes whose length follows from it. */
static void update_watched(struct node *node)
{
    bool watched = false;

    for (unsigned i = 0; i < node->parents->len && !watched; i++) {
        const struct edge *edge = g_ptr_array_index(node->parents, i);

        if (edge->handle)
            watched = edge->handle->ops && edge->handle->ops->resized;
        else
            watched = edge->parent->driver->length_by_child || edge->parent->driver->kind == BLOCK_DRIVER_FILTER;
    }
    __atomic_store_n(&node->watched, watched, __ATOMIC_RELAXED);
}

static void set_shortcuts(struct node *parent)
{
    parent->primary = NULL;
    parent->backing = NULL;
    for (unsigned i = 0; i < parent->children->len; i++) {
        struct edge *edge = g_ptr_array_index(parent->children, i);

        if (edge->role & EDGE_FILTERED || (edge->role & EDGE_PRIMARY && !parent->primary))
            parent->primary = edge;
        if (edge->role & EDGE_COW)
            parent->backing = edge;
    }
}

void edge_attach(struct edge *edge, struct node *child)
{
    assert(!edge->child);
    edge->child = child;
    edge->perm = 0;
    edge->shared = PERM_ALL;
    g_ptr_array_add(child->parents, edge);
    update_watched(child);
    if (edge->parent) {
        g_ptr_array_add(edge->parent->children, edge);
        set_shortcuts(edge->parent);
        update_heights(edge->parent);
        assert(edge->parent->height > child->height);
    }
}

void edge_detach(struct edge *edge)
{
    struct node *child = edge->child;

    assert(child);
    edge->child = NULL;
    g_ptr_array_remove(child->parents, edge);
    update_watched(child);
    if (edge->parent) {
        g_ptr_array_remove(edge->parent->children, edge);
        set_shortcuts(edge->parent);
        update_heights(edge->parent);
    }
}

void edge_move(struct edge *edge, struct node *child)
{
    struct node *old = edge->child;

    assert(old);
    g_ptr_array_remove(old->parents, edge);
    edge->child = child;
    g_ptr_array_add(child->parents, edge);
    update_watched(old);
    update_watched(child);
    if (edge->parent) {
        update_heights(edge->parent);
        assert(edge->parent->height > child->height);
    }
}

char *edge_describe_parent(const struct edge *edge)
{
    if (edge->parent)
        return g_strdup_printf("node '%s'", edge->parent->name);
    return g_strdup(edge->handle->name ? edge->handle->name : "an unnamed block device");
}

/* --- what drivers ask --- */

struct node *edge_child(const struct edge *edge)
{
    return edge->child;
}

const char *edge_name(const struct edge *edge)
{
    return edge->name;
}

unsigned edge_role(const struct edge *edge)
{
    return edge->role;
}

struct edge *node_child(const struct node *node, const char *name)
{
    for (unsigned i = 0; i < node->children->len; i++) {
        struct edge *edge = g_ptr_array_index(node->children, i);

        if (!strcmp(edge->name, name))
            return edge;
    }
    return NULL;
}

struct edge *node_primary(const struct node *node)
{
    return node->primary;
}

struct edge *node_backing(const struct node *node)
{
    return node->backing;
}

/* --- adding a child --- */

/* The node that `ref` names, or a new one that it defines; a new one that fails to be attached is the caller's. */
static struct node *CO_FN co_resolve(struct node *parent, const struct blockdev_ref *ref, unsigned role,
                                     struct error **err)
{
    struct node_origin origin = {.parent = parent, .role = role};
    struct node *child;

    if (ref->kind == BLOCKDEV_REF_KIND_DEFINITION)
        return co_node_open(parent->graph, ref->u.definition, &origin, err);
    child = graph_find(parent->graph, ref->u.reference, NULL);
    if (!child)
        error_set(err, "Cannot find device='%s' nor node-name='%s'", ref->u.reference, ref->u.reference);
    return child;
}

/* The child that a node had before it became inactive. */
static struct edge *CO_FN co_use_again(struct edge *edge, struct error **err)
{
    struct node *node = edge->parent;
    struct transaction *transaction;
    bool ok;

    co_graph_lock(node->graph);
    transaction = transaction_new();
    ok = co_transaction_end(transaction, co_permissions_update(transaction, &node, 1, err));
    graph_unlock(node->graph);
    return ok ? edge : NULL;
}

bool edge_may_lead(const struct node *parent, const struct node *child, const char *name, struct error **err)
{
    return parent->inactive || !child->inactive ||
           error_set(err, "Inactive '%s' can't be a %s child of active '%s'", child->name, name, parent->name);
}

struct edge *CO_FN co_node_add_child(struct node *node, const char *name, const struct blockdev_ref *ref, unsigned role,
                                     struct error **err)
{
    struct graph *graph = node->graph;
    struct transaction *transaction;
    struct edge *edge;
    struct node *child;

    if (node->sleep.waking && node_child(node, name))
        return co_use_again(node_child(node, name), err);
    child = co_resolve(node, ref, role, err);
    if (!child)
        return NULL;
    if (!edge_may_lead(node, child, name, err) || (child->sleep.driver && !co_node_look(child, err))) {
        co_node_release(child);
        return NULL;
    }
    if (child->height >= GRAPH_DEPTH_MAX) {
        error_set(err, "Node '%s': with '%s' as its '%s' it would be more than %d nodes deep", node->name, child->name,
                  name, GRAPH_DEPTH_MAX);
        co_node_release(child);
        return NULL;
    }
    co_graph_lock(graph);
    edge = g_new0(struct edge, 1);
    edge_init(edge, name, role, node, NULL);
    edge_attach(edge, child);
    transaction = transaction_new();
    if (!co_transaction_end(transaction, co_permissions_update(transaction, &node, 1, err))) {
        edge_detach(edge);
        graph_unlock(graph);
        edge_done(edge);
        g_free(edge);
        co_node_release(child);
        return NULL;
    }
    graph_unlock(graph);
    return edge;
}
