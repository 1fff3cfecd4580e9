/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/rpc/call.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "loop/loop.h"
#include "pool/log.h"
#include "pool/pool-error.h"
#include "pool/rpc/client.h"
#include "pool/rpc/program.h"
#include "pool/rpc/stream.h"
#include "pool/rpc/xdr.h"

enum { DESCRIPTORS_MAX = 32 };

const struct rpc_procedure *rpc_program_find(const struct rpc_program *program, int32_t number)
{
    size_t low = 0;
    size_t high = program->count;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (program->procedures[middle].number == number)
            return &program->procedures[middle];
        if (program->procedures[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* Waits until the client may have another request in flight; false: it is gone. */
static bool CO_FN co_wait_room(struct rpc_client *client)
{
    while (client->open && client->requests >= client->server->requests_max)
        co_condition_wait_always(&client->room, NULL);
    return client->open;
}

static struct rpc_header reply_header(const struct rpc_header *call)
{
    struct rpc_header header = *call;

    header.type = RPC_REPLY;
    header.status = RPC_OK;
    return header;
}

/* Refuses what may not even be a call. `error` is taken. */
static void refuse(struct rpc_client *client, const struct rpc_header *header, struct pool_error *error)
{
    pool_log_debug("rpc.call", "client %" PRIu64 ", procedure %d: %s", client->id, header->procedure, error->message);
    rpc_client_request_begin(client);
    rpc_client_send_error(client, reply_header(header), error);
    pool_error_free(error);
}

/* --- calls --- */

static void call_free(struct rpc_call *call)
{
    rpc_values_free(call->procedure->args, call->args);
    rpc_values_free(call->procedure->result, call->result);
    rpc_client_unref(call->client);
    g_free(call);
}

static bool CO_FN co_handle(struct rpc_call *call, struct pool_error **err)
{
    const struct rpc_program *program = call->client->server->program;

    return (!program->co_before || program->co_before(call, err)) && call->procedure->co_handle(call, err) &&
           (!program->co_after || program->co_after(call, err));
}

static bool CO_FN co_perform(struct rpc_call *call, struct pool_error **err)
{
    struct rpc_server *server = call->client->server;
    enum rpc_worker worker;
    bool ok;

    if (server->program->check && !server->program->check(call, err))
        return false;
    if (call->procedure->rules & RPC_AT_ONCE)
        return call->procedure->co_handle(call, err);
    if (call->procedure->rules & RPC_NO_WORKER)
        return co_handle(call, err);
    worker = co_rpc_worker_get(&server->workers, !(call->procedure->rules & RPC_LOW_PRIORITY));
    ok = co_handle(call, err);
    rpc_worker_put(&server->workers, worker);
    return ok;
}

/* Look-ups that find nothing are part of everyday life. */
static bool is_ordinary(const struct pool_error *error)
{
    switch (error->code) {
    case POOL_ERROR_NO_POOL:
    case POOL_ERROR_NO_VOLUME:
    case POOL_ERROR_NO_SECRET:
    case POOL_ERROR_NO_SUPPORT:
    case POOL_ERROR_NO_SERVER:
    case POOL_ERROR_NO_CLIENT:
    case POOL_ERROR_OPERATION_INVALID:
        return true;
    default:
        return false;
    }
}

static void CO_FN co_run_call(void *opaque)
{
    struct rpc_call *call = opaque;
    struct rpc_client *client = call->client;
    struct rpc_header header = reply_header(&call->header);
    AUTO(pool_error) error = NULL;

    if (co_perform(call, &error)) {
        rpc_client_send_values(client, header, call->procedure->result, call->result);
    } else {
        if (!error)
            pool_error_set_domain(&error, POOL_DOMAIN_RPC, POOL_ERROR_INTERNAL, "no reason given");
        pool_log(is_ordinary(error) ? POOL_LOG_DEBUG : POOL_LOG_ERROR, "rpc.call", "%s", error->message);
        rpc_client_send_error(client, header, error);
    }
    if (call->close && client->open) {
        client->closing = true;
        if (!client->writing)
            rpc_client_drop(client);
    }
    if (call->task) {
        rpc_server_call_end(client->server, call);
        co_task_detach(call->task);
    }
    call_free(call);
}

static bool may_call(const struct rpc_client *client, const struct rpc_header *header, const struct rpc_procedure **ret,
                     struct pool_error **err)
{
    const struct rpc_program *program = client->server->program;
    const struct rpc_procedure *procedure = rpc_program_find(program, header->procedure);

    if (header->status != RPC_OK)
        return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_RPC, "Unexpected message status %u",
                                     header->status);
    if (client->server->stopping)
        return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_ABORTED, "the daemon is about to end");
    if (!procedure) {
        if (program->unknown && client->authenticated)
            program->unknown(header->procedure, err);
        if (!*err)
            pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_RPC, "unknown procedure: %d", header->procedure);
        return false;
    }
    if (!client->authenticated && !(procedure->rules & RPC_BEFORE_AUTH))
        return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_RPC, "authentication required");
    *ret = procedure;
    return true;
}

static void CO_FN co_accept_call(struct rpc_client *client, const struct rpc_header *header,
                                 struct xdr_reader arguments)
{
    const struct rpc_procedure *procedure = NULL;
    const struct xdr_reader bytes = arguments;
    struct pool_error *error = NULL;
    struct rpc_call *call;
    bool decoded;

    if (!may_call(client, header, &procedure, &error)) {
        refuse(client, header, error);
        return;
    }
    call = g_new0(struct rpc_call, 1);
    call->client = rpc_client_ref(client);
    call->procedure = procedure;
    call->header = *header;
    decoded = rpc_values_decode(procedure->args, &arguments, call->args);
    if (procedure->rules & RPC_CONFIDENTIAL)
        explicit_bzero((uint8_t *)(uintptr_t)bytes.at, bytes.left);
    if (!decoded) {
        pool_error_set_domain(&error, POOL_DOMAIN_RPC, POOL_ERROR_RPC, "Unable to decode message payload");
        refuse(client, header, error);
        call_free(call);
        return;
    }
    rpc_client_request_begin(client);
    if (procedure->rules & RPC_AT_ONCE) {
        co_run_call(call);
        return;
    }
    call->task = co_task_start(client->server->loop, co_run_call, call);
    rpc_server_call_begin(client->server, call);
}

/* Descriptors may come with a call, each with a byte after the packet. Nobody wants them: the system closes them. */
static bool skip_descriptors(struct rpc_client *client, struct xdr_reader *payload)
{
    uint32_t count;

    if (!xdr_get_u32(payload, &count) || count > DESCRIPTORS_MAX)
        return false;
    client->input.skip = count;
    return true;
}

/* --- packets --- */

/* True: it was a sign of life, and that is all. */
static bool accept_keepalive(struct rpc_client *client, const struct rpc_header *header)
{
    if (header->program != RPC_PROGRAM_KEEPALIVE || header->version != RPC_VERSION || header->type != RPC_MESSAGE)
        return false;
    if (header->procedure == RPC_KEEPALIVE_PING)
        rpc_client_answer_ping(client);
    return true;
}

bool co_rpc_packet_accept(struct rpc_client *client, const uint8_t *packet, size_t length)
{
    struct xdr_reader payload = {.at = packet + RPC_HEADER_SIZE, .left = length - RPC_HEADER_SIZE};
    const struct rpc_program *program = client->server->program;
    struct rpc_header header;

    assert(length >= RPC_HEADER_SIZE);
    rpc_header_decode(&header, packet);
    if (accept_keepalive(client, &header))
        return true;
    if (!co_wait_room(client))
        return false;
    if (header.program != program->number || header.version != RPC_VERSION) {
        struct pool_error *error = NULL;

        pool_error_set_domain(&error, POOL_DOMAIN_RPC, POOL_ERROR_RPC, "Cannot find program %u version %u",
                              header.program, header.version);
        refuse(client, &header, error);
        return true;
    }
    switch (header.type) {
    case RPC_CALL_WITH_FDS:
        if (!skip_descriptors(client, &payload))
            return false;
        co_accept_call(client, &header, payload);
        break;
    case RPC_CALL:
        co_accept_call(client, &header, payload);
        break;
    case RPC_STREAM:
    case RPC_STREAM_HOLE:
        rpc_stream_accept(client, &header, packet, length);
        break;
    default:
        break; /* nothing that a client may send; libvirt's daemons are silent too */
    }
    return true;
}
