/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Handlers of the admin program. Private to this folder. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "pool/rpc/program.h"

struct pool_error;

/* admin-daemon.c */
bool CO_FN co_admin_open(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_admin_close(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_admin_get_lib_version(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_admin_get_outputs(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_admin_get_filters(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_admin_set_outputs(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_admin_set_filters(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_admin_set_timeout(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_admin_shutdown(struct rpc_call *call, struct pool_error **err);

/* admin-server.c */
bool CO_FN co_admin_list_servers(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_admin_lookup_server(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_admin_get_workers(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_admin_set_workers(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_admin_list_clients(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_admin_lookup_client(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_admin_get_client_info(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_admin_close_client(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_admin_get_client_limits(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_admin_set_client_limits(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_admin_update_tls(struct rpc_call *call, struct pool_error **err);

/* All flags of the program but one are still to be invented. `function` as clients know it. */
bool admin_check_flags(unsigned flags, unsigned allowed, const char *function, struct pool_error **err);
