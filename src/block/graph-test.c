/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Adding and deleting nodes: names, children, what keeps a node alive, and what a failure leaves behind. */
#include "block/graph.h"

#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "block/handle.h"
#include "block/memory-disk-test.h"
#include "gen/types.h"
#include "schema/json.h"

static void CO_FN co_expect_error(struct graph *graph, const char *json, const char *message)
{
    AUTO(error) err = NULL;
    size_t before = graph_node_count(graph);

    g_assert_null(co_test_add(graph, json, &err));
    g_assert_cmpstr(error_message(err), ==, message);
    g_assert_cmpuint(graph_node_count(graph), ==, before);
}

static void CO_FN co_expect_delete_error(struct graph *graph, const char *name, const char *message)
{
    AUTO(error) err = NULL;

    g_assert_false(co_graph_delete(graph, name, &err));
    g_assert_cmpstr(error_message(err), ==, message);
}

static void CO_FN co_test_names(struct graph *graph)
{
    static const char *const bad[] = {"", "1a", "#a", "a#b", "a b", "a/b", "-a", "_a", ".a", "a:b", "\303\251", "a%s"};
    struct node *node;

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autofree char *json = g_strdup_printf("{'driver': 'null-co', 'node-name': '%s'}", bad[i]);
        g_autofree char *message = g_strdup_printf("Invalid node-name: '%s'", bad[i]);

        co_expect_error(graph, json, message);
    }
    co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'a.b-c_d'}");
    co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'x123456789012345678901234567890'}");
    co_expect_error(graph, "{'driver': 'null-co', 'node-name': 'x1234567890123456789012345678901'}",
                    "Node name too long");
    co_expect_error(graph, "{'driver': 'null-co', 'node-name': 'a.b-c_d'}", "Duplicate nodes with node-name='a.b-c_d'");
    co_expect_error(graph, "{'driver': 'null-co'}", "'node-name' must be specified for the root node");
    node = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r', 'file': {'driver': 'null-co'}}");
    g_assert_true(g_str_has_prefix(node_name(edge_child(node_child(node, "file"))), "#block"));
}

static void test_names(void)
{
    run_graph_test(co_test_names);
}

static void CO_FN co_test_children(struct graph *graph)
{
    co_expect_error(graph, "{'driver': 'raw', 'node-name': 'r', 'file': 'nobody'}",
                    "Cannot find device='nobody' nor node-name='nobody'");
    co_expect_error(graph, "{'driver': 'raw', 'node-name': 'r', 'file': 'r'}",
                    "Cannot find device='r' nor node-name='r'");
    co_expect_error(graph, "{'driver': 'raw', 'node-name': 'r', 'file': {'driver': 'null-co', 'node-name': 'r'}}",
                    "Duplicate nodes with node-name='r'");
    co_expect_error(graph, "{'driver': 'ssh', 'node-name': 's', 'path': '/x', 'server': {'host': 'h', 'port': '1'}}",
                    "Unknown driver 'ssh': this build has no such driver");
    co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r0', 'file': {'driver': 'null-co', 'node-name': 'd0'}}");
    co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r1', 'file': 'd0'}");
    co_expect_delete_error(graph, "nobody", "Failed to find node with node-name='nobody'");
    co_expect_delete_error(graph, "d0", "Node d0 is not owned by the monitor");
    g_assert_true(co_graph_delete(graph, "r0", NULL));
    g_assert_nonnull(graph_find(graph, "d0", NULL));
    co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r2', 'file': 'r1'}");
    co_expect_delete_error(graph, "r1", "Block device r1 is in use: by node 'r2' as 'file'");
    g_assert_true(co_graph_delete(graph, "r2", NULL));
    g_assert_true(co_graph_delete(graph, "r1", NULL));
    g_assert_null(graph_find(graph, "d0", NULL));
    g_assert_cmpuint(graph_node_count(graph), ==, 0);
}

static void test_children(void)
{
    run_graph_test(co_test_children);
}

static void CO_FN co_test_options(struct graph *graph)
{
    struct node *node, *child;

    co_expect_error(graph, "{'driver': 'null-co', 'node-name': 'n', 'force-share': true}",
                    "force-share=on can only be used with read-only images");
    co_expect_error(graph, "{'driver': 'null-co', 'node-name': 'n', 'detect-zeroes': 'unmap'}",
                    "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap");
    co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'n', 'detect-zeroes': 'unmap', 'discard': 'unmap'}");
    node = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r', 'read-only': true, 'force-share': true,"
                                 " 'cache': {'direct': true, 'no-flush': true}, 'file': {'driver': 'null-co'}}");
    child = edge_child(node_child(node, "file"));
    g_assert_true(node_read_only(child));
    g_assert_true(node_force_share(child));
    g_assert_true(node_cache_direct(child));
    g_assert_true(node_cache_no_flush(child));
    g_assert_true(node_discard_unmap(child));
    g_assert_false(node_discard_unmap(node));
    node = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r3', 'read-only': true, 'file':"
                                 " {'driver': 'null-co', 'read-only': false, 'cache': {'direct': false}}}");
    child = edge_child(node_child(node, "file"));
    g_assert_false(node_read_only(child));
    g_assert_true(node_read_only(node));
}

static void test_options(void)
{
    run_graph_test(co_test_options);
}

static void CO_FN co_test_open_failures(struct graph *graph)
{
    static const char json[] = "{'driver': 'qed', 'node-name': 'top', 'file': {'driver': 'raw', 'node-name': 'r', "
                               "'file': {'driver': 'null-co', 'node-name': 'd'}}}";
    unsigned n = 0;

    /* Whichever step fails, the names are free again and nothing is left. */
    for (enum memory_disk_operation op = MEMORY_DISK_OPEN; op <= MEMORY_DISK_PERMISSION; op += MEMORY_DISK_PERMISSION) {
        for (unsigned step = 1;; step++) {
            AUTO(error) err = NULL;

            memory_disk_fail[op] = step;
            if (co_test_add(graph, json, &err))
                break;
            g_assert_nonnull(err);
            g_assert_cmpuint(graph_node_count(graph), ==, 0);
            g_assert_cmpint(memory_disks_open, ==, 0);
            n++;
        }
        memory_disk_fail[op] = 0;
        g_assert_true(co_graph_delete(graph, "top", NULL));
    }
    g_assert_cmpuint(n, >=, 2);
}

static void test_open_failures(void)
{
    run_graph_test(co_test_open_failures);
}

static void CO_FN co_test_depth(struct graph *graph)
{
    AUTO(error) err = NULL;
    unsigned depth = 0;

    co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'n0'}");
    for (;;) {
        g_autofree char *json =
            g_strdup_printf("{'driver': 'raw', 'node-name': 'n%u', 'file': 'n%u'}", depth + 1, depth);

        if (!co_test_add(graph, json, &err))
            break;
        depth++;
    }
    g_assert_cmpuint(depth, ==, 199);
    g_assert_nonnull(strstr(error_message(err), "more than 200 nodes deep"));
    for (; depth; depth--) {
        g_autofree char *name = g_strdup_printf("n%u", depth);

        g_assert_true(co_graph_delete(graph, name, NULL));
    }
}

static void test_depth(void)
{
    run_graph_test(co_test_depth);
}

static void CO_FN co_test_raw_window(struct graph *graph)
{
    struct node *node;

    co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'd', 'size': 65536}");
    co_expect_error(graph, "{'driver': 'raw', 'node-name': 'w', 'file': 'd', 'offset': 65537}",
                    "Offset (65537) cannot be greater than size of the containing file (65536)");
    co_expect_error(graph, "{'driver': 'raw', 'node-name': 'w', 'file': 'd', 'offset': 512, 'size': 65536}",
                    "The sum of offset (512) and size (65536) has to be smaller or equal to the  actual size of the "
                    "containing file (65536)");
    co_expect_error(graph,
                    "{'driver': 'raw', 'node-name': 'w', 'file': 'd', 'offset': 512, 'size': 9223372036854775807}",
                    "The sum of offset (512) and size (9223372036854775807) has to be smaller or equal to the  actual "
                    "size of the containing file (65536)");
    co_expect_error(graph, "{'driver': 'raw', 'node-name': 'w', 'file': 'd', 'size': 513}",
                    "Specified size is not multiple of 512: it is 513");
    node = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'w0', 'file': 'd', 'offset': 1024, 'size': 512}");
    g_assert_cmpuint(node_length(node), ==, 512);
    node = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'w1', 'file': 'd', 'offset': 65536}");
    g_assert_cmpuint(node_length(node), ==, 0);
    node = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'w2', 'file': 'd', 'offset': 512}");
    g_assert_cmpuint(node_length(node), ==, 65536 - 512);
    co_expect_error(graph, "{'driver': 'raw', 'node-name': 'w', 'file': 'd', 'offset': 100}",
                    "Specified offset is not multiple of 512: it is 100");
}

static void test_raw_window(void)
{
    run_graph_test(co_test_raw_window);
}

static struct handle *CO_FN co_open_ref(struct graph *graph, const char *text, struct error **err)
{
    struct handle_options options = {.name = "test", .perm = PERM_WRITE, .shared = PERM_CONSISTENT_READ};
    AUTO(json) json = json_parse(text, strlen(text), NULL);
    AUTO(blockdev_ref) ref = json ? blockdev_ref_parse(json, NULL) : NULL;

    g_assert_nonnull(ref);
    return co_graph_open(graph, ref, &options, err);
}

/* A node that a handle defines lives as long as the handle, and one that it names is left alone. */
static void CO_FN co_test_open(struct graph *graph)
{
    struct handle *inline_node = co_open_ref(graph, "{'driver': 'raw', 'file': {'driver': 'null-co'}}", NULL);
    struct handle *by_name;
    AUTO(error) unknown = NULL;
    AUTO(error) clash = NULL;

    g_assert_nonnull(inline_node);
    g_assert_cmpuint(graph_node_count(graph), ==, 2);
    co_handle_free(inline_node);
    g_assert_cmpuint(graph_node_count(graph), ==, 0);

    co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'd0'}");
    by_name = co_open_ref(graph, "'d0'", NULL);
    g_assert_nonnull(by_name);
    g_assert_null(co_open_ref(graph, "'nobody'", &unknown));
    g_assert_cmpstr(error_message(unknown), ==, "Cannot find device='nobody' nor node-name='nobody'");

    /* What cannot be attached leaves nothing. */
    g_assert_null(co_open_ref(graph, "{'driver': 'raw', 'node-name': 'r', 'file': 'd0'}", &clash));
    g_assert_nonnull(clash);
    g_assert_cmpuint(graph_node_count(graph), ==, 1);
    co_handle_free(by_name);
    g_assert_nonnull(graph_find(graph, "d0", NULL));
}

static void test_open(void)
{
    run_graph_test(co_test_open);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/graph/names", test_names);
    g_test_add_func("/graph/children", test_children);
    g_test_add_func("/graph/options", test_options);
    g_test_add_func("/graph/open-failures", test_open_failures);
    g_test_add_func("/graph/open", test_open);
    g_test_add_func("/graph/depth", test_depth);
    g_test_add_func("/graph/raw-window", test_raw_window);
    return g_test_run();
}
