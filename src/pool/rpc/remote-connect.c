/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls about the connection itself. */
#include <inttypes.h>
#include <string.h>

#include "pool/daemon.h"
#include "pool/log.h"
#include "pool/pool-error.h"
#include "pool/rpc/client.h"
#include "pool/rpc/remote.h"
#include "pool/rpc/typed-params.h"
#include "pool/secrets.h"
#include "pool/storage.h"

enum { OPEN_READ_ONLY = 1 }; /* a flag of CONNECT_OPEN */
enum { URI_MAX = 64 << 10 }; /* it is kept for as long as the connection */
enum { IDENTITY_PARAMS_MAX = 20 };
enum { INTERFACE_VERSION = 11 * 1000000 + 3 * 1000 }; /* of libvirt's that we follow: 11.3.0 */

/* Of CONNECT_SUPPORTS_FEATURE. */
enum {
    FEATURE_DESCRIPTORS = 8,
    FEATURE_KEEPALIVE = 10,
    FEATURE_EVENT_CALLBACKS = 14,
    FEATURE_CLOSE_CALLBACK = 15,
};

static bool no_driver(const char *detail, struct pool_error **err)
{
    return pool_error_set_domain(err, POOL_DOMAIN_NONE, POOL_ERROR_NO_CONNECT, "%s", detail);
}

/* Whether `text` has only what RFC 3986 lets stand in a URI: other characters are to be written as %XX. */
static bool is_uri(const char *text)
{
    static const char marks[] = "-._~:/?#[]@!$&'()*+,;=";

    if (*text == ':' || strlen(text) > URI_MAX)
        return false;
    for (; *text; text++) {
        if (*text == '%' ? !g_ascii_isxdigit(text[1]) || !g_ascii_isxdigit(text[2])
                         : !g_ascii_isalnum(*text) && !strchr(marks, *text))
            return false;
    }
    return true;
}

/* Which driver serves connections to `uri`; the path of the URI has to be that of this daemon. */
static bool choose_driver(const struct rpc_call *call, const char *uri, enum remote_driver *ret,
                          struct pool_error **err)
{
    bool privileged = remote_daemon(call)->privileged;
    g_autofree char *scheme = g_uri_parse_scheme(uri);
    const char *own_path = privileged ? "/system" : "/session";
    g_autoptr(GUri) parsed = NULL;

    if (!is_uri(uri))
        return pool_error_set_domain(err, POOL_DOMAIN_URI, POOL_ERROR_INTERNAL, "Unable to parse URI %s", uri);
    if (!scheme) {
        g_autofree char *detail = g_strdup_printf("URI '%s' does not include a driver name", uri);
        return no_driver(detail, err);
    }
    if (g_str_has_suffix(scheme, "+unix"))
        scheme[strlen(scheme) - strlen("+unix")] = 0;
    if (!strcmp(scheme, "storage"))
        *ret = REMOTE_STORAGE;
    else if (!strcmp(scheme, "secret") && pool_secrets_are_own(remote_secrets(call)))
        *ret = REMOTE_SECRET;
    else
        return no_driver(uri, err);

    parsed = g_uri_parse(uri, G_URI_FLAGS_NON_DNS, NULL);
    if (!parsed)
        return pool_error_set_domain(err, POOL_DOMAIN_URI, POOL_ERROR_INTERNAL, "Unable to parse URI %s", uri);
    if (g_uri_get_host(parsed) && *g_uri_get_host(parsed))
        return no_driver(uri, err);
    if (strcmp(g_uri_get_path(parsed), own_path) != 0)
        return pool_error_set_domain(err, POOL_DOMAIN_NONE, POOL_ERROR_INTERNAL,
                                     "unexpected %s URI path '%s', try %s://%s", scheme, g_uri_get_path(parsed), scheme,
                                     own_path);
    return true;
}

bool co_remote_open(struct rpc_call *call, struct pool_error **err)
{
    struct remote_session *session = remote_session(call);
    const char *uri = call->args[0].string;
    enum remote_driver driver = REMOTE_NOT_OPEN;

    if (session->driver != REMOTE_NOT_OPEN)
        return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_INTERNAL, "connection already open");
    if (!uri || !*uri)
        return no_driver("<null>", err);
    if (!choose_driver(call, uri, &driver, err))
        return false;
    session->driver = driver;
    session->uri = g_strdup(uri);
    if (call->args[1].u & OPEN_READ_ONLY)
        call->client->read_only = true;
    return true;
}

bool co_remote_close(struct rpc_call *call, struct pool_error **err)
{
    call->close = true;
    return true;
}

bool co_remote_get_type(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].string = g_strdup(remote_session(call)->driver == REMOTE_SECRET ? "secret" : "storage");
    return true;
}

bool co_remote_get_capabilities(struct rpc_call *call, struct pool_error **err)
{
    if (remote_session(call)->driver != REMOTE_STORAGE)
        return pool_error_set_domain(err, POOL_DOMAIN_DOMAIN, POOL_ERROR_NO_SUPPORT, "virConnectGetCapabilities");
    call->result[0].string = storage_capabilities(remote_storage(call));
    return true;
}

bool co_remote_supports_feature(struct rpc_call *call, struct pool_error **err)
{
    switch (call->args[0].i) {
    case FEATURE_KEEPALIVE:
        rpc_client_start_pinging(call->client);
        call->result[0].i = 1;
        return true;
    case FEATURE_DESCRIPTORS:
    case FEATURE_EVENT_CALLBACKS:
    case FEATURE_CLOSE_CALLBACK:
        call->result[0].i = 1;
        break;
    default:
        call->result[0].i = 0;
        break;
    }
    if (remote_session(call)->driver == REMOTE_NOT_OPEN)
        return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_INTERNAL, "hypervisor connection not open");
    return true;
}

bool co_remote_get_uri(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].string = g_strdup(remote_session(call)->uri);
    return true;
}

/* Nobody but the system is between us. */
bool co_remote_is_secure(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].i = 1;
    return true;
}

bool co_remote_get_lib_version(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].h = INTERFACE_VERSION;
    return true;
}

/* There is no connection behind ours that could close. */
bool co_remote_close_callback(struct rpc_call *call, struct pool_error **err)
{
    return true;
}

/*
 * Daemons that forward calls tell for whom. Where no access driver is in use, whoever may connect here may do the
 * same in person, so that it changes nothing but the log.
 */
bool co_remote_set_identity(struct rpc_call *call, struct pool_error **err)
{
    static const struct typed_param_rule rules[] = {
        {"user-name", TYPED_PARAM_STRING},
        {"unix-user-id", TYPED_PARAM_ULLONG},
        {"group-name", TYPED_PARAM_STRING},
        {"unix-group-id", TYPED_PARAM_ULLONG},
        {"process-id", TYPED_PARAM_LLONG},
        {"process-time", TYPED_PARAM_ULLONG},
        {"sasl-user-name", TYPED_PARAM_STRING},
        {"x509-distinguished-name", TYPED_PARAM_STRING},
        {"selinux-context", TYPED_PARAM_STRING},
        {"system.token", TYPED_PARAM_STRING},
        {NULL, TYPED_PARAM_STRING},
    };
    const struct typed_param *name;

    if (call->args[0].params->count > IDENTITY_PARAMS_MAX)
        return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_RPC, "Unable to decode message payload");
    if (!typed_params_check(call->args[0].params, rules, err))
        return false;
    name = typed_params_find(call->args[0].params, "user-name");
    if (name)
        pool_log_debug("rpc.remote", "client %" PRIu64 " speaks for user %s", call->client->id, name->string);
    return co_remote_access_identify(call, err);
}

bool co_remote_pool_capabilities(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].string = storage_pool_capabilities(remote_storage(call), call->args[0].u, err);
    return call->result[0].string;
}
