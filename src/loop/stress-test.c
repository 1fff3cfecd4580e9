/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Several loops at once on the same locks, tasks and files. A bounded amount of work; what it finds, it finds best when
 * built with a thread sanitizer.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "loop/coroutine.h"
#include "loop/file.h"
#include "loop/lock.h"
#include "loop/loop-test.h"
#include "loop/socket.h"

enum { LOOPS = 4, COROUTINES = 16, ROUNDS = 60 };

struct stress {
    struct loop_thread *threads[LOOPS];
    struct co_group group;
    struct co_mutex mutex;
    struct co_rwlock rwlock;
    struct co_condition condition;
    struct co_mutex condition_mutex;
    uint64_t counter;      /* mutex */
    uint64_t pair[2];      /* rwlock: always alike */
    unsigned tokens;       /* condition_mutex */
    unsigned tokens_taken; /* condition_mutex */
    int fd;
};

struct member {
    struct stress *stress;
    uint32_t random;
};

static uint32_t next_random(struct member *member)
{
    member->random = member->random * 1664525 + 1013904223;
    return member->random >> 8;
}

static struct loop *some_loop(struct member *member)
{
    return loop_thread_loop(member->stress->threads[next_random(member) % LOOPS]);
}

static void co_use_mutex(struct stress *stress)
{
    uint64_t seen;

    co_mutex_lock(&stress->mutex);
    seen = stress->counter;
    co_yield ();
    stress->counter = seen + 1;
    co_mutex_unlock(&stress->mutex);
}

static void co_use_rwlock(struct stress *stress, bool write)
{
    if (write) {
        co_rwlock_write_lock(&stress->rwlock);
        stress->pair[0]++;
        co_yield ();
        stress->pair[1]++;
    } else {
        co_rwlock_read_lock(&stress->rwlock);
        g_assert_cmpuint(stress->pair[0], ==, stress->pair[1]);
        co_yield ();
        g_assert_cmpuint(stress->pair[0], ==, stress->pair[1]);
    }
    co_rwlock_unlock(&stress->rwlock);
}

static int work(void *opaque)
{
    unsigned *value = opaque;

    ++*value;
    return 0;
}

static void co_use_file(struct member *member)
{
    uint64_t data[64];
    uint64_t offset = next_random(member) % 512 * sizeof(data);

    for (unsigned i = 0; i < G_N_ELEMENTS(data); i++)
        data[i] = offset;
    g_assert_cmpint(co_file_write_exact(member->stress->fd, data, sizeof(data), offset), ==, 0);
    g_assert_cmpint(co_file_read_exact(member->stress->fd, data, sizeof(data), offset), ==, 0);
    g_assert_cmpuint(data[0], ==, offset);
    g_assert_cmpuint(data[63], ==, offset);
}

static void co_wait_for_ever(void *opaque)
{
    int *result = opaque;

    *result = co_sleep_ns(INT64_MAX);
}

/* Starts one elsewhere and takes it back, at whatever point it is. */
static void co_use_task(struct member *member)
{
    int result = 0;
    struct co_task *task = co_task_start(some_loop(member), co_wait_for_ever, &result);

    for (unsigned i = next_random(member) % 4; i; i--)
        co_yield ();
    co_task_cancel(task);
    co_task_join(task);
    g_assert_cmpint(result, ==, -ECANCELED);
}

static void co_take_token(struct stress *stress)
{
    struct co_deadline deadline;

    co_deadline_begin(&deadline, 200000);
    co_mutex_lock(&stress->condition_mutex);
    while (!stress->tokens) {
        int result = co_condition_wait(&stress->condition, &stress->condition_mutex);

        if (result) {
            g_assert_cmpint(result, ==, -ETIMEDOUT);
            break;
        }
    }
    if (stress->tokens) {
        stress->tokens--;
        stress->tokens_taken++;
    }
    co_mutex_unlock(&stress->condition_mutex);
    co_deadline_end(&deadline);
}

static void co_give_token(struct stress *stress)
{
    co_mutex_lock(&stress->condition_mutex);
    stress->tokens++;
    co_mutex_unlock(&stress->condition_mutex);
    co_condition_signal(&stress->condition);
}

static void co_member(void *opaque)
{
    struct member *member = opaque;
    struct stress *stress = member->stress;
    void *buffer = loop_buffer_get(8192);
    unsigned value = 0;

    for (unsigned round = 0; round < ROUNDS; round++) {
        switch (next_random(member) % 9) {
        case 0:
            co_move_to(some_loop(member));
            break;
        case 1:
        case 2:
            co_use_rwlock(stress, next_random(member) % 4 == 0);
            break;
        case 3:
            g_assert_cmpint(co_worker_run(work, &value), ==, 0);
            break;
        case 4:
            co_use_file(member);
            break;
        case 5:
            co_use_task(member);
            break;
        case 6:
            co_take_token(stress);
            break;
        case 7:
            co_give_token(stress);
            break;
        case 8:
            loop_buffer_put(buffer, 8192); /* perhaps on another loop than it came from */
            buffer = loop_buffer_get(8192);
            memset(buffer, (int)round, 8192);
            break;
        }
        co_use_mutex(stress);
    }
    loop_buffer_put(buffer, 8192);
    co_group_done(&stress->group);
}

static void co_test_stress(void *opaque)
{
    g_autofree char *path = loop_test_path("stress");
    struct stress stress = {.fd = co_file_open(path, O_RDWR | O_CREAT, 0600)};
    struct member members[LOOPS * COROUTINES];

    for (unsigned i = 0; i < LOOPS; i++)
        stress.threads[i] = loop_test_thread();
    co_group_add(&stress.group, LOOPS * COROUTINES);
    for (unsigned i = 0; i < LOOPS * COROUTINES; i++) {
        members[i] = (struct member){.stress = &stress, .random = i * 7919};
        co_spawn(loop_thread_loop(stress.threads[i % LOOPS]), co_member, &members[i]);
    }
    co_group_wait(&stress.group);
    g_assert_cmpuint(stress.counter, ==, LOOPS * COROUTINES * ROUNDS);
    co_mutex_done(&stress.mutex);
    co_rwlock_done(&stress.rwlock);
    co_condition_done(&stress.condition);
    for (unsigned i = 0; i < LOOPS; i++)
        co_loop_thread_free(stress.threads[i]);
    fd_close(stress.fd);
}

/* Loops come and go while others hand them work. */
static void co_once(void *opaque)
{
    struct co_group *group = opaque;

    co_group_done(group);
}

static void co_test_come_and_go(void *opaque)
{
    for (unsigned round = 0; round < 20; round++) {
        struct loop_thread *threads[2] = {loop_test_thread(), loop_test_thread()};
        struct co_group group = {0};

        co_group_add(&group, 20);
        for (unsigned i = 0; i < 20; i++)
            co_spawn(loop_thread_loop(threads[i % 2]), co_once, &group);
        co_group_wait(&group);
        co_loop_thread_free(threads[0]);
        co_loop_thread_free(threads[1]);
    }
}

/* Two loops pass a ball back and forth, so that each sleeps when the other wakes it. */
struct ball {
    struct co_mutex mutex;
    struct co_condition moved;
    unsigned at; /* mutex */
};

static void co_play(void *opaque)
{
    struct ball *ball = opaque;

    co_mutex_lock(&ball->mutex);
    while (ball->at < 2000) {
        while (ball->at % 2 == 0)
            co_condition_wait_always(&ball->moved, &ball->mutex);
        ball->at++;
        co_condition_signal(&ball->moved);
    }
    co_mutex_unlock(&ball->mutex);
}

static void co_test_ball(void *opaque)
{
    struct loop_thread *thread = loop_test_thread();
    struct ball ball = {0};
    struct co_task *task = co_task_start(loop_thread_loop(thread), co_play, &ball);

    co_mutex_lock(&ball.mutex);
    while (ball.at < 2000) {
        while (ball.at % 2 == 1)
            co_condition_wait_always(&ball.moved, &ball.mutex);
        ball.at++;
        co_condition_signal(&ball.moved);
    }
    co_mutex_unlock(&ball.mutex);
    co_task_join(task);
    co_loop_thread_free(thread);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    loop_test_add_real("stress/all", co_test_stress);
    loop_test_add_real("stress/come-and-go", co_test_come_and_go);
    loop_test_add_real("stress/ball", co_test_ball);
    return loop_test_finish();
}
