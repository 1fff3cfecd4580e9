/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copying a disk while it is in use: which clusters are still to be copied, and copying them, by several coroutines on
 * any loop at the same time, each cluster once. Whoever is about to overwrite the source copies first; a background job
 * copies the rest. Requests go by the edges of one node, inside a request of that node.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct block_copy;
struct coroutine;
struct edge;

/* A range that one coroutine changes in the target, and nobody else meanwhile. On its stack. */
struct block_copy_claim {
    struct block_copy_claim *next;
    uint64_t offset;
    uint64_t bytes;
    bool copies;    /* what was marked is being copied */
    bool saves;     /* the same, and somebody's write waits for it */
    bool overtaken; /* of a writer: somebody else has changed the source there meanwhile */
    bool past;      /* of a writer past the node, and allocated for it */
    struct coroutine *owner;
};

struct block_copy_options {
    struct edge *source;
    struct edge *target;
    uint64_t length;       /* bytes; of both at least */
    uint32_t cluster_size; /* bytes, a power of two: copied as one */
};

/* Nothing is to be copied yet. Freed when nobody copies any more. */
struct block_copy *block_copy_new(const struct block_copy_options *options);
void block_copy_free(struct block_copy *copy); /* NULL is allowed */

/* How it writes; before anything is copied, or inside a drain. */
void block_copy_set_compress(struct block_copy *copy, bool compress);
void block_copy_set_copy_range(struct block_copy *copy, bool use); /* by the system where that works */
void block_copy_set_unmap(struct block_copy *copy, bool unmap);    /* zeroes may become holes (default: yes) */
/* The target is the source, on which layers below are about to go: writes leave the data that is seen as it is, and
 * zeroes are written even where there are some. */
void block_copy_set_in_place(struct block_copy *copy);
/* Zeroes are written even where the target reads as zeroes: another image will be put below it. */
void block_copy_set_explicit_zeroes(struct block_copy *copy);
/*
 * The target shows the source where it has nothing, and is read meanwhile: a copy waits for the reads that have begun,
 * so that none of them finds what is written to the source after it. The target allows it (node_allow_serialising()).
 */
void block_copy_set_serialising(struct block_copy *copy);
/* The target will be flushed when all has been copied: from time to time it is told so, that there be less to do then.
 */
void block_copy_set_flush_ahead(struct block_copy *copy);
/* The same by hand, after each copy of a job's: where others copy, too, those whose requests wait for it are spared
 * that. */
void CO_FN co_block_copy_flush_ahead(struct block_copy *copy);
void block_copy_set_discard_source(struct block_copy *copy, bool discard); /* what has been copied */

/*
 * Who copies without waiting for others gives way to those who do, and to writers that change the target themselves: in
 * small steps, one at a time, before which those go first. For near ends, where requests take turns at a file's lock.
 */
void block_copy_set_gives_way(struct block_copy *copy);

/* Whether copying is nothing but moving memory: between files of this host in the page cache. Main loop. */
bool block_copy_is_near(const struct block_copy *copy);

/* How many requests of some 1 MiB are worth making at once, of `limit` that are allowed. Main loop. */
unsigned block_copy_parallel(const struct block_copy *copy, unsigned limit);

uint32_t block_copy_cluster_size(const struct block_copy *copy);
uint64_t block_copy_length(const struct block_copy *copy);

/* Marks all clusters that the range touches as to be copied; or those that lie wholly inside as not. Any loop. */
void block_copy_mark(struct block_copy *copy, uint64_t offset, uint64_t bytes);
void block_copy_unmark(struct block_copy *copy, uint64_t offset, uint64_t bytes);

/* Bytes that are still to be copied or being copied; whole clusters but at the end. Any loop. */
uint64_t block_copy_remaining(struct block_copy *copy);

/* The first area at or behind `from` that is to be copied and not being copied; false: there is none. Any loop. */
bool block_copy_next(struct block_copy *copy, uint64_t from, uint64_t *ret_offset, uint64_t *ret_bytes);

/*
 * Copies what of the range (widened to clusters) is to be copied. `wait`: and waits for what others are copying of it.
 * A negative errno of either side, in *ret_is_read which; what could not be copied is still to be.
 */
int CO_FN co_block_copy(struct block_copy *copy, uint64_t offset, uint64_t bytes, bool wait, bool *ret_is_read);

/* What has been copied is on the target's medium afterwards. Inside a request of the node. 0, or a negative errno. */
int CO_FN co_block_copy_flush(struct block_copy *copy);

/* Bytes that have been copied so far. Any loop. */
uint64_t block_copy_done(struct block_copy *copy);

/*
 * For writers that change both sides themselves: waits until nobody changes the clusters of the range in the target,
 * and keeps others from it. Inside a request of the node. At the end, what the writer has brought to the target as a
 * whole
 * (`done`) is no longer marked; else all of it is.
 */
void CO_FN co_block_copy_claim(struct block_copy *copy, struct block_copy_claim *claim, uint64_t offset,
                               uint64_t bytes);
void block_copy_release(struct block_copy *copy, struct block_copy_claim *claim, uint64_t offset, uint64_t bytes,
                        bool done);

/*
 * Somebody has changed the source: it is marked, unless that was the running coroutine under a claim of its own, whose
 * release tells. Whether it is marked now. Any loop.
 */
bool block_copy_changed(struct block_copy *copy, uint64_t offset, uint64_t bytes);

/*
 * Around a change that somebody makes of a source that is the target too, past the node: it claims its range as writers
 * above the node do, unless it is one of them, or the copying itself. Both in one coroutine, on any loop.
 */
void CO_FN co_block_copy_before(struct block_copy *copy, uint64_t offset, uint64_t bytes);
void block_copy_after(struct block_copy *copy);

/* Whether the place is marked, and for how many of the bytes that goes on in *ret_bytes. Any loop. */
bool block_copy_is_marked(struct block_copy *copy, uint64_t offset, uint64_t bytes, uint64_t *ret_bytes);

/* How far the source is zeroes at `offset`, at most `bytes`; 0: there is data. */
uint64_t CO_FN co_block_copy_zeroes(struct block_copy *copy, uint64_t offset, uint64_t bytes);
