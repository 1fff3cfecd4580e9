/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stackful coroutines. Each belongs to one loop at a time and runs on that loop's thread; it suspends only inside
 * functions marked CO_FN (named co_* or *_co_*) and ends by returning from its entry function.
 *
 * Cancelling is a request: from then on the cancellable waits of the coroutine (sockets, sleep, poll,
 * co_condition_wait) return -ECANCELED, at once and every time, until it ends. File I/O, locks and worker calls are
 * never cut short.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct loop;
struct coroutine;

typedef void co_entry(void *opaque);

/* Whether the caller runs in a coroutine. */
bool co_active(void);

/* The running coroutine; asserts that there is one. It stays valid until its entry returns. */
struct coroutine *co_self(void);

/* Starts a detached coroutine at the end of the run queue of `loop`. Any thread; never runs `entry` before it returns.
 */
void co_spawn(struct loop *loop, co_entry *entry, void *opaque);

/* A coroutine that somebody waits for. Owned by its starter, until co_task_join() or co_task_detach(). */
struct co_task;
struct co_task *co_task_start(struct loop *loop, co_entry *entry, void *opaque) MUST_CHECK;

/* Requests cancellation (see above). Any thread; harmless when it has ended. */
void co_task_cancel(struct co_task *task);

/* Waits for the end and frees `task`; NULL is allowed. Not cancellable. */
void CO_FN co_task_join(struct co_task *task);

/* Gives up the right to wait: `task` is freed when it ends. */
void co_task_detach(struct co_task *task);

/* Whether the running coroutine has been cancelled. */
bool co_cancelled(void);

/* Whether one that waits has: for whoever computes for it on another thread, and so while it is there. Any thread. */
bool coroutine_is_cancelled(const struct coroutine *coroutine);

/*
 * The raw pair beneath all waits. co_suspend() stops the running coroutine until co_wake() is called for it; a wake
 * that comes first is not lost, several before the next suspension count as one. co_wake() may be called by any thread,
 * and appends to the run queue of the coroutine's loop. Callers of co_suspend() look at their condition again
 * afterwards.
 */
void CO_FN co_suspend(void);
void co_wake(struct coroutine *coroutine);

/* As co_suspend(), but ended by cancelling (-ECANCELED) and by a deadline (-ETIMEDOUT) too; else 0. */
int CO_FN co_suspend_cancellable(void) MUST_CHECK;

/* Lets everything else that is ready run first. */
void CO_FN co_yield (void);

/* Moves the running coroutine to `loop`; it returns there. No-op when it is there. */
void CO_FN co_move_to(struct loop *loop);

/*
 * A deadline for the running coroutine: between begin and end its cancellable waits return -ETIMEDOUT once `timeout_ns`
 * have passed. Deadlines nest; the nearest holds. They lie on the stack of the coroutine.
 */
struct co_deadline {
    int64_t at_ns;
    struct co_deadline *outer;
};
void co_deadline_begin(struct co_deadline *deadline, int64_t timeout_ns);
void co_deadline_end(struct co_deadline *deadline);
