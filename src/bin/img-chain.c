/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bin/img-chain.h"

#include "base/error.h"
#include "block/describe.h"
#include "block/graph.h"
#include "cli/image-open.h"
#include "cli/tool.h"
#include "gen/types.h"

static void free_info(gpointer info)
{
    image_info_free(info);
}

/* The next to open; its strings are those of `info`. */
static bool find_next(const struct image_info *info, struct image_open *open, struct error **err)
{
    if (!info->full_backing_filename)
        return error_set(err, "Cannot use relative backing file names for '%s'", info->filename);
    open->filename = info->full_backing_filename;
    open->format = info->backing_filename_format;
    open->image_opts = false;
    return true;
}

static struct image_info *CO_FN co_describe(struct tool *tool, const struct image_open *open, struct error **err)
{
    struct image_info *info;
    struct image *image;

    graph_set_metadata_only(tool->graph, true);
    image = co_image_open(tool, open, err);
    graph_set_metadata_only(tool->graph, false);
    if (!image)
        return NULL;
    info = co_node_describe_image(image->node, false);
    info->has_dirty_flag = true;
    co_image_close(tool, image);
    return info;
}

GPtrArray *CO_FN co_img_chain(struct tool *tool, const struct image_open *top, bool whole, struct error **err)
{
    g_autoptr(GPtrArray) array = g_ptr_array_new_with_free_func(free_info);
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    struct image_open open = *top;

    open.no_backing = true;
    for (;;) {
        struct image_info *info;

        if (!g_hash_table_add(seen, (gpointer)(uintptr_t)open.filename)) {
            error_set(err, "Backing file '%s' creates an infinite loop.", open.filename);
            return NULL;
        }
        info = co_describe(tool, &open, err);
        if (!info)
            return NULL;
        g_ptr_array_add(array, info);
        if (!whole || !info->backing_filename)
            return g_steal_pointer(&array);
        if (!find_next(info, &open, err))
            return NULL;
    }
}
