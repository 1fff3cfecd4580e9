/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A virtio block device as its driver sees it, whatever the transport: features, configuration, memory, queues. Once it
 * is lost it stays so; another one has to be made.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "driver/protocol/virtio-blk/virtio.h"

struct error;
struct virtio_disk;
struct virtio_queue;
struct virtio_request;
struct virtio_transport;

enum { VIRTIO_DISK_QUEUES_MAX = 16, VIRTIO_DISK_QUEUE_SIZE = 256 };

struct virtio_disk_options {
    unsigned queues;     /* at most; 0: one */
    uint16_t queue_size; /* a power of two; 0: VIRTIO_DISK_QUEUE_SIZE; the device may have smaller ones */
    uint64_t without;    /* features that are not to be used */
    void (*resized)(void *opaque, uint64_t length); /* bytes; on the loop of the transport; or NULL */
    void *opaque;
};

/* What the device says of itself. */
struct virtio_disk_info {
    uint64_t features; /* agreed */
    uint32_t block_size;
    uint32_t data_segments; /* of one request */
    uint64_t discard_max;   /* bytes; 0: no such requests */
    uint32_t discard_alignment;
    uint64_t zeroes_max;
    bool zeroes_may_unmap;
    uint16_t queues;
};

/* Takes `transport`. With one reference; NULL and the error. On the transport's loop, as co_virtio_disk_close(). */
struct virtio_disk *CO_FN co_virtio_disk_open(struct virtio_transport *transport,
                                              const struct virtio_disk_options *options, struct error **err) MUST_CHECK;

/* The device is left; requests under way fail. Drops a reference. NULL is allowed. */
void CO_FN co_virtio_disk_close(struct virtio_disk *disk);

struct virtio_disk *virtio_disk_ref(struct virtio_disk *disk); /* any loop */
void virtio_disk_unref(struct virtio_disk *disk);

/* The device is of no use any more: what is under way fails. Any loop, with a reference that lasts until its next turn.
 */
void virtio_disk_lose(struct virtio_disk *disk);

const struct virtio_disk_info *virtio_disk_info(const struct virtio_disk *disk);
uint64_t virtio_disk_length(const struct virtio_disk *disk); /* bytes; any loop */
bool virtio_disk_is_lost(const struct virtio_disk *disk);    /* any loop */

/* Does a request, on the calling loop's own queue if there is one for it. Any loop, with a reference; as
 * co_virtio_queue_do(). */
int CO_FN co_virtio_disk_do(struct virtio_disk *disk, const struct virtio_request *request);

/* Queue `index` for who works on its ring directly; NULL: there are fewer. */
struct virtio_queue *virtio_disk_queue(struct virtio_disk *disk, unsigned index);
