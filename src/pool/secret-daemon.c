/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/secret-daemon.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "loop/stream.h"
#include "pool/pool-error.h"
#include "pool/rpc/packet.h"
#include "pool/rpc/typed-params.h"
#include "pool/rpc/value.h"
#include "pool/rpc/xdr.h"

enum { TOKEN_MAX = 256 };

/* Of the remote program. */
enum {
    PROCEDURE_OPEN = 1,
    PROCEDURE_AUTH_LIST = 66,
    PROCEDURE_SECRET_BY_UUID = 141,
    PROCEDURE_SECRET_GET_VALUE = 145,
    PROCEDURE_SECRET_BY_USAGE = 147,
    PROCEDURE_SET_IDENTITY = 419,
};

/* Longer than any answer should take, so that a daemon that hangs does not hang us. */
static const int64_t patience_ns = 30 * INT64_C(1000000000);

struct conversation {
    struct stream *stream;
    uint32_t serial;
};

static bool broken(struct pool_error **err, int result)
{
    return pool_error_set_errno(err, result ? result : EPROTO, "cannot talk with the secret daemon");
}

/* What the daemon says of its failure. */
static bool decode_error(struct xdr_reader *reader, struct pool_error **err)
{
    g_autofree char *message = NULL;
    uint32_t domain;
    uint32_t code;

    if (!xdr_get_u32(reader, &code) || !xdr_get_u32(reader, &domain) || !xdr_get_optional_string(reader, &message))
        return broken(err, 0);
    if (!err)
        return false;
    assert(!*err);
    *err = g_new0(struct pool_error, 1);
    (*err)->code = (enum pool_error_code)code;
    (*err)->domain = (enum pool_error_domain)domain;
    (*err)->message = message ? TAKE(message) : g_strdup("the secret daemon gives no reason");
    (*err)->str1 = g_strdup("%s");
    (*err)->str2 = g_strdup((*err)->message);
    (*err)->int1 = (*err)->int2 = -1;
    return false;
}

/* The next packet that answers our call; others are signs of life and events. Owned; NULL: *err. */
static uint8_t *CO_FN co_receive(struct conversation *talk, struct rpc_header *ret, struct pool_error **err)
{
    for (;;) {
        g_autofree uint8_t *packet = g_malloc(RPC_HEADER_SIZE);
        int result = co_stream_read_exact(talk->stream, packet, RPC_HEADER_SIZE);

        if (result) {
            broken(err, result);
            return NULL;
        }
        rpc_header_decode(ret, packet);
        if (!rpc_length_valid(ret->length)) {
            broken(err, 0);
            return NULL;
        }
        packet = g_realloc(packet, ret->length);
        result = co_stream_read_exact(talk->stream, packet + RPC_HEADER_SIZE, ret->length - RPC_HEADER_SIZE);
        if (result) {
            broken(err, result);
            return NULL;
        }
        if (ret->program == RPC_PROGRAM_REMOTE && ret->type == RPC_REPLY && ret->serial == talk->serial)
            return TAKE(packet);
    }
}

/* Calls and decodes the results to `results`, which are zero-filled. */
static bool CO_FN co_call(struct conversation *talk, int32_t procedure, const char *args, const union rpc_value *values,
                          const char *layout, union rpc_value *results, struct pool_error **err)
{
    struct rpc_header header = {.program = RPC_PROGRAM_REMOTE, .version = RPC_VERSION, .procedure = procedure};
    g_autoptr(GByteArray) packet = g_byte_array_new();
    uint8_t space[RPC_HEADER_SIZE] = {0};
    g_autofree uint8_t *reply = NULL;
    struct xdr_reader reader;
    int result;

    header.serial = ++talk->serial;
    g_byte_array_append(packet, space, sizeof(space));
    rpc_values_encode(args, values, packet);
    header.length = packet->len;
    rpc_header_encode(&header, packet->data);
    result = co_stream_write(talk->stream, packet->data, packet->len);
    if (result)
        return broken(err, result);
    reply = co_receive(talk, &header, err);
    if (!reply)
        return false;
    reader = (struct xdr_reader){.at = reply + RPC_HEADER_SIZE, .left = header.length - RPC_HEADER_SIZE};
    if (header.status != RPC_OK)
        return decode_error(&reader, err);
    bool ok = rpc_values_decode(layout, &reader, results);
    explicit_bzero(reply, header.length); /* it may be a value */
    return ok || broken(err, 0);
}

/* Tells for whom we ask: a daemon of the system. */
static bool CO_FN co_identify(struct conversation *talk, const struct secret_daemon *daemon, struct pool_error **err)
{
    AUTO(typed_params) params = typed_params_new();
    g_autofree char *token = NULL;
    size_t size;

    if (!daemon->token_path || !co_file_load(daemon->token_path, TOKEN_MAX, &token, &size, NULL))
        return true; /* then private secrets stay private */
    typed_params_add_ullong(params, "unix-user-id", geteuid());
    typed_params_add_ullong(params, "unix-group-id", getegid());
    typed_params_add_ullong(params, "process-id", (uint64_t)getpid());
    typed_params_add_string(params, "system.token", g_strchomp(token));

    union rpc_value values[] = {{.params = params}, {.u = 0}};
    return co_call(talk, PROCEDURE_SET_IDENTITY, "tu", values, "", NULL, err);
}

static bool CO_FN co_begin(struct conversation *talk, const struct secret_daemon *daemon, struct pool_error **err)
{
    struct socket_endpoint endpoint = {.family = SOCKET_UNIX, .path = daemon->socket};
    char uri_system[] = "secret:///system";
    char uri_session[] = "secret:///session";
    char *uri = daemon->privileged ? uri_system : uri_session;
    union rpc_value values[] = {{.string = uri}, {.u = 0}};
    union rpc_value types = {0};
    struct error *error = NULL;
    int fd = co_socket_dial(&endpoint, &error);

    if (fd < 0)
        return pool_error_from(err, error);
    talk->stream = stream_new_socket(fd);
    bool ok = co_call(talk, PROCEDURE_AUTH_LIST, "", NULL, "I", &types, err);
    rpc_values_free("I", &types);
    return ok && co_call(talk, PROCEDURE_OPEN, "nu", values, "", NULL, err) && co_identify(talk, daemon, err);
}

static struct secret_id *CO_FN co_look_up(struct conversation *talk, const uint8_t *uuid, int type, const char *usage,
                                          struct pool_error **err)
{
    union rpc_value values[2] = {0};
    union rpc_value result = {0};
    bool ok;

    if (uuid) {
        memcpy(values[0].uuid, uuid, sizeof(values[0].uuid));
        ok = co_call(talk, PROCEDURE_SECRET_BY_UUID, "U", values, "x", &result, err);
    } else {
        values[0].i = type;
        values[1].string = (char *)(uintptr_t)usage;
        ok = co_call(talk, PROCEDURE_SECRET_BY_USAGE, "is", values, "x", &result, err);
    }
    if (ok)
        return result.secret;
    rpc_values_free("x", &result);
    return NULL;
}

/* The secret, and its value where that is wanted. */
static struct secret_id *CO_FN co_ask(const struct secret_daemon *daemon, const uint8_t *uuid, int type,
                                      const char *usage, struct rpc_bytes **ret_value, struct pool_error **err)
{
    struct conversation talk = {0};
    struct secret_id *id = NULL;
    struct co_deadline deadline;

    co_deadline_begin(&deadline, patience_ns);
    if (co_begin(&talk, daemon, err))
        id = co_look_up(&talk, uuid, type, usage, err);
    if (id && ret_value) {
        union rpc_value values[] = {{.secret = id}, {.u = 0}};
        union rpc_value result = {0};

        if (co_call(&talk, PROCEDURE_SECRET_GET_VALUE, "xu", values, "b", &result, err)) {
            *ret_value = result.bytes;
        } else {
            rpc_values_free("b", &result);
            secret_id_free(TAKE(id));
        }
    }
    co_deadline_end(&deadline);
    stream_free(talk.stream);
    return id;
}

struct rpc_bytes *co_secret_daemon_get(const struct secret_daemon *daemon, const uint8_t *uuid, int type,
                                       const char *usage, struct pool_error **err)
{
    struct rpc_bytes *value = NULL;
    AUTO(secret_id) id = co_ask(daemon, uuid, type, usage, &value, err);

    assert(id || !value);
    return value;
}

struct secret_id *co_secret_daemon_find(const struct secret_daemon *daemon, int type, const char *usage,
                                        struct pool_error **err)
{
    return co_ask(daemon, NULL, type, usage, NULL, err);
}
