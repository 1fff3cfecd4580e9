/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A mounted file: requests of the kernel's FUSE (its header linux/fuse.h, version 7) on a file system that has nothing
 * but its root, which is the file.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "export/fuse/ring.h"
#include "loop/lock.h"

struct co_task;
struct export;
struct handle;
struct loop;

enum { FUSE_WRITE_BYTES_MAX = 1 << 20 }; /* data of one request */

/* A way to the kernel, on a loop of its own. Any of them gets any request; an answer goes where its request came from.
 */
struct fuse_queue {
    struct fuse_file *file;
    struct loop *loop;
    int fd; /* non-blocking */
    struct co_task *reader;
    struct co_group requests; /* in flight, that came by the device */
    struct fuse_ring ring;
};

struct fuse_file {
    struct export *export;
    struct handle *handle;
    unsigned queue_count;
    struct fuse_queue *queues;
    struct loop *main; /* where its length changes */
    struct co_mutex resizing;
    bool writable;
    bool growable;
    bool may_chown; /* others than us can use it */

    struct spin_lock spin; /* of the attributes */
    mode_t mode;
    uid_t uid;
    gid_t gid;
    struct timespec accessed;
    struct timespec modified;
    struct timespec changed;

    atomic_uint opened;                        /* files that programs have open */
    atomic_bool gone;                          /* somebody has unmounted it */
    atomic_bool ring_refused;                  /* it has been told that the kernel refuses slots */
    void (*unmounted)(struct fuse_file *file); /* called then, once, on any of the loops */
};

/*
 * Makes a queue for each of `loops`: the first has `fd` (borrowed), the others get descriptors of their own, which
 * fuse_file_close_queues() closes. When the file is unmounted, the queues can be freed.
 */
void CO_FN co_fuse_file_open_queues(struct fuse_file *file, int fd, struct loop *const *loops, unsigned count);
void fuse_file_close_queues(struct fuse_file *file);
void fuse_file_free_queues(struct fuse_file *file);

/* Starts to serve; all is set. */
void fuse_file_start(struct fuse_file *file);

/* Takes no more requests and waits for those in flight. On any loop. */
void CO_FN co_fuse_file_stop(struct fuse_file *file);

/* A request as it came: `in` is its header, `size` bytes in all; checked by co_fuse_handle(). */
struct fuse_request {
    struct fuse_file *file;
    struct fuse_queue *queue;
    struct fuse_slot *slot; /* in which it came, and where the answer goes; NULL: by the device */
    uint8_t *buffer;        /* by the device: `capacity` bytes from the loop's free lists, which hold the request */
    size_t capacity;
    const uint8_t *in;
    size_t size;
    const uint8_t *argument; /* behind the header, or elsewhere */
    size_t argument_bytes;
    const uint8_t *data; /* of a write */
    size_t data_bytes;
};

/* It lies in one piece at `in`, at least the header. */
void fuse_request_place(struct fuse_request *request, const uint8_t *in, size_t size);

/* Does a request and answers it. */
void CO_FN co_fuse_handle(struct fuse_request *request);

/* Bytes in the buffer before a request, so that the data of a write begins on a page. */
size_t fuse_request_offset(void);
