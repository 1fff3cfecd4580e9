/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fs: a file system of a local device, mounted on the target. */
#include <errno.h>
#include <string.h>

#include "pool/backend/command.h"
#include "pool/backend/files.h"
#include "pool/backend/mount.h"
#include "pool/backend/probe-device.h"
#include "pool/backend/types.h"
#include "pool/pool-error.h"

static bool check_device(const struct pool *pool, struct pool_error **err)
{
    return pool->def->source.device_count == 1 ||
           pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "expected exactly 1 device for the storage pool");
}

static const char *device_of(const struct pool *pool)
{
    return pool->def->source.devices[0].path;
}

static const char *format_of(const struct pool *pool)
{
    return pool_type_info(POOL_FS)->source_formats[pool->def->source.format];
}

static bool CO_FN fs_co_check(struct pool *pool, bool *ret_active, struct pool_error **err)
{
    *ret_active = false;
    if (!check_device(pool, err))
        return false;
    *ret_active = co_is_mounted(device_of(pool), pool->def->target_path);
    return true;
}

static bool CO_FN fs_co_start(struct pool *pool, struct pool_error **err)
{
    g_autofree char *options = mount_options(pool, NULL);
    struct mount_request request = {.target = pool->def->target_path, .options = options};

    if (!check_device(pool, err))
        return false;
    if (co_is_mounted(device_of(pool), pool->def->target_path))
        return true;
    request.source = device_of(pool);
    request.type = pool->def->source.format == FS_AUTO ? NULL : format_of(pool);
    return co_mount(&request, err);
}

static bool CO_FN fs_co_stop(struct pool *pool, struct pool_error **err)
{
    if (!check_device(pool, err))
        return false;
    return !co_is_mounted(device_of(pool), pool->def->target_path) || co_unmount(pool->def->target_path, err);
}

/* --- building --- */

/* What makes mkfs write without asking, where it would. */
static const char *force_option(int format)
{
    switch (format) {
    case FS_EXT2:
    case FS_EXT3:
    case FS_EXT4:
        return "-F";
    case FS_XFS:
        return "-f";
    case FS_VFAT:
        return "-I";
    default:
        return NULL;
    }
}

static bool CO_FN co_make_file_system(struct pool *pool, unsigned flags, struct pool_error **err)
{
    const char *format = format_of(pool);
    const char *device = device_of(pool);
    const char *force = force_option(pool->def->source.format);
    const char *argv[] = {"mkfs", "-t", format, force ? force : device, force ? device : NULL, NULL};

    if (*device == '-')
        return pool_error_set(err, POOL_ERROR_INVALID_ARG, "'%s' is not the path of a device", device);
    if (!co_device_exists(device))
        return pool_error_set(err, POOL_ERROR_OPERATION_INVALID,
                              "Source device does not exist when formatting pool '%s'", pool->def->name);
    if (!(flags & POOL_BUILD_OVERWRITE) && !co_device_check_unused(device, format, format, err))
        return false;
    return co_command_work(argv, err);
}

static bool CO_FN fs_co_build(struct pool *pool, unsigned flags, struct pool_error **err)
{
    if (!check_build_flags(flags, "virStorageBackendFileSystemBuild", err) || !co_files_make_directory(pool, err))
        return false;
    return !flags || (check_device(pool, err) && co_make_file_system(pool, flags, err));
}

const struct pool_backend fs_backend = {
    .type = POOL_FS,
    .flags = BACKEND_FILES | BACKEND_TRANSFERS | BACKEND_NO_CAPACITY,
    .co_check = fs_co_check,
    .co_start = fs_co_start,
    .co_stop = fs_co_stop,
    .co_build = fs_co_build,
    .co_delete = co_files_delete_pool,
    .co_refresh = co_files_refresh,
    .volume = &files_volume_operations,
};
