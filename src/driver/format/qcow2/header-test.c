/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "driver/format/qcow2/header.h"

#include <glib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"

enum { CLUSTER = 65536, FILE_BYTES = 4 * CLUSTER };

/* A small image of version 3 as it might be: refcount table, refcount block, L1 table. */
static struct qcow2_header *sample_new(void)
{
    struct qcow2_header *header = g_new0(struct qcow2_header, 1);

    header->version = 3;
    header->cluster_bits = 16;
    header->size = 64 << 20;
    header->l1_size = 1;
    header->l1_table_offset = UINT64_C(3) * CLUSTER;
    header->refcount_table_offset = CLUSTER;
    header->refcount_table_clusters = 1;
    header->refcount_order = QCOW2_REFCOUNT_ORDER_V2;
    return header;
}

static uint8_t *sample_bytes(const struct qcow2_header *header)
{
    size_t size;
    g_autofree uint8_t *bytes = qcow2_header_serialise((struct qcow2_header *)header, &size, NULL);
    uint8_t *cluster = g_malloc0(CLUSTER);

    g_assert_nonnull(bytes);
    memcpy(cluster, bytes, size);
    return cluster;
}

static void test_round_trip(void)
{
    AUTO(qcow2_header) header = sample_new();
    AUTO(qcow2_header) parsed = NULL;
    AUTO(error) err = NULL;
    g_autofree uint8_t *cluster = NULL;
    static const uint8_t unknown[16] = {0x12, 0x34, 0x56, 0x78, 0, 0, 0, 5, 'h', 'e', 'l', 'l', 'o'};

    header->incompatible_features = QCOW2_DATA_FILE | QCOW2_EXTENDED_L2 | QCOW2_COMPRESSION;
    header->compatible_features = QCOW2_LAZY_REFCOUNTS | UINT64_C(1) << 40;
    header->autoclear_features = QCOW2_BITMAPS_CONSISTENT | UINT64_C(1) << 41;
    header->compression_type = QCOW2_COMPRESSION_ZSTD;
    header->refcount_order = 6;
    header->crypt_method = QCOW2_CRYPT_LUKS;
    header->has_crypto = true;
    header->crypto_bytes = 4096;
    header->backing_file = g_strdup("base.qcow2");
    header->backing_format = g_strdup("qcow2");
    header->data_file = g_strdup("data.raw");
    header->has_bitmaps = true;
    header->bitmaps = (struct qcow2_bitmaps_extension){.count = 2, .directory_bytes = 64, .directory_offset = CLUSTER};
    header->unknown_extensions = g_memdup2(unknown, sizeof(unknown));
    header->unknown_extensions_bytes = sizeof(unknown);
    header->unknown_fields = g_memdup2("abcdefgh", 8);
    header->unknown_fields_bytes = 8;

    cluster = sample_bytes(header);
    parsed = qcow2_header_parse(cluster, CLUSTER, FILE_BYTES, &err);
    g_assert_null(err);
    g_assert_nonnull(parsed);
    g_assert_cmpuint(parsed->header_length, ==, QCOW2_HEADER_BYTES + 8);
    g_assert_cmpuint(parsed->size, ==, header->size);
    g_assert_cmpuint(parsed->compatible_features, ==, header->compatible_features);
    g_assert_cmpuint(parsed->autoclear_features, ==, header->autoclear_features);
    g_assert_cmpuint(parsed->compression_type, ==, QCOW2_COMPRESSION_ZSTD);
    g_assert_cmpstr(parsed->backing_file, ==, "base.qcow2");
    g_assert_cmpstr(parsed->backing_format, ==, "qcow2");
    g_assert_cmpstr(parsed->data_file, ==, "data.raw");
    g_assert_cmpuint(parsed->crypto_bytes, ==, 4096);
    g_assert_cmpuint(parsed->bitmaps.count, ==, 2);
    g_assert_cmpmem(parsed->unknown_extensions, parsed->unknown_extensions_bytes, unknown, sizeof(unknown));
    g_assert_cmpmem(parsed->unknown_fields, parsed->unknown_fields_bytes, "abcdefgh", 8);
}

/* The name table goes before anything else does where a cluster is too small. */
static void test_small_cluster(void)
{
    AUTO(qcow2_header) header = sample_new();
    AUTO(qcow2_header) parsed = NULL;
    AUTO(error) err = NULL;
    g_autofree uint8_t *bytes = NULL;
    size_t size;

    header->cluster_bits = 9;
    header->size = 4096;
    header->backing_file = g_strnfill(512 - QCOW2_HEADER_BYTES - 8, 'x');
    bytes = qcow2_header_serialise(header, &size, NULL);
    g_assert_nonnull(bytes);
    g_assert_cmpuint(size, ==, 512);
    parsed = qcow2_header_parse(bytes, size, FILE_BYTES, &err);
    g_assert_null(err);
    g_assert_cmpstr(parsed->backing_file, ==, header->backing_file);

    g_free(header->backing_file);
    header->backing_file = g_strnfill(512 - QCOW2_HEADER_BYTES - 7, 'x');
    g_assert_null(qcow2_header_serialise(header, &size, &err));
    g_assert_cmpstr(error_message(err), ==,
                    "The header needs 513 bytes with all names and extensions, a cluster has 512");
}

/* A field of a good header, another value for it, and what is said of it. */
struct refusal {
    unsigned at;
    unsigned bytes; /* 4 or 8 */
    uint64_t value;
    const char *pattern;
};

static const struct refusal refusals[] = {
    {QCOW2_AT_MAGIC, 4, 0, "Image is not in qcow2 format"},
    {QCOW2_AT_VERSION, 4, 1, "Unsupported qcow2 version 1"},
    {QCOW2_AT_VERSION, 4, UINT32_MAX, "Unsupported qcow2 version 4294967295"},
    {QCOW2_AT_CLUSTER_BITS, 4, 8, "Unsupported cluster size: 2^8,*"},
    {QCOW2_AT_CLUSTER_BITS, 4, UINT32_MAX, "Unsupported cluster size: 2^4294967295,*"},
    {QCOW2_AT_HEADER_LENGTH, 4, 72, "qcow2 header too short: header_length is 72,*"},
    {QCOW2_AT_HEADER_LENGTH, 4, 105, "qcow2 header_length is 105, not a multiple of 8"},
    {QCOW2_AT_HEADER_LENGTH, 4, UINT32_MAX, "qcow2 header exceeds cluster size: header_length is 4294967295,*"},
    {QCOW2_AT_REFCOUNT_ORDER, 4, 7, "Reference count entry width too large;*refcount_order is 7"},
    {QCOW2_AT_SIZE, 8, UINT64_MAX, "Image is too big: size is 18446744073709551615*"},
    {QCOW2_AT_SIZE, 8, UINT64_C(1) << 62, "Image is too big: size is 4611686018427387904*"},
    {QCOW2_AT_SIZE, 8, UINT64_C(1) << 30, "L1 table is too small: l1_size is 1, size 1073741824 needs 2"},
    {QCOW2_AT_L1_SIZE, 4, 4194305, "Active L1 table too large: l1_size is 4194305,*"},
    {QCOW2_AT_L1_SIZE, 4, 0, "L1 table is too small: l1_size is 0,*"},
    {QCOW2_AT_L1_TABLE_OFFSET, 8, 512, "Active L1 table offset invalid: l1_table_offset is 0x200"},
    {QCOW2_AT_L1_TABLE_OFFSET, 8, UINT64_C(1) << 63, "Active L1 table offset invalid:*"},
    {QCOW2_AT_L1_TABLE_OFFSET, 8, FILE_BYTES, "Active L1 table lies beyond the end of the file:*0x40000*"},
    {QCOW2_AT_REFCOUNT_TABLE_OFFSET, 8, 512, "Reference count table offset invalid:*0x200"},
    {QCOW2_AT_REFCOUNT_TABLE_OFFSET, 8, UINT64_C(1) << 56, "Reference count table lies beyond the end*"},
    {QCOW2_AT_REFCOUNT_TABLE_CLUSTERS, 4, 0, "Image does not contain a reference count table*"},
    {QCOW2_AT_REFCOUNT_TABLE_CLUSTERS, 4, UINT32_MAX, "Reference count table too large:*4294967295, at most 128"},
    {QCOW2_AT_SNAPSHOT_COUNT, 4, 65537, "Snapshot table too large: nb_snapshots is 65537,*"},
    {QCOW2_AT_CRYPT_METHOD, 4, 3, "Unsupported encryption method 3"},
    {QCOW2_AT_CRYPT_METHOD, 4, 2, "Missing CRYPTO header for crypt method 2"},
    {QCOW2_AT_INCOMPATIBLE_FEATURES, 8, 0x20, "Unsupported qcow2 feature(s): Unknown incompatible feature: 20"},
    {QCOW2_AT_INCOMPATIBLE_FEATURES, 8, QCOW2_COMPRESSION, "qcow2: Compression type*must not be set*"},
    {QCOW2_AT_COMPRESSION_TYPE, 4, 1u << 24, "qcow2: Compression type*must be set*"},
    {QCOW2_AT_AUTOCLEAR_FEATURES, 8, QCOW2_DATA_FILE_RAW, "data-file-raw requires a data file*"},
    {QCOW2_AT_BACKING_FILE_OFFSET, 8, 1, "Invalid backing file offset: backing_file_offset is 1,*"},
    {QCOW2_AT_BACKING_FILE_OFFSET, 8, UINT64_C(1) << 63, "Invalid backing file offset:*"},
    {QCOW2_HEADER_BYTES + 4, 4, UINT32_MAX, "Header extension too large:*4294967295 bytes*"},
};

static void test_refusals(void)
{
    AUTO(qcow2_header) header = sample_new();

    for (size_t i = 0; i < G_N_ELEMENTS(refusals); i++) {
        const struct refusal *refusal = &refusals[i];
        AUTO(error) err = NULL;
        g_autofree uint8_t *cluster = sample_bytes(header);

        if (refusal->bytes == 8)
            store_be64(cluster + refusal->at, refusal->value);
        else
            store_be32(cluster + refusal->at, (uint32_t)refusal->value);
        AUTO(qcow2_header) parsed = qcow2_header_parse(cluster, CLUSTER, FILE_BYTES, &err);
        g_assert_false(parsed && qcow2_header_check_crypto(parsed, FILE_BYTES, &err));
        if (!g_pattern_match_simple(refusal->pattern, error_message(err)))
            g_error("\"%s\" is not like \"%s\"", error_message(err), refusal->pattern);
    }
}

/* Where an encryption header cannot lie. */
static void test_crypto_place(void)
{
    static const struct {
        uint64_t offset;
        uint64_t bytes;
        const char *pattern; /* NULL: it can */
    } rows[] = {
        {CLUSTER, 4096, NULL},
        {FILE_BYTES - CLUSTER, 4096, NULL},
        {CLUSTER + 512, 4096, "Encryption header offset '*' is not a multiple of cluster size '*'"},
        {CLUSTER, 591, "Encryption header too small: 591 bytes, at least 592"},
        {CLUSTER, UINT64_MAX, "Encryption header too large: 18446744073709551615 bytes, at most *"},
        {FILE_BYTES, 4096, "Encryption header lies beyond the end of the file: 4096 bytes at *"},
        {UINT64_MAX - CLUSTER + 1, 4096, "Encryption header lies beyond the end of the file: 4096 bytes at *"},
    };
    AUTO(qcow2_header) header = sample_new();

    header->crypt_method = QCOW2_CRYPT_LUKS;
    header->has_crypto = true;
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        AUTO(error) err = NULL;

        header->crypto_offset = rows[i].offset;
        header->crypto_bytes = rows[i].bytes;
        g_assert_true(qcow2_header_check_crypto(header, FILE_BYTES, &err) == !rows[i].pattern);
        if (rows[i].pattern && !g_pattern_match_simple(rows[i].pattern, error_message(err)))
            g_error("\"%s\" is not like \"%s\"", error_message(err), rows[i].pattern);
    }
}

/* Each length of a file that ends inside its header. */
static void test_cut_off(void)
{
    AUTO(qcow2_header) header = sample_new();
    g_autofree uint8_t *cluster = sample_bytes(header);

    for (size_t size = 0; size < QCOW2_HEADER_BYTES; size++) {
        g_autofree uint8_t *cut = g_memdup2(cluster, size);
        AUTO(error) err = NULL;

        g_assert_null(qcow2_header_parse(cut, size, size, &err));
        g_assert_nonnull(err);
    }
}

static void test_backing_name(void)
{
    AUTO(qcow2_header) header = sample_new();
    g_autofree uint8_t *cluster = NULL;

    header->backing_file = g_strdup("base");
    cluster = sample_bytes(header);
    for (uint32_t size = 1023; size <= 1024; size++) {
        AUTO(error) err = NULL;
        AUTO(qcow2_header) parsed = NULL;

        store_be32(cluster + QCOW2_AT_BACKING_FILE_SIZE, size);
        parsed = qcow2_header_parse(cluster, CLUSTER, FILE_BYTES, &err);
        g_assert_true(!parsed == (size == 1024));
    }
    /* The list of extensions must not run into the name. */
    {
        AUTO(error) err = NULL;

        store_be32(cluster + QCOW2_AT_BACKING_FILE_SIZE, 4);
        store_be32(cluster + QCOW2_HEADER_BYTES, 0x12345678);
        store_be32(cluster + QCOW2_HEADER_BYTES + 4, 1024);
        g_assert_null(qcow2_header_parse(cluster, CLUSTER, FILE_BYTES, &err));
        g_assert_true(g_str_has_prefix(error_message(err), "Header extension too large: 0x12345678"));
    }
}

/* What the file itself calls a feature that we do not know, whatever bytes that are. */
static void test_feature_names(void)
{
    static const uint8_t entry[48] = {0, 7, 't', 'i', 'm', 'e', '\n', 't', 'r', 'a', 'v', 'e', 'l'};
    AUTO(qcow2_header) header = sample_new();
    AUTO(error) err = NULL;
    g_autofree uint8_t *cluster = sample_bytes(header);

    store_be64(cluster + QCOW2_AT_INCOMPATIBLE_FEATURES, 0x280);
    store_be32(cluster + QCOW2_HEADER_BYTES, QCOW2_EXTENSION_FEATURE_NAMES);
    store_be32(cluster + QCOW2_HEADER_BYTES + 4, sizeof(entry));
    memcpy(cluster + QCOW2_HEADER_BYTES + 8, entry, sizeof(entry));
    memset(cluster + QCOW2_HEADER_BYTES + 8 + sizeof(entry), 0, 8);
    g_assert_null(qcow2_header_parse(cluster, CLUSTER, FILE_BYTES, &err));
    g_assert_cmpstr(error_message(err), ==,
                    "Unsupported qcow2 feature(s): time\\ntravel (bit 7), Unknown incompatible feature: 200");
}

static void test_no_end(void)
{
    AUTO(qcow2_header) header = sample_new();
    AUTO(error) err = NULL;
    g_autofree uint8_t *cluster = sample_bytes(header);

    store_be32(cluster + QCOW2_HEADER_BYTES, 0x12345678);
    store_be32(cluster + QCOW2_HEADER_BYTES + 4, CLUSTER - QCOW2_HEADER_BYTES - 8);
    g_assert_null(qcow2_header_parse(cluster, CLUSTER, FILE_BYTES, &err));
    g_assert_cmpstr(error_message(err), ==, "Header extensions do not end inside the first cluster");
}

/* Version 2 as it was before there were extensions: the name follows the fields. */
static void test_version_2_bare(void)
{
    AUTO(qcow2_header) header = sample_new();
    AUTO(qcow2_header) parsed = NULL;
    AUTO(error) err = NULL;
    g_autofree uint8_t *cluster = NULL;

    header->version = 2;
    cluster = sample_bytes(header);
    store_be64(cluster + QCOW2_AT_BACKING_FILE_OFFSET, QCOW2_V2_HEADER_BYTES);
    store_be32(cluster + QCOW2_AT_BACKING_FILE_SIZE, 4);
    memcpy(cluster + QCOW2_V2_HEADER_BYTES, "base", 4);
    parsed = qcow2_header_parse(cluster, CLUSTER, FILE_BYTES, &err);
    g_assert_null(err);
    g_assert_cmpstr(parsed->backing_file, ==, "base");
    g_assert_cmpuint(parsed->refcount_order, ==, 4);
}

static void test_compressed_entry(void)
{
    static const struct {
        uint64_t offset;
        uint32_t bytes;
        uint32_t extent_bytes;
    } cases[] = {{0x10000, 1, 512}, {0x10000, 512, 512}, {0x10000, 513, 1024}, {0x101ff, 2, 513}, {0x10001, 511, 511}};

    for (unsigned bits = QCOW2_CLUSTER_BITS_MIN + 2; bits <= QCOW2_CLUSTER_BITS_MAX; bits++) {
        for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
            uint64_t entry = qcow2_compressed_entry(cases[i].offset, cases[i].bytes, bits);
            struct qcow2_compressed_extent extent = qcow2_compressed_extent(entry, bits);

            g_assert_true(entry & QCOW2_COMPRESSED);
            g_assert_false(entry & QCOW2_COPIED);
            g_assert_cmpuint(extent.offset, ==, cases[i].offset);
            g_assert_cmpuint(extent.bytes, ==, cases[i].extent_bytes);
        }
    }
}

static void test_l1_entries(void)
{
    g_assert_cmpuint(qcow2_l1_entries(0, 16, false), ==, 0);
    g_assert_cmpuint(qcow2_l1_entries(1, 16, false), ==, 1);
    g_assert_cmpuint(qcow2_l1_entries(512 << 20, 16, false), ==, 1);
    g_assert_cmpuint(qcow2_l1_entries((512 << 20) + 1, 16, false), ==, 2);
    g_assert_cmpuint(qcow2_l1_entries(512 << 20, 16, true), ==, 2);
    g_assert_cmpuint(qcow2_l1_entries(UINT64_MAX, 9, false), ==, UINT64_C(1) << 49);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2/header/round-trip", test_round_trip);
    g_test_add_func("/qcow2/header/small-cluster", test_small_cluster);
    g_test_add_func("/qcow2/header/refusals", test_refusals);
    g_test_add_func("/qcow2/header/crypto-place", test_crypto_place);
    g_test_add_func("/qcow2/header/cut-off", test_cut_off);
    g_test_add_func("/qcow2/header/backing-name", test_backing_name);
    g_test_add_func("/qcow2/header/feature-names", test_feature_names);
    g_test_add_func("/qcow2/header/no-end", test_no_end);
    g_test_add_func("/qcow2/header/version-2-bare", test_version_2_bare);
    g_test_add_func("/qcow2/header/compressed-entry", test_compressed_entry);
    g_test_add_func("/qcow2/header/l1-entries", test_l1_entries);
    return g_test_run();
}
