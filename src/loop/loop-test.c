/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a loop promises of time, work and memory, on each back end; and how one is made. */
#include "loop/loop.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop-internal.h"
#include "loop/loop-test.h"

/* --- time --- */

static void co_test_sleep(void *opaque)
{
    int64_t before_ns = loop_now_ns();

    g_assert_cmpint(co_sleep_ns(2000000), ==, 0);
    g_assert_cmpint(loop_now_ns() - before_ns, >=, 2000000);
    g_assert_cmpint(co_sleep_ns(0), ==, 0);
    g_assert_cmpint(co_sleep_ns(-1), ==, 0);
}

struct sleeper {
    int64_t duration_ns;
    int64_t *last_ns;
    struct co_group *group;
};

static void co_sleeper(void *opaque)
{
    struct sleeper *sleeper = opaque;
    int64_t due_ns = loop_now_ns() + sleeper->duration_ns;

    g_assert_cmpint(co_sleep_ns(sleeper->duration_ns), ==, 0);
    g_assert_cmpint(loop_now_ns(), >=, due_ns);
    co_group_done(sleeper->group);
}

static void co_test_many_timers(void *opaque)
{
    enum { COUNT = 500 };
    struct sleeper sleepers[COUNT];
    struct co_group group = {0};

    co_group_add(&group, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        sleepers[i] = (struct sleeper){.duration_ns = (int64_t)(i * 7919 % COUNT) * 10000, .group = &group};
        co_spawn(loop_current(), co_sleeper, &sleepers[i]);
    }
    co_group_wait(&group);
}

static void co_test_random(void *opaque)
{
    unsigned char a[64] = {0};
    unsigned char b[64] = {0};

    loop_random_bytes(a, sizeof(a));
    loop_random_bytes(b, sizeof(b));
    g_assert_cmpint(memcmp(a, b, sizeof(a)), !=, 0);
    g_assert_cmpint(loop_wall_time_us(), >, 0);
}

/* --- work --- */

static int add_one(void *opaque)
{
    int *value = opaque;

    return ++*value;
}

static void co_work(void *opaque)
{
    struct co_group *group = opaque;
    int value = 41;

    g_assert_cmpint(co_worker_run(add_one, &value), ==, 42);
    g_assert_cmpint(value, ==, 42);
    co_group_done(group);
}

static void co_test_worker(void *opaque)
{
    struct co_group group = {0};

    co_group_add(&group, 300);
    for (unsigned i = 0; i < 300; i++)
        co_spawn(loop_current(), co_work, &group);
    co_group_wait(&group);
}

/* Work that ends only when as much as the limit allows runs at once. */
struct meeting {
    pthread_barrier_t barrier;
    struct co_group group;
};

static int meet(void *opaque)
{
    struct meeting *meeting = opaque;

    pthread_barrier_wait(&meeting->barrier);
    return 0;
}

static void co_meet(void *opaque)
{
    struct meeting *meeting = opaque;

    g_assert_cmpint(co_worker_run(meet, meeting), ==, 0);
    co_group_done(&meeting->group);
}

static void co_test_workers_at_once(void *opaque)
{
    struct loop_options options = {.worker_threads_max = 4};
    struct meeting meeting = {0};

    g_assert_true(loop_configure(loop_current(), &options, NULL));
    pthread_barrier_init(&meeting.barrier, NULL, 4);
    co_group_add(&meeting.group, 12);
    for (unsigned i = 0; i < 12; i++)
        co_spawn(loop_current(), co_meet, &meeting);
    co_group_wait(&meeting.group);
    pthread_barrier_destroy(&meeting.barrier);
}

/* --- memory --- */

static void co_test_memory(void *opaque)
{
    static const size_t sizes[] = {1, 63, 64, 65, 1000, 1984, 1985, 4096, 5000, 1 << 20, (32 << 20) + 1};

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        char *object = loop_alloc(sizes[i]);
        char *buffer = loop_buffer_get(sizes[i]);

        g_assert_nonnull(buffer);
        g_assert_cmpuint((uintptr_t)object % 64, ==, 0);
        g_assert_cmpuint((uintptr_t)buffer % LOOP_BUFFER_ALIGNMENT, ==, 0);
        memset(object, 1, sizes[i]);
        memset(buffer, 2, sizes[i]);
        loop_release(object, sizes[i]);
        loop_buffer_put(buffer, sizes[i]);
    }
    g_assert_null(loop_buffer_get(SIZE_MAX / 2));
    loop_release(NULL, 1);
    loop_buffer_put(NULL, 1);
}

/* What was needed once is given back, although the loop is never idle for long. */
static void co_test_trim(void *opaque)
{
    enum { COUNT = 64, SIZE = 256 * 1024 };
    struct loop *loop = loop_current();
    void *buffers[COUNT];

    if (ASHLAR_ASAN)
        return; /* nothing is pooled there */
    for (unsigned i = 0; i < COUNT; i++)
        buffers[i] = loop_buffer_get(SIZE);
    for (unsigned i = 0; i < COUNT; i++)
        loop_buffer_put(buffers[i], SIZE);
    g_assert_cmpuint(loop->memory.buffer_bytes, ==, COUNT * SIZE);
    for (unsigned i = 0; i < 30; i++) {
        g_assert_cmpint(co_sleep_ns(100000000), ==, 0);
        buffers[0] = loop_buffer_get(SIZE);
        buffers[1] = loop_buffer_get(SIZE);
        loop_buffer_put(buffers[0], SIZE);
        loop_buffer_put(buffers[1], SIZE);
    }
    /* In use each time, and so kept. */
    g_assert_cmpuint(loop->memory.buffer_bytes, ==, 2 * SIZE);
    g_assert_cmpint(co_sleep_ns(INT64_C(5000000000)), ==, 0);
    g_assert_cmpuint(loop->memory.buffer_bytes, ==, 0);
}

static void test_trim(void)
{
    struct loop_options options = {.backend = LOOP_SIM}; /* where time costs nothing */
    struct loop *loop = loop_new(&options, NULL);

    co_run(loop, co_test_trim, NULL);
    loop_free(loop);
}

/* --- options --- */

static void co_test_configure(void *opaque)
{
    struct loop_options options = {.worker_threads_min = 9, .worker_threads_max = 8};
    AUTO(error) err = NULL;

    g_assert_false(loop_configure(loop_current(), &options, &err));
    g_assert_cmpstr(error_message(err), ==, "the least number of worker threads, 9, is larger than the greatest, 8");
    options = (struct loop_options){.worker_threads_min = 2, .worker_threads_max = 8, .aio_max_batch = 1};
    g_assert_true(loop_configure(loop_current(), &options, NULL));
    g_assert_cmpint(co_sleep_ns(1), ==, 0);
}

static void co_ping(void *opaque)
{
    struct coroutine *other = opaque;

    for (unsigned i = 0; i < 100; i++) {
        g_assert_cmpint(co_sleep_ns(20000), ==, 0);
        co_wake(other);
    }
}

/* Sleeps of a length that polling reaches, and of one that it does not. */
static void co_test_polling(void *opaque)
{
    struct loop_options options = {.poll_max_ns = 100000, .poll_grow = 3, .poll_shrink = 2};
    struct co_task *task;

    g_assert_true(loop_configure(loop_current(), &options, NULL));
    task = co_task_start(loop_current(), co_ping, co_self());
    co_task_join(task);
    g_assert_cmpint(co_sleep_ns(2000000), ==, 0);
    options = (struct loop_options){0};
    g_assert_true(loop_configure(loop_current(), &options, NULL));
    g_assert_cmpint(co_sleep_ns(1000), ==, 0);
}

static void test_environment(void)
{
    AUTO(error) err = NULL;
    struct loop *loop;

    g_setenv("ASHLAR_LOOP", "epoll", TRUE);
    loop = loop_new(NULL, NULL);
    g_assert_nonnull(loop);
    g_assert_cmpint(loop_get_backend(loop), ==, LOOP_EPOLL);
    g_assert_true(loop_current() == loop);
    loop_free(loop);
    g_assert_null(loop_current());
    g_setenv("ASHLAR_LOOP", "kqueue", TRUE);
    g_assert_null(loop_new(NULL, &err));
    g_assert_cmpstr(error_message(err), ==, "ASHLAR_LOOP names no event loop: 'kqueue' (there are: io_uring, epoll)");
    g_unsetenv("ASHLAR_LOOP");
    loop = loop_new(NULL, NULL);
    g_assert_nonnull(loop);
    loop_free(loop);
}

static void co_test_threads(void *opaque)
{
    struct loop_thread *threads[8];
    bool seen[LOOP_COUNT_MAX] = {0};

    seen[loop_index(loop_current())] = true;
    for (unsigned i = 0; i < 8; i++) {
        threads[i] = loop_test_thread();
        unsigned index = loop_index(loop_thread_loop(threads[i]));

        g_assert_cmpuint(index, <, LOOP_COUNT_MAX);
        g_assert_false(seen[index]);
        seen[index] = true;
        g_assert_cmpint(loop_thread_id(threads[i]), !=, getpid());
    }
    for (unsigned i = 0; i < 8; i++)
        co_loop_thread_free(threads[i]);
    co_loop_thread_free(NULL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/loop/environment", test_environment);
    g_test_add_func("/loop/trim", test_trim);
    loop_test_add("loop/sleep", co_test_sleep);
    loop_test_add("loop/many-timers", co_test_many_timers);
    loop_test_add("loop/random", co_test_random);
    loop_test_add("loop/worker", co_test_worker);
    loop_test_add_real("loop/workers-at-once", co_test_workers_at_once);
    loop_test_add("loop/memory", co_test_memory);
    loop_test_add("loop/configure", co_test_configure);
    loop_test_add_real("loop/polling", co_test_polling);
    loop_test_add_real("loop/threads", co_test_threads);
    return loop_test_finish();
}
