/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "export/nbd/budget.h"

#include <glib.h>

enum { MIB = 1024 * 1024 };

static void test_one_request_always(void)
{
    struct nbd_budget budget = {0};
    struct nbd_allowance greedy[64] = {{0}}, late = {.budget = &budget};

    for (size_t i = 0; i < G_N_ELEMENTS(greedy); i++) {
        greedy[i].budget = &budget;
        g_assert_true(nbd_allowance_take(&greedy[i], 32 * MIB));
        g_assert_false(nbd_allowance_take(&greedy[i], MIB));
    }
    g_assert_true(nbd_allowance_take(&late, 32 * MIB));
    g_assert_true(nbd_allowance_take(&late, 0));
    g_assert_false(nbd_allowance_take(&late, 1));
    nbd_allowance_give(&late, 32 * MIB);
    nbd_allowance_done(&late);
    for (size_t i = 0; i < G_N_ELEMENTS(greedy); i++) {
        nbd_allowance_give(&greedy[i], 32 * MIB);
        nbd_allowance_done(&greedy[i]);
    }
    g_assert_cmpuint(budget.reserved, ==, 0);
}

static void test_limit_of_client(void)
{
    struct nbd_budget budget = {0};
    struct nbd_allowance allowance = {.budget = &budget};
    unsigned taken = 0;

    while (nbd_allowance_take(&allowance, 4096))
        taken++;
    g_assert_cmpuint(taken, ==, NBD_CLIENT_BYTES_MAX / 4096);
    nbd_allowance_give(&allowance, 4096);
    g_assert_true(nbd_allowance_take(&allowance, 4096));
    g_assert_false(nbd_allowance_take(&allowance, 4096));
    nbd_allowance_give(&allowance, (uint64_t)taken * 4096);
    g_assert_cmpuint(budget.reserved, ==, NBD_ALLOWANCE_STEP);
    nbd_allowance_done(&allowance);
    g_assert_cmpuint(budget.reserved, ==, 0);
}

/* However many clients hold what they can, small requests of one more can still be several at once. */
static void test_newcomer_finds_room(void)
{
    struct nbd_budget budget = {0};
    struct nbd_allowance greedy[20] = {{0}}, late = {.budget = &budget};

    for (size_t i = 0; i < G_N_ELEMENTS(greedy); i++) {
        greedy[i].budget = &budget;
        while (nbd_allowance_take(&greedy[i], MIB))
            continue;
    }
    g_assert_cmpuint(budget.reserved, <=, NBD_SERVER_BYTES_MAX);
    for (unsigned i = 0; i < 128; i++)
        g_assert_true(nbd_allowance_take(&late, 4096));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/nbd-budget/one-request-always", test_one_request_always);
    g_test_add_func("/nbd-budget/limit-of-client", test_limit_of_client);
    g_test_add_func("/nbd-budget/newcomer-finds-room", test_newcomer_finds_room);
    return g_test_run();
}
