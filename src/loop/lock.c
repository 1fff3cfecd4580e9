/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Locks for coroutines. A lock that is given up goes straight to whoever waited longest, so nobody overtakes.
 *
 * Keeps: (1) the fields of a lock and of its waiters are read and written under its spin lock only; (2) a waiter is
 * claimed (coroutine_claim()) under the spin lock and queued after it has been let go: from the claim to the queueing
 * it cannot run, so it cannot end before the waker is through with it.
 */
#include "loop/loop-internal.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>

struct co_waiter {
    struct co_waiter *next;
    struct coroutine *coroutine;
    bool writer;  /* rwlock */
    bool granted; /* no longer in the list */
    bool claimed; /* has to be queued by who granted */
};

/* --- spin lock --- */

enum { SPINS_BEFORE_YIELD = 64 };

static void spin_lock_contended(struct spin_lock *lock)
{
    unsigned spins = 0;

    do {
        /* The holder may have been preempted: on a busy machine, spinning on would only keep it from going on. */
        while (__atomic_load_n(&lock->word, __ATOMIC_RELAXED)) {
            if (++spins % SPINS_BEFORE_YIELD == 0)
                sched_yield();
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
    } while (__atomic_exchange_n(&lock->word, 1, __ATOMIC_ACQUIRE));
}

void spin_lock(struct spin_lock *lock)
{
    if (unlikely(__atomic_exchange_n(&lock->word, 1, __ATOMIC_ACQUIRE)))
        spin_lock_contended(lock);
}

void spin_unlock(struct spin_lock *lock)
{
    assert(__atomic_load_n(&lock->word, __ATOMIC_RELAXED));
    __atomic_store_n(&lock->word, 0, __ATOMIC_RELEASE);
}

/* --- lists of waiters; all under the spin lock of what they wait for --- */

static void wait_list_append(struct co_wait_list *list, struct co_waiter *waiter)
{
    waiter->next = NULL;
    if (list->last)
        list->last->next = waiter;
    else
        list->first = waiter;
    list->last = waiter;
}

static void wait_list_remove(struct co_wait_list *list, struct co_waiter *waiter)
{
    struct co_waiter **link = &list->first;
    struct co_waiter *before = NULL;

    while (*link != waiter) {
        before = *link;
        assert(before);
        link = &before->next;
    }
    *link = waiter->next;
    if (list->last == waiter)
        list->last = before;
}

/* Takes the first waiter off `list` and hangs it to `granted`, for wait_list_queue() after the spin lock. */
static struct co_waiter *wait_list_grant(struct co_wait_list *list, struct co_wait_list *granted)
{
    struct co_waiter *waiter = list->first;

    assert(waiter);
    list->first = waiter->next;
    if (!list->first)
        list->last = NULL;
    waiter->granted = true;
    waiter->claimed = coroutine_claim(waiter->coroutine);
    /* One that has not been claimed is awake and may leave as soon as the spin lock is free. */
    if (waiter->claimed)
        wait_list_append(granted, waiter);
    return waiter;
}

static void wait_list_queue(struct co_wait_list *granted)
{
    struct co_waiter *waiter = granted->first;

    while (waiter) {
        struct co_waiter *next = waiter->next;

        coroutine_queue(waiter->coroutine);
        waiter = next;
    }
}

/* Suspends until the waiter has been granted. Called with, and returns without, the spin lock held. */
static void wait_list_wait(struct spin_lock *spin, struct co_waiter *waiter)
{
    while (!waiter->granted) {
        spin_unlock(spin);
        co_suspend();
        spin_lock(spin);
    }
    spin_unlock(spin);
}

/* --- mutex --- */

void co_mutex_lock(struct co_mutex *mutex)
{
    struct coroutine *self;

    CO_ASSERT();
    self = co_self();
    spin_lock(&mutex->spin);
    if (likely(!mutex->holder)) {
        mutex->holder = self;
        spin_unlock(&mutex->spin);
        return;
    }
    assert(mutex->holder != self);
    struct co_waiter waiter = {.coroutine = self};

    wait_list_append(&mutex->waiters, &waiter);
    wait_list_wait(&mutex->spin, &waiter);
}

bool co_mutex_try_lock(struct co_mutex *mutex)
{
    struct coroutine *self = co_self();
    bool free;

    spin_lock(&mutex->spin);
    free = !mutex->holder;
    if (free)
        mutex->holder = self;
    spin_unlock(&mutex->spin);
    return free;
}

void co_mutex_unlock(struct co_mutex *mutex)
{
    struct co_wait_list granted = {0};

    spin_lock(&mutex->spin);
    assert(mutex->holder == co_self());
    mutex->holder = NULL;
    if (unlikely(mutex->waiters.first))
        mutex->holder = wait_list_grant(&mutex->waiters, &granted)->coroutine;
    spin_unlock(&mutex->spin);
    wait_list_queue(&granted);
}

void co_mutex_done(struct co_mutex *mutex)
{
    spin_lock(&mutex->spin);
    assert(!mutex->holder);
    assert(!mutex->waiters.first);
    spin_unlock(&mutex->spin);
}

/* --- rwlock --- */

static void rwlock_lock(struct co_rwlock *lock, bool writer)
{
    CO_ASSERT();
    spin_lock(&lock->spin);
    if (!lock->waiters.first && (writer ? lock->holders == 0 : lock->holders >= 0)) {
        lock->holders += writer ? -1 : 1;
        spin_unlock(&lock->spin);
        return;
    }
    struct co_waiter waiter = {.coroutine = co_self(), .writer = writer};

    wait_list_append(&lock->waiters, &waiter);
    wait_list_wait(&lock->spin, &waiter);
}

void co_rwlock_read_lock(struct co_rwlock *lock)
{
    rwlock_lock(lock, false);
}

void co_rwlock_write_lock(struct co_rwlock *lock)
{
    rwlock_lock(lock, true);
}

void co_rwlock_unlock(struct co_rwlock *lock)
{
    struct co_wait_list granted = {0};
    struct co_waiter *first;

    spin_lock(&lock->spin);
    assert(lock->holders);
    lock->holders += lock->holders < 0 ? 1 : -1;
    while ((first = lock->waiters.first) && (first->writer ? lock->holders == 0 : lock->holders >= 0)) {
        lock->holders += first->writer ? -1 : 1;
        wait_list_grant(&lock->waiters, &granted);
    }
    spin_unlock(&lock->spin);
    wait_list_queue(&granted);
}

void co_rwlock_done(struct co_rwlock *lock)
{
    spin_lock(&lock->spin);
    assert(!lock->holders);
    assert(!lock->waiters.first);
    spin_unlock(&lock->spin);
}

/* --- condition --- */

static void condition_enter(struct co_condition *condition, struct co_waiter *waiter, struct co_mutex *mutex)
{
    spin_lock(&condition->spin);
    wait_list_append(&condition->waiters, waiter);
    spin_unlock(&condition->spin);
    if (mutex)
        co_mutex_unlock(mutex);
}

int co_condition_wait(struct co_condition *condition, struct co_mutex *mutex)
{
    struct co_waiter waiter = {0};
    struct cancellable wait;
    int result;

    CO_ASSERT();
    result = cancellable_begin(&wait);
    if (result < 0)
        return result;
    waiter.coroutine = co_self();
    condition_enter(condition, &waiter, mutex);
    spin_lock(&condition->spin);
    while (!waiter.granted && (result = cancellable_reason(&wait)) == 0) {
        spin_unlock(&condition->spin);
        co_suspend();
        spin_lock(&condition->spin);
    }
    if (!waiter.granted)
        wait_list_remove(&condition->waiters, &waiter);
    spin_unlock(&condition->spin);
    cancellable_end(&wait);
    if (mutex)
        co_mutex_lock(mutex);
    return waiter.granted ? 0 : result;
}

void co_condition_wait_always(struct co_condition *condition, struct co_mutex *mutex)
{
    struct co_waiter waiter = {0};

    CO_ASSERT();
    waiter.coroutine = co_self();
    condition_enter(condition, &waiter, mutex);
    spin_lock(&condition->spin);
    wait_list_wait(&condition->spin, &waiter);
    if (mutex)
        co_mutex_lock(mutex);
}

void co_condition_signal(struct co_condition *condition)
{
    struct co_wait_list granted = {0};

    spin_lock(&condition->spin);
    if (condition->waiters.first)
        wait_list_grant(&condition->waiters, &granted);
    spin_unlock(&condition->spin);
    wait_list_queue(&granted);
}

void co_condition_broadcast(struct co_condition *condition)
{
    struct co_wait_list granted = {0};

    spin_lock(&condition->spin);
    while (condition->waiters.first)
        wait_list_grant(&condition->waiters, &granted);
    spin_unlock(&condition->spin);
    wait_list_queue(&granted);
}

void co_condition_done(struct co_condition *condition)
{
    spin_lock(&condition->spin);
    assert(!condition->waiters.first);
    spin_unlock(&condition->spin);
}

/* --- group --- */

void co_group_add(struct co_group *group, uint32_t count)
{
    spin_lock(&group->spin);
    assert(count <= UINT32_MAX - group->count);
    group->count += count;
    spin_unlock(&group->spin);
}

void co_group_done(struct co_group *group)
{
    struct co_wait_list granted = {0};

    spin_lock(&group->spin);
    assert(group->count > 0);
    group->count--;
    while (!group->count && group->waiters.first)
        wait_list_grant(&group->waiters, &granted);
    spin_unlock(&group->spin);
    wait_list_queue(&granted);
}

void co_group_wait(struct co_group *group)
{
    struct co_waiter waiter = {0};

    CO_ASSERT();
    spin_lock(&group->spin);
    if (!group->count) {
        spin_unlock(&group->spin);
        return;
    }
    waiter.coroutine = co_self();
    wait_list_append(&group->waiters, &waiter);
    wait_list_wait(&group->spin, &waiter);
}
