/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes of the graph at random, in the simulated machine: nodes, handles, permissions and lengths come and go while
 * requests are made, and disks refuse at random. After each step all that must hold of the graph is looked at.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "block/graph-internal.h"
#include "block/memory-disk-test.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

enum { NAMES = 10, HANDLES = 6, STEPS = 150, SEEDS = 25 };

struct scene {
    struct graph *graph;
    GRand *random;
    struct handle *handles[HANDLES];
    bool busy[HANDLES]; /* its load has not ended */
    struct co_group load;
    bool stop;
    unsigned changed, refused;
};

/* --- what must hold --- */

static void check_edges(const struct node *node)
{
    unsigned height = 0;

    for (unsigned i = 0; i < node->children->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->children, i);

        g_assert_true(edge->parent == node);
        g_assert_true(g_ptr_array_find(edge->child->parents, edge, NULL));
        height = MAX(height, edge->child->height);
    }
    g_assert_cmpuint(node->height, ==, height + 1);
    g_assert_cmpuint(node->height, <=, GRAPH_DEPTH_MAX);
}

static void check_permissions(const struct node *node)
{
    uint32_t perm = 0, shared = PERM_ALL;

    for (unsigned i = 0; i < node->parents->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->parents, i);

        for (unsigned j = 0; j < node->parents->len; j++) {
            const struct edge *other = g_ptr_array_index(node->parents, j);

            g_assert_true(i == j || !(edge->perm & ~other->shared));
        }
        perm |= edge->perm;
        shared &= edge->shared;
        if (edge->handle)
            g_assert_cmphex(edge->perm, ==, edge->handle->perm);
    }
    g_assert_cmphex(node->perm, ==, perm);
    g_assert_cmphex(node->shared, ==, shared);
    g_assert_false(node->read_only && perm & (PERM_WRITE | PERM_WRITE_UNCHANGED));
    if (!strcmp(node->driver->name, "null-co")) {
        const struct memory_disk *disk = node_state(node);

        /* A disk that refused to let go keeps what it had, so it knows of no less than what is used. */
        g_assert_cmpuint(disk->prepared, ==, 0);
        g_assert_cmphex(perm & ~disk->perm, ==, 0);
        g_assert_false(disk->resting);
    }
}

static void check_graph(const struct graph *graph)
{
    g_assert_cmpuint(g_hash_table_size(graph->names), ==, graph->nodes->len);
    for (unsigned i = 0; i < graph->nodes->len; i++) {
        const struct node *node = g_ptr_array_index(graph->nodes, i);

        g_assert_true(g_hash_table_lookup(graph->names, node->name) == node);
        g_assert_true(node->monitor_owned || node->parents->len);
        g_assert_cmpuint(node->drains, ==, 0);
        check_edges(node);
        check_permissions(node);
    }
    for (unsigned i = 0; i < graph->handles->len; i++)
        g_assert_cmpuint(((const struct handle *)g_ptr_array_index(graph->handles, i))->closings, ==, 0);
}

/* --- load --- */

struct member {
    struct scene *scene;
    unsigned index;
};

/* Requests through one handle until it is to be freed. They may be refused, but not fail. */
static void co_load(void *opaque)
{
    struct member *member = opaque;
    struct scene *scene = member->scene;
    struct handle *handle = scene->handles[member->index];
    char data[600] = {1};

    while (!scene->stop && scene->busy[member->index]) {
        int ret = co_handle_pwrite(handle, 100, sizeof(data), data, 0);

        g_assert_true(!ret || ret == -EPERM || ret == -ENOSPC);
        ret = co_handle_pread(handle, 300, sizeof(data), data, 0);
        g_assert_true(!ret || ret == -EIO);
        ret = co_handle_flush(handle);
        g_assert_cmpint(ret, ==, 0);
        co_yield ();
    }
    g_free(member);
    co_group_done(&scene->load);
}

/* --- steps --- */

static unsigned below(struct scene *scene, unsigned limit)
{
    return (unsigned)g_rand_int_range(scene->random, 0, (gint32)limit);
}

static char *some_name(struct scene *scene)
{
    return g_strdup_printf("n%u", below(scene, NAMES));
}

static bool CO_FN co_step_add(struct scene *scene)
{
    g_autofree char *name = some_name(scene);
    g_autofree char *file = some_name(scene);
    g_autofree char *backing = some_name(scene);
    const char *read_only = below(scene, 4) ? "false" : "true";
    g_autofree char *json = NULL;

    switch (below(scene, 5)) {
    case 0:
        json = g_strdup_printf("{'driver': 'null-co', 'node-name': '%s', 'read-only': %s}", name, read_only);
        break;
    case 1:
        json = g_strdup_printf("{'driver': 'raw', 'node-name': '%s', 'read-only': %s, 'file': {'driver': 'raw', 'file':"
                               " {'driver': 'null-co'}}}",
                               name, read_only);
        break;
    case 2:
        json = g_strdup_printf("{'driver': 'qed', 'node-name': '%s', 'file': {'driver': 'null-co'}, 'backing': '%s'}",
                               name, backing);
        break;
    case 3:
        json = g_strdup_printf("{'driver': 'raw', 'node-name': '%s', 'file': '%s', 'offset': 512}", name, file);
        break;
    default:
        json = g_strdup_printf("{'driver': 'raw', 'node-name': '%s', 'read-only': %s, 'file': '%s'}", name, read_only,
                               file);
        break;
    }
    return co_test_add(scene->graph, json, NULL);
}

static bool CO_FN co_step_open_handle(struct scene *scene, unsigned index)
{
    g_autofree char *name = some_name(scene);
    struct node *node = graph_find(scene->graph, name, NULL);
    struct handle_options options = {
        .name = "a test", .perm = below(scene, PERM_ALL + 1), .shared = PERM_ALL & ~(1u << below(scene, 6))};
    struct member *member;

    if (!node)
        return false;
    scene->handles[index] = co_handle_new(node, &options, NULL);
    if (!scene->handles[index])
        return false;
    member = g_new0(struct member, 1);
    *member = (struct member){.scene = scene, .index = index};
    scene->busy[index] = true;
    co_group_add(&scene->load, 1);
    co_spawn(loop_current(), co_load, member);
    return true;
}

static void CO_FN co_free_handle(struct scene *scene, unsigned index)
{
    /* The load of the others goes on; this one's has to end first, as an export's requests do. */
    struct handle *handle = scene->handles[index];

    scene->busy[index] = false;
    for (unsigned i = 0; i < 200; i++)
        co_yield ();
    co_handle_free(handle);
    scene->handles[index] = NULL;
}

static bool CO_FN co_step_handle(struct scene *scene)
{
    unsigned index = below(scene, HANDLES);

    if (!scene->handles[index])
        return co_step_open_handle(scene, index);
    if (below(scene, 2))
        return co_handle_set_permissions(scene->handles[index], below(scene, PERM_ALL + 1),
                                         PERM_ALL & ~(1u << below(scene, 6)), NULL);
    co_free_handle(scene, index);
    return true;
}

static bool CO_FN co_step(struct scene *scene)
{
    g_autofree char *name = some_name(scene);
    struct node *node = graph_find(scene->graph, name, NULL);

    switch (below(scene, 6)) {
    case 0:
    case 1:
        return co_step_add(scene);
    case 2:
        return node && co_graph_delete(scene->graph, name, NULL);
    case 3:
        return node && co_node_resize(node, (1 + below(scene, 20)) * 512, NULL);
    default:
        return co_step_handle(scene);
    }
}

static void CO_FN co_test_random(struct graph *graph)
{
    struct scene scene = {.graph = graph, .random = g_rand_new_with_seed((guint32)graph_test_seed)};

    memory_disk_options.yields = true;
    memory_disk_options.request_alignment = graph_test_seed % 2 ? 512 : 1;
    for (unsigned i = 0; i < STEPS; i++) {
        memory_disk_fail[MEMORY_DISK_PERMISSION] = below(&scene, 4) ? 0 : 1 + below(&scene, 3);
        memory_disk_fail[MEMORY_DISK_OPEN] = below(&scene, 8) ? 0 : 1;
        if (co_step(&scene))
            scene.changed++;
        else
            scene.refused++;
        memory_disk_fail[MEMORY_DISK_PERMISSION] = 0;
        check_graph(graph);
    }
    scene.stop = true;
    co_group_wait(&scene.load);
    for (unsigned i = 0; i < HANDLES; i++)
        co_handle_free(scene.handles[i]);
    check_graph(graph);
    g_assert_cmpuint(scene.changed, >, STEPS / 10);
    g_assert_cmpuint(scene.refused, >, STEPS / 10);
    g_rand_free(scene.random);
}

static void test_random(void)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        g_test_message("seed %u", (unsigned)seed);
        run_graph_test_simulated(co_test_random, seed);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/graph-random/steps", test_random);
    return g_test_run();
}
