/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Images as they are made: each is read back, and every cluster of the file must be counted once and used once, by what
 * the header and the tables name. Then what is refused, and the short form of the options.
 */
#include "driver/format/qcow2/compress.h"
#include "driver/format/qcow2/create.h"

#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/error.h"
#include "block/driver.h"
#include "driver/format/qcow2/header.h"
#include "driver/format/raw.h"
#include "driver/image-test-run.h"
#include "driver/protocol/file.h"
#include "schema/json.h"

static const struct block_driver *const drivers[] = {&file_driver, &raw_driver, NULL};

/* --- reading back --- */

struct image {
    uint8_t *data;
    size_t size;
    struct qcow2_header *header;
    uint8_t *uses; /* how often each cluster is used */
    size_t clusters;
};

static void use(struct image *image, uint64_t offset, uint64_t bytes)
{
    uint64_t cluster_size = qcow2_cluster_size(image->header);

    g_assert_cmpuint(offset % cluster_size, ==, 0);
    for (uint64_t at = offset; at < offset + bytes; at += cluster_size) {
        g_assert_cmpuint(at / cluster_size, <, image->clusters);
        image->uses[at / cluster_size]++;
    }
}

static uint64_t refcount(const struct image *image, uint64_t cluster)
{
    const struct qcow2_header *header = image->header;
    uint64_t entries = UINT64_C(1) << qcow2_refcount_block_bits(header);
    uint64_t block = load_be64(image->data + header->refcount_table_offset + cluster / entries * 8);
    uint64_t index = cluster % entries;
    unsigned bits = 1u << header->refcount_order;
    uint64_t value = 0;

    if (!block)
        return 0;
    if (bits < 8)
        return image->data[block + index * bits / 8] >> (index * bits % 8) & ((1u << bits) - 1);
    for (unsigned i = 0; i < bits / 8; i++)
        value = value << 8 | image->data[block + index * (bits / 8) + i];
    return value;
}

static void use_refcounts(struct image *image)
{
    const struct qcow2_header *header = image->header;
    uint64_t cluster_size = qcow2_cluster_size(header);

    use(image, header->refcount_table_offset, header->refcount_table_clusters * cluster_size);
    for (uint64_t i = 0; i < header->refcount_table_clusters * cluster_size / 8; i++) {
        uint64_t block = load_be64(image->data + header->refcount_table_offset + i * 8);

        if (block)
            use(image, block, cluster_size);
    }
}

/* Uses what the tables name; returns how many guest clusters are mapped. */
static uint64_t use_mapping(struct image *image, uint64_t subclusters)
{
    const struct qcow2_header *header = image->header;
    uint64_t cluster_size = qcow2_cluster_size(header);
    unsigned entry_bytes = qcow2_l2_entry_bytes(header);
    uint64_t mapped = 0;

    if (header->l1_size)
        use(image, header->l1_table_offset, header->l1_size * UINT64_C(8));
    for (uint64_t i = 0; i < header->l1_size; i++) {
        uint64_t l1 = load_be64(image->data + header->l1_table_offset + i * 8);

        if (!l1)
            continue;
        g_assert_cmpuint(l1 & ~QCOW2_L1_OFFSET_MASK, ==, QCOW2_COPIED);
        use(image, l1 & QCOW2_L1_OFFSET_MASK, cluster_size);
        for (uint64_t j = 0; j < cluster_size / entry_bytes; j++) {
            const uint8_t *at = image->data + (l1 & QCOW2_L1_OFFSET_MASK) + j * entry_bytes;
            uint64_t l2 = load_be64(at);

            if (!l2)
                continue;
            g_assert_cmpuint(l2 & ~QCOW2_L2_OFFSET_MASK, ==, QCOW2_COPIED);
            if (entry_bytes == 16)
                g_assert_cmpuint(load_be64(at + 8), ==, subclusters);
            if (header->incompatible_features & QCOW2_DATA_FILE)
                g_assert_cmpuint(l2 & QCOW2_L2_OFFSET_MASK, ==, mapped * cluster_size);
            else
                use(image, l2 & QCOW2_L2_OFFSET_MASK, cluster_size);
            mapped++;
        }
    }
    return mapped;
}

/* The image in "i", with each cluster counted and used once. */
static struct image image_load(struct image_scene *scene, uint64_t subclusters, uint64_t *ret_mapped)
{
    struct image image = {0};
    AUTO(error) err = NULL;
    uint64_t cluster_size;
    uint8_t *whole;

    image.data = image_scene_read(scene, "i", &image.size);
    image.header = qcow2_header_parse(image.data, image.size, image.size, &err);
    if (!image.header)
        g_error("%s", error_message(err));
    cluster_size = qcow2_cluster_size(image.header);
    image.clusters = (image.size + cluster_size - 1) / cluster_size;
    whole = g_malloc0(image.clusters * cluster_size);
    memcpy(whole, image.data, image.size);
    g_free(image.data);
    image.data = whole;
    image.uses = g_malloc0(image.clusters);
    use(&image, 0, cluster_size);
    use_refcounts(&image);
    *ret_mapped = use_mapping(&image, subclusters);
    for (size_t i = 0; i < image.clusters; i++) {
        g_assert_cmpuint(image.uses[i], ==, 1);
        g_assert_cmpuint(refcount(&image, i), ==, 1);
    }
    return image;
}

static void image_done(struct image *image)
{
    g_free(image->data);
    g_free(image->uses);
    qcow2_header_free(image->header);
}

/* --- making --- */

static char *CO_FN co_create(struct image_scene *scene, const char *members)
{
    g_autofree char *text = g_strdup_printf("{'driver': 'qcow2', 'file': 'n', %s}", members);

    return co_image_scene_create(scene, qcow2_co_create, text);
}

/* Over what the last one left. */
static void CO_FN co_create_ok(struct image_scene *scene, const char *members)
{
    g_autofree char *said = co_create(scene, members);

    if (said)
        g_error("%s: %s", members, said);
}

static void CO_FN co_nodes(struct image_scene *scene)
{
    g_autofree char *one = co_image_scene_create(scene, file_driver.image->co_create,
                                                 "{'driver': 'file', 'filename': '@/i', 'size': 12345678}");
    g_autofree char *two =
        co_image_scene_create(scene, file_driver.image->co_create, "{'driver': 'file', 'filename': '@/d', 'size': 0}");

    g_assert_null(one);
    g_assert_null(two);
    co_image_scene_add(scene, "{'driver': 'file', 'node-name': 'n', 'filename': '@/i'}");
    co_image_scene_add(scene, "{'driver': 'file', 'node-name': 'd', 'filename': '@/d'}");
}

static void CO_FN co_plain(struct image_scene *scene)
{
    struct image image;
    uint64_t mapped;

    co_nodes(scene);
    co_create_ok(scene, "'size': 67108864");
    image = image_load(scene, 0, &mapped);
    g_assert_cmpuint(image.header->version, ==, 3);
    g_assert_cmpuint(image.header->cluster_bits, ==, 16);
    g_assert_cmpuint(image.header->size, ==, 67108864);
    g_assert_cmpuint(image.header->refcount_order, ==, 4);
    g_assert_cmpuint(mapped, ==, 0);
    g_assert_cmpuint(image.size, <, 4 << 16);
    image_done(&image);

    co_create_ok(scene, "'size': 0");
    image = image_load(scene, 0, &mapped);
    g_assert_cmpuint(image.header->l1_size, ==, 0);
    image_done(&image);

    co_create_ok(scene, "'size': 1048576, 'version': 'v2', 'backing-file': 'b', 'backing-fmt': 'raw'");
    image = image_load(scene, 0, &mapped);
    g_assert_cmpuint(image.header->version, ==, 2);
    g_assert_cmpstr(image.header->backing_file, ==, "b");
    g_assert_cmpstr(image.header->backing_format, ==, "raw");
    image_done(&image);
}

/* All widths of clusters and counts, with all space taken at once. */
static void CO_FN co_preallocated(struct image_scene *scene)
{
    static const unsigned sizes[] = {512, 4096, 65536, 2097152};
    static const char *const modes[] = {"metadata", "falloc", "full"};

    co_nodes(scene);
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        for (unsigned bits = 1; bits <= 64; bits *= 2) {
            g_autofree char *members =
                g_strdup_printf("'size': 1049088, 'cluster-size': %u, 'refcount-bits': %u, 'preallocation': '%s'",
                                sizes[i], bits, modes[bits % G_N_ELEMENTS(modes)]);
            struct image image;
            uint64_t mapped;

            co_create_ok(scene, members);
            image = image_load(scene, 0, &mapped);
            g_assert_cmpuint(mapped, ==, (1049088 + sizes[i] - 1) / sizes[i]);
            image_done(&image);
        }
    }
}

static void CO_FN co_subclusters(struct image_scene *scene)
{
    struct image image;
    uint64_t mapped;

    co_nodes(scene);
    co_create_ok(scene, "'size': 1048576, 'extended-l2': true, 'preallocation': 'metadata', 'cluster-size': 16384");
    image = image_load(scene, QCOW2_SUBCLUSTERS_ALLOCATED, &mapped);
    g_assert_cmpuint(mapped, ==, 64);
    image_done(&image);
    co_create_ok(scene, "'size': 1048576, 'extended-l2': true, 'preallocation': 'metadata', 'backing-file': 'b',"
                        "'backing-fmt': 'raw'");
    image = image_load(scene, 0, &mapped);
    g_assert_cmpuint(mapped, ==, 16);
    image_done(&image);
}

static void CO_FN co_data_file(struct image_scene *scene)
{
    g_autofree char *path = image_scene_path(scene, "d");
    struct image image;
    struct stat status;
    uint64_t mapped;

    co_nodes(scene);
    co_create_ok(scene, "'size': 1048576, 'data-file': 'd'");
    image = image_load(scene, 0, &mapped);
    g_assert_cmpuint(image.header->incompatible_features, ==, QCOW2_DATA_FILE);
    g_assert_cmpuint(image.header->autoclear_features, ==, 0);
    g_assert_cmpstr(image.header->data_file, ==, path);
    g_assert_cmpuint(mapped, ==, 0);
    image_done(&image);
    g_assert_cmpint(stat(path, &status), ==, 0);
    g_assert_cmpint(status.st_size, ==, 1048576);

    co_create_ok(scene, "'size': 2097152, 'data-file': 'd', 'data-file-raw': true");
    image = image_load(scene, 0, &mapped);
    g_assert_cmpuint(image.header->autoclear_features, ==, QCOW2_DATA_FILE_RAW);
    g_assert_cmpuint(mapped, ==, 32);
    image_done(&image);

    co_create_ok(scene, "'size': 1048576, 'data-file': 'd', 'preallocation': 'falloc'");
    g_assert_cmpint(stat(path, &status), ==, 0);
    g_assert_cmpint(status.st_size, ==, 1048576);
    g_assert_cmpint(status.st_blocks * 512, >=, 1048576);
}

static void CO_FN co_features(struct image_scene *scene)
{
    bool zstd = qcow2_compression_available(QCOW2_COMPRESSION_ZSTD, NULL);
    g_autofree char *options = g_strdup_printf("'size': 1048576, 'lazy-refcounts': true, 'extended-l2': true%s",
                                               zstd ? ", 'compression-type': 'zstd'" : "");
    struct image image;
    uint64_t mapped;

    co_nodes(scene);
    co_create_ok(scene, options);
    image = image_load(scene, 0, &mapped);
    g_assert_cmpuint(image.header->compatible_features, ==, QCOW2_LAZY_REFCOUNTS);
    g_assert_cmpuint(image.header->incompatible_features, ==, QCOW2_EXTENDED_L2 | (zstd ? QCOW2_COMPRESSION : 0));
    g_assert_cmpuint(image.header->compression_type, ==, zstd ? QCOW2_COMPRESSION_ZSTD : QCOW2_COMPRESSION_ZLIB);
    image_done(&image);
}

/* --- what is refused --- */

static const char *const refusals[][2] = {
    {"'size': 1000", "Image size must be a multiple of 512 bytes: it is 1000"},
    {"'size': 9223372036854775808", "Could not resize image: Image size cannot be negative*"},
    {"'size': 4611686018427387904", "Could not resize image: Failed to grow the L1 table: File too large*"},
    {"'size': 0, 'cluster-size': 0", "Cluster size must be a power of two between 512 and 2048k*"},
    {"'size': 0, 'cluster-size': 256", "Cluster size must be a power of two between 512 and 2048k*"},
    {"'size': 0, 'cluster-size': 1000", "Cluster size must be a power of two between 512 and 2048k*"},
    {"'size': 0, 'cluster-size': 4194304", "Cluster size must be a power of two between 512 and 2048k*"},
    {"'size': 0, 'refcount-bits': 0", "Refcount width must be a power of two and may not exceed 64 bits*"},
    {"'size': 0, 'refcount-bits': -1", "Refcount width must be a power of two and may not exceed 64 bits*"},
    {"'size': 0, 'refcount-bits': 128", "Refcount width must be a power of two and may not exceed 64 bits*"},
    {"'size': 0, 'version': 'v2', 'refcount-bits': 8",
     "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)"},
    {"'size': 0, 'version': 'v2', 'lazy-refcounts': true",
     "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)"},
    {"'size': 0, 'version': 'v2', 'compression-type': 'zstd'",
     "Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or greater)"},
    {"'size': 0, 'version': 'v2', 'extended-l2': true",
     "Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)"},
    {"'size': 0, 'version': 'v2', 'data-file': 'd'",
     "External data files are only supported with compatibility level 1.1 and above (use version=v3 or greater)"},
    {"'size': 0, 'extended-l2': true, 'cluster-size': 8192",
     "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes"},
    {"'size': 0, 'data-file-raw': true", "data-file-raw requires data-file"},
    {"'size': 0, 'data-file': 'd', 'data-file-raw': true, 'backing-file': 'b', 'backing-fmt': 'raw'",
     "Backing file and data-file-raw cannot be used at the same time"},
    {"'size': 0, 'preallocation': 'full', 'backing-file': 'b', 'backing-fmt': 'raw'",
     "Backing file and preallocation can only be used at the same time if extended_l2 is on"},
    {"'size': 0, 'backing-fmt': 'raw'", "Backing format cannot be used without backing file"},
    {"'size': 0, 'data-file': 'nobody'", "Cannot find device='nobody' nor node-name='nobody'"},
    {"'size': 0, 'data-file': 'n'", "*onflict*"},
};

static void CO_FN co_refusals(struct image_scene *scene)
{
    g_autofree char *name = g_strnfill(1024, 'x');
    g_autofree char *long_name = g_strdup_printf("'size': 0, 'backing-file': '%s'", name);
    g_autofree char *said_long = NULL;
    g_autofree char *said_cluster = NULL;
    g_autofree char *name_512 = NULL;
    g_autofree uint8_t *before = NULL;
    g_autofree uint8_t *after = NULL;
    size_t size;

    co_nodes(scene);
    co_create_ok(scene, "'size': 1048576");
    before = image_scene_read(scene, "i", &size);
    for (size_t i = 0; i < G_N_ELEMENTS(refusals); i++) {
        g_autofree char *said = co_create(scene, refusals[i][0]);

        if (!said || !g_pattern_match_simple(refusals[i][1], said))
            g_error("%s: \"%s\" is not like \"%s\"", refusals[i][0], said, refusals[i][1]);
    }
    said_long = co_create(scene, long_name);
    g_assert_cmpstr(said_long, ==, "Backing file name too long: it has 1024 bytes, at most 1023");
    name[500] = 0;
    name_512 = g_strdup_printf("'size': 0, 'cluster-size': 512, 'backing-file': '%s'", name);
    said_cluster = co_create(scene, name_512);
    g_assert_true(g_str_has_prefix(said_cluster, "The header needs 620 bytes"));
    /* What was there is still there. */
    after = image_scene_read(scene, "i", &size);
    g_assert_cmpmem(after, size, before, size);
}

/* --- the short form --- */

static void expect_translation(const char *name, const char *value, const char *expected)
{
    AUTO(json) object = json_object();
    AUTO(error) err = NULL;
    g_autofree char *text = NULL;

    g_assert_true(qcow2_translate(object, name, value, &err));
    text = json_format(object, false);
    g_assert_cmpstr(text, ==, expected);
}

static void test_translate(void)
{
    AUTO(json) object = json_object();
    AUTO(error) twice = NULL;
    AUTO(error) flag = NULL;

    expect_translation("compat", "0.10", "{\"version\": \"v2\"}");
    expect_translation("compat", "1.1", "{\"version\": \"v3\"}");
    expect_translation("compat", "v3", "{\"version\": \"v3\"}");
    expect_translation("encrypt.format", "aes", "{\"encrypt\": {\"format\": \"qcow\"}}");
    expect_translation("encrypt.format", "luks", "{\"encrypt\": {\"format\": \"luks\"}}");
    expect_translation("encryption", "on", "{\"encrypt\": {\"format\": \"qcow\"}}");
    expect_translation("encryption", "off", "{}");
    expect_translation("data_file", "d", "{\"data-file\": {\"driver\": \"file\", \"filename\": \"d\"}}");
    g_assert_true(qcow2_translate(object, "encryption", "on", NULL));
    g_assert_false(qcow2_translate(object, "encrypt.format", "luks", &twice));
    g_assert_cmpstr(error_message(twice), ==,
                    "'encrypt.format' and its alias 'encryption' can't be used at the same time");
    g_assert_false(qcow2_translate(object, "encryption", "perhaps", &flag));
    g_assert_cmpstr(error_message(flag), ==, "Parameter 'encryption' expects 'on' or 'off'");
}

#define TEST(name)                                                                                                     \
    static void test_##name(void)                                                                                      \
    {                                                                                                                  \
        image_test_run(co_##name, drivers);                                                                            \
    }
TEST(plain)
TEST(preallocated)
TEST(subclusters)
TEST(data_file)
TEST(features)
TEST(refusals)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2/create/plain", test_plain);
    g_test_add_func("/qcow2/create/preallocated", test_preallocated);
    g_test_add_func("/qcow2/create/subclusters", test_subclusters);
    g_test_add_func("/qcow2/create/data-file", test_data_file);
    g_test_add_func("/qcow2/create/features", test_features);
    g_test_add_func("/qcow2/create/refusals", test_refusals);
    g_test_add_func("/qcow2/create/translate", test_translate);
    return g_test_run();
}
