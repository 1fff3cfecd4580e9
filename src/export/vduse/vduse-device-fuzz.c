/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A device whose driver is mad: what it says by messages, which memory there is, and what is in its rings, all comes
 * from the input. The first bytes are features; then come steps of one byte and what they need.
 */
#include <glib.h>
#include <linux/vduse.h>
#include <string.h>

#include "block/graph.h"
#include "block/handle.h"
#include "block/node.h"
#include "export/vduse/device.h"
#include "export/vduse/kernel-test.h"
#include "export/vduse/log.h"
#include "export/virtio/blk.h"
#include "gen/types.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "object/object.h"
#include "schema/event.h"
#include "schema/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum step { STEP_MESSAGE, STEP_MEMORY, STEP_REGIONS, STEP_KICK, STEP_RESUME, STEP__COUNT };

enum { TURNS = 20, STEPS_MAX = 64 };

static void ignore_event(struct event_sink *sink, const char *name, struct json *data)
{
    json_free(data);
}

static struct fixture {
    struct loop *loop;
    struct event_sink events;
    struct virtio_blk blk;
} fixture = {.events = {.send = ignore_event}};

static void fixture_start(void *opaque)
{
    static const char node[] = "{'driver': 'null-co', 'node-name': 'n', 'size': 65536, 'read-zeroes': true}";
    struct handle_options handle = {.name = "fuzz", .perm = PERM_CONSISTENT_READ | PERM_WRITE, .shared = PERM_ALL};
    struct virtio_blk_options blk = {.serial = "", .block_size = 512, .queues = TEST_QUEUES, .writable = true};
    AUTO(json) json = json_parse(node, strlen(node), NULL);
    AUTO(blockdev_options) options = blockdev_options_parse(json, NULL);
    struct graph *graph = graph_new(object_registry_new(), &fixture.events);

    g_assert_true(co_graph_add(graph, options, NULL));
    blk.handle = co_handle_new(graph_find(graph, "n", NULL), &handle, NULL);
    g_assert_nonnull(blk.handle);
    g_assert_true(virtio_blk_init(&fixture.blk, &blk, NULL));
}

struct input {
    const uint8_t *data;
    size_t size;
};

/* What there is of `size` bytes. */
static size_t take(struct input *input, void *to, size_t size)
{
    size_t part = MIN(size, input->size);

    memcpy(to, input->data, part);
    input->data += part;
    input->size -= part;
    return part;
}

static uint8_t take_byte(struct input *input)
{
    uint8_t byte = 0;

    (void)take(input, &byte, 1);
    return byte;
}

static void CO_FN co_step(struct vduse_device *device, struct input *input)
{
    struct vduse_dev_request request = {0};
    struct vduse_dev_response response;
    uint64_t one = 1;
    uint8_t choice;
    size_t part;

    switch ((enum step)(take_byte(input) % STEP__COUNT)) {
    case STEP_MESSAGE:
        request.type = take_byte(input) % 4;
        (void)take(input, &request.padding, take_byte(input) % 16);
        co_vduse_device_handle(device, &request, &response);
        break;
    case STEP_MEMORY:
        part = (size_t)take_byte(input) * 64;
        (void)take(input, vduse_test.memory + part, 32);
        break;
    case STEP_REGIONS:
        choice = take_byte(input);
        vduse_test.has_rings = choice & 1;
        vduse_test.has_data = choice & 2;
        vduse_test.queues[0].ready = choice & 4;
        vduse_test.queues[1].ready = choice & 8;
        vduse_test.queues[0].avail_index = choice >> 4;
        break;
    case STEP_KICK:
        choice = take_byte(input) % TEST_QUEUES;
        if (vduse_test.queues[choice].kick_fd >= 0)
            (void)!co_fd_write(vduse_test.queues[choice].kick_fd, &one, sizeof(one));
        break;
    case STEP_RESUME:
        if (!vduse_device_in_use(device))
            (void)!co_vduse_device_resume(device, NULL);
        break;
    default:
        break;
    }
    for (unsigned i = 0; i < TURNS; i++)
        co_yield ();
}

static void run_input(void *opaque)
{
    struct input *input = opaque;
    struct loop *loops[] = {loop_current()};
    struct vduse_log *log = vduse_log_anonymous(TEST_QUEUES, TEST_RING_SIZE);
    struct vduse_device *device;
    uint8_t table = take_byte(input);

    vduse_test_begin();
    device = vduse_device_new(&fixture.blk, "fuzz", &vduse_test.kernel, log, loops, G_N_ELEMENTS(loops));
    vduse_test.features = vduse_device_offered(&fixture.blk);
    if (!(table & 1))
        vduse_test.features &= ~VIRTIO_FEATURE(VIRTIO_F_RING_PACKED);
    if (!(table & 2))
        vduse_test.features &= ~VIRTIO_FEATURE(VIRTIO_F_IN_ORDER);
    if (table & 4)
        (void)take(input, &vduse_test.features, sizeof(vduse_test.features));
    if (table & 8)
        (void)take(input, vduse_log_table(log, 0), 64);
    vduse_test.queues[0].ready = true;
    vduse_test.has_data = true;
    for (unsigned i = 0; i < STEPS_MAX && input->size; i++)
        co_step(device, input);
    co_vduse_device_free(device);
    co_vduse_log_close(log, false);
    vduse_test_end();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {.data = data, .size = size};

    if (!fixture.loop) {
        fixture.loop = loop_new(&(struct loop_options){0}, NULL);
        g_assert_nonnull(fixture.loop);
        co_run(fixture.loop, fixture_start, NULL);
    }
    co_run(fixture.loop, run_input, &input);
    return 0;
}
