/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls of administrators about servers and their clients. */
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <string.h>

#include "loop/loop.h"
#include "pool/daemon.h"
#include "pool/pool-error.h"
#include "pool/rpc/admin-calls.h"
#include "pool/rpc/client.h"
#include "pool/rpc/typed-params.h"

static struct pool_daemon *daemon_of(const struct rpc_call *call)
{
    return call->client->server->opaque;
}

static struct rpc_server *find_server(const struct rpc_call *call, const char *name)
{
    struct pool_daemon *daemon = daemon_of(call);

    if (!strcmp(daemon->main->name, name))
        return daemon->main;
    return !strcmp(daemon->admin->name, name) ? daemon->admin : NULL;
}

static struct rpc_server *must_find_server(const struct rpc_call *call, const char *name, struct pool_error **err)
{
    struct rpc_server *server = find_server(call, name);

    if (!server)
        pool_error_set_domain(err, POOL_DOMAIN_ADMIN, POOL_ERROR_NO_SERVER, "no server with matching name '%s' found",
                              name);
    return server;
}

bool co_admin_list_servers(struct rpc_call *call, struct pool_error **err)
{
    struct pool_daemon *daemon = daemon_of(call);

    if (!admin_check_flags(call->args[1].u, 0, "adminConnectListServers", err))
        return false;
    call->result[1].u = 2;
    if (!call->args[0].u)
        return true;
    call->result[0].strings = g_ptr_array_new_with_free_func(g_free);
    g_ptr_array_add(call->result[0].strings, g_strdup(daemon->admin->name));
    g_ptr_array_add(call->result[0].strings, g_strdup(daemon->main->name));
    return true;
}

bool co_admin_lookup_server(struct rpc_call *call, struct pool_error **err)
{
    const char *name = call->args[0].string;

    if (!admin_check_flags(call->args[1].u, 0, "adminConnectLookupServer", err))
        return false;
    if (!find_server(call, name))
        return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_NO_SERVER, "No server named '%s'", name);
    call->result[0].string = g_strdup(name);
    return true;
}

/* --- workers --- */

bool co_admin_get_workers(struct rpc_call *call, struct pool_error **err)
{
    const struct rpc_workers *workers;
    struct rpc_server *server;
    unsigned busy;

    if (!admin_check_flags(call->args[1].u, 0, "adminServerGetThreadPoolParameters", err))
        return false;
    server = must_find_server(call, call->args[0].string, err);
    if (!server)
        return false;
    workers = &server->workers;
    busy = MIN(workers->busy, workers->current);
    call->result[0].params = typed_params_new();
    typed_params_add_uint(call->result[0].params, "minWorkers", workers->min);
    typed_params_add_uint(call->result[0].params, "maxWorkers", workers->max);
    typed_params_add_uint(call->result[0].params, "nWorkers", workers->current);
    typed_params_add_uint(call->result[0].params, "freeWorkers", workers->current - busy);
    typed_params_add_uint(call->result[0].params, "prioWorkers", workers->priority_max);
    typed_params_add_uint(call->result[0].params, "jobQueueDepth", workers->queued);
    return true;
}

static unsigned number_or(const struct typed_params *params, const char *name, unsigned otherwise)
{
    const struct typed_param *param = typed_params_find(params, name);

    return param ? (unsigned)param->number : otherwise;
}

static bool set_workers(struct rpc_workers *workers, const struct typed_params *params, struct pool_error **err)
{
    static const struct typed_param_rule rules[] = {
        {"minWorkers", TYPED_PARAM_UINT},
        {"maxWorkers", TYPED_PARAM_UINT},
        {"prioWorkers", TYPED_PARAM_UINT},
        {NULL, TYPED_PARAM_UINT},
    };
    unsigned min;
    unsigned max;

    if (!typed_params_check(params, rules, err))
        return false;
    min = number_or(params, "minWorkers", workers->min);
    max = number_or(params, "maxWorkers", workers->max);
    if (min > max)
        return pool_error_set_domain(err, POOL_DOMAIN_NONE, POOL_ERROR_INVALID_ARG,
                                     "minWorkers cannot be larger than maxWorkers");
    if (!max)
        return pool_error_set_domain(err, POOL_DOMAIN_NONE, POOL_ERROR_INVALID_ARG,
                                     "maxWorkers must not be switched from zero to non-zero and vice versa");
    rpc_workers_configure(workers, min, max, number_or(params, "prioWorkers", workers->priority_max));
    return true;
}

bool co_admin_set_workers(struct rpc_call *call, struct pool_error **err)
{
    struct rpc_server *server;

    if (!admin_check_flags(call->args[2].u, 0, "adminServerSetThreadPoolParameters", err))
        return false;
    server = must_find_server(call, call->args[0].string, err);
    return server && set_workers(&server->workers, call->args[1].params, err);
}

/* --- clients --- */

static struct admin_client_id *id_of(const struct rpc_client *client)
{
    struct admin_client_id *id = g_new0(struct admin_client_id, 1);

    id->server = g_strdup(client->server->name);
    id->id = client->id;
    id->since_s = (uint64_t)client->since_s;
    return id;
}

static void free_id(void *id)
{
    admin_client_id_free(id);
}

bool co_admin_list_clients(struct rpc_call *call, struct pool_error **err)
{
    struct rpc_server *server;

    if (!admin_check_flags(call->args[2].u, 0, "adminServerListClients", err))
        return false;
    server = must_find_server(call, call->args[0].string, err);
    if (!server)
        return false;
    call->result[1].u = server->clients->len;
    if (!call->args[1].u)
        return true;
    if (server->clients->len > STORAGE_LIST_MAX)
        return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_INTERNAL, "Too many clients '%u' for limit '%d'",
                                     server->clients->len, STORAGE_LIST_MAX);
    call->result[0].clients = g_ptr_array_new_with_free_func(free_id);
    for (guint i = 0; i < server->clients->len; i++)
        g_ptr_array_add(call->result[0].clients, id_of(server->clients->pdata[i]));
    return true;
}

bool co_admin_lookup_client(struct rpc_call *call, struct pool_error **err)
{
    const struct rpc_client *client;
    struct rpc_server *server;

    if (!admin_check_flags(call->args[2].u, 0, "adminServerLookupClient", err))
        return false;
    server = must_find_server(call, call->args[0].string, err);
    if (!server)
        return false;
    client = rpc_server_find_client(server, call->args[1].h);
    if (!client)
        return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_NO_CLIENT,
                                     "No client with matching ID '%" PRIu64 "'", call->args[1].h);
    call->result[0].client = id_of(client);
    return true;
}

/* The client that a former answer named. */
static struct rpc_client *must_find_client(const struct rpc_call *call, struct pool_error **err)
{
    const struct admin_client_id *id = call->args[0].client;
    struct rpc_server *server = must_find_server(call, id->server, err);
    struct rpc_client *client = server ? rpc_server_find_client(server, id->id) : NULL;

    if (server && !client)
        pool_error_set_domain(err, POOL_DOMAIN_ADMIN, POOL_ERROR_NO_CLIENT,
                              "no client with matching id '%" PRIu64 "' found", id->id);
    return client;
}

/* Names of users and groups may come from far away. */
struct name_query {
    uid_t uid;
    gid_t gid;
    char *user, *group; /* NULL: without a name */
};

static int look_up_names(void *opaque)
{
    struct name_query *query = opaque;
    char space[8192];
    struct passwd user;
    struct passwd *found_user = NULL;
    struct group group;
    struct group *found_group = NULL;

    if (!getpwuid_r(query->uid, &user, space, sizeof(space), &found_user) && found_user)
        query->user = g_strdup(user.pw_name);
    if (!getgrgid_r(query->gid, &group, space, sizeof(space), &found_group) && found_group)
        query->group = g_strdup(group.gr_name);
    return 0;
}

static void add_name(struct typed_params *params, const char *name, char *text, unsigned number)
{
    g_autofree char *digits = text ? NULL : g_strdup_printf("%u", number);

    typed_params_add_string(params, name, text ? text : digits);
    g_free(text);
}

/* In libvirt's order, by which virt-admin shows them. */
bool co_admin_get_client_info(struct rpc_call *call, struct pool_error **err)
{
    const struct rpc_client *client;
    struct typed_params *params;
    g_autofree char *sasl_user = NULL;
    g_autofree char *selinux = NULL;
    struct name_query query;
    struct rpc_peer peer;

    if (!admin_check_flags(call->args[1].u, 0, "adminClientGetInfo", err))
        return false;
    client = must_find_client(call, err);
    if (!client)
        return false;
    peer = client->peer;
    sasl_user = g_strdup(client->sasl_user);
    selinux = g_strdup(peer.selinux);
    params = call->result[0].params = typed_params_new();
    typed_params_add_boolean(params, "readonly", client->read_only);
    typed_params_add_int(params, "unix_user_id", (int32_t)peer.uid);

    /* The client may be gone after this. */
    query = (struct name_query){.uid = peer.uid, .gid = peer.gid};
    (void)co_worker_run(look_up_names, &query);
    add_name(params, "unix_user_name", query.user, peer.uid);
    typed_params_add_int(params, "unix_group_id", (int32_t)peer.gid);
    add_name(params, "unix_group_name", query.group, peer.gid);
    typed_params_add_int(params, "unix_process_id", peer.pid);
    if (sasl_user)
        typed_params_add_string(params, "sasl_user_name", sasl_user);
    if (selinux)
        typed_params_add_string(params, "selinux_context", selinux);
    return true;
}

bool co_admin_close_client(struct rpc_call *call, struct pool_error **err)
{
    struct rpc_client *client;

    if (!admin_check_flags(call->args[1].u, 0, "adminClientClose", err))
        return false;
    client = must_find_client(call, err);
    if (!client)
        return false;
    if (client == call->client)
        call->close = true; /* with the reply */
    else
        rpc_client_drop(client);
    return true;
}

/* --- limits --- */

bool co_admin_get_client_limits(struct rpc_call *call, struct pool_error **err)
{
    struct rpc_server *server;

    if (!admin_check_flags(call->args[1].u, 0, "adminServerGetClientLimits", err))
        return false;
    server = must_find_server(call, call->args[0].string, err);
    if (!server)
        return false;
    call->result[0].params = typed_params_new();
    typed_params_add_uint(call->result[0].params, "nclients_max", server->clients_max);
    typed_params_add_uint(call->result[0].params, "nclients", server->clients->len);
    typed_params_add_uint(call->result[0].params, "nclients_unauth_max", server->anonymous_max);
    typed_params_add_uint(call->result[0].params, "nclients_unauth", server->anonymous);
    return true;
}

bool co_admin_set_client_limits(struct rpc_call *call, struct pool_error **err)
{
    static const struct typed_param_rule rules[] = {
        {"nclients_max", TYPED_PARAM_UINT},
        {"nclients_unauth_max", TYPED_PARAM_UINT},
        {NULL, TYPED_PARAM_UINT},
    };
    const struct typed_params *params = call->args[1].params;
    struct rpc_server *server;

    if (!admin_check_flags(call->args[2].u, 0, "adminServerSetClientLimits", err))
        return false;
    server = must_find_server(call, call->args[0].string, err);
    if (!server || !typed_params_check(params, rules, err))
        return false;
    return rpc_server_set_client_limits(server, number_or(params, "nclients_max", server->clients_max),
                                        number_or(params, "nclients_unauth_max", server->anonymous_max), err);
}

bool co_admin_update_tls(struct rpc_call *call, struct pool_error **err)
{
    if (!admin_check_flags(call->args[1].u, 0, "adminServerUpdateTlsFiles", err))
        return false;
    if (!must_find_server(call, call->args[0].string, err))
        return false;
    return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_INTERNAL,
                                 "no tls service found, unable to update tls files");
}
