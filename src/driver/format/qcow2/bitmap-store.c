/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writing bitmaps to the image; bitmap.h has the order of things. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "block/dirty-bitmap.h"
#include "driver/format/qcow2/bitmap-internal.h"
#include "loop/loop.h"

/* --- new clusters, given back where it comes to nothing --- */

struct allocation {
    uint64_t offset;
    uint64_t bytes;
};

struct writer {
    struct qcow2_image *image;
    GArray *allocations; /* struct allocation */
    uint8_t *buffer;     /* a cluster */
};

static int CO_FN co_allocate(struct writer *writer, uint64_t bytes, uint64_t *ret_offset)
{
    struct allocation allocation = {.bytes = bytes};
    int ret = co_qcow2_alloc_clusters(writer->image, bytes, &allocation.offset);

    if (ret)
        return ret;
    g_array_append_val(writer->allocations, allocation);
    *ret_offset = allocation.offset;
    return 0;
}

static void give_back(struct writer *writer)
{
    for (unsigned i = 0; i < writer->allocations->len; i++) {
        const struct allocation *allocation = &g_array_index(writer->allocations, struct allocation, i);

        qcow2_free_clusters(writer->image, allocation->offset, allocation->bytes, QCOW2_FREE_NEVER);
    }
    g_array_set_size(writer->allocations, 0);
}

static int CO_FN co_write(struct qcow2_image *image, uint64_t offset, const uint8_t *bytes, uint64_t count,
                          enum qcow2_metadata kind)
{
    int ret = co_qcow2_overlap_check(image, offset, count, kind);

    return ret ? ret : co_edge_pwrite(image->file, offset, count, bytes, 0);
}

/* --- the bits of one bitmap --- */

/* Writes the bits [at, at + count) to a cluster of their own, or finds that they need none; the table's entry. */
static int CO_FN co_write_cluster(struct writer *writer, const struct bitmap *bits, uint64_t at, uint64_t count,
                                  uint64_t *ret_entry)
{
    uint64_t cluster_size = writer->image->cluster_size, end = at + count;
    int ret;

    *ret_entry = 0;
    if (bitmap_next_set(bits, at, end) == end)
        return 0;
    /* In a last cluster that is not full, the bits beyond the end must be zero, so it cannot be one of ones. */
    if (count == cluster_size * 8 && bitmap_next_clear(bits, at, end) == end) {
        *ret_entry = QCOW2_BITMAP_ENTRY_ONES;
        return 0;
    }
    ret = co_allocate(writer, cluster_size, ret_entry);
    if (ret)
        return ret;
    memset(writer->buffer, 0, cluster_size);
    bitmap_store(bits, at, count, writer->buffer);
    return co_write(writer->image, *ret_entry, writer->buffer, cluster_size, 0);
}

static int CO_FN co_write_table(struct writer *writer, struct qcow2_bitmap_entry *entry, const uint64_t *table)
{
    int ret;

    /* A disk without a byte has a table without an entry. */
    if (!entry->table_size)
        return 0;
    ret = co_allocate(writer, (uint64_t)entry->table_size * 8, &entry->table_offset);
    return ret ? ret : co_qcow2_table_write(writer->image, entry->table_offset, entry->table_size, table, 0);
}

static int CO_FN co_write_bits(struct writer *writer, struct qcow2_bitmap_entry *entry, const struct bitmap *bits)
{
    uint64_t cluster_bits = writer->image->cluster_size * 8, size = bitmap_size(bits);
    g_autofree uint64_t *table = NULL;
    int ret = 0;

    entry->table_size = (uint32_t)((size + cluster_bits - 1) / cluster_bits);
    table = g_try_new(uint64_t, MAX(entry->table_size, 1));
    if (!table)
        return -ENOMEM;
    for (uint64_t at = 0; at < size && !ret; at += cluster_bits)
        ret = co_write_cluster(writer, bits, at, MIN(cluster_bits, size - at), &table[at / cluster_bits]);
    return ret ? ret : co_write_table(writer, entry, table);
}

/* The entry under which `bitmap` is stored from now on: with what is not ours to change of the one there was. */
static struct qcow2_bitmap_entry *entry_for(const struct qcow2_image *image, const struct dirty_bitmap *bitmap)
{
    unsigned granularity_bits = (unsigned)__builtin_ctz(dirty_bitmap_granularity(bitmap));
    const struct qcow2_bitmap_entry *old =
        qcow2_bitmap_directory_find(image->bitmaps->directory, dirty_bitmap_name(bitmap));
    struct qcow2_bitmap_entry *entry =
        old ? qcow2_bitmap_entry_copy(old) : qcow2_bitmap_entry_new(dirty_bitmap_name(bitmap), granularity_bits);

    entry->granularity_bits = (uint8_t)granularity_bits;
    entry->table_offset = 0;
    entry->flags &= QCOW2_BITMAP_EXTRA_COMPATIBLE;
    if (dirty_bitmap_enabled(bitmap))
        entry->flags |= QCOW2_BITMAP_AUTO;
    return entry;
}

static bool CO_FN co_store_one(struct writer *writer, struct dirty_bitmap *bitmap,
                               struct qcow2_bitmap_directory *directory, struct error **err)
{
    struct qcow2_bitmap_entry *entry = entry_for(writer->image, bitmap);
    AUTO(bitmap) bits = dirty_bitmap_copy_bits(bitmap);
    int ret = -EFBIG;

    g_ptr_array_add(directory->entries, entry);
    entry->checked = true;
    if (qcow2_bitmap_data_bytes(dirty_bitmap_length(bitmap), entry->granularity_bits) <= QCOW2_BITMAP_BYTES_MAX)
        ret = co_write_bits(writer, entry, bits);
    return ret ? error_set_errno(err, ret, "Could not write bitmap '%s'", dirty_bitmap_name(bitmap)) : true;
}

/* --- the directory --- */

int CO_FN co_qcow2_bitmap_flags_write(struct qcow2_image *image)
{
    const struct qcow2_bitmaps *bitmaps = image->bitmaps;
    size_t size;
    g_autofree uint8_t *bytes = qcow2_bitmap_directory_serialise(bitmaps->directory, &size);
    int ret;

    assert(size == bitmaps->bytes);
    ret = co_write(image, bitmaps->offset, bytes, size, QCOW2_METADATA_BITMAP_DIRECTORY);
    return ret ? ret : co_edge_flush(image->file);
}

/* Names the directory in the header, or takes the extension away. Nobody believes it until all of it is there. */
static int CO_FN co_name_directory(struct qcow2_image *image, uint64_t offset, uint64_t bytes, uint32_t count,
                                   struct error **err)
{
    struct qcow2_header *header = image->header;
    int ret = 0;

    if (header->autoclear_features & QCOW2_BITMAPS_CONSISTENT) {
        header->autoclear_features &= ~(uint64_t)QCOW2_BITMAPS_CONSISTENT;
        ret = co_qcow2_header_update_fields(image, true);
    }
    if (ret) {
        error_set_errno(err, ret, "Could not update the header");
        return ret;
    }
    header->has_bitmaps = count;
    header->bitmaps =
        (struct qcow2_bitmaps_extension){.count = count, .directory_bytes = bytes, .directory_offset = offset};
    qcow2_overlap_set_range(&image->overlap, QCOW2_METADATA_BITMAP_DIRECTORY, offset, bytes);
    ret = co_qcow2_header_update(image, true, err);
    if (ret || !count)
        return ret;
    header->autoclear_features |= QCOW2_BITMAPS_CONSISTENT;
    ret = co_qcow2_header_update_fields(image, true);
    if (ret)
        error_set_errno(err, ret, "Could not update the header");
    return ret;
}

/* Writes the directory to new clusters, and makes all that it names durable. */
static int CO_FN co_write_directory(struct writer *writer, const struct qcow2_bitmap_directory *directory,
                                    uint64_t *ret_offset, uint64_t *ret_bytes)
{
    g_autofree uint8_t *bytes = NULL;
    size_t size;
    int ret;

    *ret_offset = *ret_bytes = 0;
    if (!directory->entries->len)
        return 0;
    bytes = qcow2_bitmap_directory_serialise(directory, &size);
    *ret_bytes = size;
    ret = co_allocate(writer, size, ret_offset);
    if (!ret)
        ret = co_write(writer->image, *ret_offset, bytes, size, 0);
    return ret ? ret : co_qcow2_write_back(writer->image, true);
}

/* `directory` is taken. */
static bool CO_FN co_switch(struct writer *writer, struct qcow2_bitmap_directory *directory, struct error **err)
{
    struct qcow2_image *image = writer->image;
    struct qcow2_bitmaps *bitmaps = image->bitmaps;
    uint64_t offset, bytes;
    int ret = co_write_directory(writer, directory, &offset, &bytes);

    if (ret) {
        give_back(writer);
        qcow2_bitmap_directory_free(directory);
        return error_set_errno(err, ret, "Could not write the bitmap directory");
    }
    ret = co_name_directory(image, offset, bytes, directory->entries->len, err);
    if (ret) {
        /* Which of the two the file names nobody knows, so both stay. */
        qcow2_bitmap_directory_free(directory);
        return false;
    }
    if (bitmaps->bytes)
        qcow2_free_clusters(image, bitmaps->offset, bitmaps->bytes, QCOW2_FREE_OTHER);
    qcow2_bitmap_directory_free(bitmaps->directory);
    bitmaps->directory = directory;
    bitmaps->offset = offset;
    bitmaps->bytes = bytes;
    return true;
}

static void writer_done(struct writer *writer)
{
    g_array_free(writer->allocations, true);
    if (writer->buffer)
        loop_buffer_put(writer->buffer, writer->image->cluster_size);
}

bool CO_FN co_qcow2_bitmap_directory_switch(struct qcow2_image *image, struct qcow2_bitmap_directory *directory,
                                            struct error **err)
{
    struct writer writer = {.image = image, .allocations = g_array_new(false, false, sizeof(struct allocation))};
    bool ok = co_switch(&writer, directory, err);

    writer_done(&writer);
    return ok;
}

void CO_FN co_qcow2_bitmap_clusters_free(struct qcow2_image *image, const struct qcow2_bitmap_entry *entry)
{
    g_autofree uint64_t *table = NULL;
    int ret;

    if (!entry->checked || !entry->table_size)
        return;
    table = co_qcow2_bitmap_table_load(image, entry, &ret);
    for (uint32_t i = 0; table && i < entry->table_size; i++) {
        if (table[i] > QCOW2_BITMAP_ENTRY_ONES && qcow2_bitmap_table_entry_ok(table[i], image->cluster_bits))
            qcow2_free_clusters(image, table[i], image->cluster_size, QCOW2_FREE_OTHER);
    }
    if (table)
        qcow2_free_clusters(image, entry->table_offset, (uint64_t)entry->table_size * 8, QCOW2_FREE_OTHER);
}

/* --- all --- */

/* The new directory, with all bits written; NULL and the error. */
static struct qcow2_bitmap_directory *CO_FN co_write_all(struct writer *writer, struct error **err)
{
    AUTO(qcow2_bitmap_directory) directory = qcow2_bitmap_directory_new();
    const struct qcow2_image *image = writer->image;
    const GPtrArray *old = image->bitmaps->directory->entries;
    struct dirty_bitmap *bitmap = NULL;

    for (unsigned i = 0; i < old->len; i++) {
        const struct qcow2_bitmap_entry *entry = g_ptr_array_index(old, i);

        if (entry->problem)
            g_ptr_array_add(directory->entries, qcow2_bitmap_entry_copy(entry));
    }
    while ((bitmap = dirty_bitmap_next(image->node, bitmap))) {
        if (!dirty_bitmap_persistent(bitmap) || dirty_bitmap_inconsistent(bitmap))
            continue;
        if (!co_store_one(writer, bitmap, directory, err))
            return NULL;
    }
    return TAKE(directory);
}

static bool has_anything(const struct qcow2_image *image)
{
    struct dirty_bitmap *bitmap = NULL;

    if (image->bitmaps->directory->entries->len)
        return true;
    while ((bitmap = dirty_bitmap_next(image->node, bitmap))) {
        if (dirty_bitmap_persistent(bitmap) && !dirty_bitmap_inconsistent(bitmap))
            return true;
    }
    return false;
}

/* Takes the old directory out of the way first: the new one is made from it and replaces it. */
static bool CO_FN co_store(struct writer *writer, struct error **err)
{
    struct qcow2_image *image = writer->image;
    AUTO(qcow2_bitmap_directory) before = qcow2_bitmap_directory_new();
    const GPtrArray *old = image->bitmaps->directory->entries;
    struct qcow2_bitmap_directory *directory = co_write_all(writer, err);

    if (!directory) {
        give_back(writer);
        return false;
    }
    for (unsigned i = 0; i < old->len; i++)
        g_ptr_array_add(before->entries, qcow2_bitmap_entry_copy(g_ptr_array_index(old, i)));
    if (!co_switch(writer, directory, err))
        return false;
    for (unsigned i = 0; i < before->entries->len; i++) {
        const struct qcow2_bitmap_entry *entry = g_ptr_array_index(before->entries, i);

        if (!entry->problem)
            co_qcow2_bitmap_clusters_free(image, entry);
    }
    return true;
}

bool CO_FN co_qcow2_bitmaps_store(struct qcow2_image *image, struct error **err)
{
    struct writer writer = {.image = image};
    bool ok = true;

    assert(image->writable);
    if (!image->bitmaps || !has_anything(image))
        return true;
    writer.allocations = g_array_new(false, false, sizeof(struct allocation));
    writer.buffer = loop_buffer_get(image->cluster_size);
    co_mutex_lock(&image->bitmaps->lock);
    if (writer.buffer)
        ok = co_store(&writer, err);
    else
        ok = error_set_errno(err, ENOMEM, "Could not write the bitmaps");
    co_mutex_unlock(&image->bitmaps->lock);
    writer_done(&writer);
    return ok;
}
