/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/chain.h"

#include <glib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/image.h"
#include "block/node.h"
#include "block/reopen.h"

static bool is_filter(const struct node *node)
{
    return node_primary(node) && edge_role(node_primary(node)) & EDGE_FILTERED;
}

struct node *chain_skip_filters(struct node *node)
{
    while (is_filter(node))
        node = edge_child(node_primary(node));
    return node;
}

struct node *chain_next(const struct node *node)
{
    if (is_filter(node))
        return edge_child(node_primary(node));
    return node_backing(node) ? edge_child(node_backing(node)) : NULL;
}

bool chain_contains(struct node *top, const struct node *below)
{
    while (top && top != below)
        top = chain_next(top);
    return top;
}

struct node *chain_find_file(struct node *top, const char *filename)
{
    for (struct node *node = chain_next(top); node; node = chain_next(node)) {
        g_autofree char *name = node_filename(node);

        if (!is_filter(node) && !strcmp(name, filename))
            return node;
    }
    return NULL;
}

static const struct block_driver_image *image_of(const struct node *node)
{
    const struct block_driver *driver = node_driver(node);

    return driver->image && driver->image->co_change_backing_file ? driver->image : NULL;
}

bool CO_FN co_chain_write_backing(struct node *node, struct node *backing, const char *filename, bool mask,
                                  struct error **err)
{
    const struct block_driver_image *image = image_of(node);
    struct node *below = backing ? chain_skip_filters(backing) : NULL;
    g_autofree char *own_name = below && !filename ? node_filename(below) : NULL;
    bool was_read_only = node_read_only(node);
    const char *format = NULL;
    bool ok;

    if (!image)
        return error_set(err, "Could not write the backing file into node '%s': its format '%s' cannot",
                         node_name(node), node_driver_name(node));
    if (below) {
        format = mask && node_driver(below)->kind == BLOCK_DRIVER_PROTOCOL ? "raw" : node_driver_name(below);
        filename = filename ? filename : own_name;
    } else {
        filename = NULL;
    }
    if (!co_node_make_writable(node, true, err))
        return false;
    ok = image->co_change_backing_file(node, filename, format, err);
    if (was_read_only && !co_node_make_writable(node, false, ok ? err : NULL))
        ok = false;
    return ok;
}
