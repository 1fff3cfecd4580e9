/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "loop/lock.h"

#include <errno.h>

#include "loop/coroutine.h"
#include "loop/loop-test.h"

/* --- mutex --- */

struct shared {
    struct co_mutex mutex;
    struct co_rwlock rwlock;
    struct co_condition condition;
    struct co_group group;
    int inside;
    int readers;
    int readers_most;
    bool writer;
    unsigned turns;
    unsigned order[16];
    unsigned order_count;
    int result;
};

static void co_exclusive(void *opaque)
{
    struct shared *shared = opaque;

    for (unsigned i = 0; i < 20; i++) {
        co_mutex_lock(&shared->mutex);
        g_assert_cmpint(shared->inside++, ==, 0);
        co_yield ();
        shared->inside--;
        shared->turns++;
        co_mutex_unlock(&shared->mutex);
    }
    co_group_done(&shared->group);
}

static void co_test_mutex(void *opaque)
{
    struct shared shared = {0};

    co_group_add(&shared.group, 10);
    for (unsigned i = 0; i < 10; i++)
        co_spawn(loop_current(), co_exclusive, &shared);
    co_group_wait(&shared.group);
    g_assert_cmpuint(shared.turns, ==, 200);
    co_mutex_done(&shared.mutex);
}

struct numbered {
    struct shared *shared;
    unsigned number;
};

static void co_queue_up(void *opaque)
{
    struct numbered *self = opaque;

    co_mutex_lock(&self->shared->mutex);
    self->shared->order[self->shared->order_count++] = self->number;
    co_mutex_unlock(&self->shared->mutex);
}

static void co_test_mutex_fair(void *opaque)
{
    struct shared shared = {0};
    struct numbered numbered[8];
    struct co_task *tasks[8];

    co_mutex_lock(&shared.mutex);
    for (unsigned i = 0; i < 8; i++) {
        numbered[i] = (struct numbered){&shared, i};
        tasks[i] = co_task_start(loop_current(), co_queue_up, &numbered[i]);
        co_yield (); /* it is in the queue now */
    }
    g_assert_false(co_mutex_try_lock(&shared.mutex));
    co_mutex_unlock(&shared.mutex);
    /* It belongs to the first in the queue already: nobody overtakes. */
    g_assert_false(co_mutex_try_lock(&shared.mutex));
    for (unsigned i = 0; i < 8; i++)
        co_task_join(tasks[i]);
    for (unsigned i = 0; i < 8; i++)
        g_assert_cmpuint(shared.order[i], ==, i);
    g_assert_true(co_mutex_try_lock(&shared.mutex));
    co_mutex_unlock(&shared.mutex);
}

/* --- rwlock --- */

static void co_read(void *opaque)
{
    struct shared *shared = opaque;

    co_rwlock_read_lock(&shared->rwlock);
    g_assert_false(shared->writer);
    shared->readers++;
    shared->readers_most = MAX(shared->readers_most, shared->readers);
    co_yield ();
    shared->readers--;
    co_rwlock_unlock(&shared->rwlock);
    co_group_done(&shared->group);
}

static void co_write(void *opaque)
{
    struct shared *shared = opaque;

    co_rwlock_write_lock(&shared->rwlock);
    g_assert_false(shared->writer);
    g_assert_cmpint(shared->readers, ==, 0);
    shared->writer = true;
    co_yield ();
    shared->writer = false;
    shared->turns++;
    co_rwlock_unlock(&shared->rwlock);
    co_group_done(&shared->group);
}

static void co_test_rwlock(void *opaque)
{
    struct shared shared = {0};

    for (unsigned i = 0; i < 60; i++) {
        co_group_add(&shared.group, 1);
        co_spawn(loop_current(), i % 6 == 5 ? co_write : co_read, &shared);
    }
    co_group_wait(&shared.group);
    g_assert_cmpuint(shared.turns, ==, 10);
    g_assert_cmpint(shared.readers_most, >, 1);
    co_rwlock_done(&shared.rwlock);
}

static void co_test_rwlock_writer_first(void *opaque)
{
    struct shared shared = {0};

    co_rwlock_read_lock(&shared.rwlock);
    co_group_add(&shared.group, 2);
    co_spawn(loop_current(), co_write, &shared);
    co_yield ();
    co_spawn(loop_current(), co_read, &shared);
    co_yield ();
    /* The writer waits for us, and the new reader for the writer. */
    g_assert_cmpuint(shared.turns, ==, 0);
    g_assert_cmpint(shared.readers_most, ==, 0);
    co_rwlock_unlock(&shared.rwlock);
    co_group_wait(&shared.group);
    g_assert_cmpuint(shared.turns, ==, 1);
    g_assert_cmpint(shared.readers_most, ==, 1);
}

/* --- condition --- */

static void co_consume(void *opaque)
{
    struct shared *shared = opaque;

    co_mutex_lock(&shared->mutex);
    while (!shared->inside)
        g_assert_cmpint(co_condition_wait(&shared->condition, &shared->mutex), ==, 0);
    shared->inside--;
    shared->turns++;
    co_mutex_unlock(&shared->mutex);
    co_group_done(&shared->group);
}

static void co_test_condition(void *opaque)
{
    struct shared shared = {0};

    co_group_add(&shared.group, 5);
    for (unsigned i = 0; i < 5; i++)
        co_spawn(loop_current(), co_consume, &shared);
    for (unsigned i = 0; i < 2; i++) {
        co_yield ();
        co_mutex_lock(&shared.mutex);
        shared.inside++;
        co_mutex_unlock(&shared.mutex);
        co_condition_signal(&shared.condition);
    }
    while (shared.turns < 2)
        co_yield ();
    co_mutex_lock(&shared.mutex);
    shared.inside += 3;
    co_condition_broadcast(&shared.condition);
    co_mutex_unlock(&shared.mutex);
    co_group_wait(&shared.group);
    g_assert_cmpint(shared.inside, ==, 0);
    co_condition_done(&shared.condition);
}

static void co_wait_condition(void *opaque)
{
    struct shared *shared = opaque;

    co_mutex_lock(&shared->mutex);
    do {
        shared->result = co_condition_wait(&shared->condition, &shared->mutex);
    } while (!shared->result);
    /* The mutex is ours even so. */
    g_assert_false(co_mutex_try_lock(&shared->mutex));
    co_mutex_unlock(&shared->mutex);
}

static void co_test_condition_cancel(void *opaque)
{
    struct shared shared = {0};
    struct co_task *task = co_task_start(loop_current(), co_wait_condition, &shared);
    struct co_deadline deadline;

    co_yield ();
    co_task_cancel(task);
    co_task_join(task);
    g_assert_cmpint(shared.result, ==, -ECANCELED);
    co_deadline_begin(&deadline, 1000000);
    co_wait_condition(&shared);
    co_deadline_end(&deadline);
    g_assert_cmpint(shared.result, ==, -ETIMEDOUT);
    co_condition_done(&shared.condition);
    co_mutex_done(&shared.mutex);
}

static void co_wait_always(void *opaque)
{
    struct shared *shared = opaque;

    while (!shared->inside)
        co_condition_wait_always(&shared->condition, NULL);
    shared->turns++;
}

static void co_test_condition_always(void *opaque)
{
    struct shared shared = {0};
    struct co_task *task = co_task_start(loop_current(), co_wait_always, &shared);

    co_yield ();
    co_task_cancel(task);
    co_yield ();
    co_yield ();
    g_assert_cmpuint(shared.turns, ==, 0);
    shared.inside = 1;
    co_condition_signal(&shared.condition);
    co_task_join(task);
    g_assert_cmpuint(shared.turns, ==, 1);
}

static void co_test_group(void *opaque)
{
    struct co_group group = {0};

    co_group_wait(&group); /* nobody is in it */
    co_group_add(&group, 1);
    co_group_done(&group);
    co_group_wait(&group);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    loop_test_add("lock/mutex", co_test_mutex);
    loop_test_add("lock/mutex-fair", co_test_mutex_fair);
    loop_test_add("lock/rwlock", co_test_rwlock);
    loop_test_add("lock/rwlock-writer-first", co_test_rwlock_writer_first);
    loop_test_add("lock/condition", co_test_condition);
    loop_test_add("lock/condition-cancel", co_test_condition_cancel);
    loop_test_add("lock/condition-always", co_test_condition_always);
    loop_test_add("lock/group", co_test_group);
    return loop_test_finish();
}
