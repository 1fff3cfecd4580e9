/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "driver/format/qcow2/bitmap-directory.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/error.h"

/* Where an entry's fields are. */
enum {
    AT_TABLE_OFFSET = 0,
    AT_TABLE_SIZE = 8,
    AT_FLAGS = 12,
    AT_TYPE = 16,
    AT_GRANULARITY_BITS = 17,
    AT_NAME_SIZE = 18,
    AT_EXTRA_SIZE = 20,
    AT_TAIL = 24,
    ENTRY_ALIGNMENT = 8,
};

static void free_entry(void *entry)
{
    qcow2_bitmap_entry_free(entry);
}

struct qcow2_bitmap_directory *qcow2_bitmap_directory_new(void)
{
    struct qcow2_bitmap_directory *directory = g_new0(struct qcow2_bitmap_directory, 1);

    directory->entries = g_ptr_array_new_with_free_func(free_entry);
    return directory;
}

void qcow2_bitmap_directory_free(struct qcow2_bitmap_directory *directory)
{
    if (!directory)
        return;
    g_ptr_array_free(directory->entries, true);
    g_free(directory);
}

struct qcow2_bitmap_entry *qcow2_bitmap_entry_new(const char *name, unsigned granularity_bits)
{
    struct qcow2_bitmap_entry *entry = g_new0(struct qcow2_bitmap_entry, 1);
    size_t length = strlen(name);

    assert(length && length <= QCOW2_BITMAP_NAME_MAX);
    entry->type = QCOW2_BITMAP_TYPE_DIRTY;
    entry->granularity_bits = (uint8_t)granularity_bits;
    entry->name_bytes = (uint16_t)length;
    entry->tail = g_memdup2(name, length);
    entry->name = g_strdup(name);
    return entry;
}

struct qcow2_bitmap_entry *qcow2_bitmap_entry_copy(const struct qcow2_bitmap_entry *entry)
{
    struct qcow2_bitmap_entry *copy = g_memdup2(entry, sizeof(*entry));

    copy->tail = g_memdup2(entry->tail, (size_t)entry->extra_bytes + entry->name_bytes);
    copy->name = g_strdup(entry->name);
    copy->problem = g_strdup(entry->problem);
    return copy;
}

void qcow2_bitmap_entry_free(struct qcow2_bitmap_entry *entry)
{
    if (!entry)
        return;
    g_free(entry->tail);
    g_free(entry->name);
    g_free(entry->problem);
    g_free(entry);
}

struct qcow2_bitmap_entry *qcow2_bitmap_directory_find(const struct qcow2_bitmap_directory *directory, const char *name)
{
    for (unsigned i = 0; i < directory->entries->len; i++) {
        struct qcow2_bitmap_entry *entry = g_ptr_array_index(directory->entries, i);

        if (!strcmp(entry->name, name))
            return entry;
    }
    return NULL;
}

uint64_t qcow2_bitmap_entry_bytes(const struct qcow2_bitmap_entry *entry)
{
    return align_up(AT_TAIL + (uint64_t)entry->extra_bytes + entry->name_bytes, ENTRY_ALIGNMENT);
}

uint64_t qcow2_bitmap_directory_bytes(const struct qcow2_bitmap_directory *directory)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < directory->entries->len; i++)
        sum += qcow2_bitmap_entry_bytes(g_ptr_array_index(directory->entries, i));
    return sum;
}

uint64_t qcow2_bitmap_data_bytes(uint64_t length, unsigned granularity_bits)
{
    uint64_t bits = length ? ((length - 1) >> granularity_bits) + 1 : 0;

    return (bits + 7) / 8;
}

uint64_t qcow2_bitmap_table_entries(uint64_t length, unsigned granularity_bits, unsigned cluster_bits)
{
    uint64_t bytes = qcow2_bitmap_data_bytes(length, granularity_bits);

    return bytes ? ((bytes - 1) >> cluster_bits) + 1 : 0;
}

bool qcow2_bitmap_table_entry_ok(uint64_t entry, unsigned cluster_bits)
{
    if (entry <= QCOW2_BITMAP_ENTRY_ONES)
        return true;
    return !(entry & ~QCOW2_BITMAP_ENTRY_OFFSET_MASK) && is_aligned(entry, UINT64_C(1) << cluster_bits);
}

/* --- parsing --- */

static char *find_problem(const struct qcow2_bitmap_entry *entry)
{
    const char *name = entry->tail ? (const char *)entry->tail + entry->extra_bytes : "";

    if (entry->type != QCOW2_BITMAP_TYPE_DIRTY)
        return g_strdup_printf("its type %u is unknown", entry->type);
    if (entry->flags & ~(uint32_t)QCOW2_BITMAP_FLAGS_KNOWN)
        return g_strdup_printf("its flags 0x%08" PRIx32 " are unknown", entry->flags);
    if (entry->extra_bytes && !(entry->flags & QCOW2_BITMAP_EXTRA_COMPATIBLE))
        return g_strdup_printf("it has %" PRIu32 " bytes of unknown extra data", entry->extra_bytes);
    if (entry->granularity_bits < QCOW2_BITMAP_GRANULARITY_BITS_MIN ||
        entry->granularity_bits > QCOW2_BITMAP_GRANULARITY_BITS_MAX)
        return g_strdup_printf("its granularity_bits are %u, and may be %d to %d", entry->granularity_bits,
                               QCOW2_BITMAP_GRANULARITY_BITS_MIN, QCOW2_BITMAP_GRANULARITY_BITS_MAX);
    if (!entry->name_bytes)
        return g_strdup("it has no name");
    if (entry->name_bytes > QCOW2_BITMAP_NAME_MAX)
        return g_strdup_printf("its name has %u bytes, and may have %d", entry->name_bytes, QCOW2_BITMAP_NAME_MAX);
    if (!g_utf8_validate(name, entry->name_bytes, NULL))
        return g_strdup("its name is no valid text");
    return NULL;
}

/* The entry at `bytes`, of which it takes *ret_bytes; NULL and the error where it is longer than `size`. */
static struct qcow2_bitmap_entry *parse_entry(const uint8_t *bytes, size_t size, uint64_t *ret_bytes,
                                              struct error **err)
{
    struct qcow2_bitmap_entry *entry;
    uint32_t extra_bytes;
    uint16_t name_bytes;
    uint64_t tail_bytes;

    if (size < AT_TAIL) {
        error_set(err, "it has %zu bytes left of the directory, and needs %d", size, AT_TAIL);
        return NULL;
    }
    name_bytes = load_be16(bytes + AT_NAME_SIZE);
    extra_bytes = load_be32(bytes + AT_EXTRA_SIZE);
    tail_bytes = (uint64_t)extra_bytes + name_bytes;
    *ret_bytes = align_up(AT_TAIL + tail_bytes, ENTRY_ALIGNMENT);
    if (*ret_bytes > size) {
        error_set(err,
                  "with extra_data_size %" PRIu32 " and name_size %u it needs %" PRIu64
                  " bytes, and has %zu left of the "
                  "directory",
                  extra_bytes, name_bytes, *ret_bytes, size);
        return NULL;
    }
    entry = g_new0(struct qcow2_bitmap_entry, 1);
    entry->table_offset = load_be64(bytes + AT_TABLE_OFFSET);
    entry->table_size = load_be32(bytes + AT_TABLE_SIZE);
    entry->flags = load_be32(bytes + AT_FLAGS);
    entry->type = bytes[AT_TYPE];
    entry->granularity_bits = bytes[AT_GRANULARITY_BITS];
    entry->name_bytes = name_bytes;
    entry->extra_bytes = extra_bytes;
    entry->tail = g_memdup2(bytes + AT_TAIL, tail_bytes);
    entry->name = g_utf8_make_valid(tail_bytes ? (const char *)entry->tail + extra_bytes : "", name_bytes);
    entry->problem = find_problem(entry);
    if (!entry->problem && entry->flags & QCOW2_BITMAP_IN_USE) {
        entry->problem = g_strdup("it was not kept up to date");
        entry->stale = true;
    }
    return entry;
}

static void set_doubtful(struct qcow2_bitmap_entry *entry)
{
    entry->stale = false;
    if (!entry->problem)
        entry->problem = g_strdup("another one has the same name");
}

/* Names must be unique; of those that are not, none can be trusted. */
static void check_names(struct qcow2_bitmap_directory *directory)
{
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);

    for (unsigned i = 0; i < directory->entries->len; i++) {
        struct qcow2_bitmap_entry *entry = g_ptr_array_index(directory->entries, i);
        struct qcow2_bitmap_entry *other = g_hash_table_lookup(names, entry->name);

        if (!other) {
            g_hash_table_insert(names, entry->name, entry);
            continue;
        }
        set_doubtful(entry);
        set_doubtful(other);
    }
}

struct qcow2_bitmap_directory *qcow2_bitmap_directory_parse(const uint8_t *bytes, size_t size, uint32_t count,
                                                            struct error **err)
{
    AUTO(qcow2_bitmap_directory) directory = qcow2_bitmap_directory_new();
    size_t at = 0;

    if (!count || count > QCOW2_BITMAPS_MAX) {
        error_set(err, "nb_bitmaps is %" PRIu32 ", and may be 1 to %d", count, QCOW2_BITMAPS_MAX);
        return NULL;
    }
    for (uint32_t i = 0; i < count; i++) {
        AUTO(error) reason = NULL;
        uint64_t used;
        struct qcow2_bitmap_entry *entry = parse_entry(bytes + at, size - at, &used, &reason);

        if (!entry) {
            error_set(err, "entry %" PRIu32 " of %" PRIu32 " at byte %zu: %s", i, count, at, error_message(reason));
            return NULL;
        }
        g_ptr_array_add(directory->entries, entry);
        at += used;
    }
    if (at != size) {
        error_set(err, "bitmap_directory_size is %zu, and its %" PRIu32 " entries have %zu bytes", size, count, at);
        return NULL;
    }
    check_names(directory);
    return TAKE(directory);
}

/* --- writing --- */

static void store_entry(const struct qcow2_bitmap_entry *entry, uint8_t *to)
{
    store_be64(to + AT_TABLE_OFFSET, entry->table_offset);
    store_be32(to + AT_TABLE_SIZE, entry->table_size);
    store_be32(to + AT_FLAGS, entry->flags);
    to[AT_TYPE] = entry->type;
    to[AT_GRANULARITY_BITS] = entry->granularity_bits;
    store_be16(to + AT_NAME_SIZE, entry->name_bytes);
    store_be32(to + AT_EXTRA_SIZE, entry->extra_bytes);
    if (entry->tail)
        memcpy(to + AT_TAIL, entry->tail, (size_t)entry->extra_bytes + entry->name_bytes);
}

uint8_t *qcow2_bitmap_directory_serialise(const struct qcow2_bitmap_directory *directory, size_t *ret_size)
{
    uint64_t size = qcow2_bitmap_directory_bytes(directory);
    uint8_t *bytes = g_malloc0(size);
    uint64_t at = 0;

    for (unsigned i = 0; i < directory->entries->len; i++) {
        const struct qcow2_bitmap_entry *entry = g_ptr_array_index(directory->entries, i);

        store_entry(entry, bytes + at);
        at += qcow2_bitmap_entry_bytes(entry);
    }
    assert(at == size);
    *ret_size = size;
    return bytes;
}
