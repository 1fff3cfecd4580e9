/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rings whose device writes nonsense, at any time. The first byte chooses the kind of ring; then come steps, a byte
 * that says what it is and its arguments: 0: a request of so many segments     1: what is done is taken      2: shall
 * the device be told 3: calls are wanted, or not          4: a byte, somewhere          5: the device says that one is
 * done, in its proper place
 */
#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/bytes.h"
#include "driver/protocol/virtio-blk/ring-format.h"
#include "driver/protocol/virtio-blk/ring.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RING_SIZE = 16, SEGMENTS_MAX = 6, MEMORY_BYTES = 1024 };
enum choice { PACKED = 1, EVENT_INDEX = 2, INDIRECT = 4 };

struct scene {
    const uint8_t *data;
    size_t size;
    struct vring_setup setup;
    struct vring *ring;
    bool under_way[RING_SIZE]; /* by token */
    unsigned count;
    bool broken;
    uint16_t device_index; /* where the device goes on */
    bool device_wrap;
    uint8_t *memory;
    uint8_t tables[RING_SIZE][SEGMENTS_MAX * VIRTQ_DESCRIPTOR_BYTES];
};

static uint8_t next_byte(struct scene *scene)
{
    if (!scene->size)
        return 0;
    scene->size--;
    return *scene->data++;
}

static void add(struct scene *scene, unsigned segments, uint16_t token)
{
    struct vring_segment places[SEGMENTS_MAX];
    struct vring_request request = {.segments = places, .token = token};

    segments = MAX(segments % (SEGMENTS_MAX + 1), 1);
    if (scene->broken || scene->under_way[token] || !vring_has_room(scene->ring, segments))
        return;
    for (unsigned i = 0; i < segments; i++)
        places[i] = (struct vring_segment){.address = i * 4096, .bytes = 4096};
    request.readable = segments / 2;
    request.writable = segments - request.readable;
    request.table = scene->tables[token];
    request.table_address = 1 << 20;
    vring_add(scene->ring, &request);
    scene->under_way[token] = true;
    scene->count++;
}

static void take(struct scene *scene)
{
    uint16_t token;
    uint32_t written;
    int result = vring_get(scene->ring, &token, &written);

    assert(!scene->broken || result == -EPROTO);
    if (result < 0)
        scene->broken = true;
    if (result != 1)
        return;
    assert(token < RING_SIZE && scene->under_way[token]);
    scene->under_way[token] = false;
    scene->count--;
}

/* As a device does it that keeps to the rules, but for the id. */
static void answer(struct scene *scene, uint16_t id, uint8_t written)
{
    uint8_t *at;

    if (scene->setup.packed) {
        at = scene->setup.descriptors + (size_t)scene->device_index * VIRTQ_DESCRIPTOR_BYTES;
        store_le16(at + VIRTQ_PACKED_ID, id);
        store_le32(at + VIRTQ_PACKED_LENGTH, written);
        store_le16(at + VIRTQ_PACKED_FLAGS, scene->device_wrap ? VIRTQ_PACKED_AVAIL | VIRTQ_PACKED_USED : 0);
        virtq_packed_advance(&scene->device_index, &scene->device_wrap, 1, RING_SIZE);
        return;
    }
    at = scene->setup.device_area + VIRTQ_SPLIT_ENTRIES +
         (size_t)(scene->device_index % RING_SIZE) * VIRTQ_SPLIT_USED_BYTES;
    store_le32(at, id);
    store_le32(at + 4, written);
    store_le16(scene->setup.device_area + VIRTQ_SPLIT_INDEX, ++scene->device_index);
}

static void step(struct scene *scene)
{
    uint8_t kind = next_byte(scene), first = next_byte(scene), second = next_byte(scene);

    switch (kind % 6) {
    case 0:
        add(scene, first, second % RING_SIZE);
        break;
    case 1:
        take(scene);
        break;
    case 2:
        (void)vring_must_kick(scene->ring);
        break;
    case 3:
        vring_want_calls(scene->ring, first & 1);
        break;
    case 4:
        scene->memory[(first | second << 8) % MEMORY_BYTES] = next_byte(scene);
        break;
    default:
        answer(scene, first, second);
    }
    assert(vring_outstanding(scene->ring) == scene->count);
    assert(vring_has_room(scene->ring, RING_SIZE) || scene->count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct scene scene = {.data = data, .size = size, .device_wrap = true};
    uint8_t choice = next_byte(&scene);
    struct vring_layout layout = vring_layout(RING_SIZE, choice & PACKED);

    assert(layout.bytes <= MEMORY_BYTES);
    scene.memory = g_malloc0(MEMORY_BYTES);
    scene.setup = (struct vring_setup){.size = RING_SIZE,
                                       .packed = choice & PACKED,
                                       .event_index = choice & EVENT_INDEX,
                                       .indirect = choice & INDIRECT,
                                       .descriptors = scene.memory,
                                       .driver_area = scene.memory + layout.driver_offset,
                                       .device_area = scene.memory + layout.device_offset};
    scene.ring = vring_new(&scene.setup);
    while (scene.size)
        step(&scene);
    vring_free(scene.ring);
    g_free(scene.memory);
    return 0;
}
