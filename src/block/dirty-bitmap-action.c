/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/dirty-bitmap-action.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/checked.h"
#include "base/error.h"
#include "block/dirty-bitmap.h"
#include "block/graph-internal.h"

/* A bitmap that an action has changed, and what it takes to undo that. */
struct undo {
    struct dirty_bitmap *bitmap; /* with a reference */
    struct bitmap *bits;         /* what was in it; NULL: that is not touched */
};

static struct undo *undo_new(struct dirty_bitmap *bitmap)
{
    struct undo *undo = g_new0(struct undo, 1);

    undo->bitmap = dirty_bitmap_ref(bitmap);
    return undo;
}

static void co_undo_free(void *opaque)
{
    struct undo *undo = opaque;

    dirty_bitmap_unref(undo->bitmap);
    bitmap_free(undo->bits);
    g_free(undo);
}

struct dirty_bitmap *dirty_bitmap_lookup(struct graph *graph, const char *node_name, const char *name,
                                         struct error **err)
{
    struct node *node = graph_find(graph, node_name, NULL);

    if (!node) {
        error_set(err, "Node '%s' not found", node_name);
        return NULL;
    }
    return dirty_bitmap_find(node, name, err);
}

/* The same, if it may be used. */
static struct dirty_bitmap *lookup_usable(struct graph *graph, const struct block_dirty_bitmap *what, unsigned allow,
                                          struct error **err)
{
    struct dirty_bitmap *bitmap = dirty_bitmap_lookup(graph, what->node, what->name, err);

    return bitmap && dirty_bitmap_check(bitmap, allow, err) ? bitmap : NULL;
}

/* --- add --- */

static bool check_new(const struct node *node, const struct block_dirty_bitmap_add *what, struct error **err)
{
    if (!*what->name)
        return error_set(err, "Bitmap name cannot be empty");
    if (what->has_granularity &&
        (!is_power_of_two(what->granularity) || what->granularity < DIRTY_BITMAP_GRANULARITY_MIN))
        return error_set(err, "Granularity must be power of 2 and at least %d", DIRTY_BITMAP_GRANULARITY_MIN);
    if (dirty_bitmap_find(node, what->name, NULL))
        return error_set(err, "Bitmap already exists: %s", what->name);
    if (strlen(what->name) > DIRTY_BITMAP_NAME_MAX)
        return error_set(err, "Bitmap name too long: %zu bytes, at most %d are allowed", strlen(what->name),
                         DIRTY_BITMAP_NAME_MAX);
    return true;
}

static bool CO_FN co_can_store(struct node *node, const char *name, uint32_t granularity, struct error **err)
{
    const struct block_driver_bitmaps *bitmaps = node->driver->bitmaps;

    if (!bitmaps)
        return error_set(err, "Can't store persistent bitmaps to %s: Operation not supported", node->name);
    if (bitmaps->co_can_store(node, name, granularity, err))
        return true;
    return error_prefix(err, "Can't make bitmap '%s' persistent in '%s': ", name, node->name);
}

static void co_abort_add(void *opaque)
{
    struct undo *undo = opaque;

    if (dirty_bitmap_node(undo->bitmap))
        dirty_bitmap_remove(undo->bitmap);
}

bool CO_FN co_dirty_bitmap_do_add(struct transaction *transaction, struct graph *graph,
                                  const struct block_dirty_bitmap_add *what, struct error **err)
{
    static const struct transaction_ops ops = {.co_abort = co_abort_add, .co_clean = co_undo_free};
    struct node *node = graph_find(graph, what->node, NULL);
    struct dirty_bitmap_options options = {
        .name = what->name,
        .granularity = what->granularity,
        .disabled = what->has_disabled && what->disabled,
        .persistent = what->has_persistent && what->persistent,
    };

    if (!node)
        return error_set(err, "Cannot find device='%s' nor node-name='%s'", what->node, what->node);
    if (!check_new(node, what, err))
        return false;
    if (!what->has_granularity)
        options.granularity = co_dirty_bitmap_default_granularity(node);
    if (options.persistent && !co_can_store(node, what->name, options.granularity, err))
        return false;
    transaction_add(transaction, &ops, undo_new(dirty_bitmap_new(node, &options)));
    return true;
}

/* --- remove --- */

static void co_commit_remove(void *opaque)
{
    struct undo *undo = opaque;

    dirty_bitmap_set_busy(undo->bitmap, NULL);
    if (dirty_bitmap_node(undo->bitmap))
        dirty_bitmap_remove(undo->bitmap);
}

static void co_abort_remove(void *opaque)
{
    struct undo *undo = opaque;

    dirty_bitmap_set_busy(undo->bitmap, NULL);
}

bool CO_FN co_dirty_bitmap_do_remove(struct transaction *transaction, struct graph *graph,
                                     const struct block_dirty_bitmap *what, struct error **err)
{
    static const struct transaction_ops ops = {
        .co_commit = co_commit_remove, .co_abort = co_abort_remove, .co_clean = co_undo_free};
    struct dirty_bitmap *bitmap = lookup_usable(graph, what, DIRTY_BITMAP_ALLOW_INCONSISTENT, err);
    struct undo *undo;
    struct node *node;
    bool removed = true;

    if (!bitmap)
        return false;
    node = dirty_bitmap_node(bitmap);
    undo = undo_new(bitmap);
    dirty_bitmap_set_busy(bitmap, "the command that removes it");
    if (dirty_bitmap_persistent(bitmap) && node->driver->bitmaps)
        removed = node->driver->bitmaps->co_remove(node, what->name, err);
    if (!removed) {
        co_abort_remove(undo);
        co_undo_free(undo);
        return false;
    }
    /* Aborted, it is still there and marked as persistent, so closing the image stores it again. */
    transaction_add(transaction, &ops, undo);
    return true;
}

/* --- what is in it --- */

/* What has been recorded since stays. */
static void co_abort_clear(void *opaque)
{
    struct undo *undo = opaque;
    struct bitmap *now = dirty_bitmap_copy_bits(undo->bitmap);

    bitmap_resize(undo->bits, bitmap_size(now));
    bitmap_merge(undo->bits, now);
    bitmap_free(now);
    dirty_bitmap_replace_bits(undo->bitmap, TAKE(undo->bits));
}

bool dirty_bitmap_do_clear(struct transaction *transaction, struct graph *graph, const struct block_dirty_bitmap *what,
                           struct error **err)
{
    static const struct transaction_ops ops = {.co_abort = co_abort_clear, .co_clean = co_undo_free};
    struct dirty_bitmap *bitmap = lookup_usable(graph, what, 0, err);
    struct undo *undo;

    if (!bitmap)
        return false;
    undo = undo_new(bitmap);
    undo->bits = dirty_bitmap_copy_bits(bitmap);
    dirty_bitmap_clear(bitmap, 0, UINT64_MAX);
    transaction_add(transaction, &ops, undo);
    return true;
}

static void co_abort_merge(void *opaque)
{
    struct undo *undo = opaque;

    dirty_bitmap_replace_bits(undo->bitmap, TAKE(undo->bits));
}

static struct dirty_bitmap *lookup_source(struct graph *graph, const struct block_dirty_bitmap_merge *what,
                                          const struct block_dirty_bitmap_or_str *source, struct error **err)
{
    struct block_dirty_bitmap local = {.node = what->node};

    if (source->kind == BLOCK_DIRTY_BITMAP_OR_STR_KIND_EXTERNAL)
        return lookup_usable(graph, source->u.external, DIRTY_BITMAP_ALLOW_READ_ONLY, err);
    local.name = source->u.local;
    return lookup_usable(graph, &local, DIRTY_BITMAP_ALLOW_READ_ONLY, err);
}

/* Adds the sources to `bitmap`. */
static bool merge_all(struct graph *graph, struct dirty_bitmap *bitmap, const struct block_dirty_bitmap_merge *what,
                      struct error **err)
{
    for (size_t i = 0; i < what->bitmaps->count; i++) {
        struct dirty_bitmap *source = lookup_source(graph, what, what->bitmaps->items[i], err);

        if (!source)
            return false;
        if (dirty_bitmap_length(source) != dirty_bitmap_length(bitmap))
            return error_set(err,
                             "Bitmaps are of different sizes (destination size is %" PRIu64 ", source size is %" PRIu64
                             ") and can't be merged",
                             dirty_bitmap_length(bitmap), dirty_bitmap_length(source));
        dirty_bitmap_merge(bitmap, source);
    }
    return true;
}

bool dirty_bitmap_do_merge(struct transaction *transaction, struct graph *graph,
                           const struct block_dirty_bitmap_merge *what, struct error **err)
{
    static const struct transaction_ops ops = {.co_abort = co_abort_merge, .co_clean = co_undo_free};
    struct block_dirty_bitmap target = {.node = what->node, .name = what->target};
    struct dirty_bitmap *bitmap = lookup_usable(graph, &target, 0, err);
    struct undo *undo;

    if (!bitmap)
        return false;
    if (!what->bitmaps->count)
        return error_set(err, "Parameter 'bitmaps' expects at least one bitmap to be merged into '%s'", what->target);
    undo = undo_new(bitmap);
    undo->bits = dirty_bitmap_copy_bits(bitmap);
    if (!merge_all(graph, bitmap, what, err)) {
        co_abort_merge(undo);
        co_undo_free(undo);
        return false;
    }
    transaction_add(transaction, &ops, undo);
    return true;
}

/* --- recording --- */

static void co_abort_enable(void *opaque)
{
    struct undo *undo = opaque;

    if (dirty_bitmap_node(undo->bitmap))
        dirty_bitmap_disable(undo->bitmap);
}

static void co_abort_disable(void *opaque)
{
    struct undo *undo = opaque;

    if (dirty_bitmap_node(undo->bitmap))
        dirty_bitmap_enable(undo->bitmap);
}

static bool do_switch(struct transaction *transaction, struct graph *graph, const struct block_dirty_bitmap *what,
                      bool enable, struct error **err)
{
    static const struct transaction_ops enable_ops = {.co_abort = co_abort_enable, .co_clean = co_undo_free};
    static const struct transaction_ops disable_ops = {.co_abort = co_abort_disable, .co_clean = co_undo_free};
    struct dirty_bitmap *bitmap = lookup_usable(graph, what, DIRTY_BITMAP_ALLOW_READ_ONLY, err);

    if (!bitmap)
        return false;
    if (dirty_bitmap_enabled(bitmap) == enable)
        return true;
    if (enable)
        dirty_bitmap_enable(bitmap);
    else
        dirty_bitmap_disable(bitmap);
    transaction_add(transaction, enable ? &enable_ops : &disable_ops, undo_new(bitmap));
    return true;
}

bool dirty_bitmap_do_enable(struct transaction *transaction, struct graph *graph, const struct block_dirty_bitmap *what,
                            struct error **err)
{
    return do_switch(transaction, graph, what, true, err);
}

bool dirty_bitmap_do_disable(struct transaction *transaction, struct graph *graph,
                             const struct block_dirty_bitmap *what, struct error **err)
{
    return do_switch(transaction, graph, what, false, err);
}
