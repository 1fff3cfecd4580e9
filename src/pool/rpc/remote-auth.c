/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Saying who one is: the system tells us, and polkit whether that is enough. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "loop/file.h"
#include "pool/backend/command.h"
#include "pool/log.h"
#include "pool/pool-error.h"
#include "pool/rpc/client.h"
#include "pool/rpc/remote.h"

enum { STAT_MAX = 4096, STAT_START_FIELD = 22 };

/* How polkit's own command ends. */
enum { POLKIT_YES = 0, POLKIT_NO = 1, POLKIT_NO_AGENT = 2, POLKIT_DISMISSED = 3 };

bool co_remote_auth_list(struct rpc_call *call, struct pool_error **err)
{
    struct rpc_client *client = call->client;
    enum rpc_auth auth = client->auth;

    if (auth == RPC_AUTH_POLKIT && (client->peer.uid == 0 || client->authenticated)) {
        auth = RPC_AUTH_NONE;
        rpc_client_set_authenticated(client);
    }
    call->result[0].ints = g_new0(struct rpc_ints, 1);
    call->result[0].ints->count = 1;
    call->result[0].ints->values[0] = auth;
    return true;
}

/* No socket of ours is configured for it, and no build knows how. */
bool co_remote_auth_sasl(struct rpc_call *call, struct pool_error **err)
{
    return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_AUTH_FAILED, "authentication failed");
}

/* What libvirt's daemons say where they have nothing to say. */
static bool no_reason(struct pool_error **err)
{
    struct pool_error *error = g_new0(struct pool_error, 1);

    error->code = POOL_ERROR_INTERNAL;
    error->domain = POOL_DOMAIN_RPC;
    error->message = g_strdup("Library function returned error but did not set virError");
    return pool_error_move(err, error);
}

/* When the process began, in the kernel's ticks: with its number, that names it beyond doubt. 0: it is gone. */
static uint64_t CO_FN co_process_start(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", (int)pid);
    g_autofree char *text = NULL;
    size_t size;
    const char *at;

    if (!co_file_load(path, STAT_MAX, &text, &size, NULL))
        return 0;
    at = strrchr(text, ')'); /* after the name, which may hold anything; the field after it is the third */
    for (int field = 2; at && field < STAT_START_FIELD; field++)
        at = strchr(at + 1, ' ');
    return at ? g_ascii_strtoull(at + 1, NULL, 10) : 0;
}

static bool refused(int status, struct pool_error **err)
{
    switch (status) {
    case POLKIT_DISMISSED:
        return pool_error_set_domain(err, POOL_DOMAIN_POLKIT, POOL_ERROR_AUTH_CANCELLED,
                                     "user cancelled authentication process");
    case POLKIT_NO_AGENT:
        return pool_error_set_domain(err, POOL_DOMAIN_POLKIT, POOL_ERROR_AUTH_UNAVAILABLE,
                                     "no polkit agent available to authenticate action 'org.libvirt.unix.manage'");
    default:
        return pool_error_set_domain(err, POOL_DOMAIN_POLKIT, POOL_ERROR_AUTH_FAILED, "access denied by policy");
    }
}

bool co_remote_auth_polkit(struct rpc_call *call, struct pool_error **err)
{
    struct rpc_client *client = call->client;
    const char *action = client->read_only ? "org.libvirt.unix.monitor" : "org.libvirt.unix.manage";
    struct command_result result = {0};
    bool ok;

    if (client->auth != RPC_AUTH_POLKIT)
        return no_reason(err);
    uint64_t start = co_process_start(client->peer.pid);
    if (!start)
        return refused(POLKIT_NO, err);

    g_autofree char *process =
        g_strdup_printf("%d,%" PRIu64 ",%u", (int)client->peer.pid, start, (unsigned)client->peer.uid);
    const char *const argv[] = {"pkcheck", "--action-id", action, "--process", process, "--allow-user-interaction",
                                NULL};
    ok = co_command_try(argv, &result, err);
    if (ok && result.status != POLKIT_YES)
        ok = refused(result.status, err);
    command_result_clear(&result);
    if (!ok)
        return false;
    rpc_client_set_authenticated(client);
    pool_log_info("rpc.auth", "client %" PRIu64 ", user %u: %s granted", client->id, (unsigned)client->peer.uid,
                  action);
    call->result[0].i = 1;
    return true;
}
