/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internal snapshots of an open image: all that the driver's `image` group has to do with them. Main loop; those that
 * change the image run in a drain. A failure or a crash at any point leaves the old or the new state, and at most
 * leaked clusters, in all versions; see snapshot.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "driver/format/qcow2/snapshot-table.h"
#include "gen/types.h"

struct error;
struct node;
struct qcow2_image;

struct qcow2_snapshots {
    struct qcow2_snapshot_table table;
};

/* Reads the snapshot table; for opening. */
bool CO_FN co_qcow2_snapshots_load(struct qcow2_image *image, struct error **err) MUST_CHECK;
void qcow2_snapshots_free(struct qcow2_image *image);

/* The table; an empty one where there is none. Borrowed until a snapshot comes or goes. */
const struct qcow2_snapshot_table *qcow2_snapshots(const struct qcow2_image *image);

/* Whether its L1 table can be where and what it claims; if not, all that can be done is to repair the image. */
bool qcow2_snapshot_is_sound(const struct qcow2_image *image, const struct qcow2_snapshot *snapshot);

/* Writes the table anew, with the extra data that version 3 demands of every entry. */
int CO_FN co_qcow2_snapshots_rewrite(struct qcow2_image *image, struct error **err) MUST_CHECK;

/* Slots of struct block_driver_image, image.h. */
struct snapshot_info_array *CO_FN co_qcow2_snapshot_list(struct node *node, struct error **err);
bool CO_FN co_qcow2_snapshot_create(struct node *node, struct snapshot_info *info, struct error **err);
bool CO_FN co_qcow2_snapshot_apply(struct node *node, const char *selector, struct error **err);
struct snapshot_info *CO_FN co_qcow2_snapshot_delete(struct node *node, const char *id, const char *name,
                                                     struct error **err);
bool CO_FN co_qcow2_snapshot_load(struct node *node, const char *id, const char *name, struct error **err);

/* --- inside: snapshot-walk.c --- */

enum qcow2_walk {
    QCOW2_WALK_LOWER,  /* takes 1 from each count */
    QCOW2_WALK_RAISE,  /* adds 1 */
    QCOW2_WALK_REVIVE, /* adds 1, and clears the COPIED flags in the L2 tables, which are no active ones yet */
};

/*
 * Changes the counts of all L2 tables and clusters that the `l1_size` entries of `l1` lead to. An L2 table whose entry
 * in `copies` (NULL: none) is another one keeps its count. Works on the file: nothing may be cached of L2 tables, and
 * changed ones are written, not flushed. LOWER frees clusters as qcow2_free_clusters() does. What fails after some
 * counts were raised lowers them again.
 */
int CO_FN co_qcow2_walk(struct qcow2_image *image, const uint64_t *l1, uint32_t l1_size, enum qcow2_walk what,
                        const uint64_t *copies) MUST_CHECK;

/* --- inside: snapshot-flags.c --- */

/*
 * Gives the active L2 tables the flags that the counts demand, or none if `own_nothing`: those that change are written
 * to new clusters, not flushed. `l1`: room for header->l1_size entries, which lead to these tables; where an offset
 * differs from the one in image->l1, the table is a copy. What fails leaves leaks.
 */
int CO_FN co_qcow2_flags_copy(struct qcow2_image *image, bool own_nothing, uint64_t *l1) MUST_CHECK;
