/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A log of changed ranges with any number of readers, each of which wants to know what has changed since it last asked.
 * A change is written once, however many readers there are, into memory of the loop on which it happens.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "block/per-loop.h"

struct bitmap;
struct dirty_epoch;

enum { DIRTY_SHIFT_MAX = 31 }; /* the coarsest granularity is 2 GiB */

struct dirty_log {
    struct per_loop parts; /* struct log_part */
    uint32_t shift;        /* atomic: a recorded bit stands for 1 << shift bytes */
    bool any_fresh;        /* atomic: some part may have something */

    /* The user's lock, for all below and all functions but dirty_log_record(). */
    struct dirty_epoch *oldest; /* NULL: nobody reads */
    struct dirty_epoch *newest;
    unsigned readers[DIRTY_SHIFT_MAX + 1]; /* by the granularity they want */
};

/* Who reads; zero-filled: not joined. */
struct dirty_reader {
    struct dirty_epoch *since; /* NULL: not joined */
    unsigned shift;            /* the granularity it wants */
};

/* `log` is zero-filled. Done: nobody reads or records any more. */
void dirty_log_init(struct dirty_log *log);
void dirty_log_done(struct dirty_log *log);

/* A change of a range, at least a byte. Any loop, without a lock. */
void dirty_log_record(struct dirty_log *log, uint64_t offset, uint64_t bytes);

/* From now on the reader wants to know. And it no longer does. */
void dirty_log_join(struct dirty_log *log, struct dirty_reader *reader, unsigned shift);
void dirty_log_leave(struct dirty_log *log, struct dirty_reader *reader);

/* Sets in `into`, of the reader's granularity, what has changed since it joined or last read. */
void dirty_log_read(struct dirty_log *log, struct dirty_reader *reader, struct bitmap *into);

/* Forgets what lies beyond `length` bytes. */
void dirty_log_cut(struct dirty_log *log, uint64_t length);
