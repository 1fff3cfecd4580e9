/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The guard's parts: which kinds the options turn on, ranges, and a filter that misses nothing. */
#include "driver/format/qcow2/overlap.h"

#include <glib.h>

#include "gen/types.h"

enum { CLUSTER_BITS = 12, CLUSTER = 1 << CLUSTER_BITS, ALL = (1 << QCOW2_METADATA_KINDS) - 1 };

static unsigned mask_of_mode(enum qcow2_overlap_check_mode mode)
{
    struct qcow2_overlap_checks options = {.kind = QCOW2_OVERLAP_CHECKS_KIND_MODE, .u.mode = mode};

    return qcow2_overlap_mask(&options);
}

static void test_modes(void)
{
    unsigned constant = QCOW2_METADATA_MAIN_HEADER | QCOW2_METADATA_ACTIVE_L1 | QCOW2_METADATA_REFCOUNT_TABLE |
                        QCOW2_METADATA_SNAPSHOT_TABLE | QCOW2_METADATA_BITMAP_DIRECTORY;

    g_assert_cmpuint(mask_of_mode(QCOW2_OVERLAP_CHECK_MODE_NONE), ==, 0);
    g_assert_cmpuint(mask_of_mode(QCOW2_OVERLAP_CHECK_MODE_CONSTANT), ==, constant);
    g_assert_cmpuint(mask_of_mode(QCOW2_OVERLAP_CHECK_MODE_CACHED), ==, ALL & ~QCOW2_METADATA_INACTIVE_L2);
    g_assert_cmpuint(mask_of_mode(QCOW2_OVERLAP_CHECK_MODE_ALL), ==, ALL);
    g_assert_cmpuint(qcow2_overlap_mask(NULL), ==, ALL & ~QCOW2_METADATA_INACTIVE_L2);
}

static void test_flags(void)
{
    struct qcow2_overlap_check_flags flags = {.has_main_header = true, .has_inactive_l2 = true, .inactive_l2 = true};
    struct qcow2_overlap_checks options = {.kind = QCOW2_OVERLAP_CHECKS_KIND_FLAGS, .u.flags = &flags};

    g_assert_cmpuint(qcow2_overlap_mask(&options), ==, ALL & ~QCOW2_METADATA_MAIN_HEADER);
    flags.has_template = true;
    flags.template = QCOW2_OVERLAP_CHECK_MODE_NONE;
    g_assert_cmpuint(qcow2_overlap_mask(&options), ==, QCOW2_METADATA_INACTIVE_L2);
    flags.template = QCOW2_OVERLAP_CHECK_MODE_ALL;
    flags.main_header = true;
    flags.has_active_l2 = true;
    g_assert_cmpuint(qcow2_overlap_mask(&options), ==, ALL & ~QCOW2_METADATA_ACTIVE_L2);
}

static void test_ranges(void)
{
    struct qcow2_overlap overlap = {0};

    g_assert_false(qcow2_overlap_maybe(&overlap, 0, CLUSTER));
    qcow2_overlap_init(&overlap, ALL, CLUSTER_BITS, 10);
    qcow2_overlap_set_range(&overlap, QCOW2_METADATA_ACTIVE_L1, 3 * CLUSTER, 100);
    g_assert_true(qcow2_overlap_maybe(&overlap, 3 * CLUSTER + 99, 1));
    g_assert_true(qcow2_overlap_maybe(&overlap, 0, 10 * CLUSTER));
    g_assert_false(qcow2_overlap_maybe(&overlap, 3 * CLUSTER + 100, CLUSTER));
    g_assert_false(qcow2_overlap_maybe(&overlap, 0, 3 * CLUSTER));
    g_assert_false(qcow2_overlap_maybe(&overlap, 3 * CLUSTER, 0));
    qcow2_overlap_set_range(&overlap, QCOW2_METADATA_ACTIVE_L1, 7 * CLUSTER, 8);
    g_assert_false(qcow2_overlap_maybe(&overlap, 3 * CLUSTER, CLUSTER));
    g_assert_true(qcow2_overlap_maybe(&overlap, 7 * CLUSTER, CLUSTER));
    qcow2_overlap_done(&overlap);

    qcow2_overlap_init(&overlap, QCOW2_METADATA_REFCOUNT_TABLE, CLUSTER_BITS, 10);
    qcow2_overlap_set_range(&overlap, QCOW2_METADATA_ACTIVE_L1, 3 * CLUSTER, 100);
    g_assert_false(qcow2_overlap_maybe(&overlap, 3 * CLUSTER, CLUSTER));
    qcow2_overlap_done(&overlap);
}

/* However full it is, it finds what was added; sized for it, hardly anything else. */
static void test_filter(void)
{
    static const unsigned tables[] = {10, 1000, 100 * 1000};
    GRand *random = g_rand_new_with_seed(1);

    for (size_t i = 0; i < G_N_ELEMENTS(tables); i++) {
        struct qcow2_overlap overlap = {0};
        g_autofree uint64_t *clusters = g_new(uint64_t, tables[i]);
        unsigned wrong = 0;

        qcow2_overlap_init(&overlap, ALL, CLUSTER_BITS, tables[i]);
        for (unsigned k = 0; k < tables[i]; k++) {
            clusters[k] = k % 2 ? k : (uint64_t)g_rand_int(random) << 8;
            qcow2_overlap_add(&overlap, clusters[k] * CLUSTER + k % CLUSTER, 1);
        }
        for (unsigned k = 0; k < tables[i]; k++)
            g_assert_true(qcow2_overlap_maybe(&overlap, clusters[k] * CLUSTER, CLUSTER));
        for (uint64_t k = 0; k < 10000; k++)
            wrong += qcow2_overlap_maybe(&overlap, ((UINT64_C(1) << 42) + k * 3) * CLUSTER, CLUSTER);
        g_assert_cmpuint(wrong, <, 100);
        qcow2_overlap_done(&overlap);
    }
    g_rand_free(random);
}

static void test_filter_spans(void)
{
    struct qcow2_overlap overlap = {0};

    qcow2_overlap_init(&overlap, ALL, CLUSTER_BITS, 10);
    qcow2_overlap_add(&overlap, 100 * CLUSTER, 3 * CLUSTER);
    g_assert_true(qcow2_overlap_maybe(&overlap, 102 * CLUSTER, CLUSTER));
    g_assert_true(qcow2_overlap_maybe(&overlap, 90 * CLUSTER, 11 * CLUSTER));
    g_assert_true(qcow2_overlap_maybe(&overlap, 101 * CLUSTER + 1, 1));
    qcow2_overlap_done(&overlap);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-overlap/modes", test_modes);
    g_test_add_func("/qcow2-overlap/flags", test_flags);
    g_test_add_func("/qcow2-overlap/ranges", test_ranges);
    g_test_add_func("/qcow2-overlap/filter", test_filter);
    g_test_add_func("/qcow2-overlap/filter-spans", test_filter_spans);
    return g_test_run();
}
