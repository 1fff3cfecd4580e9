/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a block driver is: one `static const`-like table at the end of its file, listed in block_drivers[]
 * (src/driver/drivers.c). The core checks the contract around each call, so that a driver sees only requests that
 *  - lie inside the node's length rounded up to the alignment; what of that is beyond the real end reads as zeroes
 *    (writes of a node that may grow may lie beyond),
 *  - are aligned to limits.request_alignment and no larger than transfer_max, zeroes_max or discard_max,
 *  - carry only flags that the driver has said it supports (node_set_flags()),
 *  - have an io_vector whose size is `bytes`, of at most IOV_MAX segments, each aligned to limits.memory_alignment in
 *    address and length (that is a demand: leave it 1 where any memory will do).
 * Requests of one node run at the same time, on any loop: a driver keeps its own state safe. A request returns on the
 * loop on which it was made. Everything else runs on the main loop, one graph change at a time.
 *
 * I/O functions return 0 or a negative errno. NULL stands for what is said at each slot.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/io-vector.h"
#include "block/handle.h"
#include "block/permission.h"
#include "gen/types.h"

struct block_driver_image;
struct edge;
struct error;
struct node;

enum block_driver_kind {
    BLOCK_DRIVER_PROTOCOL, /* at the bottom: talks to the world outside */
    BLOCK_DRIVER_FORMAT,   /* gives its children's bytes a meaning */
    BLOCK_DRIVER_FILTER,   /* shows its filtered child's data, whatever else it does */
};

/* A change of a node's length. */
struct truncate_request {
    uint64_t length; /* bytes; a multiple of limits.request_alignment */
    bool exact;      /* false: where the driver can't shrink or grow (a device), being at least that long is enough */
    bool zero;       /* what is added must read as zeroes */
    enum prealloc_mode preallocation;
};

/* What the core knows of an image from its driver; zero: nothing. */
struct node_info {
    uint32_t cluster_size; /* bytes; 0: has none */
    bool dirty;            /* not closed cleanly */
    bool encrypted;
    bool compressed;
    uint64_t vm_state_offset; /* where the state of a machine lies, behind the disk; 0: nowhere */
};

/*
 * For drivers with work of their own (timers, write-back, connections) and those that hold requests back. `begin`:
 * start nothing new, and let go what waits; then the core closes the handles and waits for the requests; then `co_wait`
 * returns once own work rests; after the change `end`. Begins nest by the core: each driver sees one at a time.
 */
struct block_driver_drain {
    void (*begin)(struct node *node);
    void (*co_wait)(struct node *node); /* optional */
    void (*end)(struct node *node);
};

/*
 * For drivers that must ask the world outside before the node is used in another way: file locks, reopening for
 * writing. `co_prepare`: may `perm` be used and all but `shared` be kept from others? Then exactly one of commit and
 * abort follows. No request of the node is in flight from a prepare to its commit where PERM_WRITE comes or goes.
 */
struct block_driver_permission {
    bool (*co_prepare)(struct node *node, uint32_t perm, uint32_t shared, struct error **err);
    void (*co_commit)(struct node *node);
    void (*co_abort)(struct node *node);
};

/*
 * Options that change while the node is open, inside a drain. `options`: all, checked by the schema; node_read_only()
 * and its like say how it is to be from now on. After a prepare that succeeded comes exactly one of commit and abort;
 * one that fails has left all as it was. Prepared is whatever changes, also what is the core's.
 */
struct block_driver_reopen {
    const char *const *options; /* the driver's own that may change; ends with NULL; NULL: none */
    bool (*co_prepare)(struct node *node, const struct blockdev_options *options, struct error **err);
    void (*co_commit)(struct node *node);
    void (*co_abort)(struct node *node);
    /* The whole change has been made, and still nobody makes a request: what needs the new permissions. Optional. */
    void (*co_after)(struct node *node);
};

/*
 * Storing dirty bitmaps (dirty-bitmap.h) in the image. The driver makes those that are there in co_open(), and writes
 * all persistent ones back in co_close() and when the node becomes read-only. With or without a drain.
 */
struct block_driver_bitmaps {
    /* Whether a bitmap that is not stored yet could be, beside all persistent ones that there are. */
    bool (*co_can_store)(struct node *node, const char *name, uint32_t granularity, struct error **err);
    /* Removes the stored one of that name; none is no error. */
    bool (*co_remove)(struct node *node, const char *name, struct error **err);
};

/* x-blockdev-change: children that come and go while the node is in use. Each makes its own change of the graph. */
struct block_driver_children {
    bool (*co_add)(struct node *node, struct node *child, struct error **err);
    bool (*co_remove)(struct node *node, struct edge *edge, struct error **err);
};

/*
 * For filters that watch steps of the drivers above them (co_edge_event(), node.h) and of the core, so that tests can
 * interfere at each. Any loop; may suspend.
 */
struct block_driver_debug {
    void (*co_event)(struct node *node, enum blkdebug_event event);
    /* Before it is looked up what lies where in the child; a negative errno is the answer. */
    int (*co_block_status)(struct node *node, uint64_t offset, uint64_t bytes);
};

struct block_driver {
    const char *name; /* its value in the schema's BlockdevDriver */
    enum block_driver_kind kind;
    size_t state_size; /* node_state(), zero-filled before co_open() */

    /*
     * Each request goes to the one child as it came, at most shifted: padding, serialising and splitting are left to
     * that child, and the node's limits only tell. Requires all I/O functions but co_flush, which pass all flags on.
     */
    bool passthrough;

    /* co_flush_to_children() flushes the children too, as it sees fit, and the core doesn't. */
    bool flushes_children;

    /*
     * Opens: reads the options of its own branch, adds children (co_node_add_child()), sets the length
     * (node_set_length()) where it has no `co_length`, and the flags it supports. node_read_only() and its like say how
     * to open. On failure it has released all it took itself; children are the core's to drop.
     */
    bool (*co_open)(struct node *node, const struct blockdev_options *options, struct error **err);
    /* Writes back what it holds, and releases all; no request is in flight. The core has flushed before. Optional. */
    void (*co_close)(struct node *node);

    /* Required, but for the writing ones of a driver that only reads (then the node is read-only). */
    int (*co_preadv)(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov, unsigned flags);
    int (*co_pwritev)(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov, unsigned flags);

    /* NULL, or -ENOTSUP: the core writes zeroes from a buffer, unless IO_NO_FALLBACK. */
    int (*co_pwrite_zeroes)(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags);

    /*
     * A write of what the protocol node `from` holds at `from_offset`, without taking it through memory. Protocols are
     * asked only for nodes of drivers with the same function. NULL, or -ENOTSUP: the core reads and writes.
     */
    int (*co_copy_from)(struct node *node, uint64_t offset, uint64_t bytes, struct node *from, uint64_t from_offset,
                        unsigned flags);

    /*
     * A hint: the range, to which nothing was written before, is about to be written to from its start on, nearly all
     * of it. 1: there is room in this very range now, so what is not written to after all wants to be zeroed; 0: there
     * is nothing to be done later. NULL, or -ENOTSUP: of no use here.
     */
    int (*co_reserve)(struct node *node, uint64_t offset, uint64_t bytes);

    /* NULL, or -ENOTSUP: nothing happens, which is no error. Content afterwards is undefined. */
    int (*co_pdiscard)(struct node *node, uint64_t offset, uint64_t bytes);

    /* Writes what the driver caches to its children (NULL: it caches nothing); the core then flushes those written to.
     */
    int (*co_flush_to_children)(struct node *node);
    /* Protocols: makes all completed writes durable. NULL: they always are. */
    int (*co_flush)(struct node *node);
    /* A hint to protocols: co_flush() will be asked for, and what it has to do may be begun. Not waited for. */
    void (*co_flush_soon)(struct node *node);

    /*
     * Whether data comes and goes at the pace of memory, as a rule, so that many requests at once gain nothing. NULL:
     * protocols: no; others: yes. It counts only where it is true of all children.
     */
    bool (*is_near)(const struct node *node);

    /*
     * The state of the extent that starts at `offset`; at least limits.request_alignment of it. `want_zero` false: only
     * BLOCK_ALLOCATED counts, cheap answers are welcome. NULL: filters ask their child, others say DATA and ALLOCATED.
     * BLOCK_RECURSE with `host` and `host_offset` set: the core asks the host too.
     */
    int (*co_block_status)(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                           struct block_extent *ret);

    /* Both the errno and the error; the core takes over the new length. NULL: "Image format driver does not support
     * resize", filters pass it on. */
    int (*co_truncate)(struct node *node, const struct truncate_request *request, struct error **err);

    /* Bytes, or -errno: asked after opening and where somebody else may have changed it. NULL: what was set. */
    int64_t (*co_length)(struct node *node);
    /* Its length where it follows from that of its primary child. NULL: filters have the child's, others their own. */
    uint64_t (*length_by_child)(const struct node *node, uint64_t child_length);

    /* Bytes really used, for "actual-size", or -errno. NULL: filters and formats add up their children. */
    int64_t (*co_allocated_size)(struct node *node);

    /*
     * Fills in what it knows; `limits` holds what the children demand. After opening, and whenever a child or the way
     * it is opened has changed. NULL: the children's are right, or none.
     */
    bool (*co_refresh_limits)(struct node *node, struct node_limits *limits, struct error **err);

    /*
     * What the node needs of `edge` and leaves to others there, where its own parents use `perm` and leave `shared`.
     * NULL: by the edge's role, permissions_by_role().
     */
    void (*child_permissions)(const struct node *node, const struct edge *edge, uint32_t perm, uint32_t shared,
                              uint32_t *ret_perm, uint32_t *ret_shared);

    /*
     * Name for people and for other images' headers: a path or URL from which the node could be opened without further
     * options; owned. NULL: formats have that of their primary child where no option says otherwise. As a result: there
     * is none, and the core makes a "json:{...}" of the options.
     */
    char *(*filename)(const struct node *node);

    /* It comes and goes above nodes, or is of this program's making, and is called by the name of its primary child. */
    bool nameless;

    /* The options that say which data it shows, for that "json:{...}"; children are added. Ends with NULL; NULL: none.
     */
    const char *const *significant_options;

    /* Optional facts; owned results, NULL: none. */
    bool (*co_get_info)(struct node *node, struct node_info *ret, struct error **err);
    struct image_info_specific *(*co_get_specific_info)(struct node *node);
    struct block_stats_specific *(*get_specific_stats)(struct node *node);

    /* Groups; NULL: none of it. */
    const struct block_driver_image *image; /* image.h */
    const struct block_driver_bitmaps *bitmaps;
    const struct block_driver_drain *drain;
    const struct block_driver_permission *permission;
    const struct block_driver_reopen *reopen;
    const struct block_driver_debug *debug;
    const struct block_driver_children *children;
};

/* That of a node. Any loop. */
const struct block_driver *node_driver(const struct node *node);

/* Every driver of this build; ends with NULL. */
extern const struct block_driver *const block_drivers[];
