/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How virtqueues lie in memory (virtio 1.2, sections 2.7 and 2.8), and how memory is touched that another process has,
 * too. For both sides. */
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { VIRTQ_DESCRIPTOR_BYTES = 16 };

enum virtq_descriptor_flags {
    VIRTQ_NEXT = 1u << 0,
    VIRTQ_WRITE = 1u << 1,
    VIRTQ_INDIRECT = 1u << 2,
    VIRTQ_PACKED_AVAIL = 1u << 7,
    VIRTQ_PACKED_USED = 1u << 15,
};

/* Split rings: offsets in the available and the used ring. */
enum virtq_split {
    VIRTQ_SPLIT_FLAGS = 0,
    VIRTQ_SPLIT_INDEX = 2,
    VIRTQ_SPLIT_ENTRIES = 4,
    VIRTQ_SPLIT_AVAIL_BYTES = 2, /* of an entry */
    VIRTQ_SPLIT_USED_BYTES = 8,
    VIRTQ_SPLIT_EVENT_BYTES = 2,
    VIRTQ_SPLIT_AVAIL_NO_INTERRUPT = 1,
    VIRTQ_SPLIT_USED_NO_NOTIFY = 1,
};

/* Packed rings: offsets in a descriptor and in an event structure. */
enum virtq_packed {
    VIRTQ_PACKED_LENGTH = 8,
    VIRTQ_PACKED_ID = 12,
    VIRTQ_PACKED_FLAGS = 14,
    VIRTQ_PACKED_EVENT_OFFSET = 0,
    VIRTQ_PACKED_EVENT_FLAGS = 2,
    VIRTQ_PACKED_EVENT_BYTES = 4,
    VIRTQ_PACKED_EVENT_ENABLE = 0,
    VIRTQ_PACKED_EVENT_DISABLE = 1,
    VIRTQ_PACKED_EVENT_AT = 2,
    VIRTQ_PACKED_WRAP = 1 << 15,
};

/* The bytes of the three areas of a ring of `size` places. */
static inline void virtq_split_area_sizes(uint16_t size, size_t *ret_descriptors, size_t *ret_driver,
                                          size_t *ret_device)
{
    *ret_descriptors = (size_t)size * VIRTQ_DESCRIPTOR_BYTES;
    *ret_driver = VIRTQ_SPLIT_ENTRIES + (size_t)size * VIRTQ_SPLIT_AVAIL_BYTES + VIRTQ_SPLIT_EVENT_BYTES;
    *ret_device = VIRTQ_SPLIT_ENTRIES + (size_t)size * VIRTQ_SPLIT_USED_BYTES + VIRTQ_SPLIT_EVENT_BYTES;
}

static inline void virtq_packed_area_sizes(uint16_t size, size_t *ret_descriptors, size_t *ret_driver,
                                           size_t *ret_device)
{
    *ret_descriptors = (size_t)size * VIRTQ_DESCRIPTOR_BYTES;
    *ret_driver = VIRTQ_PACKED_EVENT_BYTES;
    *ret_device = VIRTQ_PACKED_EVENT_BYTES;
}

/* Whether an index that went from `old` to `now` has passed `event` (virtio 2.7.10). */
static inline bool virtq_event_passed(uint16_t event, uint16_t now, uint16_t old)
{
    return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

/* The same in a packed ring of `size` places, of which `count` were passed before `now`: `event` is a place and its
 * wrap bit, `wrap` belongs to `now`. Places of the round before are below those of this one. */
static inline bool virtq_packed_event_passed(uint16_t event, uint16_t now, bool wrap, uint16_t count, uint16_t size)
{
    int32_t at = event & (VIRTQ_PACKED_WRAP - 1);

    if (!!(event & VIRTQ_PACKED_WRAP) != wrap)
        at -= size;
    return virtq_event_passed((uint16_t)at, now, (uint16_t)(now - count));
}

/* Goes `count` places of a packed ring on, at most once around. */
static inline void virtq_packed_advance(uint16_t *index, bool *wrap, uint16_t count, uint16_t size)
{
    uint32_t next = (uint32_t)*index + count;

    if (next >= size) {
        next -= size;
        *wrap = !*wrap;
    }
    *index = (uint16_t)next;
}

/*
 * What we have stored is visible before what we load next: the two sides of a ring each announce something and then
 * look whether the other waits for it. The thread sanitizer knows no fences, but the same by an exchange.
 */
static inline void virtq_fence(void)
{
#ifdef __SANITIZE_THREAD__
    uint32_t word = 0;

    (void)__atomic_exchange_n(&word, 1, __ATOMIC_SEQ_CST);
#else
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

/* Integers in shared memory, little-endian, at once. Addresses must be aligned. */
static inline uint16_t shared_load16(const uint8_t *from, int order)
{
    return le16toh(__atomic_load_n((const uint16_t *)(const void *)from, order));
}
static inline void shared_store16(uint8_t *to, uint16_t value, int order)
{
    __atomic_store_n((uint16_t *)(void *)to, htole16(value), order);
}
