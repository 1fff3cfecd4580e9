/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which pools start by themselves: those with a link in the autostart directory that leads to their definition. */
#include <errno.h>
#include <unistd.h>

#include "loop/loop.h"
#include "pool/pool-error.h"
#include "pool/storage-internal.h"

struct link_change {
    const char *directory;
    const char *target;
    const char *link;
};

static int make_link(void *opaque)
{
    const struct link_change *change = opaque;

    if (g_mkdir_with_parents(change->directory, 0777))
        return -errno;
    if (!symlink(change->target, change->link))
        return 0;
    /* Something of that name is there, which does not count as a link to this pool. */
    if (errno == EEXIST && !unlink(change->link) && !symlink(change->target, change->link))
        return 0;
    return -errno;
}

static int remove_link(void *opaque)
{
    const struct link_change *change = opaque;

    return unlink(change->link) && errno != ENOENT && errno != ENOTDIR ? -errno : 0;
}

static bool CO_FN co_change(struct pool *pool, bool autostart, struct pool_error **err)
{
    const struct storage *storage = pool->storage;
    g_autofree char *link = storage_autostart_path(storage, pool->def->name);
    struct link_change change = {storage->autostart_directory, pool->config_path, link};
    int ret = co_worker_run(autostart ? make_link : remove_link, &change);

    if (!ret)
        return true;
    if (autostart)
        return pool_error_set_errno(err, ret, "Failed to create symlink '%s' to '%s'", link, pool->config_path);
    return pool_error_set_errno(err, ret, "Failed to delete symlink '%s'", link);
}

bool CO_FN co_storage_pool_set_autostart(struct storage *storage, const struct pool_id *id, bool autostart,
                                         struct pool_error **err)
{
    struct pool *pool = storage_find_pool(storage, id, err);
    bool ok = true;

    if (!pool)
        return false;
    if (!pool->config_path)
        return pool_error_set(err, POOL_ERROR_INTERNAL, "pool has no config file");
    pool_ref(pool);
    co_mutex_lock(&storage->definitions);
    if (pool->removed)
        ok = storage_find_pool(storage, id, err);
    else if (pool->autostart != autostart)
        ok = co_change(pool, autostart, err);
    if (ok)
        pool->autostart = autostart;
    co_mutex_unlock(&storage->definitions);
    pool_unref(pool);
    return ok;
}

bool storage_pool_get_autostart(struct storage *storage, const struct pool_id *id, bool *ret, struct pool_error **err)
{
    const struct pool *pool = storage_find_pool(storage, id, err);

    if (pool)
        *ret = pool->config_path && pool->autostart;
    return pool;
}
