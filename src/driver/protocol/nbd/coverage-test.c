/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "driver/protocol/nbd/coverage.h"

static void test_in_order(void)
{
    struct nbd_coverage coverage = {0};

    g_assert_true(nbd_coverage_add(&coverage, 0, 10));
    g_assert_true(nbd_coverage_add(&coverage, 10, 1));
    g_assert_cmpuint(coverage.prefix, ==, 11);
    g_assert_false(nbd_coverage_add(&coverage, 10, 1));
    g_assert_false(nbd_coverage_add(&coverage, 0, 100));
    nbd_coverage_done(&coverage);
}

static void test_any_order(void)
{
    struct nbd_coverage coverage = {0};

    g_assert_true(nbd_coverage_add(&coverage, 30, 10));
    g_assert_true(nbd_coverage_add(&coverage, 10, 10));
    g_assert_cmpuint(coverage.prefix, ==, 0);
    g_assert_false(nbd_coverage_add(&coverage, 19, 1));
    g_assert_false(nbd_coverage_add(&coverage, 25, 6));
    g_assert_false(nbd_coverage_add(&coverage, 0, 11));
    g_assert_true(nbd_coverage_add(&coverage, 0, 10));
    g_assert_cmpuint(coverage.prefix, ==, 20);
    g_assert_true(nbd_coverage_add(&coverage, 20, 10));
    g_assert_cmpuint(coverage.prefix, ==, 40);
    nbd_coverage_done(&coverage);
}

/* Every second byte of many, last first: there is an end to what is remembered. */
static void test_bounded(void)
{
    struct nbd_coverage coverage = {0};
    unsigned taken = 0;

    for (unsigned i = 100000; i && nbd_coverage_add(&coverage, 2 * i, 1); i--)
        taken++;
    g_assert_cmpuint(taken, <, 100000);
    nbd_coverage_done(&coverage);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/nbd-coverage/in-order", test_in_order);
    g_test_add_func("/nbd-coverage/any-order", test_any_order);
    g_test_add_func("/nbd-coverage/bounded", test_bounded);
    return g_test_run();
}
