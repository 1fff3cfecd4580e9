/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What users do with dirty bitmaps, as actions of transactions: the effect is there at once, and an abort undoes it.
 * False and the error: nothing has been done; the caller aborts the transaction. Main loop.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "gen/types.h"

struct error;
struct graph;
struct transaction;

bool CO_FN co_dirty_bitmap_do_add(struct transaction *transaction, struct graph *graph,
                                  const struct block_dirty_bitmap_add *what, struct error **err) MUST_CHECK;

/* A stored bitmap is removed from the image at once. */
bool CO_FN co_dirty_bitmap_do_remove(struct transaction *transaction, struct graph *graph,
                                     const struct block_dirty_bitmap *what, struct error **err) MUST_CHECK;
bool dirty_bitmap_do_clear(struct transaction *transaction, struct graph *graph, const struct block_dirty_bitmap *what,
                           struct error **err) MUST_CHECK;
bool dirty_bitmap_do_enable(struct transaction *transaction, struct graph *graph, const struct block_dirty_bitmap *what,
                            struct error **err) MUST_CHECK;
bool dirty_bitmap_do_disable(struct transaction *transaction, struct graph *graph,
                             const struct block_dirty_bitmap *what, struct error **err) MUST_CHECK;
bool dirty_bitmap_do_merge(struct transaction *transaction, struct graph *graph,
                           const struct block_dirty_bitmap_merge *what, struct error **err) MUST_CHECK;

/* The bitmap by its node and name; NULL and "Node 'x' not found" or "Dirty bitmap 'x' not found". Borrowed. */
struct dirty_bitmap *dirty_bitmap_lookup(struct graph *graph, const char *node, const char *name, struct error **err);
