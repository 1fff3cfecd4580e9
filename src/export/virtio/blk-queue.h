/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A queue of a block device at work, whatever the transport. It belongs to its loop while it runs; who starts and
 * stops it is on the main loop, whose coroutine moves over for a moment.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "loop/lock.h"

struct co_task;
struct dirty_log;
struct error;
struct guest_map;
struct loop;
struct virtio_blk;
struct virtio_blk_queue;
struct virtqueue;

/* How the driver hears of things; on the queue's loop, one call at a time. */
struct virtio_blk_queue_ops {
    void (*co_interrupt)(struct virtio_blk_queue *queue); /* requests have been done */
    void (*co_broken)(struct virtio_blk_queue *queue);    /* the ring is, and has been logged as such */
};

struct virtio_blk_queue {
    struct virtio_blk *blk;
    const char *name; /* of the export */
    unsigned index;
    struct loop *loop;                      /* const */
    const struct virtio_blk_queue_ops *ops; /* const */
    bool
        fragile; /* const: a page of its memory that was not there breaks it, as what came to its place is not shared */
    int kick_fd; /* an event descriptor; main loop, and const while it runs; -1: none */
    bool started; /* main loop */

    /* While it runs; the queue's loop. */
    struct virtqueue *ring;
    struct co_task *server;
    struct co_condition idle; /* nothing is in flight, and nobody is being told of it any more */
    bool declared_broken;
    bool kicks_wanted; /* the driver has been asked for them */
    bool telling;      /* a coroutine that tells the driver is under way */
};

/* Takes `ring` and serves it; what is in it already, too. */
void CO_FN co_virtio_blk_queue_start(struct virtio_blk_queue *queue, struct virtqueue *ring);

/* Waits for what is in flight and frees the ring; where another would go on. The queue must run. */
uint32_t CO_FN co_virtio_blk_queue_stop(struct virtio_blk_queue *queue);

/* Where another would go on, if what is in flight were done; of a queue that runs. */
uint32_t CO_FN co_virtio_blk_queue_base(struct virtio_blk_queue *queue);

/* Closes *slot, a descriptor that the ops use, and puts `fd` there; -1: none. */
void CO_FN co_virtio_blk_queue_set_fd(struct virtio_blk_queue *queue, int *slot, int fd);

/* Other memory, and another log: nothing happens to a queue that rests. */
bool CO_FN co_virtio_blk_queue_set_map(struct virtio_blk_queue *queue, struct guest_map *map,
                                       struct error **err) MUST_CHECK;
void CO_FN co_virtio_blk_queue_set_log(struct virtio_blk_queue *queue, struct dirty_log *log, uint64_t used_address);
