/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* mpath: the multipath devices of the host, as the kernel's device mapper shows them. */
#include <glib.h>
#include <string.h>

#include "base/log.h"
#include "loop/loop.h"
#include "pool/backend.h"
#include "pool/backend/command.h"
#include "pool/backend/multipath.h"
#include "pool/backend/types.h"
#include "pool/pool-error.h"

static int look(void *opaque)
{
    bool *there = opaque;

    *there = g_file_test("/dev/mapper", G_FILE_TEST_EXISTS) || g_file_test("/dev/mpath", G_FILE_TEST_EXISTS);
    return 0;
}

static bool CO_FN mpath_co_check(struct pool *pool, bool *ret_active, struct pool_error **err)
{
    (void)co_worker_run(look, ret_active);
    return true;
}

static int list(void *opaque)
{
    *(GArray **)opaque = multipath_list("/sys", "/dev/mapper/control");
    return 0;
}

static bool CO_FN mpath_co_refresh(struct pool *pool, struct pool_scan *scan, struct pool_error **err)
{
    GArray *maps;

    co_command_settle();
    (void)co_worker_run(list, &maps);
    for (guint i = 0; i < maps->len; i++) {
        const struct multipath *map = &g_array_index(maps, struct multipath, i);
        AUTO(pool_error) error = NULL;
        AUTO(volume) volume = volume_new();

        volume->type = VOLUME_BLOCK;
        volume->name = g_strdup_printf("dm-%u", map->minor);
        volume->target.path = g_build_filename("/dev/mapper", map->name, NULL);
        volume->key = g_strdup(volume->target.path);
        if (!co_device_volume_refresh(pool, volume, &error)) {
            log_warning("pool '%s': %s", pool->def->name, error->message);
            continue;
        }
        scan->capacity += volume->capacity;
        scan->allocation += volume->allocation;
        pool_scan_add(scan, TAKE(volume));
    }
    g_array_unref(maps);
    return true;
}

static const struct pool_backend_volume mpath_volume_operations = {
    .co_refresh = co_device_volume_refresh,
    .co_wipe = co_device_volume_wipe,
};

const struct pool_backend mpath_backend = {
    .type = POOL_MPATH,
    .flags = BACKEND_TRANSFERS,
    .co_check = mpath_co_check,
    .co_refresh = mpath_co_refresh,
    .volume = &mpath_volume_operations,
};
