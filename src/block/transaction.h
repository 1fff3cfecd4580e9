/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes of several things that happen together or not at all: a list of actions. Each is prepared as it is added;
 * when all are, commits run in the order of the list; when one fails, aborts run from the last prepared to the first.
 * After either, cleans run from the last to the first. Main loop.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct error;
struct transaction;

/* NULL: nothing to do. All but co_prepare() cannot fail. */
struct transaction_ops {
    bool (*co_prepare)(void *opaque, struct error **err);
    void (*co_commit)(void *opaque);
    void (*co_abort)(void *opaque);
    void (*co_clean)(void *opaque); /* releases `opaque`; also after its own failed prepare */
};

struct transaction *transaction_new(void);

/* Prepares an action and adds it. `opaque` is taken, also on failure; then the caller aborts the transaction. */
bool CO_FN co_transaction_do(struct transaction *transaction, const struct transaction_ops *ops, void *opaque,
                             struct error **err) MUST_CHECK;

/* Adds one whose preparation is done. */
void transaction_add(struct transaction *transaction, const struct transaction_ops *ops, void *opaque);

/* The end, one of the two: `transaction` is freed. */
void CO_FN co_transaction_commit(struct transaction *transaction);
void CO_FN co_transaction_abort(struct transaction *transaction);

/* Commits where `ok`, aborts otherwise; returns `ok`. */
bool CO_FN co_transaction_end(struct transaction *transaction, bool ok);
