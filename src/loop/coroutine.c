/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Coroutines: their life, and how they give way to each other.
 *
 * Keeps: (1) a coroutine is in at most one of: on the processor, a queue of its loop, its loop's inbox, suspended;
 * (2) COROUTINE_SUSPENDED is set only by the coroutine itself, and cleared only by it after somebody has claimed it by
 * setting COROUTINE_NOTIFIED, so that exactly one waker queues it; (3) one that stops goes straight on to the next that
 * is ready, and to the loop's own stack only when there is none or the turn's budget is used up.
 */
#include "loop/loop-internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* So many times may coroutines of one loop be started or resumed before it looks for completed I/O again. */
enum { TURN_BUDGET = 1024 };

static void coroutine_main(void);

bool co_active(void)
{
    struct loop *loop = loop_current();

    return loop && loop->current;
}

struct coroutine *co_self(void)
{
    struct loop *loop = loop_current();

    assert(loop);
    assert(loop->current);
    return loop->current;
}

void coroutine_fail_unless_active(const char *function)
{
    fprintf(stderr, "%s() called outside of a coroutine\n", function);
    abort();
}

/* The next to run, its stack in place; NULL: the loop has to look around first. */
static struct coroutine *coroutine_next(struct loop *loop)
{
    struct coroutine *coroutine;

    if (!loop->budget)
        return NULL;
    coroutine = unlikely(loop->ops->pick) ? loop->ops->pick(loop) : run_queue_pop(&loop->ready);
    if (coroutine)
        loop->budget--;
    return coroutine;
}

/* Gives `coroutine` a stack; false: it has to wait for one. */
static bool coroutine_get_stack(struct loop *loop, struct coroutine *coroutine)
{
    coroutine->stack = stack_get(&loop->stacks, coroutine_main);
    if (likely(coroutine->stack))
        return true;
    if (!loop->stacks.used) {
        fprintf(stderr, "no memory for the stack of a coroutine\n");
        abort();
    }
    run_queue_push(&loop->starved, coroutine);
    return false;
}

/* A stack has become free, or a place for one: whoever waited for it may try again. */
static void coroutine_feed(struct loop *loop)
{
    if (unlikely(loop->starved.first))
        run_queue_push(&loop->ready, run_queue_pop(&loop->starved));
}

/* The context to go on with when one has stopped. */
static struct context *coroutine_successor(struct loop *loop)
{
    struct coroutine *next;

    do {
        next = coroutine_next(loop);
    } while (next && !next->stack && !coroutine_get_stack(loop, next));
    loop->current = next;
    return next ? &next->stack->context : &loop->context;
}

static void task_ended(struct co_task *task);

static void coroutine_end(struct loop *loop, struct coroutine *coroutine)
{
    assert(!coroutine->deadline);
    assert(loop->coroutines > 0);
    loop->coroutines--;
    if (coroutine->task)
        task_ended(coroutine->task);
    loop_release(coroutine, sizeof(*coroutine));
}

/* What runs on each stack: one coroutine, and then, as long as such are next, others that have not got one. */
static void coroutine_main(void)
{
    struct stack *stack = co_self()->stack;
    struct loop *loop;

    context_entered();
    for (;;) {
        struct coroutine *self = co_self();

        self->entry(self->opaque);
        loop = self->loop;
        assert(loop == loop_current());
        coroutine_end(loop, self);
        coroutine_feed(loop);
        loop->current = coroutine_next(loop);
        if (!loop->current || loop->current->stack)
            break;
        loop->current->stack = stack;
    }
    loop->trimmed = false;
    stack_put(&loop->stacks, stack);
    context_leave(&stack->context, loop->current ? &loop->current->stack->context : &loop->context);
}

void coroutines_run(struct loop *loop)
{
    struct context *context;

    assert(!loop->current);
    loop->budget = TURN_BUDGET;
    run_queue_append(&loop->ready, &loop->deferred);
    while ((context = coroutine_successor(loop)) != &loop->context) {
        context_switch(&loop->context, context);
        assert(!loop->current);
        if (unlikely(loop->departing)) {
            struct coroutine *departing = loop->departing;

            loop->departing = NULL;
            coroutine_feed(loop);
            inbox_push(departing->loop, &departing->item);
        }
    }
}

/* Stops `self`, which has made sure that it will go on. */
static void coroutine_stop(struct loop *loop, struct coroutine *self)
{
    struct context *next = coroutine_successor(loop);

    context_switch(&self->stack->context, next);
}

void co_suspend(void)
{
    unsigned expected = 0;
    struct coroutine *self;

    CO_ASSERT();
    self = co_self();
    if (atomic_compare_exchange_strong_explicit(&self->state, &expected, COROUTINE_SUSPENDED, memory_order_release,
                                                memory_order_relaxed))
        coroutine_stop(self->loop, self);
    expected = atomic_exchange_explicit(&self->state, 0, memory_order_acquire);
    assert(expected & COROUTINE_NOTIFIED);
}

bool coroutine_claim(struct coroutine *coroutine)
{
    return atomic_fetch_or_explicit(&coroutine->state, COROUTINE_NOTIFIED, memory_order_acq_rel) == COROUTINE_SUSPENDED;
}

void coroutine_queue(struct coroutine *coroutine)
{
    struct loop *loop = coroutine->loop;

    if (likely(loop == loop_current()))
        run_queue_push(&loop->ready, coroutine);
    else
        inbox_push(loop, &coroutine->item);
}

void co_wake(struct coroutine *coroutine)
{
    if (coroutine_claim(coroutine))
        coroutine_queue(coroutine);
}

void co_yield (void)
{
    struct coroutine *self;

    CO_ASSERT();
    self = co_self();
    run_queue_push(&self->loop->deferred, self);
    coroutine_stop(self->loop, self);
}

void co_move_to(struct loop *loop)
{
    struct coroutine *self;
    struct loop *here;

    CO_ASSERT();
    self = co_self();
    here = self->loop;
    if (loop == here)
        return;
    assert(!here->departing);
    here->coroutines--;
    here->stacks.used--;
    self->loop = loop;
    self->arriving = true;
    here->departing = self;
    here->current = NULL;
    context_switch(&self->stack->context, &here->context);
    assert(loop_current() == loop);
    assert(loop->current == self);
}

/* Started elsewhere, moved here, or woken by another thread. */
static void coroutine_arrive(struct loop *loop, struct inbox_item *item)
{
    struct coroutine *coroutine = container_of(item, struct coroutine, item);

    assert(coroutine->loop == loop);
    if (coroutine->arriving) {
        coroutine->arriving = false;
        loop->coroutines++;
        loop->stacks.used += coroutine->stack != NULL;
    }
    run_queue_push(&loop->ready, coroutine);
}

static struct coroutine *coroutine_new(struct loop *loop, co_entry *entry, void *opaque)
{
    struct coroutine *coroutine = loop_alloc(sizeof(*coroutine));

    *coroutine = (struct coroutine){
        .item = {.deliver = coroutine_arrive},
        .loop = loop,
        .arriving = true,
        .entry = entry,
        .opaque = opaque,
    };
    return coroutine;
}

static void coroutine_start(struct coroutine *coroutine)
{
    struct loop *loop = coroutine->loop;

    if (loop == loop_current())
        coroutine_arrive(loop, &coroutine->item);
    else
        inbox_push(loop, &coroutine->item);
}

void co_spawn(struct loop *loop, co_entry *entry, void *opaque)
{
    assert(loop);
    assert(entry);
    coroutine_start(coroutine_new(loop, entry, opaque));
}

/* --- tasks --- */

struct co_task {
    struct spin_lock spin;       /* all below */
    struct coroutine *coroutine; /* NULL: has ended */
    struct coroutine *joiner;    /* NULL: nobody waits yet */
    bool detached;
};

static void task_free(struct co_task *task)
{
    loop_release(task, sizeof(*task));
}

struct co_task *co_task_start(struct loop *loop, co_entry *entry, void *opaque)
{
    struct co_task *task = loop_alloc(sizeof(*task));
    struct coroutine *coroutine = coroutine_new(loop, entry, opaque);

    assert(loop);
    assert(entry);
    *task = (struct co_task){.coroutine = coroutine};
    coroutine->task = task;
    coroutine_start(coroutine);
    return task;
}

void co_task_cancel(struct co_task *task)
{
    struct coroutine *coroutine;
    bool claimed = false;

    spin_lock(&task->spin);
    coroutine = task->coroutine;
    if (coroutine) {
        atomic_store_explicit(&coroutine->cancelled, true, memory_order_relaxed);
        claimed = coroutine_claim(coroutine);
    }
    spin_unlock(&task->spin);
    if (claimed)
        coroutine_queue(coroutine);
}

static void task_ended(struct co_task *task)
{
    struct coroutine *joiner;
    bool claimed;
    bool detached;

    spin_lock(&task->spin);
    assert(task->coroutine);
    task->coroutine = NULL;
    joiner = task->joiner;
    claimed = joiner && coroutine_claim(joiner);
    detached = task->detached;
    spin_unlock(&task->spin);
    if (claimed)
        coroutine_queue(joiner);
    if (detached)
        task_free(task);
}

static bool task_has_ended(struct co_task *task, struct coroutine *joiner)
{
    bool ended;

    spin_lock(&task->spin);
    ended = !task->coroutine;
    task->joiner = joiner;
    spin_unlock(&task->spin);
    return ended;
}

void co_task_join(struct co_task *task)
{
    CO_ASSERT();
    if (!task)
        return;
    assert(!task->joiner);
    while (!task_has_ended(task, co_self()))
        co_suspend();
    task_free(task);
}

void co_task_detach(struct co_task *task)
{
    bool ended;

    if (!task)
        return;
    spin_lock(&task->spin);
    assert(!task->joiner);
    ended = !task->coroutine;
    task->detached = true;
    spin_unlock(&task->spin);
    if (ended)
        task_free(task);
}

bool co_cancelled(void)
{
    return coroutine_is_cancelled(co_self());
}

bool coroutine_is_cancelled(const struct coroutine *coroutine)
{
    return atomic_load_explicit(&coroutine->cancelled, memory_order_relaxed);
}

/* --- deadlines and cancellable waits --- */

void co_deadline_begin(struct co_deadline *deadline, int64_t timeout_ns)
{
    struct coroutine *self = co_self();
    int64_t now_ns = loop_now_ns();

    deadline->at_ns = timeout_ns > INT64_MAX - now_ns ? INT64_MAX : now_ns + timeout_ns;
    deadline->outer = self->deadline;
    if (deadline->outer && deadline->outer->at_ns < deadline->at_ns)
        deadline->at_ns = deadline->outer->at_ns;
    self->deadline = deadline;
}

void co_deadline_end(struct co_deadline *deadline)
{
    struct coroutine *self = co_self();

    assert(self->deadline == deadline);
    self->deadline = deadline->outer;
}

int cancellable_begin(struct cancellable *wait)
{
    struct coroutine *self = co_self();

    wait->timer.index = 0;
    wait->timer.fired = false;
    if (unlikely(atomic_load_explicit(&self->cancelled, memory_order_relaxed)))
        return -ECANCELED;
    if (likely(!self->deadline))
        return 0;
    if (self->deadline->at_ns <= loop_now_ns())
        return -ETIMEDOUT;
    timer_arm(&wait->timer, self->deadline->at_ns);
    return 0;
}

int cancellable_reason(const struct cancellable *wait)
{
    if (unlikely(atomic_load_explicit(&co_self()->cancelled, memory_order_relaxed)))
        return -ECANCELED;
    return wait->timer.fired ? -ETIMEDOUT : 0;
}

void cancellable_end(struct cancellable *wait)
{
    timer_disarm(&wait->timer);
}

int co_suspend_cancellable(void)
{
    struct cancellable wait;
    int result = cancellable_begin(&wait);

    if (result < 0)
        return result;
    co_suspend();
    result = cancellable_reason(&wait);
    cancellable_end(&wait);
    return result;
}
