/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guard in front of writes. What decides are the tables themselves, as they are in memory; the filter only saves
 * looking at them. A cluster gets into it no later than when it is first written as a table, that is before anything
 * refers to it, and never gets out: one that is data by now makes a search for nothing.
 */
#include "driver/format/qcow2/overlap.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "base/checked.h"
#include "driver/format/qcow2/qcow2.h"
#include "driver/format/qcow2/snapshot.h"

enum {
    FILTER_WORDS_MIN = 64,
    FILTER_WORDS_MAX = 512 * 1024,
    TABLES_PER_WORD = 4,
    SEARCH_ENTRIES = 2048, /* of an L1 table in the file, at once */
};

#define KINDS_CONSTANT                                                                                                 \
    (QCOW2_METADATA_MAIN_HEADER | QCOW2_METADATA_ACTIVE_L1 | QCOW2_METADATA_REFCOUNT_TABLE |                           \
     QCOW2_METADATA_SNAPSHOT_TABLE | QCOW2_METADATA_BITMAP_DIRECTORY)
#define KINDS_CACHED                                                                                                   \
    (KINDS_CONSTANT | QCOW2_METADATA_ACTIVE_L2 | QCOW2_METADATA_REFCOUNT_BLOCK | QCOW2_METADATA_INACTIVE_L1)
#define KINDS_ALL (KINDS_CACHED | QCOW2_METADATA_INACTIVE_L2)
#define KINDS_IN_FILTER (KINDS_ALL & ~KINDS_CONSTANT)

static const struct {
    enum qcow2_metadata kind;
    const char *name;
} kinds[QCOW2_METADATA_KINDS] = {
    {QCOW2_METADATA_MAIN_HEADER, "qcow2_header"},          {QCOW2_METADATA_ACTIVE_L1, "active L1 table"},
    {QCOW2_METADATA_ACTIVE_L2, "active L2 table"},         {QCOW2_METADATA_REFCOUNT_BLOCK, "refcount block"},
    {QCOW2_METADATA_REFCOUNT_TABLE, "refcount table"},     {QCOW2_METADATA_SNAPSHOT_TABLE, "snapshot table"},
    {QCOW2_METADATA_INACTIVE_L1, "inactive L1 table"},     {QCOW2_METADATA_INACTIVE_L2, "inactive L2 table"},
    {QCOW2_METADATA_BITMAP_DIRECTORY, "bitmap directory"},
};

/* --- options --- */

static unsigned mask_of_mode(enum qcow2_overlap_check_mode mode)
{
    switch (mode) {
    case QCOW2_OVERLAP_CHECK_MODE_NONE:
        return 0;
    case QCOW2_OVERLAP_CHECK_MODE_CONSTANT:
        return KINDS_CONSTANT;
    case QCOW2_OVERLAP_CHECK_MODE_ALL:
        return KINDS_ALL;
    default:
        return KINDS_CACHED;
    }
}

static void mask_change(unsigned *mask, enum qcow2_metadata kind, bool has, bool on)
{
    if (has)
        *mask = on ? *mask | kind : *mask & ~(unsigned)kind;
}

unsigned qcow2_overlap_mask(const struct qcow2_overlap_checks *options)
{
    const struct qcow2_overlap_check_flags *flags;
    unsigned mask;

    if (!options)
        return KINDS_CACHED;
    if (options->kind == QCOW2_OVERLAP_CHECKS_KIND_MODE)
        return mask_of_mode(options->u.mode);
    flags = options->u.flags;
    mask = flags->has_template ? mask_of_mode(flags->template) : KINDS_CACHED;
    mask_change(&mask, QCOW2_METADATA_MAIN_HEADER, flags->has_main_header, flags->main_header);
    mask_change(&mask, QCOW2_METADATA_ACTIVE_L1, flags->has_active_l1, flags->active_l1);
    mask_change(&mask, QCOW2_METADATA_ACTIVE_L2, flags->has_active_l2, flags->active_l2);
    mask_change(&mask, QCOW2_METADATA_REFCOUNT_TABLE, flags->has_refcount_table, flags->refcount_table);
    mask_change(&mask, QCOW2_METADATA_REFCOUNT_BLOCK, flags->has_refcount_block, flags->refcount_block);
    mask_change(&mask, QCOW2_METADATA_SNAPSHOT_TABLE, flags->has_snapshot_table, flags->snapshot_table);
    mask_change(&mask, QCOW2_METADATA_INACTIVE_L1, flags->has_inactive_l1, flags->inactive_l1);
    mask_change(&mask, QCOW2_METADATA_INACTIVE_L2, flags->has_inactive_l2, flags->inactive_l2);
    mask_change(&mask, QCOW2_METADATA_BITMAP_DIRECTORY, flags->has_bitmap_directory, flags->bitmap_directory);
    return mask;
}

/* --- what is where --- */

void qcow2_overlap_init(struct qcow2_overlap *overlap, unsigned mask, unsigned cluster_bits, uint64_t tables)
{
    uint64_t words = FILTER_WORDS_MIN;

    assert(!overlap->filter);
    while (words < FILTER_WORDS_MAX && words * TABLES_PER_WORD < tables)
        words *= 2;
    overlap->mask = mask;
    overlap->cluster_bits = cluster_bits;
    overlap->filter = g_new0(uint64_t, words);
    overlap->filter_mask = words - 1;
}

void qcow2_overlap_done(struct qcow2_overlap *overlap)
{
    g_free(overlap->filter);
    *overlap = (struct qcow2_overlap){0};
}

static unsigned range_index(enum qcow2_metadata kind)
{
    unsigned index = (unsigned)__builtin_ctz(kind);

    assert(index < QCOW2_METADATA_RANGES);
    return index;
}

void qcow2_overlap_set_range(struct qcow2_overlap *overlap, enum qcow2_metadata kind, uint64_t offset, uint64_t bytes)
{
    struct qcow2_overlap_range *range = &overlap->ranges[range_index(kind)];

    spin_lock(&overlap->spin);
    __atomic_store_n(&range->offset, offset, __ATOMIC_RELAXED);
    __atomic_store_n(&range->bytes, bytes, __ATOMIC_RELAXED);
    spin_unlock(&overlap->spin);
}

/* A word of the filter, and three bits in it. */
static uint64_t filter_bits(const struct qcow2_overlap *overlap, uint64_t cluster, uint64_t *ret_word)
{
    uint64_t hash = (cluster + 1) * UINT64_C(0x9e3779b97f4a7c15);

    hash ^= hash >> 29;
    hash *= UINT64_C(0xbf58476d1ce4e5b9);
    *ret_word = hash >> 18 & overlap->filter_mask;
    return UINT64_C(1) << (hash & 63) | UINT64_C(1) << (hash >> 6 & 63) | UINT64_C(1) << (hash >> 12 & 63);
}

void qcow2_overlap_add(struct qcow2_overlap *overlap, uint64_t offset, uint64_t bytes)
{
    if (!bytes || !overlap->filter)
        return;
    for (uint64_t i = offset >> overlap->cluster_bits; i <= (offset + bytes - 1) >> overlap->cluster_bits; i++) {
        uint64_t word, bits = filter_bits(overlap, i, &word);

        if ((__atomic_load_n(&overlap->filter[word], __ATOMIC_RELAXED) & bits) != bits)
            __atomic_or_fetch(&overlap->filter[word], bits, __ATOMIC_RELEASE);
    }
}

/* The kinds among `among` that are single ranges and may be, or with `exact` are, hit. */
static unsigned ranges_hit(struct qcow2_overlap *overlap, uint64_t offset, uint64_t bytes, unsigned among, bool exact)
{
    unsigned hit = 0;

    if (exact)
        spin_lock(&overlap->spin);
    for (unsigned i = 0; i < QCOW2_METADATA_RANGES; i++) {
        uint64_t at = __atomic_load_n(&overlap->ranges[i].offset, __ATOMIC_RELAXED);
        uint64_t length = __atomic_load_n(&overlap->ranges[i].bytes, __ATOMIC_RELAXED);

        if (among & 1u << i && ranges_overlap(at, length, offset, bytes))
            hit |= 1u << i;
    }
    if (exact)
        spin_unlock(&overlap->spin);
    return hit;
}

static bool filter_hit(const struct qcow2_overlap *overlap, uint64_t offset, uint64_t bytes)
{
    for (uint64_t i = offset >> overlap->cluster_bits; i <= (offset + bytes - 1) >> overlap->cluster_bits; i++) {
        uint64_t word, bits = filter_bits(overlap, i, &word);

        if ((__atomic_load_n(&overlap->filter[word], __ATOMIC_ACQUIRE) & bits) == bits)
            return true;
    }
    return false;
}

static unsigned maybe_hit(struct qcow2_overlap *overlap, uint64_t offset, uint64_t bytes, unsigned among)
{
    unsigned hit;

    if (!overlap->filter || !bytes || !among)
        return 0;
    hit = ranges_hit(overlap, offset, bytes, among, false);
    if (among & KINDS_IN_FILTER && filter_hit(overlap, offset, bytes))
        hit |= among & KINDS_IN_FILTER;
    return hit;
}

bool qcow2_overlap_maybe(struct qcow2_overlap *overlap, uint64_t offset, uint64_t bytes)
{
    return maybe_hit(overlap, offset, bytes, overlap->mask);
}

/* --- searching the tables --- */

static bool entries_hit(const uint64_t *entries, uint64_t count, uint64_t mask, uint64_t size, uint64_t offset,
                        uint64_t bytes)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t at = __atomic_load_n(&entries[i], __ATOMIC_RELAXED) & mask;

        if (at && ranges_overlap(at, size, offset, bytes))
            return true;
    }
    return false;
}

/* Reads the L1 tables of snapshots. What cannot be read cannot be guarded. */
static bool CO_FN co_inactive_l2_hit(struct qcow2_image *image, const struct qcow2_snapshot *snapshot, uint64_t offset,
                                     uint64_t bytes)
{
    g_autofree uint64_t *entries = g_new(uint64_t, SEARCH_ENTRIES);

    for (uint64_t first = 0; first < snapshot->l1_size; first += SEARCH_ENTRIES) {
        uint64_t count = MIN(snapshot->l1_size - first, SEARCH_ENTRIES);

        if (co_qcow2_table_read(image, snapshot->l1_table_offset + first * 8, count, entries) < 0)
            return false;
        if (entries_hit(entries, count, QCOW2_L1_OFFSET_MASK, image->cluster_size, offset, bytes))
            return true;
    }
    return false;
}

static unsigned CO_FN co_snapshots_hit(struct qcow2_image *image, uint64_t offset, uint64_t bytes, unsigned among)
{
    const struct qcow2_snapshot_table *table = qcow2_snapshots(image);

    for (size_t i = 0; i < table->count; i++) {
        const struct qcow2_snapshot *snapshot = &table->items[i];

        if (!qcow2_snapshot_is_sound(image, snapshot))
            continue;
        if (among & QCOW2_METADATA_INACTIVE_L1 &&
            ranges_overlap(snapshot->l1_table_offset, (uint64_t)snapshot->l1_size * 8, offset, bytes))
            return QCOW2_METADATA_INACTIVE_L1;
        if (among & QCOW2_METADATA_INACTIVE_L2 && co_inactive_l2_hit(image, snapshot, offset, bytes))
            return QCOW2_METADATA_INACTIVE_L2;
    }
    return 0;
}

/* Which kinds among `among` really are there; at least one if any is. */
static unsigned CO_FN co_search(struct qcow2_image *image, uint64_t offset, uint64_t bytes, unsigned among)
{
    unsigned hit = ranges_hit(&image->overlap, offset, bytes, among, true);
    /* The number before the table: a new table has room for at least the old number. */
    uint64_t blocks = __atomic_load_n(&image->refcount_table_entries, __ATOMIC_ACQUIRE);
    const uint64_t *table = __atomic_load_n(&image->refcount_table, __ATOMIC_ACQUIRE);

    if (among & QCOW2_METADATA_ACTIVE_L2 &&
        entries_hit(image->l1, image->header->l1_size, QCOW2_L1_OFFSET_MASK, image->cluster_size, offset, bytes))
        hit |= QCOW2_METADATA_ACTIVE_L2;
    if (among & QCOW2_METADATA_REFCOUNT_BLOCK &&
        entries_hit(table, blocks, QCOW2_REFCOUNT_OFFSET_MASK, image->cluster_size, offset, bytes))
        hit |= QCOW2_METADATA_REFCOUNT_BLOCK;
    if (!hit && among & (QCOW2_METADATA_INACTIVE_L1 | QCOW2_METADATA_INACTIVE_L2))
        hit |= co_snapshots_hit(image, offset, bytes, among);
    return hit;
}

int CO_FN co_qcow2_overlap_check(struct qcow2_image *image, uint64_t offset, uint64_t bytes, unsigned ignore)
{
    struct qcow2_overlap *overlap = &image->overlap;
    unsigned hit = maybe_hit(overlap, offset, bytes, overlap->mask & ~ignore);

    assert(offset <= INT64_MAX);
    assert(bytes <= INT64_MAX);
    if (unlikely(hit))
        hit = co_search(image, offset, bytes, hit);
    if (likely(!hit)) {
        if (ignore & KINDS_IN_FILTER)
            qcow2_overlap_add(overlap, offset, bytes);
        return 0;
    }
    for (unsigned i = 0; i < QCOW2_METADATA_KINDS; i++) {
        if (hit & kinds[i].kind)
            return co_qcow2_corrupt(image, offset, bytes, "Preventing invalid write on metadata (overlaps with %s)",
                                    kinds[i].name);
    }
    return -EIO;
}

/* --- filling --- */

void qcow2_overlap_refresh(struct qcow2_image *image)
{
    struct qcow2_overlap *overlap = &image->overlap;
    const struct qcow2_header *header = image->header;

    qcow2_overlap_set_range(overlap, QCOW2_METADATA_MAIN_HEADER, 0, image->cluster_size);
    qcow2_overlap_set_range(overlap, QCOW2_METADATA_ACTIVE_L1, header->l1_table_offset, (uint64_t)header->l1_size * 8);
    qcow2_overlap_set_range(overlap, QCOW2_METADATA_REFCOUNT_TABLE, header->refcount_table_offset,
                            (uint64_t)header->refcount_table_clusters << header->cluster_bits);
    qcow2_overlap_set_range(overlap, QCOW2_METADATA_SNAPSHOT_TABLE, header->snapshots_offset,
                            qcow2_snapshots(image)->bytes);
    if (header->has_bitmaps && header->bitmaps.directory_offset <= INT64_MAX &&
        header->bitmaps.directory_bytes <= INT64_MAX)
        qcow2_overlap_set_range(overlap, QCOW2_METADATA_BITMAP_DIRECTORY, header->bitmaps.directory_offset,
                                header->bitmaps.directory_bytes);
    else
        qcow2_overlap_set_range(overlap, QCOW2_METADATA_BITMAP_DIRECTORY, 0, 0);
}

static void add_tables(struct qcow2_overlap *overlap, const uint64_t *entries, uint64_t count, uint64_t mask)
{
    for (uint64_t i = 0; i < count; i++) {
        if (entries[i] & mask)
            qcow2_overlap_add(overlap, entries[i] & mask, 1);
    }
}

int CO_FN co_qcow2_overlap_add_snapshot(struct qcow2_image *image, const struct qcow2_snapshot *snapshot)
{
    g_autofree uint64_t *entries = NULL;

    if (!qcow2_snapshot_is_sound(image, snapshot))
        return 0;
    qcow2_overlap_add(&image->overlap, snapshot->l1_table_offset, (uint64_t)snapshot->l1_size * 8);
    if (!(image->overlap.mask & QCOW2_METADATA_INACTIVE_L2))
        return 0;
    entries = g_new(uint64_t, SEARCH_ENTRIES);
    for (uint64_t first = 0; first < snapshot->l1_size; first += SEARCH_ENTRIES) {
        uint64_t count = MIN(snapshot->l1_size - first, SEARCH_ENTRIES);
        int ret = co_qcow2_table_read(image, snapshot->l1_table_offset + first * 8, count, entries);

        if (ret < 0)
            return ret;
        add_tables(&image->overlap, entries, count, QCOW2_L1_OFFSET_MASK);
    }
    return 0;
}

int CO_FN co_qcow2_overlap_load(struct qcow2_image *image, unsigned mask)
{
    const struct qcow2_snapshot_table *table = qcow2_snapshots(image);
    uint64_t tables = image->header->l1_size + image->refcount_table_entries + table->count;

    qcow2_overlap_done(&image->overlap);
    qcow2_overlap_init(&image->overlap, mask, image->cluster_bits, tables);
    qcow2_overlap_refresh(image);
    add_tables(&image->overlap, image->l1, image->header->l1_size, QCOW2_L1_OFFSET_MASK);
    add_tables(&image->overlap, image->refcount_table, image->refcount_table_entries, QCOW2_REFCOUNT_OFFSET_MASK);
    for (size_t i = 0; i < table->count; i++) {
        int ret = co_qcow2_overlap_add_snapshot(image, &table->items[i]);

        if (ret < 0)
            return ret;
    }
    return 0;
}
