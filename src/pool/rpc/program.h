/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a server can be asked: a program is a table of procedures, each with its layouts, its rules and its handler. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "pool/rpc/packet.h"
#include "pool/rpc/value.h"

struct pool_error;
struct rpc_call;
struct rpc_client;

/*
 * Does the work with call->args, and fills in call->result. False: *err says why. Runs as a coroutine of its own on the
 * main loop; its client may be gone when it ends.
 */
typedef bool rpc_handler(struct rpc_call *call, struct pool_error **err);

enum rpc_rule {
    RPC_BEFORE_AUTH = 1,    /* may be called by those who have not said who they are */
    RPC_BEFORE_OPEN = 2,    /* ... and before CONNECT_OPEN */
    RPC_LOW_PRIORITY = 4,   /* may take long: has to leave the priority workers to others */
    RPC_OPEN_TEXT = 8,      /* before CONNECT_OPEN, its error speaks of the hypervisor */
    RPC_STORAGE = 16,       /* of the storage driver only */
    RPC_SECRET = 32,        /* of the secret driver only */
    RPC_WRITES = 64,        /* not on read-only connections */
    RPC_AT_ONCE = 128,      /* never suspends, and is through before the next packet is read */
    RPC_NO_WORKER = 256,    /* takes nothing but time, of people maybe: a worker is not kept waiting for it */
    RPC_CONFIDENTIAL = 512, /* what its arguments hold is not to stay in memory */
};

struct rpc_procedure {
    int32_t number;
    const char *function; /* as clients know it, for errors */
    const char *args;     /* layout */
    const char *result;   /* layout */
    rpc_handler *co_handle;
    unsigned rules; /* enum rpc_rule */
};

struct rpc_program {
    uint32_t number;
    const struct rpc_procedure *procedures; /* by number */
    size_t count;
    /* What each connection has of its own; NULL is allowed. */
    void *(*session_new)(struct rpc_client *client);
    void (*session_free)(void *session);
    /* Before the first packet of a connection is read; may suspend. NULL is allowed. */
    void (*co_begin)(struct rpc_client *client);
    /* Whether the connection is in a state for the call. */
    bool (*check)(const struct rpc_call *call, struct pool_error **err);
    /* Around each handler, once `check` has agreed; may suspend. False: *err is the reply. NULL is allowed. */
    rpc_handler *co_before, *co_after;
    /* For numbers that are not in the table: sets *err and returns. */
    void (*unknown)(int32_t number, struct pool_error **err);
};

/* A call under way. */
struct rpc_call {
    struct rpc_client *client; /* referenced */
    struct co_task *task;      /* that runs it; NULL: it is run at once */
    const struct rpc_procedure *procedure;
    struct rpc_header header;
    union rpc_value args[RPC_VALUES_MAX];
    union rpc_value result[RPC_VALUES_MAX];
    bool close; /* the connection ends with the reply */
};

/* NULL: there is none. */
const struct rpc_procedure *rpc_program_find(const struct rpc_program *program, int32_t number);
