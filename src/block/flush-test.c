/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <glib.h>

#include "base/error.h"
#include "block/handle.h"
#include "block/memory-disk-test.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"

static char byte = 1;

static void CO_FN co_test_elision(struct graph *graph)
{
    struct node *raw = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r', 'discard': 'unmap',"
                                             " 'file': {'driver': 'null-co', 'node-name': 'd'}}");
    struct memory_disk *disk = memory_disk_of(graph, "d");
    struct handle *handle = co_test_handle(raw, PERM_CONSISTENT_READ | PERM_WRITE);
    uint64_t *flushes = &disk->calls[MEMORY_DISK_FLUSH];

    g_assert_cmpint(co_handle_flush(handle), ==, 0);
    g_assert_cmpuint(*flushes, ==, 0);
    g_assert_cmpint(co_handle_pwrite(handle, 0, 1, &byte, 0), ==, 0);
    g_assert_cmpint(co_handle_flush(handle), ==, 0);
    g_assert_cmpint(co_handle_flush(handle), ==, 0);
    g_assert_cmpuint(*flushes, ==, 1);
    g_assert_cmpint(co_handle_pread(handle, 0, 1, &byte, 0), ==, 0);
    g_assert_cmpint(co_handle_flush(handle), ==, 0);
    g_assert_cmpuint(*flushes, ==, 1);
    g_assert_cmpint(co_handle_pdiscard(handle, 0, 512), ==, 0);
    g_assert_cmpint(co_handle_flush(handle), ==, 0);
    g_assert_cmpuint(*flushes, ==, 2);
    node_mark_dirty(graph_find(graph, "d", NULL));
    g_assert_cmpint(co_handle_flush(handle), ==, 0);
    g_assert_cmpuint(*flushes, ==, 3);
    /* A write that failed may have written something. */
    memory_disk_fail[MEMORY_DISK_WRITE] = 1;
    g_assert_cmpint(co_handle_pwrite(handle, 0, 1, &byte, 0), ==, -EIO);
    g_assert_cmpint(co_handle_flush(handle), ==, 0);
    g_assert_cmpuint(*flushes, ==, 4);
    co_handle_free(handle);
}

static void test_elision(void)
{
    run_graph_test(co_test_elision);
}

/* S3 */
static void CO_FN co_test_sticky(struct graph *graph)
{
    struct node *raw = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r',"
                                             " 'file': {'driver': 'null-co', 'node-name': 'd'}}");
    struct handle *handle = co_test_handle(raw, PERM_CONSISTENT_READ | PERM_WRITE);
    struct memory_disk *disk = memory_disk_of(graph, "d");

    g_assert_cmpint(co_handle_pwrite(handle, 0, 1, &byte, 0), ==, 0);
    memory_disk_fail[MEMORY_DISK_FLUSH] = 1;
    g_assert_cmpint(co_handle_flush(handle), ==, -EIO);
    /* The disk would succeed now, but it has forgotten what it lost. */
    g_assert_cmpint(co_handle_flush(handle), ==, -EIO);
    g_assert_cmpint(co_handle_pwrite(handle, 0, 1, &byte, 0), ==, 0);
    g_assert_cmpint(co_handle_flush(handle), ==, -EIO);
    g_assert_cmpint(co_handle_pwrite(handle, 0, 1, &byte, IO_FUA), ==, -EIO);
    g_assert_cmpuint(disk->calls[MEMORY_DISK_FLUSH], ==, 1);
    co_handle_free(handle);
    g_assert_true(co_graph_delete(graph, "r", NULL));
}

static void test_sticky(void)
{
    run_graph_test(co_test_sticky);
}

/* The last flush of a node that goes. */
static void CO_FN co_test_close(struct graph *graph)
{
    struct node *raw;
    struct memory_disk *disk;
    struct handle *handle;

    co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'd'}");
    raw = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r', 'file': 'd'}");
    disk = memory_disk_of(graph, "d");
    handle = co_test_handle(raw, PERM_WRITE);
    g_assert_cmpint(co_handle_pwrite(handle, 0, 1, &byte, 0), ==, 0);
    co_handle_free(handle);
    g_assert_cmpuint(disk->calls[MEMORY_DISK_FLUSH], ==, 0);
    g_assert_true(co_graph_delete(graph, "r", NULL));
    g_assert_cmpuint(disk->calls[MEMORY_DISK_FLUSH], ==, 1);
}

static void test_close(void)
{
    run_graph_test(co_test_close);
}

static void CO_FN co_test_no_flush(struct graph *graph)
{
    struct node *node = co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'd', 'cache': {'no-flush': true}}");
    struct handle *handle = co_test_handle(node, PERM_WRITE);

    g_assert_cmpint(co_handle_pwrite(handle, 0, 1, &byte, IO_FUA), ==, 0);
    g_assert_cmpint(co_handle_flush(handle), ==, 0);
    g_assert_cmpuint(memory_disk_of(graph, "d")->calls[MEMORY_DISK_FLUSH], ==, 0);
    co_handle_free(handle);
}

static void test_no_flush(void)
{
    run_graph_test(co_test_no_flush);
}

/* --- many at once: each flush covers what was written before it was asked for, with few flushes in all --- */

enum { WRITERS = 16, ROUNDS = 20 };

struct shared {
    struct handle *handle;
    struct memory_disk *disk;
    struct co_group group;
};

static void co_write_and_flush(void *opaque)
{
    struct shared *shared = opaque;

    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t before;

        g_assert_cmpint(co_handle_pwrite(shared->handle, i * 512, 1, &byte, 0), ==, 0);
        before = shared->disk->calls[MEMORY_DISK_FLUSH];
        g_assert_cmpint(co_handle_flush(shared->handle), ==, 0);
        /* One has begun since. */
        g_assert_cmpuint(shared->disk->calls[MEMORY_DISK_FLUSH], >, before);
    }
    co_group_done(&shared->group);
}

static void CO_FN co_test_shared(struct graph *graph)
{
    struct shared shared = {0};

    memory_disk_options.yields = true;
    shared.handle = co_test_handle(co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'd'}"), PERM_WRITE);
    shared.disk = memory_disk_of(graph, "d");
    co_group_add(&shared.group, WRITERS);
    for (unsigned i = 0; i < WRITERS; i++)
        co_spawn(loop_current(), co_write_and_flush, &shared);
    co_group_wait(&shared.group);
    g_assert_cmpuint(shared.disk->calls[MEMORY_DISK_FLUSH], <, WRITERS * ROUNDS / 2);
    co_handle_free(shared.handle);
}

static void test_shared(void)
{
    for (uint64_t seed = 1; seed <= 10; seed++)
        run_graph_test_simulated(co_test_shared, seed);
}

/* The hint reaches what a flush would reach, and is none. */
static void CO_FN co_test_soon(struct graph *graph)
{
    struct node *backing = co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'b'}");
    struct node *top = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r',"
                                             " 'file': {'driver': 'qed', 'node-name': 'q', 'backing': 'b',"
                                             " 'file': {'driver': 'null-co', 'node-name': 'd'}}}");
    struct node *quiet = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r2', 'cache': {'no-flush': true},"
                                               " 'file': {'driver': 'null-co', 'node-name': 'd2'}}");
    struct handle *handle = co_test_handle(top, PERM_CONSISTENT_READ | PERM_WRITE);

    g_assert_true(edge_child(node_backing(edge_child(node_primary(top)))) == backing);
    g_assert_cmpint(co_handle_pwrite(handle, 0, 1, &byte, 0), ==, 0);
    co_edge_flush_soon(node_primary(top));
    g_assert_cmpuint(memory_disk_of(graph, "d")->calls[MEMORY_DISK_FLUSH_SOON], ==, 1);
    g_assert_cmpuint(memory_disk_of(graph, "b")->calls[MEMORY_DISK_FLUSH_SOON], ==, 0);
    g_assert_cmpuint(memory_disk_of(graph, "d")->calls[MEMORY_DISK_FLUSH], ==, 0);
    g_assert_cmpint(co_handle_flush(handle), ==, 0);
    g_assert_cmpuint(memory_disk_of(graph, "d")->calls[MEMORY_DISK_FLUSH], ==, 1);
    co_edge_flush_soon(node_primary(quiet));
    g_assert_cmpuint(memory_disk_of(graph, "d2")->calls[MEMORY_DISK_FLUSH_SOON], ==, 0);
    co_handle_free(handle);
}

static void test_soon(void)
{
    run_graph_test(co_test_soon);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/flush/elision", test_elision);
    g_test_add_func("/flush/sticky", test_sticky);
    g_test_add_func("/flush/close", test_close);
    g_test_add_func("/flush/no-flush", test_no_flush);
    g_test_add_func("/flush/shared", test_shared);
    g_test_add_func("/flush/soon", test_soon);
    return g_test_run();
}
