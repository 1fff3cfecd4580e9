/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A loop's worker threads, for what the system can only do while a thread waits. Started on demand, ended when there
 * has been nothing to do for a while; those that are to be kept wait without a time limit. Where the system gives us
 * no thread at all, the loop does the work itself.
 */
#include "loop/loop-internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

enum { WORKER_IDLE_S = 10 };

void thread_block_signals(sigset_t *ret_old)
{
    sigset_t all;

    sigfillset(&all);
    /* Those that a fault of the thread itself raises must stay deadly. */
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGILL);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGABRT);
    sigdelset(&all, SIGTRAP);
    pthread_sigmask(SIG_BLOCK, &all, ret_old);
}

/* The next piece of work, or NULL: the thread is to end. Under the mutex. */
static struct work *worker_next(struct worker_pool *pool)
{
    for (;;) {
        struct work *work = pool->first;
        struct timespec until;
        int waited = 0;

        if (work) {
            pool->first = work->next;
            if (!pool->first)
                pool->last = NULL;
            pool->queued--;
            return work;
        }
        if (pool->stopping || pool->threads > pool->threads_max)
            return NULL;
        pool->idle++;
        if (pool->threads <= pool->threads_min) {
            pthread_cond_wait(&pool->changed, &pool->mutex);
        } else {
            clock_gettime(CLOCK_MONOTONIC, &until);
            until.tv_sec += WORKER_IDLE_S;
            waited = pthread_cond_timedwait(&pool->changed, &pool->mutex, &until);
        }
        pool->idle--;
        if (waited == ETIMEDOUT && !pool->first && pool->threads > pool->threads_min)
            return NULL;
    }
}

/*
 * Under the mutex: this thread ends, or the pool does (`self` NULL). Whoever ends waits for the one before it, so that
 * all are gone, with what libraries keep for each thread, when the pool is. True: wait for *ret_before, unlocked.
 */
static bool worker_follow(struct worker_pool *pool, const pthread_t *self, pthread_t *ret_before)
{
    bool has_before = pool->has_last;

    *ret_before = pool->last_ended;
    pool->has_last = self;
    if (self)
        pool->last_ended = *self;
    return has_before;
}

static void *worker_main(void *opaque)
{
    struct worker_pool *pool = opaque;
    pthread_t self = pthread_self();
    pthread_t before;
    bool has_before;
    struct work *work;

    pthread_mutex_lock(&pool->mutex);
    while ((work = worker_next(pool))) {
        pthread_mutex_unlock(&pool->mutex);
        work->result = work->function(work->opaque);
        inbox_push(work->loop, &work->item);
        pthread_mutex_lock(&pool->mutex);
    }
    pool->threads--;
    has_before = worker_follow(pool, &self, &before);
    pthread_cond_broadcast(&pool->ended);
    pthread_mutex_unlock(&pool->mutex);
    if (has_before)
        pthread_join(before, NULL);
    return NULL;
}

/* Under the mutex. False: the system gives us no thread; those that there are have to do. */
static bool worker_start(struct worker_pool *pool)
{
    pthread_t thread;
    sigset_t old;
    int failed;

    thread_block_signals(&old);
    failed = pthread_create(&thread, NULL, worker_main, pool);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (failed)
        return false;
    pthread_setname_np(thread, "worker");
    pool->threads++;
    return true;
}

void worker_pool_init(struct worker_pool *pool)
{
    pthread_condattr_t attributes;

    memset(pool, 0, sizeof(*pool));
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->changed, &attributes);
    pthread_cond_init(&pool->ended, &attributes);
    pthread_condattr_destroy(&attributes);
    pool->threads_max = WORKER_THREADS_DEFAULT;
}

void worker_pool_configure(struct worker_pool *pool, uint32_t threads_min, uint32_t threads_max)
{
    pthread_mutex_lock(&pool->mutex);
    pool->threads_max = threads_max;
    pool->threads_min = threads_min;
    assert(pool->threads_min <= pool->threads_max);
    while (pool->threads < pool->threads_min && worker_start(pool))
        ;
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->mutex);
}

void worker_pool_done(struct worker_pool *pool)
{
    pthread_t last;
    bool has_last;

    pthread_mutex_lock(&pool->mutex);
    assert(!pool->first);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->changed);
    while (pool->threads)
        pthread_cond_wait(&pool->ended, &pool->mutex);
    has_last = worker_follow(pool, NULL, &last);
    pthread_mutex_unlock(&pool->mutex);
    if (has_last)
        pthread_join(last, NULL);
    pthread_cond_destroy(&pool->ended);
    pthread_cond_destroy(&pool->changed);
    pthread_mutex_destroy(&pool->mutex);
}

static void work_arrive(struct loop *loop, struct inbox_item *item)
{
    struct work *work = container_of(item, struct work, item);

    assert(work->loop == loop);
    work->done = true;
    co_wake(work->coroutine);
}

int co_worker_pool_run(worker_fn *function, void *opaque)
{
    struct loop *loop = loop_self();
    struct worker_pool *pool = &loop->workers;
    struct work work = {
        .item = {.deliver = work_arrive},
        .loop = loop,
        .coroutine = co_self(),
        .function = function,
        .opaque = opaque,
    };
    bool wanted;

    pthread_mutex_lock(&pool->mutex);
    if (pool->idle <= pool->queued && pool->threads < pool->threads_max)
        worker_start(pool);
    if (!pool->threads) {
        /* Slow for everybody on this loop, but right. */
        pthread_mutex_unlock(&pool->mutex);
        return function(opaque);
    }
    if (pool->last)
        pool->last->next = &work;
    else
        pool->first = &work;
    pool->last = &work;
    pool->queued++;
    wanted = pool->idle;
    pthread_mutex_unlock(&pool->mutex);
    /* Whoever is woken takes the mutex first, and must not have to sleep for it. */
    if (wanted)
        pthread_cond_signal(&pool->changed);
    while (!work.done)
        co_suspend();
    return work.result;
}

int co_worker_run(worker_fn *work, void *opaque)
{
    CO_ASSERT();
    return loop_self()->ops->co_work(work, opaque);
}
