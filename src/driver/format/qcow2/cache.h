/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tables of one kind in memory: slices of L2 tables, or refcount blocks. A fixed number of places, set by the image's
 * cache options; a place has memory only while it holds a table.
 *
 * The cache is cut into shards by key. A shard's spin lock guards its places and the contents of the tables in them,
 * and is held for a look-up or an update, never across a suspension. So who finds a table waits for nobody's I/O; who
 * does not, waits for the load of that table alone.
 *
 * Keeps: (1) a table has at most one place; (2) what is pinned, being loaded, being written or changed is not evicted;
 * (3) `dirty` has a bit for each unit that may differ from the file, or is about to be written there.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "block/waiter.h"
#include "loop/lock.h"

struct qcow2_allocation;
struct qcow2_image;

enum qcow2_table_state {
    QCOW2_TABLE_EMPTY,   /* a free place */
    QCOW2_TABLE_LOADING, /* somebody reads it */
    QCOW2_TABLE_READY,
};

enum { QCOW2_TABLE_UNITS = 64, QCOW2_UNIT_BYTES_MIN = 4096 };

/* All of the shard's lock. */
struct qcow2_table {
    uint64_t key;
    uint8_t *data;  /* big-endian, as in the file; table_bytes, NULL while EMPTY */
    uint64_t dirty; /* units that have changed since they were last taken for writing */
    uint32_t pins;
    uint32_t next; /* in its bucket; QCOW2_NO_TABLE: the last */
    enum qcow2_table_state state;
    bool writing;    /* some of its units are on their way to the file */
    bool used;       /* since the clock's hand came by */
    bool used_since; /* since the last cleaning */
};

#define QCOW2_NO_TABLE UINT32_MAX

struct qcow2_shard {
    struct spin_lock spin; /* of all below, and of the tables */
    uint32_t hand;         /* of the clock that looks for a victim */
    uint32_t dirty_count;  /* atomic: tables with dirty units; written under the lock */
    struct qcow2_table *tables;
    uint32_t *buckets;
    struct waiter *waiters; /* for a load or a write to end, a pin to go, an allocation to end */

    struct qcow2_allocation *allocations; /* L2: guest clusters that are getting their place */
    uint32_t epoch;                       /* L2: counts up with each grace period; see qcow2_hold */
    uint32_t holds[2];                    /* L2: atomic: requests that use what they found, by the epoch's parity */
} __attribute__((aligned(64)));

/* Reads the table into `to`. 0 or -errno. */
typedef int qcow2_table_load(struct qcow2_image *image, uint64_t key, uint8_t *to);
/* Makes some dirty table clean, so that one can be evicted. 0 or -errno. */
typedef int qcow2_tables_clean(struct qcow2_image *image);

struct qcow2_cache {
    struct qcow2_image *image;
    uint32_t table_bytes;    /* power of two */
    uint32_t unit_bytes;     /* of a bit of `dirty`; power of two */
    uint32_t shard_count;    /* power of two */
    uint32_t shard_capacity; /* places a shard */
    uint32_t bucket_mask;
    qcow2_table_load *co_load;
    qcow2_tables_clean *co_clean;
    struct qcow2_shard *shards;
};

/* `bytes`: of memory for tables, at most; at least QCOW2_CACHE_TABLES_MIN tables are always held. */
enum { QCOW2_CACHE_TABLES_MIN = 4 };
struct qcow2_cache *qcow2_cache_new(struct qcow2_image *image, uint64_t bytes, uint32_t table_bytes,
                                    qcow2_table_load *co_load, qcow2_tables_clean *co_clean);
/* Nothing may be pinned; what is dirty is lost. NULL is allowed. */
void qcow2_cache_free(struct qcow2_cache *cache);

/* Forgets all tables. Nothing may be pinned, being loaded or written. What is dirty is lost. */
void qcow2_cache_drop(struct qcow2_cache *cache);

/* Gives back the memory of clean tables that were not used since the last call. Any loop. */
void qcow2_cache_trim(struct qcow2_cache *cache);

static inline uint32_t qcow2_key_hash(uint64_t key)
{
    return (uint32_t)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 32);
}

static inline struct qcow2_shard *qcow2_cache_shard(const struct qcow2_cache *cache, uint64_t key)
{
    return &cache->shards[qcow2_key_hash(key) & (cache->shard_count - 1)];
}

/* Tables with dirty units: one more or less. Under the lock. */
static inline void qcow2_shard_count_dirty(struct qcow2_shard *shard, int delta)
{
    __atomic_store_n(&shard->dirty_count, shard->dirty_count + (uint32_t)delta, __ATOMIC_RELAXED);
}

/* The READY table, or NULL. Under the shard's lock, which guards what it returns. Any loop. */
struct qcow2_table *qcow2_cache_find(const struct qcow2_cache *cache, struct qcow2_shard *shard, uint64_t key);

/* The READY table, pinned, with the shard's lock held: loaded if need be. 0 or -errno, without the lock. Any loop. */
int CO_FN co_qcow2_cache_lock(struct qcow2_cache *cache, uint64_t key, struct qcow2_table **ret) MUST_CHECK;

/* Releases the pin and keeps the lock, which guards the table until it is released, too. */
void qcow2_cache_unpin(struct qcow2_shard *shard, struct qcow2_table *table);

/* Releases the pin, and with it the lock. */
void qcow2_cache_unlock(struct qcow2_shard *shard, struct qcow2_table *table);

/* Keeps the pin. */
static inline void qcow2_cache_unlock_pinned(struct qcow2_shard *shard)
{
    spin_unlock(&shard->spin);
}

/* The bytes [at, at + bytes) of the table have changed. Under the lock. */
void qcow2_table_set_dirty(const struct qcow2_cache *cache, struct qcow2_shard *shard, struct qcow2_table *table,
                           uint32_t at, uint32_t bytes);
