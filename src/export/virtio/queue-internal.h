/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the two kinds of rings share. Private to this folder. */
#pragma once

#include "driver/protocol/virtio-blk/ring-format.h"
#include "export/virtio/inflight.h"
#include "export/virtio/memory.h"
#include "export/virtio/queue.h"

enum {
    VIRTQ_OUT_MAX = 1024,   /* buffers at once: more is memory of ours that makes nothing faster */
    VIRTQ_CHAIN_MAX = 1024, /* descriptors of one, of which most can never be used; to follow them takes time */
};

/* A descriptor, in the order of split rings; packed ones have id and flags in the places of flags and next. */
struct virtq_descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next; /* packed: the buffer's id */
};

/* A buffer that the driver gets back, in the order in which it was taken. */
struct virtq_done {
    uint16_t id;
    uint16_t slots;
    uint16_t entry;
    bool done;
    uint32_t written;
};

struct virtqueue_ops {
    bool (*start)(struct virtqueue *queue, uint32_t base, struct error **err); /* indices; requests in flight */
    bool (*has_available)(const struct virtqueue *queue);
    int (*pop)(struct virtqueue *queue, struct virtq_buffer *ret);
    void (*push)(struct virtqueue *queue, const struct virtq_done *done);
    bool (*must_notify)(struct virtqueue *queue, uint32_t fresh, bool first);
    void (*want_kicks)(struct virtqueue *queue, bool wanted);
    uint32_t (*base)(const struct virtqueue *queue);
    void (*area_sizes)(uint16_t size, size_t *ret_descriptors, size_t *ret_driver, size_t *ret_device);
};
extern const struct virtqueue_ops virtqueue_split_ops;
extern const struct virtqueue_ops virtqueue_packed_ops;

struct virtqueue {
    const struct virtqueue_ops *ops;
    struct virtqueue_setup setup;
    struct guest_map *map;
    uint8_t *descriptors;
    uint8_t *driver_area;
    uint8_t *device_area;

    uint16_t avail_index; /* the next place to look at; split: free-running */
    bool avail_wrap;      /* packed */
    uint16_t used_index;
    bool used_wrap;
    bool told;      /* the driver, at least once */
    uint32_t fresh; /* places that have been pushed since */
    unsigned outstanding;

    uint16_t *resubmit; /* in flight when the last device went: heads, or entries of the table */
    unsigned resubmit_count;
    unsigned resubmit_next;
    uint64_t counter;    /* of the table of requests in flight */
    uint16_t free_entry; /* of a packed ring's: the first that is free */

    struct virtq_done *order; /* in-order: a ring of `size` */
    uint32_t order_first;     /* the oldest that is out */
    uint32_t order_next;

    struct dirty_log *log;
    uint64_t log_used_address;
    char *why; /* broken; NULL: not */
};

/* Reads a descriptor that may change meanwhile, once; of a split or a packed ring. */
struct virtq_descriptor virtq_descriptor_load(const uint8_t *from, bool packed);

/* Adds the memory of a descriptor to a buffer; marks it as bad where that cannot be. */
void virtq_buffer_add(struct virtqueue *queue, struct virtq_buffer *buffer, const struct virtq_descriptor *from);

/* Adds an indirect table's: linked in a split ring, in a row in a packed one. False: the queue is broken. */
bool virtq_buffer_add_table(struct virtqueue *queue, struct virtq_buffer *buffer, const struct virtq_descriptor *table);

/* Whether a table of requests in flight is of our kind and the queue's size. */
bool virtqueue_check_inflight(const struct virtqueue *queue, uint16_t version, uint16_t count, struct error **err);

/*
 * Lists the entries (as many as the queue has places, `stride` bytes apart, each with a struct inflight_head) that are
 * in flight in queue->resubmit, in the order in which they were taken.
 */
void virtqueue_list_inflight(struct virtqueue *queue, const void *entries, size_t stride);

/* Marks `size` bytes of the used ring from `offset` on as dirty. */
void virtqueue_log_used(struct virtqueue *queue, uint64_t offset, uint64_t size);

/* The same of a packed ring, whose descriptors are what is used: `memory` is a part of it. */
void virtqueue_log_ring(struct virtqueue *queue, const uint8_t *memory, uint64_t size);

/* Integers of the table of requests in flight, which the front end can change at any time: read once, and stored in
 * the order in which this is called. */
static inline uint16_t inflight_load16(const uint16_t *from)
{
    return __atomic_load_n(from, __ATOMIC_RELAXED);
}
static inline void inflight_store16(uint16_t *to, uint16_t value)
{
    __atomic_store_n(to, value, __ATOMIC_RELEASE);
}
