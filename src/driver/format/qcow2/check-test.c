/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The check on images that are made here byte by byte and then broken in one place: what it finds, that it changes
 * nothing unless it is asked to, what is left after repairs, and that failing reads and writes end it decently. Each
 * case runs with one window, and with windows that are much smaller than the image.
 */
#include "driver/format/qcow2/check-internal.h"
#include "driver/format/qcow2/refcount-block.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "block/memory-disk-test.h"

/* Clusters of the image: 512 bytes each, one refcount block a 256 of them. */
enum {
    CLUSTER = 512,
    AT_TABLE = 1,
    AT_BLOCK_0 = 2,
    AT_L1 = 3,
    AT_L2 = 4,
    AT_DATA = 5, /* and the next two */
    AT_BLOCK_1 = 8,
    AT_SNAPSHOTS = 9,
    AT_SNAPSHOT_L1 = 10,
    AT_FAR = 400,
    CLUSTERS = 402,
};

static uint8_t *image_new(void)
{
    uint8_t *image = g_malloc0(CLUSTERS * CLUSTER);
    uint8_t *l2 = image + AT_L2 * CLUSTER;

    store_be32(image + QCOW2_AT_MAGIC, QCOW2_MAGIC);
    store_be32(image + QCOW2_AT_VERSION, 3);
    store_be32(image + QCOW2_AT_CLUSTER_BITS, 9);
    store_be64(image + QCOW2_AT_SIZE, 64 * CLUSTER);
    store_be32(image + QCOW2_AT_L1_SIZE, 1);
    store_be64(image + QCOW2_AT_L1_TABLE_OFFSET, AT_L1 * CLUSTER);
    store_be64(image + QCOW2_AT_REFCOUNT_TABLE_OFFSET, AT_TABLE * CLUSTER);
    store_be32(image + QCOW2_AT_REFCOUNT_TABLE_CLUSTERS, 1);
    store_be32(image + QCOW2_AT_REFCOUNT_ORDER, 4);
    store_be32(image + QCOW2_AT_HEADER_LENGTH, QCOW2_V3_HEADER_BYTES);
    store_be64(image + AT_TABLE * CLUSTER, AT_BLOCK_0 * CLUSTER);
    store_be64(image + AT_TABLE * CLUSTER + 8, AT_BLOCK_1 * CLUSTER);
    for (unsigned i = 0; i <= AT_BLOCK_1; i++)
        store_be16(image + AT_BLOCK_0 * CLUSTER + i * 2, 1);
    store_be16(image + AT_BLOCK_1 * CLUSTER + (AT_FAR - 256) * 2, 1);
    store_be64(image + AT_L1 * CLUSTER, AT_L2 * CLUSTER | QCOW2_COPIED);
    for (unsigned i = 0; i < 3; i++)
        store_be64(l2 + i * 8, (AT_DATA + i) * CLUSTER | QCOW2_COPIED);
    store_be64(l2 + 3 * 8, AT_FAR * CLUSTER | QCOW2_COPIED);
    return image;
}

static void count_set(uint8_t *image, unsigned cluster, uint16_t count)
{
    unsigned block = cluster < 256 ? AT_BLOCK_0 : AT_BLOCK_1;

    store_be16(image + block * CLUSTER + cluster % 256 * 2, count);
}

/* Two snapshots' worth of table: one, which has what the disk has. */
static void snapshot_add(uint8_t *image)
{
    static const unsigned shared[] = {AT_L2, AT_DATA, AT_DATA + 1, AT_DATA + 2, AT_FAR};
    uint8_t *entry = image + AT_SNAPSHOTS * CLUSTER;

    store_be32(image + QCOW2_AT_SNAPSHOT_COUNT, 1);
    store_be64(image + QCOW2_AT_SNAPSHOTS_OFFSET, AT_SNAPSHOTS * CLUSTER);
    store_be64(entry, AT_SNAPSHOT_L1 * CLUSTER);
    store_be32(entry + 8, 1);
    store_be16(entry + 12, 1);
    store_be16(entry + 14, 4);
    store_be32(entry + 36, 16);
    store_be64(entry + 48, 64 * CLUSTER);
    memcpy(entry + 56, "1snap", 5);
    store_be64(image + AT_SNAPSHOT_L1 * CLUSTER, AT_L2 * CLUSTER);
    count_set(image, AT_SNAPSHOTS, 1);
    count_set(image, AT_SNAPSHOT_L1, 1);
    for (unsigned i = 0; i < G_N_ELEMENTS(shared); i++)
        count_set(image, shared[i], 2);
    store_be64(image + AT_L1 * CLUSTER, AT_L2 * CLUSTER);
    for (unsigned i = 0; i < 3; i++)
        store_be64(image + AT_L2 * CLUSTER + i * 8, (AT_DATA + i) * CLUSTER);
    store_be64(image + AT_L2 * CLUSTER + 3 * 8, AT_FAR * CLUSTER);
}

/* --- ways to break it --- */

static void l2_set(uint8_t *image, unsigned index, uint64_t entry)
{
    store_be64(image + AT_L2 * CLUSTER + index * 8, entry);
}

static void break_nothing(uint8_t *image)
{
}
static void break_snapshot_nothing(uint8_t *image)
{
    snapshot_add(image);
}
static void break_leak(uint8_t *image)
{
    count_set(image, 300, 1);
}
static void break_leak_high(uint8_t *image)
{
    count_set(image, AT_FAR, 2);
}
static void break_free_in_use(uint8_t *image)
{
    count_set(image, AT_FAR, 0);
}
static void break_flag_l2(uint8_t *image)
{
    l2_set(image, 3, AT_FAR * CLUSTER);
}
static void break_flag_l1(uint8_t *image)
{
    store_be64(image + AT_L1 * CLUSTER, AT_L2 * CLUSTER);
}
static void break_shared(uint8_t *image)
{
    l2_set(image, 4, AT_FAR * CLUSTER | QCOW2_COPIED);
}
static void break_data_unaligned(uint8_t *image)
{
    /* The offset field has no bits below a cluster of 512 bytes; so a reserved one. */
    l2_set(image, 0, AT_DATA * CLUSTER | QCOW2_COPIED | 2);
}
static void break_outside(uint8_t *image)
{
    l2_set(image, 0, UINT64_C(1) << 40 | QCOW2_COPIED);
}
static void break_l1_reserved(uint8_t *image)
{
    store_be64(image + AT_L1 * CLUSTER, AT_L2 * CLUSTER | QCOW2_COPIED | 4);
}
static void break_table_zero(uint8_t *image)
{
    store_be64(image + AT_TABLE * CLUSTER, 0);
}
static void break_table_no_clusters(uint8_t *image)
{
    store_be32(image + QCOW2_AT_REFCOUNT_TABLE_CLUSTERS, 0);
}
static void break_table_reserved(uint8_t *image)
{
    store_be64(image + AT_TABLE * CLUSTER + 8, AT_BLOCK_1 * CLUSTER | 2);
}
static void break_block_outside(uint8_t *image)
{
    store_be64(image + AT_TABLE * CLUSTER + 8, UINT64_C(1) << 40);
}
static void break_block_twice(uint8_t *image)
{
    store_be64(image + AT_TABLE * CLUSTER + 8, AT_BLOCK_0 * CLUSTER);
}
static void break_block_is_header(uint8_t *image)
{
    store_be64(image + AT_TABLE * CLUSTER + 16, AT_L1 * CLUSTER);
}
static void break_compressed_copied(uint8_t *image)
{
    l2_set(image, 0, AT_DATA * CLUSTER | QCOW2_COMPRESSED | QCOW2_COPIED);
}
static void break_compressed_outside(uint8_t *image)
{
    l2_set(image, 0, CLUSTERS * CLUSTER * 2 | QCOW2_COMPRESSED);
}
static void break_snapshot_incomplete(uint8_t *image)
{
    snapshot_add(image);
    store_be32(image + AT_SNAPSHOTS * CLUSTER + 36, 8);
}
static void break_snapshot_l1_huge(uint8_t *image)
{
    snapshot_add(image);
    store_be32(image + AT_SNAPSHOTS * CLUSTER + 8, UINT32_MAX);
}
static void break_snapshot_count(uint8_t *image)
{
    snapshot_add(image);
    store_be32(image + QCOW2_AT_SNAPSHOT_COUNT, 3);
}
static void break_dirty_and_corrupt(uint8_t *image)
{
    store_be64(image + QCOW2_AT_INCOMPATIBLE_FEATURES, QCOW2_DIRTY | QCOW2_CORRUPT);
}

/* --- running --- */

/* What is found, and what is left by repairs of leaks alone (if they can be made) and of everything. */
struct breakage {
    const char *name;
    void (*apply)(uint8_t *image);
    unsigned corruptions, leaks;
    bool leaks_fail;
    unsigned leaks_left; /* corruptions left by a repair of leaks */
    unsigned all_left;
};

static const struct breakage breakages[] = {
    {"nothing", break_nothing},
    {"nothing-with-snapshot", break_snapshot_nothing},
    {"leak", break_leak, 0, 1},
    {"leak-high", break_leak_high, 1, 1},
    {"free-in-use", break_free_in_use, 2, 0, true, 0, 0},
    {"flag-l2", break_flag_l2, 1, 0},
    {"flag-l1", break_flag_l1, 1, 0},
    {"shared", break_shared, 1, 0, false, 1, 0},
    {"reserved", break_data_unaligned, 1, 0, false, 1, 1},
    {"outside", break_outside, 2, 1, false, 2, 1},
    {"l1-reserved", break_l1_reserved, 1, 0, false, 1, 1},
    {"table-zero", break_table_zero, 12, 0, true, 0, 0},
    {"table-no-clusters", break_table_no_clusters, 12, 0, true, 0, 0},
    {"table-reserved", break_table_reserved, 1, 1, true, 0, 0},
    {"block-outside", break_block_outside, 3, 1, true, 0, 0},
    {"block-twice", break_block_twice, 4, 10, true, 0, 0},
    {"block-is-l1", break_block_is_header, 2, 0, true, 0, 0},
    {"compressed-copied", break_compressed_copied, 1, 0, false, 1, 1},
    {"compressed-outside", break_compressed_outside, 1, 1, false, 1, 1},
    {"snapshot-incomplete", break_snapshot_incomplete, 1, 0, false, 1, 0},
    {"snapshot-l1-huge", break_snapshot_l1_huge, 1, 6, false, 6, 1},
    {"snapshot-count", break_snapshot_count, 2, 0, false, 2, 0},
    {"dirty-and-corrupt", break_dirty_and_corrupt},
};

static const struct breakage *current;
static size_t window_bytes;

struct scene {
    struct handle *handle;
    struct edge *file;
    struct memory_disk *disk;
};

static struct scene CO_FN co_scene_begin(struct graph *graph, void (*apply)(uint8_t *image))
{
    g_autofree uint8_t *image = image_new();
    g_autofree char *text = g_strdup_printf("{'driver': 'raw', 'node-name': 'image', 'file': {'driver': 'null-co', "
                                            "'node-name': 'disk', 'size': %d}}",
                                            CLUSTERS * CLUSTER);
    struct node *node = co_test_add_ok(graph, text);
    struct scene scene = {
        .handle = co_test_handle(node, PERM_CONSISTENT_READ | PERM_WRITE | PERM_RESIZE),
        .file = node_child(node, "file"),
        .disk = memory_disk_of(graph, "disk"),
    };

    apply(image);
    memcpy(scene.disk->data, image, CLUSTERS * CLUSTER);
    return scene;
}

static void CO_FN co_scene_end(struct graph *graph, struct scene *scene)
{
    AUTO(error) err = NULL;

    co_handle_free(scene->handle);
    g_assert_true(co_graph_delete(graph, "image", &err));
}

static bool CO_FN co_check(struct scene *scene, unsigned repair, struct qcow2_check_result *ret)
{
    AUTO(error) err = NULL;
    bool done = co_qcow2_check_windowed(scene->file, repair, NULL, window_bytes, ret, &err);

    g_assert_true(done == !err);
    return done;
}

static void CO_FN co_test_finding(struct graph *graph)
{
    struct scene scene = co_scene_begin(graph, current->apply);
    g_autofree uint8_t *before = g_memdup2(scene.disk->data, CLUSTERS * CLUSTER);
    struct qcow2_check_result result;

    g_assert_true(co_check(&scene, 0, &result));
    g_assert_cmpuint(result.corruptions, ==, current->corruptions);
    g_assert_cmpuint(result.leaks, ==, current->leaks);
    g_assert_cmpuint(result.check_errors, ==, 0);
    g_assert_cmpuint(result.total_clusters, ==, 64);
    g_assert_cmpmem(before, CLUSTERS * CLUSTER, scene.disk->data, CLUSTERS * CLUSTER);
    co_scene_end(graph, &scene);
}

static void CO_FN co_test_repair(struct graph *graph)
{
    struct scene scene = co_scene_begin(graph, current->apply);
    struct qcow2_check_result result, again;
    bool done = co_check(&scene, IMAGE_REPAIR_LEAKS, &result);

    g_assert_true(done == !current->leaks_fail);
    if (done) {
        g_assert_true(co_check(&scene, 0, &again));
        g_assert_cmpuint(again.corruptions, ==, current->leaks_left);
        g_assert_cmpuint(again.leaks, ==, 0);
    }
    co_scene_end(graph, &scene);

    scene = co_scene_begin(graph, current->apply);
    g_assert_true(co_check(&scene, IMAGE_REPAIR_LEAKS | IMAGE_REPAIR_ERRORS, &result));
    g_assert_cmpuint(result.corruptions, ==, current->all_left);
    g_assert_cmpuint(result.leaks, ==, 0);
    g_assert_cmpuint(result.corruptions_fixed + result.leaks_fixed > 0, ==,
                     current->corruptions + current->leaks > current->all_left);
    g_assert_true(co_check(&scene, 0, &again));
    g_assert_cmpuint(again.corruptions, ==, current->all_left);
    g_assert_cmpuint(again.leaks, ==, 0);
    g_assert_true((load_be64(scene.disk->data + QCOW2_AT_INCOMPATIBLE_FEATURES) == 0) || current->all_left > 0);
    co_scene_end(graph, &scene);
}

static void test_breakage(gconstpointer data)
{
    current = data;
    /* A window holds 256 clusters at least: what a refcount block covers. */
    for (window_bytes = 1; window_bytes <= QCOW2_CHECK_WINDOW_BYTES; window_bytes += QCOW2_CHECK_WINDOW_BYTES - 1) {
        run_graph_test(co_test_finding);
        run_graph_test(co_test_repair);
    }
}

/* Every read, and every write and flush of a repair, fails once: an error, and at the next try all is well. */
static void CO_FN co_test_failures(struct graph *graph)
{
    for (unsigned operation = MEMORY_DISK_READ; operation <= MEMORY_DISK_FLUSH; operation++) {
        for (unsigned n = 1;; n++) {
            struct scene scene = co_scene_begin(graph, break_block_twice);
            struct qcow2_check_result result;
            bool failed;

            memory_disk_fail[operation] = n;
            failed = !co_check(&scene, IMAGE_REPAIR_LEAKS | IMAGE_REPAIR_ERRORS, &result);
            if (memory_disk_fail[operation]) {
                memory_disk_fail[operation] = 0;
                g_assert_false(failed);
                co_scene_end(graph, &scene);
                break;
            }
            /* A flush that failed sticks to the node. */
            if (operation != MEMORY_DISK_FLUSH) {
                g_assert_true(co_check(&scene, IMAGE_REPAIR_LEAKS | IMAGE_REPAIR_ERRORS, &result));
                g_assert_cmpuint(result.corruptions, ==, 0);
            }
            co_scene_end(graph, &scene);
        }
    }
}

static void test_failures(void)
{
    window_bytes = 1;
    run_graph_test(co_test_failures);
}

/* --- who waits for it --- */

struct listener {
    struct image_report report;
    unsigned ticks;
    unsigned stop_at; /* 0: never */
    double done;
};

static void hear_line(struct image_report *report, const char *text)
{
}

static bool hear_tick(struct image_report *report, double done)
{
    struct listener *listener = container_of(report, struct listener, report);

    g_assert_cmpfloat(done, >=, listener->done);
    g_assert_cmpfloat(done, <=, 1);
    listener->done = done;
    return ++listener->ticks != listener->stop_at;
}

/* Ended at each step: nothing but the reason, and what has been repaired by then is right. */
static void CO_FN co_test_cancelling(struct graph *graph)
{
    for (unsigned stop_at = 1, stopped = 1; stopped; stop_at++) {
        struct listener listener = {.report = {.line = hear_line, .go_on = hear_tick}, .stop_at = stop_at};
        struct scene scene = co_scene_begin(graph, break_leak_high);
        struct qcow2_check_result result;
        AUTO(error) error = NULL;
        bool done = co_qcow2_check_windowed(handle_edge(scene.handle), IMAGE_REPAIR_LEAKS | IMAGE_REPAIR_ERRORS,
                                            &listener.report, window_bytes, &result, &error);

        stopped = listener.ticks >= stop_at;
        g_assert_true(done == !stopped);
        if (stopped)
            g_assert_cmpstr(error_message(error), ==, "The check was cancelled");
        else
            g_assert_cmpuint(listener.ticks, >, 2);
        g_assert_true(co_check(&scene, IMAGE_REPAIR_LEAKS | IMAGE_REPAIR_ERRORS, &result));
        g_assert_cmpuint(result.corruptions + result.leaks, ==, 0);
        co_scene_end(graph, &scene);
    }
}

static void test_cancelling(void)
{
    window_bytes = 1;
    run_graph_test(co_test_cancelling);
}

/* --- counts --- */

static void test_count_widths(void)
{
    for (unsigned order = 0; order <= QCOW2_REFCOUNT_ORDER_MAX; order++) {
        uint8_t block[64] = {0};
        uint64_t entries = sizeof(block) * 8 >> order;
        uint64_t max = order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << order)) - 1;

        for (uint64_t i = 0; i < entries; i += 2)
            qcow2_refcount_store(block, order, i, max - (i & 1 & max));
        for (uint64_t i = 0; i < entries; i++)
            g_assert_cmpuint(qcow2_refcount_load(block, order, i), ==, i % 2 ? 0 : max);
        for (uint64_t i = 0; i < entries; i++)
            qcow2_refcount_store(block, order, i, i % 2);
        for (uint64_t i = 0; i < entries; i++)
            g_assert_cmpuint(qcow2_refcount_load(block, order, i), ==, i % 2);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-check/count-widths", test_count_widths);
    for (size_t i = 0; i < G_N_ELEMENTS(breakages); i++) {
        g_autofree char *path = g_strdup_printf("/qcow2-check/%s", breakages[i].name);

        g_test_add_data_func(path, &breakages[i], test_breakage);
    }
    g_test_add_func("/qcow2-check/failures", test_failures);
    g_test_add_func("/qcow2-check/cancelling", test_cancelling);
    return g_test_run();
}
