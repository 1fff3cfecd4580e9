/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The event loop: turns of running what is ready and waiting for more. */
#include "loop/loop-internal.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <sched.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/units.h"

enum {
    TRIM_DELAY_NS = NS_PER_S, /* so long without anything to do, and pooled memory is given back */
};

static const char *const backend_names[] = {
    [LOOP_AUTO] = "auto",
    [LOOP_IO_URING] = "io_uring",
    [LOOP_EPOLL] = "epoll",
    [LOOP_SIM] = "sim",
};

static const struct loop_backend_ops *const backends[] = {
    [LOOP_IO_URING] = &uring_backend_ops,
    [LOOP_EPOLL] = &epoll_backend_ops,
    [LOOP_SIM] = &sim_backend_ops,
};

/* --- which loop is whose --- */

static __thread struct loop *current_loop;

/* One bit for each index in use; process-wide, since an index must be unique among all loops. */
static atomic_uint_fast64_t indices[LOOP_COUNT_MAX / 64];

/*
 * Never inlined: a coroutine may go on on another thread after it has been suspended, and a compiler that sees two uses
 * of a thread-local variable in one function computes its address only once.
 */
__attribute__((noinline)) struct loop *loop_current(void)
{
    __asm__ volatile("");
    return current_loop;
}

__attribute__((noinline)) void loop_set_current(struct loop *loop)
{
    assert(!loop || !current_loop);
    current_loop = loop;
}

struct loop *loop_self(void)
{
    struct loop *loop = loop_current();

    assert(loop);
    return loop;
}

static bool index_take(unsigned *ret_index)
{
    for (unsigned i = 0; i < LOOP_COUNT_MAX; i++) {
        uint_fast64_t bit = (uint_fast64_t)1 << (i % 64);

        if (!(atomic_fetch_or(&indices[i / 64], bit) & bit)) {
            *ret_index = i;
            return true;
        }
    }
    return false;
}

static void index_give(unsigned index)
{
    atomic_fetch_and(&indices[index / 64], ~((uint_fast64_t)1 << (index % 64)));
}

enum loop_backend loop_get_backend(const struct loop *loop)
{
    return loop->backend;
}

const char *loop_backend_name(enum loop_backend backend)
{
    assert((size_t)backend < G_N_ELEMENTS(backend_names));
    return backend_names[backend];
}

unsigned loop_index(const struct loop *loop)
{
    return loop->index;
}

/* --- making one --- */

static bool backend_choose(enum loop_backend *backend, struct error **err)
{
    const char *name = g_getenv("ASHLAR_LOOP");

    if (*backend != LOOP_AUTO || !name || !*name || !strcmp(name, backend_names[LOOP_AUTO]))
        return true;
    if (!strcmp(name, backend_names[LOOP_IO_URING]))
        *backend = LOOP_IO_URING;
    else if (!strcmp(name, backend_names[LOOP_EPOLL]))
        *backend = LOOP_EPOLL;
    else
        return error_set(err, "ASHLAR_LOOP names no event loop: '%s' (there are: io_uring, epoll)", name);
    return true;
}

static bool backend_open(struct loop *loop, enum loop_backend backend, const struct loop_options *options,
                         struct error **err)
{
    assert(backend != LOOP_AUTO);
    loop->backend = backend;
    loop->ops = backends[backend];
    return loop->ops->open(loop, options, err);
}

static bool loop_open(struct loop *loop, const struct loop_options *options, struct error **err)
{
    enum loop_backend backend = options->backend;

    if (!backend_choose(&backend, err))
        return false;
    if (backend != LOOP_AUTO)
        return backend_open(loop, backend, options, err);
    return backend_open(loop, LOOP_IO_URING, options, NULL) || backend_open(loop, LOOP_EPOLL, options, err);
}

bool loop_configure(struct loop *loop, const struct loop_options *options, struct error **err)
{
    uint32_t threads_max = options->worker_threads_max ? options->worker_threads_max : WORKER_THREADS_DEFAULT;

    if (options->worker_threads_min > threads_max)
        return error_set(err, "the least number of worker threads, %u, is larger than the greatest, %u",
                         options->worker_threads_min, threads_max);
    if (options->aio_max_batch > UINT32_MAX)
        return error_set(err, "a batch of %" PRIu64 " requests is too large, the limit is %u", options->aio_max_batch,
                         UINT32_MAX);
    if (options->poll_max_ns > INT64_MAX)
        return error_set(err, "polling for %" PRIu64 " ns is too long, the limit is %" PRIi64, options->poll_max_ns,
                         INT64_MAX);
    atomic_store_explicit(&loop->polling.max_ns, options->poll_max_ns, memory_order_relaxed);
    atomic_store_explicit(&loop->polling.grow, options->poll_grow, memory_order_relaxed);
    atomic_store_explicit(&loop->polling.shrink, options->poll_shrink, memory_order_relaxed);
    atomic_store_explicit(&loop->aio_max_batch, (uint32_t)options->aio_max_batch, memory_order_relaxed);
    worker_pool_configure(&loop->workers, options->worker_threads_min, threads_max);
    return true;
}

/*
 * Writing to a pipe that nobody reads fails with -EPIPE, as sockets do, and to a file beyond the limit of the process
 * with -EFBIG; there is no flag that would spare us the signals. Whoever has a handler of their own keeps it.
 */
static void ignore_signals_of_writes(void)
{
    static const int signals[] = {SIGPIPE, SIGXFSZ};

    for (size_t i = 0; i < G_N_ELEMENTS(signals); i++) {
        struct sigaction now;

        if (!sigaction(signals[i], NULL, &now) && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == SIG_DFL)
            signal(signals[i], SIG_IGN);
    }
}

static struct loop *loop_allocate(void)
{
    struct loop *loop = aligned_alloc(alignof(struct loop), sizeof(*loop));

    if (!loop)
        abort();
    memset(loop, 0, sizeof(*loop));
    return loop;
}

struct loop *loop_new(const struct loop_options *options, struct error **err)
{
    static const struct loop_options defaults;
    struct loop *loop;

    assert(!loop_current());
    if (!options)
        options = &defaults;
    loop = loop_allocate();
    if (!index_take(&loop->index)) {
        free(loop);
        error_set(err, "there are %d event loops already, which is the limit", LOOP_COUNT_MAX);
        return NULL;
    }
    worker_pool_init(&loop->workers);
    if (loop_configure(loop, options, err) && loop_open(loop, options, err)) {
        loop->may_block = options->may_block && loop->backend != LOOP_SIM;
        ignore_signals_of_writes();
        context_adopt_thread(&loop->context);
        loop_set_current(loop);
        return loop;
    }
    worker_pool_done(&loop->workers);
    index_give(loop->index);
    free(loop);
    return NULL;
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    assert(loop == loop_current());
    assert(!loop->current);
    inbox_deliver(loop);
    assert(!loop->coroutines);
    worker_pool_done(&loop->workers);
    process_stop_free(TAKE(loop->process_stop));
    /* Whoever has handed over the last item may still be looking at whether the loop sleeps. */
    while (atomic_load(&loop->inbox.pushing))
        sched_yield();
    native_aio_free(TAKE(loop->native));
    private_ring_free(TAKE(loop->private_ring));
    loop->ops->close(loop);
    memory_lists_trim(&loop->memory, true);
    stack_pool_done(&loop->stacks);
    g_free(loop->timers.items);
    context_release_thread(&loop->context);
    loop_set_current(NULL);
    index_give(loop->index);
    free(loop);
}

/* --- turns --- */

/* How long there is nothing to do, as far as the loop knows by itself: negative for ever. */
static int64_t loop_timeout_ns(struct loop *loop)
{
    int64_t next_ns;
    int64_t now_ns;

    if (loop->ready.first || loop->deferred.first || !inbox_is_empty(loop))
        return 0;
    next_ns = timer_heap_next_ns(&loop->timers);
    if (next_ns == INT64_MAX)
        return -1;
    now_ns = loop->ops->now_ns(loop);
    return next_ns > now_ns ? next_ns - now_ns : 0;
}

static bool loop_has_events(struct loop *loop)
{
    if (!inbox_is_empty(loop) || event_sources_look(loop))
        return true;
    if (!loop->ops->has_events || loop->ops->has_events(loop))
        loop->ops->turn(loop, 0);
    return loop->ready.first;
}

/* Looks for events for a while without sleeping; whether there are any. */
static bool loop_poll(struct loop *loop, int64_t start_ns, int64_t timeout_ns)
{
    int64_t limit_ns = (int64_t)loop->polling.now_ns;

    if (timeout_ns >= 0 && timeout_ns < limit_ns)
        limit_ns = timeout_ns;
    loop->ops->turn(loop, 0);
    do {
        if (loop_has_events(loop))
            return true;
    } while (clock_monotonic_ns() - start_ns < limit_ns);
    return false;
}

/* Gives pooled memory back: what was not needed for a while, or everything. */
static void loop_trim(struct loop *loop, int64_t now_ns, bool all)
{
    memory_lists_trim(&loop->memory, all);
    stack_pool_trim(&loop->stacks);
    loop->trimmed = all;
    loop->trimmed_ns = now_ns;
}

/* Of a loop that still has memory pooled: whether it is to be woken to give that back, when nothing else wakes it. */
static bool loop_limit_sleep(struct loop *loop, int64_t *timeout_ns)
{
    if (*timeout_ns >= 0 && *timeout_ns <= TRIM_DELAY_NS)
        return false;
    if (loop->ops->remind)
        loop->ops->remind(loop, TRIM_DELAY_NS);
    else
        *timeout_ns = TRIM_DELAY_NS;
    return true;
}

static void loop_block(struct loop *loop, int64_t timeout_ns)
{
    int64_t begin_ns = 0;
    bool idle = false;

    if (!loop->trimmed) {
        begin_ns = loop->ops->now_ns(loop);
        if (begin_ns - loop->trimmed_ns >= TRIM_DELAY_NS)
            loop_trim(loop, begin_ns, false);
        idle = loop_limit_sleep(loop, &timeout_ns);
    }
    atomic_store(&loop->inbox.sleeping, true);
    /* Making room for the reminder may have brought something. */
    if (loop->ready.first || !inbox_is_empty(loop) || (timeout_ns && event_sources_rest(loop)))
        timeout_ns = 0;
    loop->ops->turn(loop, timeout_ns);
    atomic_store_explicit(&loop->inbox.sleeping, false, memory_order_relaxed);
    if (idle && timeout_ns && !loop->ready.first && inbox_is_empty(loop)) {
        int64_t end_ns = loop->ops->now_ns(loop);

        if (end_ns - begin_ns >= TRIM_DELAY_NS / 2)
            loop_trim(loop, end_ns, true);
    }
}

static void loop_sleep(struct loop *loop, int64_t timeout_ns)
{
    uint64_t max_ns = atomic_load_explicit(&loop->polling.max_ns, memory_order_relaxed);
    int64_t start_ns;

    if (likely(!max_ns)) {
        loop_block(loop, timeout_ns);
        return;
    }
    start_ns = clock_monotonic_ns();
    if (loop->polling.now_ns && polling_crowded(&loop->polling, start_ns)) {
        loop_block(loop, timeout_ns);
        return;
    }
    if (!loop->polling.now_ns || !loop_poll(loop, start_ns, timeout_ns)) {
        timeout_ns = loop_timeout_ns(loop);
        loop_block(loop, timeout_ns);
    }
    polling_adapt(&loop->polling, (uint64_t)(clock_monotonic_ns() - start_ns), max_ns);
}

void loop_run_until(struct loop *loop, const bool *done)
{
    assert(loop == loop_current());
    assert(!loop->current);
    for (;;) {
        int64_t timeout_ns;

        loop->turn_time_ns = 0;
        loop_writes_begin_turn(&loop->writes);
        inbox_deliver(loop);
        coroutines_run(loop);
        if (*done)
            break;
        (void)event_sources_look(loop);
        timeout_ns = loop_timeout_ns(loop);
        if (timeout_ns)
            loop_sleep(loop, timeout_ns);
        else
            loop->ops->turn(loop, 0);
        if (loop->timers.count)
            timer_heap_fire(&loop->timers, loop->ops->now_ns(loop));
    }
}

struct run {
    co_entry *entry;
    void *opaque;
    bool done;
};

static void run_entry(void *opaque)
{
    struct run *run = opaque;

    run->entry(run->opaque);
    run->done = true;
}

void co_run(struct loop *loop, co_entry *entry, void *opaque)
{
    struct run run = {.entry = entry, .opaque = opaque};

    co_spawn(loop, run_entry, &run);
    loop_run_until(loop, &run.done);
}
