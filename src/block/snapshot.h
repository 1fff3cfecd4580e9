/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Snapshots, as actions of transactions: the effect is there at once, and an abort undoes it. False and the error:
 * nothing has been done; the caller aborts the transaction. Main loop.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "gen/types.h"

struct error;
struct graph;
struct transaction;

/* External ones: into a node that is there, or into a file. */
bool CO_FN co_snapshot_do(struct transaction *transaction, struct graph *graph, const struct blockdev_snapshot *what,
                          struct error **err) MUST_CHECK;
bool CO_FN co_snapshot_do_sync(struct transaction *transaction, struct graph *graph,
                               const struct blockdev_snapshot_sync *what, struct error **err) MUST_CHECK;

/* Inside an image. */
bool CO_FN co_snapshot_do_internal(struct transaction *transaction, struct graph *graph,
                                   const struct blockdev_snapshot_internal *what, struct error **err) MUST_CHECK;

/* Owned: what it was; NULL and the error. By id, by name, or both. */
struct snapshot_info *CO_FN co_snapshot_delete_internal(struct graph *graph, const char *device, const char *id,
                                                        const char *name, struct error **err) MUST_CHECK;

/* change-backing-file: only what the header says. `format` NULL: as it says now. */
bool CO_FN co_change_backing_file(struct graph *graph, const struct change_backing_file_arg *what,
                                  struct error **err) MUST_CHECK;
