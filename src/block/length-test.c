/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "block/handle.h"
#include "block/memory-disk-test.h"
#include "loop/coroutine.h"

struct listener {
    unsigned calls;
    uint64_t length;
};

static void hear_length(void *opaque, uint64_t length)
{
    struct listener *listener = opaque;

    listener->calls++;
    listener->length = length;
}

static struct handle *CO_FN co_listening(struct node *node, uint32_t perm, struct listener *listener)
{
    static const struct handle_ops ops = {.resized = hear_length};
    struct handle_options options = {
        .name = "a test", .perm = perm, .shared = PERM_ALL, .ops = &ops, .opaque = listener};

    return co_handle_new(node, &options, NULL);
}

static void CO_FN co_wait_for(const struct listener *listener, uint64_t length)
{
    while (listener->length != length)
        co_yield ();
}

static void CO_FN co_expect_resize_error(struct node *node, uint64_t length, const char *message)
{
    AUTO(error) err = NULL;
    uint64_t before = node_length(node);

    g_assert_false(co_node_resize(node, length, &err));
    g_assert_cmpstr(error_message(err), ==, message);
    g_assert_cmpuint(node_length(node), ==, before);
}

static void CO_FN co_test_resize(struct graph *graph)
{
    struct node *disk = co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'd', 'size': 8192}");
    struct node *raw = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r', 'file': 'd'}");
    struct node *tail = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 't', 'file': 'r'}");
    struct listener listener = {0};
    struct handle *handle = co_listening(tail, PERM_CONSISTENT_READ, &listener);

    g_assert_true(co_node_resize(disk, 5000, NULL));
    g_assert_cmpuint(node_length(disk), ==, 5120); /* in sectors */
    co_wait_for(&listener, 5120);
    g_assert_cmpuint(node_length(raw), ==, 5120);
    g_assert_cmpuint(node_length(tail), ==, 5120);
    g_assert_true(co_node_resize(tail, 16384, NULL));
    g_assert_cmpuint(node_length(disk), ==, 16384);
    g_assert_cmpuint(node_length(tail), ==, 16384);
    co_wait_for(&listener, 16384);
    g_assert_true(co_node_resize(raw, 0, NULL));
    co_wait_for(&listener, 0);
    co_expect_resize_error(raw, 64 * 1024 * 1024, "the test disk is full");
    co_expect_resize_error(raw, INT64_MAX, "offset(9223372036854775807) exceeds maximum(9223372035781033984)");
    co_handle_free(handle);
}

static void test_resize(void)
{
    run_graph_test(co_test_resize);
}

static void CO_FN co_test_refused(struct graph *graph)
{
    struct node *node;
    struct handle_options options = {.name = "block export 'e'", .shared = PERM_ALL & ~(uint32_t)PERM_RESIZE};
    struct handle *handle;

    co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'd', 'size': 8192}");
    node = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'fixed', 'file': 'd', 'offset': 512, 'size': 1024}");
    co_expect_resize_error(node, 512, "Cannot resize fixed-size raw disks");
    g_assert_true(co_graph_delete(graph, "fixed", NULL));
    node = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'w', 'file': 'd', 'offset': 512}");
    g_assert_true(co_node_resize(node, 1024, NULL));
    g_assert_cmpuint(node_length(graph_find(graph, "d", NULL)), ==, 1536);
    node = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'ro', 'file': 'd', 'read-only': true}");
    co_expect_resize_error(graph_find(graph, "ro", NULL), 512,
                           "Permission conflict on node 'd': permissions 'resize' are both required by node 'ro' "
                           "(uses node 'd' as 'file' child) and unshared by node 'w' (uses node 'd' as 'file' child).");
    g_assert_true(co_graph_delete(graph, "w", NULL));
    co_expect_resize_error(node, 512, "Image is read-only: node 'ro'");
    node = co_test_add_ok(graph, "{'driver': 'qed', 'node-name': 'q', 'file': {'driver': 'null-co'}}");
    co_expect_resize_error(node, 512, "Image format driver does not support resize");
    node = graph_find(graph, "d", NULL);
    handle = co_handle_new(node, &options, NULL);
    co_expect_resize_error(
        node, 512,
        "Permission conflict on node 'd': permissions 'resize' are both required by block_resize (uses "
        "node 'd' as 'root' child) and unshared by block export 'e' (uses node 'd' as 'root' "
        "child).");
    co_handle_free(handle);
}

static void test_refused(void)
{
    run_graph_test(co_test_refused);
}

/* Writes past the end, by who may: each node on the way grows, and another window of the same disk hears of it. */
static void CO_FN co_test_growth(struct graph *graph)
{
    struct node *raw, *other;
    struct listener listener = {0};
    struct handle *handle, *watcher;
    uint8_t data[1000], back[1000] = {0};

    memory_disk_options.request_alignment = 512;
    co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'd', 'size': 4096}");
    raw = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r', 'file': 'd'}");
    other = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'o', 'file': 'd'}");
    watcher = co_listening(other, PERM_CONSISTENT_READ, &listener);
    handle = co_test_handle(raw, PERM_CONSISTENT_READ | PERM_WRITE | PERM_RESIZE);
    memset(data, 9, sizeof(data));
    g_assert_cmpint(co_handle_pwrite(handle, 4000, sizeof(data), data, 0), ==, 0);
    g_assert_cmpuint(handle_length(handle), ==, 5120);
    co_wait_for(&listener, 5120);
    g_assert_cmpint(co_handle_pread(watcher, 4000, sizeof(back), back, 0), ==, 0);
    g_assert_cmpmem(data, sizeof(data), back, sizeof(back));
    g_assert_cmpint(co_handle_pwrite(handle, NODE_LENGTH_MAX, 1, data, 0), ==, -ENOSPC);
    co_handle_free(handle);
    co_handle_free(watcher);
}

static void test_growth(void)
{
    run_graph_test(co_test_growth);
}

/* Through an edge: zeroes beyond the end of the child. */
static void CO_FN co_test_beyond(struct graph *graph)
{
    struct node *raw;
    struct edge *edge;
    struct handle *handle;
    uint8_t data[2048];

    co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'd', 'size': 4096}");
    raw = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r', 'file': 'd'}");
    memset(memory_disk_of(graph, "d")->data, 3, 4096);
    handle = co_test_handle(raw, PERM_CONSISTENT_READ | PERM_WRITE);
    edge = node_child(raw, "file");
    memset(data, 1, sizeof(data));
    g_assert_cmpint(co_edge_pread(edge, 3000, sizeof(data), data, 0), ==, 0);
    g_assert_cmpint(data[1095], ==, 3);
    g_assert_cmpint(data[1096], ==, 0);
    g_assert_cmpint(data[2047], ==, 0);
    g_assert_cmpint(co_edge_pread(edge, 1 << 20, sizeof(data), data, 0), ==, 0);
    g_assert_cmpint(data[0], ==, 0);
    g_assert_cmpint(co_edge_pwrite(edge, 4000, 100, data, 0), ==, -EIO);
    co_handle_free(handle);
}

static void test_beyond(void)
{
    run_graph_test(co_test_beyond);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/length/resize", test_resize);
    g_test_add_func("/length/refused", test_refused);
    g_test_add_func("/length/growth", test_growth);
    g_test_add_func("/length/beyond", test_beyond);
    return g_test_run();
}
