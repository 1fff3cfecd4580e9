/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/rpc/caller.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "loop/coroutine.h"
#include "loop/socket.h"
#include "loop/stream.h"
#include "pool/pool-error.h"
#include "pool/rpc/packet.h"
#include "pool/rpc/remote.h"
#include "pool/rpc/server.h"
#include "pool/rpc/value.h"
#include "pool/rpc/xdr.h"

enum { PROCEDURE_OPEN = 1, PROCEDURE_AUTH_LIST = 66, PROCEDURE_AUTH_POLKIT = 70 };
enum { OPEN_READ_ONLY = 1 };

struct rpc_caller {
    struct stream *stream;
    char *peer;
    int64_t patience_ns; /* 0: without end */
    uint32_t serial;     /* of the last call */
};

static bool broken(const struct rpc_caller *caller, int result, struct pool_error **err)
{
    return pool_error_set_errno(err, result ? result : EPROTO, "cannot talk with %s", caller->peer);
}

/* What the daemon says of its failure. */
static bool decode_error(const struct rpc_caller *caller, struct xdr_reader *reader, struct pool_error **err)
{
    g_autofree char *message = NULL;
    uint32_t domain;
    uint32_t code;

    if (!xdr_get_u32(reader, &code) || !xdr_get_u32(reader, &domain) || !xdr_get_optional_string(reader, &message))
        return broken(caller, 0, err);
    if (!err)
        return false;
    assert(!*err);
    *err = g_new0(struct pool_error, 1);
    (*err)->code = (enum pool_error_code)code;
    (*err)->domain = (enum pool_error_domain)domain;
    (*err)->message = message ? TAKE(message) : g_strdup_printf("%s gives no reason", caller->peer);
    (*err)->str1 = g_strdup("%s");
    (*err)->str2 = g_strdup((*err)->message);
    (*err)->int1 = (*err)->int2 = -1;
    return false;
}

/* The next packet that answers our call; others are signs of life and events. Owned; NULL: *err. */
static uint8_t *CO_FN co_receive(struct rpc_caller *caller, struct rpc_header *ret, struct pool_error **err)
{
    for (;;) {
        g_autofree uint8_t *packet = g_malloc(RPC_HEADER_SIZE);
        int result = co_stream_read_exact(caller->stream, packet, RPC_HEADER_SIZE);

        if (result) {
            broken(caller, result, err);
            return NULL;
        }
        rpc_header_decode(ret, packet);
        if (!rpc_length_valid(ret->length)) {
            broken(caller, 0, err);
            return NULL;
        }
        packet = g_realloc(packet, ret->length);
        result = co_stream_read_exact(caller->stream, packet + RPC_HEADER_SIZE, ret->length - RPC_HEADER_SIZE);
        if (result) {
            broken(caller, result, err);
            return NULL;
        }
        if (ret->program == RPC_PROGRAM_REMOTE && ret->type == RPC_REPLY && ret->serial == caller->serial)
            return TAKE(packet);
    }
}

static int CO_FN co_send(struct rpc_caller *caller, const struct rpc_procedure *procedure, const union rpc_value *args)
{
    struct rpc_header header = {.program = RPC_PROGRAM_REMOTE, .version = RPC_VERSION, .procedure = procedure->number};
    g_autoptr(GByteArray) packet = g_byte_array_new();
    uint8_t space[RPC_HEADER_SIZE] = {0};

    header.serial = ++caller->serial;
    g_byte_array_append(packet, space, sizeof(space));
    rpc_values_encode(procedure->args, args, packet);
    header.length = packet->len;
    rpc_header_encode(&header, packet->data);
    return co_stream_write(caller->stream, packet->data, packet->len);
}

/* The packet that answers, owned; NULL: *err. */
static uint8_t *CO_FN co_ask(struct rpc_caller *caller, const struct rpc_procedure *procedure,
                             const union rpc_value *args, struct rpc_header *ret, struct pool_error **err)
{
    int result = co_send(caller, procedure, args);

    if (!result)
        return co_receive(caller, ret, err);
    broken(caller, result, err);
    return NULL;
}

/* The same, for as long as the caller is patient; somebody who has to find a password takes as long as that takes. */
static uint8_t *CO_FN co_ask_patiently(struct rpc_caller *caller, const struct rpc_procedure *procedure,
                                       const union rpc_value *args, struct rpc_header *ret, struct pool_error **err)
{
    struct co_deadline deadline;
    uint8_t *reply;

    if (!caller->patience_ns || procedure->number == PROCEDURE_AUTH_POLKIT)
        return co_ask(caller, procedure, args, ret, err);
    co_deadline_begin(&deadline, caller->patience_ns);
    reply = co_ask(caller, procedure, args, ret, err);
    co_deadline_end(&deadline);
    return reply;
}

bool co_rpc_call(struct rpc_caller *caller, int32_t procedure, const union rpc_value *args, union rpc_value *results,
                 struct pool_error **err)
{
    const struct rpc_procedure *entry = rpc_program_find(&remote_program, procedure);
    struct rpc_header header = {0};
    g_autofree uint8_t *reply = NULL;
    struct xdr_reader reader;
    bool ok;

    assert(entry);
    assert(results || !*entry->result);
    reply = co_ask_patiently(caller, entry, args, &header, err);
    if (!reply)
        return false;
    reader = (struct xdr_reader){.at = reply + RPC_HEADER_SIZE, .left = header.length - RPC_HEADER_SIZE};
    if (header.status != RPC_OK)
        return decode_error(caller, &reader, err);
    ok = rpc_values_decode(entry->result, &reader, results);
    explicit_bzero(reply, header.length); /* it may be the value of a secret */
    if (ok)
        return true;
    rpc_caller_clear(procedure, results);
    return broken(caller, 0, err);
}

void rpc_caller_clear(int32_t procedure, union rpc_value *results)
{
    const struct rpc_procedure *entry = rpc_program_find(&remote_program, procedure);

    assert(entry);
    rpc_values_free(entry->result, results);
    memset(results, 0, strlen(entry->result) * sizeof(*results));
}

static bool CO_FN co_authenticate(struct rpc_caller *caller, struct pool_error **err)
{
    union rpc_value types = {0};
    union rpc_value complete = {0};
    uint32_t type;

    if (!co_rpc_call(caller, PROCEDURE_AUTH_LIST, NULL, &types, err))
        return false;
    type = types.ints && types.ints->count ? types.ints->values[0] : RPC_AUTH_NONE;
    rpc_caller_clear(PROCEDURE_AUTH_LIST, &types);
    if (type == RPC_AUTH_NONE)
        return true;
    if (type == RPC_AUTH_POLKIT)
        return co_rpc_call(caller, PROCEDURE_AUTH_POLKIT, NULL, &complete, err);
    return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_AUTH_UNAVAILABLE,
                                 "%s wants a way of authentication that this client does not have (%s)", caller->peer,
                                 type == RPC_AUTH_SASL ? "SASL" : "an unknown one");
}

static bool CO_FN co_open(struct rpc_caller *caller, const struct rpc_caller_options *options, bool session,
                          struct pool_error **err)
{
    g_autofree char *uri = g_strdup_printf("%s:///%s", options->driver, session ? "session" : "system");
    union rpc_value args[] = {{.string = uri}, {.u = options->read_only ? OPEN_READ_ONLY : 0}};

    return co_rpc_call(caller, PROCEDURE_OPEN, args, NULL, err);
}

struct rpc_caller *co_rpc_caller_new(const struct rpc_caller_options *options, struct pool_error **err)
{
    struct socket_endpoint endpoint = {.family = SOCKET_UNIX, .path = options->socket};
    AUTO(rpc_caller) caller = g_new0(struct rpc_caller, 1);
    AUTO(pool_error) refused = NULL;
    struct error *error = NULL;
    int fd = co_socket_dial(&endpoint, &error);

    caller->peer = g_strdup(options->peer);
    if (fd < 0) {
        pool_error_from(err, error);
        return NULL;
    }
    caller->patience_ns = options->patience_ns;
    caller->stream = stream_new_socket(fd);
    if (!co_authenticate(caller, err))
        return NULL;
    if (co_open(caller, options, options->session, &refused))
        return TAKE(caller);
    if (options->either && co_open(caller, options, !options->session, NULL))
        return TAKE(caller);
    pool_error_move(err, TAKE(refused));
    return NULL;
}

void rpc_caller_free(struct rpc_caller *caller)
{
    if (!caller)
        return;
    stream_free(caller->stream);
    g_free(caller->peer);
    g_free(caller);
}
