/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the two kinds of rings share, the driver's side. Private to this folder. */
#pragma once

#include "driver/protocol/virtio-blk/ring-format.h"
#include "driver/protocol/virtio-blk/ring.h"

/* What the driver knows of a request by itself, by the id that the device gives back. */
struct vring_chain {
    bool busy;
    uint16_t token;
    uint16_t places; /* descriptors that it takes */
    uint16_t next;   /* free ids; split: also of the descriptors of a chain */
};

struct vring_ops {
    void (*add)(struct vring *ring, const struct vring_request *request, uint16_t id);
    bool (*must_kick)(struct vring *ring, uint16_t added);
    bool (*has_done)(const struct vring *ring);
    /* The id and length of the next one that is done, which is there; the id is whatever the device wrote. */
    void (*peek)(const struct vring *ring, uint32_t *ret_id, uint32_t *ret_written);
    void (*consume)(struct vring *ring, uint16_t id);
    void (*want_calls)(struct vring *ring, bool wanted);
};
extern const struct vring_ops vring_split_ops;
extern const struct vring_ops vring_packed_ops;

struct vring {
    const struct vring_ops *ops;
    struct vring_setup setup;
    uint16_t avail_index; /* where the next is added; split: free-running */
    bool avail_wrap;      /* packed */
    uint16_t used_index;  /* where the next one that is done will be */
    bool used_wrap;
    uint16_t added; /* descriptors, split: chains, since the device was last told */
    uint16_t free_places;
    uint16_t free_id;
    unsigned outstanding;
    bool broken;
    struct vring_chain chains[]; /* `size` of them */
};

/* An id, for a chain of `places`. */
uint16_t vring_take_id(struct vring *ring);

void vring_store_descriptor(uint8_t *to, const struct vring_segment *segment, uint16_t third, uint16_t fourth);

/* Fills in the table of a request in the order of split or packed rings, and returns its size. */
uint32_t vring_fill_table(const struct vring *ring, const struct vring_request *request);
