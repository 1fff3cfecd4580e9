/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * replication: two disks on two hosts, equal at every checkpoint. Options:
 *  - mode: "primary": the machine runs here, and `file` leads to the other host's disk; "secondary": it may have to run
 *    here, and `file` is the active disk, an image whose backing image is the hidden disk, an image whose backing image
 *    is the secondary disk, to which the other host writes;
 *  - top-id: of a secondary side, the node by which its user uses all this.
 *
 * Before the start both sides refuse requests. While it runs, a primary side passes them on, and remembers failures
 * rather than returning them: the user's disk goes on without the copy. On the secondary side
 *
 *      user ── replication ── active ── snapshot-access ─┐         writes of the other host
 *                                                        copy-before-write ── secondary
 *                                               hidden ──┘ (target)
 *
 * the user sees the disk of the last checkpoint with its own changes, which are in the active disk; what the other host
 * overwrites is saved to the hidden disk. A checkpoint empties both. A failover writes to the secondary disk what the
 * user sees, and leads the user there.
 */
#include "driver/filter/replication.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "block/block-copy.h"
#include "block/driver.h"
#include "block/graph-change.h"
#include "block/graph.h"
#include "block/image.h"
#include "block/node.h"
#include "block/reopen.h"
#include "driver/filter/copy-before-write.h"
#include "loop/loop.h"
#include "schema/json.h"

enum stage { STAGE_NONE, STAGE_RUNNING, STAGE_DONE };

struct replication_node {
    struct edge *file;          /* const after open; where it leads: request */
    enum replication_mode mode; /* const after open */
    enum stage stage;           /* request */
    int error;                  /* atomic: negative errno; 0 */
    struct node *active;        /* main loop, as the rest: while a secondary side runs; kept by their parents */
    struct node *hidden;
    struct node *secondary;
    struct node *cbw;
    struct node *snapshot;
};

/* --- requests --- */

/* Whether requests are served. */
static int gate(const struct replication_node *replication)
{
    if (replication->stage == STAGE_RUNNING)
        return 0;
    return replication->stage == STAGE_DONE && replication->mode == REPLICATION_MODE_SECONDARY ? 0 : -EIO;
}

/* What a primary side could not do is for whoever looks after both sides. */
static int outcome(struct replication_node *replication, int result)
{
    if (!result || replication->mode == REPLICATION_MODE_SECONDARY)
        return result;
    __atomic_store_n(&replication->error, result, __ATOMIC_RELAXED);
    return 0;
}

static int CO_FN replication_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                       unsigned flags)
{
    struct replication_node *replication = node_state(node);
    int ret = gate(replication);

    /* A read that fails has no data to return. */
    return ret ? ret : co_edge_preadv(replication->file, offset, bytes, iov, flags);
}

static int CO_FN replication_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                        unsigned flags)
{
    struct replication_node *replication = node_state(node);
    int ret = gate(replication);

    return ret ? ret : outcome(replication, co_edge_pwritev(replication->file, offset, bytes, iov, flags));
}

static int CO_FN replication_co_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct replication_node *replication = node_state(node);
    int ret = gate(replication);

    if (!ret)
        ret = co_edge_pwrite_zeroes(replication->file, offset, bytes, flags);
    else
        return ret;
    return ret == -ENOTSUP ? ret : outcome(replication, ret);
}

static int CO_FN replication_co_pdiscard(struct node *node, uint64_t offset, uint64_t bytes)
{
    struct replication_node *replication = node_state(node);
    int ret = gate(replication);

    return ret ? ret : outcome(replication, co_edge_pdiscard(replication->file, offset, bytes));
}

/* --- opening and closing --- */

static bool CO_FN replication_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    const struct blockdev_options_replication *own = &options->u.replication;
    struct replication_node *replication = node_state(node);

    if (own->mode == REPLICATION_MODE_PRIMARY && own->top_id)
        return error_set(err, "The primary side does not support option top-id");
    if (own->mode == REPLICATION_MODE_SECONDARY && !own->top_id)
        return error_set(err, "Missing the option top-id");
    replication->mode = own->mode;
    replication->file = co_node_add_child(node, "file", own->file, EDGE_FILTERED | EDGE_PRIMARY, err);
    return replication->file;
}

/* A secondary side bears that the other host writes to the lowest image. */
static void replication_child_permissions(const struct node *node, const struct edge *edge, uint32_t perm,
                                          uint32_t shared, uint32_t *ret_perm, uint32_t *ret_shared)
{
    const struct replication_node *replication = node_state(node);

    *ret_perm = perm;
    *ret_shared = shared;
    if (replication->mode == REPLICATION_MODE_SECONDARY)
        *ret_shared |= PERM_CONSISTENT_READ | PERM_WRITE | PERM_WRITE_UNCHANGED;
}

/* --- the secondary side's images --- */

static struct node *backing_of(struct node *node, const char *what, struct error **err)
{
    struct edge *backing = node_backing(node);

    if (!backing) {
        error_set(err, "%s disk '%s' doesn't have backing file", what, node_name(node));
        return NULL;
    }
    return edge_child(backing);
}

static bool can_be_emptied(const struct node *node)
{
    const struct block_driver_image *image = node_driver(node)->image;

    return image && image->co_make_empty;
}

static bool CO_FN co_find_images(struct node *node, struct error **err)
{
    struct replication_node *replication = node_state(node);
    const char *top = node_options(node)->u.replication.top_id;
    struct node *top_node = node_find_sibling(node, top, NULL);

    if (!top_node || !node_reaches(top_node, node))
        return error_set(err, "No top_bs or it is invalid: '%s' is no node that uses '%s'", top, node_name(node));
    replication->active = edge_child(replication->file);
    replication->hidden = backing_of(replication->active, "Active", err);
    if (!replication->hidden)
        return false;
    replication->secondary = backing_of(replication->hidden, "Hidden", err);
    if (!replication->secondary)
        return false;
    if (node_length(replication->active) != node_length(replication->hidden) ||
        node_length(replication->hidden) != node_length(replication->secondary))
        return error_set(err,
                         "Active disk, hidden disk, secondary disk's length are not the same: %" PRIu64 ", %" PRIu64
                         ", %" PRIu64 " bytes",
                         node_length(replication->active), node_length(replication->hidden),
                         node_length(replication->secondary));
    if (!can_be_emptied(replication->active) || !can_be_emptied(replication->hidden))
        return error_set(err, "Active disk '%s' or hidden disk '%s' doesn't support make_empty",
                         node_name(replication->active), node_name(replication->hidden));
    if (node_read_only(replication->active))
        return error_set(err, "Active disk '%s' is read-only", node_name(replication->active));
    return co_node_make_writable(replication->hidden, true, err);
}

/* All requests that could see what is done rest. */
static struct graph_change *CO_FN co_begin(struct replication_node *replication, struct node *node)
{
    struct graph_change *change = co_graph_change_begin(node_graph(node));

    co_graph_change_drain(change, node);
    co_graph_change_drain(change, replication->active);
    co_graph_change_drain(change, replication->hidden);
    co_graph_change_drain(change, replication->secondary);
    return change;
}

/* The user for whom this side changes images by itself. */
static struct handle *CO_FN co_borrow(struct node *node, uint32_t perm, struct error **err)
{
    struct handle_options options = {.name = "replication", .perm = perm, .shared = PERM_ALL, .stays = true};

    return co_handle_new(node, &options, err);
}

static bool CO_FN co_empty_one(struct node *node, struct error **err)
{
    struct handle *handle = co_borrow(node, PERM_CONSISTENT_READ | PERM_WRITE, err);
    int ret;

    if (!handle)
        return false;
    ret = node_driver(node)->image->co_make_empty(node);
    co_handle_free(handle);
    return !ret || error_set_errno(err, ret, "Cannot make disk '%s' empty", node_name(node));
}

static bool CO_FN co_empty(struct replication_node *replication, struct error **err)
{
    return co_empty_one(replication->active, err) && co_empty_one(replication->hidden, err);
}

static struct node *CO_FN co_open_node(struct graph *graph, struct json *json, struct error **err)
{
    AUTO(json) taken = json;
    AUTO(blockdev_options) options = blockdev_options_parse(taken, err);

    return options ? co_graph_open_node(graph, NULL, options, err) : NULL;
}

static struct json *filter_options(const char *driver, const struct node *file)
{
    struct json *options = json_object();

    json_set(options, "driver", json_string(driver));
    json_set(options, "file", json_string(node_name(file)));
    return options;
}

static bool CO_FN co_open_filters(struct replication_node *replication, struct graph *graph, struct error **err)
{
    struct json *options = filter_options("copy-before-write", replication->secondary);

    json_set(options, "target", json_string(node_name(replication->hidden)));
    json_set(options, "on-cbw-error", json_string("break-snapshot"));
    replication->cbw = co_open_node(graph, options, err);
    if (!replication->cbw)
        return false;
    replication->snapshot = co_open_node(graph, filter_options("snapshot-access", replication->cbw), err);
    if (replication->snapshot)
        return true;
    co_graph_release_node(replication->cbw);
    return false;
}

/* Puts the filters in their places. */
static bool CO_FN co_connect(struct replication_node *replication, struct graph *graph, struct error **err)
{
    struct graph_change *change = co_graph_change_begin(graph);
    bool ok = co_graph_change_replace(change, replication->secondary, replication->cbw, err) &&
              co_graph_change_set_child(change, node_backing(replication->active), replication->snapshot, err);

    return co_graph_change_end(change, ok, err);
}

/* And takes them out. */
static bool CO_FN co_disconnect(struct replication_node *replication, struct graph *graph, struct error **err)
{
    struct graph_change *change = co_graph_change_begin(graph);
    bool ok = co_graph_change_set_child(change, node_backing(replication->active), replication->hidden, err) &&
              co_graph_change_replace(change, replication->cbw, replication->secondary, err);

    return co_graph_change_end(change, ok, err);
}

/* --- start --- */

static bool CO_FN co_start_secondary(struct node *node, struct error **err)
{
    struct replication_node *replication = node_state(node);
    struct graph *graph = node_graph(node);
    struct graph_change *change;
    bool ok;

    if (!co_find_images(node, err))
        return false;
    change = co_begin(replication, node);
    ok = co_empty(replication, err) && co_open_filters(replication, graph, err);
    if (ok && !co_connect(replication, graph, err)) {
        co_graph_release_node(replication->snapshot);
        ok = false;
    }
    if (ok)
        replication->stage = STAGE_RUNNING;
    return co_graph_change_end(change, ok, err) && ok;
}

static bool CO_FN co_start(struct node *node, enum replication_mode mode, struct error **err)
{
    struct replication_node *replication = node_state(node);
    struct graph_change *change;

    if (replication->stage != STAGE_NONE)
        return error_set(err, "Block replication is running or done: node '%s'", node_name(node));
    if (replication->mode != mode)
        return error_set(err, "The parameter mode's value is invalid, needs '%s', but got '%s': node '%s'",
                         replication_mode_name(replication->mode), replication_mode_name(mode), node_name(node));
    replication->error = 0;
    if (mode == REPLICATION_MODE_SECONDARY)
        return co_start_secondary(node, err);
    change = co_graph_change_begin(node_graph(node));
    co_graph_change_drain(change, node);
    replication->stage = STAGE_RUNNING;
    return co_graph_change_end(change, true, err);
}

/* --- checkpoint --- */

static bool check_error(struct node *node, struct error **err)
{
    struct replication_node *replication = node_state(node);
    int error = __atomic_load_n(&replication->error, __ATOMIC_RELAXED);

    if (!error && replication->stage == STAGE_RUNNING && replication->mode == REPLICATION_MODE_SECONDARY)
        error = copy_before_write_lost(replication->cbw);
    return !error || error_set_errno(err, error, "I/O error occurred: node '%s'", node_name(node));
}

static bool CO_FN co_checkpoint(struct node *node, struct error **err)
{
    struct replication_node *replication = node_state(node);
    struct graph_change *change;
    struct block_copy *copy;
    bool ok;

    if (replication->stage != STAGE_RUNNING)
        return error_set(err, "Block replication is not running: node '%s'", node_name(node));
    if (!check_error(node, err))
        return false;
    if (replication->mode == REPLICATION_MODE_PRIMARY)
        return true;
    change = co_begin(replication, node);
    ok = co_empty(replication, err);
    copy = copy_before_write_copy(replication->cbw);
    /* All is to be saved again. */
    if (ok)
        block_copy_mark(copy, 0, block_copy_length(copy));
    return co_graph_change_end(change, ok, err) && ok;
}

/* --- stop --- */

/* For how many of the bytes what the user sees is not just what the secondary disk has; in *ret_same whether it is. */
static int CO_FN co_look(struct replication_node *replication, struct edge *hidden, uint64_t offset, uint64_t bytes,
                         uint64_t *ret_bytes, bool *ret_same)
{
    uint64_t below;
    int changed = co_edge_allocated_above(replication->file, replication->snapshot, offset, bytes, ret_bytes);
    int saved =
        changed < 0 ? changed : co_edge_allocated_above(hidden, replication->secondary, offset, *ret_bytes, &below);

    if (saved < 0)
        return saved;
    *ret_bytes = MIN(*ret_bytes, below);
    *ret_same = !changed && !saved;
    return 0;
}

/* Writes what the user sees to the secondary disk. Everything rests. */
static int CO_FN co_merge(struct replication_node *replication, struct edge *hidden, struct edge *secondary)
{
    enum { STEP_BYTES = 1 << 20 };
    uint64_t length = node_length(replication->secondary);
    void *buffer = loop_buffer_get(STEP_BYTES);
    int ret = buffer ? 0 : -ENOMEM;

    for (uint64_t offset = 0, now = 0; offset < length && !ret; offset += now) {
        bool same;

        ret = co_look(replication, hidden, offset, MIN(length - offset, STEP_BYTES), &now, &same);
        if (!ret && !same)
            ret = co_edge_pread(replication->file, offset, now, buffer, 0);
        if (!ret && !same)
            ret = co_edge_pwrite(secondary, offset, now, buffer, 0);
    }
    if (buffer)
        loop_buffer_put(buffer, STEP_BYTES);
    return ret ? ret : co_edge_flush(secondary);
}

static bool CO_FN co_fail_over(struct node *node, struct error **err)
{
    struct replication_node *replication = node_state(node);
    struct handle *hidden = co_borrow(replication->hidden, PERM_CONSISTENT_READ, err);
    struct handle *secondary = hidden ? co_borrow(replication->cbw, PERM_CONSISTENT_READ | PERM_WRITE, err) : NULL;
    struct edge *below = node_primary(replication->cbw);
    int ret;

    /* The handle on the filter lets its child be written to, where this writes. */
    if (!secondary) {
        co_handle_free(hidden);
        return false;
    }
    ret = co_merge(replication, handle_edge(hidden), below);
    co_handle_free(secondary);
    co_handle_free(hidden);
    return !ret || error_set_errno(err, ret, "Cannot write the active disk '%s' to the secondary disk '%s'",
                                   node_name(replication->active), node_name(replication->secondary));
}

/* After a failover the user's way leads to the secondary disk, which has everything. */
static bool CO_FN co_lead_to_secondary(struct replication_node *replication, struct graph *graph, struct error **err)
{
    struct graph_change *change = co_graph_change_begin(graph);
    bool ok = co_graph_change_set_child(change, replication->file, replication->secondary, err);

    return co_graph_change_end(change, ok, err);
}

static bool CO_FN co_stop_resting(struct node *node, bool failover, struct error **err)
{
    struct replication_node *replication = node_state(node);
    struct graph_change *change = co_begin(replication, node);
    struct graph *graph = node_graph(node);
    bool ok = !failover || co_fail_over(node, err);

    ok = ok && co_disconnect(replication, graph, err) && co_empty(replication, err);
    if (ok) {
        replication->stage = STAGE_DONE;
        replication->cbw = replication->snapshot = NULL;
        ok = !failover || co_lead_to_secondary(replication, graph, err);
    }
    return co_graph_change_end(change, ok, err) && ok;
}

/* Nodes that nobody needs any more must not go before all that rests is released. */
static bool CO_FN co_stop_secondary(struct node *node, bool failover, struct error **err)
{
    const struct replication_node *replication = node_state(node);
    struct node *const kept[] = {replication->snapshot, replication->cbw, replication->active, replication->hidden};
    struct handle *handles[G_N_ELEMENTS(kept)];
    bool ok;

    for (size_t i = 0; i < G_N_ELEMENTS(kept); i++)
        handles[i] = co_borrow(kept[i], 0, NULL);
    ok = co_stop_resting(node, failover, err);
    for (size_t i = 0; i < G_N_ELEMENTS(kept); i++)
        co_handle_free(handles[i]);
    return ok;
}

static bool CO_FN co_stop(struct node *node, bool failover, struct error **err)
{
    struct replication_node *replication = node_state(node);
    struct graph_change *change;

    if (replication->stage != STAGE_RUNNING)
        return error_set(err, "Block replication is not running: node '%s'", node_name(node));
    if (replication->mode == REPLICATION_MODE_SECONDARY)
        return co_stop_secondary(node, failover, err);
    change = co_graph_change_begin(node_graph(node));
    co_graph_change_drain(change, node);
    replication->stage = STAGE_DONE;
    return co_graph_change_end(change, true, err);
}

static void CO_FN replication_co_close(struct node *node)
{
    struct replication_node *replication = node_state(node);

    if (replication->stage == STAGE_RUNNING && replication->mode == REPLICATION_MODE_SECONDARY)
        (void)co_disconnect(replication, node_graph(node), NULL);
}

/* --- all of them --- */

/* Borrowed nodes, as they are now. */
static GPtrArray *all_nodes(struct graph *graph)
{
    GPtrArray *nodes = g_ptr_array_new();

    for (size_t i = 0; i < graph_node_count(graph); i++) {
        struct node *node = graph_node_at(graph, i);

        if (node_driver(node) == &replication_driver)
            g_ptr_array_add(nodes, node);
    }
    return nodes;
}

bool CO_FN co_replication_start_all(struct graph *graph, enum replication_mode mode, struct error **err)
{
    g_autoptr(GPtrArray) nodes = all_nodes(graph);

    for (unsigned i = 0; i < nodes->len; i++) {
        if (co_start(g_ptr_array_index(nodes, i), mode, err))
            continue;
        while (i-- > 0) {
            struct node *node = g_ptr_array_index(nodes, i);

            if (co_stop(node, false, NULL))
                ((struct replication_node *)node_state(node))->stage = STAGE_NONE;
        }
        return false;
    }
    return true;
}

bool CO_FN co_replication_checkpoint_all(struct graph *graph, struct error **err)
{
    g_autoptr(GPtrArray) nodes = all_nodes(graph);

    for (unsigned i = 0; i < nodes->len; i++) {
        if (!co_checkpoint(g_ptr_array_index(nodes, i), err))
            return false;
    }
    return true;
}

bool replication_check_all(struct graph *graph, struct error **err)
{
    g_autoptr(GPtrArray) nodes = all_nodes(graph);

    for (unsigned i = 0; i < nodes->len; i++) {
        if (!check_error(g_ptr_array_index(nodes, i), err))
            return false;
    }
    return true;
}

bool CO_FN co_replication_stop_all(struct graph *graph, bool failover, struct error **err)
{
    g_autoptr(GPtrArray) nodes = all_nodes(graph);
    bool ok = true;

    /* One that fails leaves the others no reason to go on. */
    for (unsigned i = 0; i < nodes->len; i++)
        ok = co_stop(g_ptr_array_index(nodes, i), failover, ok ? err : NULL) && ok;
    return ok;
}

static const char *const replication_significant_options[] = {"mode", "top-id", NULL};

const struct block_driver replication_driver = {
    .name = "replication",
    .kind = BLOCK_DRIVER_FILTER,
    .state_size = sizeof(struct replication_node),
    .passthrough = true,
    .co_open = replication_co_open,
    .co_close = replication_co_close,
    .co_preadv = replication_co_preadv,
    .co_pwritev = replication_co_pwritev,
    .co_pwrite_zeroes = replication_co_pwrite_zeroes,
    .co_pdiscard = replication_co_pdiscard,
    .child_permissions = replication_child_permissions,
    .significant_options = replication_significant_options,
};
