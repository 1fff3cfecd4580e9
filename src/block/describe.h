/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Nodes and the graph as QMP clients and the tools see them. All results are owned. Main loop. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "gen/types.h"

struct graph;
struct node;
struct node_info;

/* All nodes, newest first. `flat`: without the descriptions of backing images. Takes the graph's lock. */
struct block_device_info_array *CO_FN co_graph_describe(struct graph *graph, bool flat);

/* What the driver knows of the image, or, where a node shows its child, the child's; false: nothing. */
bool CO_FN co_node_get_info(struct node *node, struct node_info *ret);

/* The image of a node; `chain`: with its backing images inside. The graph must not change meanwhile. */
struct image_info *CO_FN co_node_describe_image(struct node *node, bool chain);

/* What has been done to each node and to its storage inside, oldest first. */
struct block_stats_array *graph_describe_statistics(struct graph *graph);

/* Nodes, handles and edges with permissions. */
struct x_dbg_block_graph *graph_describe_edges(struct graph *graph);
