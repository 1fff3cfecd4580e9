/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Queues in memory that a guest has filled with anything, and changes while they are worked on. The first bytes choose
 * the kind of ring, the rest is the memory.
 */
#include <assert.h>
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "export/virtio/inflight.h"
#include "export/virtio/memory.h"
#include "export/virtio/queue.h"
#include "loop/shared-memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MEMORY_BYTES = 1 << 16, RING_SIZE = 16, HEADER_BYTES = 4, AREA_BYTES = 512, ROUNDS = 64, OUT_MAX = 4 };

enum choice { PACKED = 1, EVENT_INDEX = 2, INDIRECT = 4, IN_ORDER = 8, TABLE = 16, KEEP = 32 };

static void use(const struct virtq_buffer *buffer)
{
    uint64_t bytes = 0;

    assert(buffer->readable_count + buffer->writable_count <= VIRTQ_SEGMENTS_MAX);
    for (unsigned i = 0; !buffer->bad && i < buffer->readable_count + buffer->writable_count; i++) {
        memset(buffer->segments[i].iov_base, 0x55, MIN(buffer->segments[i].iov_len, 16));
        bytes += buffer->segments[i].iov_len;
    }
    assert(buffer->bad || bytes == buffer->readable_bytes + buffer->writable_bytes);
    if (buffer->last_writable)
        *buffer->last_writable = 0;
}

static void work(struct virtqueue *queue, uint8_t *memory, const uint8_t *data, size_t size)
{
    static struct virtq_buffer out[OUT_MAX];
    unsigned count = 0;

    for (unsigned round = 0; round < ROUNDS && virtqueue_pop(queue, &out[count]) == 1; round++) {
        use(&out[count++]);
        /* The guest changes something. */
        if (size)
            memory[(data[round % size] * 257u) % (4 * AREA_BYTES)] ^= (uint8_t)(round + 1);
        if (count == OUT_MAX) {
            count = 0;
            for (unsigned i = OUT_MAX; i--;)
                virtqueue_push(queue, &out[i], 1);
            (void)virtqueue_must_notify(queue);
        }
    }
    for (unsigned i = 0; i < count; i++)
        virtqueue_push(queue, &out[i], 1);
    virtqueue_want_kicks(queue, false);
    virtqueue_want_kicks(queue, true);
    (void)virtqueue_must_notify(queue);
    (void)virtqueue_base(queue);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int file = -1;
    struct guest_region region = {.guest_address = 0, .user_address = 0, .size = MEMORY_BYTES};
    struct virtqueue_setup setup = {
        .size = RING_SIZE, .descriptors = 0, .driver_area = AREA_BYTES, .device_area = 2 * AREA_BYTES};
    AUTO(guest_map) empty = guest_map_new();
    AUTO(guest_map) map = NULL;
    struct virtqueue *queue;
    uint8_t *memory;

    if (size < HEADER_BYTES)
        return 0;
    if (file < 0)
        file = shared_memory_file("fuzz", MEMORY_BYTES);
    region.memory = shared_memory_map(file, 0, MEMORY_BYTES, NULL);
    map = guest_map_add(empty, &region, NULL);
    memory = shared_memory_base(region.memory);
    memset(memory, 0, MEMORY_BYTES);
    memcpy(memory, data + HEADER_BYTES, MIN(size - HEADER_BYTES, MEMORY_BYTES));
    setup.packed = data[0] & PACKED;
    setup.event_index = data[0] & EVENT_INDEX;
    setup.indirect = data[0] & INDIRECT;
    setup.in_order = data[0] & IN_ORDER;
    setup.inflight = data[0] & TABLE ? memory + 3 * AREA_BYTES : NULL;
    setup.base = data[0] & KEEP ? data[1] | (uint32_t)data[2] << 15 | (uint32_t)data[3] << 24 : 0;
    queue = virtqueue_new(&setup, map, NULL);
    if (queue)
        work(queue, memory, data, size);
    virtqueue_free(queue);
    shared_memory_unref(region.memory);
    return 0;
}
