/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The header: bytes to struct and back. Parsing goes field by field in the order in which later checks rely on earlier
 * ones: lengths before offsets, cluster size before everything that is counted in clusters.
 */
#include "driver/format/qcow2/header.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "block/node.h"
#include "loop/loop.h"

enum { EXTENSION_HEAD_BYTES = 8, EXTENSION_ALIGNMENT = 8, FEATURE_NAME_BYTES = 46, FEATURE_ENTRY_BYTES = 48 };
enum { BITMAPS_EXTENSION_BYTES = 24, CRYPTO_EXTENSION_BYTES = 16 };

static_assert(QCOW2_BACKING_FILE_BYTES_MAX + FEATURE_ENTRY_BYTES < QCOW2_CLUSTER_SIZE_MAX, "a name fits a cluster");

struct feature_name {
    uint8_t kind; /* 0 incompatible, 1 compatible, 2 autoclear */
    uint8_t bit;
    const char *name;
};

static const struct feature_name feature_names[] = {
    {0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
    {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
    {2, 0, "bitmaps"},          {2, 1, "raw external data"},
};

uint64_t qcow2_compressed_entry(uint64_t offset, uint32_t bytes, unsigned cluster_bits)
{
    unsigned bits = qcow2_compressed_offset_bits(cluster_bits);
    uint64_t sectors = (offset + bytes - 1) / QCOW2_COMPRESSED_SECTOR - offset / QCOW2_COMPRESSED_SECTOR;

    assert(bytes);
    assert(offset < UINT64_C(1) << bits);
    assert(sectors < UINT64_C(1) << (62 - bits));
    return QCOW2_COMPRESSED | sectors << bits | offset;
}

uint64_t qcow2_l1_entries(uint64_t size, unsigned cluster_bits, bool subclusters)
{
    unsigned shift = 2 * cluster_bits - (subclusters ? 4 : 3);

    return (size >> shift) + ((size & ((UINT64_C(1) << shift) - 1)) != 0);
}

void qcow2_header_free(struct qcow2_header *header)
{
    if (!header)
        return;
    g_free(header->backing_file);
    g_free(header->backing_format);
    g_free(header->data_file);
    g_free(header->unknown_fields);
    g_free(header->unknown_extensions);
    g_free(header);
}

/* --- parsing --- */

/* What is needed to know how long the header cluster is. */
static bool parse_start(const uint8_t *data, size_t size, struct qcow2_header *header, struct error **err)
{
    if (size < 4 || load_be32(data) != QCOW2_MAGIC)
        return error_set(err, "Image is not in qcow2 format");
    if (size < QCOW2_V2_HEADER_BYTES)
        return error_set(err, "qcow2 header too short: the file ends after %zu bytes, at least %d are needed", size,
                         QCOW2_V2_HEADER_BYTES);
    header->version = load_be32(data + QCOW2_AT_VERSION);
    if (header->version != 2 && header->version != 3)
        return error_set(err, "Unsupported qcow2 version %" PRIu32, header->version);
    if (header->version == 3 && size < QCOW2_V3_HEADER_BYTES)
        return error_set(err, "qcow2 header too short: the file ends after %zu bytes, at least %d are needed", size,
                         QCOW2_V3_HEADER_BYTES);
    header->cluster_bits = load_be32(data + QCOW2_AT_CLUSTER_BITS);
    if (header->cluster_bits < QCOW2_CLUSTER_BITS_MIN || header->cluster_bits > QCOW2_CLUSTER_BITS_MAX)
        return error_set(err, "Unsupported cluster size: 2^%" PRIu32 ", it must be 2^%d to 2^%d", header->cluster_bits,
                         QCOW2_CLUSTER_BITS_MIN, QCOW2_CLUSTER_BITS_MAX);
    return true;
}

static void parse_fields(const uint8_t *data, struct qcow2_header *header)
{
    header->size = load_be64(data + QCOW2_AT_SIZE);
    header->crypt_method = load_be32(data + QCOW2_AT_CRYPT_METHOD);
    header->l1_size = load_be32(data + QCOW2_AT_L1_SIZE);
    header->l1_table_offset = load_be64(data + QCOW2_AT_L1_TABLE_OFFSET);
    header->refcount_table_offset = load_be64(data + QCOW2_AT_REFCOUNT_TABLE_OFFSET);
    header->refcount_table_clusters = load_be32(data + QCOW2_AT_REFCOUNT_TABLE_CLUSTERS);
    header->snapshot_count = load_be32(data + QCOW2_AT_SNAPSHOT_COUNT);
    header->snapshots_offset = load_be64(data + QCOW2_AT_SNAPSHOTS_OFFSET);
    header->refcount_order = QCOW2_REFCOUNT_ORDER_V2;
    header->header_length = QCOW2_V2_HEADER_BYTES;
    if (header->version == 2)
        return;
    header->incompatible_features = load_be64(data + QCOW2_AT_INCOMPATIBLE_FEATURES);
    header->compatible_features = load_be64(data + QCOW2_AT_COMPATIBLE_FEATURES);
    header->autoclear_features = load_be64(data + QCOW2_AT_AUTOCLEAR_FEATURES);
    header->refcount_order = load_be32(data + QCOW2_AT_REFCOUNT_ORDER);
    header->header_length = load_be32(data + QCOW2_AT_HEADER_LENGTH);
}

static bool parse_length(const uint8_t *data, size_t size, struct qcow2_header *header, struct error **err)
{
    uint32_t length = header->header_length;

    if (header->version == 2)
        return true;
    if (length < QCOW2_V3_HEADER_BYTES)
        return error_set(err, "qcow2 header too short: header_length is %" PRIu32 ", at least %d are needed", length,
                         QCOW2_V3_HEADER_BYTES);
    if (length > qcow2_cluster_size(header))
        return error_set(err, "qcow2 header exceeds cluster size: header_length is %" PRIu32 ", a cluster %" PRIu64,
                         length, qcow2_cluster_size(header));
    if (length % EXTENSION_ALIGNMENT)
        return error_set(err, "qcow2 header_length is %" PRIu32 ", not a multiple of %d", length, EXTENSION_ALIGNMENT);
    if (length > size)
        return error_set(err, "qcow2 header too short: header_length is %" PRIu32 ", the file ends after %zu bytes",
                         length, size);
    if (length > QCOW2_AT_COMPRESSION_TYPE)
        header->compression_type = data[QCOW2_AT_COMPRESSION_TYPE];
    if (length > QCOW2_HEADER_BYTES) {
        header->unknown_fields_bytes = length - QCOW2_HEADER_BYTES;
        header->unknown_fields = g_memdup2(data + QCOW2_HEADER_BYTES, header->unknown_fields_bytes);
    }
    return true;
}

/* The file's own name for an incompatible feature, made fit for a message; owned, NULL: it gives none. */
static char *find_feature_name(const uint8_t *table, size_t size, unsigned bit)
{
    for (size_t at = 0; size - at >= FEATURE_ENTRY_BYTES; at += FEATURE_ENTRY_BYTES) {
        if (table[at] == 0 && table[at + 1] == bit && table[at + 2]) {
            g_autofree char *name = g_strndup((const char *)table + at + 2, FEATURE_NAME_BYTES);

            return g_strescape(name, NULL);
        }
    }
    return NULL;
}

static bool check_incompatible(const struct qcow2_header *header, const uint8_t *table, size_t table_size,
                               struct error **err)
{
    uint64_t unknown = header->incompatible_features & ~(uint64_t)QCOW2_INCOMPATIBLE_KNOWN;
    uint64_t nameless = 0;
    g_autoptr(GString) text = g_string_new(NULL);

    if (!unknown)
        return true;
    for (unsigned bit = 0; bit < 64; bit++) {
        g_autofree char *name = unknown >> bit & 1 ? find_feature_name(table, table_size, bit) : NULL;

        if (name)
            g_string_append_printf(text, "%s%s (bit %u)", text->len ? ", " : "", name, bit);
        else
            nameless |= unknown & UINT64_C(1) << bit;
    }
    if (nameless)
        g_string_append_printf(text, "%sUnknown incompatible feature: %" PRIx64, text->len ? ", " : "", nameless);
    return error_set(err, "Unsupported qcow2 feature(s): %s", text->str);
}

static bool check_features(const struct qcow2_header *header, struct error **err)
{
    bool compression = header->incompatible_features & QCOW2_COMPRESSION;

    if (header->compression_type == QCOW2_COMPRESSION_ZLIB && compression)
        return error_set(err, "qcow2: Compression type incompatible feature bit must not be set: compression_type is "
                              "0 (zlib)");
    if (header->compression_type != QCOW2_COMPRESSION_ZLIB && !compression)
        return error_set(err, "qcow2: Compression type incompatible feature bit must be set: compression_type is %u",
                         header->compression_type);
    if (header->compression_type > QCOW2_COMPRESSION_ZSTD)
        return error_set(err, "qcow2: unknown compression type: %u", header->compression_type);
    if (qcow2_has_subclusters(header) && header->cluster_bits < QCOW2_CLUSTER_BITS_SUBCLUSTERS_MIN)
        return error_set(err, "Unsupported subcluster size: %" PRIu64 ", extended L2 entries need clusters of %d bytes",
                         qcow2_cluster_size(header) / QCOW2_SUBCLUSTERS, 1 << QCOW2_CLUSTER_BITS_SUBCLUSTERS_MIN);
    if (header->autoclear_features & QCOW2_DATA_FILE_RAW && !(header->incompatible_features & QCOW2_DATA_FILE))
        return error_set(err, "data-file-raw requires a data file: autoclear_features has bit 1, incompatible_features "
                              "not bit 2");
    return true;
}

static bool check_refcounts(const struct qcow2_header *header, uint64_t file_length, struct error **err)
{
    uint64_t cluster_size = qcow2_cluster_size(header);
    uint64_t bytes = (uint64_t)header->refcount_table_clusters * cluster_size;
    uint64_t file_end = file_length > UINT64_MAX - cluster_size ? UINT64_MAX : align_up(file_length, cluster_size);

    if (header->refcount_order > QCOW2_REFCOUNT_ORDER_MAX)
        return error_set(err,
                         "Reference count entry width too large; may not exceed 64 bits: refcount_order is "
                         "%" PRIu32,
                         header->refcount_order);
    if (!header->refcount_table_clusters)
        return error_set(err, "Image does not contain a reference count table: refcount_table_clusters is 0");
    if (bytes > QCOW2_REFCOUNT_TABLE_BYTES_MAX)
        return error_set(err,
                         "Reference count table too large: refcount_table_clusters is %" PRIu32 ", at most %" PRIu64,
                         header->refcount_table_clusters, QCOW2_REFCOUNT_TABLE_BYTES_MAX / cluster_size);
    if (!is_aligned(header->refcount_table_offset, cluster_size) ||
        header->refcount_table_offset > INT64_MAX - QCOW2_REFCOUNT_TABLE_BYTES_MAX)
        return error_set(err, "Reference count table offset invalid: refcount_table_offset is %#" PRIx64,
                         header->refcount_table_offset);
    if (!range_fits(header->refcount_table_offset, bytes, file_end))
        return error_set(err,
                         "Reference count table lies beyond the end of the file: refcount_table_offset is "
                         "%#" PRIx64 " with %" PRIu32 " clusters, the file ends at %#" PRIx64,
                         header->refcount_table_offset, header->refcount_table_clusters, file_length);
    return true;
}

static bool check_l1(const struct qcow2_header *header, uint64_t file_length, struct error **err)
{
    uint64_t bytes = (uint64_t)header->l1_size * 8;
    uint64_t needed = qcow2_l1_entries(header->size, header->cluster_bits, qcow2_has_subclusters(header));

    if (header->size > NODE_LENGTH_MAX || needed > QCOW2_L1_BYTES_MAX / 8)
        return error_set(err,
                         "Image is too big: size is %" PRIu64 " bytes, at most %" PRIu64 " L1 entries of %" PRIu64
                         " needed ones are supported",
                         header->size, (uint64_t)QCOW2_L1_BYTES_MAX / 8, needed);
    if (bytes > QCOW2_L1_BYTES_MAX)
        return error_set(err, "Active L1 table too large: l1_size is %" PRIu32 ", at most %d", header->l1_size,
                         QCOW2_L1_BYTES_MAX / 8);
    if (header->l1_size < needed)
        return error_set(err, "L1 table is too small: l1_size is %" PRIu32 ", size %" PRIu64 " needs %" PRIu64,
                         header->l1_size, header->size, needed);
    if (!header->l1_size)
        return true;
    if (!is_aligned(header->l1_table_offset, qcow2_cluster_size(header)) ||
        header->l1_table_offset > INT64_MAX - QCOW2_L1_BYTES_MAX)
        return error_set(err, "Active L1 table offset invalid: l1_table_offset is %#" PRIx64, header->l1_table_offset);
    if (!range_fits(header->l1_table_offset, bytes, file_length))
        return error_set(err,
                         "Active L1 table lies beyond the end of the file: l1_table_offset is %#" PRIx64
                         " with %" PRIu32 " entries, the file ends at %#" PRIx64,
                         header->l1_table_offset, header->l1_size, file_length);
    return true;
}

static bool check_snapshots(const struct qcow2_header *header, uint64_t file_length, struct error **err)
{
    if (!header->snapshot_count)
        return true;
    if (header->snapshot_count > QCOW2_SNAPSHOTS_MAX)
        return error_set(err, "Snapshot table too large: nb_snapshots is %" PRIu32 ", at most %d",
                         header->snapshot_count, QCOW2_SNAPSHOTS_MAX);
    if (!is_aligned(header->snapshots_offset, qcow2_cluster_size(header)) || header->snapshots_offset > INT64_MAX ||
        header->snapshots_offset >= file_length)
        return error_set(err, "Snapshot table offset invalid: snapshots_offset is %#" PRIx64, header->snapshots_offset);
    return true;
}

/* --- extensions --- */

struct extension {
    uint32_t type;
    uint32_t size; /* bytes, without padding */
    const uint8_t *data;
};

/* A string without its terminator; at most `size_max` bytes. */
static bool parse_string(const struct extension *extension, const char *what, size_t size_max, char **ret,
                         struct error **err)
{
    if (*ret)
        return error_set(err, "Header extension %#" PRIx32 " (%s) is there twice", extension->type, what);
    if (extension->size > size_max)
        return error_set(err, "Header extension %#" PRIx32 " (%s) too large: %" PRIu32 " bytes, at most %zu",
                         extension->type, what, extension->size, size_max);
    *ret = g_strndup((const char *)extension->data, extension->size);
    return true;
}

static bool parse_bitmaps(struct qcow2_header *header, const struct extension *extension, struct error **err)
{
    if (header->has_bitmaps)
        return error_set(err, "bitmaps_ext: the extension is there twice");
    if (extension->size != BITMAPS_EXTENSION_BYTES)
        return error_set(err, "bitmaps_ext: Invalid extension length: %" PRIu32 " instead of %d", extension->size,
                         BITMAPS_EXTENSION_BYTES);
    header->has_bitmaps = true;
    header->bitmaps = (struct qcow2_bitmaps_extension){
        .count = load_be32(extension->data),
        .reserved = load_be32(extension->data + 4),
        .directory_bytes = load_be64(extension->data + 8),
        .directory_offset = load_be64(extension->data + 16),
    };
    return true;
}

static bool parse_crypto(struct qcow2_header *header, const struct extension *extension, struct error **err)
{
    if (header->crypt_method != QCOW2_CRYPT_LUKS)
        return error_set(err,
                         "CRYPTO header extension only expected with LUKS encryption method: crypt_method is "
                         "%" PRIu32,
                         header->crypt_method);
    if (header->has_crypto)
        return error_set(err, "CRYPTO header extension is there twice");
    if (extension->size != CRYPTO_EXTENSION_BYTES)
        return error_set(err, "CRYPTO header extension size %" PRIu32 ", but expected size %d", extension->size,
                         CRYPTO_EXTENSION_BYTES);
    header->has_crypto = true;
    header->crypto_offset = load_be64(extension->data);
    header->crypto_bytes = load_be64(extension->data + 8);
    return true;
}

/* What all extensions together tell, beside the header's fields. */
struct extensions {
    struct extension feature_names; /* type 0: none */
    GByteArray *unknown;            /* owned */
};

static bool parse_extension(struct qcow2_header *header, const struct extension *extension, struct extensions *all,
                            struct error **err)
{
    static const uint8_t zeroes[EXTENSION_ALIGNMENT];

    switch (extension->type) {
    case QCOW2_EXTENSION_BACKING_FORMAT:
        return parse_string(extension, "backing format", QCOW2_BACKING_FORMAT_BYTES_MAX, &header->backing_format, err);
    case QCOW2_EXTENSION_DATA_FILE:
        return parse_string(extension, "data file name", QCOW2_DATA_FILE_BYTES_MAX, &header->data_file, err);
    case QCOW2_EXTENSION_BITMAPS:
        return parse_bitmaps(header, extension, err);
    case QCOW2_EXTENSION_CRYPTO:
        return parse_crypto(header, extension, err);
    case QCOW2_EXTENSION_FEATURE_NAMES:
        all->feature_names = *extension;
        return true;
    default:
        g_byte_array_append(all->unknown, extension->data - EXTENSION_HEAD_BYTES,
                            EXTENSION_HEAD_BYTES + extension->size);
        g_byte_array_append(all->unknown, zeroes, -extension->size % EXTENSION_ALIGNMENT);
        return true;
    }
}

/* The list that begins at `at` and ends before `end`, where the backing file's name or the next cluster begins. */
static bool parse_extension_list(struct qcow2_header *header, const uint8_t *data, size_t at, size_t end,
                                 struct extensions *all, struct error **err)
{
    while (end - at >= EXTENSION_HEAD_BYTES) {
        struct extension extension = {
            .type = load_be32(data + at),
            .size = load_be32(data + at + 4),
            .data = data + at + EXTENSION_HEAD_BYTES,
        };
        size_t left = end - at - EXTENSION_HEAD_BYTES;

        if (extension.type == QCOW2_EXTENSION_END)
            return true;
        if (extension.size > left)
            return error_set(err, "Header extension too large: %#" PRIx32 " at %zu has %" PRIu32 " bytes, %zu are left",
                             extension.type, at, extension.size, left);
        if (!parse_extension(header, &extension, all, err))
            return false;
        at += EXTENSION_HEAD_BYTES + MIN(align_up(extension.size, EXTENSION_ALIGNMENT), left);
    }
    /* Before there were extensions, the backing file's name followed the fields. */
    if (header->backing_file)
        return true;
    return error_set(err, "Header extensions do not end inside the first cluster");
}

static bool parse_backing_file(const uint8_t *data, size_t size, struct qcow2_header *header, size_t *ret_end,
                               struct error **err)
{
    uint64_t offset = load_be64(data + QCOW2_AT_BACKING_FILE_OFFSET);
    uint32_t length = load_be32(data + QCOW2_AT_BACKING_FILE_SIZE);

    *ret_end = size;
    if (!offset)
        return true;
    if (offset > size || offset < header->header_length)
        return error_set(err,
                         "Invalid backing file offset: backing_file_offset is %" PRIu64 ", it must be between "
                         "%" PRIu32 " and %zu",
                         offset, header->header_length, size);
    if (length > QCOW2_BACKING_FILE_BYTES_MAX || length > size - offset)
        return error_set(err,
                         "Backing file name too long: backing_file_size is %" PRIu32 ", at most %d, and %zu bytes "
                         "of the first cluster are left",
                         length, QCOW2_BACKING_FILE_BYTES_MAX, size - (size_t)offset);
    *ret_end = (size_t)offset;
    if (length && data[offset])
        header->backing_file = g_strndup((const char *)data + offset, length);
    return true;
}

static bool parse_extensions(struct qcow2_header *header, const uint8_t *data, size_t end, struct error **err)
{
    g_autoptr(GByteArray) unknown = g_byte_array_new();
    struct extensions all = {.unknown = unknown};

    if (!parse_extension_list(header, data, header->header_length, end, &all, err) ||
        !check_incompatible(header, all.feature_names.data, all.feature_names.size, err))
        return false;
    header->unknown_extensions_bytes = unknown->len;
    if (unknown->len)
        header->unknown_extensions = g_memdup2(unknown->data, unknown->len);
    return true;
}

struct qcow2_header *qcow2_header_parse(const uint8_t *cluster, size_t size, uint64_t file_length, struct error **err)
{
    AUTO(qcow2_header) header = g_new0(struct qcow2_header, 1);
    size_t end;

    if (!parse_start(cluster, size, header, err))
        return NULL;
    size = MIN(size, qcow2_cluster_size(header));
    parse_fields(cluster, header);
    if (!parse_length(cluster, size, header, err) || !parse_backing_file(cluster, size, header, &end, err) ||
        !parse_extensions(header, cluster, end, err) || !check_features(header, err) ||
        !check_refcounts(header, file_length, err) || !check_l1(header, file_length, err) ||
        !check_snapshots(header, file_length, err))
        return NULL;
    if (header->crypt_method <= QCOW2_CRYPT_LUKS)
        return TAKE(header);
    error_set(err, "Unsupported encryption method %" PRIu32, header->crypt_method);
    return NULL;
}

bool qcow2_header_check_crypto(const struct qcow2_header *header, uint64_t file_length, struct error **err)
{
    if (header->crypt_method != QCOW2_CRYPT_LUKS)
        return true;
    if (!header->has_crypto)
        return error_set(err, "Missing CRYPTO header for crypt method %" PRIu32, header->crypt_method);
    if (!is_aligned(header->crypto_offset, qcow2_cluster_size(header)))
        return error_set(err, "Encryption header offset '%" PRIu64 "' is not a multiple of cluster size '%" PRIu64 "'",
                         header->crypto_offset, qcow2_cluster_size(header));
    if (header->crypto_bytes < QCOW2_CRYPTO_HEADER_BYTES_MIN)
        return error_set(err, "Encryption header too small: %" PRIu64 " bytes, at least %d", header->crypto_bytes,
                         QCOW2_CRYPTO_HEADER_BYTES_MIN);
    if (header->crypto_bytes > QCOW2_CRYPTO_HEADER_BYTES_MAX)
        return error_set(err, "Encryption header too large: %" PRIu64 " bytes, at most %d", header->crypto_bytes,
                         QCOW2_CRYPTO_HEADER_BYTES_MAX);
    if (!range_fits(header->crypto_offset, header->crypto_bytes, file_length))
        return error_set(err,
                         "Encryption header lies beyond the end of the file: %" PRIu64 " bytes at %#" PRIx64
                         ", the file ends at %#" PRIx64,
                         header->crypto_bytes, header->crypto_offset, file_length);
    return true;
}

/* --- serialising --- */

static void append_be32(GByteArray *to, uint32_t value)
{
    uint8_t bytes[4];

    store_be32(bytes, value);
    g_byte_array_append(to, bytes, sizeof(bytes));
}

static void append_be64(GByteArray *to, uint64_t value)
{
    append_be32(to, (uint32_t)(value >> 32));
    append_be32(to, (uint32_t)value);
}

static void append_padding(GByteArray *to)
{
    static const uint8_t zeroes[EXTENSION_ALIGNMENT];

    g_byte_array_append(to, zeroes, -to->len % EXTENSION_ALIGNMENT);
}

static void append_extension(GByteArray *to, uint32_t type, const void *data, size_t size)
{
    append_be32(to, type);
    append_be32(to, (uint32_t)size);
    g_byte_array_append(to, data, (unsigned)size);
    append_padding(to);
}

static void append_feature_names(GByteArray *to)
{
    append_be32(to, QCOW2_EXTENSION_FEATURE_NAMES);
    append_be32(to, G_N_ELEMENTS(feature_names) * FEATURE_ENTRY_BYTES);
    for (size_t i = 0; i < G_N_ELEMENTS(feature_names); i++) {
        uint8_t entry[FEATURE_ENTRY_BYTES] = {feature_names[i].kind, feature_names[i].bit};

        assert(strlen(feature_names[i].name) <= FEATURE_NAME_BYTES);
        memcpy(entry + 2, feature_names[i].name, strlen(feature_names[i].name));
        g_byte_array_append(to, entry, sizeof(entry));
    }
}

/* All but the feature names and the end. */
static void append_extensions(GByteArray *to, const struct qcow2_header *header)
{
    if (header->backing_format)
        append_extension(to, QCOW2_EXTENSION_BACKING_FORMAT, header->backing_format, strlen(header->backing_format));
    if (header->data_file)
        append_extension(to, QCOW2_EXTENSION_DATA_FILE, header->data_file, strlen(header->data_file));
    if (header->has_crypto) {
        append_be32(to, QCOW2_EXTENSION_CRYPTO);
        append_be32(to, CRYPTO_EXTENSION_BYTES);
        append_be64(to, header->crypto_offset);
        append_be64(to, header->crypto_bytes);
    }
    if (header->has_bitmaps) {
        append_be32(to, QCOW2_EXTENSION_BITMAPS);
        append_be32(to, BITMAPS_EXTENSION_BYTES);
        append_be32(to, header->bitmaps.count);
        append_be32(to, header->bitmaps.reserved);
        append_be64(to, header->bitmaps.directory_bytes);
        append_be64(to, header->bitmaps.directory_offset);
    }
    g_byte_array_append(to, header->unknown_extensions, (unsigned)header->unknown_extensions_bytes);
}

/* The fields but for the backing file's place. Returns how many bytes they are: at most QCOW2_HEADER_BYTES. */
static size_t store_fields(uint8_t *to, const struct qcow2_header *header)
{
    store_be32(to + QCOW2_AT_MAGIC, QCOW2_MAGIC);
    store_be32(to + QCOW2_AT_VERSION, header->version);
    store_be32(to + QCOW2_AT_CLUSTER_BITS, header->cluster_bits);
    store_be64(to + QCOW2_AT_SIZE, header->size);
    store_be32(to + QCOW2_AT_CRYPT_METHOD, header->crypt_method);
    store_be32(to + QCOW2_AT_L1_SIZE, header->l1_size);
    store_be64(to + QCOW2_AT_L1_TABLE_OFFSET, header->l1_table_offset);
    store_be64(to + QCOW2_AT_REFCOUNT_TABLE_OFFSET, header->refcount_table_offset);
    store_be32(to + QCOW2_AT_REFCOUNT_TABLE_CLUSTERS, header->refcount_table_clusters);
    store_be32(to + QCOW2_AT_SNAPSHOT_COUNT, header->snapshot_count);
    store_be64(to + QCOW2_AT_SNAPSHOTS_OFFSET, header->snapshots_offset);
    if (header->version == 2)
        return QCOW2_V2_HEADER_BYTES;
    store_be64(to + QCOW2_AT_INCOMPATIBLE_FEATURES, header->incompatible_features);
    store_be64(to + QCOW2_AT_COMPATIBLE_FEATURES, header->compatible_features);
    store_be64(to + QCOW2_AT_AUTOCLEAR_FEATURES, header->autoclear_features);
    store_be32(to + QCOW2_AT_REFCOUNT_ORDER, header->refcount_order);
    store_be32(to + QCOW2_AT_HEADER_LENGTH, header->header_length);
    if (header->header_length == QCOW2_V3_HEADER_BYTES)
        return QCOW2_V3_HEADER_BYTES;
    to[QCOW2_AT_COMPRESSION_TYPE] = header->compression_type;
    return QCOW2_HEADER_BYTES;
}

/* A version may have changed since the header was read, and a compression type come. */
static void settle_length(struct qcow2_header *header)
{
    if (header->version == 2)
        header->header_length = QCOW2_V2_HEADER_BYTES;
    else
        header->header_length = QCOW2_HEADER_BYTES + (uint32_t)header->unknown_fields_bytes;
}

uint8_t *qcow2_header_serialise(struct qcow2_header *header, size_t *ret_size, struct error **err)
{
    uint8_t fields[QCOW2_HEADER_BYTES] = {0};
    g_autoptr(GByteArray) to = g_byte_array_new();
    size_t name_bytes = header->backing_file ? strlen(header->backing_file) : 0;
    size_t names_bytes = EXTENSION_HEAD_BYTES + G_N_ELEMENTS(feature_names) * FEATURE_ENTRY_BYTES;
    uint64_t cluster_size = qcow2_cluster_size(header);
    size_t needed;

    settle_length(header);
    g_byte_array_append(to, fields, (unsigned)store_fields(fields, header));
    memcpy(to->data, fields, to->len);
    if (header->version == 3)
        g_byte_array_append(to, header->unknown_fields, (unsigned)header->unknown_fields_bytes);
    append_extensions(to, header);
    needed = to->len + EXTENSION_HEAD_BYTES + name_bytes;
    if (needed > cluster_size) {
        error_set(err, "The header needs %zu bytes with all names and extensions, a cluster has %" PRIu64, needed,
                  cluster_size);
        return NULL;
    }
    if (header->version == 3 && needed + names_bytes <= cluster_size)
        append_feature_names(to);
    append_be64(to, 0); /* the end */
    if (name_bytes) {
        store_be64(to->data + QCOW2_AT_BACKING_FILE_OFFSET, to->len);
        store_be32(to->data + QCOW2_AT_BACKING_FILE_SIZE, (uint32_t)name_bytes);
        g_byte_array_append(to, (const uint8_t *)header->backing_file, (unsigned)name_bytes);
    }
    assert(to->len <= cluster_size);
    *ret_size = to->len;
    return g_byte_array_free(TAKE(to), false);
}

/* --- I/O --- */

struct qcow2_header *CO_FN co_qcow2_header_load(struct edge *file, struct error **err)
{
    uint64_t length = node_length(edge_child(file));
    struct qcow2_header start = {0};
    uint8_t head[QCOW2_HEADER_BYTES] = {0};
    g_autofree uint8_t *cluster = NULL;
    size_t size = MIN(length, sizeof(head));
    int ret = co_edge_pread(file, 0, size, head, 0);

    if (ret) {
        error_set_errno(err, ret, "Could not read qcow2 header");
        return NULL;
    }
    if (!parse_start(head, size, &start, err))
        return NULL;
    size = MIN(length, qcow2_cluster_size(&start));
    cluster = g_malloc(size);
    ret = co_edge_pread(file, 0, size, cluster, 0);
    if (ret) {
        error_set_errno(err, ret, "Could not read qcow2 header");
        return NULL;
    }
    return qcow2_header_parse(cluster, size, length, err);
}

bool CO_FN co_qcow2_header_store(struct edge *file, struct qcow2_header *header, struct error **err)
{
    size_t size;
    g_autofree uint8_t *bytes = qcow2_header_serialise(header, &size, err);
    int ret;

    if (!bytes)
        return false;
    ret = co_edge_pwrite(file, 0, size, bytes, 0);
    return !ret || error_set_errno(err, ret, "Could not update qcow2 header");
}

int CO_FN co_qcow2_header_store_fields(struct edge *file, const struct qcow2_header *header)
{
    uint8_t bytes[QCOW2_HEADER_BYTES] = {0};
    size_t size = store_fields(bytes, header);

    /* Where the backing file's name is stays as it is, before the cluster size. */
    enum { FIRST = QCOW2_AT_CLUSTER_BITS };
    return co_edge_pwrite(file, FIRST, size - FIRST, bytes + FIRST, 0);
}
