/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading stored bitmaps, which a stranger may have made. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "base/bitmap.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "block/dirty-bitmap.h"
#include "driver/format/qcow2/bitmap-internal.h"
#include "loop/loop.h"

enum { FALLBACK_GRANULARITY = 65536, COMPLAINTS_MAX = 5 };

/* --- who has which cluster --- */

struct claims {
    struct bitmap *clusters; /* a bit a cluster of the file: somebody has it */
    unsigned cluster_bits;
    unsigned complaints; /* so many bitmaps cannot be used */
};

/* Takes a range; false: part of it is taken already, or beyond the file. */
static bool claim(struct claims *claims, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset >> claims->cluster_bits, end;

    if (!bytes)
        return true;
    if (!range_fits(offset, bytes, bitmap_size(claims->clusters) << claims->cluster_bits))
        return false;
    end = ((offset + bytes - 1) >> claims->cluster_bits) + 1;
    if (bitmap_next_set(claims->clusters, first, end) < end)
        return false;
    bitmap_set(claims->clusters, first, end - first);
    return true;
}

/* What tables of the image are known to have. Where those overlap among each other is not for us to say. */
static void claim_tables(struct claims *claims, const struct qcow2_image *image)
{
    const struct qcow2_header *header = image->header;

    (void)claim(claims, 0, image->cluster_size);
    (void)claim(claims, header->l1_table_offset, (uint64_t)header->l1_size * 8);
    (void)claim(claims, header->refcount_table_offset,
                (uint64_t)header->refcount_table_clusters << header->cluster_bits);
    for (uint64_t i = 0; i < image->refcount_table_entries; i++) {
        uint64_t block = image->refcount_table[i] & QCOW2_REFCOUNT_OFFSET_MASK;

        if (block)
            (void)claim(claims, block, image->cluster_size);
    }
    for (uint32_t i = 0; i < header->l1_size; i++) {
        uint64_t table = image->l1[i] & QCOW2_L1_OFFSET_MASK;

        if (table)
            (void)claim(claims, table, image->cluster_size);
    }
}

/* --- directory --- */

static struct qcow2_bitmap_directory *CO_FN co_read_directory(struct qcow2_image *image, struct claims *claims,
                                                              struct error **err)
{
    const struct qcow2_bitmaps_extension *extension = &image->header->bitmaps;
    struct qcow2_bitmap_directory *directory = NULL;
    uint8_t *bytes;
    int ret;

    if (!extension->directory_bytes || extension->directory_bytes > QCOW2_BITMAP_DIRECTORY_BYTES_MAX) {
        error_set(err, "bitmap_directory_size is %" PRIu64 ", and may be up to %d", extension->directory_bytes,
                  QCOW2_BITMAP_DIRECTORY_BYTES_MAX);
        return NULL;
    }
    if (!is_aligned(extension->directory_offset, image->cluster_size) ||
        !claim(claims, extension->directory_offset, extension->directory_bytes)) {
        error_set(err,
                  "bitmap_directory_offset is %" PRIu64 ", which is unaligned, beyond the file, or where a table lies",
                  extension->directory_offset);
        return NULL;
    }
    bytes = loop_buffer_get(extension->directory_bytes);
    if (!bytes) {
        error_set_errno(err, ENOMEM, "memory for a directory of %" PRIu64 " bytes", extension->directory_bytes);
        return NULL;
    }
    ret = co_edge_pread(image->file, extension->directory_offset, extension->directory_bytes, bytes, 0);
    if (ret)
        error_set_errno(err, ret, "reading the directory at offset %" PRIu64, extension->directory_offset);
    else
        directory = qcow2_bitmap_directory_parse(bytes, extension->directory_bytes, extension->count, err);
    loop_buffer_put(bytes, extension->directory_bytes);
    return directory;
}

/* --- one bitmap --- */

uint64_t *CO_FN co_qcow2_bitmap_table_load(struct qcow2_image *image, const struct qcow2_bitmap_entry *entry,
                                           int *ret_error)
{
    uint64_t *table = g_try_new(uint64_t, MAX(entry->table_size, 1));

    *ret_error = table ? co_qcow2_table_read(image, entry->table_offset, entry->table_size, table) : -ENOMEM;
    if (*ret_error) {
        g_free(table);
        return NULL;
    }
    return table;
}

/* What the directory says of the table, before it is read. */
static char *check_entry(const struct qcow2_image *image, const struct qcow2_bitmap_entry *entry, struct claims *claims)
{
    uint64_t length = node_length(image->node);
    uint64_t bytes = qcow2_bitmap_data_bytes(length, entry->granularity_bits);
    uint64_t entries = qcow2_bitmap_table_entries(length, entry->granularity_bits, image->cluster_bits);

    if (bytes > QCOW2_BITMAP_BYTES_MAX || entry->table_size > (uint32_t)QCOW2_BITMAP_BYTES_MAX >> image->cluster_bits)
        return g_strdup_printf("it has %" PRIu64 " bytes in %" PRIu32 " clusters, and may have %d bytes", bytes,
                               entry->table_size, QCOW2_BITMAP_BYTES_MAX);
    /* The disk may have got another size since. */
    if (entry->table_size != entries && !entry->stale)
        return g_strdup_printf("its bitmap_table_size is %" PRIu32 ", and should be %" PRIu64, entry->table_size,
                               entries);
    if (!is_aligned(entry->table_offset, image->cluster_size))
        return g_strdup_printf("its bitmap_table_offset %" PRIu64 " is unaligned", entry->table_offset);
    if (!claim(claims, entry->table_offset, (uint64_t)entry->table_size * 8))
        return g_strdup_printf("its table at offset %" PRIu64 " is beyond the file or where other metadata lies",
                               entry->table_offset);
    return NULL;
}

static char *check_table(const struct qcow2_image *image, const struct qcow2_bitmap_entry *entry, const uint64_t *table,
                         struct claims *claims)
{
    for (uint32_t i = 0; i < entry->table_size; i++) {
        if (!qcow2_bitmap_table_entry_ok(table[i], image->cluster_bits))
            return g_strdup_printf("entry %" PRIu32 " of its table is 0x%016" PRIx64, i, table[i]);
        if (table[i] > QCOW2_BITMAP_ENTRY_ONES && !claim(claims, table[i], image->cluster_size))
            return g_strdup_printf("entry %" PRIu32 " of its table, 0x%016" PRIx64
                                   ", is beyond the file or where other metadata lies",
                                   i, table[i]);
    }
    return NULL;
}

/* Reads the bits that the table names. */
static int CO_FN co_read_bits(struct qcow2_image *image, const uint64_t *table, struct bitmap *bits)
{
    uint64_t cluster_bits = image->cluster_size * 8, size = bitmap_size(bits);
    uint8_t *buffer = loop_buffer_get(image->cluster_size);
    int ret = buffer ? 0 : -ENOMEM;

    for (uint64_t at = 0; at < size && !ret; at += cluster_bits) {
        uint64_t count = MIN(cluster_bits, size - at);
        uint64_t entry = table[at / cluster_bits];

        if (entry == QCOW2_BITMAP_ENTRY_ONES) {
            bitmap_set(bits, at, count);
        } else if (entry) {
            ret = co_edge_pread(image->file, entry, (count + 7) / 8, buffer, 0);
            if (!ret)
                bitmap_load(bits, at, count, buffer);
        }
    }
    if (buffer)
        loop_buffer_put(buffer, image->cluster_size);
    return ret;
}

/* Sets the problem of an entry that has been thought to be well-formed. */
static void set_problem(struct qcow2_bitmap_entry *entry, char *problem)
{
    g_free(entry->problem);
    entry->problem = problem;
    entry->stale = false;
}

/* The table, owned, when it has been checked; NULL: entry->problem says why not. */
static uint64_t *CO_FN co_load_table(struct qcow2_image *image, struct qcow2_bitmap_entry *entry, struct claims *claims)
{
    char *problem = check_entry(image, entry, claims);
    g_autofree uint64_t *table = NULL;
    int ret = 0;

    if (!problem)
        table = co_qcow2_bitmap_table_load(image, entry, &ret);
    if (ret)
        problem = g_strdup_printf("its table could not be read: %s", g_strerror(-ret));
    if (!problem)
        problem = check_table(image, entry, table, claims);
    if (problem) {
        set_problem(entry, problem);
        return NULL;
    }
    entry->checked = true;
    return TAKE(table);
}

/* The bits of an entry, owned; NULL: entry->problem says why not. */
static struct bitmap *CO_FN co_load_bits(struct qcow2_image *image, struct qcow2_bitmap_entry *entry,
                                         struct claims *claims)
{
    uint64_t length = node_length(image->node);
    g_autofree uint64_t *table = co_load_table(image, entry, claims);
    AUTO(bitmap) bits = NULL;
    int ret;

    if (!table || entry->problem)
        return NULL;
    bits = bitmap_new(length ? ((length - 1) >> entry->granularity_bits) + 1 : 0);
    ret = co_read_bits(image, table, bits);
    if (ret) {
        set_problem(entry, g_strdup_printf("its bits could not be read: %s", g_strerror(-ret)));
        return NULL;
    }
    return TAKE(bits);
}

static void CO_FN co_load_entry(struct qcow2_image *image, struct qcow2_bitmap_entry *entry, struct claims *claims)
{
    struct bitmap *bits = entry->problem && !entry->stale ? NULL : co_load_bits(image, entry, claims);
    struct dirty_bitmap_options options = {
        .name = entry->name,
        .granularity = FALLBACK_GRANULARITY,
        .disabled = !(entry->flags & QCOW2_BITMAP_AUTO),
        .persistent = true,
        .inconsistent = !bits,
        .read_only = !image->writable,
    };

    if (entry->problem && claims->complaints++ < COMPLAINTS_MAX)
        log_warning("Node '%s': bitmap '%s' cannot be used: %s", node_name(image->node), entry->name, entry->problem);
    /* Of equal names, which none of can be used, one stands for all. */
    if (dirty_bitmap_find(image->node, entry->name, NULL))
        return;
    if (entry->granularity_bits >= QCOW2_BITMAP_GRANULARITY_BITS_MIN &&
        entry->granularity_bits <= QCOW2_BITMAP_GRANULARITY_BITS_MAX)
        options.granularity = UINT32_C(1) << entry->granularity_bits;
    if (bits)
        dirty_bitmap_replace_bits(dirty_bitmap_new(image->node, &options), bits);
    else
        (void)dirty_bitmap_new(image->node, &options);
}

/* --- all --- */

/* They cannot be kept up to date, so who writes must not leave them looking so. */
static bool CO_FN co_give_up(struct qcow2_image *image, struct error **err)
{
    int ret;

    if (!image->writable)
        return true;
    image->header->autoclear_features &= ~(uint64_t)QCOW2_BITMAPS_CONSISTENT;
    ret = co_qcow2_header_update_fields(image, true);
    return ret ? error_set_errno(err, ret, "Could not mark the bitmaps of the image as out of date") : true;
}

static void CO_FN co_load_entries(struct qcow2_image *image, struct claims *claims)
{
    GPtrArray *entries = image->bitmaps->directory->entries;

    for (unsigned i = 0; i < entries->len; i++)
        co_load_entry(image, g_ptr_array_index(entries, i), claims);
    if (claims->complaints > COMPLAINTS_MAX)
        log_warning("Node '%s': so it is with %u other bitmaps", node_name(image->node),
                    claims->complaints - COMPLAINTS_MAX);
}

static bool CO_FN co_load(struct qcow2_image *image, struct claims *claims, struct error **err)
{
    AUTO(error) reason = NULL;
    struct qcow2_bitmap_directory *directory;

    claim_tables(claims, image);
    directory = co_read_directory(image, claims, &reason);
    if (!directory) {
        log_warning("Node '%s': the bitmaps in the image are lost: %s", node_name(image->node), error_message(reason));
        return co_give_up(image, err);
    }
    qcow2_bitmap_directory_free(image->bitmaps->directory);
    image->bitmaps->directory = directory;
    image->bitmaps->offset = image->header->bitmaps.directory_offset;
    image->bitmaps->bytes = image->header->bitmaps.directory_bytes;
    co_load_entries(image, claims);
    return image->writable ? co_qcow2_bitmaps_begin_writing(image, err) : true;
}

bool CO_FN co_qcow2_bitmaps_load(struct qcow2_image *image, struct error **err)
{
    uint64_t file_clusters = align_up(node_length(edge_child(image->file)), image->cluster_size) >> image->cluster_bits;
    struct claims claims = {.cluster_bits = image->cluster_bits};
    bool ok;

    assert(!image->bitmaps);
    image->bitmaps = g_new0(struct qcow2_bitmaps, 1);
    image->bitmaps->directory = qcow2_bitmap_directory_new();
    if (!image->header->has_bitmaps)
        return true;
    if (!(image->header->autoclear_features & QCOW2_BITMAPS_CONSISTENT)) {
        log_warning("Node '%s': the bitmaps in the image are lost: a program that does not know them has written to it",
                    node_name(image->node));
        return true;
    }
    claims.clusters = bitmap_new(file_clusters);
    ok = co_load(image, &claims, err);
    bitmap_free(claims.clusters);
    return ok;
}
