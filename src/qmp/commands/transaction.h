/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The actions of the `transaction` command. Each kind is a line in a table in transaction.c; what it does is written
 * beside the command of the same name.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "gen/types.h"

struct daemon;
struct error;
struct graph_change;
struct job_transaction;
struct transaction;

/*
 * A transaction under way. Requests that reach a node which an action names wait from before the first action to the
 * end. An action takes effect at once, so that later ones find it so, and is undone if a later one fails.
 */
struct transaction_run {
    struct daemon *daemon;
    struct transaction *transaction; /* an action adds what undoes or completes it: transaction_add() */
    struct graph_change *change;     /* steps in the graph may be added to this one; it ends before `transaction` */
    struct job_transaction *jobs;    /* jobs that start end together; NULL: each for itself */
};

struct transaction_action_kind_entry {
    /* The node that it changes, for the wait; NULL: none. */
    const char *(*node)(const struct transaction_action *action);
    /* Carries it out. False and the error: it has left nothing to undo. */
    bool (*co_do)(struct transaction_run *run, const struct transaction_action *action, struct error **err);
    bool grouped; /* the completion mode 'grouped' is for it as well */
};
