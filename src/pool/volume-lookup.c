/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finding volumes, and what is known of them. */
#include <string.h>
#include <sys/stat.h>

#include "loop/loop.h"
#include "pool/pool-error.h"
#include "pool/storage-internal.h"

enum { INFO_PHYSICAL = 1 };

struct volume_id *storage_volume_by_name(struct storage *storage, const struct pool_id *id, const char *name,
                                         struct pool_error **err)
{
    const struct pool *pool = storage_find_active_pool(storage, id, err);
    const struct volume *volume = pool ? pool_find_volume(pool, name) : NULL;

    if (volume)
        return volume_get_id(pool, volume);
    if (pool)
        pool_error_set(err, POOL_ERROR_NO_VOLUME, "no storage vol with matching name '%s'", name);
    return NULL;
}

struct volume_id *storage_volume_by_key(struct storage *storage, const char *key, struct pool_error **err)
{
    for (guint i = 0; i < storage->pools->len; i++) {
        const struct pool *pool = g_ptr_array_index(storage->pools, i);
        const struct volume *volume = pool->active ? pool_find_key(pool, key) : NULL;

        if (volume)
            return volume_get_id(pool, volume);
    }
    pool_error_set(err, POOL_ERROR_NO_VOLUME, "no storage vol with matching key %s", key);
    return NULL;
}

/* The volume whose node is that of the device in `status`. Nodes are no files, so looking at them does not wait. */
static const struct volume *find_device(const struct pool *pool, const struct stat *status)
{
    for (size_t i = 0; i < pool_volume_count(pool); i++) {
        const struct volume *volume = pool_volume_at(pool, i);
        struct stat own;

        if (!stat(volume->target.path, &own) && S_ISBLK(own.st_mode) && own.st_rdev == status->st_rdev)
            return volume;
    }
    return NULL;
}

struct device_question {
    const char *path;
    struct stat status;
};

/* True: `path` is that of a block device. */
static int look_at_device(void *opaque)
{
    struct device_question *question = opaque;

    return !stat(question->path, &question->status) && S_ISBLK(question->status.st_mode);
}

struct volume_id *CO_FN co_storage_volume_by_path(struct storage *storage, const char *path, struct pool_error **err)
{
    g_autofree char *clean = path_squeeze(path);
    struct device_question question = {.path = clean};
    /* It is for the client to choose, and may lead out of /dev to where nobody answers. */
    bool is_device = g_str_has_prefix(clean, "/dev/") && co_worker_run(look_at_device, &question);

    for (guint i = 0; i < storage->pools->len; i++) {
        const struct pool *pool = g_ptr_array_index(storage->pools, i);
        unsigned flags = pool->backend ? pool->backend->flags : 0;
        const struct volume *volume = NULL;

        if (!pool->active)
            continue;
        volume = pool_find_path(pool, flags & BACKEND_EXACT_PATHS ? path : clean);
        if (!volume && is_device && flags & BACKEND_STABLE_PATHS)
            volume = find_device(pool, &question.status);
        if (volume)
            return volume_get_id(pool, volume);
    }
    if (strcmp(path, clean) != 0)
        pool_error_set(err, POOL_ERROR_NO_VOLUME, "no storage vol with matching path '%s' (%s)", path, clean);
    else
        pool_error_set(err, POOL_ERROR_NO_VOLUME, "no storage vol with matching path '%s'", path);
    return NULL;
}

char *storage_volume_get_path(struct storage *storage, const struct volume_id *id, struct pool_error **err)
{
    struct pool *pool;
    const struct volume *volume = storage_find_volume(storage, id, &pool, err);

    return volume ? g_strdup(volume->target.path) : NULL;
}

/*
 * A volume that is being made is what was asked for, and takes up what it has got so far. Whoever makes it goes by what
 * was asked for, so that is left alone, and what can be seen is seen on a stand-in.
 */
static struct volume *CO_FN co_look_at_unfinished(struct pool *pool, const struct volume *volume)
{
    struct volume *shown = volume_new();
    uint64_t capacity = volume->capacity;

    shown->name = g_strdup(volume->name);
    shown->key = g_strdup(volume->key);
    shown->type = volume->type;
    shown->capacity = capacity;
    shown->target.path = g_strdup(volume->new_path ? volume->new_path : volume->target.path);
    shown->target.format = volume->target.format;
    /* Maybe there is nothing to be seen yet. */
    if (pool->backend->volume->co_refresh)
        (void)pool->backend->volume->co_refresh(pool, shown, NULL);
    g_free(shown->target.path);
    shown->target.path = g_strdup(volume->target.path);
    shown->capacity = capacity;
    return shown;
}

/* The volume as it is now, referenced: others may take it out of the pool meanwhile. */
static struct volume *CO_FN co_look_again(struct storage *storage, const struct volume_id *id, enum pool_type *ret_type,
                                          struct pool_error **err)
{
    struct pool *pool;
    struct volume *volume = storage_find_volume(storage, id, &pool, err);
    bool ok = true;

    if (!volume)
        return NULL;
    volume_ref(volume);
    pool_ref(pool);
    *ret_type = pool->def->type;
    if (volume->building) {
        struct volume *shown = co_look_at_unfinished(pool, volume);

        volume_unref(volume);
        pool_unref(pool);
        return shown;
    }
    if (pool->backend->volume->co_refresh)
        ok = pool->backend->volume->co_refresh(pool, volume, err);
    pool_unref(pool);
    if (ok)
        return volume;
    volume_unref(volume);
    return NULL;
}

bool CO_FN co_storage_volume_get_info(struct storage *storage, const struct volume_id *id, unsigned flags,
                                      struct volume_info *ret, struct pool_error **err)
{
    AUTO(volume) volume = NULL;
    enum pool_type type;

    if (!pool_error_check_flags(err, flags, INFO_PHYSICAL, "storageVolGetInfoFlags"))
        return false;
    volume = co_look_again(storage, id, &type, err);
    if (!volume)
        return false;
    *ret = (struct volume_info){
        .type = volume->type,
        .capacity = volume->capacity,
        .allocation = flags & INFO_PHYSICAL ? volume->physical : volume->allocation,
    };
    return true;
}

char *CO_FN co_storage_volume_get_xml(struct storage *storage, const struct volume_id *id, unsigned flags,
                                      struct pool_error **err)
{
    AUTO(volume) volume = NULL;
    enum pool_type type;

    if (!pool_error_check_flags(err, flags, 0, "storageVolGetXMLDesc"))
        return NULL;
    volume = co_look_again(storage, id, &type, err);
    return volume ? volume_format_xml(volume, type) : NULL;
}
