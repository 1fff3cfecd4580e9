/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A loop's timers: a heap with the earliest on top. */
#include "loop/loop-internal.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>

static void heap_place(struct timer_heap *heap, uint32_t at, struct timer *timer)
{
    heap->items[at] = timer;
    timer->index = at + 1;
}

static void heap_sift_up(struct timer_heap *heap, uint32_t at, struct timer *timer)
{
    while (at > 0) {
        uint32_t parent = (at - 1) / 2;

        if (heap->items[parent]->at_ns <= timer->at_ns)
            break;
        heap_place(heap, at, heap->items[parent]);
        at = parent;
    }
    heap_place(heap, at, timer);
}

static void heap_sift_down(struct timer_heap *heap, uint32_t at, struct timer *timer)
{
    for (;;) {
        uint32_t child = 2 * at + 1;

        if (child >= heap->count)
            break;
        if (child + 1 < heap->count && heap->items[child + 1]->at_ns < heap->items[child]->at_ns)
            child++;
        if (timer->at_ns <= heap->items[child]->at_ns)
            break;
        heap_place(heap, at, heap->items[child]);
        at = child;
    }
    heap_place(heap, at, timer);
}

static void heap_remove(struct timer_heap *heap, struct timer *timer)
{
    uint32_t at = timer->index - 1;
    struct timer *last;

    assert(timer->index > 0);
    assert(heap->items[at] == timer);
    timer->index = 0;
    last = heap->items[--heap->count];
    if (last == timer)
        return;
    if (at > 0 && heap->items[(at - 1) / 2]->at_ns > last->at_ns)
        heap_sift_up(heap, at, last);
    else
        heap_sift_down(heap, at, last);
}

void timer_arm(struct timer *timer, int64_t at_ns)
{
    struct timer_heap *heap = &loop_self()->timers;

    assert(!timer->index);
    timer->at_ns = at_ns;
    timer->coroutine = co_self();
    timer->fired = false;
    if (heap->count == heap->capacity) {
        heap->capacity = heap->capacity ? 2 * heap->capacity : 16;
        heap->items = g_renew(struct timer *, heap->items, heap->capacity);
    }
    heap_sift_up(heap, heap->count++, timer);
}

void timer_disarm(struct timer *timer)
{
    if (timer->index)
        heap_remove(&loop_self()->timers, timer);
}

int64_t timer_heap_next_ns(const struct timer_heap *heap)
{
    return heap->count ? heap->items[0]->at_ns : INT64_MAX;
}

void timer_heap_fire(struct timer_heap *heap, int64_t now_ns)
{
    while (heap->count && heap->items[0]->at_ns <= now_ns) {
        struct timer *timer = heap->items[0];

        heap_remove(heap, timer);
        timer->fired = true;
        co_wake(timer->coroutine);
    }
}

int co_sleep_ns(int64_t duration_ns)
{
    struct timer timer = {0};
    struct cancellable wait;
    int64_t now_ns;
    int result;

    CO_ASSERT();
    result = cancellable_begin(&wait);
    if (result < 0)
        return result;
    now_ns = loop_now_ns();
    if (duration_ns > 0) {
        timer_arm(&timer, duration_ns > INT64_MAX - now_ns ? INT64_MAX : now_ns + duration_ns);
        while (!timer.fired && (result = cancellable_reason(&wait)) == 0)
            co_suspend();
        timer_disarm(&timer);
    } else {
        co_yield ();
    }
    cancellable_end(&wait);
    return timer.fired ? 0 : result;
}
