/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An inactive node has a driver that refuses everything in the place of its own, which is closed; its edges stay, and
 * use nothing of the children. To become active the driver opens again, as if for the first time, and finds the
 * children that it asks for: so it knows all that others have changed meanwhile.
 *
 * Keeps: (1) an active node has no inactive child; (2) the name, the length, the options and bitmaps that are not in
 * the image stay as they were.
 */
#include "block/active.h"

#include <assert.h>
#include <errno.h>

#include "base/error.h"
#include "base/trace.h"
#include "block/dirty-bitmap.h"
#include "block/graph-change.h"
#include "block/graph-internal.h"

bool node_is_active(const struct node *node)
{
    return !node->inactive;
}

/* --- the driver of those that are inactive --- */

static int CO_FN sleeper_co_transfer(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                     unsigned flags)
{
    return -EIO;
}

static int CO_FN sleeper_co_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    return -EIO;
}

static int CO_FN sleeper_co_pdiscard(struct node *node, uint64_t offset, uint64_t bytes)
{
    return -EIO;
}

static int CO_FN sleeper_co_block_status(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                                         struct block_extent *ret)
{
    return -EIO;
}

static int CO_FN sleeper_co_truncate(struct node *node, const struct truncate_request *request, struct error **err)
{
    error_set(err, "Node '%s' is inactive", node->name);
    return -EIO;
}

static char *sleeper_filename(const struct node *node)
{
    return g_strdup(node->sleep.filename);
}

/* Of the same name and kind. */
static struct block_driver *sleeper_new(const struct block_driver *driver)
{
    struct block_driver *sleeper = g_new0(struct block_driver, 1);

    sleeper->name = driver->name;
    sleeper->kind = driver->kind;
    sleeper->state_size = driver->state_size;
    sleeper->co_preadv = sleeper_co_transfer;
    sleeper->co_pwritev = sleeper_co_transfer;
    sleeper->co_pwrite_zeroes = sleeper_co_pwrite_zeroes;
    sleeper->co_pdiscard = sleeper_co_pdiscard;
    sleeper->co_block_status = sleeper_co_block_status;
    sleeper->co_truncate = sleeper_co_truncate;
    sleeper->filename = sleeper_filename;
    sleeper->significant_options = driver->significant_options;
    return sleeper;
}

/* --- one node --- */

/* Those that are in the image come back with it. */
static void drop_stored_bitmaps(struct node *node)
{
    struct dirty_bitmap *bitmap = dirty_bitmap_next(node, NULL);

    while (bitmap) {
        struct dirty_bitmap *next = dirty_bitmap_next(node, bitmap);

        if (dirty_bitmap_persistent(bitmap))
            dirty_bitmap_remove(bitmap);
        bitmap = next;
    }
}

void CO_FN co_node_sleep(struct node *node, bool read_only)
{
    char *filename = node_plain_filename(node);

    assert(!node->sleep.driver);
    co_node_close_driver(node);
    drop_stored_bitmaps(node);
    memset(node->state, 0, node->driver->state_size);
    node->sleep.driver = node->driver;
    node->sleep.filename = filename;
    node->driver = node->sleep.sleeper = sleeper_new(node->driver);
    node->resting = false;
    node->inactive = true;
    node->read_only = read_only;
    co_permissions_relax(&node, 1);
    TRACE(block_node_sleep, "%s", node->name);
}

void node_sleep_done(struct node *node)
{
    g_free(TAKE(node->sleep.sleeper));
    g_free(TAKE(node->sleep.filename));
}

bool CO_FN co_node_look(struct node *node, struct error **err)
{
    bool ok = true;

    if (!node->sleep.driver)
        return true;
    for (unsigned i = 0; i < node->children->len && ok; i++)
        ok = co_node_look(((struct edge *)g_ptr_array_index(node->children, i))->child, err);
    if (!ok)
        return false;
    node->driver = TAKE(node->sleep.driver);
    node_sleep_done(node);
    node->sleep.read_only = node->read_only;
    node->read_only = true;
    node->sleep.waking = true;
    ok = co_node_open_driver_again(node, err);
    node->sleep.waking = false;
    if (!ok)
        co_node_sleep(node, node->sleep.read_only);
    return ok;
}

void CO_FN co_node_look_end(struct node *node)
{
    if (node->inactive && !node->sleep.driver && node->driver_open)
        co_node_sleep(node, node->sleep.read_only);
    for (unsigned i = 0; i < node->children->len; i++) {
        struct node *child = ((struct edge *)g_ptr_array_index(node->children, i))->child;

        if (child->inactive && !child->sleep.driver)
            co_node_look_end(child);
    }
}

static bool CO_FN co_update_permissions(struct node *node, struct error **err)
{
    struct transaction *transaction = transaction_new();

    return co_transaction_end(transaction, co_permissions_update(transaction, &node, 1, err));
}

static bool CO_FN co_wake_driver(struct node *node, struct error **err)
{
    bool ok;

    node->driver = TAKE(node->sleep.driver);
    node_sleep_done(node);
    node->inactive = false;
    node->sleep.waking = true;
    ok = co_node_open_driver_again(node, err);
    node->sleep.waking = false;
    if (ok && !co_update_permissions(node, err)) {
        co_node_close_driver(node);
        ok = false;
    }
    return ok;
}

/* Drained. */
static bool CO_FN co_node_wake(struct node *node, struct error **err)
{
    if (co_wake_driver(node, err)) {
        /* What a failed flush has lost is not known any more. */
        __atomic_store_n(&node->flush_error, 0, __ATOMIC_RELAXED);
        TRACE(block_node_wake, "%s", node->name);
        return true;
    }
    error_prefix(err, "Node '%s' cannot become active: ", node->name);
    co_node_sleep(node, node->read_only);
    return false;
}

/* --- many --- */

/* Whether only inactive nodes, and users that bear it, use the node. */
static bool may_sleep(const struct node *node, struct error **err)
{
    for (unsigned i = 0; i < node->parents->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->parents, i);
        g_autofree char *user = NULL;

        if (edge->parent ? edge->parent->inactive : edge->handle->bears_inactive || !edge->perm)
            continue;
        user = edge_describe_parent(edge);
        return error_set(err,
                         edge->parent ? "Node has active parent node: '%s' is used by %s"
                                      : "Failed to inactivate node: '%s' is used by %s",
                         node->name, user);
    }
    return true;
}

static bool CO_FN co_stop_node(struct node *node, struct error **err)
{
    struct graph_change *change = co_graph_change_begin(node->graph);
    bool ok;
    int ret;

    co_graph_change_drain(change, node);
    ret = co_node_flush(node);
    ok = !ret || error_set_errno(err, ret, "Failed to inactivate node: cannot flush '%s'", node->name);
    if (ok)
        co_node_sleep(node, node->read_only);
    return co_graph_change_end(change, ok, err);
}

static bool CO_FN co_start_node(struct node *node, struct error **err)
{
    struct graph_change *change = co_graph_change_begin(node->graph);
    bool ok;

    co_graph_change_drain(change, node);
    ok = co_node_wake(node, err);
    return co_graph_change_end(change, ok, err);
}

/* Children first; those that were inactive are added to `woken`. The recursion is bounded by GRAPH_DEPTH_MAX. */
static bool CO_FN co_start_tree(struct node *node, GPtrArray *woken, struct error **err)
{
    for (unsigned i = 0; i < node->children->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->children, i);

        if (!co_start_tree(edge->child, woken, err))
            return false;
    }
    if (!node->inactive)
        return true;
    if (!co_start_node(node, err))
        return false;
    g_ptr_array_add(woken, node);
    return true;
}

/* The node first, then what nobody else uses. */
static bool CO_FN co_stop_tree(struct node *node, struct error **err)
{
    if (!node->inactive && (!may_sleep(node, err) || !co_stop_node(node, err)))
        return false;
    for (unsigned i = 0; i < node->children->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->children, i);

        if (may_sleep(edge->child, NULL) && !co_stop_tree(edge->child, err))
            return false;
    }
    return true;
}

static int compare_heights(const void *a, const void *b)
{
    const struct node *node_a = *(const struct node *const *)a;
    const struct node *node_b = *(const struct node *const *)b;

    return (node_a->height < node_b->height) - (node_a->height > node_b->height);
}

static bool CO_FN co_set_all(struct graph *graph, bool active, GPtrArray *woken, struct error **err)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    bool ok = true;

    for (unsigned i = 0; i < graph->nodes->len; i++)
        g_ptr_array_add(nodes, g_ptr_array_index(graph->nodes, i));
    /* From above: what is below goes along. */
    g_ptr_array_sort(nodes, compare_heights);
    for (unsigned i = 0; i < nodes->len && ok; i++) {
        struct node *node = g_ptr_array_index(nodes, i);

        ok = active ? co_start_tree(node, woken, err) : co_stop_tree(node, err);
    }
    return ok;
}

bool CO_FN co_graph_set_active(struct graph *graph, const char *node_name, bool active, struct error **err)
{
    struct node *node = node_name ? graph_find(graph, node_name, err) : NULL;
    g_autoptr(GPtrArray) woken = g_ptr_array_new();
    bool ok;

    if (node_name && !node)
        return false;
    co_graph_lock(graph);
    if (!node)
        ok = co_set_all(graph, active, woken, err);
    else
        ok = active ? co_start_tree(node, woken, err) : co_stop_tree(node, err);
    /* The latest first: an image whose node could not start is not kept from others. */
    while (!ok && woken->len)
        (void)co_stop_tree(g_ptr_array_steal_index(woken, woken->len - 1), NULL);
    graph_unlock(graph);
    return ok;
}
