/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/rpc/server.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/units.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "pool/log.h"
#include "pool/pool-error.h"
#include "pool/rpc/client.h"
#include "pool/rpc/program.h"
#include "pool/rpc/stream.h"

/* How long to wait where the system has no descriptor for another client. */
static const int64_t accept_pause_ns = 100 * NS_PER_MS;
/* Whoever has said nothing for so long may have to make room. */
static const int64_t silence_ns = 1000 * NS_PER_MS;

/* When the server stops: for calls, before they are cancelled; for clients to read the replies. */
static const int64_t calls_patience_ns = 3 * NS_PER_S;
static const int64_t replies_patience_ns = 2 * NS_PER_S;

struct rpc_accept {
    struct rpc_server *server;
    struct socket_listener *listener;
    struct rpc_socket_options options;
    struct co_task *task;
};

struct rpc_server *rpc_server_new(const struct rpc_server_options *options)
{
    struct rpc_server *server = g_new0(struct rpc_server, 1);

    assert(options->requests_max > 0);
    server->name = g_strdup(options->name);
    server->program = options->program;
    server->opaque = options->opaque;
    server->clients_max = options->clients_max;
    server->anonymous_max = options->anonymous_max;
    server->anonymous_s = options->anonymous_s;
    server->requests_max = options->requests_max;
    server->keepalive_interval_s = options->keepalive_interval_s;
    server->keepalive_count = options->keepalive_count;
    server->clients_changed = options->clients_changed;
    server->loop = loop_current();
    server->clients = g_ptr_array_new();
    server->accepting = g_ptr_array_new();
    server->calls = g_ptr_array_new();
    server->next_id = 1;
    rpc_workers_configure(&server->workers, options->workers_min, options->workers_max, options->workers_priority);
    server->workers.current = options->workers_min;
    return server;
}

/* Whether another client may come in. */
static bool has_room(const struct rpc_server *server)
{
    if (server->anonymous_max && server->anonymous >= server->anonymous_max)
        return false;
    return server->clients->len < server->clients_max;
}

/* Whether the client keeps a place of those who have not authenticated, and does nothing about it. */
static bool is_silent(const struct rpc_client *client)
{
    return !client->authenticated && !client->requests && loop_now_ns() - client->since_ns >= silence_ns;
}

/*
 * Somebody waits for such a place: the user who has most of them taken by saying nothing gives back the one that was
 * taken first. The only one of a user stays, so that nobody is put out by others.
 */
static void drop_silent(struct rpc_server *server)
{
    struct rpc_client *first = NULL;
    unsigned most = 1;

    for (guint i = 0; i < server->clients->len; i++) {
        struct rpc_client *client = server->clients->pdata[i];
        unsigned count = 0;

        for (guint j = i; is_silent(client) && j < server->clients->len; j++) {
            const struct rpc_client *other = server->clients->pdata[j];

            count += other->peer.uid == client->peer.uid && is_silent(other);
        }
        if (count > most) {
            most = count;
            first = client;
        }
    }
    if (!first)
        return;
    pool_log_warning("rpc.server",
                     "server %s: client %" PRIu64 ", user %u, says nothing while others wait: it is dropped",
                     server->name, first->id, (unsigned)first->peer.uid);
    rpc_client_drop(first);
}

/* False: the server stops. */
static bool CO_FN co_wait_for_room(struct rpc_server *server)
{
    while (!has_room(server)) {
        struct co_deadline deadline;
        int result;

        co_deadline_begin(&deadline, silence_ns);
        result = co_condition_wait(&server->room, NULL);
        co_deadline_end(&deadline);
        if (result == -ECANCELED)
            return false;
        if (result == -ETIMEDOUT)
            drop_silent(server);
    }
    return true;
}

/* Of those who are too many, one waits here, and the others in the socket's queue. */
static void CO_FN co_accept_clients(void *opaque)
{
    struct rpc_accept *accept = opaque;
    struct rpc_server *server = accept->server;

    while (!co_cancelled()) {
        AUTO(fd) fd = co_socket_listener_accept(accept->listener);

        if (fd >= 0) {
            if (co_wait_for_room(server))
                rpc_client_start(server, TAKE_FD(fd), &accept->options);
        } else if (fd != -ECANCELED && fd != -ECONNABORTED) {
            pool_log_error("rpc.server", "cannot take in a client on %s: %s", socket_listener_address(accept->listener),
                           g_strerror(-fd));
            if (co_sleep_ns(accept_pause_ns))
                break;
        }
    }
}

void rpc_server_listen(struct rpc_server *server, struct socket_listener *listener,
                       const struct rpc_socket_options *options)
{
    struct rpc_accept *accept = g_new0(struct rpc_accept, 1);

    accept->server = server;
    accept->listener = listener;
    accept->options = *options;
    g_ptr_array_add(server->accepting, accept);
    accept->task = co_task_start(server->loop, co_accept_clients, accept);
}

static void CO_FN co_stop_accepting(struct rpc_server *server)
{
    for (guint i = 0; i < server->accepting->len; i++) {
        struct rpc_accept *accept = server->accepting->pdata[i];

        co_task_cancel(accept->task);
        co_task_join(accept->task);
        socket_listener_free(accept->listener);
        g_free(accept);
    }
    g_ptr_array_set_size(server->accepting, 0);
}

static bool has_calls(const struct rpc_server *server)
{
    return server->calls->len;
}

/* Whether a client is still to be told something. */
static bool has_replies(const struct rpc_server *server)
{
    for (guint i = 0; i < server->clients->len; i++) {
        const struct rpc_client *client = server->clients->pdata[i];

        if (client->streams->len || client->output_bytes)
            return true;
    }
    return false;
}

static void stop_streams(struct rpc_server *server)
{
    for (guint i = 0; i < server->clients->len; i++) {
        const struct rpc_client *client = server->clients->pdata[i];

        for (guint j = 0; j < client->streams->len; j++)
            rpc_stream_stop(client->streams->pdata[j]);
    }
}

/* Waits while there are such, but not for long. */
static void CO_FN co_wait_while(struct rpc_server *server, bool (*has)(const struct rpc_server *server),
                                int64_t patience_ns)
{
    struct co_deadline deadline;

    co_deadline_begin(&deadline, patience_ns);
    while (has(server)) {
        if (co_condition_wait(&server->ended, NULL))
            break;
    }
    co_deadline_end(&deadline);
}

/* Those whose procedures have one of the rules (0: all), of `client` (NULL: of everybody). */
static void cancel_calls(struct rpc_server *server, const struct rpc_client *client, unsigned rules)
{
    for (guint i = 0; i < server->calls->len; i++) {
        const struct rpc_call *call = server->calls->pdata[i];

        if ((rules && !(call->procedure->rules & rules)) || (client && call->client != client))
            continue;
        pool_log_info("rpc.server", "%s of client %" PRIu64 " is cancelled", call->procedure->function,
                      call->client->id);
        co_task_cancel(call->task);
    }
}

void co_rpc_server_stop(struct rpc_server *server)
{
    server->stopping = true;
    co_stop_accepting(server);
    cancel_calls(server, NULL, RPC_NO_WORKER); /* nobody knows when people answer */
    co_wait_while(server, has_calls, calls_patience_ns);
    cancel_calls(server, NULL, 0);
    while (has_calls(server))
        co_condition_wait_always(&server->ended, NULL);
    stop_streams(server);
    co_wait_while(server, has_replies, replies_patience_ns);
    while (server->clients->len)
        rpc_client_drop(server->clients->pdata[0]);
    while (server->running)
        co_condition_wait_always(&server->ended, NULL);
    assert(!server->clients->len);
}

void rpc_server_free(struct rpc_server *server)
{
    if (!server)
        return;
    assert(!server->running);
    assert(!server->accepting->len);
    assert(!server->calls->len);
    g_ptr_array_unref(server->clients);
    g_ptr_array_unref(server->accepting);
    g_ptr_array_unref(server->calls);
    g_free(server->name);
    g_free(server);
}

bool rpc_server_set_client_limits(struct rpc_server *server, unsigned max, unsigned anonymous_max,
                                  struct pool_error **err)
{
    if (max < anonymous_max)
        return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_INVALID_ARG,
                                     "The overall maximum number of clients must be greater than the maximum number "
                                     "of clients waiting for authentication");
    server->clients_max = max;
    server->anonymous_max = anonymous_max;
    co_condition_broadcast(&server->room);
    return true;
}

struct rpc_client *rpc_server_find_client(struct rpc_server *server, uint64_t id)
{
    for (guint i = 0; i < server->clients->len; i++) {
        struct rpc_client *client = server->clients->pdata[i];

        if (client->id == id)
            return client;
    }
    return NULL;
}

void rpc_server_call_begin(struct rpc_server *server, struct rpc_call *call)
{
    assert(call->task);
    g_ptr_array_add(server->calls, call);
}

void rpc_server_call_end(struct rpc_server *server, struct rpc_call *call)
{
    bool found = g_ptr_array_remove_fast(server->calls, call);

    assert(found);
    co_condition_broadcast(&server->ended);
}

void rpc_server_told(struct rpc_server *server)
{
    if (server->stopping)
        co_condition_broadcast(&server->ended);
}

void rpc_server_begin(struct rpc_server *server)
{
    server->running++;
}

void rpc_server_end(struct rpc_server *server)
{
    assert(server->running > 0);
    server->running--;
    co_condition_broadcast(&server->ended);
}

void rpc_server_add_client(struct rpc_server *server, struct rpc_client *client, bool anonymous)
{
    client->id = server->next_id++;
    g_ptr_array_add(server->clients, client);
    server->anonymous += anonymous;
    if (server->clients_changed)
        server->clients_changed(server);
}

void rpc_server_client_known(struct rpc_server *server)
{
    assert(server->anonymous > 0);
    server->anonymous--;
    co_condition_broadcast(&server->room);
}

void rpc_server_remove_client(struct rpc_server *server, struct rpc_client *client, bool anonymous)
{
    bool found = g_ptr_array_remove(server->clients, client);

    assert(found);
    assert(server->anonymous >= anonymous);
    server->anonymous -= anonymous;
    cancel_calls(server, client, RPC_NO_WORKER); /* nobody is asked on behalf of who has gone */
    co_condition_broadcast(&server->room);
    co_condition_broadcast(&server->ended);
    if (server->clients_changed)
        server->clients_changed(server);
}
