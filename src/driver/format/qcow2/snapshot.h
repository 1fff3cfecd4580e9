/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internal snapshots of an open image: all that the driver's `image` group has to do with them. Main loop; those that
 * change the image run in a drain. A failure or a crash at any point leaves the old or the new state, and at most
 * leaked clusters; while counts and flags do not agree, the dirty bit is set where the version has one.
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

/* What happens to the flags in L2 tables on the way. */
enum qcow2_walk_flags {
    QCOW2_WALK_KEEP_FLAGS,
    QCOW2_WALK_CLEAR_FLAGS,
    QCOW2_WALK_SET_FLAGS, /* as the counts say */
};

/*
 * Adds `delta` (1, 0 or -1) to the counts of all L2 tables and clusters that the `l1_size` entries of `l1` lead to, and
 * sees to the flags of these L2 tables. Changed L2 tables are written, not flushed. Works on the file: nothing may be
 * cached of L2 tables. -1 frees clusters as qcow2_free_clusters() does. What fails after some counts were raised lowers
 * them again.
 */
int CO_FN co_qcow2_walk(struct qcow2_image *image, const uint64_t *l1, uint32_t l1_size, int delta,
                        enum qcow2_walk_flags flags) MUST_CHECK;

/* The flags of the active L1 entries: set where the L2 table's count is one, else clear; written where changed. */
int CO_FN co_qcow2_walk_active_flags(struct qcow2_image *image, bool clear) MUST_CHECK;
