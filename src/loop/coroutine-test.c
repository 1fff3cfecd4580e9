/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "loop/coroutine.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#include "loop/lock.h"
#include "loop/loop-internal.h"
#include "loop/loop-test.h"
#include "loop/socket.h"

/* --- starting, ending, giving way --- */

struct order {
    char text[64];
    unsigned count;
};

struct letter {
    struct order *order;
    char letter;
    bool twice;
};

static void co_letter(void *opaque)
{
    struct letter *letter = opaque;

    letter->order->text[letter->order->count++] = letter->letter;
    if (letter->twice) {
        co_yield ();
        letter->order->text[letter->order->count++] = letter->letter;
    }
}

static void co_test_order(void *opaque)
{
    struct order order = {0};
    struct letter letters[] = {{&order, 'a', true}, {&order, 'b', false}, {&order, 'c', true}};

    for (unsigned i = 0; i < G_N_ELEMENTS(letters); i++)
        co_spawn(loop_current(), co_letter, &letters[i]);
    g_assert_cmpuint(order.count, ==, 0);
    co_yield ();
    /* All have run, but who yielded comes after everything else that was ready. */
    g_assert_cmpuint(order.count, ==, 3);
    co_yield ();
    g_assert_cmpuint(order.count, ==, 5);
    if (loop_get_backend(loop_current()) != LOOP_SIM)
        g_assert_cmpstr(order.text, ==, "abcac");
}

static void co_count(void *opaque)
{
    unsigned *count = opaque;

    ++*count;
}

static void co_test_many(void *opaque)
{
    enum { MANY = 100000 };
    unsigned count = 0;

    for (unsigned i = 0; i < MANY; i++)
        co_spawn(loop_current(), co_count, &count);
    while (count < MANY)
        co_yield ();
}

struct parked {
    struct co_condition go;
    bool gone;
    unsigned inside;
};

static void co_park(void *opaque)
{
    struct parked *parked = opaque;
    volatile char deep[2000];

    memset((char *)deep, 1, sizeof(deep));
    parked->inside++;
    while (!parked->gone)
        co_condition_wait_always(&parked->go, NULL);
    parked->inside--;
    g_assert_cmpint(deep[0] + deep[sizeof(deep) - 1], ==, 2);
}

static void co_test_many_at_once(void *opaque)
{
    enum { MANY = 2000 };
    struct parked parked = {0};

    for (unsigned i = 0; i < MANY; i++)
        co_spawn(loop_current(), co_park, &parked);
    while (parked.inside < MANY)
        co_yield ();
    parked.gone = true;
    co_condition_broadcast(&parked.go);
    while (parked.inside)
        co_yield ();
}

/* Each level touches a page, as deep as a driver's request path may get. */
static unsigned co_descend(unsigned levels)
{
    volatile char page[4096];

    page[0] = (char)levels;
    if (!levels)
        return 0;
    co_yield ();
    return co_descend(levels - 1) + (page[0] == (char)levels);
}

static void co_test_deep(void *opaque)
{
    g_assert_cmpuint(co_descend(30), ==, 30);
}

static void co_yield_twice(void *opaque)
{
    struct co_group *group = opaque;

    co_yield ();
    co_yield ();
    co_group_done(group);
}

/* With too few stacks for all, they take turns. */
static void co_test_starved(void *opaque)
{
    enum { COUNT = 100 };
    struct loop *loop = loop_current();
    struct co_group group = {0};

    loop->stacks.limit = 5;
    co_group_add(&group, COUNT);
    for (unsigned i = 0; i < COUNT; i++)
        co_spawn(loop, co_yield_twice, &group);
    co_yield ();
    g_assert_cmpuint(loop->starved.count, >, 0);
    co_group_wait(&group);
    g_assert_cmpuint(loop->starved.count, ==, 0);
    g_assert_cmpuint(loop->stacks.used, <=, 5);
    loop->stacks.limit = 0;
}

/* --- suspending and waking --- */

static void co_wake_entry(void *opaque)
{
    co_wake(opaque);
}

static void co_test_wake(void *opaque)
{
    struct coroutine *self = co_self();

    co_wake(self);
    co_wake(self);
    co_suspend(); /* the two count as one, and are not lost */
    co_spawn(loop_current(), co_wake_entry, self);
    co_suspend();
    g_assert_true(co_self() == self);
    g_assert_true(co_active());
}

static void test_not_active(void)
{
    g_assert_false(co_active());
    g_assert_null(loop_current());
}

static void test_outside(void)
{
    if (g_test_subprocess()) {
        co_suspend();
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*co_suspend() called outside of a coroutine*");
}

/* --- tasks --- */

struct waiting {
    int result;
    int again;
    bool cancelled;
};

static void co_wait_long(void *opaque)
{
    struct waiting *waiting = opaque;

    waiting->result = co_sleep_ns(INT64_MAX);
    waiting->again = co_sleep_ns(1);
    waiting->cancelled = co_cancelled();
}

static void co_test_cancel(void *opaque)
{
    struct waiting waiting = {0};
    struct co_task *task = co_task_start(loop_current(), co_wait_long, &waiting);

    co_yield ();
    g_assert_false(co_cancelled());
    co_task_cancel(task);
    co_task_cancel(task);
    co_task_join(task);
    g_assert_cmpint(waiting.result, ==, -ECANCELED);
    g_assert_cmpint(waiting.again, ==, -ECANCELED);
    g_assert_true(waiting.cancelled);
}

static void co_test_cancel_early(void *opaque)
{
    struct waiting waiting = {0};
    struct co_task *task = co_task_start(loop_current(), co_wait_long, &waiting);

    co_task_cancel(task);
    co_task_join(task);
    g_assert_cmpint(waiting.result, ==, -ECANCELED);
}

static void co_test_cancel_late(void *opaque)
{
    unsigned count = 0;
    struct co_task *task = co_task_start(loop_current(), co_count, &count);

    while (!count)
        co_yield ();
    co_task_cancel(task);
    co_task_join(task);
    co_task_join(NULL);
}

static void co_test_detach(void *opaque)
{
    unsigned count = 0;

    co_task_detach(co_task_start(loop_current(), co_count, &count));
    while (!count)
        co_yield ();
    struct co_task *task = co_task_start(loop_current(), co_count, &count);
    while (count < 2)
        co_yield ();
    co_task_detach(task);
    co_task_detach(NULL);
}

/* --- deadlines --- */

static void co_test_deadline(void *opaque)
{
    struct co_deadline outer;
    struct co_deadline inner;
    int64_t before_ns = loop_now_ns();

    co_deadline_begin(&outer, 3000000);
    co_deadline_begin(&inner, INT64_MAX);
    g_assert_cmpint(co_sleep_ns(INT64_MAX), ==, -ETIMEDOUT);
    g_assert_cmpint(loop_now_ns() - before_ns, >=, 3000000);
    g_assert_cmpint(co_sleep_ns(1), ==, -ETIMEDOUT);
    co_deadline_end(&inner);
    co_deadline_end(&outer);
    g_assert_cmpint(co_sleep_ns(1), ==, 0);
}

static void co_test_deadline_kept(void *opaque)
{
    struct co_deadline deadline;

    co_deadline_begin(&deadline, INT64_C(3600) * 1000000000);
    g_assert_cmpint(co_sleep_ns(1000), ==, 0);
    co_deadline_end(&deadline);
}

/* --- moving --- */

static void co_test_move(void *opaque)
{
    struct loop *home = loop_current();
    struct loop_thread *thread = loop_test_thread();
    struct loop *away = loop_thread_loop(thread);
    struct coroutine *self = co_self();

    for (unsigned i = 0; i < 100; i++) {
        co_move_to(away);
        g_assert_true(loop_current() == away);
        co_move_to(away);
        g_assert_cmpint(co_sleep_ns(1), ==, 0);
        co_move_to(home);
        g_assert_true(loop_current() == home);
        g_assert_true(co_self() == self);
    }
    co_loop_thread_free(thread);
}

static void co_elsewhere(void *opaque)
{
    struct loop **where = opaque;

    *where = loop_current();
}

static void co_test_spawn_elsewhere(void *opaque)
{
    struct loop_thread *thread = loop_test_thread();
    struct waiting waiting = {0};
    struct loop *where = NULL;
    struct co_task *task = co_task_start(loop_thread_loop(thread), co_elsewhere, &where);

    co_task_join(task);
    g_assert_true(where == loop_thread_loop(thread));
    task = co_task_start(loop_thread_loop(thread), co_wait_long, &waiting);
    co_task_cancel(task);
    co_task_join(task);
    g_assert_cmpint(waiting.result, ==, -ECANCELED);
    co_loop_thread_free(thread);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/coroutine/not-active", test_not_active);
    g_test_add_func("/coroutine/outside", test_outside);
    loop_test_add("coroutine/order", co_test_order);
    loop_test_add("coroutine/many", co_test_many);
    loop_test_add("coroutine/many-at-once", co_test_many_at_once);
    loop_test_add("coroutine/deep", co_test_deep);
    loop_test_add("coroutine/starved", co_test_starved);
    loop_test_add("coroutine/wake", co_test_wake);
    loop_test_add("coroutine/cancel", co_test_cancel);
    loop_test_add("coroutine/cancel-early", co_test_cancel_early);
    loop_test_add("coroutine/cancel-late", co_test_cancel_late);
    loop_test_add("coroutine/detach", co_test_detach);
    loop_test_add("coroutine/deadline", co_test_deadline);
    loop_test_add("coroutine/deadline-kept", co_test_deadline_kept);
    loop_test_add_real("coroutine/move", co_test_move);
    loop_test_add_real("coroutine/spawn-elsewhere", co_test_spawn_elsewhere);
    return loop_test_finish();
}
