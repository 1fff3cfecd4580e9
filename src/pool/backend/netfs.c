/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* netfs: a directory of another host, mounted on the target. */
#include <string.h>

#include "pool/backend/command.h"
#include "pool/backend/files.h"
#include "pool/backend/mount.h"
#include "pool/backend/portal.h"
#include "pool/backend/types.h"
#include "pool/pool-error.h"

/* As mount(8) takes it; owned. Addresses of IPv6 have colons, so they stand in brackets. */
static char *source_of(const struct pool *pool)
{
    const struct pool_source *source = &pool->def->source;
    const char *host = source->hosts[0].name;
    bool brackets = strchr(host, ':') && *host != '[';

    if (source->format == NETFS_CIFS)
        return g_strdup_printf("//%s/%s", host, *source->dir == '/' ? source->dir + 1 : source->dir);
    return g_strdup_printf("%s%s%s:%s", brackets ? "[" : "", host, brackets ? "]" : "", source->dir);
}

static bool CO_FN netfs_co_check(struct pool *pool, bool *ret_active, struct pool_error **err)
{
    g_autofree char *source = NULL;

    *ret_active = false;
    if (!portal_check_host(&pool->def->source, err))
        return false;
    source = source_of(pool);
    *ret_active = co_is_mounted(source, pool->def->target_path);
    return true;
}

/* What the kind of server needs beside the usual; owned, NULL: nothing. */
static char *own_options(const struct pool_source *source)
{
    if (source->format == NETFS_GLUSTERFS)
        return g_strdup("direct-io-mode=1");
    if (source->format == NETFS_CIFS)
        return g_strdup("guest");
    return source->protocol_version ? g_strdup_printf("nfsvers=%s", source->protocol_version) : NULL;
}

/* By mount(8) and not by libmount itself: what the helper of the file system has to say is worth hearing. */
static bool CO_FN netfs_co_start(struct pool *pool, struct pool_error **err)
{
    const struct pool_source *source = &pool->def->source;
    const char *type = pool_type_info(POOL_NETFS)->source_formats[source->format];
    g_autofree char *more = own_options(source);
    g_autofree char *options = mount_options(pool, more);
    g_autofree char *from = NULL;
    const char *target = pool->def->target_path;

    if (!portal_check_host(source, err))
        return false;
    from = source_of(pool);
    if (co_is_mounted(from, target))
        return true;
    if (source->format == NETFS_AUTO) {
        const char *argv[] = {"mount", "-o", options, "--", from, target, NULL};

        return co_command_run(argv, NULL, err);
    }
    const char *argv[] = {"mount", "-o", options, "-t", type, "--", from, target, NULL};

    return co_command_run(argv, NULL, err);
}

static bool CO_FN netfs_co_stop(struct pool *pool, struct pool_error **err)
{
    g_autofree char *source = NULL;

    if (!portal_check_host(&pool->def->source, err))
        return false;
    source = source_of(pool);
    return !co_is_mounted(source, pool->def->target_path) || co_unmount(pool->def->target_path, err);
}

static bool CO_FN netfs_co_build(struct pool *pool, unsigned flags, struct pool_error **err)
{
    if (!check_build_flags(flags, "virStorageBackendFileSystemBuild", err) || !co_files_make_directory(pool, err))
        return false;
    /* What the server has is its own business. */
    return !flags || pool_error_set(err, POOL_ERROR_OPERATION_INVALID,
                                    "No source device specified when formatting pool '%s'", pool->def->name);
}

/* --- finding --- */

static void add_found(GPtrArray *sources, const char *host, const char *dir, int format)
{
    struct pool_source *found = pool_sources_add(sources, POOL_NETFS);

    found->hosts = g_new0(struct pool_host, 1);
    found->hosts[0].name = g_strdup(host);
    found->host_count = 1;
    found->dir = g_strdup(dir);
    found->format = format;
}

/* Lines of a path, which may have blanks, and behind the last run of them who may mount it. */
static void take_exports(char *text, const char *host, GPtrArray *sources)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (char **line = lines; *line; line++) {
        char *end = strrchr(g_strchomp(*line), ' ');

        if (**line != '/')
            continue;
        if (end)
            *end = 0;
        add_found(sources, host, g_strchomp(*line), NETFS_NFS);
    }
}

static bool CO_FN co_find_exports(const char *host, GPtrArray *sources, struct pool_error **err)
{
    const char *argv[] = {"showmount", "--no-headers", "--exports", host, NULL};
    struct command_result result = {0};
    bool ok = co_command_run(argv, &result, err);

    if (ok && g_utf8_validate(result.output, -1, NULL))
        take_exports(result.output, host, sources);
    command_result_clear(&result);
    return ok;
}

static bool CO_FN netfs_co_find_sources(struct storage *storage, const struct pool_source *source, GPtrArray *sources,
                                        struct pool_error **err)
{
    AUTO(pool_error) error = NULL;
    const char *host;

    if (!source)
        return pool_error_set(err, POOL_ERROR_INVALID_ARG, "hostname must be specified for netfs sources");
    if (!portal_check_host(source, err))
        return false;
    host = source->hosts[0].name;
    if (!co_find_exports(host, sources, &error) && !sources->len)
        return pool_error_set(err, POOL_ERROR_OPERATION_FAILED, "no storage pools were found on host '%s': %s", host,
                              error->message);
    return true;
}

const struct pool_backend netfs_backend = {
    .type = POOL_NETFS,
    .flags = BACKEND_FILES | BACKEND_TRANSFERS | BACKEND_NO_CAPACITY,
    .co_check = netfs_co_check,
    .co_start = netfs_co_start,
    .co_stop = netfs_co_stop,
    .co_build = netfs_co_build,
    .co_delete = co_files_delete_pool,
    .co_refresh = co_files_refresh,
    .co_find_sources = netfs_co_find_sources,
    .volume = &files_volume_operations,
};
