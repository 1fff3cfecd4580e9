/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/paths.h"

/* The value of the variable, or a folder below the home directory. */
static char *user_folder(const char *variable, const char *below_home)
{
    const char *value = g_getenv(variable);

    return value && *value ? g_strdup(value) : g_build_filename(g_get_home_dir(), below_home, NULL);
}

static void set_system(struct pool_paths *paths)
{
    paths->config_file = g_strdup("/etc/libvirt/virtstoraged.conf");
    paths->storage_directory = g_strdup("/etc/libvirt/storage");
    paths->state_directory = g_strdup("/run/libvirt/storage");
    paths->secret_directory = g_strdup("/etc/libvirt/secrets");
    paths->socket_directory = g_strdup("/run/libvirt");
    paths->pid_file = g_strdup("/run/virtstoraged.pid");
    paths->log_file = g_strdup("/var/log/libvirt/virtstoraged.log");
    paths->token = g_strdup("/run/libvirt/common/system.token");
}

static void set_user(struct pool_paths *paths)
{
    g_autofree char *config = user_folder("XDG_CONFIG_HOME", ".config");
    g_autofree char *runtime = user_folder("XDG_RUNTIME_DIR", ".cache");
    g_autofree char *cache = user_folder("XDG_CACHE_HOME", ".cache");

    paths->config_file = g_build_filename(config, "libvirt", "virtstoraged.conf", NULL);
    paths->storage_directory = g_build_filename(config, "libvirt", "storage", NULL);
    paths->state_directory = g_build_filename(runtime, "libvirt", "storage", "run", NULL);
    paths->secret_directory = g_build_filename(config, "libvirt", "secrets", NULL);
    paths->socket_directory = g_build_filename(runtime, "libvirt", NULL);
    paths->pid_file = g_build_filename(runtime, "libvirt", "virtstoraged.pid", NULL);
    paths->log_file = g_build_filename(cache, "libvirt", "virtstoraged.log", NULL);
    paths->token = g_build_filename(runtime, "libvirt", "common", "system.token", NULL);
}

struct pool_paths *pool_paths_new(bool privileged)
{
    struct pool_paths *paths = g_new0(struct pool_paths, 1);

    if (privileged)
        set_system(paths);
    else
        set_user(paths);
    paths->secret_socket = g_build_filename(paths->socket_directory, "virtsecretd-sock", NULL);
    return paths;
}

void pool_paths_free(struct pool_paths *paths)
{
    if (!paths)
        return;
    g_free(paths->config_file);
    g_free(paths->storage_directory);
    g_free(paths->state_directory);
    g_free(paths->secret_directory);
    g_free(paths->socket_directory);
    g_free(paths->pid_file);
    g_free(paths->log_file);
    g_free(paths->token);
    g_free(paths->secret_socket);
    g_free(paths);
}
