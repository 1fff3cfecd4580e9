/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What other threads hand to a loop: a lock-free stack that the loop takes as a whole.
 *
 * The loop sets `sleeping`, then looks at the stack once more; a pusher changes the stack, then looks at `sleeping`.
 * With sequentially consistent accesses one of the two sees the other, so no wake-up is lost.
 */
#include "loop/loop-internal.h"

#include <assert.h>

void inbox_push(struct loop *loop, struct inbox_item *item)
{
    struct inbox *inbox = &loop->inbox;
    struct inbox_item *newest;

    assert(item->deliver);
    atomic_fetch_add(&inbox->pushing, 1);
    newest = atomic_load_explicit(&inbox->newest, memory_order_relaxed);
    do {
        item->next = newest;
    } while (!atomic_compare_exchange_weak(&inbox->newest, &newest, item));
    if (atomic_load(&inbox->sleeping) && atomic_exchange(&inbox->sleeping, false))
        loop->ops->kick(loop);
    atomic_fetch_sub(&inbox->pushing, 1);
}

bool inbox_is_empty(struct loop *loop)
{
    return !atomic_load(&loop->inbox.newest);
}

void inbox_deliver(struct loop *loop)
{
    struct inbox_item *newest;
    struct inbox_item *oldest = NULL;

    if (likely(!atomic_load_explicit(&loop->inbox.newest, memory_order_relaxed)))
        return;
    newest = atomic_exchange_explicit(&loop->inbox.newest, NULL, memory_order_acquire);
    while (newest) {
        struct inbox_item *next = newest->next;

        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        struct inbox_item *item = oldest;

        oldest = item->next;
        item->deliver(loop, item);
    }
}
