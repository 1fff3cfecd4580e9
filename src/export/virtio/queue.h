/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Virtqueues, the device's side (virtio 1.2, sections 2.7 and 2.8): split and packed rings, indirect descriptors, event
 * index, in-order, the log of dirty pages, and the table of requests in flight by which they survive us.
 *
 * Everything in guest memory may change under us and be anything: what matters is copied once and then checked. Who
 * breaks the rules of the ring breaks the queue, for good until it is set up anew; nobody else notices.
 * A queue belongs to one loop; nothing here suspends.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/compiler.h"

struct dirty_log;
struct error;
struct guest_map;
struct virtqueue;

enum {
    VIRTQ_SIZE_MAX = 32768,
    VIRTQ_SEGMENTS_MAX = 256, /* of one buffer */
};

/* Where a queue lies, by addresses of the front end, and how it works. */
struct virtqueue_setup {
    uint16_t size;
    bool packed;
    bool event_index;
    bool indirect;
    bool in_order;
    uint64_t descriptors;
    uint64_t driver_area; /* available ring, or the driver's event structure */
    uint64_t device_area; /* used ring, or ours */
    uint32_t base;        /* where to go on, as virtqueue_base() said; also 0 for a new one */
    uint8_t *inflight;    /* inflight_region_size() bytes of shared memory, borrowed; NULL: none */

    /*
     * Memory that is not in the map may be there all the same: a new map, owned, that has all of `map` and `address`;
     * NULL: there is nothing. On the queue's loop; must not suspend. NULL: the map has all.
     */
    struct guest_map *(*grow_map)(void *opaque, const struct guest_map *map, uint64_t address);
    void *grow_opaque;
};

/* A chain of descriptors: a request of the guest's. */
struct virtq_buffer {
    struct guest_map *map; /* holds the memory of the segments */
    uint16_t id;
    uint16_t slots; /* places that it takes in a packed ring */
    uint16_t entry; /* in the table of requests in flight */
    uint32_t order;
    bool bad;               /* a part is no memory, empty, or in the wrong order: must not be used */
    uint8_t *last_writable; /* the last byte that the device may write, also of bad ones; NULL: none */
    unsigned readable_count;
    unsigned writable_count;
    uint64_t readable_bytes;
    uint64_t writable_bytes;
    struct iovec segments[VIRTQ_SEGMENTS_MAX]; /* the readable ones first */
};

/* NULL and the error where the queue cannot be: sizes, places. `map` gets a reference. */
struct virtqueue *virtqueue_new(const struct virtqueue_setup *setup, struct guest_map *map,
                                struct error **err) MUST_CHECK;

/* No buffer of it may be out. NULL is allowed. */
void virtqueue_free(struct virtqueue *queue);

/* Other memory, in which the queue must be, too. */
bool virtqueue_set_map(struct virtqueue *queue, struct guest_map *map, struct error **err) MUST_CHECK;

/* From now on pages that we change are marked in `log` (borrowed, NULL: none); `used_address`: where the used ring is
 * logged, UINT64_MAX: it is not. */
void virtqueue_set_log(struct virtqueue *queue, struct dirty_log *log, uint64_t used_address);

/* The next request: 1, 0: there is none now; -EIO: the queue is broken, virtqueue_why() says how. */
int virtqueue_pop(struct virtqueue *queue, struct virtq_buffer *ret) MUST_CHECK;

/* Gives a buffer back of which the first `written` writable bytes have been written, and lets go its memory. */
void virtqueue_push(struct virtqueue *queue, struct virtq_buffer *buffer, uint32_t written);

/* Whether the driver wants to hear of what has been pushed since this was last asked. */
bool virtqueue_must_notify(struct virtqueue *queue);

/* Whether virtqueue_pop() would find something: a few instructions. */
bool virtqueue_has_available(const struct virtqueue *queue);

/* Asks the driver to notify us or not to bother. */
void virtqueue_want_kicks(struct virtqueue *queue, bool wanted);

/* The device declares the queue broken. */
void virtqueue_break(struct virtqueue *queue, const char *format, ...) PRINTF_LIKE(2, 3);
bool virtqueue_broken(const struct virtqueue *queue);
const char *virtqueue_why(const struct virtqueue *queue);

/* How many buffers are out; and where another device would go on when there are none. */
unsigned virtqueue_outstanding(const struct virtqueue *queue);
uint32_t virtqueue_base(const struct virtqueue *queue);
