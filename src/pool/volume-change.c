/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Making, deleting, resizing and wiping volumes: who may do what when. The work itself is the backends'. */
#include <assert.h>
#include <string.h>

#include "base/log.h"
#include "pool/pool-error.h"
#include "pool/storage-internal.h"
#include "pool/volume-job.h"
#include "pool/xml/schema.h"

/* --- who may --- */

bool volume_check_free(const struct volume *volume, struct pool_error **err)
{
    if (volume->in_use)
        return pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "volume '%s' is still in use.", volume->name);
    return volume_check_built(volume, err);
}

bool volume_check_built(const struct volume *volume, struct pool_error **err)
{
    return !volume->building ||
           pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "volume '%s' is still being allocated.", volume->name);
}

bool CO_FN co_volume_begin(struct storage *storage, const struct volume_id *id, struct volume_job *ret,
                           struct pool_error **err)
{
    struct pool *pool;

    if (!storage_find_volume(storage, id, &pool, err))
        return false;
    pool_ref(pool);
    if (!co_pool_lock(pool, err)) {
        pool_unref(pool);
        return false;
    }
    /* Waiting for the lock took its time. */
    ret->volume = storage_find_volume(storage, id, &ret->pool, err);
    if (!ret->volume || ret->pool != pool) {
        pool_unlock(pool);
        pool_unref(pool);
        return false;
    }
    volume_ref(ret->volume);
    storage->busy++;
    return true;
}

void volume_end(struct volume_job *job)
{
    job->pool->storage->busy--;
    volume_unref(job->volume);
    pool_unlock(job->pool);
    pool_unref(job->pool);
}

void volume_job_go(struct volume_job *job)
{
    job->volume->in_use++;
    job->pool->jobs++;
    pool_unlock(job->pool);
}

void CO_FN co_volume_job_return(struct volume_job *job)
{
    co_mutex_lock(&job->pool->lock);
    assert(job->pool->jobs > 0);
    assert(job->volume->in_use > 0);
    job->volume->in_use--;
    job->pool->jobs--;
}

/* --- making --- */

static const struct pool_backend_volume *operations(const struct pool *pool)
{
    return pool->backend->volume;
}

/* The pool's numbers after a volume has come or gone. */
static void count(struct pool *pool, int64_t bytes)
{
    if (!(pool->backend->flags & BACKEND_COUNTS_ITSELF))
        pool_count_allocation(pool, bytes);
}

/* Under the lock. The volume (borrowed) is in the pool's list after it. */
static bool CO_FN co_add(struct pool *pool, struct volume *volume, struct pool_error **err)
{
    AUTO(pool_error) error = NULL;

    if (!operations(pool)->co_create(pool, volume, err))
        return false;
    if (pool_add_volume(pool, volume_ref(volume), &error))
        return true;
    if (operations(pool)->co_delete)
        (void)operations(pool)->co_delete(pool, volume, 0, NULL);
    return pool_error_move(err, TAKE(error));
}

/* Under the lock: what failed halfway leaves nothing behind. */
static void CO_FN co_take_back(struct pool *pool, struct volume *volume)
{
    AUTO(pool_error) error = NULL;

    if (!volume->unmade && operations(pool)->co_delete && !operations(pool)->co_delete(pool, volume, 0, &error))
        log_warning("volume '%s' of pool '%s', whose making failed: %s", volume->name, pool->def->name, error->message);
    if (pool_find_volume(pool, volume->name) == volume)
        pool_remove_volume(pool, volume);
}

/* The rest of the making, with the lock held before and after it but not while the content is made. */
static bool CO_FN co_make(struct pool *pool, struct volume *volume, struct pool *source_pool, struct volume *source,
                          unsigned flags, struct pool_error **err)
{
    bool ok = true;

    volume->building = true;
    pool->jobs++;
    pool_unlock(pool);
    if (source)
        ok = operations(pool)->co_build_from(pool, volume, source_pool, source, flags, err);
    else if (operations(pool)->co_build)
        ok = operations(pool)->co_build(pool, volume, flags, err);
    co_mutex_lock(&pool->lock);
    pool->jobs--;
    if (ok && operations(pool)->co_refresh)
        ok = operations(pool)->co_refresh(pool, volume, err);
    volume->building = false;
    if (!ok)
        co_take_back(pool, volume);
    else
        count(pool, (int64_t)volume->allocation);
    return ok;
}

static bool check_new(const struct pool *pool, const struct volume *volume, struct pool_error **err)
{
    if (!volume->has_capacity && !(pool->backend->flags & BACKEND_NO_CAPACITY))
        return pool_error_set(err, POOL_ERROR_NO_SUPPORT, "volume capacity required for this storage pool");
    return !pool_find_volume(pool, volume->name) || pool_error_set(err, POOL_ERROR_VOLUME_EXISTS, "'%s'", volume->name);
}

/* While the lock was waited for, the pool may have stopped, and gone on as one of another type. */
static bool check_same(const struct pool *pool, const struct pool_backend *backend, struct pool_error **err)
{
    if (!pool_check_active(pool, err))
        return false;
    return pool->backend == backend ||
           pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "storage pool '%s' has been redefined", pool->def->name);
}

/* Under the lock of `pool`. */
static bool CO_FN co_create(struct pool *pool, struct volume *volume, unsigned flags, struct pool_error **err)
{
    return check_new(pool, volume, err) && co_add(pool, volume, err) && co_make(pool, volume, NULL, NULL, flags, err);
}

static bool check_copy(const struct pool *pool, struct volume *volume, const struct volume *source,
                       struct pool_error **err)
{
    if (pool_find_volume(pool, volume->name))
        return pool_error_set(err, POOL_ERROR_INTERNAL, "storage volume name '%s' already in use.", volume->name);
    /* A logical volume with an origin has as much room as was given to its changes: a copy, which is all of them, is a
     * whole volume. */
    if (pool->def->type == POOL_LOGICAL && volume->backing) {
        g_clear_pointer(&volume->backing, volume_target_free);
        volume->has_allocation = false;
    }
    volume->capacity = MAX(volume->capacity, source->capacity);
    volume->has_capacity = true;
    if (!volume->has_allocation)
        volume->allocation = volume->capacity;
    return true;
}

/* Under the lock of `pool`; the source is marked as in use. */
static bool CO_FN co_create_from(struct pool *pool, struct volume *volume, const struct volume_job *from,
                                 unsigned flags, struct pool_error **err)
{
    return (!operations(from->pool)->co_refresh || operations(from->pool)->co_refresh(from->pool, from->volume, err)) &&
           check_copy(pool, volume, from->volume, err) && co_add(pool, volume, err) &&
           co_make(pool, volume, from->pool, from->volume, flags, err);
}

/* What both ways of making one ask of their arguments; the pool, referenced. */
static struct pool *check_request(struct storage *storage, const struct pool_id *id, const char *xml, bool copy,
                                  unsigned flags, struct volume **ret_volume, struct pool_error **err)
{
    struct pool *pool = storage_find_active_pool(storage, id, err);

    if (!pool || (flags & VOLUME_CREATE_VALIDATE && !xml_check_volume(xml, pool->def->type, copy, err)))
        return NULL;
    *ret_volume = volume_parse(xml, pool->def->type, copy, err);
    if (!*ret_volume)
        return NULL;
    if (operations(pool)->co_create && (!copy || operations(pool)->co_build_from))
        return pool_ref(pool);
    pool_error_set(err, POOL_ERROR_NO_SUPPORT, "storage pool does not support volume creation%s",
                   copy ? " from an existing volume" : "");
    return NULL;
}

/* A volume that is to be made in a pool, which was one of that backend when the volume was read. */
struct creation {
    struct pool *pool;
    const struct pool_backend *backend;
    struct volume *volume;
    unsigned flags;
};

/* `from` NULL: an empty one. */
static struct volume_id *CO_FN co_create_in(const struct creation *creation, const struct volume_job *from,
                                            struct pool_error **err)
{
    struct pool *pool = creation->pool;
    struct volume *volume = creation->volume;
    struct volume_id *ret = NULL;

    if (!co_pool_lock(pool, err))
        return NULL;
    pool->storage->busy++;
    if (check_same(pool, creation->backend, err) && (from ? co_create_from(pool, volume, from, creation->flags, err)
                                                          : co_create(pool, volume, creation->flags, err)))
        ret = volume_get_id(pool, volume);
    pool->storage->busy--;
    pool_unlock(pool);
    return ret;
}

/* `source` NULL: an empty one. Of two pools never both locks are held: others may copy the other way. */
static struct volume_id *CO_FN co_create_xml(struct storage *storage, const struct pool_id *id, const char *xml,
                                             const struct volume_id *source, unsigned flags, struct pool_error **err)
{
    AUTO(volume) volume = NULL;
    AUTO(pool) pool = check_request(storage, id, xml, source, flags, &volume, err);
    struct creation creation = {pool, pool ? pool->backend : NULL, volume, flags};
    struct volume_id *ret = NULL;
    struct volume_job from;

    if (!pool)
        return NULL;
    if (!source)
        return co_create_in(&creation, NULL, err);
    /* Under its pool's lock, so that it is not marked while a refresh or stop of the pool is under way. */
    if (!co_volume_begin(storage, source, &from, err))
        return NULL;
    if (volume_check_built(from.volume, err)) {
        volume_job_go(&from);
        ret = co_create_in(&creation, &from, err);
        co_volume_job_return(&from);
    }
    volume_end(&from);
    return ret;
}

struct volume_id *CO_FN co_storage_volume_create_xml(struct storage *storage, const struct pool_id *id, const char *xml,
                                                     unsigned flags, struct pool_error **err)
{
    if (!pool_error_check_flags(err, flags, VOLUME_CREATE_PREALLOC_METADATA | VOLUME_CREATE_VALIDATE,
                                "storageVolCreateXML"))
        return NULL;
    return co_create_xml(storage, id, xml, NULL, flags, err);
}

struct volume_id *CO_FN co_storage_volume_create_xml_from(struct storage *storage, const struct pool_id *id,
                                                          const char *xml, const struct volume_id *source,
                                                          unsigned flags, struct pool_error **err)
{
    if (!pool_error_check_flags(err, flags,
                                VOLUME_CREATE_PREALLOC_METADATA | VOLUME_CREATE_REFLINK | VOLUME_CREATE_VALIDATE,
                                "storageVolCreateXMLFrom"))
        return NULL;
    return co_create_xml(storage, id, xml, source, flags, err);
}

/* --- deleting --- */

bool CO_FN co_storage_volume_delete(struct storage *storage, const struct volume_id *id, unsigned flags,
                                    struct pool_error **err)
{
    struct volume_job job;
    bool ok;

    if (!co_volume_begin(storage, id, &job, err))
        return false;
    ok = volume_check_free(job.volume, err);
    if (ok && !operations(job.pool)->co_delete)
        ok = pool_error_set(err, POOL_ERROR_NO_SUPPORT, "storage pool does not support vol deletion");
    ok = ok && operations(job.pool)->co_delete(job.pool, job.volume, flags, err);
    if (ok) {
        count(job.pool, -(int64_t)job.volume->allocation);
        if (pool_find_volume(job.pool, job.volume->name) == job.volume)
            pool_remove_volume(job.pool, job.volume);
    }
    volume_end(&job);
    return ok;
}

/* --- resizing --- */

static bool find_capacity(const struct volume *volume, uint64_t given, unsigned flags, uint64_t *ret,
                          struct pool_error **err)
{
    *ret = given;
    if (!(flags & VOLUME_RESIZE_DELTA))
        return true;
    if (flags & VOLUME_RESIZE_SHRINK)
        *ret = volume->capacity - MIN(given, volume->capacity);
    else if (__builtin_add_overflow(volume->capacity, given, ret) || *ret > INT64_MAX)
        return pool_error_set(err, POOL_ERROR_OVERFLOW, "capacity too large: %llu and %llu bytes more",
                              (unsigned long long)volume->capacity, (unsigned long long)given);
    return true;
}

static bool check_capacity(const struct pool *pool, const struct volume *volume, uint64_t capacity, unsigned flags,
                           struct pool_error **err)
{
    if (capacity > INT64_MAX)
        return pool_error_set(err, POOL_ERROR_OVERFLOW, "capacity too large: %llu", (unsigned long long)capacity);
    if (capacity < volume->allocation)
        return pool_error_set(err, POOL_ERROR_INVALID_ARG, "can't shrink capacity below existing allocation");
    if (capacity < volume->capacity && !(flags & VOLUME_RESIZE_SHRINK))
        return pool_error_set(err, POOL_ERROR_INVALID_ARG,
                              "Can't shrink capacity below current capacity unless shrink flag explicitly specified");
    if (flags & VOLUME_RESIZE_ALLOCATE && capacity - volume->allocation > pool->def->available)
        return pool_error_set(err, POOL_ERROR_OPERATION_FAILED, "Not enough space left in storage pool");
    return true;
}

/* Begins and ends under the lock; a file that gets all of its space may take long. */
static bool CO_FN co_resize(struct volume_job *job, uint64_t given, unsigned flags, struct pool_error **err)
{
    struct pool *pool = job->pool;
    struct volume *volume = job->volume;
    uint64_t capacity;
    bool ok;

    if (!volume_check_free(volume, err) || !find_capacity(volume, given, flags, &capacity, err) ||
        !check_capacity(pool, volume, capacity, flags, err))
        return false;
    if (!operations(pool)->co_resize)
        return pool_error_set(err, POOL_ERROR_NO_SUPPORT, "storage pool does not support changing of volume capacity");
    volume_job_go(job);
    ok = operations(pool)->co_resize(pool, volume, capacity, flags & ~(unsigned)VOLUME_RESIZE_DELTA, err);
    co_volume_job_return(job);
    if (!ok)
        return false;
    volume->capacity = capacity;
    if (flags & VOLUME_RESIZE_ALLOCATE && capacity > volume->allocation) {
        count(pool, (int64_t)(capacity - volume->allocation));
        volume->allocation = capacity;
    }
    return true;
}

bool CO_FN co_storage_volume_resize(struct storage *storage, const struct volume_id *id, uint64_t capacity,
                                    unsigned flags, struct pool_error **err)
{
    struct volume_job job;
    bool ok;

    if (!capacity && !(flags & (VOLUME_RESIZE_DELTA | VOLUME_RESIZE_SHRINK)))
        return pool_error_set_argument(
            err, "virStorageVolResize", "capacity",
            "capacity in virStorageVolResize cannot be zero without 'delta' or 'shrink' flags set");
    if (!pool_error_check_flags(err, flags, VOLUME_RESIZE_ALLOCATE | VOLUME_RESIZE_DELTA | VOLUME_RESIZE_SHRINK,
                                "storageVolResize") ||
        !co_volume_begin(storage, id, &job, err))
        return false;
    ok = co_resize(&job, capacity, flags, err);
    volume_end(&job);
    return ok;
}

/* --- wiping --- */

bool CO_FN co_storage_volume_wipe(struct storage *storage, const struct volume_id *id, unsigned algorithm,
                                  unsigned flags, struct pool_error **err)
{
    struct volume_job job;
    bool ok;

    if (!pool_error_check_flags(err, flags, 0, "storageVolWipePattern"))
        return false;
    if (algorithm >= VOLUME_WIPE__MAX)
        return pool_error_set(err, POOL_ERROR_INVALID_ARG, "wiping algorithm %d not supported", (int)algorithm);
    if (!co_volume_begin(storage, id, &job, err))
        return false;
    ok = volume_check_free(job.volume, err);
    if (ok && !operations(job.pool)->co_wipe)
        ok = pool_error_set(err, POOL_ERROR_NO_SUPPORT, "storage pool doesn't support volume wiping");
    if (ok) {
        volume_job_go(&job);
        ok = operations(job.pool)->co_wipe(job.pool, job.volume, (enum volume_wipe_algorithm)algorithm, err);
        co_volume_job_return(&job);
    }
    volume_end(&job);
    return ok;
}
