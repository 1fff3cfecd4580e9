/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether what the tables call the image's own is its own. A cluster with the COPIED flag is written in place, and is
 * free when its only name goes; so if it has two names, a change through one of them changes, or gives away, what the
 * other shows. Therefore all active L2 tables are read once before an image that was opened is changed for the first
 * time, and whoever wants to change it waits for that; nothing is kept.
 *
 * Keeps: (1) nothing changes while tables are looked through, so the file has all that they say; (2) a difference that
 * no crash leaves is corruption, one that is a leak is none; (3) where metadata lies in place of data is the guard's
 * business (overlap.c), not ours.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "driver/format/qcow2/qcow2.h"
#include "driver/format/qcow2/snapshot.h"
#include "loop/loop.h"

enum {
    TABLES_BYTES_MAX = 128 << 20, /* 1 TiB of data in clusters of 64 KiB */
    PIECE_BYTES = 64 << 10,       /* of a table, read at once */
    READERS = 8,
    CHUNK_CLUSTERS_BITS = 16,
    CHUNKS_MAX = 1024, /* 16 MiB */
    COUNT_AT_ONCE = 512,
};

/* What is known of a cluster: two bits. */
enum use {
    USE_NONE,
    USE_ONCE,  /* named, without the flag */
    USE_OFTEN, /* ... more than once */
    USE_OWN,   /* named once, with the flag */
};

struct chunk {
    uint8_t uses[(1 << CHUNK_CLUSTERS_BITS) / 4];
};

struct l2_table {
    uint64_t entry; /* of the L1 table */
    uint64_t index;
};

/* Clusters one behind the other, with the same flag. */
struct run {
    uint64_t first;
    uint64_t count; /* 0: none */
    bool own;
};

struct survey {
    struct qcow2_image *image;
    GArray *tables;      /* struct l2_table, in the file's order */
    GHashTable *chunks;  /* by the number of their first cluster >> CHUNK_CLUSTERS_BITS; owned */
    struct chunk *chunk; /* the last one */
    uint64_t chunk_number;
    uint64_t next; /* piece to be read */
    uint64_t pieces_per_table;
    uint64_t clusters; /* in the file */
    bool clash;        /* cluster `where` has several names, with the flag */
    uint64_t where;
    int result; /* 0, or what ended it; -EOVERFLOW: more than is looked at */

    uint64_t wanted; /* names are looked for of this cluster, rather than uses gathered; 0: no */
    uint64_t names[2];
    unsigned name_count;
};

/* --- uses --- */

static struct chunk *chunk_of(struct survey *survey, uint64_t cluster)
{
    uint64_t number = cluster >> CHUNK_CLUSTERS_BITS;

    if (survey->chunk && survey->chunk_number == number)
        return survey->chunk;
    survey->chunk = g_hash_table_lookup(survey->chunks, &number);
    if (!survey->chunk) {
        uint64_t *key;

        if (g_hash_table_size(survey->chunks) == CHUNKS_MAX)
            return NULL;
        key = g_new(uint64_t, 1);
        *key = number;
        survey->chunk = g_new0(struct chunk, 1);
        g_hash_table_insert(survey->chunks, key, survey->chunk);
    }
    survey->chunk_number = number;
    return survey->chunk;
}

static enum use use_load(const struct chunk *chunk, uint64_t cluster)
{
    unsigned index = (unsigned)cluster & ((1u << CHUNK_CLUSTERS_BITS) - 1);

    return chunk->uses[index / 4] >> index % 4 * 2 & 3;
}

static void use_store(struct chunk *chunk, uint64_t cluster, enum use use)
{
    unsigned index = (unsigned)cluster & ((1u << CHUNK_CLUSTERS_BITS) - 1), shift = index % 4 * 2;

    chunk->uses[index / 4] = (uint8_t)((chunk->uses[index / 4] & ~(3u << shift)) | (unsigned)use << shift);
}

static void note_run(struct survey *survey, const struct run *run)
{
    for (uint64_t cluster = run->first; cluster < run->first + run->count && !survey->result; cluster++) {
        struct chunk *chunk = chunk_of(survey, cluster);
        enum use use;

        if (!chunk) {
            survey->result = -EOVERFLOW;
            return;
        }
        use = use_load(chunk, cluster);
        if (use == USE_OWN || (run->own && use != USE_NONE)) {
            survey->clash = true;
            survey->where = cluster;
            survey->result = -EIO;
        } else if (use == USE_NONE) {
            use_store(chunk, cluster, run->own ? USE_OWN : USE_ONCE);
        } else {
            use_store(chunk, cluster, USE_OFTEN);
        }
    }
}

/* --- tables --- */

/* The clusters that an entry names; none where it makes no sense: nobody writes through it. */
static struct run entry_run(const struct survey *survey, uint64_t entry)
{
    const struct qcow2_image *image = survey->image;
    struct run run = {0};

    if (entry & QCOW2_COMPRESSED) {
        struct qcow2_compressed_extent where = qcow2_compressed_extent(entry, image->cluster_bits);

        run.first = where.offset >> image->cluster_bits;
        run.count = ((where.offset + where.bytes - 1) >> image->cluster_bits) - run.first + 1;
    } else if (entry & QCOW2_L2_OFFSET_MASK && !(entry & QCOW2_L2_RESERVED_MASK) &&
               is_aligned(entry & QCOW2_L2_OFFSET_MASK, image->cluster_size)) {
        run.first = (entry & QCOW2_L2_OFFSET_MASK) >> image->cluster_bits;
        run.count = 1;
        run.own = entry & QCOW2_COPIED;
    }
    if (!run.first || run.first + run.count > survey->clusters)
        run.count = 0;
    return run;
}

static void note_name(struct survey *survey, const struct run *run, uint64_t guest)
{
    if (survey->wanted - run->first >= run->count)
        return;
    if (survey->name_count < G_N_ELEMENTS(survey->names))
        survey->names[survey->name_count++] = guest;
}

/* Entries of a table that map the disk from `guest` on. */
static void note_entries(struct survey *survey, const uint8_t *entries, uint64_t bytes, uint64_t guest)
{
    const struct qcow2_image *image = survey->image;
    struct run pending = {0};

    for (uint64_t at = 0; at < bytes; at += UINT64_C(1) << image->l2_entry_bits, guest += image->cluster_size) {
        uint64_t entry = load_be64(entries + at);
        struct run run = entry ? entry_run(survey, entry) : (struct run){0};

        if (!run.count)
            continue;
        if (survey->wanted) {
            note_name(survey, &run, guest);
        } else if (pending.count && run.own == pending.own && run.first == pending.first + pending.count) {
            pending.count += run.count;
        } else {
            note_run(survey, &pending);
            pending = run;
        }
    }
    note_run(survey, &pending);
}

/* Reads pieces of tables as long as there are some. */
static void CO_FN co_reader(void *opaque)
{
    struct survey *survey = opaque;
    struct qcow2_image *image = survey->image;
    uint64_t size = MIN(image->cluster_size, PIECE_BYTES);
    uint8_t *piece = loop_buffer_get(size);

    if (!piece && !survey->result)
        survey->result = -ENOMEM;
    while (!survey->result && survey->next < survey->tables->len * survey->pieces_per_table) {
        uint64_t number = survey->next++;
        const struct l2_table *table =
            &g_array_index(survey->tables, struct l2_table, number / survey->pieces_per_table);
        uint64_t at = number % survey->pieces_per_table * size;
        uint64_t guest = ((table->index << image->l2_bits) + (at >> image->l2_entry_bits)) << image->cluster_bits;

        /* Through what cannot be read nobody can write. */
        if (!co_edge_pread(image->file, (table->entry & QCOW2_L1_OFFSET_MASK) + at, size, piece, 0) && !survey->result)
            note_entries(survey, piece, size, guest);
    }
    if (piece)
        loop_buffer_put(piece, size);
}

static void CO_FN co_read_tables(struct survey *survey)
{
    uint64_t pieces = survey->tables->len * survey->pieces_per_table;
    struct co_task *helpers[READERS] = {NULL};

    survey->next = 0;
    for (uint64_t i = 1; i < MIN(READERS, pieces); i++)
        helpers[i] = co_task_start(loop_current(), co_reader, survey);
    co_reader(survey);
    for (unsigned i = 1; i < READERS; i++)
        co_task_join(helpers[i]);
}

static int compare_tables(const void *left, const void *right)
{
    const struct l2_table *a = left, *b = right;
    uint64_t x = a->entry & QCOW2_L1_OFFSET_MASK, y = b->entry & QCOW2_L1_OFFSET_MASK;

    return x < y ? -1 : x > y;
}

/* All L2 tables that can be read. False: there are more than are looked at. */
static bool gather_tables(struct survey *survey)
{
    const struct qcow2_image *image = survey->image;

    for (uint64_t i = 0; i < image->header->l1_size; i++) {
        struct l2_table table = {.entry = image->l1[i] & ~QCOW2_L1_UNWRITTEN, .index = i};
        uint64_t offset = table.entry & QCOW2_L1_OFFSET_MASK;

        if (!offset || table.entry & QCOW2_L1_RESERVED_MASK || !is_aligned(offset, image->cluster_size) ||
            offset >> image->cluster_bits >= survey->clusters)
            continue;
        if ((survey->tables->len + 1) << image->cluster_bits > TABLES_BYTES_MAX)
            return false;
        g_array_append_val(survey->tables, table);
    }
    g_array_sort(survey->tables, compare_tables);
    return true;
}

/* --- judging --- */

static int CO_FN co_check_tables(const struct survey *survey)
{
    for (unsigned i = 1; i < survey->tables->len; i++) {
        const struct l2_table *a = &g_array_index(survey->tables, struct l2_table, i - 1);
        const struct l2_table *b = &g_array_index(survey->tables, struct l2_table, i);
        uint64_t offset = a->entry & QCOW2_L1_OFFSET_MASK;

        if (offset == (b->entry & QCOW2_L1_OFFSET_MASK) && (a->entry | b->entry) & QCOW2_COPIED)
            return co_qcow2_corrupt(survey->image, offset, survey->image->cluster_size,
                                    "L2 table offset %#" PRIx64 " stands in the L1 entries %" PRIu64 " and %" PRIu64
                                    ", with the flag that it is used once",
                                    offset, MIN(a->index, b->index), MAX(a->index, b->index));
    }
    return 0;
}

/* Tells of the guest offsets, too; for which the tables are read once more. */
static int CO_FN co_tell(struct survey *survey, uint64_t cluster, const char *why)
{
    struct qcow2_image *image = survey->image;
    uint64_t host = cluster << image->cluster_bits;

    survey->wanted = cluster;
    survey->result = 0;
    co_read_tables(survey);
    if (survey->name_count > 1)
        return co_qcow2_corrupt(
            image, host, image->cluster_size,
            "Data cluster %#" PRIx64 " is shared by guest offsets %#" PRIx64 " and %#" PRIx64 ", but %s", host,
            MIN(survey->names[0], survey->names[1]), MAX(survey->names[0], survey->names[1]), why);
    return co_qcow2_corrupt(image, host, image->cluster_size,
                            "Data cluster %#" PRIx64 " of guest offset %#" PRIx64 " %s", host, survey->names[0], why);
}

/*
 * Why `count` does not go with what names the cluster; NULL: it does. A count that is too high is a leak, unless a
 * snapshot may have the cluster, too.
 */
static const char *objection(const struct qcow2_image *image, enum use use, uint64_t count)
{
    if (use != USE_NONE && !count)
        return "has reference count 0";
    if (use == USE_OFTEN && count == 1)
        return "has reference count 1";
    if (use == USE_OWN && count > 1 && qcow2_snapshots(image)->count)
        return "has a reference count above 1 and the flag that it is used once";
    return NULL;
}

/* Clusters [first, end), which one refcount block counts. */
static int CO_FN co_check_counts_at(struct survey *survey, const struct chunk *chunk, uint64_t first, uint64_t end)
{
    struct qcow2_image *image = survey->image;
    uint64_t index = first >> image->refcount_block_bits, cluster;
    struct qcow2_table *block = NULL;
    const char *why = NULL;
    int ret = 0;

    if (qcow2_refcount_table_entry(image, index))
        ret = co_qcow2_cache_lock(image->refcounts, index, &block);
    if (ret)
        return ret;
    for (cluster = first; cluster < end && !why; cluster++)
        why = objection(image, use_load(chunk, cluster), block ? qcow2_refcount_of(image, block, cluster) : 0);
    if (block)
        qcow2_cache_unlock(qcow2_cache_shard(image->refcounts, index), block);
    return why ? co_tell(survey, cluster - 1, why) : 0;
}

static int compare_numbers(const void *left, const void *right)
{
    uint64_t a = **(const uint64_t *const *)left, b = **(const uint64_t *const *)right;

    return a < b ? -1 : a > b;
}

/* In the order of the file: each refcount block is read once. */
static int CO_FN co_check_counts(struct survey *survey)
{
    guint length;
    g_autofree const uint64_t **numbers =
        (const uint64_t **)(void *)g_hash_table_get_keys_as_array(survey->chunks, &length);
    uint64_t step = MIN(UINT64_C(1) << survey->image->refcount_block_bits, COUNT_AT_ONCE);
    int ret = 0;

    qsort(numbers, length, sizeof(*numbers), compare_numbers);
    for (guint i = 0; i < length && !ret; i++) {
        const struct chunk *chunk = g_hash_table_lookup(survey->chunks, numbers[i]);
        uint64_t first = *numbers[i] << CHUNK_CLUSTERS_BITS;
        uint64_t end = MIN(first + (UINT64_C(1) << CHUNK_CLUSTERS_BITS), survey->clusters);

        for (uint64_t at = first; at < end && !ret; at += step)
            ret = co_check_counts_at(survey, chunk, at, MIN(at + step, end));
    }
    return ret;
}

static int CO_FN co_survey(struct survey *survey)
{
    int ret;

    if (!gather_tables(survey))
        return 0;
    ret = co_check_tables(survey);
    /* Data in a file of its own lies where the guest has it, so no two entries can share it. */
    if (ret || survey->image->has_data_file)
        return ret;
    co_read_tables(survey);
    if (survey->clash)
        return co_tell(survey, survey->where, "has the flag that it is used once");
    if (survey->result)
        return survey->result == -EOVERFLOW ? 0 : survey->result;
    return co_check_counts(survey);
}

int CO_FN co_qcow2_owners_survey(struct qcow2_image *image)
{
    struct survey survey = {
        .image = image,
        .pieces_per_table = MAX(image->cluster_size / PIECE_BYTES, 1),
        .clusters = (node_length(edge_child(image->file)) + image->cluster_size - 1) >> image->cluster_bits,
    };
    int ret = 0;

    co_mutex_lock(&image->owners_lock);
    if (!__atomic_load_n(&image->owners_known, __ATOMIC_ACQUIRE)) {
        survey.tables = g_array_new(false, false, sizeof(struct l2_table));
        survey.chunks = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free);
        /* Where counts and flags are known to disagree, the dirty bit is set, and the next who opens it repairs it. */
        ret = image->keep_dirty ? 0 : co_survey(&survey);
        g_hash_table_destroy(survey.chunks);
        g_array_free(survey.tables, true);
        if (!ret)
            __atomic_store_n(&image->owners_known, true, __ATOMIC_RELEASE);
    }
    co_mutex_unlock(&image->owners_lock);
    return ret;
}
