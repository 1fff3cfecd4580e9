/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What does not depend on the kind of the ring: ids, room, tables. */
#include "driver/protocol/virtio-blk/ring.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "driver/protocol/virtio-blk/ring-internal.h"
#include "driver/protocol/virtio-blk/virtio.h"

enum { AREA_ALIGNMENT = 64 };

struct vring_layout vring_layout(uint16_t size, bool packed)
{
    size_t descriptors, driver, device;
    struct vring_layout layout;

    (packed ? virtq_packed_area_sizes : virtq_split_area_sizes)(size, &descriptors, &driver, &device);
    layout.driver_offset = align_up(descriptors, AREA_ALIGNMENT);
    layout.device_offset = align_up(layout.driver_offset + driver, AREA_ALIGNMENT);
    layout.bytes = align_up(layout.device_offset + device, AREA_ALIGNMENT);
    return layout;
}

size_t vring_table_bytes(unsigned segments)
{
    return (size_t)segments * VIRTQ_DESCRIPTOR_BYTES;
}

struct vring *vring_new(const struct vring_setup *setup)
{
    struct vring *ring = g_malloc0(sizeof(*ring) + setup->size * sizeof(ring->chains[0]));

    assert(setup->size && setup->size <= VIRTIO_QUEUE_SIZE_MAX);
    assert(setup->packed || is_power_of_two(setup->size));
    ring->setup = *setup;
    ring->ops = setup->packed ? &vring_packed_ops : &vring_split_ops;
    ring->avail_wrap = ring->used_wrap = true;
    ring->free_places = setup->size;
    for (uint16_t i = 0; i < setup->size; i++)
        ring->chains[i].next = (uint16_t)(i + 1);
    return ring;
}

void vring_free(struct vring *ring)
{
    g_free(ring);
}

bool vring_has_room(const struct vring *ring, unsigned segments)
{
    return ring->free_places >= (ring->setup.indirect ? 1 : segments);
}

uint16_t vring_take_id(struct vring *ring)
{
    uint16_t id = ring->free_id;

    assert(id < ring->setup.size && !ring->chains[id].busy);
    ring->free_id = ring->chains[id].next;
    return id;
}

void vring_store_descriptor(uint8_t *to, const struct vring_segment *segment, uint16_t third, uint16_t fourth)
{
    store_le64(to, segment->address);
    store_le32(to + 8, segment->bytes);
    store_le16(to + 12, third);
    store_le16(to + 14, fourth);
}

uint32_t vring_fill_table(const struct vring *ring, const struct vring_request *request)
{
    unsigned count = request->readable + request->writable;

    for (unsigned i = 0; i < count; i++) {
        uint8_t *to = request->table + (size_t)i * VIRTQ_DESCRIPTOR_BYTES;
        uint16_t flags = i < request->readable ? 0 : VIRTQ_WRITE;

        if (ring->setup.packed)
            vring_store_descriptor(to, &request->segments[i], 0, flags);
        else
            vring_store_descriptor(to, &request->segments[i], (uint16_t)(flags | (i + 1 < count ? VIRTQ_NEXT : 0)),
                                   (uint16_t)(i + 1));
    }
    return count * VIRTQ_DESCRIPTOR_BYTES;
}

void vring_add(struct vring *ring, const struct vring_request *request)
{
    unsigned segments = request->readable + request->writable;
    uint16_t places = ring->setup.indirect ? 1 : (uint16_t)segments;
    uint16_t id = vring_take_id(ring);
    struct vring_chain *chain = &ring->chains[id];

    assert(segments && vring_has_room(ring, segments) && request->token < ring->setup.size);
    chain->busy = true;
    chain->token = request->token;
    chain->places = places;
    ring->free_places = (uint16_t)(ring->free_places - places);
    ring->ops->add(ring, request, id);
    ring->outstanding++;
}

bool vring_must_kick(struct vring *ring)
{
    uint16_t added = ring->added;

    if (!added || ring->broken)
        return false;
    ring->added = 0;
    /* Before we look whether the device wants to hear of it, it must be able to see it. */
    virtq_fence();
    return ring->ops->must_kick(ring, added);
}

bool vring_has_done(const struct vring *ring)
{
    return ring->ops->has_done(ring);
}

int vring_get(struct vring *ring, uint16_t *ret_token, uint32_t *ret_written)
{
    uint32_t id;

    if (unlikely(ring->broken))
        return -EPROTO;
    if (!ring->ops->has_done(ring))
        return 0;
    ring->ops->peek(ring, &id, ret_written);
    if (id >= ring->setup.size || !ring->chains[id].busy) {
        ring->broken = true;
        return -EPROTO;
    }
    *ret_token = ring->chains[id].token;
    ring->chains[id].busy = false;
    ring->free_places = (uint16_t)(ring->free_places + ring->chains[id].places);
    ring->outstanding--;
    ring->ops->consume(ring, (uint16_t)id);
    return 1;
}

void vring_want_calls(struct vring *ring, bool wanted)
{
    ring->ops->want_calls(ring, wanted);
    if (wanted)
        virtq_fence();
}

unsigned vring_outstanding(const struct vring *ring)
{
    return ring->outstanding;
}
