/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changes of a graph in use: who moves and who stays, and that nothing is left of a change that fails. */
#include "block/graph-change.h"

#include <glib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "block/handle.h"
#include "block/memory-disk-test.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

#define DISK(name) "{'driver': 'null-co', 'node-name': '" name "', 'size': 65536}"
#define RAW(name, file) "{'driver': 'raw', 'node-name': '" name "', 'file': '" file "'}"

static struct handle *CO_FN co_staying_handle(struct node *node)
{
    struct handle_options options = {.name = "job", .shared = PERM_ALL, .stays = true};
    struct handle *handle = co_handle_new(node, &options, NULL);

    g_assert_nonnull(handle);
    return handle;
}

static bool CO_FN co_replace(struct graph *graph, struct node *from, struct node *to, struct error **err)
{
    struct graph_change *change = co_graph_change_begin(graph);

    return co_graph_change_end(change, co_graph_change_replace(change, from, to, err), err);
}

/* Nodes and handles move, but for one that stays and for what stands below the new node. */
static void CO_FN co_test_replace(struct graph *graph)
{
    struct node *a = co_test_add_ok(graph, DISK("a"));
    struct node *b = co_test_add_ok(graph, DISK("b"));
    struct node *top = co_test_add_ok(graph, RAW("top", "a"));
    struct handle *user = co_test_handle(a, PERM_CONSISTENT_READ | PERM_WRITE);
    struct handle *job = co_staying_handle(a);

    g_assert_cmpint(co_handle_pwrite(user, 0, 4, "old.", 0), ==, 0);
    g_assert_true(co_replace(graph, a, b, NULL));
    g_assert_true(handle_node(user) == b);
    g_assert_true(handle_node(job) == a);
    g_assert_true(edge_child(node_primary(top)) == b);
    g_assert_cmpint(co_handle_pwrite(user, 0, 4, "new.", 0), ==, 0);
    g_assert_cmpmem(memory_disk_of(graph, "a")->data, 4, "old.", 4);
    g_assert_cmpmem(memory_disk_of(graph, "b")->data, 4, "new.", 4);
    /* Permissions have moved along. */
    g_assert_cmpuint(memory_disk_of(graph, "a")->perm & PERM_WRITE, ==, 0);
    g_assert_cmpuint(memory_disk_of(graph, "b")->perm & PERM_WRITE, ==, PERM_WRITE);
    co_handle_free(user);
    co_handle_free(job);
}

/* A filter comes between a node and its parents, and goes. */
static void CO_FN co_test_insert(struct graph *graph)
{
    struct node *a = co_test_add_ok(graph, DISK("a"));
    struct node *filter = co_test_add_ok(graph, RAW("filter", "a"));
    struct handle *user = co_test_handle(a, PERM_CONSISTENT_READ);

    g_assert_true(co_replace(graph, a, filter, NULL));
    g_assert_true(handle_node(user) == filter);
    g_assert_true(edge_child(node_primary(filter)) == a);
    g_assert_true(co_replace(graph, filter, a, NULL));
    g_assert_true(handle_node(user) == a);
    co_handle_free(user);
}

/* A clash of permissions, found at the end, sends everybody back. */
static void CO_FN co_test_clash(struct graph *graph)
{
    struct handle_options keeper = {.name = "keeper", .shared = PERM_ALL & ~PERM_WRITE};
    struct node *a = co_test_add_ok(graph, DISK("a"));
    struct node *b = co_test_add_ok(graph, DISK("b"));
    struct node *top = co_test_add_ok(graph, RAW("top", "a"));
    struct handle *user = co_test_handle(a, PERM_CONSISTENT_READ | PERM_WRITE);
    struct handle *other = co_handle_new(b, &keeper, NULL);
    AUTO(error) err = NULL;

    g_assert_false(co_replace(graph, a, b, &err));
    g_assert_nonnull(strstr(error_message(err), "Permission conflict on node 'b'"));
    g_assert_true(handle_node(user) == a);
    g_assert_true(edge_child(node_primary(top)) == a);
    g_assert_cmpuint(memory_disk_of(graph, "a")->perm & PERM_WRITE, ==, PERM_WRITE);
    g_assert_cmpuint(memory_disk_of(graph, "b")->perm & PERM_WRITE, ==, 0);
    g_assert_cmpint(co_handle_pwrite(user, 0, 4, "same", 0), ==, 0);
    co_handle_free(user);
    co_handle_free(other);
}

static void CO_FN co_test_near(struct graph *graph)
{
    struct node *near_disk, *far_disk;

    memory_disk_options.is_near = true;
    near_disk = co_test_add_ok(graph, DISK("near"));
    memory_disk_options.is_near = false;
    far_disk = co_test_add_ok(graph, DISK("far"));
    g_assert_true(node_is_near(near_disk));
    g_assert_true(node_is_near(co_test_add_ok(graph, RAW("above", "near"))));
    g_assert_false(node_is_near(far_disk));
    g_assert_false(node_is_near(
        co_test_add_ok(graph, "{'driver': 'qed', 'node-name': 'mixed', 'file': 'above', 'backing': 'far'}")));
}

static void CO_FN co_test_cycle(struct graph *graph)
{
    struct node *a = co_test_add_ok(graph, DISK("a"));
    struct node *low = co_test_add_ok(graph, RAW("low", "a"));
    struct node *top = co_test_add_ok(graph, RAW("top", "low"));
    struct graph_change *change = co_graph_change_begin(graph);
    AUTO(error) err = NULL;

    g_assert_true(node_reaches(top, a));
    g_assert_false(node_reaches(a, top));
    g_assert_false(co_graph_change_set_child(change, node_primary(low), top, &err));
    g_assert_false(co_graph_change_end(change, false, NULL));
    g_assert_nonnull(strstr(error_message(err), "cycle"));
    g_assert_true(edge_child(node_primary(low)) == a);
}

/* An edge comes and goes in a change that is undone, and in one that is made; one change inside another. */
static void CO_FN co_test_children(struct graph *graph)
{
    struct node *a = co_test_add_ok(graph, DISK("a"));
    struct node *b = co_test_add_ok(graph, DISK("b"));
    struct node *top = co_test_add_ok(graph, RAW("top", "a"));

    for (unsigned made = 0; made < 2; made++) {
        struct graph_change *outer = co_graph_change_begin(graph);
        struct graph_change *change = co_graph_change_begin(graph);

        g_assert_true(co_graph_change_add_child(change, top, "backing", b, EDGE_COW, NULL));
        g_assert_cmpint(co_graph_change_end(change, made, NULL), ==, made);
        g_assert_true(co_graph_change_end(outer, true, NULL));
        g_assert_cmpint(node_backing(top) != NULL, ==, made);
    }
    for (unsigned made = 0; made < 2; made++) {
        struct graph_change *change = co_graph_change_begin(graph);

        co_graph_change_remove_child(change, node_backing(top));
        g_assert_null(node_backing(top));
        g_assert_cmpint(co_graph_change_end(change, made, NULL), ==, made);
        g_assert_cmpint(node_backing(top) == NULL, ==, made);
    }
    g_assert_true(edge_child(node_primary(top)) == a);
}

/* Nobody needs the old node: it is closed, and what only it needed. */
static void CO_FN co_test_release(struct graph *graph)
{
    struct node *b = co_test_add_ok(graph, DISK("b"));
    struct node *top = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'top', 'file': {'driver': 'raw', "
                                             "'node-name': 'inner', 'file': {'driver': 'null-co', 'size': 65536}}}");
    struct graph_change *change = co_graph_change_begin(graph);
    int open = memory_disks_open;

    g_assert_true(co_graph_change_set_child(change, node_primary(top), b, NULL));
    g_assert_true(co_graph_change_end(change, true, NULL));
    g_assert_null(graph_find(graph, "inner", NULL));
    g_assert_cmpint(memory_disks_open, ==, open - 1);
}

/* Writers that never rest, while the node below them changes all the time. */
struct writers {
    struct handle *handle;
    bool stop;
    unsigned running;
    unsigned done;
};

static void write_run(void *opaque)
{
    struct writers *writers = opaque;

    while (!writers->stop) {
        g_assert_cmpint(co_handle_pwrite(writers->handle, 512, 4, "data", 0), ==, 0);
        writers->done++;
        co_yield ();
    }
    writers->running--;
}

static void CO_FN co_test_under_requests(struct graph *graph)
{
    struct node *nodes[2];
    struct writers writers = {.running = 4};

    memory_disk_options.yields = true;
    nodes[0] = co_test_add_ok(graph, DISK("a"));
    nodes[1] = co_test_add_ok(graph, DISK("b"));
    writers.handle = co_test_handle(nodes[0], PERM_CONSISTENT_READ | PERM_WRITE);
    for (unsigned i = 0; i < 4; i++)
        co_spawn(loop_current(), write_run, &writers);
    for (unsigned i = 0; i < 50; i++) {
        unsigned before = writers.done;

        g_assert_true(co_replace(graph, nodes[i % 2], nodes[1 - i % 2], NULL));
        g_assert_true(handle_node(writers.handle) == nodes[1 - i % 2]);
        while (writers.done < before + 5)
            co_yield ();
    }
    writers.stop = true;
    while (writers.running)
        co_yield ();
    co_handle_free(writers.handle);
}

static void run(const void *data)
{
    run_graph_test((graph_test *)(uintptr_t)data);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        graph_test *test;
    } tests[] = {
        {"/graph-change/replace", co_test_replace}, {"/graph-change/insert", co_test_insert},
        {"/graph-change/clash", co_test_clash},     {"/graph-change/near", co_test_near},
        {"/graph-change/cycle", co_test_cycle},     {"/graph-change/children", co_test_children},
        {"/graph-change/release", co_test_release}, {"/graph-change/requests", co_test_under_requests},
    };

    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++)
        g_test_add_data_func(tests[i].name, (const void *)(uintptr_t)tests[i].test, run);
    return g_test_run();
}
