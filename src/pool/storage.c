/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The set of pools: making and freeing it, finding pools, telling listeners. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "pool/pool-error.h"
#include "pool/storage-internal.h"
#include "pool/watch.h"
#include "pool/xml/document.h"

/* --- uuids as keys --- */

static guint uuid_hash(const void *key)
{
    guint value;

    memcpy(&value, key, sizeof(value));
    return value;
}

static gboolean uuid_equal(const void *a, const void *b)
{
    return !memcmp(a, b, STORAGE_UUID_SIZE);
}

/* --- making and freeing --- */

/* Whether `path` names the file that is open as `fd`. */
static bool is_at(int fd, const char *path)
{
    struct stat ours;
    struct stat named;

    return !fstat(fd, &ours) && !stat(path, &named) && ours.st_dev == named.st_dev && ours.st_ino == named.st_ino;
}

static bool open_locked(struct storage *storage, const char *path, struct pool_error **err)
{
    do {
        fd_close(storage->lock_fd);
        storage->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (storage->lock_fd < 0)
            return pool_error_set_errno(err, errno, "Failed to open pid file '%s'", path);
        if (file_lock_set(storage->lock_fd, 0, 1, FILE_LOCK_EXCLUSIVE))
            return pool_error_set(err, POOL_ERROR_OPERATION_FAILED,
                                  "Failed to acquire pid file '%s': another daemon works on the same pools", path);
        /* Between opening and locking, its former owner may have removed it: then it keeps nobody else away. */
    } while (!is_at(storage->lock_fd, path));
    return true;
}

/* Held for as long as the daemon lives, so that no other one works on the same pools. */
static bool take_lock(struct storage *storage, struct pool_error **err)
{
    g_autofree char *path = g_build_filename(storage->state_directory, "driver.pid", NULL);
    int emptied;

    if (!open_locked(storage, path, err))
        return false;
    emptied = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    fd_close(emptied);
    if (dprintf(storage->lock_fd, "%ld\n", (long)getpid()) < 0)
        return pool_error_set_errno(err, errno, "Failed to write to pid file '%s'", path);
    return true;
}

struct storage *storage_new(const struct storage_config *config, struct graph *graph, struct pool_secrets *secrets,
                            struct pool_error **err)
{
    struct storage *storage = g_new0(struct storage, 1);

    storage->lock_fd = -1;
    storage->config_directory = g_strdup(config->config_directory);
    storage->autostart_directory = g_build_filename(config->config_directory, "autostart", NULL);
    storage->state_directory = g_strdup(config->state_directory);
    storage->privileged = config->privileged;
    storage->graph = graph;
    storage->secrets = secrets;
    storage->loop = loop_current();
    storage->pools = g_ptr_array_new();
    storage->by_name = g_hash_table_new(g_str_hash, g_str_equal);
    storage->by_uuid = g_hash_table_new(uuid_hash, uuid_equal);
    storage->listeners = g_ptr_array_new();
    if (g_mkdir_with_parents(storage->state_directory, 0777)) {
        pool_error_set_errno(err, errno, "cannot create directory %s", storage->state_directory);
        storage_free(storage);
        return NULL;
    }
    if (!take_lock(storage, err)) {
        storage_free(storage);
        return NULL;
    }
    return storage;
}

void storage_stop(struct storage *storage)
{
    storage->closing = true;
}

void CO_FN co_storage_close(struct storage *storage)
{
    g_autofree char *path = g_build_filename(storage->state_directory, "driver.pid", NULL);

    assert(storage->closing);
    co_pool_watcher_free(TAKE(storage->watcher));
    co_group_wait(&storage->work);
    for (guint i = 0; i < storage->pools->len; i++) {
        struct pool *pool = g_ptr_array_index(storage->pools, i);

        co_mutex_lock(&pool->lock);
        co_mutex_unlock(&pool->lock);
    }
    if (is_at(storage->lock_fd, path))
        (void)unlink(path);
}

void storage_free(struct storage *storage)
{
    if (!storage)
        return;
    for (guint i = 0; i < storage->pools->len; i++) {
        struct pool *pool = g_ptr_array_index(storage->pools, i);

        /* A stream may still hold it. */
        pool->removed = true;
        pool_unref(pool);
    }
    g_ptr_array_free(storage->pools, TRUE);
    g_ptr_array_free(storage->listeners, TRUE);
    g_hash_table_destroy(storage->by_name);
    g_hash_table_destroy(storage->by_uuid);
    fd_close(storage->lock_fd);
    co_condition_done(&storage->loaded);
    g_free(storage->config_directory);
    g_free(storage->autostart_directory);
    g_free(storage->state_directory);
    g_free(storage);
}

bool storage_is_busy(const struct storage *storage)
{
    return storage->busy || storage->loading;
}

/* --- listeners --- */

void storage_listen(struct storage *storage, struct storage_listener *listener)
{
    g_ptr_array_add(storage->listeners, listener);
}

void storage_unlisten(struct storage *storage, struct storage_listener *listener)
{
    g_ptr_array_remove(storage->listeners, listener);
}

void storage_tell(struct storage *storage, const struct pool *pool, enum pool_event event)
{
    AUTO(pool_id) id = pool_get_id(pool);

    for (guint i = 0; i < storage->listeners->len; i++) {
        struct storage_listener *listener = g_ptr_array_index(storage->listeners, i);

        listener->lifecycle(listener, id, event);
    }
}

void storage_tell_refreshed(struct storage *storage, const struct pool *pool)
{
    AUTO(pool_id) id = pool_get_id(pool);

    for (guint i = 0; i < storage->listeners->len; i++) {
        struct storage_listener *listener = g_ptr_array_index(storage->listeners, i);

        listener->refreshed(listener, id);
    }
}

/* --- the set --- */

void storage_add_pool(struct storage *storage, struct pool *pool)
{
    assert(!g_hash_table_lookup(storage->by_name, pool->def->name));
    g_ptr_array_add(storage->pools, pool);
    g_hash_table_insert(storage->by_name, pool->def->name, pool);
    g_hash_table_insert(storage->by_uuid, pool->def->uuid, pool);
}

void storage_remove_pool(struct pool *pool)
{
    struct storage *storage = pool->storage;

    assert(!pool->removed);
    pool->removed = true;
    g_hash_table_remove(storage->by_name, pool->def->name);
    g_hash_table_remove(storage->by_uuid, pool->def->uuid);
    g_ptr_array_remove(storage->pools, pool);
    pool_unref(pool);
}

/* The tables' keys lie in the definition, so they move with it. */
struct pool_def *storage_swap_definition(struct pool *pool, struct pool_def *def)
{
    struct storage *storage = pool->storage;
    struct pool_def *old = pool->def;

    assert(!strcmp(old->name, def->name));
    assert(!memcmp(old->uuid, def->uuid, sizeof(def->uuid)));
    if (!pool->removed) {
        g_hash_table_remove(storage->by_name, old->name);
        g_hash_table_remove(storage->by_uuid, old->uuid);
    }
    pool->def = def;
    pool->backend = pool_backend_find(def->type);
    if (!pool->removed) {
        g_hash_table_insert(storage->by_name, def->name, pool);
        g_hash_table_insert(storage->by_uuid, def->uuid, pool);
    }
    return old;
}

void storage_set_definition(struct pool *pool, struct pool_def *def)
{
    pool_def_free(storage_swap_definition(pool, def));
}

/* --- finding --- */

struct pool *storage_find_pool_named(struct storage *storage, const char *name, struct pool_error **err)
{
    struct pool *pool = g_hash_table_lookup(storage->by_name, name);

    if (!pool)
        pool_error_set(err, POOL_ERROR_NO_POOL, "no storage pool with matching name '%s'", name);
    return pool;
}

struct pool *storage_find_pool(struct storage *storage, const struct pool_id *id, struct pool_error **err)
{
    struct pool *pool = g_hash_table_lookup(storage->by_uuid, id->uuid);
    char uuid[XML_UUID_TEXT];

    uuid_format(id->uuid, uuid);
    if (!pool)
        pool_error_set(err, POOL_ERROR_NO_POOL, "no storage pool with matching uuid '%s' (%s)", uuid, id->name);
    return pool;
}

struct pool *storage_find_active_pool(struct storage *storage, const struct pool_id *id, struct pool_error **err)
{
    struct pool *pool = storage_find_pool(storage, id, err);

    return pool && pool_check_active(pool, err) ? pool : NULL;
}

struct volume *storage_find_volume(struct storage *storage, const struct volume_id *id, struct pool **ret_pool,
                                   struct pool_error **err)
{
    struct pool *pool = storage_find_pool_named(storage, id->pool, err);
    struct volume *volume;

    if (!pool || !pool_check_active(pool, err))
        return NULL;
    volume = pool_find_volume(pool, id->name);
    if (!volume)
        pool_error_set(err, POOL_ERROR_NO_VOLUME, "no storage vol with matching name '%s'", id->name);
    *ret_pool = pool;
    return volume;
}

struct pool_id *storage_pool_by_name(struct storage *storage, const char *name, struct pool_error **err)
{
    const struct pool *pool = storage_find_pool_named(storage, name, err);

    return pool ? pool_get_id(pool) : NULL;
}

struct pool_id *storage_pool_by_uuid(struct storage *storage, const uint8_t *uuid, struct pool_error **err)
{
    const struct pool *pool = g_hash_table_lookup(storage->by_uuid, uuid);
    char text[XML_UUID_TEXT];

    uuid_format(uuid, text);
    if (pool)
        return pool_get_id(pool);
    pool_error_set(err, POOL_ERROR_NO_POOL, "no storage pool with matching uuid '%s'", text);
    return NULL;
}

struct pool_id *storage_pool_by_volume(struct storage *storage, const struct volume_id *volume, struct pool_error **err)
{
    const struct pool *pool = storage_find_pool_named(storage, volume->pool, err);

    return pool ? pool_get_id(pool) : NULL;
}

struct pool_id *storage_pool_by_target_path(struct storage *storage, const char *path, struct pool_error **err)
{
    g_autofree char *clean = path_squeeze(path);

    for (guint i = 0; i < storage->pools->len; i++) {
        const struct pool *pool = g_ptr_array_index(storage->pools, i);

        if (pool->active && pool->def->target_path && !strcmp(pool->def->target_path, clean))
            return pool_get_id(pool);
    }
    if (strcmp(path, clean) != 0)
        pool_error_set(err, POOL_ERROR_NO_POOL, "no storage pool with matching target path '%s' (%s)", path, clean);
    else
        pool_error_set(err, POOL_ERROR_NO_POOL, "no storage pool with matching target path '%s'", path);
    return NULL;
}

/* --- states --- */

bool pool_check_active(const struct pool *pool, struct pool_error **err)
{
    return pool->active ||
           pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "storage pool '%s' is not active", pool->def->name);
}

bool pool_check_no_jobs(const struct pool *pool, struct pool_error **err)
{
    return !pool->jobs ||
           pool_error_set(err, POOL_ERROR_INTERNAL, "pool '%s' has asynchronous jobs running.", pool->def->name);
}

bool storage_no_backend(enum pool_type type, struct pool_error **err)
{
    return pool_error_set(err, POOL_ERROR_INTERNAL, "missing backend for pool type %d (%s)", type,
                          pool_type_info(type)->name);
}

const struct pool_backend *pool_get_backend(const struct pool *pool, struct pool_error **err)
{
    if (!pool->backend)
        storage_no_backend(pool->def->type, err);
    return pool->backend;
}

/* Waiting for who is making it run would keep the client without an answer for long, so that is an error. */
static bool check_not_starting(const struct pool *pool, struct pool_error **err)
{
    return !pool->starting ||
           pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "storage pool '%s' is starting up", pool->def->name);
}

bool CO_FN co_pool_lock(struct pool *pool, struct pool_error **err)
{
    char uuid[XML_UUID_TEXT];

    if (!check_not_starting(pool, err))
        return false;
    co_mutex_lock(&pool->lock);
    if (!pool->removed)
        return true;
    co_mutex_unlock(&pool->lock);
    uuid_format(pool->def->uuid, uuid);
    return pool_error_set(err, POOL_ERROR_NO_POOL, "no storage pool with matching uuid '%s' (%s)", uuid,
                          pool->def->name);
}

void pool_unlock(struct pool *pool)
{
    if (!pool->active && pool->pending)
        storage_set_definition(pool, TAKE(pool->pending));
    co_mutex_unlock(&pool->lock);
}
