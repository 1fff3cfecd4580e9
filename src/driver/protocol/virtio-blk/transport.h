/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a virtio disk is reached: over a vhost-user socket, through a vhost-vdpa device. Everything here is called on the
 * loop on which the transport was made, one call at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "driver/protocol/virtio-blk/virtio.h"

struct error;
struct virtio_transport;

/* What the user of a transport hears of it, on its loop. */
struct virtio_watcher {
    void (*co_config_changed)(void *opaque);
    void (*co_lost)(void *opaque, const char *why); /* once; the device is out of reach for good */
};

/* A queue for the device: where it lies by the device's addresses and by ours, and how each side wakes the other. */
struct virtio_queue_place {
    unsigned index;
    uint16_t size;
    bool packed;
    uint64_t descriptors;
    uint64_t driver_area;
    uint64_t device_area;
    int kick_fd; /* borrowed, both */
    int call_fd;
};

/* Each that returns false has set the error. */
struct virtio_transport_ops {
    bool (*co_set_features)(struct virtio_transport *transport, uint64_t features, struct error **err);
    bool (*co_read_config)(struct virtio_transport *transport, uint8_t to[VIRTIO_BLK_CONFIG_BYTES], struct error **err);
    /* `size` bytes of the file, which we have at `base`, are the device's memory from `address` on. Once. */
    bool (*co_share_memory)(struct virtio_transport *transport, int fd, void *base, uint64_t address, size_t size,
                            struct error **err);
    bool (*co_start_queue)(struct virtio_transport *transport, const struct virtio_queue_place *place,
                           struct error **err);
    bool (*co_go)(struct virtio_transport *transport, struct error **err); /* all is set up */
    void (*co_free)(struct virtio_transport *transport);                   /* the watcher hears nothing any more */
};

/* Embedded as the first member. */
struct virtio_transport {
    const struct virtio_transport_ops *ops;
    uint64_t offered;        /* features of the device; the transport's own are left out */
    unsigned queues_max;     /* queues that there are */
    uint16_t queue_size_max; /* places of each, a power of two */
    uint64_t address_first;  /* addresses for the device, on whole pages */
    uint64_t address_last;
    const struct virtio_watcher *watcher; /* set by the user before anything else; NULL: nobody listens */
    void *watcher_opaque;
};
