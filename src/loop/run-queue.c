/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The coroutines of a loop that are ready to run, in the order in which they became so. */
#include "loop/loop-internal.h"

#include <assert.h>

void run_queue_push(struct run_queue *queue, struct coroutine *coroutine)
{
    coroutine->next = NULL;
    if (queue->last)
        queue->last->next = coroutine;
    else
        queue->first = coroutine;
    queue->last = coroutine;
    queue->count++;
}

struct coroutine *run_queue_pop(struct run_queue *queue)
{
    struct coroutine *coroutine = queue->first;

    if (!coroutine)
        return NULL;
    assert(queue->count > 0);
    queue->first = coroutine->next;
    if (!queue->first)
        queue->last = NULL;
    queue->count--;
    return coroutine;
}

struct coroutine *run_queue_pop_at(struct run_queue *queue, uint32_t position)
{
    struct coroutine *before = NULL;
    struct coroutine *coroutine = queue->first;

    assert(position < queue->count);
    if (!position)
        return run_queue_pop(queue);
    for (uint32_t i = 0; i < position; i++) {
        before = coroutine;
        coroutine = coroutine->next;
    }
    before->next = coroutine->next;
    if (queue->last == coroutine)
        queue->last = before;
    queue->count--;
    return coroutine;
}

void run_queue_append(struct run_queue *queue, struct run_queue *other)
{
    if (!other->first)
        return;
    if (queue->last)
        queue->last->next = other->first;
    else
        queue->first = other->first;
    queue->last = other->last;
    queue->count += other->count;
    *other = (struct run_queue){0};
}
