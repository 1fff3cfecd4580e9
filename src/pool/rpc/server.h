/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A server: sockets that clients come in by, limits on them, and the program that they may call. The daemon has two,
 * its main one and the one for its administrators. Main loop.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"
#include "loop/lock.h"
#include "pool/rpc/workers.h"

struct error;
struct loop;
struct pool_error;
struct rpc_call;
struct rpc_client;
struct rpc_program;
struct rpc_server;
struct socket_endpoint;
struct socket_listener;

enum rpc_auth { RPC_AUTH_NONE, RPC_AUTH_SASL, RPC_AUTH_POLKIT };

/* What holds for those who come in by one socket. */
struct rpc_socket_options {
    enum rpc_auth auth;
    bool read_only;
};

/* Zero where not said otherwise. */
struct rpc_server_options {
    const char *name; /* copied */
    const struct rpc_program *program;
    void *opaque; /* for handlers */
    unsigned clients_max;
    unsigned anonymous_max; /* clients that have not yet authenticated; 0: no limit */
    int anonymous_s;        /* how long a client may take to authenticate; 0: no limit */
    unsigned requests_max;  /* a client has in flight */
    unsigned workers_min, workers_max, workers_priority;
    int keepalive_interval_s; /* 0 and below: clients are not pinged */
    unsigned keepalive_count;
    void (*clients_changed)(struct rpc_server *server); /* one came or went; may be NULL */
};

struct rpc_server {
    char *name;
    const struct rpc_program *program;
    void *opaque;
    unsigned clients_max, anonymous_max, requests_max;
    int anonymous_s;
    int keepalive_interval_s;
    unsigned keepalive_count;
    void (*clients_changed)(struct rpc_server *server);
    struct rpc_workers workers;
    struct loop *loop;

    GPtrArray *clients; /* struct rpc_client, by id; borrowed: they take themselves out */
    unsigned anonymous;
    uint64_t next_id;
    unsigned running;          /* coroutines of clients, of their calls and streams */
    GPtrArray *calls;          /* struct rpc_call, under way; borrowed: they take themselves out */
    GPtrArray *accepting;      /* struct rpc_accept */
    bool stopping;             /* calls that come now are refused */
    struct co_condition room;  /* for another client, maybe */
    struct co_condition ended; /* a coroutine, a call; or while it stops, a client has been told something, or goes */
};

struct rpc_server *rpc_server_new(const struct rpc_server_options *options);

/* Serves those who come in by `listener` (taken), from now on. */
void rpc_server_listen(struct rpc_server *server, struct socket_listener *listener,
                       const struct rpc_socket_options *options);

/*
 * Takes nobody in any more, waits until the calls under way have ended, tells clients with streams that these have, and
 * drops all when they have read it. Calls that take longer than a few seconds are cancelled; who does not read is not
 * waited for.
 */
void CO_FN co_rpc_server_stop(struct rpc_server *server);

/* After that; NULL is allowed. */
void rpc_server_free(struct rpc_server *server);

/* The limits; false where the second is above the first. */
bool rpc_server_set_client_limits(struct rpc_server *server, unsigned max, unsigned anonymous_max,
                                  struct pool_error **err);

/* NULL: there is none. Borrowed. */
struct rpc_client *rpc_server_find_client(struct rpc_server *server, uint64_t id);

/* For calls: one is under way, or has ended. */
void rpc_server_call_begin(struct rpc_server *server, struct rpc_call *call);
void rpc_server_call_end(struct rpc_server *server, struct rpc_call *call);

/* Something has been sent to a client, or one of its streams has ended. */
void rpc_server_told(struct rpc_server *server);

/* For clients: a coroutine for them begins and ends; a client comes, says who it is, goes. */
void rpc_server_begin(struct rpc_server *server);
void rpc_server_end(struct rpc_server *server);
void rpc_server_add_client(struct rpc_server *server, struct rpc_client *client, bool anonymous);
void rpc_server_client_known(struct rpc_server *server);
void rpc_server_remove_client(struct rpc_server *server, struct rpc_client *client, bool anonymous);
