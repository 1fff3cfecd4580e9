/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/snapshot.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "block/graph-change.h"
#include "block/graph-internal.h"
#include "block/image.h"
#include "block/new-image.h"
#include "block/reopen.h"
#include "loop/loop.h"

static struct node *find(struct graph *graph, const char *device, const char *name, struct error **err)
{
    struct node *node = name ? graph_find(graph, name, NULL) : NULL;

    if (!node)
        error_set(err, "Cannot find device='%s' nor node-name='%s'", device, name ? name : "");
    return node;
}

static bool has_backing_slot(const struct node *node)
{
    return node->driver->image && node->driver->image->backing_file;
}

/* --- external --- */

/* An overlay that stands on its node, to be taken off again. */
struct overlay {
    struct node *node;
    struct node *overlay;
    struct handle *keep; /* on the overlay, which nobody else may need once it has been taken off again */
    GPtrArray *moved;    /* struct edge *: parents that the node has lost to the overlay */
};

static void CO_FN co_overlay_abort(void *opaque)
{
    struct overlay *step = opaque;
    struct graph_change *change = co_graph_change_begin(step->node->graph);
    AUTO(error) err = NULL;
    bool ok = true;

    co_graph_change_remove_child(change, step->overlay->backing);
    for (unsigned i = 0; i < step->moved->len && ok; i++)
        ok = co_graph_change_set_child(change, g_ptr_array_index(step->moved, i), step->node, &err);
    if (!co_graph_change_end(change, ok, &err))
        log_warning("Node '%s' stays on top of '%s': %s", step->overlay->name, step->node->name, error_message(err));
}

static void CO_FN co_overlay_clean(void *opaque)
{
    struct overlay *step = opaque;

    co_handle_free(step->keep);
    g_ptr_array_free(step->moved, true);
    g_free(step);
}

static const struct transaction_ops overlay_ops = {.co_abort = co_overlay_abort, .co_clean = co_overlay_clean};

static bool check_overlay(const struct node *overlay, struct error **err)
{
    if (!has_backing_slot(overlay))
        return error_set(err, "The overlay does not support backing images");
    if (overlay->backing)
        return error_set(err, "The overlay already has a backing image");
    /* One that is only written to, such as the target of a mirror, shows nobody what it has. */
    if (overlay->perm & PERM_CONSISTENT_READ)
        return error_set(err, "The overlay is already in use");
    return true;
}

/* What was written before the snapshot: flushes of the overlay do not reach down to it. */
static bool CO_FN co_settle_data(struct graph_change *change, struct node *node, struct error **err)
{
    int ret;

    co_graph_change_drain(change, node);
    ret = co_node_flush(node);
    return !ret || error_set_errno(err, ret, "Could not flush node '%s'", node->name);
}

/* On failure an overlay that nobody needs has been closed. */
static bool CO_FN co_attach(struct transaction *transaction, struct node *node, struct node *overlay,
                            struct error **err)
{
    struct handle_options keep = {
        .name = "blockdev-snapshot", .shared = PERM_ALL, .follows_length = true, .stays = true};
    struct overlay *step = g_new0(struct overlay, 1);
    struct graph_change *change = co_graph_change_begin(node->graph);
    bool ok = check_overlay(overlay, err);

    *step = (struct overlay){.node = node, .overlay = overlay, .moved = g_ptr_array_new()};
    if (ok) {
        step->keep = co_handle_new(overlay, &keep, err);
        ok = step->keep;
    }
    if (ok && node_reaches(overlay, node))
        ok = error_set(err, "Making '%s' a backing child of '%s' would create a cycle", node->name, overlay->name);
    for (unsigned i = 0; i < node->parents->len && ok; i++) {
        struct edge *edge = g_ptr_array_index(node->parents, i);

        if (!edge->handle || !edge->handle->stays)
            g_ptr_array_add(step->moved, edge);
    }
    ok = ok && co_settle_data(change, node, err) && co_graph_change_replace(change, node, overlay, err) &&
         co_graph_change_add_child(change, overlay, "backing", node, EDGE_COW, err);
    ok = co_graph_change_end(change, ok, err);
    if (ok) {
        transaction_add(transaction, &overlay_ops, step);
        return true;
    }
    if (!step->keep)
        co_graph_release_node(overlay);
    co_overlay_clean(step);
    return false;
}

bool CO_FN co_snapshot_do(struct transaction *transaction, struct graph *graph, const struct blockdev_snapshot *what,
                          struct error **err)
{
    struct node *node = find(graph, what->node, what->node, err);
    struct node *overlay = node ? find(graph, what->overlay, what->overlay, err) : NULL;

    if (!overlay)
        return false;
    if (node == overlay)
        return error_set(err, "Making '%s' a backing child of '%s' would create a cycle", what->overlay, what->overlay);
    if (!node_check_idle(node, err))
        return false;
    return co_attach(transaction, node, overlay, err);
}

/* The format's header names the node as its backing image. */
static bool CO_FN co_make_overlay(struct node *node, const struct new_image *image, struct error **err)
{
    g_autofree char *backing = node_filename(node);
    struct new_image with_backing = *image;

    with_backing.backing_file = backing;
    with_backing.backing_format = node->driver->name;
    return co_new_image_create(node->graph, &with_backing, err);
}

bool CO_FN co_snapshot_do_sync(struct transaction *transaction, struct graph *graph,
                               const struct blockdev_snapshot_sync *what, struct error **err)
{
    struct node *node = find(graph, what->device ? what->device : "", what->node_name, err);
    struct new_image image = {.filename = what->snapshot_file, .format = what->format ? what->format : "qcow2"};
    bool existing = what->has_mode && what->mode == NEW_IMAGE_MODE_EXISTING;
    struct node *overlay;

    if (!node || !node_check_idle(node, err))
        return false;
    if (what->snapshot_node_name && graph_find(graph, what->snapshot_node_name, NULL))
        return error_set(err, "New overlay node-name already in use: '%s'", what->snapshot_node_name);
    if (what->node_name && !what->snapshot_node_name)
        return error_set(err, "New overlay node-name missing");
    image.size = node_length(node);
    if (!existing && !co_make_overlay(node, &image, err))
        return false;
    overlay = co_new_image_open(graph, &image, what->snapshot_node_name, node, true, err);
    if (!overlay)
        return false;
    return co_attach(transaction, node, overlay, err);
}

/* --- internal --- */

struct internal {
    struct node *node;
    struct snapshot_info *info;
};

static void CO_FN co_internal_abort(void *opaque)
{
    struct internal *internal = opaque;
    struct graph_change *change = co_graph_change_begin(internal->node->graph);
    AUTO(snapshot_info) gone = NULL;
    AUTO(error) err = NULL;

    co_graph_change_drain(change, internal->node);
    gone = internal->node->driver->image->co_snapshot_delete(internal->node, internal->info->id, internal->info->name,
                                                             &err);
    if (!gone)
        log_warning("Node '%s': snapshot '%s' stays: %s", internal->node->name, internal->info->name,
                    error_message(err));
    co_graph_change_end(change, true, NULL);
}

static void CO_FN co_internal_clean(void *opaque)
{
    struct internal *internal = opaque;

    snapshot_info_free(internal->info);
    g_free(internal);
}

static const struct transaction_ops internal_ops = {.co_abort = co_internal_abort, .co_clean = co_internal_clean};

static bool has_snapshot(const struct snapshot_info_array *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++) {
        if (!strcmp(list->items[i]->name, name))
            return true;
    }
    return false;
}

static bool CO_FN co_check_internal(struct node *node, const char *name, struct error **err)
{
    const struct block_driver_image *image = node->driver->image;
    AUTO(snapshot_info_array) list = NULL;

    if (node->read_only)
        return error_set(err, "Device '%s' is read only", node->name);
    if (!image || !image->co_snapshot_create || !image->co_snapshot_list)
        return error_set(err, "Block format '%s' used by device '%s' does not support internal snapshots",
                         node->driver->name, node->name);
    if (!*name)
        return error_set(err, "Name is empty");
    list = image->co_snapshot_list(node, err);
    if (!list)
        return false;
    if (has_snapshot(list, name))
        return error_set(err, "Snapshot with name '%s' already exists on device '%s'", name, node->name);
    return true;
}

bool CO_FN co_snapshot_do_internal(struct transaction *transaction, struct graph *graph,
                                   const struct blockdev_snapshot_internal *what, struct error **err)
{
    struct node *node = find(graph, what->device, what->device, err);
    int64_t now_us = loop_wall_time_us();
    struct graph_change *change;
    struct internal *internal;
    bool ok;

    if (!node || !node_check_idle(node, err) || !co_check_internal(node, what->name, err))
        return false;
    internal = g_new0(struct internal, 1);
    internal->node = node;
    internal->info = g_new0(struct snapshot_info, 1);
    internal->info->name = g_strdup(what->name);
    internal->info->date_sec = now_us / 1000000;
    internal->info->date_nsec = now_us % 1000000 * 1000;
    change = co_graph_change_begin(graph);
    co_graph_change_drain(change, node);
    ok = node->driver->image->co_snapshot_create(node, internal->info, err);
    co_graph_change_end(change, ok, NULL);
    if (ok)
        transaction_add(transaction, &internal_ops, internal);
    else
        co_internal_clean(internal);
    return ok;
}

/* The words for it are those that programs know. */
static bool CO_FN co_check_present(struct node *node, const char *id, const char *name, struct error **err)
{
    AUTO(snapshot_info_array) list = node->driver->image->co_snapshot_list(node, err);

    for (size_t i = 0; list && i < list->count; i++) {
        if ((!id || !strcmp(list->items[i]->id, id)) && (!name || !strcmp(list->items[i]->name, name)))
            return true;
    }
    return list && error_set(err, "Snapshot with id '%s' and name '%s' does not exist on device '%s'", id ? id : "null",
                             name ? name : "null", node->name);
}

struct snapshot_info *CO_FN co_snapshot_delete_internal(struct graph *graph, const char *device, const char *id,
                                                        const char *name, struct error **err)
{
    struct node *node = find(graph, device, device, err);
    const struct block_driver_image *image = node ? node->driver->image : NULL;
    struct snapshot_info *info;
    struct graph_change *change;

    if (!node)
        return NULL;
    if (!id && !name) {
        error_set(err, "Name or id must be provided");
        return NULL;
    }
    if (!image || !image->co_snapshot_delete) {
        error_set(err, "Block format '%s' used by device '%s' does not support internal snapshots", node->driver->name,
                  device);
        return NULL;
    }
    if (node->read_only) {
        error_set(err, "Device '%s' is read only", device);
        return NULL;
    }
    if (!node_check_idle(node, err))
        return NULL;
    if (!co_check_present(node, id, name, err))
        return NULL;
    change = co_graph_change_begin(graph);
    co_graph_change_drain(change, node);
    info = image->co_snapshot_delete(node, id, name, err);
    co_graph_change_end(change, info, NULL);
    return info;
}

/* --- what a header says of its backing image --- */

bool CO_FN co_change_backing_file(struct graph *graph, const struct change_backing_file_arg *what, struct error **err)
{
    struct node *root = find(graph, what->device, what->device, err);
    struct node *node = root ? find(graph, "", what->image_node_name, err) : NULL;
    g_autofree char *format = NULL;
    bool was_read_only;
    bool ok;

    if (!node)
        return false;
    if (!node_reaches(root, node))
        return error_set(err, "'%s' and image file are not in the same chain", what->device);
    if (!node_check_idle(node, err))
        return false;
    if (!node->backing)
        return error_set(err, "not allowing backing file change on an image without a backing file");
    if (!node->driver->image || !node->driver->image->co_change_backing_file)
        return error_set(err, "Could not change backing file to '%s': format '%s' cannot", what->backing_file,
                         node->driver->name);
    was_read_only = node->read_only;
    if (!co_node_make_writable(node, true, err))
        return false;
    format = node->driver->image->backing_format(node);
    ok = node->driver->image->co_change_backing_file(node, what->backing_file, format, err);
    if (was_read_only && !co_node_make_writable(node, false, ok ? err : NULL))
        ok = false;
    return ok;
}
