/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A virtio block device (virtio 1.2, section 5.2) without its transport: what it offers, its configuration, and how a
 * request is done. What the guest is told about caching is what happens: a guest that cannot flush, or has chosen
 * write-through, has each write on the disk before it hears that it is done.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "driver/protocol/virtio-blk/virtio.h"

struct error;
struct handle;
struct virtq_buffer;

enum { VIRTIO_BLK_SEGMENTS_MAX = 126 /* of data */ };

struct virtio_blk_options {
    struct handle *handle;
    const char *serial;
    uint32_t block_size; /* bytes: a power of two */
    uint16_t queues;
    bool writable;
    bool writethrough; /* the handle flushes after each write */
};

struct virtio_blk {
    struct handle *handle;
    char serial[VIRTIO_BLK_ID_BYTES]; /* padded with NUL */
    uint32_t block_size;
    uint16_t queues;
    bool writable;
    bool writethrough;
    atomic_bool write_back;    /* as the driver has chosen in the configuration */
    _Atomic uint64_t features; /* that the driver has accepted */
};

/* Checks the options; nothing is owned. */
bool virtio_blk_init(struct virtio_blk *blk, const struct virtio_blk_options *options, struct error **err) MUST_CHECK;

/* A new driver: no features, caching as at first. */
void virtio_blk_reset(struct virtio_blk *blk);

/* The features of the device and of its rings. */
uint64_t virtio_blk_offered(const struct virtio_blk *blk);
void virtio_blk_accept(struct virtio_blk *blk, uint64_t features);

/* The configuration as it is now; writing takes the one byte that a driver may change, false: it may not. */
void virtio_blk_config(const struct virtio_blk *blk, uint8_t to[VIRTIO_BLK_CONFIG_BYTES]);
bool virtio_blk_set_config(struct virtio_blk *blk, uint32_t offset, const uint8_t *from, uint32_t size) MUST_CHECK;

/*
 * Does a request, and writes its status byte. The bytes written to the buffer in *ret_written; false: it cannot even be
 * refused, as there is no place for a status.
 */
bool CO_FN co_virtio_blk_do(struct virtio_blk *blk, struct virtq_buffer *buffer, uint32_t *ret_written) MUST_CHECK;
