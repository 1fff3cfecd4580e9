/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests over io_uring instead of the device: of Linux 6.14 and later, where the administrator has turned them on.
 * The kernel has a queue a processor; each has slots of ours with memory for one request, which goes back with the
 * answer and comes with the next request.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "loop/lock.h"

struct fuse_file;
struct fuse_out_header;
struct fuse_queue;
struct command_ring;

/* As the kernel wants it (its header linux/fuse.h, 7.42). */
enum { FUSE_RING_OFFER = 1 << 9 }; /* in flags2 of FUSE_INIT */
struct fuse_slot_head {
    uint8_t header[128];   /* struct fuse_in_header, and struct fuse_out_header in its place */
    uint8_t argument[128]; /* the first one of the request */
    uint64_t flags;
    uint64_t commit_id;
    uint32_t payload_bytes; /* further arguments, or what the answer has */
    uint32_t padding;
    uint64_t reserved;
};

struct fuse_slot {
    struct fuse_queue *queue;
    struct fuse_slot_head *head;
    uint8_t *payload; /* FUSE_WRITE_BYTES_MAX, on a page */
    uint16_t kernel_queue;
};

/* Of one of our queues; main loop until it starts, then that queue's loop. */
struct fuse_ring {
    struct command_ring *commands; /* NULL: there is none */
    uint8_t *memory;
    size_t memory_bytes;
    unsigned slot_count;
    struct fuse_slot *slots;
    struct co_group running;
};

/* Makes rings for all queues of `file`; false: the device has to do. On any loop, to which it returns. */
bool CO_FN co_fuse_rings_prepare(struct fuse_file *file);

/* The kernel has been told of them: it waits until all slots are there. As above. */
void CO_FN co_fuse_rings_start(struct fuse_file *file);

/* The kernel gives nothing more. As above; harmless where there are none. */
void CO_FN co_fuse_rings_stop(struct fuse_file *file);

/* Nothing of the mount is left that could write to the slots. */
void fuse_rings_free(struct fuse_file *file);

/* Puts an answer into a slot; its payload may be there already. */
void fuse_slot_answer(struct fuse_slot *slot, const struct fuse_out_header *header, const void *payload, size_t bytes);
