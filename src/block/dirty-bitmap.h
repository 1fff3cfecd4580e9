/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty bitmaps: which parts of a node have been changed (by writes, zero writes and discards, through whichever
 * parent) since when. A bitmap stays with its node, whatever happens around it in the graph, and its length follows the
 * node's; what is added is clean.
 *
 * A change is recorded when it has ended, and before anybody hears of that. So who clears a place first and reads it
 * afterwards, as jobs do, misses nothing: a write that the read did not see marks the place again. Bitmaps come and go
 * without a drain; a change in flight when a bitmap is made or enabled is recorded if it ends later.
 *
 * Making, removing, names and states are for the main loop. What is in a bitmap may be read and changed on any loop.
 * Nothing here suspends. Offsets and lengths are in bytes; a bit stands for `granularity` of them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct bitmap;
struct block_dirty_info_array;
struct dirty_bitmap;
struct error;
struct node;

enum {
    DIRTY_BITMAP_GRANULARITY_MIN = 512,
    DIRTY_BITMAP_NAME_MAX = 1023, /* bytes */
};

struct dirty_bitmap_options {
    const char *name;     /* copied; NULL: anonymous, its maker's alone and not shown to users */
    uint32_t granularity; /* a power of two, DIRTY_BITMAP_GRANULARITY_MIN at least */
    bool disabled;        /* does not record changes until it is enabled */
    bool persistent;      /* the node's driver stores it when the node is closed, or it comes from there */
    bool inconsistent;    /* stored, but not kept up to date: can only be removed */
    bool read_only;       /* stored where nothing can be written now */
};

/* A clean bitmap on `node`, also in its co_open(); the node owns it until dirty_bitmap_remove(). The name is free. */
struct dirty_bitmap *dirty_bitmap_new(struct node *node, const struct dirty_bitmap_options *options);

/* Takes it off its node: it records no more and is not found. Freed once nobody has a reference. */
void dirty_bitmap_remove(struct dirty_bitmap *bitmap);

/* Keeps the memory beyond the removal, and beyond the closing of the node. Any loop. NULL is allowed. */
struct dirty_bitmap *dirty_bitmap_ref(struct dirty_bitmap *bitmap);
void dirty_bitmap_unref(struct dirty_bitmap *bitmap);
AUTO_DEFINE(dirty_bitmap, struct dirty_bitmap *, dirty_bitmap_unref)

/* The granularity for bitmaps of `node` unless told otherwise: its cluster size, from 4 KiB to 64 KiB. */
uint32_t CO_FN co_dirty_bitmap_default_granularity(struct node *node);

/* --- finding and describing --- */

/* The one of that name, or NULL. With `err`: and "Dirty bitmap 'x' not found". Borrowed. */
struct dirty_bitmap *dirty_bitmap_find(const struct node *node, const char *name, struct error **err);

/* The same, on the node or, where it is not there, on what it filters or its backing image, and so on; or NULL. */
struct dirty_bitmap *dirty_bitmap_find_below(const struct node *node, const char *name);

/* The named ones, oldest first: the one after `after` (NULL: the first); NULL after the last. */
struct dirty_bitmap *dirty_bitmap_next(const struct node *node, const struct dirty_bitmap *after);

/* As query-named-block-nodes shows them; owned, NULL: there is none. */
struct block_dirty_info_array *dirty_bitmaps_describe(const struct node *node);

const char *dirty_bitmap_name(const struct dirty_bitmap *bitmap);  /* NULL: anonymous */
struct node *dirty_bitmap_node(const struct dirty_bitmap *bitmap); /* NULL: it has been removed, or the node closed */
uint32_t dirty_bitmap_granularity(const struct dirty_bitmap *bitmap);
uint64_t dirty_bitmap_length(struct dirty_bitmap *bitmap); /* of its node, bytes; any loop */

/* --- states --- */

bool dirty_bitmap_enabled(const struct dirty_bitmap *bitmap);
void dirty_bitmap_enable(struct dirty_bitmap *bitmap);
void dirty_bitmap_disable(struct dirty_bitmap *bitmap);

bool dirty_bitmap_persistent(const struct dirty_bitmap *bitmap);
void dirty_bitmap_set_persistent(struct dirty_bitmap *bitmap, bool persistent);
bool dirty_bitmap_inconsistent(const struct dirty_bitmap *bitmap);
void dirty_bitmap_set_inconsistent(struct dirty_bitmap *bitmap);
bool dirty_bitmap_read_only(const struct dirty_bitmap *bitmap);
void dirty_bitmap_set_read_only(struct dirty_bitmap *bitmap, bool read_only);

/*
 * Taken by an operation, which it names for messages ("block export 'e0'"): others may not use it. NULL: free again.
 * Who takes a bitmap checks first and keeps a reference.
 */
void dirty_bitmap_set_busy(struct dirty_bitmap *bitmap, const char *user);
bool dirty_bitmap_busy(const struct dirty_bitmap *bitmap);

/* Whether an operation may use it: not while it is busy, inconsistent or read-only, but for what `allow` says. */
enum dirty_bitmap_allow {
    DIRTY_BITMAP_ALLOW_READ_ONLY = 1u << 0,
    DIRTY_BITMAP_ALLOW_INCONSISTENT = 1u << 1,
};
bool dirty_bitmap_check(const struct dirty_bitmap *bitmap, unsigned allow, struct error **err) MUST_CHECK;

/*
 * For operations that work off a bitmap while writes go on: from the freeze on, new changes go to a place of their own
 * and what is in the bitmap stays. The thaw brings both together (KEEP: the operation failed) or leaves the new changes
 * alone (DROP: what was in it is done). In between, the frozen content can still be cleared bit by bit.
 */
enum dirty_bitmap_thaw { DIRTY_BITMAP_KEEP, DIRTY_BITMAP_DROP };
void dirty_bitmap_freeze(struct dirty_bitmap *bitmap);
void dirty_bitmap_thaw(struct dirty_bitmap *bitmap, enum dirty_bitmap_thaw how);
bool dirty_bitmap_frozen(struct dirty_bitmap *bitmap);

/* --- content; any loop --- */

uint64_t dirty_bitmap_count(struct dirty_bitmap *bitmap); /* dirty bytes: whole bits, also at the end of the node */
bool dirty_bitmap_get(struct dirty_bitmap *bitmap, uint64_t offset);

/* The first dirty, or clean, byte in [offset, end); `end` where there is none. */
uint64_t dirty_bitmap_next_dirty(struct dirty_bitmap *bitmap, uint64_t offset, uint64_t end);
uint64_t dirty_bitmap_next_clean(struct dirty_bitmap *bitmap, uint64_t offset, uint64_t end);

/*
 * The first dirty area in [offset, end), cut there and to `max_bytes` (0: no limit); false where there is none. To work
 * a bitmap off: find an area, clear it, copy it, go on behind it; then from the start until there is nothing.
 */
bool dirty_bitmap_next_area(struct dirty_bitmap *bitmap, uint64_t offset, uint64_t end, uint64_t max_bytes,
                            uint64_t *ret_offset, uint64_t *ret_bytes);

/* Marks all that the range touches; clears what lies wholly inside (the node's end counts as the end of a bit). */
void dirty_bitmap_set(struct dirty_bitmap *bitmap, uint64_t offset, uint64_t bytes);
void dirty_bitmap_clear(struct dirty_bitmap *bitmap, uint64_t offset, uint64_t bytes);

/* Adds what is dirty in `from`, which may be of another node, length and granularity. */
void dirty_bitmap_merge(struct dirty_bitmap *to, struct dirty_bitmap *from);

/* The bits as they are now; owned. And these in place of all that is in it: `bits` is taken, and cut or extended. */
struct bitmap *dirty_bitmap_copy_bits(struct dirty_bitmap *bitmap) MUST_CHECK;
void dirty_bitmap_replace_bits(struct dirty_bitmap *bitmap, struct bitmap *bits);

/* --- for the block layer --- */

/* A change of `node`, which has NODE_HOOK_DIRTY_BITMAPS, has ended. Any loop. */
void dirty_bitmaps_record(struct node *node, uint64_t offset, uint64_t bytes);

/* All of the node's data may have changed, but not by requests: an internal snapshot has been applied. */
void dirty_bitmaps_record_all(struct node *node);

/* The node has become shorter. Any loop. */
void dirty_bitmaps_shrink(struct node *node);

/* The node has closed: its bitmaps are removed. */
void dirty_bitmaps_close(struct node *node);
