/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/rpc/admin.h"

#include "pool/pool-error.h"
#include "pool/rpc/admin-calls.h"

/* clang-format off: a table is read by its columns */
static const struct rpc_procedure procedures[] = {
    {1, "virAdmConnectOpen", "u", "", co_admin_open, 0},
    {2, "virAdmConnectClose", "", "", co_admin_close, 0},
    {3, "virAdmConnectGetLibVersion", "", "h", co_admin_get_lib_version, 0},
    {4, "virAdmConnectListServers", "uu", "Su", co_admin_list_servers, 0},
    {5, "virAdmConnectLookupServer", "su", "s", co_admin_lookup_server, 0},
    {6, "virAdmServerGetThreadPoolParameters", "su", "t", co_admin_get_workers, 0},
    {7, "virAdmServerSetThreadPoolParameters", "stu", "", co_admin_set_workers, 0},
    {8, "virAdmServerListClients", "suu", "Ku", co_admin_list_clients, 0},
    {9, "virAdmServerLookupClient", "shu", "k", co_admin_lookup_client, 0},
    {10, "virAdmClientGetInfo", "ku", "t", co_admin_get_client_info, 0},
    {11, "virAdmClientClose", "ku", "", co_admin_close_client, 0},
    {12, "virAdmServerGetClientLimits", "su", "t", co_admin_get_client_limits, 0},
    {13, "virAdmServerSetClientLimits", "stu", "", co_admin_set_client_limits, 0},
    {14, "virAdmConnectGetLoggingOutputs", "u", "su", co_admin_get_outputs, 0},
    {15, "virAdmConnectGetLoggingFilters", "u", "nu", co_admin_get_filters, 0},
    {16, "virAdmConnectSetLoggingOutputs", "nu", "", co_admin_set_outputs, 0},
    {17, "virAdmConnectSetLoggingFilters", "nu", "", co_admin_set_filters, 0},
    {18, "virAdmServerUpdateTlsFiles", "su", "", co_admin_update_tls, 0},
    {19, "virAdmConnectSetDaemonTimeout", "uu", "", co_admin_set_timeout, 0},
    {20, "virAdmConnectDaemonShutdown", "u", "", co_admin_shutdown, 0},
};
/* clang-format on */

bool admin_check_flags(unsigned flags, unsigned allowed, const char *function, struct pool_error **err)
{
    if (pool_error_check_flags(err, flags, allowed, function))
        return true;
    if (err)
        (*err)->domain = POOL_DOMAIN_ADMIN;
    return false;
}

const struct rpc_program admin_program = {
    .number = RPC_PROGRAM_ADMIN,
    .procedures = procedures,
    .count = G_N_ELEMENTS(procedures),
};
