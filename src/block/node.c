/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A node's life: from options, its parent's where they are silent, to an open driver, and back.
 *
 * Keeps: (1) a node's name is taken from before its driver opens until after it has closed; only in between it is in
 * graph->nodes and can be found; (2) it lives as long as the monitor or a parent needs it; (3) a failed open leaves
 * nothing: no node, no child, no name.
 */
#include "block/graph-internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "block/dirty-bitmap.h"
#include "block/graph-change.h"
#include "block/latency.h"
#include "gen/types.h"
#include "loop/loop.h"

/* The kernel moves at most this much in one call. */
enum { TRANSFER_BYTES_MAX = 0x7ffff000 };

/* --- names --- */

static bool name_is_valid(const char *name)
{
    if (!g_ascii_isalpha(name[0]))
        return false;
    for (const char *at = name; *at; at++) {
        if (!g_ascii_isalnum(*at) && !strchr("-._", *at))
            return false;
    }
    return true;
}

/* Takes the name for `node`. */
static bool name_take(struct node *node, const char *wanted, struct error **err)
{
    struct graph *graph = node->graph;

    if (!wanted) {
        do
            g_snprintf(node->name, sizeof(node->name), "#block%03" PRIu64, graph->generated++);
        while (g_hash_table_contains(graph->names, node->name));
    } else if (!name_is_valid(wanted)) {
        return error_set(err, "Invalid node-name: '%s'", wanted);
    } else if (g_hash_table_contains(graph->names, wanted)) {
        return error_set(err, "Duplicate nodes with node-name='%s'", wanted);
    } else if (g_strlcpy(node->name, wanted, sizeof(node->name)) >= sizeof(node->name)) {
        return error_set(err, "Node name too long");
    }
    g_hash_table_insert(graph->names, node->name, node);
    return true;
}

static void name_release(struct node *node)
{
    g_hash_table_remove(node->graph->names, node->name);
}

/* --- options --- */

/* One that opens in order to be inactive seems to be read-only meanwhile. */
static bool is_to_be_read_only(const struct node *node)
{
    return node->inactive && !node->sleep.driver ? node->sleep.read_only : node->read_only;
}

/*
 * What the options leave open comes from the parent: caching, being read-only and sharing concern the whole tree that
 * one definition describes. A backing image is read-only unless it says otherwise. Whether to discard is decided at the
 * top: below, discards pass.
 */
static void options_inherit(struct node *node, const struct blockdev_options *options, const struct node_origin *origin)
{
    const struct node *parent = origin->parent;
    bool backing = origin->role & EDGE_COW;
    const struct blockdev_cache_options *cache = options->cache;

    node->inactive = options->has_active ? !options->active : parent && parent->inactive;
    node->read_only = options->has_read_only ? options->read_only : parent && (is_to_be_read_only(parent) || backing);
    node->auto_read_only = options->has_auto_read_only ? options->auto_read_only : parent && parent->auto_read_only;
    node->force_share = options->has_force_share ? options->force_share : parent && parent->force_share;
    node->cache_direct = cache && cache->has_direct ? cache->direct : parent && parent->cache_direct;
    node->no_flush = cache && cache->has_no_flush ? cache->no_flush : parent && parent->no_flush;
    node->discard_unmap = options->has_discard ? options->discard == BLOCKDEV_DISCARD_OPTIONS_UNMAP : parent != NULL;
    node->detect_zeroes = options->has_detect_zeroes ? options->detect_zeroes : BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF;
}

/* Children open inside their parents' opening, on one stack: an image below itself must not go on for ever. */
static bool opening_depth_check(const struct node *node, struct error **err)
{
    unsigned depth = 0;

    for (const struct node *opener = node->opener; opener; opener = opener->opener)
        depth++;
    return depth < GRAPH_DEPTH_MAX ||
           error_set(err, "Node '%s' would be more than %d nodes below the one that is opened", node->name,
                     GRAPH_DEPTH_MAX);
}

static bool options_check(const struct node *node, struct error **err)
{
    if (node->force_share && !node->read_only)
        return error_set(err, "force-share=on can only be used with read-only images");
    if (node->detect_zeroes == BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP && !node->discard_unmap)
        return error_set(err, "setting detect-zeroes to unmap is not allowed without setting discard operation to "
                              "unmap");
    if (!node->driver->co_pwritev && !node->read_only)
        return error_set(err, "Driver '%s' can only be used for read-only devices", node->driver->name);
    return true;
}

const struct block_driver *graph_find_driver(const struct graph *graph, enum blockdev_driver driver_id,
                                             struct error **err)
{
    const char *name = blockdev_driver_name(driver_id);

    for (const struct block_driver *const *driver = graph->drivers; *driver; driver++) {
        if (!strcmp((*driver)->name, name))
            return *driver;
    }
    error_set(err, "Unknown driver '%s': this build has no such driver", name);
    return NULL;
}

/* --- limits --- */

static void limits_merge(struct node_limits *to, const struct node_limits *from)
{
    to->request_alignment = MAX(to->request_alignment, from->request_alignment);
    to->memory_alignment = MAX(to->memory_alignment, from->memory_alignment);
    to->transfer_optimal = MAX(to->transfer_optimal, from->transfer_optimal);
    if (from->transfer_max && (!to->transfer_max || from->transfer_max < to->transfer_max))
        to->transfer_max = from->transfer_max;
}

static void limits_from_children(const struct node *node, struct node_limits *limits)
{
    *limits = (struct node_limits){.request_alignment = 1, .memory_alignment = 1};
    /* What passes through is limited as the child is, in every way; others decide by themselves what they make of it.
     */
    if (node->primary && (node->driver->passthrough || node->driver->kind == BLOCK_DRIVER_FILTER)) {
        *limits = node->primary->child->limits;
        return;
    }
    for (unsigned i = 0; i < node->children->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->children, i);

        if (edge->role & (EDGE_DATA | EDGE_FILTERED | EDGE_COW))
            limits_merge(limits, &edge->child->limits);
    }
    limits->request_alignment = 1;
}

bool CO_FN co_node_refresh_limits(struct node *node, struct error **err)
{
    struct node_limits limits;
    uint64_t transfer_max;

    limits_from_children(node, &limits);
    if (node->driver->co_refresh_limits && !node->driver->co_refresh_limits(node, &limits, err))
        return false;
    assert(is_power_of_two(limits.request_alignment));
    assert(is_power_of_two(limits.memory_alignment));
    assert(is_aligned(limits.zeroes_alignment | limits.discard_alignment, limits.request_alignment) ||
           node->driver->passthrough);
    transfer_max = limits.transfer_max ? MIN(limits.transfer_max, TRANSFER_BYTES_MAX) : TRANSFER_BYTES_MAX;
    node->transfer_max = align_down(transfer_max, limits.request_alignment);
    assert(node->transfer_max);
    node->limits = limits;
    if (limits.request_alignment > 1 && node->tracking == NODE_TRACKS_NOTHING && !node->driver->passthrough)
        node->tracking = NODE_TRACKS_WRITES;
    return true;
}

void node_allow_serialising(struct node *node)
{
    while (node->driver->passthrough)
        node = node->primary->child;
    node->tracking = NODE_TRACKS_ALL;
}

/* --- making and freeing --- */

static struct node *node_new(struct graph *graph, const struct block_driver *driver,
                             const struct blockdev_options *options)
{
    struct node *node = g_new0(struct node, 1);

    node->driver = driver;
    node->state = g_malloc0(MAX(driver->state_size, 1));
    node->graph = graph;
    node->options = blockdev_options_clone(options);
    node->children = g_ptr_array_new();
    node->parents = g_ptr_array_new();
    node->write_hooks = g_ptr_array_new();
    node->height = 1;
    node->shared = PERM_ALL;
    node->limits = (struct node_limits){.request_alignment = 1, .memory_alignment = 1};
    node->transfer_max = TRANSFER_BYTES_MAX;
    node->hidden = true;
    per_loop_init(&node->parts, sizeof(struct node_part), node_part_init);
    return node;
}

static void node_free(struct node *node)
{
    assert(!node->children->len);
    assert(!node->parents->len);
    assert(!node->write_hooks->len);
    assert(!node->dirty_bitmaps);
    assert(!node->serialisers);
    co_mutex_done(&node->flush_lock);
    per_loop_done(&node->parts);
    g_ptr_array_free(node->children, true);
    g_ptr_array_free(node->parents, true);
    g_ptr_array_free(node->write_hooks, true);
    blockdev_options_free(node->options);
    node_sleep_done(node);
    if (node->latency)
        (void)__atomic_sub_fetch(&node->graph->latencies, 1, __ATOMIC_RELAXED);
    latency_free(node->latency);
    g_free(node->iothread);
    g_free(node->state);
    g_free(node);
}

/* Takes all children away; giving permissions up cannot clash. */
static void CO_FN co_drop_children(struct node *node)
{
    g_autoptr(GPtrArray) dropped = g_ptr_array_new();

    if (!node->children->len)
        return;
    co_graph_lock(node->graph);
    while (node->children->len) {
        struct edge *edge = g_ptr_array_index(node->children, node->children->len - 1);

        g_ptr_array_add(dropped, edge->child);
        edge_detach(edge);
        edge_done(edge);
        g_free(edge);
    }
    co_permissions_relax((struct node *const *)dropped->pdata, dropped->len);
    graph_unlock(node->graph);
    for (unsigned i = 0; i < dropped->len; i++)
        co_node_release(g_ptr_array_index(dropped, i));
}

static void CO_FN co_close_driver(struct node *node)
{
    node->driver_open = false;
    if (node->driver->co_close)
        node->driver->co_close(node);
}

void CO_FN co_node_close_driver(struct node *node)
{
    if (!node->driver_open)
        return;
    if (node->resting) {
        node->resting = false;
        node->driver->drain->end(node);
    }
    co_close_driver(node);
}

static bool CO_FN co_open_driver(struct node *node, struct error **err)
{
    if (!node->driver->co_open(node, node->options, err))
        return false;
    node->driver_open = true;
    if (node->drains)
        node_rest(node);
    if (node->driver->passthrough) {
        node->read_flags = node->write_flags = node->zero_flags = UINT_MAX;
    }
    if (co_node_refresh_length(node, err) && co_node_refresh_limits(node, err))
        return true;
    co_close_driver(node);
    return false;
}

bool CO_FN co_node_open_driver_again(struct node *node, struct error **err)
{
    return co_open_driver(node, err);
}

/*
 * One that is to be inactive is opened for a look: it takes nothing from others, and writes nothing. Nodes below stay
 * open until the look is over, which is up to the one that began it.
 */
static bool CO_FN co_open_inactive(struct node *node, struct error **err)
{
    bool ok;

    node->sleep.read_only = node->read_only;
    node->read_only = true;
    ok = co_open_driver(node, err);
    if (!ok)
        node->read_only = node->sleep.read_only;
    if (!node->opener || !node->opener->inactive)
        co_node_look_end(node);
    return ok;
}

static bool CO_FN co_open_first(struct node *node, struct error **err)
{
    if (!options_check(node, err) || !opening_depth_check(node, err))
        return false;
    return node->inactive ? co_open_inactive(node, err) : co_open_driver(node, err);
}

struct node *CO_FN co_node_open_driver(struct graph *graph, const struct block_driver *driver,
                                       const struct blockdev_options *options, const struct node_origin *origin,
                                       struct error **err)
{
    struct node *node;

    assert(loop_current() == graph->loop);
    node = node_new(graph, driver, options);
    options_inherit(node, options, origin);
    if (!name_take(node, options->node_name, err)) {
        node_free(node);
        return NULL;
    }
    node->opener = origin->parent;
    if (!co_open_first(node, err)) {
        dirty_bitmaps_close(node);
        co_drop_children(node);
        co_group_wait(&node->notices);
        name_release(node);
        node_free(node);
        return NULL;
    }
    node->opener = NULL;
    node_set_hook(node, NODE_HOOK_DETECT_ZEROES, node->detect_zeroes != BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF);
    node->hidden = false;
    g_ptr_array_add(graph->nodes, node);
    TRACE(block_node_open, "%s driver %s length %" PRIu64 " read-only %d", node->name, driver->name, node_length(node),
          node->read_only);
    return node;
}

struct node *CO_FN co_node_open(struct graph *graph, const struct blockdev_options *options,
                                const struct node_origin *origin, struct error **err)
{
    const struct block_driver *driver = graph_find_driver(graph, options->driver, err);

    return driver ? co_node_open_driver(graph, driver, options, origin, err) : NULL;
}

static void CO_FN co_node_close(struct node *node)
{
    int ret = co_node_flush(node);

    assert(node->hidden);
    assert(!node->parents->len);
    TRACE(block_node_close, "%s flush %d", node->name, ret);
    if (ret)
        log_warning("Node '%s': closing without its last flush, which failed: %s", node->name, g_strerror(-ret));
    co_node_close_driver(node);
    dirty_bitmaps_close(node);
    co_drop_children(node);
    co_group_wait(&node->notices);
    name_release(node);
    node_free(node);
}

void CO_FN co_node_release(struct node *node)
{
    bool last;

    if (node->monitor_owned || node->parents->len || node->hidden)
        return;
    /* Whoever looks at all nodes holds the lock; and while we wait, somebody may have taken to this one. */
    co_graph_lock(node->graph);
    last = !node->monitor_owned && !node->parents->len && !node->hidden;
    if (last) {
        node->hidden = true;
        g_ptr_array_remove(node->graph->nodes, node);
    }
    graph_unlock(node->graph);
    if (last)
        co_node_close(node);
}

/* --- what drivers and queries ask --- */

void *node_state(const struct node *node)
{
    return node->state;
}

const char *node_name(const struct node *node)
{
    return node->name;
}

const char *node_driver_name(const struct node *node)
{
    return node->driver->name;
}

const struct block_driver *node_driver(const struct node *node)
{
    return node->driver;
}

const struct blockdev_options *node_options(const struct node *node)
{
    return node->options;
}

void node_list_overlays(const struct node *node, GPtrArray *overlays)
{
    for (unsigned i = 0; i < node->parents->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->parents, i);

        if (edge->parent && edge->role & EDGE_COW)
            g_ptr_array_add(overlays, edge->parent);
    }
}

struct graph *node_graph(const struct node *node)
{
    return node->graph;
}

bool node_metadata_only(const struct node *node)
{
    return node->graph->metadata_only;
}

struct object_registry *node_objects(const struct node *node)
{
    return node->graph->objects;
}

struct event_sink *node_events(const struct node *node)
{
    return node->graph->events;
}

bool node_read_only(const struct node *node)
{
    return node->read_only;
}

bool node_auto_read_only(const struct node *node)
{
    return node->auto_read_only;
}

void node_set_read_only(struct node *node, bool read_only)
{
    node->read_only = read_only;
}

bool node_force_share(const struct node *node)
{
    return node->force_share;
}

bool node_cache_direct(const struct node *node)
{
    return node->cache_direct;
}

bool node_cache_no_flush(const struct node *node)
{
    return node->no_flush;
}

bool node_discard_unmap(const struct node *node)
{
    return node->discard_unmap;
}

bool node_is_guarded(const struct node *node)
{
    return node->guarded;
}

uint32_t node_used_permissions(const struct node *node)
{
    return node->perm;
}

uint32_t node_shared_permissions(const struct node *node)
{
    return node->shared;
}

void node_set_flags(struct node *node, unsigned write_flags, unsigned zero_flags)
{
    assert(!node->driver->passthrough);
    node->write_flags = write_flags;
    node->zero_flags = zero_flags;
}

void node_set_read_flags(struct node *node, unsigned read_flags)
{
    assert(!node->driver->passthrough);
    node->read_flags = read_flags;
}

const struct node_limits *node_get_limits(const struct node *node)
{
    return &node->limits;
}

struct node *node_find_sibling(const struct node *node, const char *name, struct error **err)
{
    return graph_find(node->graph, name, err);
}

bool node_can_compress(const struct node *node)
{
    while (node->driver->passthrough)
        node = node->primary->child;
    return node->write_flags & IO_COMPRESSED;
}

bool node_has_parents(const struct node *node)
{
    return node->parents->len > 0;
}

bool node_has_handles(const struct node *node)
{
    for (unsigned i = 0; i < node->parents->len; i++) {
        if (((const struct edge *)g_ptr_array_index(node->parents, i))->handle)
            return true;
    }
    return false;
}

bool node_check_idle(const struct node *node, struct error **err)
{
    for (unsigned i = 0; i < node->parents->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->parents, i);

        if (edge->handle && edge->handle->occupies)
            return error_set(err, "Node '%s' is busy: block device is in use by %s", node->name, edge->handle->name);
    }
    return true;
}

bool node_check_no_overlay(const struct node *node, struct error **err)
{
    for (unsigned i = 0; i < node->parents->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->parents, i);

        if (edge->parent && (edge->role & EDGE_COW))
            return error_set(err, "Node '%s' is busy: node is used as backing hd of '%s'", node->name,
                             edge->parent->name);
    }
    return true;
}

void node_set_iothread(struct node *node, const char *id)
{
    g_free(node->iothread);
    node->iothread = g_strdup(id);
}

struct latency *node_latency(const struct node *node)
{
    return node->latency;
}

/* Requests look at it as they end, which they have done once the node is drained. */
static void CO_FN co_set_latency(struct node *node, struct latency *latency)
{
    struct graph_change *change = co_graph_change_begin(node->graph);

    co_graph_change_drain(change, node);
    (void)__atomic_add_fetch(&node->graph->latencies, (latency ? 1u : 0u) - (node->latency ? 1u : 0u),
                             __ATOMIC_RELAXED);
    latency_free(node->latency);
    node->latency = latency;
    (void)co_graph_change_end(change, true, NULL);
}

struct latency *CO_FN co_node_make_latency(struct node *node)
{
    if (!node->latency)
        co_set_latency(node, latency_new());
    return node->latency;
}

void CO_FN co_node_drop_idle_latency(struct node *node)
{
    if (node->latency && latency_is_idle(node->latency))
        co_set_latency(node, NULL);
}

void node_get_statistics(const struct node *node, struct io_statistics *ret)
{
    struct io_statistics above = node->past;
    const struct node_part *part;

    *ret = (struct io_statistics){0};
    for (unsigned i = 0; (part = per_loop_next(&node->parts, &i));)
        io_statistics_add(ret, &part->statistics);
    for (unsigned i = 0; i < node->parents->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->parents, i);
        struct io_statistics of_handle;

        if (!edge->handle)
            continue;
        handle_get_statistics(edge->handle, &of_handle);
        io_statistics_add(&above, &of_handle);
    }
    /* Times, and what never came this far, are known where requests come in. */
    ret->last_ns = above.last_ns;
    for (unsigned kind = 0; kind < IO_KIND__COUNT; kind++) {
        ret->kinds[kind].time_ns = above.kinds[kind].time_ns;
        ret->kinds[kind].invalid = above.kinds[kind].invalid;
    }
}
