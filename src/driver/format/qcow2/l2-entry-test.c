/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What L2 entries and reference counts say, entry by entry and in runs; what makes no sense is nobody's place. */
#include <glib.h>
#include <string.h>

#include "base/bytes.h"
#include "driver/format/qcow2/qcow2.h"
#include "driver/format/qcow2/refcount-block.h"

enum { CLUSTER = 65536, ENTRIES = 512, HOST = 0x100000 };

struct table {
    struct qcow2_header header;
    struct qcow2_image image;
    uint8_t slice[ENTRIES * 16];
};

static void table_init(struct table *table, bool subclusters)
{
    *table = (struct table){0};
    table->image = (struct qcow2_image){
        .header = &table->header,
        .cluster_bits = 16,
        .cluster_size = CLUSTER,
        .l2_entry_bits = subclusters ? 4 : 3,
        .slice_bits = 9,
        .subclusters = subclusters ? QCOW2_SUBCLUSTERS : 1,
        .subcluster_bits = subclusters ? 11 : 16,
        .has_zero_flag = true,
    };
}

static void set(struct table *table, unsigned index, uint64_t entry, uint64_t bitmap)
{
    qcow2_l2_entry_store(&table->image, table->slice, index, (struct qcow2_l2_entry){.entry = entry, .bitmap = bitmap});
}

static void check(struct table *table, uint64_t guest, uint64_t bytes, enum qcow2_extent_kind kind, uint64_t expected,
                  uint64_t host)
{
    struct qcow2_extent extent = qcow2_extent_find(&table->image, table->slice, guest, bytes);

    g_assert_cmpint(extent.kind, ==, kind);
    g_assert_cmpuint(extent.bytes, ==, expected);
    g_assert_cmpuint(extent.host, ==, host);
    g_assert_cmpint(extent.has_host, ==, host != 0);
}

static void test_runs(void)
{
    struct table table;

    table_init(&table, false);
    for (unsigned i = 0; i < 3; i++)
        set(&table, i, (HOST + i * CLUSTER) | QCOW2_COPIED, 0);
    set(&table, 3, (HOST + 3 * CLUSTER), 0); /* shared with a snapshot */
    set(&table, 4, QCOW2_ZERO, 0);
    set(&table, 5, QCOW2_ZERO, 0);
    set(&table, 6, (HOST + 9 * CLUSTER) | QCOW2_ZERO | QCOW2_COPIED, 0);
    set(&table, 7, QCOW2_COMPRESSED | 0x12345, 0);

    check(&table, 0, 4096, QCOW2_EXTENT_NORMAL, 4096, HOST);
    check(&table, 100, 10 * CLUSTER, QCOW2_EXTENT_NORMAL, 3 * CLUSTER - 100, HOST + 100);
    check(&table, 2 * CLUSTER + 5, 10 * CLUSTER, QCOW2_EXTENT_NORMAL, CLUSTER - 5, HOST + 2 * CLUSTER + 5);
    check(&table, 3 * CLUSTER, 10 * CLUSTER, QCOW2_EXTENT_NORMAL, CLUSTER, HOST + 3 * CLUSTER);
    check(&table, 4 * CLUSTER + 1, 10 * CLUSTER, QCOW2_EXTENT_ZERO, 2 * CLUSTER - 1, 0);
    check(&table, 6 * CLUSTER, 10 * CLUSTER, QCOW2_EXTENT_ZERO, CLUSTER, HOST + 9 * CLUSTER);
    check(&table, 7 * CLUSTER, 10 * CLUSTER, QCOW2_EXTENT_COMPRESSED, CLUSTER, 0);
    check(&table, 8 * CLUSTER, 100 * CLUSTER, QCOW2_EXTENT_UNALLOCATED, 100 * CLUSTER, 0);
    check(&table, (ENTRIES - 1) * (uint64_t)CLUSTER, CLUSTER, QCOW2_EXTENT_UNALLOCATED, CLUSTER, 0);
}

static void check_invalid(struct table *table, uint64_t entry, uint64_t bitmap)
{
    struct qcow2_extent extent;

    set(table, 1, entry, bitmap);
    extent = qcow2_extent_find(&table->image, table->slice, CLUSTER, CLUSTER);
    g_assert_cmpint(extent.kind, ==, QCOW2_EXTENT_INVALID);
    g_assert_false(extent.has_host);
    /* Nothing before it goes on into it. */
    extent = qcow2_extent_find(&table->image, table->slice, 0, 2 * CLUSTER);
    g_assert_cmpuint(extent.bytes, ==, CLUSTER);
}

static void test_invalid(void)
{
    struct table table;

    table_init(&table, false);
    set(&table, 0, HOST | QCOW2_COPIED, 0);
    check_invalid(&table, (HOST + CLUSTER + 512) | QCOW2_COPIED, 0); /* unaligned */
    check_invalid(&table, (HOST + CLUSTER) | UINT64_C(1) << 60, 0);  /* reserved */
    check_invalid(&table, (HOST + CLUSTER) | 1 << 4, 0);             /* reserved */
    check_invalid(&table, QCOW2_COPIED, 0);                          /* nowhere, and our own */
    table.image.has_zero_flag = false;
    check_invalid(&table, QCOW2_ZERO, 0); /* version 2 */
    table.image.has_zero_flag = true;
    table.image.has_data_file = true;
    set(&table, 0, QCOW2_COPIED, 0);
    check_invalid(&table, (HOST + CLUSTER) | QCOW2_COPIED, 0); /* not at the guest's offset */
    check_invalid(&table, QCOW2_COMPRESSED | HOST, 0);
}

static void test_subclusters(void)
{
    struct table table;
    uint64_t all = QCOW2_SUBCLUSTERS_ALLOCATED;

    table_init(&table, true);
    set(&table, 0, HOST | QCOW2_COPIED, UINT64_C(0x0000ff00000000ff));
    set(&table, 1, (HOST + 4 * CLUSTER) | QCOW2_COPIED, all);
    set(&table, 2, (HOST + 5 * CLUSTER) | QCOW2_COPIED, 0xf);
    set(&table, 3, 0, QCOW2_SUBCLUSTERS_ZERO);
    set(&table, 4, 0, QCOW2_SUBCLUSTERS_ZERO);

    check(&table, 100, CLUSTER, QCOW2_EXTENT_NORMAL, 8 * 2048 - 100, HOST + 100);
    check(&table, 8 * 2048, CLUSTER, QCOW2_EXTENT_ZERO, 8 * 2048, HOST + 8 * 2048);
    check(&table, 16 * 2048, CLUSTER, QCOW2_EXTENT_UNALLOCATED, 16 * 2048, HOST + 16 * 2048);
    check(&table, CLUSTER, 3 * CLUSTER, QCOW2_EXTENT_NORMAL, CLUSTER + 4 * 2048, HOST + 4 * CLUSTER);
    check(&table, 3 * CLUSTER + 1, 3 * CLUSTER, QCOW2_EXTENT_ZERO, 2 * CLUSTER - 1, 0);
    check(&table, 5 * CLUSTER, 3 * CLUSTER, QCOW2_EXTENT_UNALLOCATED, 3 * CLUSTER, 0);

    set(&table, 0, HOST | QCOW2_COPIED, all);
    check_invalid(&table, (HOST + CLUSTER) | QCOW2_COPIED, all | UINT64_C(1) << 32); /* allocated, and zero */
    check_invalid(&table, 0, 1);                                                     /* allocated nowhere */
    check_invalid(&table, (HOST + CLUSTER) | QCOW2_ZERO, all);
    check_invalid(&table, QCOW2_COMPRESSED | HOST, 1);
}

static void test_refcounts(void)
{
    for (unsigned order = 0; order <= QCOW2_REFCOUNT_ORDER_MAX; order++) {
        uint64_t max = UINT64_MAX >> (64 - (1u << order));
        uint8_t block[512] = {0};

        for (unsigned i = 0; i < 64; i++)
            qcow2_refcount_store(block, order, i, (i * 3) & max);
        for (unsigned i = 0; i < 64; i++)
            g_assert_cmpuint(qcow2_refcount_load(block, order, i), ==, (i * 3) & max);
        qcow2_refcount_store(block, order, 5, max);
        g_assert_cmpuint(qcow2_refcount_load(block, order, 4), ==, 12 & max);
        g_assert_cmpuint(qcow2_refcount_load(block, order, 5), ==, max);
        g_assert_cmpuint(qcow2_refcount_load(block, order, 6), ==, 18 & max);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-l2-entry/runs", test_runs);
    g_test_add_func("/qcow2-l2-entry/invalid", test_invalid);
    g_test_add_func("/qcow2-l2-entry/subclusters", test_subclusters);
    g_test_add_func("/qcow2-l2-entry/refcounts", test_refcounts);
    return g_test_run();
}
