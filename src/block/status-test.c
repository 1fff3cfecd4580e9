/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "block/graph-internal.h"
#include "block/handle.h"
#include "block/memory-disk-test.h"

enum { BLOCK = 512 };

static void CO_FN co_expect(struct handle *handle, uint64_t offset, uint64_t bytes, uint64_t want_bytes, unsigned want)
{
    struct block_extent extent;

    g_assert_cmpint(co_handle_block_status(handle, offset, bytes, &extent), ==, 0);
    g_assert_cmpuint(extent.bytes, ==, want_bytes);
    g_assert_cmphex(extent.flags & (BLOCK_DATA | BLOCK_ZERO | BLOCK_ALLOCATED | BLOCK_EOF), ==, want);
}

static void CO_FN co_expect_depth(struct handle *handle, uint64_t offset, uint64_t bytes, int want_depth,
                                  uint64_t want_bytes)
{
    uint64_t length;

    g_assert_cmpint(co_handle_allocation_depth(handle, offset, bytes, &length), ==, want_depth);
    g_assert_cmpuint(length, ==, want_bytes);
}

/* Bare disk, and a window of it: holes, ends, questions about parts of blocks. */
static void CO_FN co_test_single(struct graph *graph)
{
    struct node *node = co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'd', 'size': 8192}");
    struct memory_disk *disk = memory_disk_of(graph, "d");
    struct handle *handle = co_test_handle(node, PERM_CONSISTENT_READ);
    struct block_extent extent;

    memset(disk->data + 1024, 1, 1024);
    co_expect(handle, 0, 8192, 1024, BLOCK_ZERO | BLOCK_ALLOCATED);
    co_expect(handle, 100, 200, 200, BLOCK_ZERO | BLOCK_ALLOCATED);
    co_expect(handle, 1030, 8192 - 1030, 1018, BLOCK_DATA | BLOCK_ALLOCATED);
    co_expect(handle, 2048, 6144, 6144, BLOCK_ZERO | BLOCK_ALLOCATED | BLOCK_EOF);
    g_assert_cmpint(co_handle_block_status(handle, 0, 8193, &extent), ==, -EINVAL);
    g_assert_cmpint(co_handle_block_status(handle, 8192, 1, &extent), ==, -EINVAL);
    g_assert_cmpint(co_handle_block_status(handle, 0, 0, &extent), ==, -EINVAL);
    co_handle_free(handle);

    node = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r', 'file': 'd', 'offset': 512, 'size': 2048}");
    handle = co_test_handle(node, PERM_CONSISTENT_READ);
    co_expect(handle, 0, 2048, 512, BLOCK_ZERO | BLOCK_ALLOCATED);
    co_expect(handle, 512, 1536, 1024, BLOCK_DATA | BLOCK_ALLOCATED);
    co_expect(handle, 1536, 512, 512, BLOCK_ZERO | BLOCK_ALLOCATED | BLOCK_EOF);
    g_assert_cmpint(co_handle_block_status(handle, 512, 1536, &extent), ==, 0);
    g_assert_true(extent.flags & BLOCK_OFFSET_VALID);
    g_assert_cmpuint(extent.host_offset, ==, 1024);
    g_assert_cmpstr(node_name(extent.host), ==, "d");
    co_handle_free(handle);
}

static void test_single(void)
{
    run_graph_test(co_test_single);
}

/* A node that became shorter, and who asks does not know yet. */
static void CO_FN co_test_shorter(struct graph *graph)
{
    struct node *node = co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'd', 'size': 8192}");
    struct block_extent extent;

    node_set_length(node, 4096);
    g_assert_cmpint(co_node_block_status(node, 1024, 7168, true, &extent), ==, 0);
    g_assert_cmpuint(extent.bytes, ==, 3072);
    g_assert_true(extent.flags & BLOCK_EOF);
    g_assert_cmpint(co_node_block_status(node, 4096, 4096, true, &extent), ==, 0);
    g_assert_cmpuint(extent.bytes, ==, 4096);
    g_assert_true(extent.flags & BLOCK_ZERO);
}

static void test_shorter(void)
{
    run_graph_test(co_test_shorter);
}

/* An overlay on an overlay on a shorter base. */
static void CO_FN co_test_chain(struct graph *graph)
{
    struct handle *handle;
    uint8_t ones[BLOCK], zeroes[BLOCK] = {0};

    memset(ones, 1, BLOCK);
    co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'base', 'size': 2048}");
    co_test_add_ok(graph, "{'driver': 'qed', 'node-name': 'mid', 'backing': 'base', 'file':"
                          " {'driver': 'null-co', 'size': 4096}}");
    co_test_add_ok(graph, "{'driver': 'qed', 'node-name': 'top', 'backing': 'mid', 'file':"
                          " {'driver': 'null-co', 'size': 8192}}");
    memset(memory_disk_of(graph, "base")->data, 2, 1024);
    handle = co_test_handle(graph_find(graph, "mid", NULL), PERM_CONSISTENT_READ | PERM_WRITE);
    g_assert_cmpint(co_handle_pwrite(handle, 512, BLOCK, ones, 0), ==, 0);
    co_handle_free(handle);
    handle = co_test_handle(graph_find(graph, "top", NULL), PERM_CONSISTENT_READ | PERM_WRITE);
    g_assert_cmpint(co_handle_pwrite(handle, 4096, BLOCK, zeroes, 0), ==, 0);

    co_expect(handle, 0, 8192, 512, BLOCK_DATA | BLOCK_ALLOCATED);     /* base's */
    co_expect(handle, 512, 4096, 512, BLOCK_DATA | BLOCK_ALLOCATED);   /* mid's */
    co_expect(handle, 1024, 4096, 1024, BLOCK_ZERO | BLOCK_ALLOCATED); /* base's hole */
    co_expect(handle, 2048, 4096, 2048, BLOCK_ZERO);                   /* beyond base, up to where mid ends */
    co_expect(handle, 4096, 4096, 512, BLOCK_DATA | BLOCK_ZERO | BLOCK_ALLOCATED);
    co_expect(handle, 4608, 3584, 3584, BLOCK_ZERO | BLOCK_EOF);

    co_expect_depth(handle, 0, 8192, 3, 512);
    co_expect_depth(handle, 512, 8192 - 512, 2, 512);
    co_expect_depth(handle, 1024, 1000, 3, 1000);
    co_expect_depth(handle, 2048, 2048, 0, 2048);
    co_expect_depth(handle, 4096, 4096, 1, 512);
    co_handle_free(handle);

    /* Raw on top: its data is all its own. */
    co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r', 'file': 'top'}");
    handle = co_test_handle(graph_find(graph, "r", NULL), PERM_CONSISTENT_READ);
    co_expect(handle, 2048, 2048, 2048, BLOCK_ZERO | BLOCK_ALLOCATED);
    co_expect_depth(handle, 2048, 2048, 1, 2048);
    co_handle_free(handle);
}

static void test_chain(void)
{
    run_graph_test(co_test_chain);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/status/single", test_single);
    g_test_add_func("/status/shorter", test_shorter);
    g_test_add_func("/status/chain", test_chain);
    return g_test_run();
}
