/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Both sides of a disk that follows another one, from checkpoint to checkpoint. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "gen/types.h"

struct block_driver;
struct error;
struct graph;

extern const struct block_driver replication_driver;

/* Each is about all nodes of this driver. Main loop. */

/* All must be of the mode, and none have been started. Where one cannot start, none has. */
bool CO_FN co_replication_start_all(struct graph *graph, enum replication_mode mode, struct error **err) MUST_CHECK;

/* Now both sides are the same: what a secondary side has changed since the last checkpoint is dropped. */
bool CO_FN co_replication_checkpoint_all(struct graph *graph, struct error **err) MUST_CHECK;

/* The first failure since the start; true: there is none. */
bool replication_check_all(struct graph *graph, struct error **err) MUST_CHECK;

/* Ends it; with `failover` a secondary side keeps what it has changed, and its disk becomes a plain one. */
bool CO_FN co_replication_stop_all(struct graph *graph, bool failover, struct error **err) MUST_CHECK;
