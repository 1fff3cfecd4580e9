/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls of administrators about the daemon as a whole. */
#include "pool/daemon.h"
#include "pool/log.h"
#include "pool/pool-error.h"
#include "pool/rpc/admin-calls.h"
#include "pool/rpc/client.h"

enum { INTERFACE_VERSION = 11 * 1000000 + 3 * 1000 }; /* of libvirt's that we follow: 11.3.0 */
enum { SHUTDOWN_PRESERVE = 1 };                       /* guests are preserved: there are none */

static struct pool_daemon *daemon_of(const struct rpc_call *call)
{
    return call->client->server->opaque;
}

bool co_admin_open(struct rpc_call *call, struct pool_error **err)
{
    return admin_check_flags(call->args[0].u, 0, "adminDispatchConnectOpen", err);
}

bool co_admin_close(struct rpc_call *call, struct pool_error **err)
{
    call->close = true;
    return true;
}

bool co_admin_get_lib_version(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].h = INTERFACE_VERSION;
    return true;
}

bool co_admin_get_outputs(struct rpc_call *call, struct pool_error **err)
{
    if (!admin_check_flags(call->args[0].u, 0, "adminConnectGetLoggingOutputs", err))
        return false;
    call->result[0].string = pool_log_get_outputs(&call->result[1].u);
    return true;
}

bool co_admin_get_filters(struct rpc_call *call, struct pool_error **err)
{
    if (!admin_check_flags(call->args[0].u, 0, "adminConnectGetLoggingFilters", err))
        return false;
    call->result[0].string = pool_log_get_filters(&call->result[1].u);
    if (!call->result[1].u)
        g_clear_pointer(&call->result[0].string, g_free);
    return true;
}

bool co_admin_set_outputs(struct rpc_call *call, struct pool_error **err)
{
    return admin_check_flags(call->args[1].u, 0, "adminConnectSetLoggingOutputs", err) &&
           pool_log_set_outputs(call->args[0].string, err);
}

bool co_admin_set_filters(struct rpc_call *call, struct pool_error **err)
{
    return admin_check_flags(call->args[1].u, 0, "adminConnectSetLoggingFilters", err) &&
           pool_log_set_filters(call->args[0].string, err);
}

bool co_admin_set_timeout(struct rpc_call *call, struct pool_error **err)
{
    if (!admin_check_flags(call->args[1].u, 0, "adminConnectSetDaemonTimeout", err))
        return false;
    daemon_of(call)->timeout_s = call->args[0].u;
    co_condition_broadcast(&daemon_of(call)->changed);
    return true;
}

bool co_admin_shutdown(struct rpc_call *call, struct pool_error **err)
{
    if (!admin_check_flags(call->args[0].u, SHUTDOWN_PRESERVE, "adminConnectDaemonShutdown", err))
        return false;
    pool_daemon_quit(daemon_of(call));
    return true;
}
