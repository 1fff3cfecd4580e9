/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QMP commands that look at block nodes. */
#include "block/describe.h"
#include "block/graph.h"
#include "gen/commands.h"
#include "gen/types.h"
#include "qmp/daemon.h"

/* Devices are for virtual machines; there is none here. */
bool CO_FN co_qmp_query_block(struct daemon *daemon, struct block_info_array **ret, struct error **err)
{
    *ret = g_new0(struct block_info_array, 1);
    return true;
}

bool CO_FN co_qmp_query_named_block_nodes(struct daemon *daemon, const struct query_named_block_nodes_arg *arg,
                                          struct block_device_info_array **ret, struct error **err)
{
    *ret = co_graph_describe(daemon->graph, arg->has_flat && arg->flat);
    return true;
}

bool CO_FN co_qmp_query_blockstats(struct daemon *daemon, const struct query_blockstats_arg *arg,
                                   struct block_stats_array **ret, struct error **err)
{
    if (arg->has_query_nodes && arg->query_nodes)
        *ret = graph_describe_statistics(daemon->graph);
    else
        *ret = g_new0(struct block_stats_array, 1);
    return true;
}

bool CO_FN co_qmp_x_debug_query_block_graph(struct daemon *daemon, struct x_dbg_block_graph **ret, struct error **err)
{
    *ret = graph_describe_edges(daemon->graph);
    return true;
}
