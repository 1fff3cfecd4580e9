/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dir: a directory of this host, whose files are the volumes. */
#include "pool/backend/files.h"
#include "pool/backend/types.h"
#include "pool/pool-error.h"

static bool CO_FN dir_co_build(struct pool *pool, unsigned flags, struct pool_error **err)
{
    if (!check_build_flags(flags, "virStorageBackendFileSystemBuild", err) || !co_files_make_directory(pool, err))
        return false;
    /* A directory has no device that could be formatted. */
    return !flags || pool_error_set(err, POOL_ERROR_OPERATION_INVALID,
                                    "No source device specified when formatting pool '%s'", pool->def->name);
}

const struct pool_backend dir_backend = {
    .type = POOL_DIR,
    .flags = BACKEND_FILES | BACKEND_TRANSFERS | BACKEND_NO_CAPACITY,
    .co_check = co_files_check,
    .co_build = dir_co_build,
    .co_delete = co_files_delete_pool,
    .co_refresh = co_files_refresh,
    .volume = &files_volume_operations,
};
