/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the block layer itself costs a request: reads and writes of a node that does nothing, bare and under raw. */
#include <glib.h>
#include <stdio.h>

#include "block/dirty-bitmap.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/node.h"
#include "gen/types.h"
#include "loop/loop.h"
#include "schema/json.h"

enum { REQUESTS = 5000000, BLOCK = 4096 };

static void CO_FN co_add(struct graph *graph, const char *text)
{
    AUTO(json) json = json_parse(text, strlen(text), NULL);
    AUTO(blockdev_options) options = blockdev_options_parse(json, NULL);
    bool ok = co_graph_add(graph, options, NULL);

    g_assert_true(ok);
}

static void CO_FN co_measure(struct graph *graph, const char *name)
{
    struct handle_options options = {.perm = PERM_CONSISTENT_READ | PERM_WRITE, .shared = PERM_ALL};
    struct handle *handle = co_handle_new(graph_find(graph, name, NULL), &options, NULL);
    char *buffer = loop_buffer_get(BLOCK);

    for (unsigned write = 0; write < 2; write++) {
        int64_t start_ns = loop_now_ns();

        for (unsigned i = 0; i < REQUESTS; i++) {
            uint64_t offset = (uint64_t)(i % 1000) * BLOCK;
            int ret = write ? co_handle_pwrite(handle, offset, BLOCK, buffer, 0)
                            : co_handle_pread(handle, offset, BLOCK, buffer, 0);

            g_assert_cmpint(ret, ==, 0);
        }
        printf("%-12s %-6s %6.1f ns a request\n", name, write ? "write" : "read",
               (double)(loop_now_ns() - start_ns) / REQUESTS);
    }
    loop_buffer_put(buffer, BLOCK);
    co_handle_free(handle);
}

static double since_us(int64_t start_ns)
{
    return (double)(loop_now_ns() - start_ns) / 1000;
}

/* What bitmaps of a large disk cost: themselves, and a write beneath them. */
static void CO_FN co_measure_bitmaps(struct graph *graph)
{
    struct dirty_bitmap_options options = {.granularity = 65536};
    struct handle_options handle_options = {.perm = PERM_WRITE, .shared = PERM_ALL};
    struct node *node = graph_find(graph, "large", NULL);
    struct handle *handle = co_handle_new(node, &handle_options, NULL);
    char *buffer = loop_buffer_get(BLOCK);
    uint64_t length = node_length(node);

    for (unsigned count = 0; count <= 1000; count = count ? count * 10 : 1) {
        int64_t start_ns = loop_now_ns();
        struct dirty_bitmap *bitmap = NULL;

        for (unsigned i = count / 10; i < count; i++)
            bitmap = dirty_bitmap_new(node, &options);
        printf("%4u bitmaps  adding %6.2f us each", count, since_us(start_ns) / MAX(count - count / 10, 1));
        start_ns = loop_now_ns();
        for (uint64_t i = 0; i < REQUESTS / 5; i++)
            (void)co_handle_pwrite(handle, i * UINT64_C(0x9e3779b97f4a7c15) % (length / BLOCK) * BLOCK, BLOCK, buffer,
                                   0);
        printf(", a random write %6.1f ns", since_us(start_ns) * 1000 / (REQUESTS / 5));
        start_ns = loop_now_ns();
        if (bitmap)
            printf(", catching up %8.1f us (%" G_GUINT64_FORMAT " bytes dirty)", since_us(start_ns),
                   dirty_bitmap_count(bitmap));
        start_ns = loop_now_ns();
        for (uint64_t i = 0; bitmap && i < 1000; i++)
            (void)dirty_bitmap_next_dirty(bitmap, i * (length / 1000), length);
        printf(", finding what is dirty %6.1f ns\n", since_us(start_ns));
    }
    loop_buffer_put(buffer, BLOCK);
    co_handle_free(handle);
}

static void co_bench(void *opaque)
{
    struct graph *graph = graph_new(NULL, NULL);
    int64_t start_ns = loop_now_ns();

    for (unsigned i = 0; i < REQUESTS; i++)
        (void)loop_now_ns();
    printf("%-19s %6.1f ns\n", "reading the clock", (double)(loop_now_ns() - start_ns) / REQUESTS);
    co_add(graph, "{'driver': 'null-co', 'node-name': 'null'}");
    co_add(graph, "{'driver': 'raw', 'node-name': 'raw', 'file': 'null'}");
    co_add(graph, "{'driver': 'raw', 'node-name': 'raw-on-raw', 'file': 'raw'}");
    co_measure(graph, "null");
    co_measure(graph, "raw");
    co_measure(graph, "raw-on-raw");
    co_add(graph, "{'driver': 'null-co', 'node-name': 'large', 'size': 17592186044416}");
    co_measure_bitmaps(graph);
    co_graph_free(graph);
}

int main(void)
{
    struct loop *loop = loop_new(&(struct loop_options){0}, NULL);

    co_run(loop, co_bench, NULL);
    loop_free(loop);
    return 0;
}
