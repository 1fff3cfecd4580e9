/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Handles: the only way into the graph for its users (exports, jobs, monitor commands, tools). Requests may be made on
 * any loop. All I/O functions return 0 or a negative errno, check bounds and permissions, and split, pad and align by
 * themselves. Making, freeing and everything else not marked I/O is for the main loop.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/io-vector.h"
#include "block/permission.h"

struct edge;
struct error;
struct handle;
struct io_statistics;
struct node;
struct truncate_request;

/* What a handle's owner wants to hear of; each is called on the main loop and optional. */
struct handle_ops {
    void (*resized)(void *opaque, uint64_t length); /* bytes */
    void (*co_drain_begin)(void *opaque);           /* new requests will wait at the handle until drain_end */
    void (*drain_end)(void *opaque);
};

struct handle_options {
    const char *name;    /* who it is, for messages: "block export 'exp0'"; copied */
    uint32_t perm;       /* enum permission bits: used ... */
    uint32_t shared;     /* ... and left to others */
    bool writethrough;   /* flush after every write */
    bool follows_length; /* bears that the length changes: others in the graph may resize, whatever is shared */
    bool bears_inactive; /* its node may be or become inactive: requests fail then */
    bool stays;          /* at its node, also where another one takes that node's place for its parents */
    bool occupies;       /* node_check_idle() refuses its node meanwhile */
    bool reports_errors; /* requests that fail send BLOCK_IO_ERROR */
    const struct handle_ops *ops;
    void *opaque;
};

/* A root on `node`; NULL and the error where the permissions clash ("Conflicts with use by ..."). */
struct handle *CO_FN co_handle_new(struct node *node, const struct handle_options *options,
                                   struct error **err) MUST_CHECK;

/* Nobody may make a request any more; what is in flight is waited for. NULL is allowed. */
void CO_FN co_handle_free(struct handle *handle);
bool CO_FN co_handle_set_permissions(struct handle *handle, uint32_t perm, uint32_t shared,
                                     struct error **err) MUST_CHECK;
struct node *handle_node(const struct handle *handle);

/* Its root, for functions of drivers that work on edges. Requests made there are not the handle's: no drain waits for
 * them. */
struct edge *handle_edge(struct handle *handle);
const char *handle_name(const struct handle *handle); /* NULL: none */

/* What has been done through it. Any loop. */
void handle_get_statistics(const struct handle *handle, struct io_statistics *ret);

/* Waits until no request made through the handle is in flight. */
void CO_FN co_handle_drain(struct handle *handle);

/* I/O. Flags: */
enum io_flags {
    IO_FUA = 1u << 0,         /* writes: durable before the reply */
    IO_MAY_UNMAP = 1u << 1,   /* write zeroes: holes are welcome */
    IO_NO_FALLBACK = 1u << 2, /* write zeroes: only if faster than writing; else -ENOTSUP */
    IO_UNCHANGED = 1u << 3,   /* the visible data stays the same (PERM_WRITE_UNCHANGED) */
    IO_PREFETCH = 1u << 4,    /* reads: into the caches only; `iov` may be NULL */
    IO_COMPRESSED = 1u << 5,  /* writes: stored compressed; -ENOTSUP where the format has no such thing */
    IO_SERIALISING = 1u << 6, /* no overlapping request beside this one; needs node_allow_serialising() (node.h) */
    IO_NO_WAIT = 1u << 7,     /* with IO_SERIALISING: -EBUSY rather than waiting */
    IO_REGISTERED = 1u << 8,  /* the memory is registered with the loop */
};
int CO_FN co_handle_preadv(struct handle *handle, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                           unsigned flags);
int CO_FN co_handle_pwritev(struct handle *handle, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                            unsigned flags);
int CO_FN co_handle_pread(struct handle *handle, uint64_t offset, uint64_t bytes, void *to, unsigned flags);
int CO_FN co_handle_pwrite(struct handle *handle, uint64_t offset, uint64_t bytes, const void *from, unsigned flags);
int CO_FN co_handle_pwrite_zeroes(struct handle *handle, uint64_t offset, uint64_t bytes, unsigned flags);
int CO_FN co_handle_pdiscard(struct handle *handle, uint64_t offset, uint64_t bytes);
int CO_FN co_handle_flush(struct handle *handle);

/* As co_reserve of drivers (driver.h), inside of the node: a hint that a large range will be written to. */
int CO_FN co_handle_reserve(struct handle *handle, uint64_t offset, uint64_t bytes);

/*
 * Copies: by the system or the storage where both ends lie there as they are, zeroes as zeroes, and else through
 * memory (with IO_NO_FALLBACK: then -ENOTSUP, and a part may have been copied). Flags as of a write. Who writes to the
 * source at the same time decides what is copied of that. Errors of either side, -ENOSPC past the end of the target.
 */
int CO_FN co_handle_copy_range(struct handle *from, uint64_t from_offset, struct handle *to, uint64_t to_offset,
                               uint64_t bytes, unsigned flags);

/*
 * Runs `co_call` as one request of the handle: while the node is drained it waits, and a drain waits for it. The call
 * may use the node as its driver does, by its edges. What it returns.
 */
int CO_FN co_handle_call(struct handle *handle, int (*co_call)(struct node *node, void *opaque), void *opaque);

/*
 * The state of a virtual machine, which some formats have beside the disk: as many bytes from `offset` on as `iov` has.
 * What was never written reads as zeroes. -ENOTSUP: the format has no place for it; -EFBIG: so far is none.
 */
int CO_FN co_handle_vm_state_read(struct handle *handle, uint64_t offset, const struct io_vector *iov);
int CO_FN co_handle_vm_state_write(struct handle *handle, uint64_t offset, const struct io_vector *iov);

/* What lies at a place. */
enum block_status_flags {
    BLOCK_DATA = 1u << 0,         /* reading fetches stored data */
    BLOCK_ZERO = 1u << 1,         /* reads as zeroes */
    BLOCK_OFFSET_VALID = 1u << 2, /* `host_offset` of `host` is where it lies */
    BLOCK_ALLOCATED = 1u << 3,    /* this layer decides, not its backing */
    BLOCK_RECURSE = 1u << 4,      /* the child at host_offset may know better (inside drivers) */
    BLOCK_EOF = 1u << 5,          /* the extent ends at the node's end */
    BLOCK_COMPRESSED = 1u << 6,
};
struct block_extent {
    uint64_t bytes; /* > 0, at most what was asked */
    unsigned flags;
    uint64_t host_offset;
    struct node *host; /* borrowed until the next drain */
};
int CO_FN co_handle_block_status(struct handle *handle, uint64_t offset, uint64_t bytes, struct block_extent *ret);

/* How deep in the backing chain the data of a place lies: 0 nowhere, 1 top layer, ... The extent's length in
 * *ret_bytes. */
int CO_FN co_handle_allocation_depth(struct handle *handle, uint64_t offset, uint64_t bytes, uint64_t *ret_bytes);

/* Bytes that the image takes up, or -errno. */
int64_t CO_FN co_handle_allocated_size(struct handle *handle);

uint64_t handle_length(const struct handle *handle); /* bytes; any loop */
bool handle_is_read_only(const struct handle *handle);

struct node_limits {
    uint32_t request_alignment; /* power of two; requests of drivers keep it, of handles need not */
    uint32_t memory_alignment;
    uint32_t transfer_max; /* bytes, 0: none */
    uint32_t transfer_optimal;
    uint64_t zeroes_max;
    uint64_t discard_max;
    uint32_t zeroes_alignment;
    uint32_t discard_alignment;
};
const struct node_limits *handle_limits(const struct handle *handle);
int CO_FN co_handle_truncate(struct handle *handle, uint64_t length, struct error **err); /* block_resize */

/* The same as `request` says (driver.h): with preallocation, or where getting near the length is enough. */
int CO_FN co_handle_truncate_as(struct handle *handle, const struct truncate_request *request, struct error **err);
