/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One image behind four queues on four loops, all in one process: an export with a list of iothreads, our own client
 * as a node of the same graph, and coroutines on four more loops that use it. Each has blocks that nobody else writes
 * to, neighbours of the others', so that what is shared in the image is fought for. Meant for the thread sanitizer,
 * too.
 */
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "block/driver.h"
#include "block/handle.h"
#include "block/node.h"
#include "driver/format/qcow2.h"
#include "driver/format/qcow2/create.h"
#include "driver/image-test-run.h"
#include "export/export.h"
#include "gen/types.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "object/object.h"
#include "schema/event.h"
#include "schema/json.h"

enum { QUEUES = 4, WORKERS = 16, STEPS = 60, BLOCK = 512, BLOCKS = 4096, BYTES_MAX = 64 * 1024 };

struct stage {
    struct handle *handle;
    struct co_group workers;
    uint8_t model[BLOCKS]; /* what each block is filled with; its writer's */
};

struct worker {
    struct stage *stage;
    GRand *random;
    unsigned index;
    uint8_t next;
    uint8_t data[BYTES_MAX];
};

static void ignore_event(struct event_sink *sink, const char *name, struct json *data)
{
    json_free(data);
}

/* Block `number` of those that are the worker's. */
static unsigned place_of(const struct worker *worker, unsigned number)
{
    return number * WORKERS + worker->index;
}

static void CO_FN co_write(struct worker *worker, unsigned block)
{
    struct handle *handle = worker->stage->handle;
    uint64_t offset = (uint64_t)block * BLOCK;
    int kind = g_rand_int_range(worker->random, 0, 8);
    uint8_t value = kind ? ++worker->next : 0;

    memset(worker->data, value, BLOCK);
    if (kind)
        g_assert_cmpint(co_handle_pwrite(handle, offset, BLOCK, worker->data, kind == 1 ? IO_FUA : 0), ==, 0);
    else
        g_assert_cmpint(co_handle_pwrite_zeroes(handle, offset, BLOCK, IO_MAY_UNMAP), ==, 0);
    worker->stage->model[block] = value;
}

static void CO_FN co_read(struct worker *worker, unsigned block)
{
    g_assert_cmpint(co_handle_pread(worker->stage->handle, (uint64_t)block * BLOCK, BLOCK, worker->data, 0), ==, 0);
    for (unsigned i = 0; i < BLOCK; i++)
        g_assert_cmpuint(worker->data[i], ==, worker->stage->model[block]);
}

static void work_run(void *opaque)
{
    struct worker *worker = opaque;

    for (unsigned i = 0; i < STEPS; i++) {
        unsigned block = place_of(worker, (unsigned)g_rand_int_range(worker->random, 0, BLOCKS / WORKERS));

        switch (g_rand_int_range(worker->random, 0, 8)) {
        case 0:
            g_assert_cmpint(co_handle_flush(worker->stage->handle), ==, 0);
            break;
        case 1:
            /* Others write there meanwhile. */
            g_assert_cmpint(co_handle_pread(worker->stage->handle, 0, BYTES_MAX, worker->data, 0), ==, 0);
            break;
        case 2:
        case 3:
            co_read(worker, block);
            break;
        default:
            co_write(worker, block);
        }
    }
    co_group_done(&worker->stage->workers);
}

static void CO_FN co_run_workers(struct stage *stage)
{
    struct loop_thread *threads[QUEUES];
    struct worker *workers = g_new0(struct worker, WORKERS);

    for (int i = 0; i < QUEUES; i++) {
        threads[i] = loop_thread_new(&(struct loop_options){.name = "client"}, NULL);
        g_assert_nonnull(threads[i]);
    }
    co_group_add(&stage->workers, WORKERS);
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i].stage = stage;
        workers[i].index = i;
        workers[i].random = g_rand_new_with_seed(i + 1);
        co_spawn(loop_thread_loop(threads[i % QUEUES]), work_run, &workers[i]);
    }
    co_group_wait(&stage->workers);
    for (unsigned i = 0; i < WORKERS; i++)
        g_rand_free(workers[i].random);
    for (int i = 0; i < QUEUES; i++)
        co_loop_thread_free(threads[i]);
    g_free(workers);
}

static void CO_FN co_verify(struct stage *stage)
{
    uint8_t block[BLOCK];

    for (unsigned i = 0; i < BLOCKS; i++) {
        g_assert_cmpint(co_handle_pread(stage->handle, (uint64_t)i * BLOCK, BLOCK, block, 0), ==, 0);
        for (unsigned k = 0; k < BLOCK; k++)
            g_assert_cmpuint(block[k], ==, stage->model[i]);
    }
}

static void CO_FN co_make_image(struct image_scene *scene)
{
    g_autofree char *path = image_scene_path(scene, "i");
    g_autofree char *made = g_strdup_printf("{'driver': 'qcow2', 'file': {'driver': 'file', 'filename': '@/i'}, "
                                            "'size': %d, 'cluster-size': 4096}",
                                            BLOCKS * BLOCK);
    g_autofree char *failed = NULL;

    g_assert_true(g_file_set_contents(path, "", 0, NULL));
    failed = co_image_scene_create(scene, qcow2_co_create, made);
    g_assert_null(failed);
    co_image_scene_add(scene, "{'driver': 'qcow2', 'node-name': 'q', 'discard': 'unmap', 'file': {'driver': 'file', "
                              "'filename': '@/i', 'discard': 'unmap'}}");
}

/* `text` with the scene's folder in the place of "@". */
static struct json *json_of(const struct image_scene *scene, const char *text)
{
    g_auto(GStrv) parts = g_strsplit(text, "@", -1);
    g_autofree char *whole = g_strjoinv(scene->folder, parts);
    struct json *json = json_parse(whole, strlen(whole), NULL);

    g_assert_nonnull(json);
    return json;
}

static void CO_FN co_export(struct image_scene *scene, struct export_registry *exports, const char *text)
{
    AUTO(json) json = json_of(scene, text);
    AUTO(block_export_options) options = block_export_options_parse(json, NULL);
    AUTO(error) error = NULL;

    for (unsigned i = 0; i < QUEUES; i++) {
        g_autofree char *thread = g_strdup_printf("{'qom-type': 'iothread', 'id': 't%u'}", i);
        AUTO(json) thread_json = json_parse(thread, strlen(thread), NULL);
        AUTO(object_options) object = object_options_parse(thread_json, NULL);

        g_assert_true(co_object_add(scene->objects, object, NULL));
    }
    g_assert_nonnull(options);
    g_assert_true(co_export_add(exports, options, &error));
}

/* `server`: options of an NBD server, or NULL. */
static void CO_FN co_play(struct image_scene *scene, const char *server, const char *export, const char *client)
{
    struct event_sink sink = {.send = ignore_event};
    struct export_registry *exports = export_registry_new(scene->graph, scene->objects, &sink);
    struct stage *stage = g_new0(struct stage, 1);

    co_make_image(scene);
    if (server) {
        AUTO(json) json = json_of(scene, server);
        AUTO(nbd_server_options) options = nbd_server_options_parse(json, NULL);

        g_assert_true(co_nbd_server_start(exports, options, NULL));
    }
    co_export(scene, exports, export);
    stage->handle = co_image_scene_open(scene, client, PERM_CONSISTENT_READ | PERM_WRITE);
    co_run_workers(stage);
    co_verify(stage);
    /* Other loops now, whose queues are those of the loops that have gone. */
    co_run_workers(stage);
    co_verify(stage);
    co_handle_free(stage->handle);
    co_export_registry_free(exports);
    g_assert_true(co_graph_delete(scene->graph, "q", NULL));
    g_free(stage);
}

static void CO_FN co_vhost_user(struct image_scene *scene)
{
    co_play(scene, NULL,
            "{'type': 'vhost-user-blk', 'id': 'e', 'node-name': 'q', 'writable': true, 'num-queues': 4, "
            "'iothread': ['t0', 't1', 't2', 't3'], 'addr': {'type': 'unix', 'path': '@/s'}}",
            "{'driver': 'virtio-blk-vhost-user', 'node-name': 'front', 'path': '@/s'}");
}

static void CO_FN co_nbd(struct image_scene *scene)
{
    co_play(scene, "{'addr': {'type': 'unix', 'path': '@/s'}}",
            "{'type': 'nbd', 'id': 'e', 'node-name': 'q', 'writable': true, 'iothread': ['t0', 't1', 't2', 't3']}",
            "{'driver': 'nbd', 'node-name': 'front', 'export': 'q', 'server': {'type': 'unix', 'path': '@/s'}}");
}

static void test_vhost_user(void)
{
    image_test_run(co_vhost_user, block_drivers);
}

static void test_nbd(void)
{
    image_test_run(co_nbd, block_drivers);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/export-queues/nbd", test_nbd);
    g_test_add_func("/export-queues/vhost-user", test_vhost_user);
    return g_test_run();
}
