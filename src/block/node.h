/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A node as its driver sees it, and the edges through which the driver reaches its children. Users outside of the graph
 * have handles (handle.h) instead.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/io-vector.h"
#include "block/handle.h"
#include "gen/types.h"

struct block_driver;
struct blockdev_options;
struct blockdev_ref;
struct edge;
struct error;
struct event_sink;
struct graph;
struct io_statistics;
struct latency;
struct node;
struct object_registry;
struct truncate_request;

/* The driver's own state, `state_size` bytes; lives as long as the node. */
void *node_state(const struct node *node);
const char *node_name(const struct node *node);
const char *node_driver_name(const struct node *node);

/* Its name for people: a plain file name or URL, NULL where that would not say it all; or that or "json:{...}". Owned.
 */
char *node_plain_filename(const struct node *node);
char *node_filename(const struct node *node);

/* All options with which the node was opened; borrowed until it is reopened. Main loop. */
const struct blockdev_options *node_options(const struct node *node);
struct graph *node_graph(const struct node *node);

/* Adds the nodes (struct node *, borrowed) whose backing image it is to the GPtrArray `overlays`. Main loop. */
void node_list_overlays(const struct node *node, GPtrArray *overlays);
struct object_registry *node_objects(const struct node *node);
struct event_sink *node_events(const struct node *node);

/* Whether it is opened only to be described (graph_set_metadata_only()): a missing key is no error. */
bool node_metadata_only(const struct node *node);

/*
 * How to open, inherited from the parent where the options are silent. Main loop.
 * node_read_only(): it is open for reading only now, or to be opened so.
 * node_auto_read_only(): the driver may open for reading only where it cannot write, or as long as nobody writes; it
 * says so by node_set_read_only() (not wanted otherwise).
 */
bool node_read_only(const struct node *node);
bool node_auto_read_only(const struct node *node);
void node_set_read_only(struct node *node, bool read_only);
bool node_force_share(const struct node *node);
bool node_cache_direct(const struct node *node);
bool node_cache_no_flush(const struct node *node);
bool node_discard_unmap(const struct node *node);
bool node_is_guarded(const struct node *node); /* raw because it looked like nothing else, see node_guard_raw() */

/* What the parents together use and share now: enum permission. Main loop. */
uint32_t node_used_permissions(const struct node *node);
uint32_t node_shared_permissions(const struct node *node);

/*
 * Flags of enum io_flags that the driver takes in writes (of IO_FUA, IO_COMPRESSED, IO_REGISTERED, IO_UNCHANGED) and in
 * zero writes (of IO_FUA, IO_MAY_UNMAP, IO_NO_FALLBACK, IO_UNCHANGED). The core emulates or drops the others; without
 * IO_COMPRESSED or IO_NO_FALLBACK it refuses such requests with -ENOTSUP. In co_open() or inside a drain.
 */
void node_set_flags(struct node *node, unsigned write_flags, unsigned zero_flags);

/* The same for reads: of IO_PREFETCH (without it the core reads and drops the data) and IO_REGISTERED. */
void node_set_read_flags(struct node *node, unsigned read_flags);

/* From now on requests marked IO_SERIALISING may be made to it. In open or inside a drain; there is no way back. */
void node_allow_serialising(struct node *node);

/* Bytes. Reading: any loop. Setting: any loop; those who look at the length from above are told on the main loop. */
uint64_t node_length(const struct node *node);
void node_set_length(struct node *node, uint64_t length);
enum { NODE_LENGTH_ALIGNMENT = 512 }; /* what is set is rounded up: drivers show zeroes beyond their real end */
#define NODE_LENGTH_MAX ((uint64_t)INT64_MAX & ~(uint64_t)0x3fffffff) /* rounded up to any alignment it still fits */

/* block_resize: with the permission for it, inside a drain. Main loop, outside of other graph changes. */
bool CO_FN co_node_resize(struct node *node, uint64_t length, struct error **err) MUST_CHECK;

/* What has been done to it, through whichever parent; times are those of its handles. Main loop. */
void node_get_statistics(const struct node *node, struct io_statistics *ret);

/* What measures how long the node's requests take; NULL: nothing does. Main loop. */
struct latency *node_latency(const struct node *node);

/* The same, made where there is none. Waits for requests in flight. Main loop. */
struct latency *CO_FN co_node_make_latency(struct node *node);

/* Takes it away if it has nothing to do any more. Waits for requests in flight. Main loop. */
void CO_FN co_node_drop_idle_latency(struct node *node);

/* What x-blockdev-set-iothread says; any loop serves any node, so it is only remembered. NULL: the main loop. */
void node_set_iothread(struct node *node, const char *id);

/* Another node of its graph; borrowed; NULL and "Failed to find node with node-name='x'". Main loop. */
struct node *node_find_sibling(const struct node *node, const char *name, struct error **err) MUST_CHECK;

/* Whether it takes writes marked IO_COMPRESSED. Main loop. */
bool node_can_compress(const struct node *node);

/* Whether anybody uses it: another node, or somebody outside of the graph. Main loop. */
bool node_has_parents(const struct node *node);

/* Whether somebody outside of the graph uses it directly. Main loop. */
bool node_has_handles(const struct node *node);

/*
 * Whether no handle occupies it: a job does that with the nodes whose place and role it counts on. False and "Node 'x'
 * is busy: block device is in use by ...". Main loop.
 */
bool node_check_idle(const struct node *node, struct error **err) MUST_CHECK;

/* Whether it is no other node's backing image; else "Node 'x' is busy: node is used as backing hd of 'y'". Main loop.
 */
bool node_check_no_overlay(const struct node *node, struct error **err) MUST_CHECK;

/* As of the last refresh; constant outside of a drain. Any loop. */
const struct node_limits *node_get_limits(const struct node *node);

/* An event BLOCK_WRITE_THRESHOLD once a write reaches beyond `threshold` bytes; 0: none. Any loop. */
void node_set_write_threshold(struct node *node, uint64_t threshold);
uint64_t node_get_write_threshold(const struct node *node);

/* There is something to flush although no write came through the node (write-back of the driver itself). Any loop. */
void node_mark_dirty(struct node *node);

/*
 * Corruption found while running: from now on writes fail with -EIO and BLOCK_IMAGE_CORRUPTED has been sent, and
 * logged, once.
 * `offset` and `bytes`: where in the child, bytes 0: nowhere in particular. Any loop.
 */
void node_fence(struct node *node, uint64_t offset, uint64_t bytes, const char *format, ...) PRINTF_LIKE(4, 5);

/* What a child is to its parent. */
enum edge_role {
    EDGE_DATA = 1u << 0,     /* holds data that the parent shows */
    EDGE_METADATA = 1u << 1, /* holds the parent's own structures */
    EDGE_FILTERED = 1u << 2, /* shown as it is by a filter */
    EDGE_COW = 1u << 3,      /* shown where the parent has nothing: a backing image */
    EDGE_PRIMARY = 1u << 4,  /* the one that stands for the parent: gives it its name and its size on disk */
};

/*
 * Adds the child that `ref` defines or names; in co_open(), or inside a drain. `name` ("file", "backing", ...) is the
 * option's name and copied. The edge is the node's and may be used at once; borrowed until it is removed.
 * NULL and the error: the child cannot be opened, does not exist, or the permissions clash.
 */
struct edge *CO_FN co_node_add_child(struct node *node, const char *name, const struct blockdev_ref *ref, unsigned role,
                                     struct error **err) MUST_CHECK;

struct node *edge_child(const struct edge *edge);
const char *edge_name(const struct edge *edge);
unsigned edge_role(const struct edge *edge);

/* The child by that name, the filtered or else primary one, the backing one; NULL: there is none. */
struct edge *node_child(const struct node *node, const char *name);
struct edge *node_primary(const struct node *node);
struct edge *node_backing(const struct node *node);

/*
 * Requests to a child, from inside a request of the parent (or in open, close, and the driver's own work that its drain
 * hooks stop). As those of handles: bounds are checked, what is unaligned or too large is padded and split; but nothing
 * is counted and no gate holds them back. Writes past the end grow the child where the edge has PERM_RESIZE.
 */
int CO_FN co_edge_preadv(struct edge *edge, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                         unsigned flags);
int CO_FN co_edge_pwritev(struct edge *edge, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                          unsigned flags);
/*
 * For drivers whose blocks are larger than the child's: where the edge may not resize, what of the range lies beyond
 * the child's end is padding, and left out.
 */
int CO_FN co_edge_pwritev_padded(struct edge *edge, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                 unsigned flags);
int CO_FN co_edge_pwrite_zeroes_padded(struct edge *edge, uint64_t offset, uint64_t bytes, unsigned flags);
int CO_FN co_edge_pread(struct edge *edge, uint64_t offset, uint64_t bytes, void *to, unsigned flags);
int CO_FN co_edge_pwrite(struct edge *edge, uint64_t offset, uint64_t bytes, const void *from, unsigned flags);
int CO_FN co_edge_pwrite_zeroes(struct edge *edge, uint64_t offset, uint64_t bytes, unsigned flags);
int CO_FN co_edge_pdiscard(struct edge *edge, uint64_t offset, uint64_t bytes);
/* As co_copy_from of drivers (driver.h): -ENOTSUP where it can't be done. */
int CO_FN co_edge_copy_from(struct edge *edge, uint64_t offset, uint64_t bytes, struct node *from, uint64_t from_offset,
                            unsigned flags);
int CO_FN co_edge_flush(struct edge *edge);
/* A flush will come: begins what there is to do for it. It is waited for as little as the system can. */
void CO_FN co_edge_flush_soon(struct edge *edge);
/* As co_reserve of drivers (driver.h); the range may lie beyond the end of a child that may grow. */
int CO_FN co_edge_reserve(struct edge *edge, uint64_t offset, uint64_t bytes);
int CO_FN co_edge_block_status(struct edge *edge, uint64_t offset, uint64_t bytes, bool want_zero,
                               struct block_extent *ret);
/*
 * Whether what lies at `offset` is decided by a layer above `base` (NULL: any) of the chain: 1 or 0, for *ret_bytes
 * from there; or a negative errno.
 */
int CO_FN co_edge_allocated_above(struct edge *edge, const struct node *base, uint64_t offset, uint64_t bytes,
                                  uint64_t *ret_bytes);
/*
 * Says which step the next request to the child belongs to, for those who test the step (`debug` of drivers); for all
 * others nothing happens. Any loop; may suspend.
 */
void CO_FN co_edge_event(struct edge *edge, enum blkdebug_event event);
/* Bytes of storage that the child uses, or -errno: not known. Main loop. */
int64_t CO_FN co_edge_allocated_size(struct edge *edge);
int CO_FN co_edge_truncate(struct edge *edge, const struct truncate_request *request, struct error **err);
