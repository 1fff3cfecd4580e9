/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Saying who one is: the system tells us, and polkit whether that is enough. */
#include <inttypes.h>

#include "pool/daemon.h"
#include "pool/log.h"
#include "pool/polkit.h"
#include "pool/pool-error.h"
#include "pool/rpc/client.h"
#include "pool/rpc/remote.h"

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

/* What libvirt's daemons say where they have nothing to say. */
static bool no_reason(struct pool_error **err)
{
    struct pool_error *error = g_new0(struct pool_error, 1);

    error->code = POOL_ERROR_INTERNAL;
    error->domain = POOL_DOMAIN_RPC;
    error->message = g_strdup("Library function returned error but did not set virError");
    return pool_error_move(err, error);
}

static bool refused(enum polkit_answer answer, const char *action, struct pool_error **err)
{
    switch (answer) {
    case POLKIT_DISMISSED:
        return pool_error_set_domain(err, POOL_DOMAIN_POLKIT, POOL_ERROR_AUTH_CANCELLED,
                                     "user cancelled authentication process");
    case POLKIT_NO_AGENT:
        return pool_error_set_domain(err, POOL_DOMAIN_POLKIT, POOL_ERROR_AUTH_UNAVAILABLE,
                                     "no polkit agent available to authenticate action '%s'", action);
    default:
        return pool_error_set_domain(err, POOL_DOMAIN_POLKIT, POOL_ERROR_AUTH_FAILED, "access denied by policy");
    }
}

bool co_remote_auth_polkit(struct rpc_call *call, struct pool_error **err)
{
    struct rpc_client *client = call->client;
    const char *action = client->read_only ? "org.libvirt.unix.monitor" : "org.libvirt.unix.manage";
    const struct polkit_subject subject = {client->peer.pid, client->peer.start, client->peer.uid};
    struct remote_session *session = remote_session(call);
    const struct polkit_question question = {.subject = &subject, .action = action, .interactive = true};
    enum polkit_answer answer = POLKIT_DENIED;
    bool ok = true;

    if (client->auth != RPC_AUTH_POLKIT)
        return no_reason(err);
    /* A person cannot answer two at a time. */
    if (session->asks_polkit)
        return pool_error_set_domain(err, POOL_DOMAIN_POLKIT, POOL_ERROR_AUTH_FAILED,
                                     "polkit is being asked about '%s' already", action);
    session->asks_polkit = true;
    if (subject.start)
        ok = co_polkit_ask(remote_daemon(call)->polkit, &question, &answer, err);
    session->asks_polkit = false;
    if (!ok)
        return false;
    if (answer != POLKIT_GRANTED)
        return refused(answer, action, err);
    rpc_client_set_authenticated(client);
    pool_log_info("rpc.auth", "client %" PRIu64 ", user %u: %s granted", client->id, (unsigned)client->peer.uid,
                  action);
    call->result[0].i = 1;
    return true;
}
