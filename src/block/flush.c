/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Flushing: everything whose write ended before the flush began is durable when it ends with 0.
 *
 * Keeps: (1) a node without changes since its last successful flush is not flushed again; (2) one flush of a node runs
 * at a time, and all who ask meanwhile share the next one; (3) a flush that has failed stays failed: what it should
 * have written may be gone, and the next one, which would find nothing to do, cannot know.
 *
 * Changes are counted by each loop for itself, before their request ends. Whoever flushes adds the counts up under
 * flush_lock, so two sums differ whenever any count does.
 */
#include "block/graph-internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "base/trace.h"

uint64_t node_changes(const struct node *node)
{
    uint64_t changes = counter_get(&node->extra_changes);
    struct node_part *part;

    for (unsigned i = 0; (part = per_loop_next(&node->parts, &i));)
        changes += counter_get(&part->changes);
    return changes;
}

void node_mark_dirty(struct node *node)
{
    __atomic_add_fetch(&node->extra_changes, 1, __ATOMIC_RELEASE);
}

/* Whether the node may have written to the child: to a backing image it has not, as a rule. */
static bool is_written(const struct edge *edge)
{
    return !(edge->role & EDGE_COW) || __atomic_load_n(&edge->perm, __ATOMIC_RELAXED) & PERM_WRITE_UNCHANGED;
}

/* The driver's own, then the children that it may have written to. */
static int CO_FN co_flush_layers(struct node *node)
{
    int ret = 0;

    if (node->driver->co_flush_to_children)
        ret = node->driver->co_flush_to_children(node);
    if (!ret && node->primary && !node->no_flush)
        co_edge_event(node->primary, BLKDEBUG_EVENT_FLUSH_TO_DISK);
    if (!ret && node->driver->co_flush && !node->no_flush)
        ret = node->driver->co_flush(node);
    for (unsigned i = 0; i < node->children->len && !ret && !node->driver->flushes_children; i++) {
        const struct edge *edge = g_ptr_array_index(node->children, i);

        if (is_written(edge))
            ret = co_node_flush(edge->child);
    }
    return ret;
}

void CO_FN co_node_flush_soon(struct node *node)
{
    if (node->driver->co_flush_soon && !node->no_flush)
        node->driver->co_flush_soon(node);
    for (unsigned i = 0; i < node->children->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->children, i);

        if (is_written(edge))
            co_node_flush_soon(edge->child);
    }
}

/* Under flush_lock. `arrival`: how many flushes had been started when the caller came. */
static int CO_FN co_flush_locked(struct node *node, uint64_t arrival)
{
    uint64_t changes, turn;
    int ret = __atomic_load_n(&node->flush_error, __ATOMIC_RELAXED);

    if (ret || node->flush_covers > arrival)
        return ret;
    changes = node_changes(node);
    if (changes == node->flushed_changes)
        return 0;
    turn = node->flushes_started + 1;
    __atomic_store_n(&node->flushes_started, turn, __ATOMIC_RELEASE);
    ret = co_flush_layers(node);
    TRACE(block_flush, "%s changes %" PRIu64 " result %d", node->name, changes, ret);
    if (ret) {
        __atomic_store_n(&node->flush_error, ret, __ATOMIC_RELAXED);
        return ret;
    }
    node->flushed_changes = changes;
    node->flush_covers = turn;
    return 0;
}

int CO_FN co_node_flush(struct node *node)
{
    struct node_part *part = node_part(node);
    uint64_t arrival;
    int ret;

    if (node->primary)
        co_edge_event(node->primary, BLKDEBUG_EVENT_FLUSH_TO_OS);
    if (node->driver->passthrough) {
        if (!node->no_flush)
            co_edge_event(node->primary, BLKDEBUG_EVENT_FLUSH_TO_DISK);
        ret = co_node_flush(node->primary->child);
    } else {
        arrival = __atomic_load_n(&node->flushes_started, __ATOMIC_ACQUIRE);
        co_mutex_lock(&node->flush_lock);
        ret = co_flush_locked(node, arrival);
        co_mutex_unlock(&node->flush_lock);
    }
    counter_add(ret ? &part->statistics.kinds[IO_KIND_FLUSH].failed : &part->statistics.kinds[IO_KIND_FLUSH].operations,
                1);
    return ret;
}
