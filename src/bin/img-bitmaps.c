/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bin/img-bitmaps.h"

#include "base/error.h"
#include "base/log.h"
#include "block/dirty-bitmap-action.h"
#include "block/dirty-bitmap.h"
#include "block/driver.h"
#include "block/node.h"
#include "block/transaction.h"
#include "cli/image-open.h"
#include "gen/types.h"

bool img_bitmaps_check(const struct node *from, bool skip_broken, struct error **err)
{
    if (!node_driver(from)->bitmaps)
        return error_set(err, "Source lacks bitmap support");
    for (struct dirty_bitmap *bitmap = NULL; (bitmap = dirty_bitmap_next(from, bitmap));) {
        if (!dirty_bitmap_persistent(bitmap) || !dirty_bitmap_inconsistent(bitmap) || skip_broken)
            continue;
        error_set(err, "Cannot copy inconsistent bitmap '%s'", dirty_bitmap_name(bitmap));
        error_hint(err, "Try --skip-broken-bitmaps, or use 'bitmap --remove'");
        return false;
    }
    return true;
}

static bool CO_FN co_add(struct graph *graph, struct transaction *transaction, struct dirty_bitmap *bitmap,
                         const struct image *to, struct error **err)
{
    struct block_dirty_bitmap_add what = {
        .node = to->name,
        .name = (char *)(uintptr_t)dirty_bitmap_name(bitmap),
        .has_granularity = true,
        .granularity = dirty_bitmap_granularity(bitmap),
        .has_persistent = true,
        .persistent = true,
        .has_disabled = true,
        .disabled = !dirty_bitmap_enabled(bitmap),
    };

    return co_dirty_bitmap_do_add(transaction, graph, &what, err) ||
           error_prefix(err, "Failed to create bitmap %s: ", what.name);
}

static bool fill(struct graph *graph, const struct image *to, struct dirty_bitmap *bitmap, struct error **err)
{
    struct dirty_bitmap *copy = dirty_bitmap_lookup(graph, to->name, dirty_bitmap_name(bitmap), err);

    if (!copy)
        return false;
    dirty_bitmap_merge(copy, bitmap);
    return true;
}

bool CO_FN co_img_bitmaps_copy(struct graph *graph, const struct image *from, const struct image *to, bool skip_broken,
                               struct error **err)
{
    for (struct dirty_bitmap *bitmap = NULL; (bitmap = dirty_bitmap_next(from->node, bitmap));) {
        struct transaction *transaction;

        if (!dirty_bitmap_persistent(bitmap))
            continue;
        if (dirty_bitmap_inconsistent(bitmap)) {
            if (skip_broken)
                log_warning("Skipping inconsistent bitmap '%s'", dirty_bitmap_name(bitmap));
            continue;
        }
        transaction = transaction_new();
        if (!co_transaction_end(transaction, co_add(graph, transaction, bitmap, to, err)) ||
            !fill(graph, to, bitmap, err))
            return false;
    }
    return true;
}
