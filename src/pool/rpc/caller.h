/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The other side of the protocol: a connection to a daemon that speaks it, ours or libvirt's, on which one call is made
 * after the other. Arguments and results have the layouts of the table that the server goes by (remote.c).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct pool_error;
struct rpc_caller;
union rpc_value;

struct rpc_caller_options {
    const char *socket; /* path */
    const char *peer;   /* how errors call the other side: "the secret daemon" */
    const char *driver; /* "storage", "secret" */
    bool session;       /* a user's daemon: DRIVER:///session; else DRIVER:///system */
    bool either;        /* the other one is tried, too */
    bool read_only;
    int64_t patience_ns; /* for each answer, but that to a question to a person; 0: without end */
};

/* Connected, authenticated as far as the daemon asks for it, and opened. Strings are copied. NULL: *err. */
struct rpc_caller *CO_FN co_rpc_caller_new(const struct rpc_caller_options *options,
                                           struct pool_error **err) MUST_CHECK;
void rpc_caller_free(struct rpc_caller *caller); /* NULL is allowed */
AUTO_DEFINE(rpc_caller, struct rpc_caller *, rpc_caller_free)

/*
 * Calls a procedure of the table. `args` as many as its layout has; `results`, zero-filled, get what its other layout
 * has, to be freed by rpc_caller_clear(). False: *err, as the daemon says it or why there is no answer, and nothing in
 * `results`.
 */
bool CO_FN co_rpc_call(struct rpc_caller *caller, int32_t procedure, const union rpc_value *args,
                       union rpc_value *results, struct pool_error **err);
void rpc_caller_clear(int32_t procedure, union rpc_value *results);
