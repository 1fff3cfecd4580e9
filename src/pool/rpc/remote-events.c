/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Registrations of all connections in one list; ids are never used again. A registration is for one kind of event, and
 * for one pool or secret or for all of them; each gets a packet of its own.
 */
#include "pool/rpc/remote-events.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "loop/coroutine.h"
#include "pool/daemon.h"
#include "pool/log.h"
#include "pool/pool-error.h"
#include "pool/rpc/client.h"
#include "pool/rpc/remote-access.h"
#include "pool/rpc/remote.h"

/* Numbers of messages. */
enum {
    MESSAGE_POOL_LIFECYCLE = 370,
    MESSAGE_POOL_REFRESH = 373,
    MESSAGE_SECRET_LIFECYCLE = 382,
    MESSAGE_SECRET_VALUE = 383,
};

/* A client may have so many; each event costs a packet for each. So many may wait for polkit's word, which is slow. */
enum { REGISTRATIONS_MAX = 1024, GUARDED_MAX = 4096 };

struct registration {
    int32_t id;
    struct rpc_client *client; /* borrowed: it takes its registrations out before it ends */
    int32_t message;           /* that it gets */
    bool filtered;
    uint8_t uuid[STORAGE_UUID_SIZE];
};

struct remote_events {
    struct storage_listener listener;
    GArray *registrations; /* of struct registration */
    int32_t next_id;
    GQueue guarded;  /* of struct guarded, in their order */
    bool delivering; /* somebody sees to them */
};

/* An event that may be sent only if its receiver may know what it is about. */
struct guarded {
    struct rpc_client *client; /* referenced */
    int32_t id;                /* of the registration */
    int32_t message;
    const char *layout;
    union rpc_value values[4];
};

static bool is_registered(const struct remote_events *events, int32_t id)
{
    for (guint i = 0; i < events->registrations->len; i++) {
        if (g_array_index(events->registrations, struct registration, i).id == id)
            return true;
    }
    return false;
}

static void CO_FN co_deliver_one(struct remote_events *events, struct guarded *one)
{
    bool about_pool = one->layout[1] == 'p';

    if (one->client->open &&
        co_remote_access_event(one->client, about_pool ? one->values[1].pool : NULL,
                               about_pool ? NULL : one->values[1].secret) &&
        is_registered(events, one->id))
        rpc_client_send_event(one->client, one->message, one->layout, one->values);
    ((struct remote_session *)one->client->session)->events_waiting--;
    rpc_values_free(one->layout, one->values);
    rpc_client_unref(one->client);
    g_free(one);
}

/* One after the other, because they stay in their order. The server waits for its end. */
static void CO_FN co_deliver_guarded(void *opaque)
{
    struct rpc_server *server = opaque;
    struct remote_events *events = ((const struct pool_daemon *)server->opaque)->events;
    struct guarded *one;

    while ((one = g_queue_pop_head(&events->guarded)))
        co_deliver_one(events, one);
    events->delivering = false;
    rpc_server_end(server);
}

/* False: too many wait already, because polkit is slower than what happens. */
static bool has_room(struct rpc_client *client)
{
    struct remote_session *session = client->session;

    if (session->events_waiting++ < GUARDED_MAX)
        return true;
    session->events_waiting--;
    pool_log_warning("rpc.client",
                     "server %s: events for client %" PRIu64 " come faster than polkit answers: it is dropped",
                     client->server->name, client->id);
    rpc_client_drop(client);
    return false;
}

/* Takes a copy of what the event is about, which may be gone when the answer comes. */
static void deliver_guarded(struct remote_events *events, const struct registration *to, const char *layout,
                            const union rpc_value *values)
{
    struct rpc_server *server = to->client->server;
    struct guarded *one;

    if (!to->client->open || !has_room(to->client))
        return;
    one = g_new0(struct guarded, 1);
    one->client = rpc_client_ref(to->client);
    one->id = to->id;
    one->message = to->message;
    one->layout = layout;
    memcpy(one->values, values, strlen(layout) * sizeof(*values));
    if (layout[1] == 'p') {
        one->values[1].pool = g_new0(struct pool_id, 1);
        memcpy(one->values[1].pool->uuid, values[1].pool->uuid, STORAGE_UUID_SIZE);
        one->values[1].pool->name = g_strdup(values[1].pool->name);
    } else {
        one->values[1].secret = g_new0(struct secret_id, 1);
        *one->values[1].secret = *values[1].secret;
        one->values[1].secret->usage = g_strdup(values[1].secret->usage);
    }
    g_queue_push_tail(&events->guarded, one);
    if (events->delivering)
        return;
    events->delivering = true;
    rpc_server_begin(server);
    co_spawn(server->loop, co_deliver_guarded, server);
}

static void deliver(struct remote_events *events, int32_t message, const uint8_t *uuid, const char *layout,
                    union rpc_value *values)
{
    for (guint i = 0; i < events->registrations->len; i++) {
        const struct registration *one = &g_array_index(events->registrations, struct registration, i);

        if (one->message != message || (one->filtered && memcmp(one->uuid, uuid, sizeof(one->uuid)) != 0))
            continue;
        values[0].i = one->id;
        if (((const struct pool_daemon *)one->client->server->opaque)->access)
            deliver_guarded(events, one, layout, values);
        else
            rpc_client_send_event(one->client, message, layout, values);
    }
}

static void pool_lifecycle(struct storage_listener *listener, const struct pool_id *pool, enum pool_event event)
{
    struct remote_events *events = container_of(listener, struct remote_events, listener);
    union rpc_value values[] = {{0}, {.pool = (struct pool_id *)(uintptr_t)pool}, {.i = event}, {.i = 0}};

    deliver(events, MESSAGE_POOL_LIFECYCLE, pool->uuid, "ipii", values);
}

static void pool_refreshed(struct storage_listener *listener, const struct pool_id *pool)
{
    struct remote_events *events = container_of(listener, struct remote_events, listener);
    union rpc_value values[] = {{0}, {.pool = (struct pool_id *)(uintptr_t)pool}};

    deliver(events, MESSAGE_POOL_REFRESH, pool->uuid, "ip", values);
}

void remote_events_secret(void *opaque, const struct secret_id *secret, enum secret_event event)
{
    struct remote_events *events = opaque;
    union rpc_value values[] = {
        {0}, {.secret = (struct secret_id *)(uintptr_t)secret}, {.i = event == SECRET_EVENT_UNDEFINED}, {.i = 0}};

    if (event == SECRET_EVENT_VALUE)
        deliver(events, MESSAGE_SECRET_VALUE, secret->uuid, "ix", values);
    else
        deliver(events, MESSAGE_SECRET_LIFECYCLE, secret->uuid, "ixii", values);
}

struct remote_events *remote_events_new(void)
{
    struct remote_events *events = g_new0(struct remote_events, 1);

    events->registrations = g_array_new(FALSE, TRUE, sizeof(struct registration));
    events->listener.lifecycle = pool_lifecycle;
    events->listener.refreshed = pool_refreshed;
    g_queue_init(&events->guarded);
    return events;
}

void remote_events_free(struct remote_events *events)
{
    if (!events)
        return;
    assert(!events->registrations->len);
    assert(g_queue_is_empty(&events->guarded));
    g_array_unref(events->registrations);
    g_free(events);
}

void remote_events_listen(struct remote_events *events, struct storage *storage)
{
    storage_listen(storage, &events->listener);
}

void remote_events_unlisten(struct remote_events *events, struct storage *storage)
{
    storage_unlisten(storage, &events->listener);
}

void remote_events_forget(struct remote_events *events, struct rpc_client *client)
{
    for (guint i = events->registrations->len; i > 0; i--) {
        if (g_array_index(events->registrations, struct registration, i - 1).client == client)
            g_array_remove_index(events->registrations, i - 1);
    }
}

static unsigned count_of(const struct remote_events *events, const struct rpc_client *client)
{
    unsigned count = 0;

    for (guint i = 0; i < events->registrations->len; i++)
        count += g_array_index(events->registrations, struct registration, i).client == client;
    return count;
}

/* `uuid` NULL: of all. */
static bool add(struct rpc_call *call, int32_t message, const uint8_t *uuid, struct pool_error **err)
{
    struct remote_events *events = remote_daemon(call)->events;
    struct registration one = {.client = call->client, .message = message, .filtered = uuid};

    if (count_of(events, call->client) >= REGISTRATIONS_MAX || events->next_id == INT32_MAX)
        return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_INTERNAL,
                                     "too many event registrations on one connection (at most %d)", REGISTRATIONS_MAX);
    if (uuid)
        memcpy(one.uuid, uuid, sizeof(one.uuid));
    one.id = events->next_id++;
    g_array_append_val(events->registrations, one);
    call->result[0].i = one.id;
    return true;
}

/* Of messages `first` or `second`. */
static bool take_out(struct rpc_call *call, const char *what, int32_t first, int32_t second, struct pool_error **err)
{
    GArray *registrations = remote_daemon(call)->events->registrations;

    for (guint i = 0; i < registrations->len; i++) {
        const struct registration *one = &g_array_index(registrations, struct registration, i);

        if (one->id == call->args[0].i && one->client == call->client &&
            (one->message == first || one->message == second)) {
            g_array_remove_index(registrations, i);
            return true;
        }
    }
    return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_INTERNAL, "%s event callback %d not registered", what,
                                 call->args[0].i);
}

bool co_remote_pool_event_register(struct rpc_call *call, struct pool_error **err)
{
    const struct pool_id *pool = call->args[1].pool;
    int32_t event = call->args[0].i;

    if (event != 0 && event != 1)
        return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_INTERNAL, "unsupported storage pool event ID %d",
                                     event);
    return add(call, event ? MESSAGE_POOL_REFRESH : MESSAGE_POOL_LIFECYCLE, pool ? pool->uuid : NULL, err);
}

bool co_remote_pool_event_deregister(struct rpc_call *call, struct pool_error **err)
{
    return take_out(call, "storage pool", MESSAGE_POOL_LIFECYCLE, MESSAGE_POOL_REFRESH, err);
}

bool co_remote_secret_event_register(struct rpc_call *call, struct pool_error **err)
{
    const struct secret_id *secret = call->args[1].secret;
    int32_t event = call->args[0].i;

    if (event != 0 && event != 1)
        return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_INTERNAL, "unsupported secret event ID %d",
                                     event);
    return add(call, event ? MESSAGE_SECRET_VALUE : MESSAGE_SECRET_LIFECYCLE, secret ? secret->uuid : NULL, err);
}

bool co_remote_secret_event_deregister(struct rpc_call *call, struct pool_error **err)
{
    return take_out(call, "secret", MESSAGE_SECRET_LIFECYCLE, MESSAGE_SECRET_VALUE, err);
}
