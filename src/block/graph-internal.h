/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Nodes, edges and handles from inside. Who may touch a field:
 *  - "request": read by requests on any loop without a lock; written on the main loop while no request can be in the
 *    node (before it is open, or inside a drain of all handles that reach it);
 *  - "main": the main loop, between two suspensions or under graph->lock, as said;
 *  - "atomic": any loop;
 *  - "const": never changes after the object is made.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "block/driver.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/node.h"
#include "block/per-loop.h"
#include "block/statistics.h"
#include "block/transaction.h"
#include "block/waiter.h"
#include "block/write-hook.h"
#include "loop/lock.h"

struct dirty_bitmaps;
struct serialiser;

enum {
    NODE_NAME_MAX = 31,
    GRAPH_DEPTH_MAX = 200, /* nodes from a root to a leaf: what a coroutine's stack has room for */
};

/* Of extents, besides enum block_status_flags: the way to `host` leads through a filter, which nobody may go around. */
#define BLOCK_FILTERED (1u << 31)

struct graph {
    struct loop *loop;                         /* const: the main loop */
    struct object_registry *objects;           /* const */
    struct event_sink *events;                 /* const; NULL: nobody listens */
    const struct block_driver *const *drivers; /* const: ends with NULL */
    bool metadata_only;                        /* main */
    struct co_mutex lock;                      /* one change of the graph at a time: co_graph_lock() */
    struct coroutine *lock_owner;              /* main: who has it; NULL: nobody */
    unsigned lock_depth;                       /* main: and how many times */
    GPtrArray *nodes;   /* main: struct node *, all that are open, in the order in which they opened */
    GHashTable *names;  /* main: name -> struct node * */
    GPtrArray *handles; /* main: struct handle * */
    uint64_t generated; /* main: names that have been made up */
    unsigned latencies; /* atomic: nodes that have `latency` */
};

/* How a node takes part in serialising; each includes those before. */
enum node_tracking {
    NODE_TRACKS_NOTHING,
    NODE_TRACKS_WRITES, /* unaligned writes occur: what overlaps them must be known */
    NODE_TRACKS_ALL,    /* requests marked IO_SERIALISING occur */
};

/* Why a write cannot take the short way. */
enum node_hooks {
    NODE_HOOK_THRESHOLD = 1u << 0,
    NODE_HOOK_DETECT_ZEROES = 1u << 1,
    NODE_HOOK_WRITE_HOOKS = 1u << 2,
    NODE_HOOK_FENCED = 1u << 3,
    NODE_HOOK_DIRTY_BITMAPS = 1u << 4, /* comes and goes without a drain */
};

/* A loop's part of a node. */
struct node_part {
    struct spin_lock spin;            /* of the next three */
    struct tracked *requests;         /* in flight, of nodes that track */
    struct publication *publications; /* serialisers to look out for */
    struct waiter *waiters;           /* for the end of a serialiser */
    uint64_t changes;                 /* atomic: writes of any kind that have ended */
    struct io_statistics statistics;  /* atomic: of operations, bytes, failed and highest */
};

/* Of a node that is inactive. */
struct node_sleep {
    const struct block_driver *driver; /* its own; NULL: it is active */
    struct block_driver *sleeper;      /* owned: the one in the place of that */
    char *filename;                    /* owned; what it was called; NULL: nothing */
    bool read_only;                    /* while it is open for a look: as it is to be */
    bool waking;                       /* its driver opens again, and the children are there */
};

struct node {
    const struct block_driver *driver; /* request: changes only as the node becomes active or inactive */
    void *state;                       /* const */
    struct edge *primary;              /* request: the filtered child, or else the primary one; NULL: none */
    struct edge *backing;              /* request: the EDGE_COW child; NULL: none */
    struct node_limits limits;         /* request */
    uint64_t transfer_max;             /* request: limits.transfer_max, or what stands for none */
    unsigned read_flags;               /* request: flags of enum io_flags that the driver takes */
    unsigned write_flags;              /* request */
    unsigned zero_flags;               /* request */
    enum node_tracking tracking;       /* request */
    bool read_only;                    /* request: nobody can write */
    bool no_flush;                     /* request */
    bool discard_unmap;                /* request */
    bool guarded;                      /* request: raw by guess: it may not come to look like another format */
    enum blockdev_detect_zeroes_options detect_zeroes; /* request */
    struct latency *latency;                           /* request: owned; NULL: nobody asks how long requests take */
    GPtrArray *write_hooks;                            /* request: struct write_hook *, borrowed */
    struct per_loop parts;                             /* struct node_part */

    uint64_t length;                     /* atomic, bytes */
    uint32_t hooks;                      /* atomic: enum node_hooks */
    uint64_t write_threshold;            /* atomic, bytes; 0: none */
    struct dirty_bitmaps *dirty_bitmaps; /* atomic; NULL: it never had one */
    uint64_t extra_changes;              /* atomic: node_mark_dirty() */
    int flush_error;                     /* atomic: negative errno of a flush that failed; 0 */
    bool watched;                        /* atomic: somebody above follows its length */
    bool resize_noticed;                 /* atomic: co_node_resized() is on its way */
    struct co_group notices;             /* coroutines that run for the node on the main loop */

    struct co_mutex flush_lock;
    uint64_t flushes_started; /* atomic; written under flush_lock */
    uint64_t flush_covers;    /* flush_lock: the last successful flush was the so manieth started */
    uint64_t flushed_changes; /* flush_lock: node_changes() before that flush */

    struct spin_lock serialisers_spin; /* of the next two; taken last */
    struct serialiser *serialisers;    /* all that wait for their turn or have it, oldest first */
    struct waiter *serialiser_waiters;

    struct graph *graph;              /* const */
    char name[NODE_NAME_MAX + 1];     /* const */
    struct blockdev_options *options; /* main: owned */
    bool hidden;                      /* main: opening or closing: not to be found */
    bool monitor_owned;               /* main: until blockdev-del */
    bool auto_read_only;              /* main */
    bool force_share;                 /* main */
    bool inactive;                    /* main: its driver is closed, and another one in its place; see active.c */
    struct node_sleep sleep;          /* main: what it needs to become active again */
    bool cache_direct;                /* main */
    const struct node *opener;        /* main: who is opening it as a child; NULL: nobody, or it is open */
    unsigned height;                  /* main: nodes on the longest way down, itself included */
    GPtrArray *children;              /* main: struct edge *, owned */
    GPtrArray *parents;               /* main: struct edge *, those of handles too */
    uint32_t perm;                    /* main: what the parents use together */
    uint32_t shared;                  /* main: what all of them leave to others */
    unsigned drains;                  /* main: driver->drain has begun so many times */
    bool resting;                     /* main: it knows */
    bool driver_open;                 /* main: driver->co_open() has succeeded, and co_close() is yet to come */
    char *iothread;                   /* main: recorded by x-blockdev-set-iothread; NULL: the main loop */
    struct io_statistics past;        /* main: of handles that are gone */
};

struct edge {
    char *name;            /* const */
    unsigned role;         /* const */
    struct node *parent;   /* const; NULL: a handle's */
    struct handle *handle; /* const; NULL: a node's */
    struct node *child;    /* request */
    uint32_t perm;         /* atomic; written on the main loop */
    uint32_t shared;       /* main */
};

/* A loop's part of a handle. */
struct handle_part {
    struct spin_lock spin; /* of the next four */
    bool closed;           /* requests wait */
    uint32_t in_flight;
    struct waiter *waiters;          /* at the closed gate */
    struct waiter *drains;           /* for in_flight to be zero */
    struct io_statistics statistics; /* atomic */
};

struct handle {
    struct edge root;      /* request: where requests go */
    struct graph *graph;   /* const */
    bool writethrough;     /* const */
    bool follows_length;   /* const */
    bool stays;            /* const */
    bool occupies;         /* const */
    bool reports_errors;   /* const */
    uint32_t perm;         /* atomic: as root.perm */
    struct per_loop parts; /* struct handle_part */
    bool closed;           /* parts.spin: as in each part */

    bool bears_inactive;          /* const */
    char *name;                   /* const */
    const struct handle_ops *ops; /* const; NULL: none */
    void *opaque;                 /* const */
    unsigned closings;            /* main */
};

/* A step of the core at a node that watches such. */
static inline void CO_FN co_node_event(struct node *node, enum blkdebug_event event)
{
    if (unlikely(node->driver->debug != NULL))
        node->driver->debug->co_event(node, event);
}

static inline struct node_part *node_part(struct node *node)
{
    return per_loop_get(&node->parts);
}

/*
 * --- graph.c: the lock that changes of the graph are made under. Who has it may take it again, so that a change can be
 * made of smaller ones. ---
 */
void CO_FN co_graph_lock(struct graph *graph);
void graph_unlock(struct graph *graph);

/* --- node.c: from options to an open node and back --- */

/* How a new node comes by what its options leave open. Zero: a root. */
struct node_origin {
    const struct node *parent; /* NULL: none */
    unsigned role;             /* its edge's */
};

struct node *CO_FN co_node_open(struct graph *graph, const struct blockdev_options *options,
                                const struct node_origin *origin, struct error **err) MUST_CHECK;
/* The same, of that driver, whatever the options say. */
struct node *CO_FN co_node_open_driver(struct graph *graph, const struct block_driver *driver,
                                       const struct blockdev_options *options, const struct node_origin *origin,
                                       struct error **err) MUST_CHECK;
/* Closes `node` where neither the monitor nor a parent needs it: flushes, drops the children, and so on downward. */
void CO_FN co_node_release(struct node *node);
/* For active.c: opens the driver of an open node once more, with the children that it has; closes it where it is open.
 */
bool CO_FN co_node_open_driver_again(struct node *node, struct error **err) MUST_CHECK;
void CO_FN co_node_close_driver(struct node *node);
bool CO_FN co_node_refresh_limits(struct node *node, struct error **err) MUST_CHECK;
uint64_t node_changes(const struct node *node);

/* --- active.c --- */
/* Closes the driver of a node in which no request is, and makes it inactive; `read_only`: as it is to be from then on.
 */
void CO_FN co_node_sleep(struct node *node, bool read_only);
void node_sleep_done(struct node *node);
/* Opens the driver of an inactive node for reading alone, to look at what is above; and closes it, and those below. */
bool CO_FN co_node_look(struct node *node, struct error **err) MUST_CHECK;
void CO_FN co_node_look_end(struct node *node);

/* --- edge.c --- */
void edge_init(struct edge *edge, const char *name, unsigned role, struct node *parent, struct handle *handle);
void edge_attach(struct edge *edge, struct node *child); /* no permissions yet: perm 0, shared PERM_ALL */
void edge_detach(struct edge *edge);
/* To another child, with the permissions that it has; the caller has seen to it that no cycle comes of it. */
void edge_move(struct edge *edge, struct node *child);
void edge_done(struct edge *edge);
/* Whether they go together as to being active. */
bool edge_may_lead(const struct node *parent, const struct node *child, const char *name, struct error **err);
/* "node 'r0'", "block export 'e0'": who the parent is; owned. */
char *edge_describe_parent(const struct edge *edge);

/* --- permission.c --- */

/*
 * Computes what the `count` nodes and all below them are used for anew, and asks their drivers, as actions of
 * `transaction`: nothing has changed for drivers before it commits. Under graph->lock.
 */
bool CO_FN co_permissions_update(struct transaction *transaction, struct node *const *nodes, unsigned count,
                                 struct error **err) MUST_CHECK;
/* The same after parents have gone or need less, which cannot fail. Under graph->lock. */
void CO_FN co_permissions_relax(struct node *const *nodes, unsigned count);
/* Sets what `edge` uses, undone by an abort. To be followed by co_permissions_update() of its child. */
void edge_set_permissions(struct transaction *transaction, struct edge *edge, uint32_t perm, uint32_t shared);

/* --- drain.c --- */

struct drain {
    GPtrArray *handles;
    GPtrArray *nodes;
};
/* Stops all requests that can reach one of `nodes`. Main loop, under graph->lock; every begin has its end. */
void CO_FN co_drain_begin(struct drain *drain, struct node *const *nodes, unsigned count);
void drain_end(struct drain *drain);
/* Tells the driver of a drain that goes on; to be called as it has opened. */
void node_rest(struct node *node);
/* Closes the gate of one handle, and waits until nothing that came through it is in flight; and opens it. */
void CO_FN co_handle_close_gate(struct handle *handle);
void handle_open_gate(struct handle *handle);

/* --- request.c and its neighbours: requests that a node gets, from handles and edges alike --- */

int CO_FN co_node_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                         unsigned flags);
int CO_FN co_node_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                          unsigned flags);
int CO_FN co_node_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags);
int CO_FN co_node_reserve(struct node *node, uint64_t offset, uint64_t bytes);
int CO_FN co_node_pdiscard(struct node *node, uint64_t offset, uint64_t bytes);
int CO_FN co_node_flush(struct node *node);
void CO_FN co_node_flush_soon(struct node *node);
int CO_FN co_node_block_status(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                               struct block_extent *ret);
int CO_FN co_node_truncate(struct node *node, const struct truncate_request *request, struct error **err);

/* -ENOTSUP: not without taking the data through memory. */
int CO_FN co_node_copy_from(struct node *node, uint64_t offset, uint64_t bytes, struct node *from, uint64_t from_offset,
                            unsigned flags);

/* --- copy.c: as co_handle_copy_range(), between nodes, inside requests of both --- */
int CO_FN co_node_copy_range(struct node *from, uint64_t from_offset, struct node *to, uint64_t to_offset,
                             uint64_t bytes, unsigned flags);

/*
 * The status of an extent as seen through all layers below `node`; its depth in the chain in *ret_depth (0: in none;
 * NULL: not wanted).
 */
int CO_FN co_chain_block_status(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                                struct block_extent *ret, int *ret_depth);

/* --- serialise.c: requests that must not overlap --- */

/* A request in flight on a node that tracks. On the stack of the request. */
struct tracked {
    struct tracked *next;
    struct tracked *before;
    struct node_part *part;
    uint64_t offset;
    uint64_t bytes;
    bool write;
};
/* Waits for what serialises around the range; then the request counts until its end. */
void CO_FN co_track_begin(struct node_part *part, struct tracked *tracked);
void track_end(struct tracked *tracked);

/* A request that keeps the others away from its range. On the stack of the request. */
struct serialiser {
    struct serialiser *next; /* node->serialisers_spin */
    struct coroutine *coroutine;
    uint64_t offset;
    uint64_t bytes;
    bool reads_too;
    bool published;      /* node->serialisers_spin: others stop for it */
    uint32_t overlapped; /* atomic: requests that it waits for, and one for itself until it has found all */
};
/* Waits for its turn and for what overlaps. 0, or -EBUSY where it would wait and `no_wait` says not to. */
int CO_FN co_serialise_begin(struct node *node, struct serialiser *serialiser, bool no_wait) MUST_CHECK;
void serialise_end(struct node *node, struct serialiser *serialiser);
void node_part_init(struct per_loop *per_loop, void *part);

/* --- padding.c: ranges that a driver does not take as they are --- */

/* Whether the driver takes the range and the memory as they are. */
bool node_takes(const struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov);
int CO_FN co_pieces_read(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                         unsigned flags);
/* `iov` NULL: zeroes. The range must be serialised where it is unaligned. */
int CO_FN co_pieces_write(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                          unsigned flags);

/* --- write-threshold.c: a write is about to change what lies before `end`; any loop --- */
void write_threshold_check(struct node *node, uint64_t end);
void node_set_hook(struct node *node, enum node_hooks hook, bool set);

/* --- length.c --- */
/* After a write up to `end`. Any loop. */
void node_raise_length(struct node *node, uint64_t end);
/* Asks the driver, or the child of a filter; at most NODE_LENGTH_MAX. */
bool CO_FN co_node_refresh_length(struct node *node, struct error **err) MUST_CHECK;
