/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "driver/format/qcow2/layout.h"

#include <glib.h>

#include "base/error.h"

/* Everything is where it belongs, and is counted: the parts follow each other, and all counts fit the blocks. */
static void check(const struct qcow2_layout_request *request)
{
    struct qcow2_layout layout;
    AUTO(error) err = NULL;
    unsigned bits = request->cluster_bits;
    uint64_t block_entries = UINT64_C(1) << (bits + 3 - request->refcount_order);

    if (!qcow2_layout_make(request, &layout, &err))
        g_error("%s", error_message(err));
    g_assert_cmpuint(layout.refcount_table_offset, ==, UINT64_C(1) << bits);
    g_assert_cmpuint(layout.refcount_blocks_offset, ==,
                     layout.refcount_table_offset + (layout.refcount_table_clusters << bits));
    if (layout.l1_entries)
        g_assert_cmpuint(layout.l1_offset, ==, layout.refcount_blocks_offset + (layout.refcount_blocks << bits));
    g_assert_cmpuint(layout.data_offset + (layout.data_clusters << bits), ==, layout.clusters << bits);
    g_assert_cmpuint(layout.refcount_blocks * block_entries, >=, layout.clusters);
    g_assert_cmpuint(layout.refcount_table_clusters << bits, >=, layout.refcount_blocks * 8);
    /* No block more than are needed, give or take the one that counts the last. */
    g_assert_cmpuint((layout.refcount_blocks - 1) * block_entries, <=, layout.clusters);
}

static void test_all_kinds(void)
{
    static const uint64_t sizes[] = {0, 512, 1 << 20, (1 << 20) + 512, UINT64_C(5) << 30};

    for (unsigned bits = 9; bits <= 21; bits++) {
        for (unsigned order = 0; order <= 6; order++) {
            for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
                struct qcow2_layout_request request = {
                    .size = sizes[i],
                    .cluster_bits = bits,
                    .refcount_order = order,
                    .subclusters = bits >= 14 && order % 2,
                    .crypto_bytes = order == 3 ? 2068480 : 0,
                };

                check(&request);
                request.tables = true;
                check(&request);
                request.data_bytes = sizes[i];
                check(&request);
            }
        }
    }
}

static void test_too_large(void)
{
    struct qcow2_layout_request request = {.size = UINT64_C(1) << 40, .cluster_bits = 9, .refcount_order = 4};
    struct qcow2_layout layout;
    AUTO(error) entries = NULL;
    AUTO(error) negative = NULL;
    AUTO(error) refcounts = NULL;

    g_assert_false(qcow2_layout_make(&request, &layout, &entries));
    g_assert_true(g_str_has_prefix(error_message(entries),
                                   "Could not resize image: Failed to grow the L1 table: File too large"));
    request.size = UINT64_C(1) << 63;
    g_assert_false(qcow2_layout_make(&request, &layout, &negative));
    g_assert_true(g_str_has_prefix(error_message(negative), "Could not resize image: Image size cannot be negative"));
    request = (struct qcow2_layout_request){.size = UINT64_C(1) << 36,
                                            .cluster_bits = 9,
                                            .refcount_order = 6,
                                            .tables = true,
                                            .data_bytes = UINT64_C(1) << 36};
    g_assert_false(qcow2_layout_make(&request, &layout, &refcounts));
    g_assert_nonnull(strstr(error_message(refcounts), "a refcount table of"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2/layout/all-kinds", test_all_kinds);
    g_test_add_func("/qcow2/layout/too-large", test_too_large);
    return g_test_run();
}
