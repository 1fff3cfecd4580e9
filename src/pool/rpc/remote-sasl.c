/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Saying who one is by SASL: the client asks which mechanisms there are, begins with one, and goes on until one side
 * has enough. A client that fails begins anew, and is told no reason; the log is.
 */
#include "pool/rpc/remote-sasl.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "loop/loop.h"
#include "pool/daemon.h"
#include "pool/log.h"
#include "pool/pool-error.h"
#include "pool/rpc/client.h"
#include "pool/rpc/remote.h"
#include "pool/sasl-module.h"

enum { PROCEDURE_START = 68 };

struct remote_sasl {
    const struct sasl_module *module;
    void *session;
    bool begun; /* a mechanism has been chosen: the library must not be asked to go on without one */
    bool busy;  /* a worker uses it */
};

void remote_sasl_free(struct remote_sasl *sasl)
{
    if (!sasl)
        return;
    if (sasl->session)
        sasl->module->session_free(sasl->session);
    g_free(sasl);
}

static bool failed(const struct rpc_call *call, const char *reason, struct pool_error **err)
{
    pool_log_error("rpc.auth", "client %" PRIu64 ", user %u: SASL: %s", call->client->id,
                   (unsigned)call->client->peer.uid, reason ? reason : "no reason given");
    return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_AUTH_FAILED, "authentication failed");
}

/* --- beginning --- */

struct beginning {
    struct remote_sasl *sasl;
    char *mechanisms;
    char *message;
    struct error *error; /* of loading the module */
};

static int begin(void *opaque)
{
    struct beginning *beginning = opaque;
    struct remote_sasl *sasl = beginning->sasl;

    sasl->module =
        (const struct sasl_module *)module_table("sasl", "ashlar_sasl_module", "libsasl2-2", &beginning->error);
    if (sasl->module)
        sasl->session = sasl->module->session_new(&beginning->message);
    if (sasl->session)
        beginning->mechanisms = sasl->module->mechanisms(sasl->session, &beginning->message);
    return 0;
}

bool co_remote_sasl_init(struct rpc_call *call, struct pool_error **err)
{
    struct remote_session *session = remote_session(call);
    struct beginning beginning = {0};
    bool ok;

    if (call->client->auth != RPC_AUTH_SASL || call->client->authenticated || session->sasl)
        return failed(call, "asked for where it is not wanted", err);
    session->sasl = beginning.sasl = g_new0(struct remote_sasl, 1);
    session->sasl->busy = true;
    (void)co_worker_run(begin, &beginning);
    session->sasl->busy = false;
    ok = beginning.mechanisms;
    if (ok) {
        call->result[0].string = beginning.mechanisms;
    } else {
        remote_sasl_free(TAKE(session->sasl));
        failed(call, beginning.error ? error_message(beginning.error) : beginning.message, err);
    }
    error_free(beginning.error);
    g_free(beginning.message);
    return ok;
}

/* --- going on --- */

struct step {
    struct remote_sasl *sasl;
    struct sasl_exchange exchange;
    enum sasl_outcome outcome;
    char *user;
    char *message;
};

static int go_on(void *opaque)
{
    struct step *step = opaque;
    const struct remote_sasl *sasl = step->sasl;

    step->outcome = sasl->module->exchange(sasl->session, &step->exchange, &step->message);
    if (step->outcome == SASL_OUTCOME_COMPLETE)
        step->user = sasl->module->user(sasl->session);
    return 0;
}

/* Without a list everybody who has authenticated may. */
static bool is_allowed(const struct pool_daemon *daemon, const char *user)
{
    if (!daemon->sasl_users)
        return true;
    for (char **pattern = daemon->sasl_users; *pattern; pattern++) {
        if (!fnmatch(*pattern, user, 0))
            return true;
    }
    return false;
}

static bool complete(struct rpc_call *call, struct step *step, struct pool_error **err)
{
    struct rpc_client *client = call->client;

    if (!step->user)
        return failed(call, "the user has no name", err);
    if (!is_allowed(remote_daemon(call), step->user)) {
        g_autofree char *reason = g_strdup_printf("user '%s' is not in sasl_allowed_username_list", step->user);

        return failed(call, reason, err);
    }
    client->sasl_user = TAKE(step->user);
    rpc_client_set_authenticated(client);
    pool_log_info("rpc.auth", "client %" PRIu64 " is user '%s' by SASL", client->id, client->sasl_user);
    return true;
}

bool co_remote_sasl_step(struct rpc_call *call, struct pool_error **err)
{
    struct remote_session *session = remote_session(call);
    bool start = call->procedure->number == PROCEDURE_START;
    const union rpc_value *args = start ? call->args + 1 : call->args;
    struct step step = {.sasl = session->sasl};
    bool ok;

    if (call->client->auth != RPC_AUTH_SASL || !step.sasl || step.sasl->busy || step.sasl->begun == start)
        return failed(call, "a step that nothing goes before, or a second beginning", err);
    step.sasl->begun = true;
    step.exchange.mechanism = start ? call->args[0].string : NULL;
    if (!args[0].i) {
        step.exchange.input = args[1].bytes->data ? (const void *)args[1].bytes->data : "";
        step.exchange.input_size = args[1].bytes->size;
    }
    step.sasl->busy = true;
    (void)co_worker_run(go_on, &step);
    step.sasl->busy = false;
    ok = step.outcome == SASL_OUTCOME_COMPLETE    ? complete(call, &step, err)
         : step.outcome == SASL_OUTCOME_CONTINUES ? true
                                                  : failed(call, step.message, err);
    if (ok) {
        call->result[0].i = step.outcome == SASL_OUTCOME_COMPLETE;
        call->result[1].i = !step.exchange.output;
        call->result[2].bytes = rpc_bytes_new(step.exchange.output, step.exchange.output_size);
    }
    if (!ok || call->result[0].i)
        remote_sasl_free(TAKE(session->sasl));
    g_free(step.user);
    g_free(step.message);
    return ok;
}
