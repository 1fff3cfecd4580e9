/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Nodes that have left their images to another process: their drivers are closed, requests fail, and they keep others
 * from nothing. Main loop.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct error;
struct graph;
struct node;

bool node_is_active(const struct node *node);

/*
 * blockdev-set-active: lets the node of that name (NULL: all nodes) do I/O, with all below it, or stops it, with what
 * below it only inactive nodes use. Nothing happens to those that are so already. Where one cannot
 * start, none has; where one cannot be stopped, others may have been.
 */
bool CO_FN co_graph_set_active(struct graph *graph, const char *node_name, bool active, struct error **err) MUST_CHECK;
