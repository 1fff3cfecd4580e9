/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "driver/protocol/null.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "block/describe.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/node.h"
#include "loop/loop.h"
#include "schema/json.h"

static char *CO_FN co_add(struct graph *graph, const char *text)
{
    AUTO(error) error = NULL;
    AUTO(json) json = json_parse(text, strlen(text), &error);
    AUTO(blockdev_options) options = blockdev_options_parse(json, &error);

    if (options && co_graph_add(graph, options, &error))
        return NULL;
    return g_strdup(error_message(error));
}

static void CO_FN co_expect_error(struct graph *graph, const char *text, const char *message)
{
    g_autofree char *got = co_add(graph, text);

    g_assert_cmpstr(got, ==, message);
}

static void expect_filename(struct graph *graph, const char *name, const char *filename)
{
    g_autofree char *got = node_filename(graph_find(graph, name, NULL));

    g_assert_cmpstr(got, ==, filename);
}

static struct handle *CO_FN co_handle(struct graph *graph, const char *name)
{
    struct handle_options options = {.name = "a test", .perm = PERM_CONSISTENT_READ | PERM_WRITE, .shared = PERM_ALL};

    return co_handle_new(graph_find(graph, name, NULL), &options, NULL);
}

static void CO_FN co_test_options(struct graph *graph)
{
    co_expect_error(graph, "{'driver': 'null-co', 'node-name': 'n', 'size': -1}",
                    "Parameter 'size' expects a non-negative number below 2^64: it is -1");
    co_expect_error(graph, "{'driver': 'null-co', 'node-name': 'n', 'size': 9223372036854775807}",
                    "Could not refresh total sector count: File too large");
    co_expect_error(graph, "{'driver': 'null-aio', 'node-name': 'n', 'latency-ns': 9223372036854775808}",
                    "latency-ns is invalid: it is 9223372036854775808, at most 9223372036854775807");
    co_expect_error(graph, "{'driver': 'null-co', 'node-name': 'big', 'size': 9223372035781033984}", NULL);
    co_expect_error(graph, "{'driver': 'null-co', 'node-name': 'empty', 'size': 0}", NULL);
    co_expect_error(graph, "{'driver': 'null-aio', 'node-name': 'odd', 'size': 1000, 'read-zeroes': false}", NULL);
    co_expect_error(graph, "{'driver': 'null-co', 'node-name': 'plain', 'latency-ns': 1}", NULL);
    g_assert_cmpuint(node_length(graph_find(graph, "big", NULL)), ==, NODE_LENGTH_MAX);
    g_assert_cmpuint(node_length(graph_find(graph, "empty", NULL)), ==, 0);
    g_assert_cmpuint(node_length(graph_find(graph, "odd", NULL)), ==, 1024);
    g_assert_cmpuint(node_length(graph_find(graph, "plain", NULL)), ==, 1 << 30);
    expect_filename(graph, "plain", "null-co://");
    expect_filename(graph, "odd", "json:{\"driver\": \"null-aio\", \"size\": 1000, \"read-zeroes\": false}");
}

static void CO_FN co_test_requests(struct graph *graph)
{
    struct handle *handle;
    struct block_extent extent;
    char data[100] = {1};
    int64_t start_ns = loop_now_ns();

    g_assert_null(co_add(graph, "{'driver': 'null-co', 'node-name': 'n', 'latency-ns': 1000000000}"));
    handle = co_handle(graph, "n");
    g_assert_cmpint(co_handle_pread(handle, 0, 100, data, 0), ==, 0);
    g_assert_cmpint(data[0], ==, 1);
    g_assert_cmpint(co_handle_pwrite(handle, 0, 100, data, 0), ==, 0);
    g_assert_cmpint(co_handle_flush(handle), ==, 0);
    g_assert_cmpint(co_handle_pwrite_zeroes(handle, 0, 100, IO_NO_FALLBACK), ==, 0);
    g_assert_cmpint(loop_now_ns() - start_ns, ==, 4000000000);
    g_assert_cmpint(co_handle_block_status(handle, 0, 100, &extent), ==, 0);
    g_assert_true(extent.flags & BLOCK_DATA);
    co_handle_free(handle);

    g_assert_null(co_add(graph, "{'driver': 'null-co', 'node-name': 'z', 'read-zeroes': true}"));
    handle = co_handle(graph, "z");
    g_assert_cmpint(co_handle_pread(handle, 0, 100, data, 0), ==, 0);
    g_assert_cmpint(data[0], ==, 0);
    g_assert_cmpint(co_handle_block_status(handle, 0, 100, &extent), ==, 0);
    g_assert_true(extent.flags & BLOCK_ZERO);
    co_handle_free(handle);
}

/* A thousand nodes: each is described with its own facts. */
static void CO_FN co_test_describe(struct graph *graph)
{
    AUTO(block_device_info_array) infos = NULL;
    AUTO(block_stats_array) stats = NULL;

    for (unsigned i = 0; i < 1000; i++) {
        g_autofree char *text = g_strdup_printf(
            "{'driver': 'raw', 'node-name': 'n%u', 'file': {'driver': 'null-co', 'size': %u}}", i, i * 512);

        g_assert_null(co_add(graph, text));
    }
    infos = co_graph_describe(graph, true);
    g_assert_cmpuint(infos->count, ==, 2000);
    for (size_t i = 0; i < infos->count; i++) {
        const struct block_device_info *info = infos->items[infos->count - 1 - i];

        /* Newest first, a parent before its children. */
        g_assert_cmpint(info->image->virtual_size, ==, (int64_t)(i / 2) * 512);
        g_assert_cmpint(info->image->actual_size, ==, 0);
        g_assert_false(info->ro);
        g_assert_true(info->cache->writeback);
    }
    stats = graph_describe_statistics(graph);
    g_assert_cmpuint(stats->count, ==, 2000);
    g_assert_cmpstr(stats->items[1]->node_name, ==, "n0");
    g_assert_nonnull(stats->items[1]->parent);
    g_assert_false(stats->items[0]->stats->has_idle_time_ns);
}

/* --- running --- */

static void (*co_test)(struct graph *graph);

static void co_run_test(void *opaque)
{
    struct graph *graph = graph_new(NULL, NULL);

    co_test(graph);
    co_graph_free(graph);
}

static void run(void (*test)(struct graph *graph))
{
    struct loop *loop = loop_new(&(struct loop_options){.backend = LOOP_SIM, .sim_seed = 1}, NULL);

    co_test = test;
    co_run(loop, co_run_test, NULL);
    loop_free(loop);
}

static void test_options(void)
{
    run(co_test_options);
}

static void test_requests(void)
{
    run(co_test_requests);
}

static void test_describe(void)
{
    run(co_test_describe);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/null/options", test_options);
    g_test_add_func("/null/requests", test_requests);
    g_test_add_func("/null/describe", test_describe);
    return g_test_run();
}
