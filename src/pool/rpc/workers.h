/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How many calls of a server run at once. A worker is the right to run one; calls beyond that wait, in their order.
 * Those that do not take long may also use the priority workers. Main loop.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "loop/lock.h"

struct rpc_workers {
    unsigned min, max, priority_max; /* as configured */
    unsigned current;                /* there are so many: from min to max, as there was work */
    unsigned busy, priority_busy;
    unsigned queued; /* calls that wait */
    struct co_condition freed;
};

/* What a call holds while it runs. */
enum rpc_worker { RPC_WORKER_ORDINARY, RPC_WORKER_PRIORITY };

/* Waits for a worker. */
enum rpc_worker CO_FN co_rpc_worker_get(struct rpc_workers *workers, bool high_priority);
void rpc_worker_put(struct rpc_workers *workers, enum rpc_worker worker);

/* Takes the limits; fewer than are busy come to hold as calls end. max is at least 1, and not below min. */
void rpc_workers_configure(struct rpc_workers *workers, unsigned min, unsigned max, unsigned priority);
