/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What clients do with pools: define, build, start, refresh, stop, delete, undefine. */
#include <assert.h>
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "pool/pool-error.h"
#include "pool/storage-internal.h"
#include "pool/watch.h"
#include "pool/xml/schema.h"

enum create_flags {
    CREATE_WITH_BUILD = 1u << 0,
    CREATE_WITH_BUILD_OVERWRITE = 1u << 1,
    CREATE_WITH_BUILD_NO_OVERWRITE = 1u << 2,
    CREATE_ALL = 7,
};
/* When so many volumes are forgotten at once, their memory goes back to the system. */
enum { MANY_VOLUMES = 1024 };
enum { DEFINE_VALIDATE = 1, XML_INACTIVE = 1 };

/* --- refreshing --- */

void pool_scan_init(struct pool_scan *scan)
{
    *scan = (struct pool_scan){.volumes = g_ptr_array_new(), .permissions = PERMISSIONS_NONE};
}

void pool_scan_done(struct pool_scan *scan)
{
    for (guint i = 0; i < scan->volumes->len; i++)
        volume_unref(g_ptr_array_index(scan->volumes, i));
    g_ptr_array_free(scan->volumes, TRUE);
    permissions_clear(&scan->permissions);
    g_free(scan->free_extents);
}

void pool_scan_add(struct pool_scan *scan, struct volume *volume)
{
    assert(volume->name);
    assert(volume->key);
    assert(volume->target.path);
    g_ptr_array_add(scan->volumes, volume);
}

/* The pool has what the scan found from now on. */
static void take_scan(struct pool *pool, struct pool_scan *scan)
{
    struct pool_def *def = pool->def;
    size_t before = pool_volume_count(pool);

    pool_clear_volumes(pool);
    if (before >= MANY_VOLUMES)
        malloc_trim(0);
    for (guint i = 0; i < scan->volumes->len; i++) {
        AUTO(pool_error) error = NULL;

        if (!pool_add_volume(pool, g_ptr_array_index(scan->volumes, i), &error))
            log_warning("%s", error->message);
    }
    g_ptr_array_set_size(scan->volumes, 0);
    def->capacity = scan->capacity;
    def->allocation = scan->allocation;
    def->available = scan->available;
    if (scan->has_permissions) {
        permissions_clear(&def->permissions);
        def->permissions = scan->permissions;
        permissions_init(&scan->permissions);
    }
    if (def->type == POOL_DISK && def->source.device_count == 1) {
        g_free(def->source.devices[0].free_extents);
        def->source.devices[0].free_extents = TAKE(scan->free_extents);
        def->source.devices[0].free_extent_count = scan->free_extent_count;
    }
}

bool CO_FN co_pool_refresh(struct pool *pool, struct pool_error **err)
{
    struct pool_scan scan;
    bool ok;

    assert(pool->backend);
    pool_scan_init(&scan);
    ok = pool->backend->co_refresh(pool, &scan, err);
    if (ok)
        take_scan(pool, &scan);
    pool_scan_done(&scan);
    return ok;
}

/* --- starting and stopping, under the lock --- */

/* As far as the pool is concerned it has stopped, whatever the backend says of it. */
static void CO_FN co_mark_stopped(struct pool *pool, bool tell)
{
    co_storage_remove_state(pool->storage, pool->def->name);
    pool_watch_stop(pool);
    pool_clear_volumes(pool);
    pool->active = false;
    if (tell)
        storage_tell(pool->storage, pool, POOL_EVENT_STOPPED);
    if (!pool->config_path && !pool->removed)
        storage_remove_pool(pool);
}

void CO_FN co_pool_give_up(struct pool *pool, bool tell)
{
    AUTO(pool_error) error = NULL;

    if (pool->backend && pool->backend->co_stop && !pool->backend->co_stop(pool, &error))
        log_warning("pool '%s': %s", pool->def->name, error->message);
    co_mark_stopped(pool, tell);
}

static bool CO_FN co_build_for_start(struct pool *pool, unsigned flags, struct pool_error **err)
{
    unsigned build_flags = 0;

    if (!(flags & CREATE_ALL) || !pool->backend->co_build)
        return true;
    /* Where both are given, overwriting wins. */
    if (flags & CREATE_WITH_BUILD_OVERWRITE)
        build_flags = POOL_BUILD_OVERWRITE;
    else if (flags & CREATE_WITH_BUILD_NO_OVERWRITE)
        build_flags = POOL_BUILD_NO_OVERWRITE;
    return pool->backend->co_build(pool, build_flags, err);
}

/* --- what needs a pool and its lock --- */

/* The pool, referenced and locked, and the daemon kept from ending; NULL: *err. */
static struct pool *CO_FN co_begin(struct storage *storage, const struct pool_id *id, struct pool_error **err)
{
    struct pool *pool = storage_find_pool(storage, id, err);

    if (!pool)
        return NULL;
    pool_ref(pool);
    storage->busy++;
    if (co_pool_lock(pool, err))
        return pool;
    storage->busy--;
    pool_unref(pool);
    return NULL;
}

static void end(struct pool *pool)
{
    pool->storage->busy--;
    pool_unlock(pool);
    pool_unref(pool);
}

/* On failure all is as it was before. `tell`: those who listen. */
static bool CO_FN co_start(struct pool *pool, unsigned flags, bool tell, struct pool_error **err)
{
    const struct pool_backend *backend = pool_get_backend(pool, err);
    bool started = false;
    bool ok;

    if (!backend)
        return false;
    pool->starting = true;
    ok = co_build_for_start(pool, flags, err) && (!backend->co_start || backend->co_start(pool, err));
    started = ok;
    ok = ok && co_storage_write_state(pool->storage, pool->def, err) && co_pool_refresh(pool, err);
    if (started && !ok) {
        co_storage_remove_state(pool->storage, pool->def->name);
        if (backend->co_stop)
            (void)backend->co_stop(pool, NULL);
        pool_watch_stop(pool);
        pool_clear_volumes(pool);
    }
    pool->starting = false;
    pool->active = ok;
    if (ok && tell)
        storage_tell(pool->storage, pool, POOL_EVENT_STARTED);
    return ok;
}

/* --- defining --- */

static bool check_name(const struct pool_def *def, struct pool_error **err)
{
    return !strchr(def->name, '\n') ||
           pool_error_set_domain(err, POOL_DOMAIN_XML, POOL_ERROR_XML_DETAIL, "invalid char in name: \n");
}

/* Whoever ended while a pool of that name was undefined has left its link, by which the new one would start. */
static void CO_FN co_forget_autostart(const struct storage *storage, const char *name)
{
    g_autofree char *link = storage_autostart_path(storage, name);

    (void)co_file_unlink(link);
}

static struct pool *CO_FN co_define(struct storage *storage, struct pool_def *def, struct pool_error **err)
{
    struct pool *pool;
    bool ok = storage_check_source(storage, def, err) && storage_check_duplicate(storage, def, false, &pool, err);

    if (ok && (!pool || !pool->config_path))
        co_forget_autostart(storage, def->name);
    if (!ok || !co_storage_write_config(storage, def, err)) {
        pool_def_free(def);
        return NULL;
    }
    /* Writing took its time, but nobody else changes the set meanwhile; a pool may have gone by stopping. */
    pool = g_hash_table_lookup(storage->by_uuid, def->uuid);
    if (!pool) {
        pool = pool_new(storage, pool_backend_find(def->type), def);
        pool->config_path = storage_config_path(storage, def->name);
        storage_add_pool(storage, pool);
        return pool;
    }
    if (!pool->config_path)
        pool->config_path = storage_config_path(storage, def->name);
    if (!pool->active && co_mutex_try_lock(&pool->lock)) {
        storage_set_definition(pool, def);
        co_mutex_unlock(&pool->lock);
        return pool;
    }
    pool_def_free(pool->pending);
    pool->pending = def;
    return pool;
}

struct pool_id *CO_FN co_storage_pool_define_xml(struct storage *storage, const char *xml, unsigned flags,
                                                 struct pool_error **err)
{
    AUTO(pool_def) def = NULL;
    struct pool_id *id = NULL;
    struct pool *pool;

    if (!pool_error_check_flags(err, flags, DEFINE_VALIDATE, "storagePoolDefineXML"))
        return NULL;
    if (flags & DEFINE_VALIDATE && !xml_check_pool(xml, err))
        return NULL;
    def = pool_def_parse(xml, false, err);
    if (!def || !check_name(def, err))
        return NULL;
    storage->busy++;
    co_mutex_lock(&storage->definitions);
    pool = co_define(storage, TAKE(def), err);
    if (pool) {
        storage_tell(storage, pool, POOL_EVENT_DEFINED);
        id = pool_get_id(pool);
    }
    co_mutex_unlock(&storage->definitions);
    storage->busy--;
    return id;
}

/* A new pool, locked, of the definition (taken). */
static struct pool *CO_FN co_add_new(struct storage *storage, struct pool_def *def)
{
    struct pool *pool = pool_new(storage, pool_backend_find(def->type), def);

    co_mutex_lock(&pool->lock);
    storage_add_pool(storage, pool);
    return pool_ref(pool);
}

/* Waits until nobody works on the pool. */
static void CO_FN co_wait_for_pool(struct pool *pool)
{
    pool_ref(pool);
    if (co_pool_lock(pool, NULL))
        pool_unlock(pool);
    pool_unref(pool);
}

/* The pool of the definition (taken), locked and starting; one that is defined already runs on it until it stops. */
static struct pool *CO_FN co_add_transient(struct storage *storage, struct pool_def *def, struct pool_error **err)
{
    struct pool *pool = NULL;
    struct pool *same = NULL;
    bool ok;

    do {
        /* Others define other pools while somebody works on this one. */
        if (same)
            co_wait_for_pool(same);
        co_mutex_lock(&storage->definitions);
        ok = storage_check_source(storage, def, err) && storage_check_duplicate(storage, def, true, &same, err);
        if (ok && !same) {
            pool = co_add_new(storage, TAKE(def));
        } else if (ok && co_mutex_try_lock(&same->lock)) {
            pool = pool_ref(same);
            pool_def_free(pool->pending);
            pool->pending = storage_swap_definition(pool, TAKE(def));
        }
        if (pool)
            pool->starting = true;
        co_mutex_unlock(&storage->definitions);
    } while (ok && !pool);
    pool_def_free(def);
    return pool;
}

struct pool_id *CO_FN co_storage_pool_create_xml(struct storage *storage, const char *xml, unsigned flags,
                                                 struct pool_error **err)
{
    AUTO(pool_def) def = NULL;
    struct pool_id *id = NULL;
    struct pool *pool;

    if (!pool_error_check_flags(err, flags, CREATE_ALL, "storagePoolCreateXML"))
        return NULL;
    def = pool_def_parse(xml, false, err);
    if (!def || !check_name(def, err))
        return NULL;
    storage->busy++;
    pool = co_add_transient(storage, TAKE(def), err);
    if (!pool) {
        storage->busy--;
        return NULL;
    }
    if (co_start(pool, flags, true, err))
        id = pool_get_id(pool);
    else if (!pool->config_path)
        storage_remove_pool(pool);
    pool->starting = false;
    end(pool);
    return id;
}

/* Under the lock. */
static bool CO_FN co_undefine(struct storage *storage, struct pool *pool, struct pool_error **err)
{
    g_autofree char *link = NULL;
    int ret;

    if (pool->active)
        return pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "storage pool '%s' is still active", pool->def->name);
    if (!pool->config_path)
        return pool_error_set(err, POOL_ERROR_INTERNAL, "no config file for %s", pool->def->name);
    link = storage_autostart_path(storage, pool->def->name);
    ret = co_file_unlink(pool->config_path);
    if (ret)
        return pool_error_set(err, POOL_ERROR_INTERNAL, "cannot remove config for %s", pool->def->name);
    ret = co_file_unlink(link);
    if (ret && ret != -ENOENT && ret != -ENOTDIR)
        log_warning("cannot remove '%s': %s", link, g_strerror(-ret));
    storage_tell(storage, pool, POOL_EVENT_UNDEFINED);
    storage_remove_pool(pool);
    return true;
}

bool CO_FN co_storage_pool_undefine(struct storage *storage, const struct pool_id *id, struct pool_error **err)
{
    struct pool *pool = co_begin(storage, id, err);
    bool ok;

    if (!pool)
        return false;
    co_mutex_lock(&storage->definitions);
    ok = co_undefine(storage, pool, err);
    co_mutex_unlock(&storage->definitions);
    end(pool);
    return ok;
}

static bool check_inactive(const struct pool *pool, struct pool_error **err)
{
    return !pool->active ||
           pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "storage pool '%s' is already active", pool->def->name);
}

static bool CO_FN co_start_pool(struct storage *storage, const struct pool_id *id, unsigned flags, bool tell,
                                struct pool_error **err)
{
    struct pool *pool = co_begin(storage, id, err);
    bool ok;

    if (!pool)
        return false;
    ok = check_inactive(pool, err) && co_start(pool, flags, tell, err);
    end(pool);
    return ok;
}

bool CO_FN co_storage_pool_start(struct storage *storage, const struct pool_id *id, unsigned flags,
                                 struct pool_error **err)
{
    return pool_error_check_flags(err, flags, CREATE_ALL, "storagePoolCreate") &&
           co_start_pool(storage, id, flags, true, err);
}

bool CO_FN co_pool_start_quietly(struct storage *storage, const struct pool_id *id, struct pool_error **err)
{
    return co_start_pool(storage, id, 0, false, err);
}

static bool CO_FN co_build(struct pool *pool, unsigned flags, struct pool_error **err)
{
    const struct pool_backend *backend = pool_get_backend(pool, err);
    bool ok;

    if (!backend)
        return false;
    pool->starting = true;
    ok = !backend->co_build || backend->co_build(pool, flags, err);
    pool->starting = false;
    return ok;
}

bool CO_FN co_storage_pool_build(struct storage *storage, const struct pool_id *id, unsigned flags,
                                 struct pool_error **err)
{
    struct pool *pool;
    bool ok;

    pool = co_begin(storage, id, err);
    if (!pool)
        return false;
    ok = check_inactive(pool, err) && co_build(pool, flags, err);
    if (ok)
        storage_tell(storage, pool, POOL_EVENT_CREATED);
    end(pool);
    return ok;
}

static bool CO_FN co_destroy(struct pool *pool, struct pool_error **err)
{
    if (!pool_check_active(pool, err) || !pool_check_no_jobs(pool, err))
        return false;
    if (pool->backend->co_stop && !pool->backend->co_stop(pool, err))
        return false;
    co_mark_stopped(pool, true);
    return true;
}

bool CO_FN co_storage_pool_destroy(struct storage *storage, const struct pool_id *id, struct pool_error **err)
{
    struct pool *pool = co_begin(storage, id, err);
    bool ok = pool && co_destroy(pool, err);

    if (pool)
        end(pool);
    return ok;
}

static bool CO_FN co_delete(struct pool *pool, unsigned flags, struct pool_error **err)
{
    const struct pool_backend *backend = pool_get_backend(pool, err);

    if (!backend)
        return false;
    if (pool->active)
        return pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "storage pool '%s' is still active", pool->def->name);
    if (!backend->co_delete)
        return pool_error_set(err, POOL_ERROR_NO_SUPPORT, "pool does not support pool deletion");
    if (!backend->co_delete(pool, flags, err))
        return false;
    storage_tell(pool->storage, pool, POOL_EVENT_DELETED);
    return true;
}

bool CO_FN co_storage_pool_delete(struct storage *storage, const struct pool_id *id, unsigned flags,
                                  struct pool_error **err)
{
    struct pool *pool = co_begin(storage, id, err);
    bool ok = pool && co_delete(pool, flags, err);

    if (pool)
        end(pool);
    return ok;
}

static bool CO_FN co_refresh(struct pool *pool, struct pool_error **err)
{
    if (!pool_check_active(pool, err) || !pool_check_no_jobs(pool, err))
        return false;
    if (co_pool_refresh(pool, err)) {
        storage_tell_refreshed(pool->storage, pool);
        return true;
    }
    /* It is no fault of the pool's that the daemon ends: the next one finds it running. */
    if (!pool->storage->closing)
        co_pool_give_up(pool, true);
    return false;
}

bool CO_FN co_storage_pool_refresh(struct storage *storage, const struct pool_id *id, unsigned flags,
                                   struct pool_error **err)
{
    struct pool *pool;
    bool ok;

    if (!pool_error_check_flags(err, flags, 0, "storagePoolRefresh"))
        return false;
    pool = co_begin(storage, id, err);
    ok = pool && co_refresh(pool, err);
    if (pool)
        end(pool);
    return ok;
}

/* --- refreshing later --- */

static void CO_FN co_refresh_later(void *opaque)
{
    struct pool *pool = opaque;
    struct storage *storage = pool->storage;
    AUTO(pool_error) error = NULL;

    if (co_pool_lock(pool, NULL)) {
        if (pool->active && !pool->jobs) {
            if (!co_pool_refresh(pool, &error)) {
                log_warning("pool '%s' after an upload: %s", pool->def->name, error->message);
                pool_clear_volumes(pool);
            }
            storage_tell_refreshed(storage, pool);
        }
        pool_unlock(pool);
    }
    pool_unref(pool);
    storage->busy--;
    co_group_done(&storage->work);
}

void pool_refresh_later(struct pool *pool)
{
    pool->storage->busy++;
    co_group_add(&pool->storage->work, 1);
    co_spawn(pool->storage->loop, co_refresh_later, pool_ref(pool));
}

/* --- reading --- */

bool storage_pool_get_info(struct storage *storage, const struct pool_id *id, struct pool_info *ret,
                           struct pool_error **err)
{
    const struct pool *pool = storage_find_pool(storage, id, err);

    if (!pool)
        return false;
    *ret = (struct pool_info){
        .state = pool->active ? POOL_RUNNING : POOL_INACTIVE,
        .capacity = pool->def->capacity,
        .allocation = pool->def->allocation,
        .available = pool->def->available,
    };
    return true;
}

char *storage_pool_get_xml(struct storage *storage, const struct pool_id *id, unsigned flags, struct pool_error **err)
{
    const struct pool *pool;

    if (!pool_error_check_flags(err, flags, XML_INACTIVE, "storagePoolGetXMLDesc"))
        return NULL;
    pool = storage_find_pool(storage, id, err);
    if (!pool)
        return NULL;
    return pool_def_format(flags & XML_INACTIVE && pool->pending ? pool->pending : pool->def);
}

bool storage_pool_is_active(struct storage *storage, const struct pool_id *id, bool *ret, struct pool_error **err)
{
    const struct pool *pool = storage_find_pool(storage, id, err);

    if (pool)
        *ret = pool->active;
    return pool;
}

bool storage_pool_is_persistent(struct storage *storage, const struct pool_id *id, bool *ret, struct pool_error **err)
{
    const struct pool *pool = storage_find_pool(storage, id, err);

    if (pool)
        *ret = pool->config_path;
    return pool;
}
