/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/transaction.h"

#include <glib.h>

#include "base/error.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

enum { ACTIONS = 4 };

/* What has been called, in order: "p0 p1 c0 c1 x1 x0". */
static GString *history;
static unsigned fail_at; /* the n-th prepare, 1 the first; 0: none */

static void note(char what, const unsigned *number)
{
    co_yield ();
    g_string_append_printf(history, "%s%c%u", history->len ? " " : "", what, *number);
}

static bool co_prepare(void *opaque, struct error **err)
{
    note('p', opaque);
    if (fail_at == *(unsigned *)opaque + 1)
        return error_set(err, "action %u fails", *(unsigned *)opaque);
    return true;
}

static void co_commit(void *opaque)
{
    note('c', opaque);
}

static void co_abort(void *opaque)
{
    note('a', opaque);
}

static void co_clean(void *opaque)
{
    note('x', opaque);
    g_free(opaque);
}

static const struct transaction_ops ops = {
    .co_prepare = co_prepare,
    .co_commit = co_commit,
    .co_abort = co_abort,
    .co_clean = co_clean,
};

static bool co_try(struct error **err)
{
    struct transaction *transaction = transaction_new();
    bool ok = true;

    g_string_truncate(history, 0);
    for (unsigned i = 0; i < ACTIONS && ok; i++) {
        unsigned *number = g_new(unsigned, 1);

        *number = i;
        ok = co_transaction_do(transaction, &ops, number, err);
    }
    return co_transaction_end(transaction, ok);
}

static void co_all_or_nothing(void *opaque)
{
    static const char *const expected[ACTIONS + 1] = {
        "p0 p1 p2 p3 c0 c1 c2 c3 x3 x2 x1 x0", "p0 x0", "p0 p1 x1 a0 x0", "p0 p1 p2 x2 a1 a0 x1 x0",
        "p0 p1 p2 p3 x3 a2 a1 a0 x2 x1 x0",
    };

    history = g_string_new(NULL);
    for (fail_at = 0; fail_at <= ACTIONS; fail_at++) {
        AUTO(error) err = NULL;

        g_assert_true(co_try(&err) == !fail_at);
        g_assert_true(!err == !fail_at);
        g_assert_cmpstr(history->str, ==, expected[fail_at]);
    }
    g_string_free(history, true);
}

static void test_all_or_nothing(void)
{
    struct loop *loop = loop_new(&(struct loop_options){0}, NULL);

    co_run(loop, co_all_or_nothing, NULL);
    loop_free(loop);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/transaction/all-or-nothing", test_all_or_nothing);
    return g_test_run();
}
