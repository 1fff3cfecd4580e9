/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a node is called by people and in other images' headers: a plain file name or URL where that says it all, else
 * "json:" with the options that matter.
 */
#include <string.h>

#include "block/filename-options.h"
#include "block/graph-internal.h"
#include "block/image.h"
#include "gen/types.h"
#include "schema/json.h"

/* Those that a driver has any number of are a list, and their edges are called "children.N". */
static bool is_list_member(const struct edge *edge)
{
    return g_str_has_prefix(edge->name, "children.");
}

static bool has_option(const struct json *options, const char *name)
{
    const struct json *value = json_get(options, name);

    return value && json_get_kind(value) != JSON_NULL;
}

/* Filters show what lies below; those of jobs come and go, and no other program can open them. */
static const struct node *skip_filters(const struct node *node)
{
    while (node->driver->kind == BLOCK_DRIVER_FILTER && node->primary)
        node = node->primary->child;
    return node;
}

/* Whether the image's header names just this child as its backing image. */
static bool is_named_by_header(const struct node *node, const struct node *child)
{
    const struct block_driver_image *image = node->driver->image;
    g_autofree char *header = image && image->backing_file ? image->backing_file(node) : NULL;
    g_autofree char *base = header && node->primary ? node_plain_filename(node->primary->child) : NULL;
    g_autofree char *named = header ? filename_resolve(base, header, NULL) : NULL;
    g_autofree char *plain = named ? node_plain_filename(skip_filters(child)) : NULL;

    return plain && !strcmp(named, plain);
}

/* Whether opening the primary child's file by the driver's name alone would show the same. */
static bool is_plain(const struct node *node)
{
    AUTO(json) all = blockdev_options_write(node->options);
    const char *const *names = node->driver->significant_options;

    for (unsigned i = 0; names && names[i]; i++) {
        if (has_option(all, names[i]))
            return false;
    }
    for (unsigned i = 0; i < node->children->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->children, i);

        if (edge == node->primary || !has_option(all, edge->name))
            continue;
        if (!(edge->role & EDGE_COW) || !is_named_by_header(node, edge->child))
            return false;
    }
    return true;
}

static const struct node *skip_nameless(const struct node *node)
{
    while (node->driver->nameless && node->primary)
        node = node->primary->child;
    return node;
}

char *node_plain_filename(const struct node *node)
{
    node = skip_nameless(node);
    if (node->driver->filename)
        return node->driver->filename(node);
    /* A format is called by its file, which says what it is. */
    if (node->driver->kind != BLOCK_DRIVER_FORMAT || !node->primary || !is_plain(node))
        return NULL;
    return node_plain_filename(node->primary->child);
}

/* The options that say which data the node and those below it show. Deep, but no deeper than GRAPH_DEPTH_MAX. */
static struct json *significant_options(const struct node *node)
{
    AUTO(json) all = blockdev_options_write(node->options);
    const char *const *names = node->driver->significant_options;
    struct json *result = json_object();
    AUTO(json) children = json_array();

    json_set(result, "driver", json_string(node->driver->name));
    for (unsigned i = 0; names && names[i]; i++) {
        const struct json *value = json_get(all, names[i]);

        if (value)
            json_set(result, names[i], json_clone(value));
    }
    for (unsigned i = 0; i < node->children->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->children, i);

        /* A backing image that the image itself names goes without saying. */
        if (is_list_member(edge))
            json_append(children, significant_options(edge->child));
        else if (!(edge->role & EDGE_COW) || json_get(all, edge->name))
            json_set(result, edge->name,
                     significant_options(edge->role & EDGE_COW ? skip_filters(edge->child) : edge->child));
    }
    if (json_count(children))
        json_set(result, "children", TAKE(children));
    return result;
}

char *node_filename(const struct node *node)
{
    char *plain = node_plain_filename(node);

    if (plain)
        return plain;

    AUTO(json) options = significant_options(skip_nameless(node));
    GString *text = g_string_new("json:");

    json_format_append(text, options, false);
    return g_string_free(text, false);
}
