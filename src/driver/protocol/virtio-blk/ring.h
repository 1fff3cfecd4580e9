/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Virtqueues, the driver's side: split and packed rings, indirect descriptors, event index. The device can write
 * anything into the ring's memory at any time: what it says is copied once and checked against what the driver knows by
 * itself.
 *
 * A ring belongs to one thread; nothing here suspends.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

struct vring;

/* A piece of memory by the device's address. */
struct vring_segment {
    uint64_t address;
    uint32_t bytes;
};

struct vring_setup {
    uint16_t size; /* places: a power of two in a split ring */
    bool packed;
    bool event_index;
    bool indirect;
    uint8_t *descriptors; /* the three areas, zero-filled, as vring_layout() says */
    uint8_t *driver_area;
    uint8_t *device_area;
};

/* A request. `token` is the caller's, below the ring's size, and not in use in another that is under way. */
struct vring_request {
    const struct vring_segment *segments; /* the ones that the device reads first */
    unsigned readable;
    unsigned writable;
    uint8_t *table; /* indirect: room for vring_table_bytes(), the device's until the request is done */
    uint64_t table_address;
    uint16_t token;
};

/* Where the areas of a ring lie in its memory, and how much that is. */
struct vring_layout {
    size_t driver_offset; /* the descriptors begin at 0 */
    size_t device_offset;
    size_t bytes;
};
struct vring_layout vring_layout(uint16_t size, bool packed);
size_t vring_table_bytes(unsigned segments);

struct vring *vring_new(const struct vring_setup *setup) MUST_CHECK;
void vring_free(struct vring *ring); /* NULL is allowed */

/* Whether there is room for a request of so many segments; and puts one in, for which there must be. */
bool vring_has_room(const struct vring *ring, unsigned segments);
void vring_add(struct vring *ring, const struct vring_request *request);

/* Whether the device wants to hear of what has been added since this was last asked. */
bool vring_must_kick(struct vring *ring);

/*
 * The next request that is done: 1, its token and how much the device says it has written; 0: there is none now;
 * -EPROTO: the device has written nonsense, and the ring cannot be used any more.
 */
int vring_get(struct vring *ring, uint16_t *ret_token, uint32_t *ret_written) MUST_CHECK;

/* Whether vring_get() would find something; a look for busy polling. */
bool vring_has_done(const struct vring *ring);

/* Asks the device to signal when something is done, or not to bother. After asking, look again. */
void vring_want_calls(struct vring *ring, bool wanted);

/* How many requests are under way. */
unsigned vring_outstanding(const struct vring *ring);
