/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QMP commands that look at block nodes. */
#include <inttypes.h>

#include "base/error.h"
#include "block/describe.h"
#include "block/graph.h"
#include "block/latency.h"
#include "block/node.h"
#include "gen/commands.h"
#include "gen/types.h"
#include "loop/loop.h"
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

/* --- latencies --- */

static bool check_boundaries(const struct uint64_array *boundaries, const char *name, struct error **err)
{
    if (!boundaries)
        return true;
    if (!boundaries->count || boundaries->count > LATENCY_BOUNDARIES_MAX)
        return error_set(err, "Parameter '%s' expects 1 to %d limits: it has %zu", name, LATENCY_BOUNDARIES_MAX,
                         boundaries->count);
    for (size_t i = 0; i < boundaries->count; i++) {
        uint64_t before = i ? boundaries->items[i - 1] : 0;

        if (boundaries->items[i] <= before)
            return error_set(err,
                             "Parameter '%s' expects ascending limits above zero: %" PRIu64 " comes after %" PRIu64,
                             name, boundaries->items[i], before);
    }
    return true;
}

static bool check_all_boundaries(const struct block_latency_histogram_set_arg *arg, struct error **err)
{
    return check_boundaries(arg->boundaries, "boundaries", err) &&
           check_boundaries(arg->boundaries_read, "boundaries-read", err) &&
           check_boundaries(arg->boundaries_zap, "boundaries-zap", err) &&
           check_boundaries(arg->boundaries_write, "boundaries-write", err) &&
           check_boundaries(arg->boundaries_flush, "boundaries-flush", err);
}

bool CO_FN co_qmp_block_latency_histogram_set(struct daemon *daemon, const struct block_latency_histogram_set_arg *arg,
                                              struct error **err)
{
    const struct uint64_array *wanted[LATENCY_KINDS] = {
        [IO_KIND_READ] = arg->boundaries_read ? arg->boundaries_read : arg->boundaries,
        [IO_KIND_WRITE] = arg->boundaries_write ? arg->boundaries_write : arg->boundaries,
        [IO_KIND_FLUSH] = arg->boundaries_flush ? arg->boundaries_flush : arg->boundaries,
    };
    struct node *node = graph_find(daemon->graph, arg->id, err);
    bool none = !arg->boundaries && !arg->boundaries_read && !arg->boundaries_zap && !arg->boundaries_write &&
                !arg->boundaries_flush;
    struct latency *latency;

    if (!node || !check_all_boundaries(arg, err))
        return false;
    latency = none ? node_latency(node) : co_node_make_latency(node);
    for (unsigned kind = 0; latency && kind < LATENCY_KINDS; kind++) {
        if (wanted[kind] || none)
            latency_set_boundaries(latency, kind, none ? NULL : wanted[kind]->items, none ? 0 : wanted[kind]->count);
    }
    co_node_drop_idle_latency(node);
    return true;
}

bool CO_FN co_qmp_x_block_latency_intervals_set(struct daemon *daemon,
                                                const struct x_block_latency_intervals_set_arg *arg, struct error **err)
{
    struct node *node = graph_find(daemon->graph, arg->id, err);
    const struct uint32_array *intervals = arg->intervals;

    if (!node)
        return false;
    if (intervals->count > LATENCY_INTERVALS_MAX)
        return error_set(err, "Parameter 'intervals' expects at most %d lengths: it has %zu", LATENCY_INTERVALS_MAX,
                         intervals->count);
    for (size_t i = 0; i < intervals->count; i++) {
        if (!intervals->items[i])
            return error_set(err, "Parameter 'intervals' expects lengths above zero");
    }
    latency_set_intervals(co_node_make_latency(node), intervals->items, intervals->count, loop_now_ns());
    co_node_drop_idle_latency(node);
    return true;
}

bool CO_FN co_qmp_x_debug_query_block_graph(struct daemon *daemon, struct x_dbg_block_graph **ret, struct error **err)
{
    *ret = graph_describe_edges(daemon->graph);
    return true;
}
