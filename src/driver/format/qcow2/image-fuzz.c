/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Any file is opened, read, written, given snapshots, resized and checked, on a simulated disk. Opened for reading, it
 * stays as it is. An image that the check has nothing against has nothing against it afterwards either, but for leaks.
 */
#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/image.h"
#include "block/node.h"
#include "driver/format/qcow2.h"
#include "driver/format/qcow2/check.h"
#include "driver/format/qcow2/header.h"
#include "driver/format/qcow2/snapshot.h"
#include "driver/protocol/file.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/sim.h"
#include "object/object.h"
#include "schema/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SIZE_MAX_BYTES = 512 * 1024, DISK_BYTES = 8 << 20, PART = 4096 };

static const struct block_driver *const drivers[] = {&file_driver, &qcow2_driver, NULL};

struct run {
    struct sim_disk *disk;
    struct graph *graph;
    struct node *node;
    struct handle *handle;
    const uint8_t *input;
    size_t size;
};

static bool CO_FN co_open(struct run *run, bool read_only)
{
    uint32_t write = PERM_WRITE | PERM_RESIZE;
    struct handle_options handle = {.name = "fuzz",
                                    .perm = PERM_CONSISTENT_READ | (read_only ? 0 : write),
                                    .shared = PERM_ALL,
                                    .follows_length = true};
    g_autofree char *text =
        g_strdup_printf("{'driver': 'qcow2', 'node-name': 'n', 'read-only': %s, 'discard': 'unmap', 'backing': null, "
                        "'overlap-check': 'all', 'file': {'driver': 'file', 'filename': 'image'}}",
                        read_only ? "true" : "false");
    AUTO(error) err = NULL;
    AUTO(json) json = json_parse(text, strlen(text), NULL);
    AUTO(blockdev_options) options = blockdev_options_parse(json, NULL);

    assert(options);
    if (!co_graph_add(run->graph, options, &err)) {
        assert(err);
        return false;
    }
    run->node = graph_find(run->graph, "n", NULL);
    run->handle = co_handle_new(run->node, &handle, &err);
    assert(run->handle);
    return true;
}

static void CO_FN co_close(struct run *run)
{
    co_handle_free(run->handle);
    assert(co_graph_delete(run->graph, "n", NULL));
}

/* Both ends of the disk, as far as there are some. */
static void CO_FN co_read_some(struct run *run)
{
    uint64_t length = handle_length(run->handle);
    uint64_t bytes = MIN(length, PART * 4);
    g_autofree uint8_t *data = g_malloc(PART * 4);
    struct block_extent extent;
    uint64_t at = 0;

    (void)co_handle_pread(run->handle, 0, bytes, data, 0);
    (void)co_handle_pread(run->handle, length - bytes, bytes, data, 0);
    for (unsigned i = 0; i < 32 && at < length; i++, at += extent.bytes) {
        if (co_handle_block_status(run->handle, at, length - at, &extent) < 0)
            break;
        assert(extent.bytes > 0);
    }
}

static void CO_FN co_change_some(struct run *run)
{
    uint64_t length = handle_length(run->handle);
    uint64_t bytes = MIN(length, PART);
    g_autofree uint8_t *data = g_malloc(PART);

    memset(data, 0x5a, PART);
    (void)co_handle_pwrite(run->handle, 0, bytes, data, 0);
    (void)co_handle_pwrite(run->handle, length - bytes, bytes, data, 0);
    (void)co_handle_pwrite_zeroes(run->handle, length / 2, MIN(length - length / 2, PART), IO_MAY_UNMAP);
    (void)co_handle_flush(run->handle);
    (void)co_handle_pdiscard(run->handle, 0, bytes / 2);
    (void)co_handle_pwrite(run->handle, bytes / 4, bytes / 4, data, 0);
}

static void CO_FN co_snapshots(struct run *run)
{
    AUTO(snapshot_info) info = g_new0(struct snapshot_info, 1);
    AUTO(snapshot_info) deleted = NULL;
    AUTO(snapshot_info_array) list = co_qcow2_snapshot_list(run->node, NULL);
    g_autofree char *first = list->count ? g_strdup(list->items[0]->id) : NULL;

    info->name = g_strdup("new");
    if (co_qcow2_snapshot_create(run->node, info, NULL)) {
        co_change_some(run);
        (void)co_qcow2_snapshot_apply(run->node, info->id, NULL);
    }
    if (first && co_qcow2_snapshot_apply(run->node, first, NULL))
        co_read_some(run);
    if (first)
        deleted = co_qcow2_snapshot_delete(run->node, first, NULL, NULL);
}

/* What writes far behind the end makes a file of holes, in which a check has much to look at, if nothing to find. */
static bool file_is_small(const struct run *run)
{
    return node_length(edge_child(node_child(run->node, "file"))) <= 64 << 20;
}

/* 1: nothing is wrong but leaks; 0: something is; -1: it cannot be said. */
static int CO_FN co_check(struct run *run)
{
    AUTO(image_check) check = g_new0(struct image_check, 1);

    if (!co_qcow2_check_node(run->node, 0, NULL, check, NULL))
        return -1;
    return !check->corruptions && !check->check_errors;
}

static void CO_FN co_one_input(void *opaque)
{
    struct run *run = opaque;
    struct object_registry *objects = object_registry_new();
    size_t size;
    bool sound = false;

    run->graph = graph_new(objects, NULL);
    graph_set_drivers(run->graph, drivers);
    if (co_open(run, true)) {
        co_read_some(run);
        sound = co_check(run) == 1;
        co_close(run);
    }
    g_autofree char *after = sim_disk_get(run->disk, "image", &size);

    assert(size == run->size);
    assert(memcmp(after, run->input, size) == 0);
    if (co_open(run, false)) {
        co_change_some(run);
        assert(!sound || co_check(run) == 1);
        if (sound || file_is_small(run))
            co_snapshots(run);
        assert(!sound || co_check(run) == 1);
        (void)co_handle_truncate(run->handle, handle_length(run->handle) / 2 / 512 * 512, NULL);
        (void)co_handle_truncate(run->handle, 1 << 20, NULL);
        co_change_some(run);
        assert(!sound || co_check(run) == 1);
        co_close(run);
    }
    co_graph_free(run->graph);
    co_object_registry_free(objects);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(sim_disk) disk = sim_disk_new();
    struct run run = {.disk = disk, .input = data, .size = size};
    struct loop *loop;

    if (size < QCOW2_V2_HEADER_BYTES || size > SIZE_MAX_BYTES)
        return 0;
    sim_disk_put(disk, "image", data, size);
    sim_disk_set_capacity(disk, DISK_BYTES);
    loop = loop_new(&(struct loop_options){.backend = LOOP_SIM, .sim_seed = 1}, NULL);
    sim_loop_set_disk(loop, disk);
    co_run(loop, co_one_input, &run);
    loop_free(loop);
    return 0;
}
