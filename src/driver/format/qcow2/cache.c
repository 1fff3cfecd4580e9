/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tables in memory: look-up, loading, and the choice of what leaves (a clock). See cache.h. */
#include "driver/format/qcow2/cache.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "loop/loop.h"

enum { SHARDS_MAX = 16, TABLES_PER_SHARD_MIN = 16 };

static bool shard_init(struct qcow2_shard *shard, uint32_t capacity, uint32_t buckets)
{
    shard->tables = g_try_new0(struct qcow2_table, capacity);
    shard->buckets = g_try_new(uint32_t, buckets);
    if (!shard->tables || !shard->buckets)
        return false;
    memset(shard->buckets, 0xff, buckets * sizeof(*shard->buckets));
    return true;
}

struct qcow2_cache *qcow2_cache_new(struct qcow2_image *image, uint64_t bytes, uint32_t table_bytes,
                                    qcow2_table_load *co_load, qcow2_tables_clean *co_clean)
{
    uint64_t tables = MAX(bytes / table_bytes, QCOW2_CACHE_TABLES_MIN);
    struct qcow2_cache *cache;
    uint32_t shards = 1;

    assert(is_power_of_two(table_bytes));
    if (tables > UINT32_MAX / 4)
        return NULL;
    while (shards < SHARDS_MAX && tables / (shards * 2) >= TABLES_PER_SHARD_MIN)
        shards *= 2;
    cache = g_new0(struct qcow2_cache, 1);
    *cache = (struct qcow2_cache){
        .image = image,
        .table_bytes = table_bytes,
        .unit_bytes = MIN(MAX(table_bytes / QCOW2_TABLE_UNITS, QCOW2_UNIT_BYTES_MIN), table_bytes),
        .shard_count = shards,
        .shard_capacity = (uint32_t)(tables / shards),
        .co_load = co_load,
        .co_clean = co_clean,
    };
    cache->bucket_mask = 1;
    while (cache->bucket_mask < cache->shard_capacity)
        cache->bucket_mask = cache->bucket_mask * 2 + 1;
    cache->shards = g_aligned_alloc0(shards, sizeof(struct qcow2_shard), 64);
    for (uint32_t i = 0; i < shards; i++) {
        if (!shard_init(&cache->shards[i], cache->shard_capacity, cache->bucket_mask + 1)) {
            qcow2_cache_free(cache);
            return NULL;
        }
    }
    return cache;
}

static uint32_t *bucket_of(const struct qcow2_cache *cache, struct qcow2_shard *shard, uint64_t key)
{
    return &shard->buckets[(qcow2_key_hash(key) >> 4) & cache->bucket_mask];
}

static void table_forget(const struct qcow2_cache *cache, struct qcow2_shard *shard, struct qcow2_table *table)
{
    uint32_t *link = bucket_of(cache, shard, table->key);

    while (&shard->tables[*link] != table) {
        assert(*link != QCOW2_NO_TABLE);
        link = &shard->tables[*link].next;
    }
    *link = table->next;
    table->state = QCOW2_TABLE_EMPTY;
}

/* --- dropping --- */

static void table_release(const struct qcow2_cache *cache, struct qcow2_shard *shard, struct qcow2_table *table)
{
    assert(!table->pins);
    assert(!table->writing);
    if (table->dirty)
        qcow2_shard_count_dirty(shard, -1);
    table->dirty = 0;
    table_forget(cache, shard, table);
    loop_table_put(TAKE(table->data));
}

void qcow2_cache_drop(struct qcow2_cache *cache)
{
    for (uint32_t i = 0; i < cache->shard_count; i++) {
        struct qcow2_shard *shard = &cache->shards[i];

        spin_lock(&shard->spin);
        for (uint32_t j = 0; j < cache->shard_capacity; j++) {
            assert(shard->tables[j].state != QCOW2_TABLE_LOADING);
            if (shard->tables[j].state == QCOW2_TABLE_READY)
                table_release(cache, shard, &shard->tables[j]);
        }
        assert(!shard->dirty_count);
        spin_unlock(&shard->spin);
    }
}

void qcow2_cache_free(struct qcow2_cache *cache)
{
    if (!cache)
        return;
    for (uint32_t i = 0; i < cache->shard_count; i++) {
        struct qcow2_shard *shard = &cache->shards[i];

        assert(!shard->waiters);
        assert(!shard->allocations);
        for (uint32_t j = 0; shard->tables && shard->buckets && j < cache->shard_capacity; j++) {
            if (shard->tables[j].state == QCOW2_TABLE_READY)
                table_release(cache, shard, &shard->tables[j]);
        }
        g_free(shard->tables);
        g_free(shard->buckets);
    }
    g_aligned_free(cache->shards);
    g_free(cache);
}

static bool may_leave(const struct qcow2_table *table)
{
    return table->state == QCOW2_TABLE_READY && !table->pins && !table->dirty && !table->writing;
}

void qcow2_cache_trim(struct qcow2_cache *cache)
{
    for (uint32_t i = 0; i < cache->shard_count; i++) {
        struct qcow2_shard *shard = &cache->shards[i];

        spin_lock(&shard->spin);
        for (uint32_t j = 0; j < cache->shard_capacity; j++) {
            struct qcow2_table *table = &shard->tables[j];

            if (may_leave(table) && !table->used_since)
                table_release(cache, shard, table);
            table->used_since = false;
        }
        spin_unlock(&shard->spin);
    }
}

/* --- finding --- */

static struct qcow2_table *find_any(const struct qcow2_cache *cache, struct qcow2_shard *shard, uint64_t key)
{
    uint32_t i = *bucket_of(cache, shard, key);

    while (i != QCOW2_NO_TABLE && shard->tables[i].key != key)
        i = shard->tables[i].next;
    return i == QCOW2_NO_TABLE ? NULL : &shard->tables[i];
}

static inline void mark_used(struct qcow2_table *table)
{
    /* Not written where it stands already: the line is shared by loops. */
    if (!table->used || !table->used_since) {
        table->used = true;
        table->used_since = true;
    }
}

struct qcow2_table *qcow2_cache_find(const struct qcow2_cache *cache, struct qcow2_shard *shard, uint64_t key)
{
    struct qcow2_table *table = find_any(cache, shard, key);

    if (!table || table->state != QCOW2_TABLE_READY)
        return NULL;
    mark_used(table);
    return table;
}

/*
 * A place for another table: free, or that of one which was not used for a while. NULL: all are in use or changed.
 * Where most are changed it is time to write them, rather than to make do with the few others.
 */
static struct qcow2_table *take_place(const struct qcow2_cache *cache, struct qcow2_shard *shard)
{
    if (shard->dirty_count > cache->shard_capacity - cache->shard_capacity / 4)
        return NULL;
    for (uint32_t i = 0; i < 2 * cache->shard_capacity; i++) {
        struct qcow2_table *table = &shard->tables[shard->hand];

        shard->hand = (shard->hand + 1) % cache->shard_capacity;
        if (table->state == QCOW2_TABLE_EMPTY)
            return table;
        if (!may_leave(table))
            continue;
        if (!table->used) {
            table_forget(cache, shard, table);
            return table;
        }
        table->used = false;
    }
    return NULL;
}

/* --- loading --- */

static int CO_FN co_fill(struct qcow2_cache *cache, struct qcow2_table *table)
{
    if (!table->data)
        table->data = loop_table_get(cache->table_bytes);
    return table->data ? cache->co_load(cache->image, table->key, table->data) : -ENOMEM;
}

/* Loads into an empty place; under the lock, before and after. Pinned on success. */
static int CO_FN co_load_into(struct qcow2_cache *cache, struct qcow2_shard *shard, struct qcow2_table *table,
                              uint64_t key)
{
    uint32_t *bucket = bucket_of(cache, shard, key);
    uint32_t *hold;
    int ret;

    table->key = key;
    table->state = QCOW2_TABLE_LOADING;
    table->pins = 1;
    table->next = *bucket;
    *bucket = (uint32_t)(table - shard->tables);
    /* The place that is read in the file stays what it is. */
    hold = &shard->holds[shard->epoch & 1];
    __atomic_add_fetch(hold, 1, __ATOMIC_RELAXED);
    spin_unlock(&shard->spin);
    ret = co_fill(cache, table);
    __atomic_sub_fetch(hold, 1, __ATOMIC_RELEASE);
    spin_lock(&shard->spin);
    if (ret) {
        table->pins = 0;
        table_forget(cache, shard, table);
        /* An empty place has no memory, or nobody would give it back. */
        loop_table_put(TAKE(table->data));
    } else {
        table->state = QCOW2_TABLE_READY;
        mark_used(table);
    }
    waiters_wake(&shard->waiters);
    return ret;
}

int CO_FN co_qcow2_cache_lock(struct qcow2_cache *cache, uint64_t key, struct qcow2_table **ret_table)
{
    struct qcow2_shard *shard = qcow2_cache_shard(cache, key);
    int ret = 0;

    spin_lock(&shard->spin);
    for (;;) {
        struct qcow2_table *table = find_any(cache, shard, key);

        if (table && table->state == QCOW2_TABLE_READY) {
            mark_used(table);
            table->pins++;
            *ret_table = table;
            return 0;
        }
        if (table) {
            co_waiter_wait(&shard->waiters, &shard->spin);
            continue;
        }
        table = take_place(cache, shard);
        if (table) {
            ret = co_load_into(cache, shard, table, key);
            *ret_table = table;
        } else if (shard->dirty_count) {
            spin_unlock(&shard->spin);
            ret = cache->co_clean(cache->image);
            spin_lock(&shard->spin);
            if (!ret)
                continue;
        } else {
            co_waiter_wait(&shard->waiters, &shard->spin);
            continue;
        }
        if (ret)
            spin_unlock(&shard->spin);
        return ret;
    }
}

void qcow2_cache_unpin(struct qcow2_shard *shard, struct qcow2_table *table)
{
    assert(table->pins);
    if (--table->pins == 0 && unlikely(shard->waiters))
        waiters_wake(&shard->waiters);
}

void qcow2_cache_unlock(struct qcow2_shard *shard, struct qcow2_table *table)
{
    qcow2_cache_unpin(shard, table);
    spin_unlock(&shard->spin);
}

void qcow2_table_set_dirty(const struct qcow2_cache *cache, struct qcow2_shard *shard, struct qcow2_table *table,
                           uint32_t at, uint32_t bytes)
{
    unsigned first = at / cache->unit_bytes, last = (at + bytes - 1) / cache->unit_bytes;

    assert(table->state == QCOW2_TABLE_READY);
    assert(at + bytes <= cache->table_bytes);
    if (!table->dirty)
        qcow2_shard_count_dirty(shard, 1);
    table->dirty |= (UINT64_MAX >> (63 - last)) & (UINT64_MAX << first);
}
