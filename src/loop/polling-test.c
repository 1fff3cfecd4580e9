/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When a loop polls, and for how long: decided by the waits it has had, so no clock is needed. */
#include <glib.h>

#include "base/units.h"
#include "loop/loop-internal.h"

enum {
    MAX_NS = 32768,
    LONGEST_NS = MAX_NS + 50000,
    FIRST_NS = 4000,
    JUST_OVER_NS = MAX_NS + 30000,
    FAR_NS = 1000 * 1000
};

/* The same wait so often; how much of it was polled for in all, in ns. */
static uint64_t adapt(struct polling *polling, uint64_t waited_ns, unsigned times)
{
    uint64_t polled_ns = 0;

    for (unsigned i = 0; i < times; i++) {
        polled_ns += MIN(polling->now_ns, waited_ns);
        polling_adapt(polling, waited_ns, MAX_NS);
    }
    return polled_ns;
}

static void test_grows(void)
{
    struct polling polling = {0};

    adapt(&polling, 100, 1);
    g_assert_cmpuint(polling.now_ns, ==, FIRST_NS);
    adapt(&polling, 3000, 1); /* that was long enough */
    g_assert_cmpuint(polling.now_ns, ==, FIRST_NS);
    adapt(&polling, 5000, 1);
    g_assert_cmpuint(polling.now_ns, ==, 2 * FIRST_NS);
    atomic_store(&polling.grow, 3);
    adapt(&polling, 20000, 1);
    g_assert_cmpuint(polling.now_ns, ==, 6 * FIRST_NS);
    adapt(&polling, 30000, 1);
    g_assert_cmpuint(polling.now_ns, ==, LONGEST_NS);
    atomic_store(&polling.grow, UINT64_MAX);
    polling.now_ns = 8000;
    adapt(&polling, 30000, 1);
    g_assert_cmpuint(polling.now_ns, ==, LONGEST_NS);
    polling_adapt(&polling, 900, 1000); /* the limit has become less */
    g_assert_cmpuint(polling.now_ns, ==, 1000 + LONGEST_NS - MAX_NS);
}

static void test_shrinks_as_told(void)
{
    struct polling polling = {.now_ns = MAX_NS};

    atomic_store(&polling.shrink, 4);
    adapt(&polling, FAR_NS, 1);
    g_assert_cmpuint(polling.now_ns, ==, MAX_NS / 4);
    adapt(&polling, FAR_NS, 1);
    g_assert_cmpuint(polling.now_ns, ==, MAX_NS / 16);
}

/* A wait that was measured sleeping may have been short enough without the sleep. */
static void test_tries_what_is_near(void)
{
    struct polling polling = {0};

    adapt(&polling, JUST_OVER_NS, 1);
    g_assert_cmpuint(polling.now_ns, ==, LONGEST_NS);
    adapt(&polling, 20000, 100);
    g_assert_cmpuint(polling.now_ns, ==, LONGEST_NS);
}

/*
 * A client that comes soon when it has been answered before it slept, and late when not: it takes some turns until it
 * does not sleep any more, and now and then it is late by itself.
 */
static void test_wakes_the_client_up(void)
{
    struct polling polling = {0};
    unsigned awake = 0, soon = 0;

    for (unsigned i = 0; i < 10000; i++) {
        bool in_time = awake >= 8 && i % 20;
        uint64_t waited_ns = in_time ? 15000 : JUST_OVER_NS;

        soon += in_time;
        awake = waited_ns <= polling.now_ns ? awake + 1 : 0;
        polling_adapt(&polling, waited_ns, MAX_NS);
    }
    g_assert_cmpuint(soon, >, 9000);
}

static void test_leaves_alone_what_is_far(void)
{
    struct polling polling = {0};

    g_assert_cmpuint(adapt(&polling, FAR_NS, 1000), ==, 0);
}

/* One late event in four changes nothing. */
static void test_bears_late_events(void)
{
    struct polling polling = {0};

    adapt(&polling, 20000, 10);
    for (unsigned i = 0; i < 1000; i++) {
        adapt(&polling, FAR_NS, 1);
        g_assert_cmpuint(polling.now_ns, >=, 20000);
        adapt(&polling, 20000, 3);
    }
}

static void test_stops_when_it_does_not_pay(void)
{
    struct polling polling = {0};

    adapt(&polling, 20000, 1000);
    adapt(&polling, FAR_NS, 16);
    g_assert_cmpuint(polling.now_ns, ==, 0);
}

/* Always a little too late: after a while not one wait in a hundred is polled for. */
static void test_costs_little_in_vain(void)
{
    struct polling polling = {0};

    adapt(&polling, JUST_OVER_NS, 20000);
    g_assert_cmpuint(adapt(&polling, JUST_OVER_NS, 20000), <, 20000 * (uint64_t)MAX_NS / 100);
}

/* What comes in time again after such a rest is found out. */
static void test_comes_back(void)
{
    struct polling polling = {0};

    adapt(&polling, JUST_OVER_NS, 20000);
    adapt(&polling, 20000, 5000);
    g_assert_cmpuint(polling.now_ns, >=, 20000);
    adapt(&polling, JUST_OVER_NS, 40);
    g_assert_cmpuint(polling.now_ns, ==, 0);
    adapt(&polling, 20000, 30);
    g_assert_cmpuint(polling.now_ns, >=, 20000);
}

/* Judged over windows: what the thread has waited for a processor, against what has passed. */
static void test_crowd(void)
{
    struct polling polling = {0};

    polling_judge(&polling, 1000 * NS_PER_MS, INT64_C(7) * NS_PER_S); /* nothing is known of the time before */
    g_assert_false(polling.crowded);
    polling_judge(&polling, 1010 * NS_PER_MS, INT64_C(7) * NS_PER_S + NS_PER_MS / 2);
    g_assert_false(polling.crowded);
    polling_judge(&polling, 1020 * NS_PER_MS, INT64_C(7) * NS_PER_S + 3 * NS_PER_MS);
    g_assert_true(polling.crowded);
    g_assert_true(polling_crowded(&polling, 1100 * NS_PER_MS)); /* it rests for longer than a window */
    polling_judge(&polling, 1120 * NS_PER_MS, INT64_C(7) * NS_PER_S + 4 * NS_PER_MS);
    g_assert_false(polling.crowded);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/loop/polling/grows", test_grows);
    g_test_add_func("/loop/polling/shrinks-as-told", test_shrinks_as_told);
    g_test_add_func("/loop/polling/tries-what-is-near", test_tries_what_is_near);
    g_test_add_func("/loop/polling/wakes-the-client-up", test_wakes_the_client_up);
    g_test_add_func("/loop/polling/leaves-alone-what-is-far", test_leaves_alone_what_is_far);
    g_test_add_func("/loop/polling/bears-late-events", test_bears_late_events);
    g_test_add_func("/loop/polling/stops-when-it-does-not-pay", test_stops_when_it_does_not_pay);
    g_test_add_func("/loop/polling/costs-little-in-vain", test_costs_little_in_vain);
    g_test_add_func("/loop/polling/comes-back", test_comes_back);
    g_test_add_func("/loop/polling/crowd", test_crowd);
    return g_test_run();
}
