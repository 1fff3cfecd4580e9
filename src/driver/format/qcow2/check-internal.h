/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A check under way. Its memory does not depend on what the image claims, and of the file's size only up to a limit:
 * references are counted for a window of clusters at a time, going through all tables once for each window that has
 * anything in it.
 *
 * The parts, in the order in which they run:
 *  - check.c: the order; the snapshot table, the header's bits;
 *  - check-walk.c: goes through all that refers to clusters;
 *  - check-count.c: the window with the number of references to each cluster;
 *  - check-refcount.c: compares these with the refcounts in the file, and sets those right;
 *  - check-rebuild.c: makes new refcount structures;
 *  - check-copied.c: the COPIED flags;
 *  - check-file.c: reading and writing tables piece by piece.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "block/image.h"
#include "driver/format/qcow2/check.h"
#include "driver/format/qcow2/header.h"
#include "driver/format/qcow2/snapshot-table.h"

enum {
    QCOW2_CHECK_PIECE_BYTES = 4096,
    QCOW2_CHECK_PIECES = 256,
    QCOW2_CHECK_TABLE_BYTES = 64 * 1024, /* of an L1 or L2 table, at once */
    QCOW2_CHECK_WINDOW_BYTES = 32 * 1024 * 1024,
};

/* Of the work for a window, going through all tables is so much; the rest is comparing. */
#define QCOW2_CHECK_WALK_SHARE 0.7

/* co_qcow2_check() with another size of window, for tests. A window covers a refcount block at least. */
bool CO_FN co_qcow2_check_windowed(struct edge *file, unsigned repair, struct image_report *report, size_t window_bytes,
                                   struct qcow2_check_result *ret, struct error **err) MUST_CHECK;

/* The counts as tools and QMP have them. */
void qcow2_check_fill_in(const struct qcow2_check_result *result, struct image_check *check);

/* A piece of the file, as it was read. */
struct qcow2_check_piece {
    uint64_t number; /* offset / QCOW2_CHECK_PIECE_BYTES */
    bool valid;
    uint8_t data[QCOW2_CHECK_PIECE_BYTES];
};

/* Clusters that repairing adds at the end of the image. */
struct qcow2_check_addition {
    uint64_t first; /* cluster */
    uint64_t count;
};

struct qcow2_check {
    struct edge *file;
    struct qcow2_header *header;
    unsigned repair;
    struct image_report *report;
    struct qcow2_check_result result;
    struct error *error; /* why it cannot go on */

    uint64_t file_length;   /* bytes */
    uint64_t cluster_size;  /* bytes */
    uint64_t cluster_count; /* that the file has, and one that a compressed cluster at its end may begin */
    uint64_t refcount_max;  /* what a refcount can say */
    struct qcow2_snapshot_table snapshots;
    size_t snapshots_incomplete; /* entries that need to be written anew */
    bool snapshots_rewrite;

    /* The window: references to clusters [window_first, window_first + window_count). */
    uint64_t window_first;
    uint64_t window_count;
    uint64_t window_max; /* a power of two, and a multiple of what a refcount block covers */
    size_t window_bytes; /* that it may take */
    bool wide;           /* 32 bits a cluster, else 16 */
    void *window;
    uint64_t next_reference; /* the lowest cluster beyond the window that is referred to */
    uint8_t *block_used;     /* a bit for each refcount block that a rebuild needs; NULL: not wanted */
    uint64_t block_used_max;
    uint64_t block_used_end; /* behind the last one whose bit is set */

    /* How far it is: a part of all the work is under way, in which windows are the steps. */
    double part_from, part_to;  /* of 1 */
    uint64_t l1_done, l1_total; /* entries in this window's walk */

    bool quiet;                    /* what this walk finds has been told by an earlier one */
    bool recount;                  /* this window has been walked before */
    bool old_refcount;             /* the walk counts the refcount structures that are there */
    bool rebuild;                  /* refcount structures cannot be trusted */
    uint64_t refcount_corruptions; /* those that a rebuild ends */
    uint64_t used_end;             /* behind the last cluster that is referred to, or has a refcount */
    struct qcow2_check_addition additions[2];

    struct qcow2_check_piece *pieces;
    uint8_t *l1_buffer; /* QCOW2_CHECK_TABLE_BYTES each */
    uint8_t *l2_buffer;
};

/* One line; nothing where this walk is quiet. */
void qcow2_check_say(struct qcow2_check *check, const char *format, ...) PRINTF_LIKE(2, 3);

/* The same, as a corruption. */
void qcow2_check_corruption(struct qcow2_check *check, const char *format, ...) PRINTF_LIKE(2, 3);

/* The same, of something that only the walks for this window can see. */
void qcow2_check_corruption_here(struct qcow2_check *check, const char *format, ...) PRINTF_LIKE(2, 3);

/*
 * The parts of the work, from `from` to `to` of 1: qcow2_check_part() begins one. qcow2_check_tick() tells whoever
 * waits that of it, `done` of what is to be done is; 0, or -ECANCELED.
 */
void qcow2_check_part(struct qcow2_check *check, double from, double to);
int qcow2_check_tick(struct qcow2_check *check, double done) MUST_CHECK;

/* The same, `done` being of the present window. */
int qcow2_check_tick_window(struct qcow2_check *check, double done) MUST_CHECK;

/* --- check-file.c --- */

/* Beyond the end of the file are zeroes. 0 or -errno. The piece is borrowed until the next call. */
int CO_FN co_qcow2_check_piece(struct qcow2_check *check, uint64_t offset, const uint8_t **ret) MUST_CHECK;
int CO_FN co_qcow2_check_load64(struct qcow2_check *check, uint64_t offset, uint64_t *ret) MUST_CHECK;
int CO_FN co_qcow2_check_read(struct qcow2_check *check, uint64_t offset, uint8_t *to, size_t bytes) MUST_CHECK;

/* Writes, keeping the pieces right. */
int CO_FN co_qcow2_check_write(struct qcow2_check *check, uint64_t offset, const uint8_t *data,
                               size_t bytes) MUST_CHECK;
int CO_FN co_qcow2_check_store64(struct qcow2_check *check, uint64_t offset, uint64_t value) MUST_CHECK;
void qcow2_check_forget(struct qcow2_check *check);

/* --- check-count.c --- */

/* Moves the window, which is empty then; frees it. */
void qcow2_check_window(struct qcow2_check *check, uint64_t first);
void qcow2_check_window_done(struct qcow2_check *check);

/* One more reference to each cluster that the range touches. */
void qcow2_check_refer(struct qcow2_check *check, uint64_t offset, uint64_t bytes);

/* References to a cluster in the window. */
uint64_t qcow2_check_references(const struct qcow2_check *check, uint64_t cluster);

/* --- check-walk.c --- */

/* Counts all references in the window. `disk`: counts what the disk has, too. */
int CO_FN co_qcow2_check_walk(struct qcow2_check *check, bool disk) MUST_CHECK;

/* Reads an L1 entry's L2 table, or a part of one: entries [first, first + count) to l2_buffer. */
int CO_FN co_qcow2_check_l2_part(struct qcow2_check *check, uint64_t l2_offset, unsigned first,
                                 unsigned *ret_count) MUST_CHECK;

/* Whether a table there may be written: it overlaps no other structure. `kind`: its own, enum qcow2_metadata. */
int CO_FN co_qcow2_check_may_write(struct qcow2_check *check, uint64_t offset, uint64_t bytes, unsigned kind,
                                   bool *ret) MUST_CHECK;

/* --- check-refcount.c --- */

/* Where a cluster's refcount stands: 0, 1 with *ret_offset that of its refcount block, or -errno. */
int CO_FN co_qcow2_check_block_offset(struct qcow2_check *check, uint64_t cluster, uint64_t *ret_offset) MUST_CHECK;

/* A cluster's refcount in the file. 0 or -errno. */
int CO_FN co_qcow2_check_refcount(struct qcow2_check *check, uint64_t cluster, uint64_t *ret) MUST_CHECK;

/* Compares, over all windows, and repairs what can be repaired in place. */
int CO_FN co_qcow2_check_refcounts(struct qcow2_check *check) MUST_CHECK;

/* --- check-rebuild.c --- */

/* Makes new refcount structures, and a new snapshot table where that is needed. */
int CO_FN co_qcow2_check_rebuild(struct qcow2_check *check) MUST_CHECK;

/* --- check-copied.c --- */

int CO_FN co_qcow2_check_copied(struct qcow2_check *check) MUST_CHECK;
