/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/rpc/workers.h"

#include <assert.h>
#include <glib.h>

/* True and *ret: one is taken. */
static bool try_get(struct rpc_workers *workers, bool high_priority, enum rpc_worker *ret)
{
    if (workers->busy < workers->max) {
        workers->busy++;
        workers->current = MAX(workers->current, workers->busy);
        *ret = RPC_WORKER_ORDINARY;
        return true;
    }
    if (high_priority && workers->priority_busy < workers->priority_max) {
        workers->priority_busy++;
        *ret = RPC_WORKER_PRIORITY;
        return true;
    }
    return false;
}

enum rpc_worker co_rpc_worker_get(struct rpc_workers *workers, bool high_priority)
{
    enum rpc_worker worker;

    if (try_get(workers, high_priority, &worker))
        return worker;
    workers->queued++;
    do {
        co_condition_wait_always(&workers->freed, NULL);
    } while (!try_get(workers, high_priority, &worker));
    workers->queued--;
    return worker;
}

/* As many as are allowed, but none is taken from who works. */
static void trim(struct rpc_workers *workers)
{
    unsigned allowed = MAX(workers->max, workers->busy);

    workers->current = CLAMP(workers->current, MIN(workers->min, allowed), allowed);
}

void rpc_worker_put(struct rpc_workers *workers, enum rpc_worker worker)
{
    if (worker == RPC_WORKER_PRIORITY) {
        assert(workers->priority_busy > 0);
        workers->priority_busy--;
    } else {
        assert(workers->busy > 0);
        workers->busy--;
    }
    trim(workers);
    /* All of them: the first in the queue may be one that must not use the worker that is free now. */
    co_condition_broadcast(&workers->freed);
}

void rpc_workers_configure(struct rpc_workers *workers, unsigned min, unsigned max, unsigned priority)
{
    assert(max > 0);
    assert(min <= max);
    workers->min = min;
    workers->max = max;
    workers->priority_max = priority;
    trim(workers);
    co_condition_broadcast(&workers->freed);
}
