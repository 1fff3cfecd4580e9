/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changing who is whose child, under requests: drain, move edges, compute permissions, refresh what follows from the
 * children, and let go.
 *
 * Keeps: (1) edges move only while no request can be in the nodes on both sides; (2) an aborted change leaves every
 * edge as it was, but for its place among its siblings; (3) the graph has no cycle and is not too deep at any step.
 */
#include "block/graph-change.h"

#include <assert.h>

#include "base/error.h"
#include "base/trace.h"
#include "block/graph-internal.h"

struct graph_change {
    struct graph *graph;
    struct transaction *transaction;
    GPtrArray *touched; /* struct node *: their permissions are to be computed */
    GPtrArray *parents; /* struct node *: their children have changed */
    GPtrArray *handles; /* struct handle *: they have moved */
    GPtrArray *left;    /* struct node *: have lost a parent */
};

static void add_once(GPtrArray *list, void *item)
{
    if (!g_ptr_array_find(list, item, NULL))
        g_ptr_array_add(list, item);
}

struct graph_change *CO_FN co_graph_change_begin(struct graph *graph)
{
    struct graph_change *change = g_new0(struct graph_change, 1);

    co_graph_lock(graph);
    change->graph = graph;
    change->transaction = transaction_new();
    change->touched = g_ptr_array_new();
    change->parents = g_ptr_array_new();
    change->handles = g_ptr_array_new();
    change->left = g_ptr_array_new();
    return change;
}

/* --- drains --- */

static void co_drain_clean(void *opaque)
{
    struct drain *drain = opaque;

    drain_end(drain);
    g_free(drain);
}

static const struct transaction_ops drain_ops = {.co_clean = co_drain_clean};

void CO_FN co_graph_change_drain(struct graph_change *change, struct node *node)
{
    struct drain *drain = g_new0(struct drain, 1);

    co_drain_begin(drain, &node, 1);
    transaction_add(change->transaction, &drain_ops, drain);
}

/* --- moving an edge --- */

bool node_is_near(const struct node *node)
{
    for (unsigned i = 0; i < node->children->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->children, i);

        if (!node_is_near(edge->child))
            return false;
    }
    return node->driver->is_near ? node->driver->is_near(node) : node->driver->kind != BLOCK_DRIVER_PROTOCOL;
}

bool node_reaches(const struct node *node, const struct node *below)
{
    if (node == below)
        return true;
    if (node->height <= below->height)
        return false;
    for (unsigned i = 0; i < node->children->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->children, i);

        if (node_reaches(edge->child, below))
            return true;
    }
    return false;
}

/* The greatest height of a node from which `node` can be reached. */
static unsigned height_above(const struct node *node)
{
    unsigned height = node->height;

    for (unsigned i = 0; i < node->parents->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->parents, i);

        if (edge->parent)
            height = MAX(height, height_above(edge->parent));
    }
    return height;
}

static bool check_edge(const struct node *parent, const struct node *child, struct error **err)
{
    if (parent && node_reaches(child, parent))
        return error_set(err, "Making '%s' a child of '%s' would create a cycle", child->name, parent->name);
    return true;
}

static bool check_active(const struct edge *edge, const struct node *to, struct error **err)
{
    if (edge->parent)
        return edge_may_lead(edge->parent, to, edge->name, err);
    return !to->inactive || edge->handle->bears_inactive || error_set(err, "Node '%s' is inactive", to->name);
}

static bool check_depth(const struct node *node, struct error **err)
{
    if (height_above(node) <= GRAPH_DEPTH_MAX)
        return true;
    return error_set(err, "Node '%s': the graph would be more than %d nodes deep", node->name, GRAPH_DEPTH_MAX);
}

struct move {
    struct edge *edge;
    struct node *from;
};

static void co_move_abort(void *opaque)
{
    struct move *move = opaque;

    edge_move(move->edge, move->from);
}

static const struct transaction_ops move_ops = {.co_abort = co_move_abort, .co_clean = g_free};

/* Both sides are drained. */
static void move_edge(struct graph_change *change, struct edge *edge, struct node *to)
{
    struct move *move = g_new0(struct move, 1);
    struct node *from = edge->child;

    *move = (struct move){.edge = edge, .from = from};
    edge_move(edge, to);
    transaction_add(change->transaction, &move_ops, move);
    add_once(change->touched, from);
    add_once(change->touched, to);
    add_once(change->left, from);
    if (edge->parent) {
        add_once(change->parents, edge->parent);
        add_once(change->touched, edge->parent);
    } else {
        add_once(change->handles, edge->handle);
    }
}

bool CO_FN co_graph_change_set_child(struct graph_change *change, struct edge *edge, struct node *to,
                                     struct error **err)
{
    if (edge->child == to)
        return true;
    if (!check_edge(edge->parent, to, err) || !check_active(edge, to, err))
        return false;
    co_graph_change_drain(change, edge->child);
    co_graph_change_drain(change, to);
    move_edge(change, edge, to);
    return check_depth(to, err);
}

bool CO_FN co_graph_change_replace(struct graph_change *change, struct node *from, struct node *to, struct error **err)
{
    g_autoptr(GPtrArray) edges = g_ptr_array_new();

    assert(from != to);
    co_graph_change_drain(change, from);
    co_graph_change_drain(change, to);
    for (unsigned i = 0; i < from->parents->len; i++) {
        struct edge *edge = g_ptr_array_index(from->parents, i);

        if (edge->parent ? !node_reaches(to, edge->parent) : !edge->handle->stays)
            g_ptr_array_add(edges, edge);
    }
    TRACE(graph_replace, "%s by %s parents %u", from->name, to->name, edges->len);
    for (unsigned i = 0; i < edges->len; i++) {
        if (!check_active(g_ptr_array_index(edges, i), to, err))
            return false;
        move_edge(change, g_ptr_array_index(edges, i), to);
    }
    return check_depth(to, err);
}

/* --- adding and removing --- */

static void CO_FN co_added_abort(void *opaque)
{
    struct edge *edge = opaque;

    edge_detach(edge);
    edge_done(edge);
    g_free(edge);
}

static const struct transaction_ops added_ops = {.co_abort = co_added_abort};

bool CO_FN co_graph_change_add_child(struct graph_change *change, struct node *parent, const char *name,
                                     struct node *child, unsigned role, struct error **err)
{
    struct edge *edge;

    if (!check_edge(parent, child, err) || !edge_may_lead(parent, child, name, err))
        return false;
    co_graph_change_drain(change, parent);
    edge = g_new0(struct edge, 1);
    edge_init(edge, name, role, parent, NULL);
    edge_attach(edge, child);
    transaction_add(change->transaction, &added_ops, edge);
    add_once(change->touched, parent);
    add_once(change->touched, child);
    add_once(change->parents, parent);
    return check_depth(child, err);
}

struct removal {
    struct edge *edge;
    struct node *child;
    uint32_t perm;
    uint32_t shared;
};

static void co_removal_abort(void *opaque)
{
    struct removal *removal = opaque;

    edge_attach(removal->edge, removal->child);
    __atomic_store_n(&removal->edge->perm, removal->perm, __ATOMIC_RELAXED);
    removal->edge->shared = removal->shared;
}

static void co_removal_commit(void *opaque)
{
    struct removal *removal = opaque;

    edge_done(removal->edge);
    g_free(removal->edge);
}

static const struct transaction_ops removal_ops = {
    .co_commit = co_removal_commit,
    .co_abort = co_removal_abort,
    .co_clean = g_free,
};

void CO_FN co_graph_change_remove_child(struct graph_change *change, struct edge *edge)
{
    struct removal *removal = g_new0(struct removal, 1);

    assert(edge->parent);
    co_graph_change_drain(change, edge->parent);
    *removal = (struct removal){.edge = edge, .child = edge->child, .perm = edge->perm, .shared = edge->shared};
    edge_detach(edge);
    transaction_add(change->transaction, &removal_ops, removal);
    add_once(change->touched, edge->parent);
    add_once(change->touched, removal->child);
    add_once(change->parents, edge->parent);
    add_once(change->left, removal->child);
}

void graph_change_add(struct graph_change *change, struct node *node, const struct transaction_ops *ops, void *opaque)
{
    transaction_add(change->transaction, ops, opaque);
    add_once(change->touched, node);
    add_once(change->parents, node);
}

/* --- the end --- */

static int compare_heights(const void *a, const void *b)
{
    const struct node *node_a = *(const struct node *const *)a;
    const struct node *node_b = *(const struct node *const *)b;

    return (node_a->height > node_b->height) - (node_a->height < node_b->height);
}

/* Limits and lengths of the nodes whose children have changed, and of all above, from below. */
static void CO_FN co_refresh_upward(struct graph_change *change)
{
    GPtrArray *nodes = change->parents;

    for (unsigned i = 0; i < nodes->len; i++) {
        struct node *node = g_ptr_array_index(nodes, i);

        for (unsigned j = 0; j < node->parents->len; j++) {
            struct edge *edge = g_ptr_array_index(node->parents, j);

            if (edge->parent)
                add_once(nodes, edge->parent);
        }
    }
    g_ptr_array_sort(nodes, compare_heights);
    for (unsigned i = 0; i < nodes->len; i++) {
        struct node *node = g_ptr_array_index(nodes, i);
        AUTO(error) err = NULL;

        if (!co_node_refresh_limits(node, &err) || !co_node_refresh_length(node, &err))
            TRACE(graph_refresh, "%s: %s", node->name, error_message(err));
        if (node->driver->reopen && node->driver->reopen->co_after)
            node->driver->reopen->co_after(node);
    }
    for (unsigned i = 0; i < change->handles->len; i++) {
        struct handle *handle = g_ptr_array_index(change->handles, i);

        if (handle->ops && handle->ops->resized)
            handle->ops->resized(handle->opaque, node_length(handle->root.child));
    }
}

static void co_refresh_commit(void *opaque)
{
    co_refresh_upward(opaque);
}

/* The last to be committed, before the drains end. */
static const struct transaction_ops refresh_ops = {.co_commit = co_refresh_commit};

bool CO_FN co_graph_change_end(struct graph_change *change, bool ok, struct error **err)
{
    struct graph *graph = change->graph;

    ok = ok && co_permissions_update(change->transaction, (struct node *const *)change->touched->pdata,
                                     change->touched->len, err);
    if (ok)
        transaction_add(change->transaction, &refresh_ops, change);
    co_transaction_end(change->transaction, ok);
    /* From below: one that goes takes along what only it needed, and nothing above. */
    g_ptr_array_sort(change->left, compare_heights);
    for (unsigned i = 0; ok && i < change->left->len; i++)
        co_node_release(g_ptr_array_index(change->left, i));
    g_ptr_array_free(change->touched, true);
    g_ptr_array_free(change->parents, true);
    g_ptr_array_free(change->handles, true);
    g_ptr_array_free(change->left, true);
    g_free(change);
    graph_unlock(graph);
    return ok;
}

/* --- nodes that nobody owns yet --- */

struct node *CO_FN co_graph_open_node(struct graph *graph, const struct block_driver *driver,
                                      const struct blockdev_options *options, struct error **err)
{
    struct node_origin origin = {0};

    return driver ? co_node_open_driver(graph, driver, options, &origin, err)
                  : co_node_open(graph, options, &origin, err);
}

void CO_FN co_graph_release_node(struct node *node)
{
    co_node_release(node);
}
