/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "export/virtio/blk.h"

#include <string.h>

#include "base/bytes.h"
#include "block/memory-disk-test.h"
#include "export/virtio/queue.h"

enum { SECTOR = VIRTIO_BLK_SECTOR_BYTES };

/* A request in plain memory: header, data, status. */
struct plain_request {
    uint8_t header[16];
    uint8_t data[SECTOR];
    uint8_t status;
    struct virtq_buffer buffer;
};

static uint8_t CO_FN co_do(struct virtio_blk *blk, uint32_t type, size_t out)
{
    struct plain_request request = {.status = 0xff};
    uint32_t written;

    store_le32(request.header, type);
    request.buffer.segments[0] = (struct iovec){request.header, sizeof(request.header)};
    request.buffer.segments[1] = (struct iovec){request.data, out};
    request.buffer.readable_count = out ? 2 : 1;
    request.buffer.segments[request.buffer.readable_count] = (struct iovec){&request.status, 1};
    request.buffer.writable_count = 1;
    request.buffer.readable_bytes = sizeof(request.header) + out;
    request.buffer.writable_bytes = 1;
    request.buffer.last_writable = &request.status;
    g_assert_true(co_virtio_blk_do(blk, &request.buffer, &written));
    g_assert_cmpuint(written, ==, 1);
    return request.status;
}

struct served {
    struct virtio_blk blk;
    struct memory_disk *disk;
    struct handle *handle;
};

static void CO_FN co_serve(struct served *served, struct graph *graph)
{
    struct virtio_blk_options options = {.serial = "serial", .block_size = SECTOR, .queues = 1, .writable = true};
    struct node *node;

    memory_disk_options.write_flags = IO_FUA;
    node = co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'disk', 'size': 1048576}");
    served->disk = memory_disk_of(graph, "disk");
    served->handle = options.handle = co_test_handle(node, PERM_CONSISTENT_READ | PERM_WRITE);
    g_assert_true(virtio_blk_init(&served->blk, &options, NULL));
}

/* Who cannot flush, or has turned the cache off, gets each write to the disk before its answer. */
static void test_write_cache(struct graph *graph)
{
    static const struct {
        uint64_t features;
        int choice; /* of the configuration; -1: none */
        bool through;
    } cases[] = {
        {0, -1, true},
        {VIRTIO_FEATURE(VIRTIO_BLK_F_CONFIG_WCE), -1, true},
        {VIRTIO_FEATURE(VIRTIO_BLK_F_CONFIG_WCE), 1, true},
        {VIRTIO_FEATURE(VIRTIO_BLK_F_FLUSH), -1, false},
        {VIRTIO_FEATURE(VIRTIO_BLK_F_FLUSH) | VIRTIO_FEATURE(VIRTIO_BLK_F_CONFIG_WCE), -1, false},
        {VIRTIO_FEATURE(VIRTIO_BLK_F_FLUSH) | VIRTIO_FEATURE(VIRTIO_BLK_F_CONFIG_WCE), 0, true},
        {VIRTIO_FEATURE(VIRTIO_BLK_F_FLUSH) | VIRTIO_FEATURE(VIRTIO_BLK_F_CONFIG_WCE), 1, false},
    };
    struct served served;

    co_serve(&served, graph);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        uint8_t choice = (uint8_t)cases[i].choice;
        uint8_t config[VIRTIO_BLK_CONFIG_BYTES];

        virtio_blk_reset(&served.blk);
        virtio_blk_accept(&served.blk, cases[i].features);
        if (cases[i].choice >= 0)
            g_assert_true(virtio_blk_set_config(&served.blk, VIRTIO_BLK_CONFIG_WRITEBACK, &choice, 1));
        virtio_blk_config(&served.blk, config);
        if (cases[i].features & VIRTIO_FEATURE(VIRTIO_BLK_F_CONFIG_WCE))
            g_assert_cmpint(config[VIRTIO_BLK_CONFIG_WRITEBACK], ==, !cases[i].through);
        g_assert_cmpuint(co_do(&served.blk, 1, SECTOR), ==, 0);
        g_assert_cmpint(!!(served.disk->last_write_flags & IO_FUA), ==, cases[i].through);
    }
    co_handle_free(served.handle);
}

static void test_errors(struct graph *graph)
{
    struct served served;

    co_serve(&served, graph);
    virtio_blk_accept(&served.blk, VIRTIO_FEATURE(VIRTIO_BLK_F_FLUSH));
    memory_disk_fail[MEMORY_DISK_WRITE] = 1;
    g_assert_cmpuint(co_do(&served.blk, 1, SECTOR), ==, 1);
    g_assert_cmpuint(co_do(&served.blk, 1, SECTOR), ==, 0);
    memory_disk_fail[MEMORY_DISK_FLUSH] = 1;
    g_assert_cmpuint(co_do(&served.blk, 4, 0), ==, 1);
    co_handle_free(served.handle);
}

static void run_test(gconstpointer test)
{
    run_graph_test(*(graph_test *const *)test);
}

int main(int argc, char **argv)
{
    static graph_test *const write_cache = test_write_cache;
    static graph_test *const errors = test_errors;

    g_test_init(&argc, &argv, NULL);
    g_test_add_data_func("/virtio-blk/write-cache", &write_cache, run_test);
    g_test_add_data_func("/virtio-blk/errors", &errors, run_test);
    return g_test_run();
}
