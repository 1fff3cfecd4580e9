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

bool CO_FN co_job_filter_insert(struct job_filter *filter, struct node *source,
                                const struct job_filter_options *options, struct error **err)
{
    struct handle_options handle = {.name = options->user, .shared = PERM_ALL, .follows_length = true, .stays = true};

    /* Without permissions at first: while the source's users are still beside it, the filter asks for nothing. */
    filter->handle = co_handle_new(filter->node, &handle, err);
    if (!filter->handle) {
        co_graph_release_node(TAKE(filter->node));
        return false;
    }
    if (!co_swap(source, filter->node, err)) {
        co_handle_free(TAKE(filter->handle));
        return false;
    }
    if (co_handle_set_permissions(filter->handle, options->perm, PERM_ALL, err))
        return true;
    co_job_filter_remove(filter);
    return false;
}

void CO_FN co_job_filter_remove(struct job_filter *filter)
{
    struct node *child = edge_child(node_primary(filter->node));
    AUTO(error) err = NULL;

    assert(filter->handle);
    if (!co_handle_set_permissions(filter->handle, 0, PERM_ALL, &err) || !co_swap(filter->node, child, &err))
        log_warning("Node '%s': stays in the graph: %s", node_name(filter->node), error_message(err));
    filter->node = NULL;
    co_handle_free(TAKE(filter->handle));
}
