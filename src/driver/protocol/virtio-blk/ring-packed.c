/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Packed rings, the driver's side: virtio 1.2, section 2.8. */
#include "base/bytes.h"
#include "driver/protocol/virtio-blk/ring-internal.h"

static uint8_t *descriptor(const struct vring *ring, uint16_t place)
{
    return ring->setup.descriptors + (size_t)place * VIRTQ_DESCRIPTOR_BYTES;
}

static void advance(struct vring *ring, uint16_t *index, bool *wrap, uint16_t count)
{
    virtq_packed_advance(index, wrap, count, ring->setup.size);
}

/* Stores all but the flags, and returns what they are to be. */
static uint16_t store(struct vring *ring, const struct vring_segment *segment, uint16_t id, uint16_t flags)
{
    uint8_t *to = descriptor(ring, ring->avail_index);

    flags |= ring->avail_wrap ? VIRTQ_PACKED_AVAIL : VIRTQ_PACKED_USED;
    store_le64(to, segment->address);
    store_le32(to + VIRTQ_PACKED_LENGTH, segment->bytes);
    store_le16(to + VIRTQ_PACKED_ID, id);
    return flags;
}

/* The first descriptor's flags come last: with them the device sees the chain. */
static void add_chain(struct vring *ring, const struct vring_request *request, uint16_t id)
{
    unsigned count = request->readable + request->writable;
    uint8_t *first = descriptor(ring, ring->avail_index) + VIRTQ_PACKED_FLAGS;
    uint16_t first_flags = 0;

    for (unsigned i = 0; i < count; i++) {
        uint16_t flags = (uint16_t)((i < request->readable ? 0 : VIRTQ_WRITE) | (i + 1 < count ? VIRTQ_NEXT : 0));

        flags = store(ring, &request->segments[i], id, flags);
        if (i)
            shared_store16(descriptor(ring, ring->avail_index) + VIRTQ_PACKED_FLAGS, flags, __ATOMIC_RELAXED);
        else
            first_flags = flags;
        advance(ring, &ring->avail_index, &ring->avail_wrap, 1);
    }
    ring->added = (uint16_t)(ring->added + count);
    shared_store16(first, first_flags, __ATOMIC_RELEASE);
}

static void add(struct vring *ring, const struct vring_request *request, uint16_t id)
{
    struct vring_segment table = {.address = request->table_address};
    uint8_t *flags_at = descriptor(ring, ring->avail_index) + VIRTQ_PACKED_FLAGS;
    uint16_t flags;

    if (!ring->setup.indirect) {
        add_chain(ring, request, id);
        return;
    }
    table.bytes = vring_fill_table(ring, request);
    flags = store(ring, &table, id, VIRTQ_INDIRECT);
    advance(ring, &ring->avail_index, &ring->avail_wrap, 1);
    ring->added++;
    shared_store16(flags_at, flags, __ATOMIC_RELEASE);
}

static bool must_kick(struct vring *ring, uint16_t added)
{
    const uint8_t *event = ring->setup.device_area;
    uint16_t flags = shared_load16(event + VIRTQ_PACKED_EVENT_FLAGS, __ATOMIC_RELAXED);

    if (flags != VIRTQ_PACKED_EVENT_AT)
        return flags != VIRTQ_PACKED_EVENT_DISABLE;
    /* Once around the ring passes every place. */
    return added >= ring->setup.size ||
           virtq_packed_event_passed(shared_load16(event + VIRTQ_PACKED_EVENT_OFFSET, __ATOMIC_RELAXED),
                                     ring->avail_index, ring->avail_wrap, added, ring->setup.size);
}

static bool has_done(const struct vring *ring)
{
    uint16_t flags = shared_load16(descriptor(ring, ring->used_index) + VIRTQ_PACKED_FLAGS, __ATOMIC_ACQUIRE);

    return !!(flags & VIRTQ_PACKED_AVAIL) == ring->used_wrap && !!(flags & VIRTQ_PACKED_USED) == ring->used_wrap;
}

static void peek(const struct vring *ring, uint32_t *ret_id, uint32_t *ret_written)
{
    const uint8_t *from = descriptor(ring, ring->used_index);

    *ret_id = shared_load16(from + VIRTQ_PACKED_ID, __ATOMIC_RELAXED);
    *ret_written = load_le32(from + VIRTQ_PACKED_LENGTH);
}

static void consume(struct vring *ring, uint16_t id)
{
    advance(ring, &ring->used_index, &ring->used_wrap, ring->chains[id].places);
    ring->chains[id].next = ring->free_id;
    ring->free_id = id;
}

static void want_calls(struct vring *ring, bool wanted)
{
    uint8_t *event = ring->setup.driver_area;
    uint16_t at = (uint16_t)(ring->used_index | (ring->used_wrap ? VIRTQ_PACKED_WRAP : 0));

    if (wanted && ring->setup.event_index)
        shared_store16(event + VIRTQ_PACKED_EVENT_OFFSET, at, __ATOMIC_RELAXED);
    shared_store16(event + VIRTQ_PACKED_EVENT_FLAGS,
                   !wanted                   ? VIRTQ_PACKED_EVENT_DISABLE
                   : ring->setup.event_index ? VIRTQ_PACKED_EVENT_AT
                                             : VIRTQ_PACKED_EVENT_ENABLE,
                   __ATOMIC_RELEASE);
}

const struct vring_ops vring_packed_ops = {
    .add = add,
    .must_kick = must_kick,
    .has_done = has_done,
    .peek = peek,
    .consume = consume,
    .want_calls = want_calls,
};
