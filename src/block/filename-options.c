/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/filename-options.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "base/units.h"
#include "block/filename.h"
#include "block/graph-internal.h"
#include "block/probe.h"
#include "gen/types.h"
#include "schema/json.h"
#include "schema/schema.h"

/* Options whose value is the definition of a child. */
static const char *const child_options[] = {"file",   "backing", "data-file", "header", "image",
                                            "target", "raw",     "test",      "log"};

static const struct block_driver *find_driver(const char *name)
{
    for (const struct block_driver *const *driver = block_drivers; *driver; driver++) {
        if (!strcmp((*driver)->name, name))
            return *driver;
    }
    return NULL;
}

static const char *string_option(const struct json *options, const char *key)
{
    const struct json *value = json_get(options, key);

    return value && json_get_kind(value) == JSON_STRING ? json_get_string(value) : NULL;
}

static bool is_object(const struct json *value)
{
    return value && json_get_kind(value) == JSON_OBJECT;
}

/* The members of `from`, taken, go to `to` where that has none of the name. */
static void merge(struct json *to, struct json *from)
{
    for (size_t i = 0; i < json_count(from); i++) {
        const char *key;
        const struct json *value = json_member(from, i, &key);

        if (!json_get(to, key))
            json_set(to, key, json_clone(value));
    }
    json_free(from);
}

/* An NBD server used to be given by options of its own: "path", or "host" and "port". */
static bool complete_nbd(struct json *options, struct error **err)
{
    g_autofree char *path = g_strdup(string_option(options, "path"));
    g_autofree char *host = g_strdup(string_option(options, "host"));
    g_autofree char *port = g_strdup(string_option(options, "port"));
    struct json *server;

    if (json_get(options, "server") || (!path && !host))
        return true;
    if (path && host)
        return error_set(err, "path and host may not be used at the same time");
    if (path && port)
        return error_set(err, "port may not be used without host");
    json_free(json_take(options, "path"));
    json_free(json_take(options, "host"));
    json_free(json_take(options, "port"));
    server = json_object();
    json_set(server, "type", json_string(path ? "unix" : "inet"));
    json_set(server, path ? "path" : "host", json_string(path ? path : host));
    if (!path)
        json_set(server, "port", json_string(port ? port : "10809"));
    json_set(options, "server", server);
    return true;
}

/* Definitions inside need their drivers: a file name stands for a path, and else it is to be found out. */
static bool CO_FN co_complete(struct json *options, struct error **err)
{
    const char *driver = string_option(options, "driver");
    const char *filename = string_option(options, "filename");

    if (!driver && json_get(options, "driver"))
        return error_set(err, "Invalid parameter type for 'driver', expected: string");
    if (driver && blockdev_driver_value(driver) < 0)
        return error_set(err, "Unknown driver '%s'", driver);
    if (!driver && filename && !json_get(options, "file"))
        json_set(options, "driver", json_string(co_filename_path_driver(filename)));
    if (driver && !strcmp(driver, "nbd") && !complete_nbd(options, err))
        return false;
    for (size_t i = 0; i < G_N_ELEMENTS(child_options); i++) {
        const struct json *child = json_get(options, child_options[i]);
        AUTO(json) completed = is_object(child) ? json_clone(child) : NULL;

        if (!completed)
            continue;
        if (!co_complete(completed, err))
            return false;
        json_set(options, child_options[i], TAKE(completed));
    }
    return true;
}

/* A format has its file name in its file, whatever people write. */
static void move_filename(struct json *options)
{
    const char *driver = string_option(options, "driver");
    const struct block_driver *found = driver ? find_driver(driver) : NULL;
    struct json *file;

    if ((found && found->kind == BLOCK_DRIVER_PROTOCOL) || !string_option(options, "filename") ||
        json_get(options, "file"))
        return;
    file = json_object();
    json_set(file, "filename", json_take(options, "filename"));
    json_set(options, "file", file);
}

/* The options for a file name that is no "json:", below a format that is known or not. */
static struct json *CO_FN co_named_options(const char *filename, const char *format, struct error **err)
{
    const struct block_driver *driver = format ? find_driver(format) : NULL;
    struct json *protocol;
    struct json *options;

    if (driver && driver->kind == BLOCK_DRIVER_PROTOCOL && !filename_protocol_length(filename)) {
        options = json_object();
        json_set(options, "driver", json_string(format));
        json_set(options, "filename", json_string(filename));
        return options;
    }
    protocol = co_filename_protocol_options(filename, err);
    if (!protocol || (format && !strcmp(string_option(protocol, "driver"), format)))
        return protocol;
    options = json_object();
    if (format)
        json_set(options, "driver", json_string(format));
    json_set(options, "file", protocol);
    return options;
}

static bool take_format(struct json *options, const char *format, struct error **err)
{
    if (!format)
        return true;
    if (json_get(options, "driver"))
        return !g_strcmp0(string_option(options, "driver"), format) || error_set(err, "Driver specified twice");
    json_set(options, "driver", json_string(format));
    return true;
}

struct json *CO_FN co_image_options(const struct image_name *name, struct error **err)
{
    AUTO(json) options = name->options ? json_clone(name->options) : json_object();
    struct json *named;

    assert(name->filename || name->options);
    if (name->format && blockdev_driver_value(name->format) < 0) {
        error_set(err, "Unknown driver '%s'", name->format);
        return NULL;
    }
    if (name->filename && g_str_has_prefix(name->filename, "json:")) {
        if (!take_format(options, name->format, err))
            return NULL;
        named = filename_json_options(name->filename, err);
        if (!named)
            return NULL;
        merge(options, named);
    } else if (name->filename) {
        named = co_named_options(name->filename, name->format, err);
        if (!named)
            return NULL;
        merge(options, named);
    }
    if (!name->filename && !take_format(options, name->format, err))
        return NULL;
    move_filename(options);
    if (!co_complete(options, err))
        return NULL;
    if (!json_get(options, "driver") && !json_get(options, "file")) {
        error_set(err, "Must specify either driver or file");
        return NULL;
    }
    return TAKE(options);
}

/* Numbers of bytes may be written as people do, "64k". The recursion is bounded by the reader's limit of depth. */
static struct json *plain_sizes(const struct json *options)
{
    static const char *const sizes[] = {"cache-size",          "l2-cache-size", "l2-cache-entry-size",
                                        "refcount-cache-size", "offset",        "size"};
    struct json *plain = json_object();

    for (size_t i = 0; i < json_count(options); i++) {
        const char *name;
        const struct json *value = json_member(options, i, &name);
        struct json *copy = is_object(value) ? plain_sizes(value) : NULL;
        uint64_t number;

        for (size_t j = 0; j < G_N_ELEMENTS(sizes) && !copy; j++) {
            if (!strcmp(name, sizes[j]) && json_get_kind(value) == JSON_STRING &&
                size_parse(json_get_string(value), &number))
                copy = json_uint(number);
        }
        json_set(plain, name, copy ? copy : json_clone(value));
    }
    return plain;
}

struct blockdev_options *image_options_parse(const struct json *options, struct error **err)
{
    AUTO(json) plain = plain_sizes(options);

    return blockdev_options_parse_keyval(plain, err);
}

/* --- finding out --- */

/* The format of what `node`, newly opened, shows; the node is closed. */
static const char *CO_FN co_probe_node(struct node *node, const char *filename, struct error **err)
{
    struct handle_options how = {.name = "probing", .perm = PERM_CONSISTENT_READ, .shared = PERM_ALL};
    struct handle *handle = co_handle_new(node, &how, err);
    const char *format;

    if (!handle) {
        co_node_release(node);
        return NULL;
    }
    format = co_probe_handle(handle, filename, err);
    co_handle_free(handle);
    return format;
}

/* The same of a node that stands for `filename` below. */
static const char *CO_FN co_probe_named(struct graph *graph, const char *node_name_wanted, struct error **err)
{
    struct node *node = graph_find(graph, node_name_wanted, err);
    g_autofree char *filename = node ? node_plain_filename(node) : NULL;

    return node ? co_probe_node(node, filename, err) : NULL;
}

/* Opened for the look alone: whatever the options say, nothing is written and nobody is kept from anything. */
static const char *CO_FN co_probe_definition(struct graph *graph, const struct node *parent, const struct json *file,
                                             struct error **err)
{
    struct node_origin origin = {.parent = parent, .role = EDGE_DATA};
    AUTO(json) options = json_clone(file);
    AUTO(blockdev_options) parsed = NULL;
    g_autofree char *filename = NULL;
    struct node *node;

    json_set(options, "read-only", json_bool(true));
    json_free(json_take(options, "auto-read-only"));
    json_free(json_take(options, "node-name"));
    parsed = image_options_parse(options, err);
    if (!parsed)
        return NULL;
    node = co_node_open(graph, parsed, &origin, err);
    if (!node)
        return NULL;
    filename = node_plain_filename(node);
    return co_probe_node(node, filename, err);
}

static bool CO_FN co_probe_below(struct graph *graph, const struct node *parent, struct json *options,
                                 bool *ret_guessed_raw, struct error **err);

/* What is inside of options that say their own driver; the image that blkverify tries may be of any format. */
static bool CO_FN co_probe_inside(struct graph *graph, const struct node *parent, struct json *options,
                                  struct error **err)
{
    static const char *const names[] = {"file", "test"};

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        const struct json *child = json_get(options, names[i]);
        AUTO(json) completed = is_object(child) ? json_clone(child) : NULL;
        bool guessed;

        if (!completed)
            continue;
        if (!co_probe_below(graph, parent, completed, &guessed, err))
            return false;
        json_set(options, names[i], TAKE(completed));
    }
    return true;
}

/* As co_image_options_probe(), for what `parent` (NULL: nobody) opens. */
static bool CO_FN co_probe_below(struct graph *graph, const struct node *parent, struct json *options,
                                 bool *ret_guessed_raw, struct error **err)
{
    const struct json *file = json_get(options, "file");
    const char *format;

    *ret_guessed_raw = false;
    if (json_get(options, "driver"))
        return co_probe_inside(graph, parent, options, err);
    if (is_object(file)) {
        AUTO(json) completed = json_clone(file);
        bool guessed;

        /* Files in files: an object without a driver has a file by now. Depth is bounded by the JSON reader. */
        if (!co_probe_below(graph, parent, completed, &guessed, err))
            return false;
        format = co_probe_definition(graph, parent, completed, err);
        json_set(options, "file", TAKE(completed));
    } else if (file && json_get_kind(file) == JSON_STRING) {
        format = co_probe_named(graph, json_get_string(file), err);
    } else {
        return error_set(err, "Parameter 'file' expects a node or its definition");
    }
    if (!format)
        return false;
    *ret_guessed_raw = !strcmp(format, "raw");
    json_set(options, "driver", json_string(format));
    return true;
}

bool CO_FN co_image_options_probe_inside(struct graph *graph, struct json *options, struct error **err)
{
    return co_probe_inside(graph, NULL, options, err);
}

bool CO_FN co_image_options_probe(struct graph *graph, struct json *options, bool *ret_guessed_raw, struct error **err)
{
    return co_probe_below(graph, NULL, options, ret_guessed_raw, err);
}

/* --- names in headers --- */

char *filename_resolve(const char *base, const char *filename, struct error **err)
{
    const char *start;
    const char *slash;

    if (filename[0] == '/' || filename_protocol_length(filename))
        return g_strdup(filename);
    if (!base) {
        error_set(err,
                  "Cannot use relative backing file names: the name '%s' is relative, and the image that has it "
                  "has no path of its own",
                  filename);
        return NULL;
    }
    start = base + (filename_protocol_length(base) ? filename_protocol_length(base) + 1 : 0);
    slash = strrchr(start, '/');
    if (slash)
        start = slash + 1;
    return g_strdup_printf("%.*s%s", (int)(start - base), base, filename);
}

char *node_base_filename(const struct node *node)
{
    for (; node; node = node->primary ? node->primary->child : NULL) {
        char *plain = node_plain_filename(node);

        if (plain)
            return plain;
    }
    return NULL;
}

struct blockdev_ref *CO_FN co_header_image(struct node *node, const char *filename, const char *format,
                                           bool *ret_guessed_raw, struct error **err)
{
    g_autofree char *base = node_base_filename(node);
    g_autofree char *resolved = filename_resolve(base, filename, err);
    const struct image_name name = {.filename = resolved, .format = format};
    AUTO(json) options = resolved ? co_image_options(&name, err) : NULL;
    AUTO(blockdev_options) parsed = NULL;
    struct blockdev_ref *ref;

    if (!options || !co_probe_below(node->graph, node, options, ret_guessed_raw, err))
        return NULL;
    parsed = image_options_parse(options, err);
    if (!parsed)
        return NULL;
    ref = g_new0(struct blockdev_ref, 1);
    ref->kind = BLOCKDEV_REF_KIND_DEFINITION;
    ref->u.definition = TAKE(parsed);
    return ref;
}

/* Whether one of the images that are being opened, down to `node`, is the one that `filename` in its header names. */
static bool is_above(const struct node *node, const char *filename)
{
    g_autofree char *base = node_base_filename(node);
    g_autofree char *resolved = filename_resolve(base, filename, NULL);

    for (; resolved && node; node = node->opener) {
        g_autofree char *name = node_plain_filename(node);

        if (name && !strcmp(name, resolved))
            return true;
    }
    return false;
}

struct edge *CO_FN co_node_add_backing(struct node *node, const char *filename, const char *format, struct error **err)
{
    static const char prefix[] = "Could not open backing file: ";
    struct error *problem = NULL;
    bool guessed_raw = false;
    bool loop = is_above(node, filename);
    AUTO(blockdev_ref) ref = loop ? NULL : co_header_image(node, filename, format, &guessed_raw, &problem);
    struct edge *edge = ref ? co_node_add_child(node, "backing", ref, EDGE_COW, &problem) : NULL;

    if (loop)
        error_set(&problem, "Backing file '%s' creates an infinite loop.", filename);
    if (!edge) {
        /* Once is enough, however deep it is. */
        if (!g_str_has_prefix(error_message(problem), prefix))
            error_prefix(&problem, "%s", prefix);
        error_move(err, problem);
        return NULL;
    }
    if (guessed_raw)
        node_guard_raw(edge->child);
    return edge;
}

void node_guard_raw(struct node *node)
{
    if (!strcmp(node->driver->name, "raw"))
        node->guarded = true;
}
