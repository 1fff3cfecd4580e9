/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "export/vduse/device.h"

#include <linux/vduse.h>
#include <string.h>

#include "base/bytes.h"
#include "block/handle.h"
#include "block/memory-disk-test.h"
#include "export/vduse/kernel-test.h"
#include "export/vduse/log.h"
#include "export/virtio/blk.h"
#include "export/virtio/inflight.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/socket.h"

enum {
    FEATURES_OK = 8 | 3,
    DRIVER_OK = 15,
    NEXT = 1,
    WRITE = 2,
    HALF = TEST_MEMORY_BYTES / 2,
    SLOT_BYTES = 1024, /* of the data half: header, status, a sector */
    STATUS_OFFSET = 16,
    SECTOR_OFFSET = 512,
    ROUNDS = 200,
};

struct fixture {
    struct virtio_blk blk;
    struct vduse_log *log;
    struct vduse_device *device;
    struct loop_thread *threads[TEST_QUEUES];
};

static void CO_FN co_begin(struct fixture *fixture, struct graph *graph)
{
    struct virtio_blk_options options = {.serial = "", .block_size = 512, .queues = TEST_QUEUES, .writable = true};
    struct loop *loops[TEST_QUEUES];

    vduse_test_begin();
    vduse_test.has_data = true;
    options.handle =
        co_test_handle(co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'disk', 'size': 1048576}"),
                       PERM_CONSISTENT_READ | PERM_WRITE);
    g_assert_true(virtio_blk_init(&fixture->blk, &options, NULL));
    for (unsigned i = 0; i < TEST_QUEUES; i++) {
        fixture->threads[i] = loop_thread_new(&(struct loop_options){0}, NULL);
        g_assert_nonnull(fixture->threads[i]);
        loops[i] = loop_thread_loop(fixture->threads[i]);
    }
    fixture->log = vduse_log_anonymous(TEST_QUEUES, TEST_RING_SIZE);
    g_assert_nonnull(fixture->log);
    fixture->device =
        vduse_device_new(&fixture->blk, "test", &vduse_test.kernel, fixture->log, loops, G_N_ELEMENTS(loops));
    vduse_test.features =
        vduse_device_offered(&fixture->blk) & ~(VIRTIO_FEATURE(VIRTIO_F_RING_PACKED) |
                                                VIRTIO_FEATURE(VIRTIO_F_IN_ORDER) | VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX));
}

static void CO_FN co_end(struct fixture *fixture)
{
    co_vduse_device_free(fixture->device);
    co_vduse_log_close(fixture->log, false);
    for (unsigned i = 0; i < TEST_QUEUES; i++)
        co_loop_thread_free(fixture->threads[i]);
    co_handle_free(fixture->blk.handle);
    vduse_test_end();
}

static struct vduse_dev_response CO_FN co_message(struct fixture *fixture, struct vduse_dev_request request)
{
    struct vduse_dev_response response;

    request.request_id = 42;
    co_vduse_device_handle(fixture->device, &request, &response);
    g_assert_cmpuint(response.request_id, ==, 42);
    return response;
}

static bool CO_FN co_set_status(struct fixture *fixture, uint8_t status)
{
    struct vduse_dev_request request = {.type = VDUSE_SET_STATUS, .s.status = status};

    return co_message(fixture, request).result == VDUSE_REQ_RESULT_OK;
}

static void set_descriptor(unsigned queue, unsigned index, uint64_t address, uint32_t length, uint16_t flags)
{
    uint8_t *at = vduse_test_descriptors(queue) + index * 16;

    store_le64(at, address);
    store_le32(at + 8, length);
    store_le16(at + 12, flags);
    store_le16(at + 14, (uint16_t)(index + 1));
}

static uint8_t *slot(unsigned queue, unsigned number)
{
    return vduse_test.memory + HALF + (queue * 2 + number) * SLOT_BYTES;
}

/* Two requests find place in a ring: descriptors 0 to 2 and 4 to 6. Sector `sector` is read or written. */
static void put(unsigned queue, unsigned number, bool write, uint64_t sector)
{
    uint64_t address = TEST_DATA_ADDRESS + (uint64_t)(queue * 2 + number) * SLOT_BYTES;
    uint8_t *ring = vduse_test_available(queue);
    uint16_t index = load_le16(ring + 2);

    memset(slot(queue, number), 0, STATUS_OFFSET);
    store_le32(slot(queue, number), write);
    store_le64(slot(queue, number) + 8, sector);
    slot(queue, number)[STATUS_OFFSET] = 0xff;
    set_descriptor(queue, number * 4, address, STATUS_OFFSET, NEXT);
    set_descriptor(queue, number * 4 + 1, address + SECTOR_OFFSET, 512, write ? NEXT : NEXT | WRITE);
    set_descriptor(queue, number * 4 + 2, address + STATUS_OFFSET, 1, WRITE);
    store_le16(ring + 4 + index % TEST_RING_SIZE * 2, (uint16_t)(number * 4));
    __atomic_store_n((uint16_t *)(void *)(ring + 2), (uint16_t)(index + 1), __ATOMIC_RELEASE);
}

static uint16_t used_index(unsigned queue)
{
    return __atomic_load_n((uint16_t *)(void *)(vduse_test_used(queue) + 2), __ATOMIC_ACQUIRE);
}

static void CO_FN co_kick_and_wait(unsigned queue, uint16_t used)
{
    uint64_t one = 1;

    g_assert_cmpint(co_fd_write(vduse_test.queues[queue].kick_fd, &one, sizeof(one)), ==, sizeof(one));
    while (used_index(queue) != used)
        g_assert_cmpint(co_sleep_ns(100000), ==, 0);
}

/* What a test's driver does on one queue. */
struct driver {
    unsigned queue;
    struct co_group *group;
};

static void drive(void *opaque)
{
    const struct driver *driver = opaque;
    unsigned queue = driver->queue;

    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t sector = queue * 1000 + round;

        memset(slot(queue, 0) + SECTOR_OFFSET, (int)(round + queue), 512);
        put(queue, 0, true, sector);
        put(queue, 1, false, sector + 500);
        co_kick_and_wait(queue, (uint16_t)(round * 3 + 2));
        put(queue, 1, false, sector);
        co_kick_and_wait(queue, (uint16_t)(round * 3 + 3));
        g_assert_cmpuint(slot(queue, 0)[STATUS_OFFSET], ==, 0);
        g_assert_cmpuint(slot(queue, 1)[STATUS_OFFSET], ==, 0);
        g_assert_cmpmem(slot(queue, 0) + SECTOR_OFFSET, 512, slot(queue, 1) + SECTOR_OFFSET, 512);
    }
    co_group_done(driver->group);
}

/* Both queues on loops of their own; the region of the data comes to be after the start. */
static void test_queues(struct graph *graph)
{
    struct fixture fixture = {0};
    struct co_group group = {0};
    struct driver drivers[TEST_QUEUES];

    co_begin(&fixture, graph);
    vduse_test.has_data = false;
    vduse_test.queues[0].ready = vduse_test.queues[1].ready = true;
    g_assert_true(co_set_status(&fixture, FEATURES_OK));
    g_assert_true(co_set_status(&fixture, DRIVER_OK));
    g_assert_true(vduse_device_in_use(fixture.device));
    vduse_test.has_data = true;
    co_group_add(&group, TEST_QUEUES);
    for (unsigned i = 0; i < TEST_QUEUES; i++) {
        drivers[i] = (struct driver){.queue = i, .group = &group};
        co_spawn(loop_current(), drive, &drivers[i]);
    }
    co_group_wait(&group);
    for (unsigned i = 0; i < TEST_QUEUES; i++) {
        struct vduse_dev_request request = {.type = VDUSE_GET_VQ_STATE, .vq_state.index = i};

        g_assert_cmpuint(atomic_load(&vduse_test.queues[i].interrupts), >, 0);
        g_assert_cmpuint(co_message(&fixture, request).vq_state.split.avail_index, ==, ROUNDS * 3);
    }
    g_assert_true(co_set_status(&fixture, 0));
    g_assert_false(vduse_device_in_use(fixture.device));
    co_end(&fixture);
}

/* The next device does what the last one had begun, and goes on after it. */
static void test_resume(struct graph *graph)
{
    struct fixture fixture = {0};
    struct inflight_split *table;

    co_begin(&fixture, graph);
    vduse_test.queues[0].ready = true;
    put(0, 0, true, 7);
    put(0, 1, true, 8);
    memset(slot(0, 0) + SECTOR_OFFSET, 1, 512);
    memset(slot(0, 1) + SECTOR_OFFSET, 2, 512);
    table = (struct inflight_split *)(void *)vduse_log_table(fixture.log, 0);
    table->version = INFLIGHT_VERSION;
    table->count = TEST_RING_SIZE;
    table->entries[0].inflight = 1;
    g_assert_true(vduse_kernel_in_use(&vduse_test.kernel, TEST_QUEUES));
    g_assert_true(co_vduse_device_resume(fixture.device, NULL));
    g_assert_cmpuint(vduse_test.config_interrupts, ==, 1);
    g_assert_cmpuint(atomic_load(&vduse_test.queues[0].interrupts), >, 0);
    co_kick_and_wait(0, 2);
    co_vduse_device_free(fixture.device);
    g_assert_cmpuint(memory_disk_of(graph, "disk")->data[7 * 512], ==, 1);
    g_assert_cmpuint(memory_disk_of(graph, "disk")->data[8 * 512], ==, 2);
    /* and the same once more, with nothing in flight: from the ring alone */
    fixture.device =
        vduse_device_new(&fixture.blk, "test", &vduse_test.kernel, fixture.log, (struct loop *[]){loop_current()}, 1);
    g_assert_true(co_vduse_device_resume(fixture.device, NULL));
    put(0, 0, false, 8);
    co_kick_and_wait(0, 3);
    g_assert_cmpuint(slot(0, 0)[SECTOR_OFFSET], ==, 2);
    co_end(&fixture);
}

/* What a predecessor leaves that has given a request back, and has died before it said so. */
static void leave_one_done(struct fixture *fixture, bool packed)
{
    uint8_t *table = vduse_log_table(fixture->log, 0);

    if (packed) {
        struct inflight_packed *one = (void *)table;

        *one = (struct inflight_packed){.version = INFLIGHT_VERSION, .count = TEST_RING_SIZE};
        one->used = (union inflight_used){.index = 3, .old_index = 3, .wrap = 1, .old_wrap = 1};
        store_le16(vduse_test_descriptors(0) + 14, 0x8080); /* used, in the first round */
    } else {
        struct inflight_split *one = (void *)table;

        *one = (struct inflight_split){.version = INFLIGHT_VERSION, .count = TEST_RING_SIZE, .used_index = 1};
        store_le16(vduse_test_available(0) + 2, 1);
        store_le16(vduse_test_used(0) + 2, 1);
    }
}

/* Whatever has been given back, the driver hears of it, on each queue that it uses; nothing is done again. */
static void test_resume_tells(struct graph *graph)
{
    for (unsigned kind = 0; kind < 4; kind++) {
        bool packed = kind & 1;
        struct fixture fixture = {0};

        co_begin(&fixture, graph);
        vduse_test.features |= packed ? VIRTIO_FEATURE(VIRTIO_F_RING_PACKED) : 0;
        vduse_test.features |= kind & 2 ? VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX) : 0;
        vduse_test.queues[0].ready = true;
        leave_one_done(&fixture, packed);
        g_assert_true(co_vduse_device_resume(fixture.device, NULL));
        g_assert_cmpuint(atomic_load(&vduse_test.queues[0].interrupts), ==, 1);
        g_assert_cmpuint(atomic_load(&vduse_test.queues[1].interrupts), ==, 0);
        if (!packed) {
            put(0, 1, false, 0);
            co_kick_and_wait(0, 2);
            g_assert_cmpuint(slot(0, 1)[STATUS_OFFSET], ==, 0);
        }
        co_end(&fixture);
        g_assert_true(co_graph_delete(graph, "disk", NULL));
    }
}

/*
 * A daemon that is killed after it has seen a reset and before the kernel has its answer: the queues are ready still,
 * and full of requests that have been done.
 */
static void test_reset_unanswered(struct graph *graph)
{
    struct fixture fixture = {0};

    co_begin(&fixture, graph);
    vduse_test.queues[0].ready = true;
    g_assert_true(co_set_status(&fixture, FEATURES_OK));
    g_assert_true(co_set_status(&fixture, DRIVER_OK));
    memset(slot(0, 0) + SECTOR_OFFSET, 1, 512);
    put(0, 0, true, 7);
    co_kick_and_wait(0, 1);
    g_assert_true(co_set_status(&fixture, 0));
    co_vduse_device_free(fixture.device);
    /* what the driver does with its memory meanwhile */
    memset(slot(0, 0) + SECTOR_OFFSET, 2, 512);
    fixture.device =
        vduse_device_new(&fixture.blk, "test", &vduse_test.kernel, fixture.log, (struct loop *[]){loop_current()}, 1);
    g_assert_true(co_vduse_device_resume(fixture.device, NULL));
    put(0, 1, false, 7);
    co_kick_and_wait(0, 2);
    g_assert_cmpuint(slot(0, 1)[SECTOR_OFFSET], ==, 1);
    /* the kernel asks again, and then there is nothing that another one could go on with */
    g_assert_true(co_set_status(&fixture, 0));
    g_assert_true(vduse_log_used(fixture.log, 0, false));
    g_assert_true(co_set_status(&fixture, 1));
    g_assert_false(vduse_log_used(fixture.log, 0, false));
    co_end(&fixture);
}

static void test_refused(struct graph *graph)
{
    struct fixture fixture = {0};
    struct vduse_dev_request unknown = {.type = 77};
    struct vduse_dev_request update = {.type = VDUSE_UPDATE_IOTLB, .iova = {.start = 0, .last = UINT64_MAX}};
    struct vduse_dev_request state = {.type = VDUSE_GET_VQ_STATE, .vq_state.index = TEST_QUEUES};

    co_begin(&fixture, graph);
    g_assert_cmpuint(co_message(&fixture, unknown).result, ==, VDUSE_REQ_RESULT_FAILED);
    g_assert_cmpuint(co_message(&fixture, state).result, ==, VDUSE_REQ_RESULT_FAILED);
    vduse_test.features |= UINT64_C(1) << 63;
    g_assert_false(co_set_status(&fixture, FEATURES_OK));
    vduse_test.features &= ~(UINT64_C(1) << 63 | UINT64_C(1) << VIRTIO_F_ACCESS_PLATFORM);
    g_assert_false(co_set_status(&fixture, FEATURES_OK));
    vduse_test.features |= UINT64_C(1) << VIRTIO_F_ACCESS_PLATFORM;
    vduse_test.queues[1].ready = true;
    vduse_test.has_rings = false;
    g_assert_true(co_set_status(&fixture, FEATURES_OK));
    g_assert_false(co_set_status(&fixture, DRIVER_OK));
    g_assert_false(vduse_device_in_use(fixture.device));
    vduse_test.has_rings = true;
    g_assert_true(co_set_status(&fixture, DRIVER_OK));
    g_assert_cmpint(vduse_test.queues[1].kick_fd, >=, 0);
    g_assert_cmpuint(co_message(&fixture, update).result, ==, VDUSE_REQ_RESULT_OK);
    g_assert_cmpint(vduse_test.queues[1].kick_fd, >=, 0);
    /* the memory of the ring goes, and the queue with it */
    vduse_test.has_rings = false;
    g_assert_cmpuint(co_message(&fixture, update).result, ==, VDUSE_REQ_RESULT_OK);
    g_assert_cmpint(vduse_test.queues[1].kick_fd, ==, -1);
    co_end(&fixture);
}

static void run_test(gconstpointer test)
{
    run_graph_test(*(graph_test *const *)test);
}

int main(int argc, char **argv)
{
    static graph_test *const queues = test_queues;
    static graph_test *const resume = test_resume;
    static graph_test *const resume_tells = test_resume_tells;
    static graph_test *const reset_unanswered = test_reset_unanswered;
    static graph_test *const refused = test_refused;

    g_test_init(&argc, &argv, NULL);
    g_test_add_data_func("/vduse/queues", &queues, run_test);
    g_test_add_data_func("/vduse/resume", &resume, run_test);
    g_test_add_data_func("/vduse/resume-tells", &resume_tells, run_test);
    g_test_add_data_func("/vduse/reset-unanswered", &reset_unanswered, run_test);
    g_test_add_data_func("/vduse/refused", &refused, run_test);
    return g_test_run();
}
