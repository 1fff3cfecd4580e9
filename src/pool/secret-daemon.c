/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/secret-daemon.h"

#include <assert.h>
#include <string.h>
#include <unistd.h>

#include "base/units.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "pool/pool-error.h"
#include "pool/rpc/caller.h"
#include "pool/rpc/typed-params.h"
#include "pool/rpc/value.h"

enum { TOKEN_MAX = 256 };

/* Of the remote program. */
enum {
    PROCEDURE_SECRET_BY_UUID = 141,
    PROCEDURE_SECRET_GET_VALUE = 145,
    PROCEDURE_SECRET_BY_USAGE = 147,
    PROCEDURE_SET_IDENTITY = 419,
};

/* Longer than any answer should take, so that a daemon that hangs does not hang us. */
static const int64_t patience_ns = 30 * NS_PER_S;

/* Tells for whom we ask: a daemon of the system. */
static bool CO_FN co_identify(struct rpc_caller *caller, const struct secret_daemon *daemon, struct pool_error **err)
{
    AUTO(typed_params) params = typed_params_new();
    g_autofree char *token = NULL;
    size_t size;

    if (!daemon->token_path || !co_file_load(daemon->token_path, TOKEN_MAX, &token, &size, NULL))
        return true; /* then private secrets stay private */
    typed_params_add_ullong(params, "unix-user-id", geteuid());
    typed_params_add_ullong(params, "unix-group-id", getegid());
    typed_params_add_llong(params, "process-id", getpid());
    typed_params_add_string(params, "system.token", g_strchomp(token));

    union rpc_value values[] = {{.params = params}, {.u = 0}};
    return co_rpc_call(caller, PROCEDURE_SET_IDENTITY, values, NULL, err);
}

static struct rpc_caller *CO_FN co_begin(const struct secret_daemon *daemon, struct pool_error **err)
{
    const struct rpc_caller_options options = {
        .socket = daemon->socket, .peer = "the secret daemon", .driver = "secret", .session = !daemon->privileged};
    AUTO(rpc_caller) caller = co_rpc_caller_new(&options, err);

    return caller && co_identify(caller, daemon, err) ? TAKE(caller) : NULL;
}

static struct secret_id *CO_FN co_look_up(struct rpc_caller *caller, const uint8_t *uuid, int type, const char *usage,
                                          struct pool_error **err)
{
    union rpc_value values[2] = {0};
    union rpc_value result = {0};
    bool ok;

    if (uuid) {
        memcpy(values[0].uuid, uuid, sizeof(values[0].uuid));
        ok = co_rpc_call(caller, PROCEDURE_SECRET_BY_UUID, values, &result, err);
    } else {
        values[0].i = type;
        values[1].string = (char *)(uintptr_t)usage;
        ok = co_rpc_call(caller, PROCEDURE_SECRET_BY_USAGE, values, &result, err);
    }
    return ok ? result.secret : NULL;
}

/* The secret, and its value where that is wanted. */
static struct secret_id *CO_FN co_ask(const struct secret_daemon *daemon, const uint8_t *uuid, int type,
                                      const char *usage, struct rpc_bytes **ret_value, struct pool_error **err)
{
    AUTO(rpc_caller) caller = NULL;
    struct secret_id *id = NULL;
    struct co_deadline deadline;

    co_deadline_begin(&deadline, patience_ns);
    caller = co_begin(daemon, err);
    if (caller)
        id = co_look_up(caller, uuid, type, usage, err);
    if (id && ret_value) {
        union rpc_value values[] = {{.secret = id}, {.u = 0}};
        union rpc_value result = {0};

        if (co_rpc_call(caller, PROCEDURE_SECRET_GET_VALUE, values, &result, err))
            *ret_value = result.bytes;
        else
            secret_id_free(TAKE(id));
    }
    co_deadline_end(&deadline);
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
