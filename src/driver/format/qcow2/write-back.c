/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From the caches to the file, in the order that a crash bears:
 *  1. refcount blocks, then (behind a flush) the refcount table's entries for new ones;
 *  2. a flush of all children: now data, counts, and new L2 tables are durable;
 *  3. L2 tables and L1 entries that name them.
 * What is written in step 3 is what was there before step 1 began: each entry of it was made after its data had been
 * written and its count raised, so both are in step 1 or behind it. Entries that are made later are for the next time.
 *
 * Refcount blocks go out alone where they must leave the cache; that harms nobody.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "driver/format/qcow2/request.h"
#include "loop/loop.h"

/* Copies of L2 units that are held at once. What is more is written in a second round. */
enum { BATCH_BYTES = 4 << 20, L1_SECTOR_ENTRIES = 64 };

/* Units of a table that are on their way to the file. */
struct taken_unit {
    struct qcow2_shard *shard;
    struct qcow2_table *table;
    uint64_t key;
    uint32_t at; /* in the table, bytes */
    uint8_t *data;
};

struct taken_units {
    struct qcow2_cache *cache;
    GArray *units; /* struct taken_unit */
    uint64_t room; /* bytes that may still be taken */
};

static bool cache_is_dirty(const struct qcow2_cache *cache)
{
    for (uint32_t i = 0; i < cache->shard_count; i++) {
        if (__atomic_load_n(&cache->shards[i].dirty_count, __ATOMIC_RELAXED))
            return true;
    }
    return false;
}

/* --- taking --- */

/* Copies a table's changed units. Under the shard's lock. False: no room or no memory; the table stays as it is. */
static bool take_table(struct taken_units *taken, struct qcow2_shard *shard, struct qcow2_table *table)
{
    uint32_t unit_bytes = taken->cache->unit_bytes;
    uint64_t bytes = (uint64_t)__builtin_popcountll(table->dirty) * unit_bytes;

    if (bytes > taken->room && taken->units->len)
        return false;
    for (uint64_t left = table->dirty; left; left &= left - 1) {
        uint32_t at = (uint32_t)__builtin_ctzll(left) * unit_bytes;
        struct taken_unit unit = {.shard = shard, .table = table, .key = table->key, .at = at};

        unit.data = loop_buffer_get(unit_bytes);
        if (!unit.data)
            return false;
        memcpy(unit.data, table->data + at, unit_bytes);
        g_array_append_val(taken->units, unit);
        table->dirty &= left - 1;
        table->writing = true;
    }
    taken->room -= MIN(bytes, taken->room);
    qcow2_shard_count_dirty(shard, -1);
    return true;
}

/* False: something is left over. */
static bool take_shard(struct taken_units *taken, struct qcow2_shard *shard)
{
    bool all = true;

    spin_lock(&shard->spin);
    for (uint32_t i = 0; i < taken->cache->shard_capacity && shard->dirty_count && all; i++) {
        struct qcow2_table *table = &shard->tables[i];

        /* One that is being written by somebody else is not taken a second time before that has ended. */
        if (table->dirty && !table->writing)
            all = take_table(taken, shard, table);
    }
    spin_unlock(&shard->spin);
    return all;
}

static bool take_all(struct taken_units *taken, struct qcow2_cache *cache)
{
    bool all = true;

    *taken = (struct taken_units){
        .cache = cache, .units = g_array_new(false, false, sizeof(struct taken_unit)), .room = BATCH_BYTES};
    for (uint32_t i = 0; i < cache->shard_count && all; i++) {
        if (__atomic_load_n(&cache->shards[i].dirty_count, __ATOMIC_RELAXED))
            all = take_shard(taken, &cache->shards[i]);
    }
    return all;
}

/* The end of it: what could not be written is dirty again. */
static void give_back(struct taken_units *taken, int result)
{
    for (unsigned i = 0; i < taken->units->len; i++) {
        struct taken_unit *unit = &g_array_index(taken->units, struct taken_unit, i);

        spin_lock(&unit->shard->spin);
        unit->table->writing = false;
        if (result)
            qcow2_table_set_dirty(taken->cache, unit->shard, unit->table, unit->at, taken->cache->unit_bytes);
        waiters_wake(&unit->shard->waiters);
        spin_unlock(&unit->shard->spin);
        loop_buffer_put(unit->data, taken->cache->unit_bytes);
    }
    g_array_free(taken->units, true);
}

/* --- refcount blocks --- */

static int compare_units(const void *left, const void *right)
{
    const struct taken_unit *a = left, *b = right;

    if (a->key != b->key)
        return a->key < b->key ? -1 : 1;
    return a->at < b->at ? -1 : a->at > b->at;
}

static int CO_FN co_write_refcount_unit(struct qcow2_image *image, const struct taken_unit *unit, uint32_t bytes)
{
    uint64_t entry = qcow2_refcount_table_entry(image, unit->key);
    int ret;

    assert(entry);
    co_edge_event(image->file, BLKDEBUG_EVENT_REFBLOCK_UPDATE_PART);
    ret = co_qcow2_overlap_check(image, entry + unit->at, bytes, QCOW2_METADATA_REFCOUNT_BLOCK);
    return ret ? ret : co_edge_pwrite(image->file, entry + unit->at, bytes, unit->data, 0);
}

/*
 * Writes changed refcount blocks. Two at a time would write parts of one block in any order, so they take turns. A
 * block that is changed while it is written is dirty again.
 */
int CO_FN co_qcow2_refcount_blocks_write(struct qcow2_image *image)
{
    struct taken_units taken;
    bool all = false;
    int ret = 0;

    co_mutex_lock(&image->refcount_write_lock);
    while (!all && !ret) {
        all = take_all(&taken, image->refcounts);
        g_array_sort(taken.units, compare_units);
        for (unsigned i = 0; i < taken.units->len && !ret; i++)
            ret = co_write_refcount_unit(image, &g_array_index(taken.units, struct taken_unit, i),
                                         image->refcounts->unit_bytes);
        if (!all && !taken.units->len && !ret)
            ret = -ENOMEM;
        give_back(&taken, ret);
    }
    co_mutex_unlock(&image->refcount_write_lock);
    return ret;
}

static bool refcount_table_is_dirty(struct qcow2_image *image)
{
    bool dirty;

    spin_lock(&image->alloc_spin);
    dirty = image->refcount_dirty_first < image->refcount_dirty_end;
    spin_unlock(&image->alloc_spin);
    return dirty;
}

/* Entries of the refcount table for new blocks, which are in the file by now. */
static int CO_FN co_write_refcount_table(struct qcow2_image *image)
{
    uint64_t first, end;
    int ret;

    /* The table neither moves nor gets entries meanwhile. */
    co_mutex_lock(&image->alloc_lock);
    spin_lock(&image->alloc_spin);
    first = image->refcount_dirty_first;
    end = image->refcount_dirty_end;
    spin_unlock(&image->alloc_spin);
    ret = first < end ? co_qcow2_refcount_blocks_write(image) : 0;
    if (!ret && first < end)
        ret = co_edge_flush(image->file);
    if (!ret && first < end)
        co_edge_event(image->file, BLKDEBUG_EVENT_REFBLOCK_ALLOC_HOOKUP);
    if (!ret && first < end)
        ret = co_qcow2_table_write(image, image->header->refcount_table_offset + first * 8, end - first,
                                   image->refcount_table + first, QCOW2_METADATA_REFCOUNT_TABLE);
    if (!ret) {
        spin_lock(&image->alloc_spin);
        image->refcount_dirty_first = image->refcount_dirty_end = 0;
        spin_unlock(&image->alloc_spin);
    }
    co_mutex_unlock(&image->alloc_lock);
    return ret;
}

/* --- L1 entries --- */

/* A sector's worth of entries, as they were when they were taken. */
struct l1_sector {
    uint64_t index; /* of the first entry */
    uint64_t entries[L1_SECTOR_ENTRIES];
};

static GArray *take_l1(struct qcow2_image *image)
{
    GArray *sectors = g_array_new(false, true, sizeof(struct l1_sector));

    if (!__atomic_exchange_n(&image->l1_dirty, false, __ATOMIC_ACQ_REL))
        return sectors;
    for (uint64_t index = 0; index < image->header->l1_size; index += L1_SECTOR_ENTRIES) {
        struct l1_sector sector = {.index = index};
        uint64_t count = MIN(image->header->l1_size - index, L1_SECTOR_ENTRIES), any = 0;

        for (uint64_t i = 0; i < count; i++) {
            sector.entries[i] = __atomic_load_n(&image->l1[index + i], __ATOMIC_ACQUIRE);
            any |= sector.entries[i] & QCOW2_L1_UNWRITTEN;
        }
        if (any)
            g_array_append_val(sectors, sector);
    }
    return sectors;
}

static int CO_FN co_write_l1_sector(struct qcow2_image *image, const struct l1_sector *sector)
{
    uint64_t count = MIN(image->header->l1_size - sector->index, L1_SECTOR_ENTRIES);
    uint64_t offset = image->header->l1_table_offset + sector->index * 8;
    uint8_t data[L1_SECTOR_ENTRIES * 8];
    int ret = co_qcow2_overlap_check(image, offset, count * 8, QCOW2_METADATA_ACTIVE_L1);

    if (ret)
        return ret;
    for (uint64_t i = 0; i < count; i++)
        store_be64(data + i * 8, sector->entries[i] & ~QCOW2_L1_UNWRITTEN);
    co_edge_event(image->file, BLKDEBUG_EVENT_L1_UPDATE);
    ret = co_edge_pwrite(image->file, offset, count * 8, data, 0);
    for (uint64_t i = 0; i < count && !ret; i++) {
        uint64_t entry = sector->entries[i];

        /* Unless it has changed again. */
        if (entry & QCOW2_L1_UNWRITTEN)
            (void)__atomic_compare_exchange_n(&image->l1[sector->index + i], &entry, entry & ~QCOW2_L1_UNWRITTEN, false,
                                              __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    }
    return ret;
}

static int CO_FN co_write_l1(struct qcow2_image *image, const GArray *sectors)
{
    int ret = 0;

    for (unsigned i = 0; i < sectors->len && !ret; i++)
        ret = co_write_l1_sector(image, &g_array_index(sectors, struct l1_sector, i));
    return ret;
}

/* --- L2 tables --- */

/* Where in the file a part of a slice lies. */
static uint64_t unit_offset(const struct qcow2_image *image, const struct taken_unit *unit)
{
    unsigned per_table_bits = image->l2_bits - image->slice_bits;
    uint64_t in_table = (unit->key & ((UINT64_C(1) << per_table_bits) - 1)) * image->l2->table_bytes + unit->at;
    uint64_t entry = __atomic_load_n(&image->l1[unit->key >> per_table_bits], __ATOMIC_ACQUIRE);

    /* Only a table of our own is ever changed. */
    assert(entry & QCOW2_COPIED);
    return (entry & QCOW2_L1_OFFSET_MASK) + in_table;
}

enum { RUN_SEGMENTS = 64 };

/* Writes units that lie one behind the other, from `first` on; returns how many. */
static unsigned CO_FN co_write_l2_run(struct qcow2_image *image, struct taken_units *taken, unsigned first,
                                      int *ret_result)
{
    struct iovec segments[RUN_SEGMENTS];
    uint32_t unit_bytes = taken->cache->unit_bytes;
    uint64_t start = unit_offset(image, &g_array_index(taken->units, struct taken_unit, first));
    unsigned count = 0;
    struct io_vector iov;

    while (count < RUN_SEGMENTS && first + count < taken->units->len) {
        const struct taken_unit *unit = &g_array_index(taken->units, struct taken_unit, first + count);

        if (unit_offset(image, unit) != start + (uint64_t)count * unit_bytes)
            break;
        segments[count++] = (struct iovec){.iov_base = unit->data, .iov_len = unit_bytes};
    }
    iov = io_vector_of(segments, count);
    co_edge_event(image->file, BLKDEBUG_EVENT_L2_UPDATE);
    *ret_result = co_qcow2_overlap_check(image, start, iov.size, QCOW2_METADATA_ACTIVE_L2);
    if (!*ret_result)
        *ret_result = co_edge_pwritev(image->file, start, iov.size, &iov, 0);
    return count;
}

static int CO_FN co_write_l2(struct qcow2_image *image, struct taken_units *taken)
{
    int ret = 0;

    g_array_sort(taken->units, compare_units);
    for (unsigned i = 0; i < taken->units->len && !ret;)
        i += co_write_l2_run(image, taken, i, &ret);
    return ret;
}

/* --- the whole --- */

static int CO_FN co_flush_children(struct qcow2_image *image)
{
    int ret = image->data == image->file ? 0 : co_edge_flush(image->data);

    return ret ? ret : co_edge_flush(image->file);
}

/* Step 1. With lazy reference counts, only a promise to make them anew. */
static int CO_FN co_write_refcounts(struct qcow2_image *image, bool lazily)
{
    int ret;

    if (lazily)
        return co_qcow2_mark_dirty(image);
    ret = co_write_refcount_table(image);
    return ret ? ret : co_qcow2_refcount_blocks_write(image);
}

/* One round. *ret_all: nothing that was there at its beginning is left. */
static int CO_FN co_round(struct qcow2_image *image, bool lazily, bool *ret_all)
{
    struct taken_units taken;
    GArray *l1 = take_l1(image);
    int ret = 0;

    *ret_all = take_all(&taken, image->l2);
    if (!*ret_all && !taken.units->len)
        ret = -ENOMEM;
    if (!ret && (taken.units->len || l1->len)) {
        ret = co_write_refcounts(image, lazily);
        if (!ret)
            ret = co_flush_children(image);
        if (!ret)
            ret = co_write_l2(image, &taken);
        if (!ret)
            ret = co_write_l1(image, l1);
    }
    if (ret && l1->len)
        __atomic_store_n(&image->l1_dirty, true, __ATOMIC_RELEASE);
    give_back(&taken, ret);
    g_array_free(l1, true);
    return ret;
}

/* Under write_back_lock. */
static int CO_FN co_write_all(struct qcow2_image *image, bool durable, bool lazily)
{
    struct qcow2_freed_list taken = qcow2_take_dropped(image);
    bool all = false;
    int ret = 0;

    while (!all && !ret)
        ret = co_round(image, lazily, &all);
    /* Also where no L2 table has changed: a header that is about to be written may name what they count. */
    if (!ret && (cache_is_dirty(image->refcounts) || refcount_table_is_dirty(image)))
        ret = co_write_refcounts(image, lazily);
    if (!ret && durable)
        ret = co_flush_children(image);
    if (!ret && durable)
        co_qcow2_release_durable(image, &taken);
    else
        qcow2_return_dropped(image, &taken);
    return ret;
}

int CO_FN co_qcow2_write_back(struct qcow2_image *image, bool durable)
{
    int ret;

    co_mutex_lock(&image->write_back_lock);
    ret = co_write_all(image, durable, image->settings.lazy_refcounts);
    co_mutex_unlock(&image->write_back_lock);
    return ret;
}

int CO_FN co_qcow2_l2_clean(struct qcow2_image *image)
{
    return co_qcow2_write_back(image, false);
}

int CO_FN co_qcow2_settle(struct qcow2_image *image)
{
    int ret = 0;

    qcow2_alloc_reset(image);
    co_mutex_lock(&image->write_back_lock);
    /* What is freed becomes free after one flush; the counts that this lowers are written by the next. */
    for (int i = 0; i < 2 && !ret; i++)
        ret = co_write_all(image, true, false);
    /* Lowering may fail, and then leaks; it never leaves anything behind where nobody uses the image. */
    assert(ret || !qcow2_has_dropped(image));
    assert(ret || !image->l1_dirty);
    co_mutex_unlock(&image->write_back_lock);
    return ret;
}

int CO_FN co_qcow2_flush_to_children(struct node *node)
{
    struct qcow2_image *image = node_state(node);
    int ret;

    if (!image->writable)
        return 0;
    co_mutex_lock(&image->write_back_lock);
    /* Only who waits for clusters to be free needs to know here that it is durable; the core flushes anyway. */
    ret = co_write_all(image, qcow2_has_dropped(image), image->settings.lazy_refcounts);
    co_mutex_unlock(&image->write_back_lock);
    return ret;
}
