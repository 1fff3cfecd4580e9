/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the look at an image's tables before its first change objects to, and what it lets pass: each difference between
 * flags, counts and names, made by hand in a small image. When it takes place, and where it ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "block/driver.h"
#include "block/node.h"
#include "driver/format/qcow2.h"
#include "driver/format/qcow2/create.h"
#include "driver/format/qcow2/qcow2.h"
#include "driver/format/qcow2/snapshot.h"
#include "driver/image-test-run.h"
#include "driver/protocol/file.h"

static const struct block_driver *const drivers[] = {&file_driver, &qcow2_driver, NULL};

enum { CLUSTER = 512, PER_TABLE = CLUSTER / 8, DATA_CLUSTERS = 4 };

/* Guest offsets: the clusters of data are at the beginning of each of the two first tables, and this one is free. */
static const uint64_t second_table = UINT64_C(1) * PER_TABLE * CLUSTER, elsewhere = UINT64_C(5) * PER_TABLE * CLUSTER;

/* An image that is closed, and open as a file. */
struct surgery {
    int fd;
    uint64_t l1;
    uint64_t l2[2];     /* where the first two tables lie */
    uint64_t refcounts; /* the first block */
};

static uint64_t get(const struct surgery *surgery, uint64_t offset)
{
    uint8_t bytes[8];

    g_assert_cmpint(pread(surgery->fd, bytes, sizeof(bytes), (off_t)offset), ==, sizeof(bytes));
    return load_be64(bytes);
}

static void put(const struct surgery *surgery, uint64_t offset, uint64_t value)
{
    uint8_t bytes[8];

    store_be64(bytes, value);
    g_assert_cmpint(pwrite(surgery->fd, bytes, sizeof(bytes), (off_t)offset), ==, sizeof(bytes));
}

/* Of the cluster that an entry names. */
static void put_count(const struct surgery *surgery, uint64_t entry, uint16_t count)
{
    uint64_t cluster = (entry & QCOW2_L2_OFFSET_MASK) / CLUSTER;
    uint8_t bytes[2];

    g_assert_cmpuint(cluster, <, CLUSTER / 2);
    store_be16(bytes, count);
    g_assert_cmpint(pwrite(surgery->fd, bytes, sizeof(bytes), (off_t)(surgery->refcounts + cluster * 2)), ==,
                    sizeof(bytes));
}

static void surgery_begin(struct surgery *surgery, const char *path)
{
    surgery->fd = open(path, O_RDWR | O_CLOEXEC);
    g_assert_cmpint(surgery->fd, >=, 0);
    surgery->l1 = get(surgery, QCOW2_AT_L1_TABLE_OFFSET);
    for (unsigned i = 0; i < 2; i++)
        surgery->l2[i] = get(surgery, surgery->l1 + i * 8) & QCOW2_L1_OFFSET_MASK;
    surgery->refcounts = get(surgery, get(surgery, QCOW2_AT_REFCOUNT_TABLE_OFFSET));
}

/* --- what may be wrong --- */

static void nothing(const struct surgery *surgery)
{
    (void)surgery;
}

static void two_names_in_a_table(const struct surgery *surgery)
{
    put(surgery, surgery->l2[0] + 8, get(surgery, surgery->l2[0]));
}

static void two_names_in_two_tables(const struct surgery *surgery)
{
    put(surgery, surgery->l2[1], get(surgery, surgery->l2[0]));
}

static void second_name_without_flag(const struct surgery *surgery)
{
    put(surgery, surgery->l2[1], get(surgery, surgery->l2[0]) & ~QCOW2_COPIED);
}

static void first_name_without_flag(const struct surgery *surgery)
{
    put(surgery, surgery->l2[1], get(surgery, surgery->l2[0]));
    put(surgery, surgery->l2[0], get(surgery, surgery->l2[0]) & ~QCOW2_COPIED);
}

static void two_names_without_flags(const struct surgery *surgery)
{
    put(surgery, surgery->l2[0], get(surgery, surgery->l2[0]) & ~QCOW2_COPIED);
    put(surgery, surgery->l2[1], get(surgery, surgery->l2[0]));
}

static void two_names_counted(const struct surgery *surgery)
{
    two_names_without_flags(surgery);
    put_count(surgery, get(surgery, surgery->l2[0]), 2);
}

static void compressed_name(const struct surgery *surgery)
{
    put(surgery, surgery->l2[0] + 8, QCOW2_COMPRESSED | (get(surgery, surgery->l2[0]) & QCOW2_L2_OFFSET_MASK));
}

static void table_named_twice(const struct surgery *surgery)
{
    put(surgery, surgery->l1 + 8, get(surgery, surgery->l1));
}

static void count_zero(const struct surgery *surgery)
{
    put_count(surgery, get(surgery, surgery->l2[0]), 0);
}

/* Costs a copy, and no more. */
static void flag_missing(const struct surgery *surgery)
{
    put(surgery, surgery->l2[0], get(surgery, surgery->l2[0]) & ~QCOW2_COPIED);
}

static void table_flag_missing(const struct surgery *surgery)
{
    put(surgery, surgery->l1, get(surgery, surgery->l1) & ~QCOW2_COPIED);
}

/* A leak, unless a snapshot may be whose cluster it is, too. */
static void count_too_high(const struct surgery *surgery)
{
    put(surgery, surgery->l2[0], get(surgery, surgery->l2[0]) | QCOW2_COPIED);
    put_count(surgery, get(surgery, surgery->l2[0]), 2);
}

/* Nobody can write through it. */
static void entry_beyond_the_file(const struct surgery *surgery)
{
    put(surgery, surgery->l2[0] + 8, QCOW2_COPIED | UINT64_C(1) << 40);
    put(surgery, surgery->l2[0] + 16, QCOW2_COPIED | UINT64_C(1) << 40);
}

struct wrong {
    const char *name;
    void (*make)(const struct surgery *surgery);
    bool snapshot; /* the image has one */
    int result;    /* of the first write elsewhere */
};

static const struct wrong wrongs[] = {
    {"nothing", nothing, false, 0},
    {"nothing, with a snapshot", nothing, true, 0},
    {"two names in a table", two_names_in_a_table, false, -EIO},
    {"two names in two tables", two_names_in_two_tables, false, -EIO},
    {"second name without flag", second_name_without_flag, false, -EIO},
    {"first name without flag", first_name_without_flag, false, -EIO},
    {"two names without flags", two_names_without_flags, false, -EIO},
    {"two names that are counted", two_names_counted, false, 0},
    {"a compressed cluster in one of its own", compressed_name, false, -EIO},
    {"a table that is named twice", table_named_twice, false, -EIO},
    {"count 0", count_zero, false, -EIO},
    {"a flag is missing", flag_missing, false, 0},
    {"the flag of a table is missing", table_flag_missing, false, 0},
    {"a count is too high", count_too_high, false, 0},
    {"a snapshot may have it, too", count_too_high, true, -EIO},
    {"entries that lead nowhere", entry_beyond_the_file, false, 0},
};

/* --- the image --- */

static struct handle *CO_FN co_open(struct image_scene *scene)
{
    return co_image_scene_open(scene, "{'driver': 'qcow2', 'file': {'driver': 'file', 'filename': '@/image'}}",
                               PERM_ALL);
}

static void CO_FN co_make(struct image_scene *scene, bool snapshot)
{
    static const char options[] = "{'driver': 'qcow2', 'file': {'driver': 'file', 'filename': '@/image'}, "
                                  "'size': 1048576, 'cluster-size': 512}";
    g_autofree char *path = image_scene_path(scene, "image"), *message = NULL;
    uint8_t data[DATA_CLUSTERS * CLUSTER] = {1};
    struct snapshot_info info = {.name = (char *)(uintptr_t) "s"};
    struct handle *handle;

    /* A new file: nothing of the last one shall be in it. */
    (void)unlink(path);
    g_assert_true(g_file_set_contents(path, "", 0, NULL));
    message = co_image_scene_create(scene, qcow2_co_create, options);
    g_assert_null(message);
    handle = co_open(scene);
    g_assert_cmpint(co_handle_pwrite(handle, 0, sizeof(data), data, 0), ==, 0);
    g_assert_cmpint(co_handle_pwrite(handle, second_table, sizeof(data), data, 0), ==, 0);
    if (snapshot)
        g_assert_true(co_qcow2_snapshot_create(handle_node(handle), &info, NULL));
    g_free(info.id);
    co_handle_free(handle);
}

static bool is_known(struct handle *handle)
{
    return qcow2_image_of(handle_node(handle))->owners_known;
}

static void CO_FN co_try(struct image_scene *scene, const struct wrong *wrong)
{
    g_autofree char *path = image_scene_path(scene, "image");
    uint8_t data[CLUSTER] = {2};
    struct surgery surgery;
    struct handle *handle;

    g_test_message("%s", wrong->name);
    co_make(scene, wrong->snapshot);
    surgery_begin(&surgery, path);
    wrong->make(&surgery);
    close(surgery.fd);
    handle = co_open(scene);
    g_assert_false(is_known(handle));
    g_assert_cmpint(co_handle_pread(handle, elsewhere, sizeof(data), data, 0), ==, 0);
    g_assert_false(is_known(handle));
    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(co_handle_pwrite(handle, elsewhere, sizeof(data), data, 0), ==, wrong->result);
        g_assert_true(is_known(handle) == !wrong->result);
    }
    co_handle_free(handle);
}

static void CO_FN co_all(struct image_scene *scene)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(wrongs); i++)
        co_try(scene, &wrongs[i]);
}

static void test_differences(void)
{
    image_test_run(co_all, drivers);
}

/* --- far places --- */

/* Bits are kept in chunks of so many clusters, of which there are at most so many. */
enum { CHUNK_CLUSTERS = 1 << 16, CHUNKS_MAX = 1024 };

static void put_far(const struct surgery *surgery, unsigned index, uint64_t cluster)
{
    put(surgery, surgery->l2[index / PER_TABLE] + index % PER_TABLE * 8, QCOW2_COPIED | cluster * CLUSTER);
}

static void make_longer(const struct surgery *surgery, uint64_t clusters)
{
    g_assert_cmpint(ftruncate(surgery->fd, (off_t)(clusters * CLUSTER)), ==, 0);
}

static void clash_at_the_first_of_a_chunk(const struct surgery *surgery)
{
    make_longer(surgery, CHUNK_CLUSTERS + 1);
    put_far(surgery, 8, CHUNK_CLUSTERS);
    put_far(surgery, PER_TABLE + 8, CHUNK_CLUSTERS);
}

/* Compressed data that begins in one chunk and ends in the next, where somebody else is. */
static void clash_across_two_chunks(const struct surgery *surgery)
{
    uint64_t begins = (uint64_t)(CHUNK_CLUSTERS - 1) * CLUSTER + 100, one_more_sector = UINT64_C(1) << 61;

    make_longer(surgery, CHUNK_CLUSTERS + 1);
    put_far(surgery, 8, CHUNK_CLUSTERS);
    put(surgery, surgery->l2[1] + 64, QCOW2_COMPRESSED | one_more_sector | begins);
}

/* What nobody has counted is found wherever it lies. */
static void far_without_count(const struct surgery *surgery)
{
    make_longer(surgery, (uint64_t)CHUNK_CLUSTERS * CHUNKS_MAX);
    put_far(surgery, 8, (uint64_t)CHUNK_CLUSTERS * CHUNKS_MAX - 1);
}

static const struct wrong far_away[] = {
    {"at the first cluster of a chunk", clash_at_the_first_of_a_chunk, false, -EIO},
    {"across two chunks", clash_across_two_chunks, false, -EIO},
    {"count 0, far away", far_without_count, false, -EIO},
};

static void CO_FN co_far(struct image_scene *scene)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(far_away); i++)
        co_try(scene, &far_away[i]);
}

static void test_far_places(void)
{
    image_test_run(co_far, drivers);
}

/* --- when --- */

/* The tables that a snapshot brings back have not been looked at; those of a disk that goes on have. */
static void CO_FN co_snapshots(struct image_scene *scene)
{
    struct snapshot_info info = {.name = (char *)(uintptr_t) "t"};
    uint8_t data[CLUSTER] = {3};
    struct handle *handle;

    co_make(scene, true);
    handle = co_open(scene);
    g_assert_cmpint(co_handle_pwrite(handle, 0, sizeof(data), data, 0), ==, 0);
    g_assert_true(is_known(handle));
    g_assert_true(co_qcow2_snapshot_create(handle_node(handle), &info, NULL));
    g_assert_true(is_known(handle));
    g_assert_true(co_qcow2_snapshot_apply(handle_node(handle), "s", NULL));
    g_assert_false(is_known(handle));
    g_assert_cmpint(co_handle_pwrite(handle, 0, sizeof(data), data, 0), ==, 0);
    g_assert_true(is_known(handle));
    snapshot_info_free(co_qcow2_snapshot_delete(handle_node(handle), NULL, "t", NULL));
    g_assert_true(is_known(handle));
    g_free(info.id);
    co_handle_free(handle);
}

static void test_snapshots(void)
{
    image_test_run(co_snapshots, drivers);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-owners/differences", test_differences);
    g_test_add_func("/qcow2-owners/far-places", test_far_places);
    g_test_add_func("/qcow2-owners/snapshots", test_snapshots);
    return g_test_run();
}
