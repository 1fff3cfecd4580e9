/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The graph: all nodes of a daemon. It changes on the main loop only, inside a drain of every handle that can reach the
 * change (see docs/block-layer.md).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "gen/types.h"

struct block_driver;
struct error;
struct event_sink;
struct graph;
struct handle;
struct handle_options;
struct node;
struct object_registry;

struct graph *graph_new(struct object_registry *objects, struct event_sink *events);
struct object_registry *graph_objects(const struct graph *graph);

/*
 * Whether nodes that are opened from now on are opened for what they are and not for what they hold: encrypted images
 * without their keys, so that reading and writing them fails. For tools that describe images.
 */
void graph_set_metadata_only(struct graph *graph, bool metadata_only);

/* Uses another table of drivers than block_drivers[], ended by NULL; before any node is added. For tests. */
void graph_set_drivers(struct graph *graph, const struct block_driver *const *drivers);

/* Closes all nodes, flushing what can be written; every handle must be gone. */
void CO_FN co_graph_free(struct graph *graph);

/* blockdev-add and -del. */
bool CO_FN co_graph_add(struct graph *graph, const struct blockdev_options *options, struct error **err) MUST_CHECK;
bool CO_FN co_graph_delete(struct graph *graph, const char *node_name, struct error **err) MUST_CHECK;

/* NULL and the error where this build has no such driver. */
const struct block_driver *graph_find_driver(const struct graph *graph, enum blockdev_driver driver_id,
                                             struct error **err) MUST_CHECK;

/*
 * A handle on the node that `ref` names, or on a new one that it defines: that one needs no name, cannot be deleted by
 * others while the handle is there, and closes when nobody uses it any more. NULL and the error.
 */
struct handle *CO_FN co_graph_open(struct graph *graph, const struct blockdev_ref *ref,
                                   const struct handle_options *options, struct error **err) MUST_CHECK;

/* Borrowed; NULL and "Failed to find node with node-name='x'". */
struct node *graph_find(struct graph *graph, const char *node_name, struct error **err) MUST_CHECK;
const char *node_name(const struct node *node);

/* All nodes, oldest first. Main loop, without suspending in between. */
size_t graph_node_count(const struct graph *graph);
struct node *graph_node_at(const struct graph *graph, size_t index);
