/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A front end's device, from its connection to its end. What the messages set belongs to the main loop; a queue that
 * runs belongs to its own loop, to which the main loop's coroutine moves for a moment when it must change it.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "export/virtio/blk-queue.h"

struct dirty_log;
struct error;
struct guest_map;
struct loop;
struct shared_memory;
struct vhost_user_message;
struct vhost_user_note;
struct virtio_blk;

struct vhost_user_queue {
    struct virtio_blk_queue work;

    /* As the front end has set it; main loop, and read by the queue's while it starts. */
    uint16_t size;
    uint32_t base;
    bool enabled;
    uint64_t descriptors;
    uint64_t available;
    uint64_t used;
    uint64_t log_address;
    bool log_used;
    uint8_t *table; /* of requests in flight, in the memory of all of them, since it last started; NULL: none */
    int call_fd;    /* -1: none */
    atomic_bool call_nonblocking;
    int error_fd;
};

struct vhost_user_device {
    struct virtio_blk *blk;
    const char *name;
    int socket;
    int backend_socket; /* -1: none */
    uint64_t features;
    uint64_t protocol_features;
    uint8_t status;
    struct guest_map *map;
    struct dirty_log *log;
    struct shared_memory *inflight;
    size_t inflight_bytes;        /* of the tables in it */
    struct vhost_user_note *note; /* behind the tables in it; NULL: it has none, as it is another back end's */
    uint16_t inflight_queues;
    uint16_t inflight_queue_size;
    unsigned queue_count;
    struct vhost_user_queue *queues;
};

/* A device on `socket` (borrowed) whose queues are served by `loops`, in turn. */
struct vhost_user_device *vhost_user_device_new(struct virtio_blk *blk, const char *name, int socket,
                                                struct loop *const *loops, unsigned loop_count) MUST_CHECK;

/* The log of dirty pages, where the front end wants one to be kept now; NULL: it does not. */
struct dirty_log *vhost_user_device_log(const struct vhost_user_device *device);

/* Stops the queues, waits for what is in flight, and frees all. */
void CO_FN co_vhost_user_device_free(struct vhost_user_device *device);

/* Does what a message says, and replies. False: the connection must end. */
bool CO_FN co_vhost_user_device_handle(struct vhost_user_device *device, struct vhost_user_message *message,
                                       struct error **err) MUST_CHECK;

/* Tells the guest that the configuration has changed. */
void CO_FN co_vhost_user_device_changed(struct vhost_user_device *device);

/*
 * Queues (queue.c). start(): with all that has been set; false: it cannot be. stop(): waits for what is in flight;
 * `base` says then where another would go on. Both are harmless where it runs or rests already.
 */
bool CO_FN co_vhost_user_queue_start(struct vhost_user_queue *queue, struct vhost_user_device *device,
                                     struct error **err) MUST_CHECK;
void CO_FN co_vhost_user_queue_stop(struct vhost_user_queue *queue);

/* The log of dirty pages of a queue that runs. */
void CO_FN co_vhost_user_queue_set_log(struct vhost_user_queue *queue, struct dirty_log *log);

extern const struct virtio_blk_queue_ops vhost_user_queue_ops;
