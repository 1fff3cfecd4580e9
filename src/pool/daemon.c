/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/daemon.h"

#include <errno.h>
#include <glib.h>
#include <grp.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/units.h"
#include "block/graph.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "loop/process.h"
#include "loop/socket.h"
#include "object/object.h"
#include "pool/backend/command.h"
#include "pool/config.h"
#include "pool/log.h"
#include "pool/paths.h"
#include "pool/polkit.h"
#include "pool/pool-error.h"
#include "pool/replace-file.h"
#include "pool/rpc/admin.h"
#include "pool/rpc/remote-events.h"
#include "pool/rpc/remote.h"
#include "pool/rpc/server.h"
#include "pool/secrets.h"
#include "pool/storage.h"

enum { TOKEN_BYTES = 16 };

/* What other programs still have when the daemon is to end. */
enum { PROGRAMS_GRACE_MS = 1500 };

/* Somebody may have to find a password, but a few who never do must not keep everybody else out. */
enum { ANONYMOUS_S = 120 };

static const char *const socket_files[POOL_SOCKET__MAX] = {
    [POOL_SOCKET_MAIN] = "virtstoraged-sock",
    [POOL_SOCKET_READ_ONLY] = "virtstoraged-sock-ro",
    [POOL_SOCKET_ADMIN] = "virtstoraged-admin-sock",
};

/* --- how clients are let in --- */

/* What libvirt's daemons take where the file says nothing: polkit, if we are root and it is there. */
static enum rpc_auth auth_of(const struct pool_daemon_options *options, const char *text)
{
    if (text)
        return !strcmp(text, "polkit") ? RPC_AUTH_POLKIT : !strcmp(text, "sasl") ? RPC_AUTH_SASL : RPC_AUTH_NONE;
    return options->privileged && command_exists("pkcheck") ? RPC_AUTH_POLKIT : RPC_AUTH_NONE;
}

static enum rpc_auth socket_auth(const struct pool_daemon_options *options, enum pool_socket which)
{
    switch (which) {
    case POOL_SOCKET_MAIN:
        return auth_of(options, options->config->auth_unix_rw);
    case POOL_SOCKET_READ_ONLY:
        return auth_of(options, options->config->auth_unix_ro);
    default:
        return RPC_AUTH_NONE;
    }
}

static unsigned socket_mode(const struct pool_daemon_options *options, enum pool_socket which)
{
    const struct pool_config *config = options->config;

    if (!options->privileged)
        return 0700;
    switch (which) {
    case POOL_SOCKET_MAIN:
        return pool_config_mode(config->unix_sock_rw_perms,
                                socket_auth(options, which) == RPC_AUTH_POLKIT ? 0777 : 0700);
    case POOL_SOCKET_READ_ONLY:
        return pool_config_mode(config->unix_sock_ro_perms, 0777);
    default:
        return pool_config_mode(config->unix_sock_admin_perms, 0700);
    }
}

static bool wants_polkit(const struct pool_config *config)
{
    return config->access_drivers && g_strv_contains((const char *const *)config->access_drivers, "polkit");
}

static bool find_group(const char *name, gid_t *ret, struct error **err)
{
    const struct group *group = name ? getgrnam(name) : NULL;
    guint64 number;

    *ret = (gid_t)-1; /* stays as it is */
    if (!name)
        return true;
    if (group)
        *ret = group->gr_gid;
    else if (g_ascii_string_to_unsigned(name, 10, 0, UINT32_MAX - 1, &number, NULL))
        *ret = (gid_t)number;
    else
        return error_set(err, "unix_sock_group: there is no group '%s'", name);
    return true;
}

/* A socket of our own, which nobody can open before it has its group and mode. */
static struct socket_listener *CO_FN co_make_socket(const struct pool_daemon_options *options, enum pool_socket which,
                                                    const char *path, struct error **err)
{
    bool admin = which == POOL_SOCKET_ADMIN;
    unsigned queued = admin ? options->config->admin_max_queued_clients : options->config->max_queued_clients;
    int backlog = (int)MAX(queued, 1); /* one always fits into the kernel's queue */
    struct socket_endpoint endpoint = {.family = SOCKET_UNIX, .path = path};
    struct socket_listener *listener;
    mode_t mask;
    gid_t group;

    if (!find_group(options->config->unix_sock_group, &group, err))
        return NULL;
    mask = umask(0777);
    listener = co_socket_listen(&endpoint, backlog, err);
    (void)umask(mask);
    if (!listener)
        return NULL;
    if ((group != (gid_t)-1 && chown(path, (uid_t)-1, group)) || chmod(path, socket_mode(options, which))) {
        error_set_errno(err, errno, "cannot set group and mode of socket '%s'", path);
        socket_listener_free(listener);
        return NULL;
    }
    return listener;
}

static struct socket_listener *CO_FN co_open_socket(const struct pool_daemon_options *options, enum pool_socket which,
                                                    struct error **err)
{
    const char *directory =
        options->config->unix_sock_dir ? options->config->unix_sock_dir : options->paths->socket_directory;
    g_autofree char *path = g_build_filename(directory, socket_files[which], NULL);

    return co_make_socket(options, which, path, err);
}

/* `*fd` is taken. */
static struct socket_listener *CO_FN co_take_socket(int *fd, struct error **err)
{
    struct socket_endpoint endpoint = {.family = SOCKET_FD, .fd = *fd};
    struct socket_listener *listener = co_socket_listen(&endpoint, 1, err);

    if (listener)
        *fd = -1;
    return listener;
}

static bool CO_FN co_take_sockets(struct pool_daemon *daemon, struct supervisor_sockets *sockets, struct error **err)
{
    for (int which = 0; which < POOL_SOCKET__MAX; which++) {
        for (unsigned i = 0; i < sockets->counts[which]; i++) {
            daemon->listeners[which][i] = co_take_socket(&sockets->fds[which][i], err);
            if (!daemon->listeners[which][i])
                return false;
        }
    }
    return true;
}

/* Where the supervisor has made sockets, those are all. */
static bool CO_FN co_open_sockets(struct pool_daemon *daemon, const struct pool_daemon_options *options,
                                  struct error **err)
{
    if (options->sockets->used)
        return co_take_sockets(daemon, options->sockets, err);
    for (enum pool_socket which = 0; which < POOL_SOCKET__MAX; which++) {
        if (which == POOL_SOCKET_READ_ONLY && !options->privileged)
            continue;
        daemon->listeners[which][0] = co_open_socket(options, which, err);
        if (!daemon->listeners[which][0])
            return false;
    }
    return true;
}

static void clients_changed(struct rpc_server *server)
{
    struct pool_daemon *daemon = server->opaque;

    co_condition_broadcast(&daemon->changed);
}

static void make_servers(struct pool_daemon *daemon, const struct pool_config *config)
{
    struct rpc_server_options main = {
        .name = "virtstoraged",
        .program = &remote_program,
        .opaque = daemon,
        .clients_max = config->max_clients,
        .anonymous_max = config->max_anonymous_clients,
        .anonymous_s = ANONYMOUS_S,
        .requests_max = config->max_client_requests,
        .workers_min = config->min_workers,
        .workers_max = config->max_workers,
        .workers_priority = config->prio_workers,
        .keepalive_interval_s = config->keepalive_interval,
        .keepalive_count = config->keepalive_count,
        .clients_changed = clients_changed,
    };
    struct rpc_server_options admin = {
        .name = "admin",
        .program = &admin_program,
        .opaque = daemon,
        .clients_max = config->admin_max_clients,
        .requests_max = config->admin_max_client_requests,
        .workers_min = config->admin_min_workers,
        .workers_max = config->admin_max_workers,
        .keepalive_interval_s = config->admin_keepalive_interval,
        .keepalive_count = config->admin_keepalive_count,
        .clients_changed = clients_changed,
    };

    daemon->main = rpc_server_new(&main);
    daemon->admin = rpc_server_new(&admin);
}

static void serve(struct pool_daemon *daemon, const struct pool_daemon_options *options)
{
    for (enum pool_socket which = 0; which < POOL_SOCKET__MAX; which++) {
        struct rpc_socket_options socket = {.auth = socket_auth(options, which),
                                            .read_only = which == POOL_SOCKET_READ_ONLY};

        for (int i = 0; i < SUPERVISOR_SAME_MAX; i++) {
            if (daemon->listeners[which][i])
                rpc_server_listen(which == POOL_SOCKET_ADMIN ? daemon->admin : daemon->main,
                                  TAKE(daemon->listeners[which][i]), &socket);
        }
    }
}

/* --- beginning --- */

/* Clients ask for one thing after the other, and waking a processor that sleeps may take longer than the answer. */
static bool set_polling(const struct pool_config *config, struct error **err)
{
    const struct loop_options options = {.name = "main", .poll_max_ns = UINT64_C(1000) * config->poll_max_us};

    return loop_configure(loop_current(), &options, err);
}

/* Whatever the mask of who starts us: others have to get to the sockets. */
static bool make_directory(const char *path, mode_t mode, struct error **err)
{
    mode_t mask = umask(~mode & 0777);
    int result = g_mkdir_with_parents(path, mode) ? errno : 0;

    (void)umask(mask);
    return !result || error_set_errno(err, result, "unable to create directory '%s'", path);
}

enum pool_daemon_status pool_daemon_make_folders(const struct pool_daemon_options *options, struct error **err)
{
    const char *directory = options->config->unix_sock_dir;
    mode_t mode = options->privileged ? 0755 : 0700;

    if (!make_directory(options->paths->socket_directory, mode, err) ||
        (directory && !make_directory(directory, mode, err)))
        return POOL_DAEMON_RUN_DIRECTORY;
    return POOL_DAEMON_OK;
}

/* The token by which the daemons of a system know each other: whoever starts first makes it. */
static void CO_FN co_make_token(const char *path)
{
    g_autofree char *folder = g_path_get_dirname(path);
    char text[2 * TOKEN_BYTES + 1];
    AUTO(pool_error) error = NULL;
    uint8_t bytes[TOKEN_BYTES];

    if (!access(path, F_OK) || g_mkdir_with_parents(folder, 0700))
        return;
    loop_random_bytes(bytes, sizeof(bytes));
    for (int i = 0; i < TOKEN_BYTES; i++)
        g_snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    if (!co_replace_file(path, text, strlen(text), &error))
        pool_log_warning("daemon", "private secrets cannot be had: %s", error->message);
}

static bool CO_FN co_make_storage(struct pool_daemon *daemon, const struct pool_paths *paths, struct error **err)
{
    struct storage_config config = {
        .config_directory = paths->storage_directory,
        .state_directory = paths->state_directory,
        .privileged = daemon->privileged,
    };
    struct secrets_options secrets = {
        .directory = paths->secret_directory,
        .socket = paths->secret_socket,
        .token_path = paths->token,
        .privileged = daemon->privileged,
        .event = remote_events_secret,
        .opaque = daemon->events,
    };
    AUTO(pool_error) error = NULL;

    daemon->secrets = pool_secrets_new(&secrets);
    co_pool_secrets_load(daemon->secrets);
    daemon->storage = storage_new(&config, daemon->graph, daemon->secrets, &error);
    if (!daemon->storage)
        return error_set(err, "%s", error->message);
    remote_events_listen(daemon->events, daemon->storage);
    return true;
}

enum pool_daemon_status co_pool_daemon_start(struct pool_daemon *daemon, const struct pool_daemon_options *options,
                                             struct error **err)
{
    const struct pool_config *config = options->config;

    daemon->privileged = options->privileged;
    daemon->timeout_s = options->timeout_s;
    if (!set_polling(config, err))
        return POOL_DAEMON_INIT;
    daemon->objects = object_registry_new();
    daemon->graph = graph_new(daemon->objects, NULL);
    daemon->events = remote_events_new();
    daemon->polkit = polkit_new();
    daemon->access = wants_polkit(config) ? daemon->polkit : NULL;
    daemon->sasl_users = g_strdupv(config->sasl_allowed_username_list);
    daemon->token_path = options->paths->token;
    make_servers(daemon, config);
    /* The lock first: whom another daemon precedes leaves its sockets alone. Clients may wait while pools are loaded.
     */
    co_make_token(options->paths->token);
    if (!co_make_storage(daemon, options->paths, err))
        return POOL_DAEMON_DRIVER;
    if (daemon->quit)
        storage_stop(daemon->storage);
    if (!co_open_sockets(daemon, options, err))
        return POOL_DAEMON_NETWORK;
    co_storage_load(daemon->storage);
    serve(daemon, options);
    daemon->serving = true;
    return POOL_DAEMON_OK;
}

/* --- life --- */

/* The end is near: nothing keeps us waiting any more. */
static void cut_short(struct pool_daemon *daemon)
{
    process_stop_all(PROGRAMS_GRACE_MS);
    if (daemon->storage)
        storage_stop(daemon->storage);
}

void pool_daemon_quit(struct pool_daemon *daemon)
{
    daemon->quit = true;
    cut_short(daemon);
    co_condition_broadcast(&daemon->changed);
}

static bool is_idle(const struct pool_daemon *daemon)
{
    return !daemon->main->clients->len && !daemon->admin->clients->len;
}

void co_pool_daemon_wait(struct pool_daemon *daemon)
{
    while (!daemon->quit) {
        struct co_deadline deadline;
        int result;

        if (!daemon->timeout_s || !is_idle(daemon)) {
            co_condition_wait_always(&daemon->changed, NULL);
            continue;
        }
        co_deadline_begin(&deadline, daemon->timeout_s * NS_PER_S);
        result = co_condition_wait(&daemon->changed, NULL);
        co_deadline_end(&deadline);
        if (result == -ETIMEDOUT && is_idle(daemon) && !daemon->reloading && !storage_is_busy(daemon->storage)) {
            pool_log_info("daemon", "nobody was here for %u seconds", daemon->timeout_s);
            pool_daemon_quit(daemon);
        }
    }
}

void co_pool_daemon_reload(struct pool_daemon *daemon)
{
    if (daemon->reloading || !daemon->serving) {
        pool_log_warning("daemon", "a reload is ignored: %s",
                         daemon->reloading ? "there is one under way" : "the daemon is still starting");
        return;
    }
    pool_log_info("daemon", "reloading");
    daemon->reloading = true;
    supervisor_tell_reloading();
    co_storage_reload(daemon->storage);
    supervisor_tell_ready();
    daemon->reloading = false;
}

void co_pool_daemon_done(struct pool_daemon *daemon)
{
    cut_short(daemon);
    for (enum pool_socket which = 0; which < POOL_SOCKET__MAX; which++) {
        for (int i = 0; i < SUPERVISOR_SAME_MAX; i++)
            socket_listener_free(daemon->listeners[which][i]);
    }
    if (daemon->main)
        co_rpc_server_stop(daemon->main);
    if (daemon->admin)
        co_rpc_server_stop(daemon->admin);
    if (daemon->storage) {
        remote_events_unlisten(daemon->events, daemon->storage);
        co_storage_close(daemon->storage);
        storage_free(daemon->storage);
    }
    rpc_server_free(daemon->main);
    rpc_server_free(daemon->admin);
    remote_events_free(daemon->events);
    polkit_free(daemon->polkit);
    g_strfreev(daemon->sasl_users);
    pool_secrets_free(daemon->secrets);
    if (daemon->graph)
        co_graph_free(daemon->graph);
    co_object_registry_free(daemon->objects);
    co_condition_done(&daemon->changed);
}
