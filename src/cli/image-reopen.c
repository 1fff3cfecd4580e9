/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The options of the image's node as they are, with what changes; the graph decides what may. The file beneath is a
 * node of its own where the image's format was found out, and has its own options then.
 */
#include "cli/image-reopen.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "block/driver.h"
#include "block/filename-options.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/image.h"
#include "block/node.h"
#include "block/reopen.h"
#include "cli/tool.h"
#include "gen/types.h"
#include "schema/json.h"

static bool is_object(const struct json *value)
{
    return value && json_get_kind(value) == JSON_OBJECT;
}

/* The options of a node as JSON, owned; without its name where it is to stand inside of others. */
static struct json *options_of(const struct node *node, bool inside)
{
    struct json *options = blockdev_options_write(node_options(node));

    if (inside)
        json_free(json_take(options, "node-name"));
    return options;
}

static void merge(struct json *options, const struct node *node, const struct json *changes);

/* What a child is to be like: its definition, where it has none in `options` the one that it was opened with. */
static struct json *merged_child(const struct json *options, const struct node *node, const char *name,
                                 const struct json *changes)
{
    const struct json *there = json_get(options, name);
    const struct edge *edge = node ? node_child(node, name) : NULL;
    const struct node *child = edge ? edge_child(edge) : NULL;
    struct json *merged = is_object(there) ? json_clone(there) : child ? options_of(child, true) : json_object();

    merge(merged, child, changes);
    return merged;
}

/* Changes go into `options`, which are those of `node` (NULL: of none that there is). Depth is bounded by the parser.
 */
static void merge(struct json *options, const struct node *node, const struct json *changes)
{
    for (size_t i = 0; changes && i < json_count(changes); i++) {
        const char *name;
        const struct json *value = json_member(changes, i, &name);

        json_set(options, name, is_object(value) ? merged_child(options, node, name, value) : json_clone(value));
    }
}

/* What would be another node altogether is refused before its options are looked at. */
static bool keeps_driver(const struct node *node, const struct json *changes, struct error **err)
{
    const struct json *driver = json_get(changes, "driver");

    if (driver &&
        (json_get_kind(driver) != JSON_STRING || strcmp(json_get_string(driver), node_driver_name(node)) != 0))
        return error_set(err, "Cannot change the option 'driver'");
    for (size_t i = 0; i < json_count(changes); i++) {
        const char *name;
        const struct json *value = json_member(changes, i, &name);
        const struct edge *edge = is_object(value) ? node_child(node, name) : NULL;

        if (edge && !keeps_driver(edge_child(edge), value, err))
            return false;
    }
    return true;
}

static bool check_change(const struct image *image, const struct image_reopen *change, struct error **err)
{
    const struct json *options = change->options;
    const struct json *cache = options ? json_get(options, "cache") : NULL;

    if (!options)
        return true;
    if (change->has_writable && json_get(options, "read-only"))
        return error_set(err, "Cannot set both -r/-w and 'read-only'");
    if (change->has_cache && cache)
        return error_set(err, "Cannot set both -c and the cache options");
    return keeps_driver(image->node, options, err);
}

static void set_flags(struct json *options, const struct image_reopen *change)
{
    struct json *cache;

    if (change->has_writable)
        json_set(options, "read-only", json_bool(!change->writable));
    if (!change->has_cache)
        return;
    cache = json_object();
    json_set(cache, "direct", json_bool(change->cache.direct));
    json_set(cache, "no-flush", json_bool(change->cache.no_flush));
    json_set(options, "cache", cache);
}

/* Backing images that are not spoken of stay. */
static void keep_backing(struct json *options, const struct node *node)
{
    struct edge *backing = node_backing(node);

    if (json_get(options, "backing") || !node_driver(node)->image || !node_driver(node)->image->backing_file)
        return;
    json_set(options, "backing", backing ? json_string(node_name(edge_child(backing))) : json_null());
}

static bool CO_FN co_reopen_nodes(struct tool *tool, struct image *image, const struct image_reopen *change,
                                  struct error **err)
{
    struct node *file = image->file_name ? graph_find(tool->graph, image->file_name, NULL) : NULL;
    AUTO(json) changes = change->options ? json_clone(change->options) : json_object();
    AUTO(json) file_changes = file && is_object(json_get(changes, "file")) ? json_take(changes, "file") : NULL;
    AUTO(json) top = options_of(image->node, false);
    AUTO(json) below = file ? options_of(file, false) : NULL;
    AUTO(blockdev_options_array) all = g_new0(struct blockdev_options_array, 1);
    bool writable = change->has_writable;

    all->items = g_new0(struct blockdev_options *, 2);
    merge(top, image->node, changes);
    set_flags(top, change);
    keep_backing(top, image->node);
    all->items[all->count] = image_options_parse(top, err);
    if (!all->items[all->count])
        return false;
    all->count++;
    if (file) {
        merge(below, file, file_changes);
        set_flags(below, change);
        if (!writable && json_get(changes, "read-only"))
            json_set(below, "read-only", json_clone(json_get(changes, "read-only")));
        all->items[all->count] = image_options_parse(below, err);
        if (!all->items[all->count])
            return false;
        all->count++;
    }
    return co_graph_reopen(tool->graph, all, err);
}

static struct handle *CO_FN co_new_handle(struct image *image, bool writethrough, struct error **err)
{
    struct handle_options how = {
        .name = "the tool",
        .perm = PERM_CONSISTENT_READ | (node_read_only(image->node) ? 0 : PERM_WRITE),
        .shared = PERM_ALL,
        .writethrough = writethrough,
        .follows_length = true,
    };

    return co_handle_new(image->node, &how, err);
}

bool CO_FN co_image_reopen(struct tool *tool, struct image *image, const struct image_reopen *change,
                           struct error **err)
{
    bool was_writable = !node_read_only(image->node);
    bool writethrough = change->has_cache ? change->cache.writethrough : image->writethrough;
    struct handle *handle;

    assert(image->handle);
    if (!check_change(image, change, err))
        return false;
    /* Who wants to write keeps the node from becoming read-only. */
    if (!co_handle_set_permissions(image->handle, PERM_CONSISTENT_READ, PERM_ALL, err))
        return false;
    if (!co_reopen_nodes(tool, image, change, err)) {
        if (was_writable)
            (void)!co_handle_set_permissions(image->handle, PERM_CONSISTENT_READ | PERM_WRITE, PERM_ALL, NULL);
        return false;
    }
    handle = co_new_handle(image, writethrough, err);
    if (!handle)
        return false;
    co_handle_free(image->handle);
    image->handle = handle;
    image->writethrough = writethrough;
    return true;
}
