/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Options of nodes that change while the nodes are in use. Main loop. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "gen/types.h"

struct error;
struct graph;
struct node;

/* blockdev-reopen: all of them or none. */
bool CO_FN co_graph_reopen(struct graph *graph, const struct blockdev_options_array *options,
                           struct error **err) MUST_CHECK;

/*
 * Whether the node, and children defined together with it, can be written to. Making it so is refused where its options
 * say read-only. What the options say stays.
 */
bool CO_FN co_node_make_writable(struct node *node, bool writable, struct error **err) MUST_CHECK;
