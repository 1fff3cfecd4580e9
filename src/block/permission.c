/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Permissions: each edge says what its parent does with the child and what it leaves to the child's other parents.
 *
 * Keeps: (1) no parent uses what another one of the same node does not leave to it; (2) nobody uses a node for writing
 * that cannot be written; (3) an edge from a node has what the driver says that it needs, given the node's own parents.
 * A change is computed downward from where it happens, each node after all its parents (its height is less than
 * theirs), and only as far as anything differs. Everything is undone when the transaction is aborted.
 */
#include "block/graph-internal.h"

#include <assert.h>

#include "base/error.h"
#include "base/trace.h"

enum { PERM_BITS = 4, PERM_ANY_WRITE = PERM_WRITE | PERM_WRITE_UNCHANGED | PERM_RESIZE };

const char *permission_name(enum permission bit)
{
    switch (bit) {
    case PERM_CONSISTENT_READ:
        return "consistent read";
    case PERM_WRITE:
        return "write";
    case PERM_WRITE_UNCHANGED:
        return "write unchanged";
    case PERM_RESIZE:
        return "resize";
    case PERM_ALL:
        break;
    }
    assert(!"one bit");
    return NULL;
}

void permissions_by_role(unsigned role, bool writable, uint32_t perm, uint32_t shared, uint32_t *ret_perm,
                         uint32_t *ret_shared)
{
    if (role & EDGE_FILTERED) {
        *ret_perm = perm;
        *ret_shared = shared;
    } else if (role & EDGE_COW) {
        *ret_perm = perm & PERM_CONSISTENT_READ;
        *ret_shared =
            PERM_CONSISTENT_READ | PERM_WRITE_UNCHANGED | (shared & PERM_WRITE ? PERM_WRITE | PERM_RESIZE : 0);
    } else if (role & EDGE_METADATA) {
        *ret_perm = perm | PERM_CONSISTENT_READ | (writable ? PERM_WRITE | PERM_RESIZE : 0);
        *ret_shared = PERM_CONSISTENT_READ | PERM_WRITE_UNCHANGED;
    } else {
        /* An image's own place for data: what shows the same above changes there. */
        if (perm & PERM_WRITE_UNCHANGED && !(role & EDGE_PRIMARY))
            perm |= PERM_WRITE;
        *ret_perm = perm | (perm & PERM_WRITE ? PERM_RESIZE : 0);
        *ret_shared = shared & ~(uint32_t)PERM_RESIZE;
    }
}

/* --- undoing what the computation writes --- */

struct edge_undo {
    struct edge *edge;
    uint32_t perm;
    uint32_t shared;
};

static void co_edge_undo_abort(void *opaque)
{
    struct edge_undo *undo = opaque;

    __atomic_store_n(&undo->edge->perm, undo->perm, __ATOMIC_RELAXED);
    undo->edge->shared = undo->shared;
}

static const struct transaction_ops edge_undo_ops = {
    .co_abort = co_edge_undo_abort,
    .co_clean = g_free,
};

void edge_set_permissions(struct transaction *transaction, struct edge *edge, uint32_t perm, uint32_t shared)
{
    struct edge_undo *undo = g_new0(struct edge_undo, 1);

    assert(!(perm & ~(uint32_t)PERM_ALL));
    assert(!(shared & ~(uint32_t)PERM_ALL));
    *undo = (struct edge_undo){.edge = edge, .perm = edge->perm, .shared = edge->shared};
    transaction_add(transaction, &edge_undo_ops, undo);
    __atomic_store_n(&edge->perm, perm, __ATOMIC_RELAXED);
    edge->shared = shared;
}

struct node_undo {
    struct node *node;
    uint32_t perm;
    uint32_t shared;
};

static void co_node_undo_abort(void *opaque)
{
    struct node_undo *undo = opaque;

    undo->node->perm = undo->perm;
    undo->node->shared = undo->shared;
}

static const struct transaction_ops node_undo_ops = {
    .co_abort = co_node_undo_abort,
    .co_clean = g_free,
};

static void node_set_permissions(struct transaction *transaction, struct node *node, uint32_t perm, uint32_t shared)
{
    struct node_undo *undo = g_new0(struct node_undo, 1);

    *undo = (struct node_undo){.node = node, .perm = node->perm, .shared = node->shared};
    transaction_add(transaction, &node_undo_ops, undo);
    node->perm = perm;
    node->shared = shared;
}

/* --- conflicts between the parents of a node --- */

static char *permission_list(uint32_t bits)
{
    GString *text = g_string_new(NULL);

    for (unsigned i = 0; i < PERM_BITS; i++) {
        if (bits & 1u << i)
            g_string_append_printf(text, "%s%s", text->len ? ", " : "", permission_name(1u << i));
    }
    return g_string_free(text, false);
}

/* What a parent keeps from the node's other parents. Not sharing more than that keeps out only other programs. */
static uint32_t kept_permissions(const struct edge *edge)
{
    return ~edge->shared & ~(edge->handle && edge->handle->follows_length ? (uint32_t)PERM_RESIZE : 0);
}

static bool conflict_error(const struct node *node, const struct edge *user, const struct edge *keeper,
                           struct error **err)
{
    g_autofree char *user_text = edge_describe_parent(user);
    g_autofree char *keeper_text = edge_describe_parent(keeper);
    g_autofree char *bits = permission_list(user->perm & kept_permissions(keeper));

    return error_set(err,
                     "Permission conflict on node '%s': permissions '%s' are both required by %s (uses node '%s' as "
                     "'%s' child) and unshared by %s (uses node '%s' as '%s' child).",
                     node->name, bits, user_text, node->name, user->name, keeper_text, node->name, keeper->name);
}

/* Names the first pair of parents that clash; there is one. */
static bool report_conflict(const struct node *node, struct error **err)
{
    for (unsigned i = 0; i < node->parents->len; i++) {
        const struct edge *user = g_ptr_array_index(node->parents, i);

        for (unsigned j = 0; j < node->parents->len; j++) {
            const struct edge *keeper = g_ptr_array_index(node->parents, j);

            if (i != j && (user->perm & kept_permissions(keeper)))
                return conflict_error(node, user, keeper, err);
        }
    }
    assert(!"there is a conflict");
    return false;
}

/* What all parents use and share together. One pass over the parents, so that a node may have many. */
static bool sum_parents(const struct node *node, uint32_t *ret_perm, uint32_t *ret_shared, struct error **err)
{
    const struct edge *users[PERM_BITS] = {0}, *keepers[PERM_BITS] = {0};
    uint32_t perm = 0, shared = PERM_ALL;

    for (unsigned i = 0; i < node->parents->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->parents, i);

        perm |= edge->perm;
        shared &= edge->shared;
        for (unsigned bit = 0; bit < PERM_BITS; bit++) {
            bool uses = edge->perm & 1u << bit;
            bool keeps = kept_permissions(edge) & 1u << bit;

            /* A parent may use what it keeps from others; two different ones clash. */
            if ((uses && keepers[bit]) || (keeps && users[bit]))
                return report_conflict(node, err);
            if (uses)
                users[bit] = edge;
            if (keeps)
                keepers[bit] = edge;
        }
    }
    *ret_perm = perm;
    *ret_shared = shared;
    return true;
}

/* --- the drivers' say --- */

static void co_driver_commit(void *opaque)
{
    struct node *node = opaque;

    node->driver->permission->co_commit(node);
}

static void co_driver_abort(void *opaque)
{
    struct node *node = opaque;

    node->driver->permission->co_abort(node);
}

static const struct transaction_ops driver_ops = {
    .co_commit = co_driver_commit,
    .co_abort = co_driver_abort,
};

static void co_drain_clean(void *opaque)
{
    struct drain *drain = opaque;

    drain_end(drain);
    g_free(drain);
}

static const struct transaction_ops drain_ops = {
    .co_clean = co_drain_clean,
};

/* An update on its way down. */
struct update {
    struct transaction *transaction;
    GPtrArray *work; /* struct node *, to be looked at */
    bool relaxing;   /* parents have only given something up */
};

/*
 * Asks the driver; a driver that starts or stops writing may have to change how it is open, which needs rest. One that
 * does not let go of what nobody uses any more keeps it: that harms nobody in the graph.
 */
static bool CO_FN co_ask_driver(const struct update *update, struct node *node, uint32_t old_perm, struct error **err)
{
    struct transaction *transaction = update->transaction;

    if ((old_perm ^ node->perm) & PERM_ANY_WRITE) {
        struct drain *drain = g_new0(struct drain, 1);

        co_drain_begin(drain, &node, 1);
        transaction_add(transaction, &drain_ops, drain);
    }
    if (node->driver->permission->co_prepare(node, node->perm, node->shared, update->relaxing ? NULL : err))
        transaction_add(transaction, &driver_ops, node);
    else if (!update->relaxing)
        return false;
    return true;
}

/* --- downward --- */

static void child_permissions(const struct node *node, const struct edge *edge, uint32_t *ret_perm,
                              uint32_t *ret_shared)
{
    if (node->inactive) {
        *ret_perm = 0;
        *ret_shared = PERM_ALL;
        return;
    }
    if (node->driver->child_permissions)
        node->driver->child_permissions(node, edge, node->perm, node->shared, ret_perm, ret_shared);
    else
        permissions_by_role(edge->role, !node->read_only, node->perm, node->shared, ret_perm, ret_shared);
    if (node->force_share)
        *ret_shared = PERM_ALL;
}

static void work_add(GPtrArray *work, struct node *node)
{
    if (!g_ptr_array_find(work, node, NULL))
        g_ptr_array_add(work, node);
}

/* The highest node of the list, taken from it: no other one is above it. */
static struct node *work_take(GPtrArray *work)
{
    unsigned best = 0;

    for (unsigned i = 1; i < work->len; i++) {
        const struct node *node = g_ptr_array_index(work, i);

        if (node->height > ((struct node *)g_ptr_array_index(work, best))->height)
            best = i;
    }
    return g_ptr_array_remove_index_fast(work, best);
}

static bool CO_FN co_update_node(const struct update *update, struct node *node, struct error **err)
{
    uint32_t old_perm = node->perm, old_shared = node->shared;
    uint32_t perm, shared;

    if (!sum_parents(node, &perm, &shared, err))
        return false;
    if ((perm & (PERM_WRITE | PERM_WRITE_UNCHANGED)) && node->read_only)
        return error_set(err, "Block node is read-only: node '%s'", node->name);
    if (perm != old_perm || shared != old_shared) {
        TRACE(block_permissions, "%s perm %x was %x shared %x was %x", node->name, perm, old_perm, shared, old_shared);
        node_set_permissions(update->transaction, node, perm, shared);
        if (node->driver->permission && !co_ask_driver(update, node, old_perm, err))
            return false;
    }
    for (unsigned i = 0; i < node->children->len; i++) {
        struct edge *edge = g_ptr_array_index(node->children, i);

        child_permissions(node, edge, &perm, &shared);
        if (perm != edge->perm || shared != edge->shared) {
            edge_set_permissions(update->transaction, edge, perm, shared);
            work_add(update->work, edge->child);
        }
    }
    return true;
}

static bool CO_FN co_update(const struct update *update, struct node *const *nodes, unsigned count, struct error **err)
{
    bool ok = true;

    for (unsigned i = 0; i < count; i++)
        work_add(update->work, nodes[i]);
    while (update->work->len && ok)
        ok = co_update_node(update, work_take(update->work), err);
    return ok;
}

bool CO_FN co_permissions_update(struct transaction *transaction, struct node *const *nodes, unsigned count,
                                 struct error **err)
{
    g_autoptr(GPtrArray) work = g_ptr_array_new();
    struct update update = {.transaction = transaction, .work = work};

    return co_update(&update, nodes, count, err);
}

void CO_FN co_permissions_relax(struct node *const *nodes, unsigned count)
{
    g_autoptr(GPtrArray) work = g_ptr_array_new();
    struct update update = {.transaction = transaction_new(), .work = work, .relaxing = true};
    bool ok = co_update(&update, nodes, count, NULL);

    assert(ok);
    co_transaction_commit(update.transaction);
}
