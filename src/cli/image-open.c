/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/image-open.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "block/driver.h"
#include "block/filename-options.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/image.h"
#include "block/node.h"
#include "block/probe.h"
#include "cli/tool.h"
#include "gen/types.h"
#include "schema/json.h"
#include "schema/schema.h"

bool cache_mode_parse(const char *text, struct cache_mode *ret)
{
    static const struct {
        const char *name;
        struct cache_mode mode;
    } modes[] = {
        {"none", {.direct = true}},
        {"off", {.direct = true}},
        {"directsync", {.direct = true, .writethrough = true}},
        {"writeback", {0}},
        {"unsafe", {.no_flush = true}},
        {"writethrough", {.writethrough = true}},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
        if (!strcmp(text, modes[i].name)) {
            *ret = modes[i].mode;
            return true;
        }
    }
    return false;
}

/* --- how to open, as options --- */

static void set_default(struct json *options, const char *key, struct json *value)
{
    if (json_get(options, key))
        json_free(value);
    else
        json_set(options, key, value);
}

/* What the command line says besides the name; the name's own options count more. */
static void add_common(struct json *options, const struct image_open *open)
{
    const struct json *cache = json_get(options, "cache");
    struct json *merged = cache && json_get_kind(cache) == JSON_OBJECT ? json_clone(cache) : json_object();

    set_default(merged, "direct", json_bool(open->cache.direct));
    set_default(merged, "no-flush", json_bool(open->cache.no_flush));
    json_set(options, "cache", merged);
    set_default(options, "read-only", json_bool(!open->writable));
    if (open->force_share)
        set_default(options, "force-share", json_bool(true));
    if (open->unmap)
        set_default(options, "discard", json_string("unmap"));
}

/* The AIO engine is the business of the file at the bottom. */
static void add_aio(struct json *options, const char *aio)
{
    const struct json *driver = json_get(options, "driver");
    const struct json *file = json_get(options, "file");

    if (driver && json_get_kind(driver) == JSON_STRING &&
        (!strcmp(json_get_string(driver), "file") || !strcmp(json_get_string(driver), "host_device"))) {
        set_default(options, "aio", json_string(aio));
    } else if (file && json_get_kind(file) == JSON_OBJECT) {
        struct json *changed = json_clone(file);

        add_aio(changed, aio);
        json_set(options, "file", changed);
    }
}

static bool has_backing(const char *driver_name)
{
    for (const struct block_driver *const *driver = block_drivers; *driver; driver++) {
        if (!strcmp((*driver)->name, driver_name))
            return (*driver)->image && (*driver)->image->backing_file;
    }
    return false;
}

/* Scripts give the key of an encrypted qcow2 image and leave out in which way it is encrypted: there is one in use. */
static void add_encryption_format(struct json *options)
{
    const struct json *driver = json_get(options, "driver");
    const struct json *encrypt = json_get(options, "encrypt");
    struct json *whole;

    if (!driver || json_get_kind(driver) != JSON_STRING || strcmp(json_get_string(driver), "qcow2") != 0)
        return;
    if (!encrypt || json_get_kind(encrypt) != JSON_OBJECT || json_get(encrypt, "format"))
        return;
    whole = json_take(options, "encrypt");
    json_set(whole, "format", json_string("luks"));
    json_set(options, "encrypt", whole);
}

static struct json *CO_FN co_name_options(const struct image_open *open, struct error **err)
{
    struct image_name name = {
        .filename = open->image_opts ? NULL : open->filename, .options = open->options, .format = open->format};
    AUTO(json) given = NULL;
    struct json *options;

    if (open->image_opts) {
        given = keyval_parse(open->filename, "file", NULL, err);
        if (!given)
            return NULL;
        for (size_t i = 0; open->options && i < json_count(open->options); i++) {
            const char *key;
            const struct json *value = json_member(open->options, i, &key);

            json_set(given, key, json_clone(value));
        }
        name.options = given;
    }
    options = co_image_options(&name, err);
    if (options) {
        add_common(options, open);
        add_encryption_format(options);
        if (open->aio)
            add_aio(options, open->aio);
    }
    return options;
}

/* --- opening --- */

/*
 * Adds a node, under the name that its options give it, or else the one given here. The name, owned; NULL and the
 * error.
 */
static char *CO_FN co_add(struct tool *tool, const struct json *options, const char *otherwise, struct error **err)
{
    AUTO(json) named = json_clone(options);
    AUTO(blockdev_options) parsed = NULL;

    set_default(named, "node-name", json_string(otherwise));
    parsed = image_options_parse(named, err);
    if (!parsed || !co_graph_add(tool->graph, parsed, err))
        return NULL;
    return g_strdup(json_get_string(json_get(named, "node-name")));
}

static struct handle *CO_FN co_look(struct tool *tool, const char *node, struct error **err)
{
    struct handle_options how = {.perm = PERM_CONSISTENT_READ, .shared = PERM_ALL};

    return co_handle_new(graph_find(tool->graph, node, NULL), &how, err);
}

/*
 * Opens the file by itself, looks at it, and leaves it open for the format to be put on top: a server may serve one
 * connection only. The handle, which keeps it open.
 */
static struct handle *CO_FN co_open_file(struct tool *tool, struct image *image, const struct image_open *open,
                                         struct json *options, struct error **err)
{
    AUTO(json) file = json_take(options, "file");
    g_autofree char *own_name = g_strdup_printf("%s-file", image->name);
    g_autofree char *filename = NULL;
    struct handle *handle;
    const char *format;

    assert(json_get_kind(file) == JSON_OBJECT);
    add_common(file, open);
    set_default(file, "discard", json_string("unmap"));
    image->file_name = co_add(tool, file, own_name, err);
    if (!image->file_name)
        return NULL;
    handle = co_look(tool, image->file_name, err);
    if (!handle)
        return NULL;
    filename = node_plain_filename(graph_find(tool->graph, image->file_name, NULL));
    format = co_probe_handle(handle, filename, err);
    if (format) {
        json_set(options, "driver", json_string(format));
        json_set(options, "file", json_string(image->file_name));
        return handle;
    }
    co_handle_free(handle);
    return NULL;
}

static void warn_of_guess(const char *filename)
{
    (void)fprintf(stderr,
                  "WARNING: Image format was not specified for '%s' and probing guessed raw.\n"
                  "         Automatically detecting the format is dangerous for raw images, write operations on "
                  "block 0 will be restricted.\n"
                  "         Specify the 'raw' format explicitly to remove the restrictions.\n",
                  filename);
}

static bool CO_FN co_open_format(struct tool *tool, struct image *image, const struct image_open *open,
                                 struct json *options, struct error **err)
{
    bool probe = !json_get(options, "driver");
    const struct json *file = json_get(options, "file");
    struct handle *look = NULL;
    const char *driver;
    char *name;

    if (probe && json_get_kind(file) == JSON_STRING)
        return error_set(err, "Cannot find device='%s' nor node-name='%s'", json_get_string(file),
                         json_get_string(file));
    if (probe && json_get_kind(file) != JSON_OBJECT)
        return error_set(err, "Parameter 'file' expects a node or its definition");
    if (!co_image_options_probe_inside(tool->graph, options, err))
        return false;
    if (probe) {
        look = co_open_file(tool, image, open, options, err);
        if (!look)
            return false;
    }
    driver = json_get_string(json_get(options, "driver"));
    if (open->backing_node)
        json_set(options, "backing", json_string(open->backing_node));
    else if (open->no_backing && has_backing(driver))
        set_default(options, "backing", json_null());
    name = co_add(tool, options, image->name, err);
    co_handle_free(look);
    if (!name)
        return false;
    g_free(image->name);
    image->name = name;
    image->node = graph_find(tool->graph, image->name, NULL);
    if (probe && !strcmp(node_driver_name(image->node), "raw")) {
        node_guard_raw(image->node);
        if (open->writable && !open->quiet) {
            g_autofree char *filename = node_filename(image->node);

            warn_of_guess(filename);
        }
    }
    return true;
}

static bool CO_FN co_open_handle(struct image *image, const struct image_open *open, struct error **err)
{
    struct handle_options how = {
        .name = "the tool",
        .perm = PERM_CONSISTENT_READ | (open->writable ? PERM_WRITE : 0) | (open->resizable ? PERM_RESIZE : 0),
        .shared = PERM_ALL,
        .writethrough = open->cache.writethrough,
        .follows_length = true,
    };

    image->handle = co_handle_new(image->node, &how, err);
    image->writethrough = open->cache.writethrough;
    return image->handle;
}

/* The id and name (owned) that `text` selects; either may be NULL. */
static bool parse_snapshot(const char *text, char **ret_id, char **ret_name, struct error **err)
{
    AUTO(json) json = NULL;
    const struct json *selector;
    const struct json *id = NULL;
    const struct json *name = NULL;

    if (!g_str_has_prefix(text, "snapshot."))
        return true;
    json = keyval_parse(text, NULL, NULL, err);
    if (!json)
        return false;
    selector = json_get(json, "snapshot");
    if (selector && json_get_kind(selector) == JSON_OBJECT) {
        id = json_get(selector, "id");
        name = json_get(selector, "name");
    }
    if ((!id && !name) || (id && json_get_kind(id) != JSON_STRING) || (name && json_get_kind(name) != JSON_STRING))
        return error_set(err, "Failed in parsing snapshot param '%s'", text);
    *ret_id = id ? g_strdup(json_get_string(id)) : NULL;
    *ret_name = name ? g_strdup(json_get_string(name)) : NULL;
    return true;
}

static bool CO_FN co_load_snapshot(struct image *image, const char *text, struct error **err)
{
    const struct block_driver_image *driver = node_driver(image->node)->image;
    AUTO(error) problem = NULL;
    g_autofree char *id = NULL;
    g_autofree char *name = NULL;

    if (!parse_snapshot(text, &id, &name, err))
        return false;
    if (!driver || !driver->co_snapshot_load)
        return error_set(err, "Failed to load snapshot: Block driver does not support internal snapshots");
    /* A bare word is an id or, where no snapshot has it, a name. */
    if (!id && !name && driver->co_snapshot_load(image->node, text, NULL, NULL))
        return true;
    if (!id && !name)
        name = g_strdup(text);
    if (driver->co_snapshot_load(image->node, id, name, &problem))
        return true;
    if (error_get_errno(problem) == ENOENT)
        return error_set(err, "Failed to load snapshot: Can't find snapshot");
    return error_move(err, TAKE(problem)) || error_prefix(err, "Failed to load snapshot: ");
}

struct image *CO_FN co_image_open(struct tool *tool, const struct image_open *open, struct error **err)
{
    struct image *image = g_new0(struct image, 1);
    AUTO(json) options = NULL;

    image->filename = g_strdup(open->filename);
    image->name = g_strdup_printf("image%u", tool->images++);
    options = co_name_options(open, err);
    if (options && co_open_format(tool, image, open, options, err) && co_open_handle(image, open, err)) {
        if (!open->snapshot || co_load_snapshot(image, open->snapshot, err))
            return image;
        co_image_close(tool, image);
        return NULL;
    }
    co_image_close(tool, image);
    if (!open->plain_errors)
        error_prefix(err, "Could not open '%s': ", open->filename);
    return NULL;
}

static void CO_FN co_delete(struct tool *tool, const char *name)
{
    if (name && graph_find(tool->graph, name, NULL))
        (void)!co_graph_delete(tool->graph, name, NULL);
}

void CO_FN co_image_close(struct tool *tool, struct image *image)
{
    if (!image)
        return;
    co_handle_free(image->handle);
    /* Another image may have the name that this one wanted. */
    if (image->node)
        co_delete(tool, image->name);
    co_delete(tool, image->file_name);
    g_free(image->filename);
    g_free(image->name);
    g_free(image->file_name);
    g_free(image);
}
