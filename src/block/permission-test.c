/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/permission.h"

#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "block/describe.h"
#include "block/handle.h"
#include "block/memory-disk-test.h"

enum {
    CR = PERM_CONSISTENT_READ,
    W = PERM_WRITE,
    WU = PERM_WRITE_UNCHANGED,
    RS = PERM_RESIZE,
};

static void test_by_role(void)
{
    static const struct {
        unsigned role;
        bool writable;
        uint32_t perm, shared, want_perm, want_shared;
    } table[] = {
        /* A filter and its child are used alike. */
        {EDGE_FILTERED | EDGE_PRIMARY, true, 0, PERM_ALL, 0, PERM_ALL},
        {EDGE_FILTERED | EDGE_PRIMARY, true, CR | W, CR, CR | W, CR},
        /* A backing image is read where the overlay is, and is never written to through it. */
        {EDGE_COW, true, 0, PERM_ALL, 0, PERM_ALL},
        {EDGE_COW, true, CR | W | RS, CR | WU | W, CR, PERM_ALL},
        {EDGE_COW, true, CR, CR | WU, CR, CR | WU},
        {EDGE_COW, true, CR, 0, CR, CR | WU},
        /* Metadata is read and written whatever the users do, and nobody else may. */
        {EDGE_DATA | EDGE_METADATA | EDGE_PRIMARY, true, 0, PERM_ALL, CR | W | RS, CR | WU},
        {EDGE_DATA | EDGE_METADATA | EDGE_PRIMARY, false, 0, PERM_ALL, CR, CR | WU},
        {EDGE_DATA | EDGE_METADATA | EDGE_PRIMARY, true, CR | W, 0, CR | W | RS, CR | WU},
        /* Data alone. */
        {EDGE_DATA, true, 0, PERM_ALL, 0, CR | W | WU},
        {EDGE_DATA, true, CR | W, PERM_ALL, CR | W | RS, CR | W | WU},
        {EDGE_DATA, true, CR | WU, PERM_ALL, CR | WU | W | RS, CR | W | WU},
        {EDGE_DATA | EDGE_PRIMARY, true, CR | WU, PERM_ALL, CR | WU, CR | W | WU},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
        uint32_t perm, shared;

        permissions_by_role(table[i].role, table[i].writable, table[i].perm, table[i].shared, &perm, &shared);
        g_assert_cmphex(perm, ==, table[i].want_perm);
        g_assert_cmphex(shared, ==, table[i].want_shared);
    }
}

static void CO_FN co_expect_refused(struct node *node, uint32_t perm, uint32_t shared, const char *message)
{
    struct handle_options options = {.name = "block export 'two'", .perm = perm, .shared = shared};
    AUTO(error) err = NULL;

    g_assert_null(co_handle_new(node, &options, &err));
    g_assert_cmpstr(error_message(err), ==, message);
}

static void CO_FN co_test_conflicts(struct graph *graph)
{
    struct node *disk = co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'd'}");
    struct node *raw = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r', 'file': 'd'}");
    struct handle_options options = {.name = "block export 'one'", .perm = CR | W, .shared = CR | WU | W};
    struct handle *handle = co_handle_new(raw, &options, NULL);
    AUTO(error) err = NULL;

    g_assert_nonnull(handle);
    co_expect_refused(disk, CR | W, CR,
                      "Permission conflict on node 'd': permissions 'write' are both required by node 'r' (uses node "
                      "'d' as 'file' child) and unshared by block export 'two' (uses node 'd' as 'root' child).");
    co_expect_refused(raw, RS, PERM_ALL,
                      "Permission conflict on node 'r': permissions 'resize' are both required by block export 'two' "
                      "(uses node 'r' as 'root' child) and unshared by block export 'one' (uses node 'r' as 'root' "
                      "child).");
    g_assert_null(co_test_add(graph, "{'driver': 'qed', 'node-name': 'q', 'file': 'd'}", &err));
    g_assert_cmpstr(error_message(err), ==,
                    "Permission conflict on node 'd': permissions 'write' are both required by node 'r' (uses node 'd' "
                    "as 'file' child) and unshared by node 'q' (uses node 'd' as 'file' child).");
    /* What one keeps for itself it may use itself. */
    g_assert_true(co_handle_set_permissions(handle, CR | W | RS, CR, NULL));
    co_handle_free(handle);
    g_assert_cmphex(node_used_permissions(disk), ==, 0);
    g_assert_cmphex(node_shared_permissions(disk), ==, PERM_ALL);
    g_assert_nonnull(co_test_add_ok(graph, "{'driver': 'qed', 'node-name': 'q', 'file': 'd'}"));
    g_assert_cmphex(node_used_permissions(disk), ==, CR | W | RS);
}

static void test_conflicts(void)
{
    run_graph_test(co_test_conflicts);
}

static void CO_FN co_test_read_only(struct graph *graph)
{
    struct node *ro, *raw;

    ro = co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'ro', 'read-only': true}");
    raw = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r', 'file': 'ro'}");
    co_expect_refused(raw, CR | W, PERM_ALL, "Block node is read-only: node 'ro'");
    co_expect_refused(ro, WU, PERM_ALL, "Block node is read-only: node 'ro'");
    co_handle_free(co_test_handle(raw, CR));
}

static void test_read_only(void)
{
    run_graph_test(co_test_read_only);
}

/* Users come and go over a chain; the disk hears what they use together. */
static void CO_FN co_test_driver_hooks(struct graph *graph)
{
    struct node *raw;
    struct memory_disk *disk;
    struct handle *reader, *writer;

    co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'd'}");
    disk = memory_disk_of(graph, "d");
    raw = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r', 'file': {'driver': 'raw', 'file': 'd'}}");
    reader = co_test_handle(raw, CR);
    g_assert_cmphex(disk->perm, ==, CR);
    writer = co_test_handle(raw, CR | W);
    g_assert_cmphex(disk->perm, ==, CR | W);
    co_handle_free(reader);
    g_assert_cmphex(disk->perm, ==, CR | W);
    g_assert_true(co_handle_set_permissions(writer, CR, CR, NULL));
    g_assert_cmphex(disk->perm, ==, CR);
    g_assert_cmphex(disk->shared, ==, CR);
    co_handle_free(writer);
    g_assert_cmphex(disk->perm, ==, 0);
    g_assert_cmphex(disk->shared, ==, PERM_ALL);
}

static void test_driver_hooks(void)
{
    run_graph_test(co_test_driver_hooks);
}

static char *snapshot(struct graph *graph)
{
    AUTO(x_dbg_block_graph) description = graph_describe_edges(graph);
    AUTO(json) json = x_dbg_block_graph_write(description);

    return json_format(json, true);
}

/* A change that reaches a disk deep below, which refuses: nothing has changed anywhere. */
static void CO_FN co_test_rollback(struct graph *graph)
{
    struct node *top;
    struct handle *handle;
    unsigned failures = 0;
    g_autofree char *before = NULL;

    co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'base'}");
    co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'd'}");
    top = co_test_add_ok(graph, "{'driver': 'qed', 'node-name': 'q', 'file': 'd', 'backing': 'base'}");
    top = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r', 'file': 'q'}");
    handle = co_test_handle(top, 0);
    before = snapshot(graph);
    for (unsigned n = 1;; n++) {
        AUTO(error) err = NULL;
        g_autofree char *after = NULL;

        memory_disk_fail[MEMORY_DISK_PERMISSION] = n;
        if (co_handle_set_permissions(handle, CR | W, CR, &err))
            break;
        failures++;
        g_assert_cmpstr(error_message(err), ==, "the test disk does not allow that");
        after = snapshot(graph);
        g_assert_cmpstr(before, ==, after);
        g_assert_cmpuint(memory_disk_of(graph, "d")->prepared, ==, 0);
        g_assert_cmpuint(memory_disk_of(graph, "base")->prepared, ==, 0);
        g_assert_cmphex(node_used_permissions(graph_find(graph, "base", NULL)), ==, 0);
    }
    memory_disk_fail[MEMORY_DISK_PERMISSION] = 0;
    g_assert_cmpuint(failures, >=, 1);
    g_assert_cmphex(node_used_permissions(graph_find(graph, "base", NULL)), ==, CR);
    co_handle_free(handle);
}

static void test_rollback(void)
{
    run_graph_test(co_test_rollback);
}

/* As the monitor shows it. */
static void CO_FN co_test_debug_graph(struct graph *graph)
{
    struct handle *handle;
    AUTO(x_dbg_block_graph) description = NULL;
    bool seen = false;

    co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r', 'file': {'driver': 'null-co', 'node-name': 'd'}}");
    handle = co_test_handle(graph_find(graph, "r", NULL), CR | W);
    description = graph_describe_edges(graph);
    g_assert_cmpuint(description->nodes->count, ==, 3);
    g_assert_cmpuint(description->edges->count, ==, 2);
    for (size_t i = 0; i < description->edges->count; i++) {
        const struct x_dbg_block_graph_edge *edge = description->edges->items[i];

        g_assert_cmpuint(edge->perm->count, ==, 2);
        g_assert_cmpuint(edge->shared_perm->count, ==, 4);
        seen |= !strcmp(edge->name, "root");
    }
    g_assert_true(seen);
    co_handle_free(handle);
}

static void test_debug_graph(void)
{
    run_graph_test(co_test_debug_graph);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/permission/by-role", test_by_role);
    g_test_add_func("/permission/conflicts", test_conflicts);
    g_test_add_func("/permission/read-only", test_read_only);
    g_test_add_func("/permission/driver-hooks", test_driver_hooks);
    g_test_add_func("/permission/rollback", test_rollback);
    g_test_add_func("/permission/debug-graph", test_debug_graph);
    return g_test_run();
}
