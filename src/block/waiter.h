/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Coroutines that wait under a spin lock for a change of what it guards. A waiter lies on the stack of its coroutine,
 * which leaves only when it has been woken, and sees that under the lock; so whoever wakes it, under the lock too, is
 * through with it by then.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "loop/coroutine.h"
#include "loop/lock.h"

struct waiter {
    struct waiter *next;
    struct coroutine *coroutine;
    bool woken;
};

/* Waits until waiters_wake() takes the list. `spin` is held by the caller, before and after. */
static inline void CO_FN co_waiter_wait(struct waiter **list, struct spin_lock *spin)
{
    struct waiter waiter = {.next = *list, .coroutine = co_self()};

    *list = &waiter;
    while (!waiter.woken) {
        spin_unlock(spin);
        co_suspend();
        spin_lock(spin);
    }
}

/* Wakes all; they look again at what they waited for. The lock is held. */
static inline void waiters_wake(struct waiter **list)
{
    struct waiter *waiter = *list;

    *list = NULL;
    while (waiter) {
        struct waiter *next = waiter->next;

        waiter->woken = true;
        co_wake(waiter->coroutine);
        waiter = next;
    }
}
