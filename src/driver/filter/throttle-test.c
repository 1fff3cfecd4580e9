/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The throttle filter over null disks, in simulated time. */
#include "driver/filter/throttle.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "base/units.h"
#include "block/describe.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/node.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "object/object.h"
#include "schema/json.h"

#define SECOND NS_PER_S

struct scene {
    struct object_registry *objects;
    struct graph *graph;
    struct handle *handle;
    struct co_group group;
    int64_t duration_ns; /* of what was measured */
};

static char *CO_FN co_add_node(struct graph *graph, const char *text)
{
    AUTO(error) error = NULL;
    AUTO(json) json = json_parse(text, strlen(text), &error);
    AUTO(blockdev_options) options = blockdev_options_parse(json, &error);

    g_assert_nonnull(options);
    return co_graph_add(graph, options, &error) ? NULL : g_strdup(error_message(error));
}

static void CO_FN co_add_group(struct object_registry *objects, const char *id, const char *limits)
{
    g_autofree char *text = g_strdup_printf("{'qom-type': 'throttle-group', 'id': '%s', 'limits': {%s}}", id, limits);
    AUTO(json) json = json_parse(text, strlen(text), NULL);
    AUTO(object_options) options = object_options_parse(json, NULL);
    bool ok = co_object_add(objects, options, NULL);

    g_assert_true(ok);
}

static struct handle *CO_FN co_handle(struct graph *graph, const char *name)
{
    struct handle_options options = {.name = "a test", .perm = PERM_CONSISTENT_READ | PERM_WRITE, .shared = PERM_ALL};

    return co_handle_new(graph_find(graph, name, NULL), &options, NULL);
}

static void CO_FN co_begin(struct scene *scene, const char *limits)
{
    *scene = (struct scene){.objects = object_registry_new()};
    scene->graph = graph_new(scene->objects, NULL);
    co_add_group(scene->objects, "g", limits);
    g_assert_null(co_add_node(scene->graph, "{'driver': 'throttle', 'node-name': 't', 'throttle-group': 'g',"
                                            " 'discard': 'unmap', 'file': {'driver': 'null-co'}}"));
    scene->handle = co_handle(scene->graph, "t");
}

static void CO_FN co_end(struct scene *scene)
{
    co_handle_free(scene->handle);
    co_graph_free(scene->graph);
    co_object_registry_free(scene->objects);
}

static void run(co_entry *test)
{
    struct loop *loop = loop_new(&(struct loop_options){.backend = LOOP_SIM, .sim_seed = 1}, NULL);

    co_run(loop, test, NULL);
    loop_free(loop);
}

static void CO_FN co_request(struct scene *scene, unsigned number)
{
    static char block[4096];

    switch (number % 4) {
    case 0:
        g_assert_cmpint(co_handle_pread(scene->handle, 0, sizeof(block), block, 0), ==, 0);
        break;
    case 1:
        g_assert_cmpint(co_handle_pwrite(scene->handle, 0, sizeof(block), block, 0), ==, 0);
        break;
    case 2:
        g_assert_cmpint(co_handle_pwrite_zeroes(scene->handle, 0, sizeof(block), 0), ==, 0);
        break;
    default:
        g_assert_cmpint(co_handle_pdiscard(scene->handle, 0, sizeof(block)), ==, 0);
        break;
    }
}

/* Requests of each kind count, one as the other: 100 a second. */
static void co_test_rate(void *opaque)
{
    struct scene scene;
    int64_t start_ns;

    co_begin(&scene, "'iops-total': 100");
    start_ns = loop_now_ns();
    for (unsigned i = 0; i < 1000; i++)
        co_request(&scene, i);
    scene.duration_ns = loop_now_ns() - start_ns;
    g_assert_cmpint(scene.duration_ns, >=, 10 * SECOND * 98 / 100);
    g_assert_cmpint(scene.duration_ns, <=, 10 * SECOND * 102 / 100);
    co_end(&scene);
}

static void test_rate(void)
{
    run(co_test_rate);
}

/* Bytes of writes only: reads and flushes go freely. */
static void co_test_directions(void *opaque)
{
    struct scene scene;
    char block[4096] = {0};
    int64_t start_ns;

    co_begin(&scene, "'bps-write': 40960");
    start_ns = loop_now_ns();
    for (unsigned i = 0; i < 100; i++) {
        g_assert_cmpint(co_handle_pread(scene.handle, 0, sizeof(block), block, 0), ==, 0);
        g_assert_cmpint(co_handle_flush(scene.handle), ==, 0);
    }
    g_assert_cmpint(loop_now_ns() - start_ns, <, SECOND / 10);
    for (unsigned i = 0; i < 100; i++)
        g_assert_cmpint(co_handle_pwrite(scene.handle, 0, sizeof(block), block, 0), ==, 0);
    g_assert_cmpint(loop_now_ns() - start_ns, >=, 10 * SECOND * 98 / 100);
    g_assert_cmpint(loop_now_ns() - start_ns, <=, 10 * SECOND * 102 / 100);
    co_end(&scene);
}

static void test_directions(void)
{
    run(co_test_directions);
}

static void co_slow_request(void *opaque)
{
    struct scene *scene = opaque;

    co_request(scene, 1);
    co_group_done(&scene->group);
}

/* A drain does not wait for the limits: a hundred requests at one a minute are through at once. */
static void co_test_drain(void *opaque)
{
    struct scene scene;
    int64_t start_ns;

    co_begin(&scene, "'bps-total': 68");
    co_group_add(&scene.group, 100);
    for (unsigned i = 0; i < 100; i++)
        co_spawn(loop_current(), co_slow_request, &scene);
    for (unsigned i = 0; i < 10; i++)
        co_yield ();
    start_ns = loop_now_ns();
    /* What changes permissions at the disk drains all above it. */
    g_assert_true(co_node_resize(graph_find(scene.graph, "t", NULL), 4096, NULL) == false);
    co_group_wait(&scene.group);
    g_assert_cmpint(loop_now_ns() - start_ns, <, SECOND);
    co_end(&scene);
}

static void test_drain(void)
{
    run(co_test_drain);
}

/* What holds a group, and what is said where there is none. */
static void co_test_group(void *opaque)
{
    struct scene scene;
    g_autofree char *message = NULL;
    g_autofree char *name = NULL;

    co_begin(&scene, "");
    message = co_add_node(scene.graph, "{'driver': 'throttle', 'node-name': 'x', 'throttle-group': 'nobody', "
                                       "'file': {'driver': 'null-co'}}");
    g_assert_cmpstr(message, ==, "Throttle group 'nobody' does not exist");
    g_assert_cmpuint(graph_node_count(scene.graph), ==, 2);
    g_assert_false(co_object_delete(scene.objects, "g", NULL));
    name = node_filename(graph_find(scene.graph, "t", NULL));
    g_assert_cmpstr(name, ==,
                    "json:{\"driver\": \"throttle\", \"throttle-group\": \"g\", \"file\": {\"driver\": "
                    "\"null-co\"}}");
    co_handle_free(TAKE(scene.handle));
    g_assert_true(co_graph_delete(scene.graph, "t", NULL));
    g_assert_true(co_object_delete(scene.objects, "g", NULL));
    co_end(&scene);
}

static void test_group(void)
{
    run(co_test_group);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/throttle-filter/rate", test_rate);
    g_test_add_func("/throttle-filter/directions", test_directions);
    g_test_add_func("/throttle-filter/drain", test_drain);
    g_test_add_func("/throttle-filter/group", test_group);
    return g_test_run();
}
