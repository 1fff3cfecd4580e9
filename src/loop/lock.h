/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Locks for coroutines of any loop. Waiting suspends the coroutine, never the thread. All are fair (first come, first
 * served) and none is recursive. Zero-filled memory is a valid, free lock; *_done() asserts that nobody holds it or
 * waits.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct coroutine;
struct co_waiter; /* on the stack of who waits */

/* Coroutines that wait for something. Guarded by the `spin` of what it is part of. */
struct co_wait_list {
    struct co_waiter *first;
    struct co_waiter *last;
};

/* A few instructions of memory work; never held across a suspension. */
struct spin_lock {
    uint32_t word;
};
void spin_lock(struct spin_lock *lock);
void spin_unlock(struct spin_lock *lock);

struct co_mutex {
    struct spin_lock spin;
    struct coroutine *holder;
    struct co_wait_list waiters;
};
void CO_FN co_mutex_lock(struct co_mutex *mutex);
bool co_mutex_try_lock(struct co_mutex *mutex) MUST_CHECK;
void co_mutex_unlock(struct co_mutex *mutex);
void co_mutex_done(struct co_mutex *mutex);

/* Many readers or one writer; a waiting writer holds new readers back. */
struct co_rwlock {
    struct spin_lock spin;
    int32_t holders; /* readers, or -1: a writer */
    struct co_wait_list waiters;
};
void CO_FN co_rwlock_read_lock(struct co_rwlock *lock);
void CO_FN co_rwlock_write_lock(struct co_rwlock *lock);
void co_rwlock_unlock(struct co_rwlock *lock);
void co_rwlock_done(struct co_rwlock *lock);

/*
 * Waiting for a change of state that a co_mutex guards. co_condition_wait() releases `mutex` (may be NULL: state of one
 * loop), waits, and takes it again. 0, or -ECANCELED / -ETIMEDOUT with the mutex held all the same. Spurious returns
 * are allowed.
 */
struct co_condition {
    struct spin_lock spin;
    struct co_wait_list waiters;
};
int CO_FN co_condition_wait(struct co_condition *condition, struct co_mutex *mutex) MUST_CHECK;

/* The same, but neither cancellation nor a deadline ends it. */
void CO_FN co_condition_wait_always(struct co_condition *condition, struct co_mutex *mutex);
void co_condition_signal(struct co_condition *condition);
void co_condition_broadcast(struct co_condition *condition);
void co_condition_done(struct co_condition *condition);

/* Lets whoever waits for a set of coroutines or requests know when the last is through. */
struct co_group {
    struct spin_lock spin;
    uint32_t count;
    struct co_wait_list waiters;
};
void co_group_add(struct co_group *group, uint32_t count);
void co_group_done(struct co_group *group); /* one of them has ended */
void CO_FN co_group_wait(struct co_group *group);
