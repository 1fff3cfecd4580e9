/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/pool.h"

#include <assert.h>
#include <string.h>

#include "pool/pool-error.h"

struct pool *pool_new(struct storage *storage, const struct pool_backend *backend, struct pool_def *def)
{
    struct pool *pool = g_new0(struct pool, 1);

    assert(def);
    pool->storage = storage;
    pool->backend = backend;
    pool->def = def;
    pool->references = 1;
    pool->volumes = g_ptr_array_new();
    pool->by_name = g_hash_table_new(g_str_hash, g_str_equal);
    pool->by_key = g_hash_table_new(g_str_hash, g_str_equal);
    pool->by_path = g_hash_table_new(g_str_hash, g_str_equal);
    return pool;
}

struct pool *pool_ref(struct pool *pool)
{
    assert(pool->references > 0);
    pool->references++;
    return pool;
}

void pool_unref(struct pool *pool)
{
    if (!pool)
        return;
    assert(pool->references > 0);
    if (--pool->references)
        return;
    pool_clear_volumes(pool);
    g_ptr_array_free(pool->volumes, TRUE);
    g_hash_table_destroy(pool->by_name);
    g_hash_table_destroy(pool->by_key);
    g_hash_table_destroy(pool->by_path);
    pool_def_free(pool->def);
    pool_def_free(pool->pending);
    g_free(pool->config_path);
    co_mutex_done(&pool->lock);
    g_free(pool);
}

/* --- volumes --- */

static bool is_known(GHashTable *table, const char *text)
{
    return g_hash_table_lookup(table, text);
}

bool pool_add_volume(struct pool *pool, struct volume *volume, struct pool_error **err)
{
    const char *what = NULL;

    if (!volume->name || !volume->key || !volume->target.path)
        what = "lacks a name, key or path";
    else if (is_known(pool->by_name, volume->name))
        what = "has the name of another";
    else if (is_known(pool->by_key, volume->key))
        what = "has the key of another";
    else if (is_known(pool->by_path, volume->target.path))
        what = "has the path of another";
    if (what) {
        pool_error_set(err, POOL_ERROR_INTERNAL, "volume '%s' of pool '%s' %s", volume->name ? volume->name : "",
                       pool->def->name, what);
        volume_unref(volume);
        return false;
    }
    volume->place = pool->volumes->len;
    g_ptr_array_add(pool->volumes, volume);
    g_hash_table_insert(pool->by_name, volume->name, volume);
    g_hash_table_insert(pool->by_key, volume->key, volume);
    g_hash_table_insert(pool->by_path, volume->target.path, volume);
    return true;
}

void pool_remove_volume(struct pool *pool, struct volume *volume)
{
    struct volume *last = pool_volume_at(pool, pool->volumes->len - 1);

    assert(pool_volume_at(pool, volume->place) == volume);
    g_hash_table_remove(pool->by_name, volume->name);
    g_hash_table_remove(pool->by_key, volume->key);
    g_hash_table_remove(pool->by_path, volume->target.path);
    last->place = volume->place;
    g_ptr_array_remove_index_fast(pool->volumes, (guint)volume->place);
    volume_unref(volume);
}

void pool_clear_volumes(struct pool *pool)
{
    g_hash_table_remove_all(pool->by_name);
    g_hash_table_remove_all(pool->by_key);
    g_hash_table_remove_all(pool->by_path);
    for (guint i = 0; i < pool->volumes->len; i++)
        volume_unref(pool_volume_at(pool, i));
    g_ptr_array_set_size(pool->volumes, 0);
}

struct volume *pool_find_volume(const struct pool *pool, const char *name)
{
    return g_hash_table_lookup(pool->by_name, name);
}

struct volume *pool_find_key(const struct pool *pool, const char *key)
{
    return g_hash_table_lookup(pool->by_key, key);
}

struct volume *pool_find_path(const struct pool *pool, const char *path)
{
    return g_hash_table_lookup(pool->by_path, path);
}

size_t pool_volume_count(const struct pool *pool)
{
    return pool->volumes->len;
}

struct volume *pool_volume_at(const struct pool *pool, size_t index)
{
    assert(index < pool->volumes->len);
    return g_ptr_array_index(pool->volumes, index);
}

void pool_count_allocation(struct pool *pool, int64_t bytes)
{
    struct pool_def *def = pool->def;
    uint64_t size = (uint64_t)(bytes < 0 ? -bytes : bytes);

    if (bytes >= 0) {
        def->allocation += size;
        def->available -= MIN(def->available, size);
    } else {
        def->allocation -= MIN(def->allocation, size);
        def->available += size;
    }
}
