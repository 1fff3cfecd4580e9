/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A client's connection: one coroutine reads packets, each call and each stream has one of its own, and one writes
 * while there is something to write. Replies go out as they come.
 *
 * What a client can make us remember is bounded: it has at most requests_max calls and packets of uploads in flight, a
 * call counting until its reply has been sent; then nothing more is read of it. Main loop.
 *
 * Invariants: (1) `open` falls once; from then on nothing is queued and no packet is looked at; (2) who is in the
 * server's list is open; (3) a call or stream under way holds a reference.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "loop/lock.h"
#include "pool/rpc/packet.h"
#include "pool/rpc/server.h"
#include "pool/rpc/value.h"

struct pool_error;
struct rpc_client;
struct rpc_output;
struct rpc_stream;
struct stream;

/* Who is at the other end, as the system says. */
struct rpc_peer {
    pid_t pid;
    uid_t uid;
    gid_t gid;
    char *selinux; /* context; NULL: none */
    uint64_t
        start; /* when the process began, in the kernel's ticks, as of its connecting; 0: nobody has asked for it */
};

/* Bytes as they come. */
enum { RPC_SPARES_MAX = 8 };

struct rpc_input {
    uint8_t *data;
    size_t capacity;
    size_t begin, end; /* of what has not been looked at */
    size_t last_large; /* length of the packet before, where it was a large one; else 0 */
    size_t skip;       /* so many bytes that come next are of no use */
    /* Memory of packets that have been written, for those that come: else the system would clear it anew for each. */
    struct {
        uint8_t *data;
        size_t size;
    } spare[RPC_SPARES_MAX];
    unsigned spares;
};

struct rpc_client {
    unsigned references;
    struct rpc_server *server;
    uint64_t id;
    int64_t since_s;  /* wall clock */
    int64_t since_ns; /* the loop's */
    struct stream *stream;
    struct rpc_peer peer;
    enum rpc_auth auth;
    bool authenticated;
    int64_t anonymous_until_ns; /* it is to have authenticated by then, or to be at it; 0: no limit */
    char *sasl_user;            /* who it is by SASL; NULL: not that way */
    bool read_only;
    void *session; /* of the program */

    bool open;
    bool closing; /* closed as soon as everything is sent */
    bool writing; /* the writer runs */
    struct rpc_input input;
    GQueue output; /* of struct rpc_output */
    size_t output_bytes;
    unsigned requests;
    struct co_condition room; /* a request is through, or the connection closed */

    int64_t ping_interval_ns; /* 0: not asked for */
    int64_t ping_at_ns;
    unsigned pings_missed;
    bool pong_waits; /* one is in the output */

    GPtrArray *streams; /* of struct rpc_stream; borrowed: they take themselves out */
};

/* Something to be sent. `data` stays where it is until `sent` is called: once, sent or in vain. */
struct rpc_output {
    uint8_t *data;
    size_t size;
    void (*sent)(struct rpc_client *client, struct rpc_output *output);
};

/* Takes `fd`, a connected socket, and serves it. */
void rpc_client_start(struct rpc_server *server, int fd, const struct rpc_socket_options *options);

struct rpc_client *rpc_client_ref(struct rpc_client *client);
void rpc_client_unref(struct rpc_client *client);

/* Ends the connection at once; calls under way go on, their replies are forgotten. */
void rpc_client_drop(struct rpc_client *client);

/* The client has said who it is. */
void rpc_client_set_authenticated(struct rpc_client *client);

/* Its sign of life is answered. */
void rpc_client_answer_ping(struct rpc_client *client);

/* From now on it is pinged when it has been silent for a while. */
void rpc_client_start_pinging(struct rpc_client *client);

/* Queues, where the connection is open; else `sent` is called at once. */
void rpc_client_send(struct rpc_client *client, struct rpc_output *output);

/* The same for a header and a body; `length` of the header is filled in. Events: dropped with the connection where the
 * client does not read and too much waits. */
void rpc_client_send_values(struct rpc_client *client, struct rpc_header header, const char *layout,
                            const union rpc_value *values);
void rpc_client_send_error(struct rpc_client *client, struct rpc_header header, const struct pool_error *error);
void rpc_client_send_event(struct rpc_client *client, int32_t procedure, const char *layout,
                           const union rpc_value *values);

/* A call or packet of an upload is through, or begins. */
void rpc_client_request_begin(struct rpc_client *client);
void rpc_client_request_end(struct rpc_client *client);

/* The whole packet of an upload that is being looked at, in memory of its own, and where in it the payload begins. */
uint8_t *rpc_client_take_packet(struct rpc_client *client, const uint8_t *packet, size_t length);
void rpc_client_return_packet(struct rpc_client *client, uint8_t *data, size_t size);

/* A stream has left client->streams. */
void rpc_client_stream_ended(struct rpc_client *client);

/* The body of an error. */
void rpc_error_encode(const struct pool_error *error, GByteArray *to);
