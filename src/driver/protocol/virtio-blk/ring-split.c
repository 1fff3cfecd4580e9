/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Split rings, the driver's side: virtio 1.2, section 2.7. An id is the number of a chain's first descriptor; the
 * numbers of the others are taken from the same list, and stay linked in `chains` until the chain is done.
 */
#include "base/bytes.h"
#include "driver/protocol/virtio-blk/ring-internal.h"

static uint8_t *descriptor(const struct vring *ring, uint16_t id)
{
    return ring->setup.descriptors + (size_t)id * VIRTQ_DESCRIPTOR_BYTES;
}

static void add_chain(struct vring *ring, const struct vring_request *request, uint16_t id)
{
    unsigned count = request->readable + request->writable;

    for (unsigned i = 0; i < count; i++) {
        bool last = i + 1 == count;
        uint16_t next = last ? 0 : vring_take_id(ring);
        uint16_t flags = (uint16_t)((i < request->readable ? 0 : VIRTQ_WRITE) | (last ? 0 : VIRTQ_NEXT));

        vring_store_descriptor(descriptor(ring, id), &request->segments[i], flags, next);
        ring->chains[id].next = next;
        id = next;
    }
}

static void add(struct vring *ring, const struct vring_request *request, uint16_t id)
{
    uint16_t place = ring->avail_index & (ring->setup.size - 1);

    if (ring->setup.indirect) {
        struct vring_segment table = {.address = request->table_address, .bytes = vring_fill_table(ring, request)};

        vring_store_descriptor(descriptor(ring, id), &table, VIRTQ_INDIRECT, 0);
    } else {
        add_chain(ring, request, id);
    }
    shared_store16(ring->setup.driver_area + VIRTQ_SPLIT_ENTRIES + (size_t)place * VIRTQ_SPLIT_AVAIL_BYTES, id,
                   __ATOMIC_RELAXED);
    ring->avail_index++;
    ring->added++;
    shared_store16(ring->setup.driver_area + VIRTQ_SPLIT_INDEX, ring->avail_index, __ATOMIC_RELEASE);
}

static bool must_kick(struct vring *ring, uint16_t added)
{
    const uint8_t *device = ring->setup.device_area;

    if (!ring->setup.event_index)
        return !(shared_load16(device + VIRTQ_SPLIT_FLAGS, __ATOMIC_RELAXED) & VIRTQ_SPLIT_USED_NO_NOTIFY);
    return virtq_event_passed(
        shared_load16(device + VIRTQ_SPLIT_ENTRIES + (size_t)ring->setup.size * VIRTQ_SPLIT_USED_BYTES,
                      __ATOMIC_RELAXED),
        ring->avail_index, (uint16_t)(ring->avail_index - added));
}

static bool has_done(const struct vring *ring)
{
    return shared_load16(ring->setup.device_area + VIRTQ_SPLIT_INDEX, __ATOMIC_ACQUIRE) != ring->used_index;
}

static void peek(const struct vring *ring, uint32_t *ret_id, uint32_t *ret_written)
{
    const uint8_t *entry = ring->setup.device_area + VIRTQ_SPLIT_ENTRIES +
                           (size_t)(ring->used_index & (ring->setup.size - 1)) * VIRTQ_SPLIT_USED_BYTES;

    *ret_id = load_le32(entry);
    *ret_written = load_le32(entry + 4);
}

static void consume(struct vring *ring, uint16_t id)
{
    uint16_t last = id;

    for (uint16_t i = 1; i < ring->chains[id].places; i++)
        last = ring->chains[last].next;
    ring->chains[last].next = ring->free_id;
    ring->free_id = id;
    ring->used_index++;
}

static void want_calls(struct vring *ring, bool wanted)
{
    uint8_t *driver = ring->setup.driver_area;

    if (!ring->setup.event_index)
        shared_store16(driver + VIRTQ_SPLIT_FLAGS, wanted ? 0 : VIRTQ_SPLIT_AVAIL_NO_INTERRUPT, __ATOMIC_RELAXED);
    else
        /* An event that has just passed will not pass again for a long time. */
        shared_store16(driver + VIRTQ_SPLIT_ENTRIES + (size_t)ring->setup.size * VIRTQ_SPLIT_AVAIL_BYTES,
                       wanted ? ring->used_index : (uint16_t)(ring->used_index - 1), __ATOMIC_RELAXED);
}

const struct vring_ops vring_split_ops = {
    .add = add,
    .must_kick = must_kick,
    .has_done = has_done,
    .peek = peek,
    .consume = consume,
    .want_calls = want_calls,
};
