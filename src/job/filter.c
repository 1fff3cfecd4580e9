/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/filter.h"

#include <assert.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "block/graph-change.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/node.h"

struct node *job_find_node(struct graph *graph, const char *name, struct error **err)
{
    struct node *node = graph_find(graph, name, NULL);

    if (!node)
        error_set(err, "Cannot find device='%s' nor node-name='%s'", name, name);
    return node;
}

/* Parents of `from` become parents of `to`. */
static bool CO_FN co_swap(struct node *from, struct node *to, struct error **err)
{
    struct graph_change *change = co_graph_change_begin(node_graph(from));

    return co_graph_change_end(change, co_graph_change_replace(change, from, to, err), err);
}

bool CO_FN co_job_filter_hold(struct job_filter *filter, struct node *node, enum job_type type, struct error **err)
{
    g_autofree char *name = g_strdup_printf("block job: %s", job_type_name(type));
    struct handle_options options = {
        .name = name, .shared = PERM_ALL, .follows_length = true, .stays = true, .occupies = true};
    struct handle *handle = node_check_idle(node, err) ? co_handle_new(node, &options, err) : NULL;

    if (!handle)
        return false;
    if (!filter->holds)
        filter->holds = g_ptr_array_new();
    g_ptr_array_add(filter->holds, handle);
    return true;
}

void CO_FN co_job_filter_let_go(struct job_filter *filter)
{
    GPtrArray *holds = TAKE(filter->holds);

    for (unsigned i = 0; holds && i < holds->len; i++)
        co_handle_free(g_ptr_array_index(holds, i));
    if (holds)
        g_ptr_array_free(holds, true);
}

bool CO_FN co_job_filter_insert(struct job_filter *filter, struct node *source,
                                const struct job_filter_options *options, struct error **err)
{
    struct handle_options handle = {.name = options->user, .shared = PERM_ALL, .follows_length = true, .stays = true};

    /* Without permissions at first: while the source's users are still beside it, the filter asks for nothing. */
    filter->handle = co_handle_new(filter->node, &handle, err);
    if (!filter->handle || !co_swap(source, filter->node, err))
        return false;
    filter->inserted = true;
    return co_handle_set_permissions(filter->handle, options->perm, PERM_ALL, err);
}

void CO_FN co_job_filter_give_up(struct job_filter *filter)
{
    struct node *node;

    if (filter->inserted) {
        co_job_filter_remove(filter);
        return;
    }
    node = TAKE(filter->node);
    /* With its handle goes what nobody else has. */
    if (filter->handle)
        co_handle_free(TAKE(filter->handle));
    else if (node)
        co_graph_release_node(node);
    co_job_filter_let_go(filter);
}

/* What the filter stands on is looked at inside the change: a snapshot may have come between before. */
static bool CO_FN co_take_out(struct node *node, struct error **err)
{
    struct graph_change *change = co_graph_change_begin(node_graph(node));

    return co_graph_change_end(change, co_graph_change_replace(change, node, edge_child(node_primary(node)), err), err);
}

void CO_FN co_job_filter_remove(struct job_filter *filter)
{
    AUTO(error) err = NULL;

    assert(filter->handle);
    if (!co_handle_set_permissions(filter->handle, 0, PERM_ALL, &err) || !co_take_out(filter->node, &err))
        log_warning("Node '%s': stays in the graph: %s", node_name(filter->node), error_message(err));
    filter->node = NULL;
    filter->inserted = false;
    co_handle_free(TAKE(filter->handle));
    co_job_filter_let_go(filter);
}
