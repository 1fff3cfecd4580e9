/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A queue of a virtio disk at work: requests of coroutines in, completions out. It belongs to a loop; its memory is
 * shared with the device, so data is copied through pieces of that.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "driver/protocol/virtio-blk/virtio.h"
#include "loop/lock.h"

struct error;
struct io_vector;
struct loop;
struct virtio_disk;
struct virtio_queue_call;
struct virtio_queue_place;
struct vring;

enum {
    VIRTIO_QUEUE_PIECE_BYTES = 16 * 1024,
    VIRTIO_QUEUE_PIECES = 512,      /* of memory for data */
    VIRTIO_QUEUE_DATA_SEGMENTS = 64 /* of one request, at most */
};

/* A request of a disk. Positions are sectors of 512 bytes. */
struct virtio_request {
    enum virtio_blk_request type;
    uint64_t sector;
    uint32_t sectors;            /* VIRTIO_BLK_DISCARD, VIRTIO_BLK_WRITE_ZEROES */
    bool unmap;                  /* VIRTIO_BLK_WRITE_ZEROES */
    const struct io_vector *iov; /* VIRTIO_BLK_IN, VIRTIO_BLK_OUT */
};

struct virtio_queue_setup {
    unsigned index;
    uint16_t size;
    bool packed;
    bool event_index;
    bool indirect;
    uint8_t *memory; /* virtio_queue_bytes() zeroes, which the device has at `address` */
    uint64_t address;
};

struct virtio_queue {
    struct virtio_queue_setup setup;
    struct virtio_disk *disk;
    struct vring *ring;
    int kick_fd; /* owned, both */
    int call_fd;
    size_t slots_offset;  /* in the memory: headers, status bytes and tables of requests */
    size_t pieces_offset; /* data */
    bool *lost;           /* the device is out of reach: set on any loop, followed by virtio_queue_wake() */

    struct loop *loop; /* guarded by the disk, both; NULL: nobody's yet */
    unsigned users;    /* requests on their way through */

    /* That loop's. */
    struct virtio_queue_call **calls; /* under way, by slot */
    uint16_t *free_slots;
    unsigned free_slot_count;
    uint16_t *free_pieces;
    unsigned free_piece_count;
    bool kicking; /* the coroutine that tells the device is there */
    bool reaping;
    struct co_mutex entrance; /* who waits for room waits in line */
    struct co_condition room;
};

size_t virtio_queue_bytes(uint16_t size, bool packed);

/* A queue of `disk`, which what runs in it holds; `lost` is borrowed. False and the error: no descriptors. */
bool virtio_queue_init(struct virtio_queue *queue, const struct virtio_queue_setup *setup, struct virtio_disk *disk,
                       bool *lost, struct error **err) MUST_CHECK;
void virtio_queue_done(struct virtio_queue *queue); /* nothing is under way */

/* What the device is to be told. */
struct virtio_queue_place virtio_queue_place(const struct virtio_queue *queue);

/* Where slot `index` lies, and by which address of the device's. Its table is for VIRTIO_QUEUE_DATA_SEGMENTS + 2. */
struct virtio_slot {
    uint8_t *header;
    uint8_t *range;
    uint8_t *status;
    uint8_t *table;
    uint64_t address; /* of the header; the others are as far away as here */
};
struct virtio_slot virtio_queue_slot(const struct virtio_queue *queue, uint16_t index);

/* The queue's loop. 0, -ENOTSUP: the device does not know such requests; -EIO: it failed, or is lost. */
int CO_FN co_virtio_queue_do(struct virtio_queue *queue, const struct virtio_request *request);

/* Has whoever waits look at `lost`. Any loop, which may close nothing before its next turn. */
void virtio_queue_wake(struct virtio_queue *queue);
