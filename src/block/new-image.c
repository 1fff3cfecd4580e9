/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/new-image.h"

#include <string.h>

#include "base/error.h"
#include "block/driver.h"
#include "block/filename-options.h"
#include "block/filename.h"
#include "block/graph-change.h"
#include "block/graph.h"
#include "block/image.h"
#include "block/node.h"
#include "gen/types.h"
#include "schema/json.h"

static const struct block_driver *find_format(const struct graph *graph, const char *name, struct error **err)
{
    int id = blockdev_driver_value(name);
    const struct block_driver *driver = id < 0 ? NULL : graph_find_driver(graph, (enum blockdev_driver)id, NULL);

    if (!driver)
        error_set(err, "Unknown driver '%s'", name);
    return driver;
}

/* The format of a new image, by the words that are used for that. */
static const struct block_driver *find_new_format(const struct graph *graph, const struct new_image *image,
                                                  struct error **err)
{
    const struct block_driver *format = find_format(graph, image->format, NULL);

    if (!format) {
        error_set(err, "Unknown file format '%s'", image->format);
        return NULL;
    }
    return format;
}

/* raw is made by making its file, and so is what has no format but the file's own driver. */
static bool is_plain(const struct block_driver *driver, const struct json *file)
{
    return !strcmp(driver->name, json_get_string(json_get(file, "driver"))) ||
           (!strcmp(driver->name, "raw") && !(driver->image && driver->image->co_create));
}

static bool CO_FN co_make(struct graph *graph, const struct block_driver *driver, const struct json *json,
                          struct error **err)
{
    AUTO(blockdev_create_options) options = NULL;

    if (!driver->image || !driver->image->co_create)
        return error_set(err, "Driver '%s' does not support image creation", driver->name);
    options = blockdev_create_options_parse(json, err);
    return options && driver->image->co_create(graph, options, err);
}

/* A file is made; what cannot be made (a device, a server's disk) must be there. */
static bool CO_FN co_make_file(struct graph *graph, const struct json *file, uint64_t size, struct error **err)
{
    const struct block_driver *driver = find_format(graph, json_get_string(json_get(file, "driver")), err);
    AUTO(json) options = NULL;

    if (!driver)
        return false;
    if (!driver->image || !driver->image->co_create)
        return true;
    options = json_clone(file);
    json_set(options, "size", json_uint(size));
    return co_make(graph, driver, options, err);
}

bool CO_FN co_new_image_create(struct graph *graph, const struct new_image *image, struct error **err)
{
    const struct block_driver *format = find_new_format(graph, image, err);
    AUTO(json) file = format ? co_filename_protocol_options(image->filename, err) : NULL;
    AUTO(json) options = NULL;
    bool plain = file && is_plain(format, file);

    if (!file)
        return false;
    if (!plain && (!format->image || !format->image->co_create))
        return error_set(err, "Format driver '%s' does not support image creation", image->format);
    if (image->backing_file && !(format->image && format->image->backing_file))
        return error_set(err, "Backing file not supported for file format '%s'", image->format);
    if (!co_make_file(graph, file, plain ? image->size : 0, err))
        return false;
    if (plain)
        return true;
    options = json_object();
    json_set(options, "driver", json_string(image->format));
    json_set(options, "file", json_clone(file));
    json_set(options, "size", json_uint(image->size));
    if (image->backing_file) {
        json_set(options, "backing-file", json_string(image->backing_file));
        json_set(options, "backing-fmt", json_string(image->backing_format));
    }
    return co_make(graph, format, options, err);
}

static void set_like(struct json *options, const struct node *like)
{
    struct json *cache = json_object();

    json_set(cache, "direct", json_bool(node_cache_direct(like)));
    json_set(cache, "no-flush", json_bool(node_cache_no_flush(like)));
    json_set(options, "cache", cache);
    json_set(options, "read-only", json_bool(false));
    json_set(options, "discard", json_string(node_discard_unmap(like) ? "unmap" : "ignore"));
}

struct node *CO_FN co_new_image_open(struct graph *graph, const struct new_image *image, const char *node_name,
                                     const struct node *like, bool no_backing, struct error **err)
{
    struct image_name name = {.filename = image->filename, .format = image->format};
    AUTO(json) options = co_image_options(&name, err);
    AUTO(blockdev_options) parsed = NULL;
    const struct block_driver *driver;
    bool guessed_raw = false;

    if (!options || (!json_get(options, "driver") && !co_image_options_probe(graph, options, &guessed_raw, err)))
        return NULL;
    driver = find_format(graph, json_get_string(json_get(options, "driver")), err);
    if (!driver)
        return NULL;
    set_like(options, like);
    if (node_name)
        json_set(options, "node-name", json_string(node_name));
    if (no_backing && driver->image && driver->image->backing_file)
        json_set(options, "backing", json_null());
    parsed = image_options_parse(options, err);
    return parsed ? co_graph_open_node(graph, NULL, parsed, err) : NULL;
}
