/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes of a graph in use, all or nothing: who is whose child. A change is begun, steps are added to it, and it is
 * ended; requests that could see it wait from its first step to its end. Main loop. One at a time: the others wait; but
 * who has begun one may make further ones inside it, each all or nothing by itself.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "gen/types.h"

struct block_driver;
struct edge;
struct error;
struct graph;
struct graph_change;
struct node;
struct transaction_ops;

struct graph_change *CO_FN co_graph_change_begin(struct graph *graph) MUST_CHECK;

/* Stops all requests that can reach the node, until the change has ended. Steps do that by themselves. */
void CO_FN co_graph_change_drain(struct graph_change *change, struct node *node);

/*
 * Steps. False and the error: the change can only be undone. Permissions are looked at in the end.
 * replace: all parents of `from` have `to` instead, but those below `to`, and handles that stay.
 * set_child: the edge leads to `to`. add_child: a new edge of `parent`. remove_child: `edge` goes; borrowed until then.
 */
bool CO_FN co_graph_change_replace(struct graph_change *change, struct node *from, struct node *to,
                                   struct error **err) MUST_CHECK;
bool CO_FN co_graph_change_set_child(struct graph_change *change, struct edge *edge, struct node *to,
                                     struct error **err) MUST_CHECK;
bool CO_FN co_graph_change_add_child(struct graph_change *change, struct node *parent, const char *name,
                                     struct node *child, unsigned role, struct error **err) MUST_CHECK;
void CO_FN co_graph_change_remove_child(struct graph_change *change, struct edge *edge);

/* A step of another kind, prepared already (transaction.h); the permissions of `node` are computed anew. */
void graph_change_add(struct graph_change *change, struct node *node, const struct transaction_ops *ops, void *opaque);

/*
 * Ends the change: makes it where `ok` and the permissions allow it, else undoes it. Whether it has been made. Nodes
 * that nobody needs any more are closed.
 */
bool CO_FN co_graph_change_end(struct graph_change *change, bool ok, struct error **err);

/*
 * A node without a parent and without the monitor, to be put to use or released: by the options, or (driver not NULL)
 * of a driver that the schema does not know.
 */
struct node *CO_FN co_graph_open_node(struct graph *graph, const struct block_driver *driver,
                                      const struct blockdev_options *options, struct error **err) MUST_CHECK;
/* Closes it where nobody needs it. */
void CO_FN co_graph_release_node(struct node *node);

/* Whether `below` can be reached from `node`, or is it. */
bool node_reaches(const struct node *node, const struct node *below);

/* See block_driver.is_near (driver.h). Main loop. */
bool node_is_near(const struct node *node);
