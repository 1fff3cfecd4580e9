/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/transaction.h"

#include <assert.h>
#include <glib.h>

struct action {
    const struct transaction_ops *ops;
    void *opaque;
};

struct transaction {
    GArray *actions; /* struct action, all prepared */
    bool ended;
};

struct transaction *transaction_new(void)
{
    struct transaction *transaction = g_new0(struct transaction, 1);

    transaction->actions = g_array_new(false, false, sizeof(struct action));
    return transaction;
}

void transaction_add(struct transaction *transaction, const struct transaction_ops *ops, void *opaque)
{
    struct action action = {.ops = ops, .opaque = opaque};

    assert(!transaction->ended);
    g_array_append_val(transaction->actions, action);
}

bool CO_FN co_transaction_do(struct transaction *transaction, const struct transaction_ops *ops, void *opaque,
                             struct error **err)
{
    if (ops->co_prepare && !ops->co_prepare(opaque, err)) {
        if (ops->co_clean)
            ops->co_clean(opaque);
        return false;
    }
    transaction_add(transaction, ops, opaque);
    return true;
}

static void CO_FN co_finish(struct transaction *transaction)
{
    for (unsigned i = transaction->actions->len; i > 0; i--) {
        struct action *action = &g_array_index(transaction->actions, struct action, i - 1);

        if (action->ops->co_clean)
            action->ops->co_clean(action->opaque);
    }
    g_array_free(transaction->actions, true);
    g_free(transaction);
}

void CO_FN co_transaction_commit(struct transaction *transaction)
{
    assert(!transaction->ended);
    transaction->ended = true;
    for (unsigned i = 0; i < transaction->actions->len; i++) {
        struct action *action = &g_array_index(transaction->actions, struct action, i);

        if (action->ops->co_commit)
            action->ops->co_commit(action->opaque);
    }
    co_finish(transaction);
}

void CO_FN co_transaction_abort(struct transaction *transaction)
{
    assert(!transaction->ended);
    transaction->ended = true;
    for (unsigned i = transaction->actions->len; i > 0; i--) {
        struct action *action = &g_array_index(transaction->actions, struct action, i - 1);

        if (action->ops->co_abort)
            action->ops->co_abort(action->opaque);
    }
    co_finish(transaction);
}

bool CO_FN co_transaction_end(struct transaction *transaction, bool ok)
{
    if (ok)
        co_transaction_commit(transaction);
    else
        co_transaction_abort(transaction);
    return ok;
}
