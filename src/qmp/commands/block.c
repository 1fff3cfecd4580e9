/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QMP commands that change block nodes. */
#include <inttypes.h>

#include "base/error.h"
#include "block/active.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/node.h"
#include "block/reopen.h"
#include "export/export.h"
#include "gen/commands.h"
#include "gen/types.h"
#include "object/iothread.h"
#include "object/object.h"
#include "qmp/daemon.h"

bool CO_FN co_qmp_blockdev_add(struct daemon *daemon, const struct blockdev_options *arg, struct error **err)
{
    return co_graph_add(daemon->graph, arg, err);
}

bool CO_FN co_qmp_blockdev_del(struct daemon *daemon, const struct blockdev_del_arg *arg, struct error **err)
{
    return co_graph_delete(daemon->graph, arg->node_name, err);
}

bool CO_FN co_qmp_blockdev_reopen(struct daemon *daemon, const struct blockdev_reopen_arg *arg, struct error **err)
{
    return co_graph_reopen(daemon->graph, arg->options, err);
}

/* A child that a job counts on stays, also one below the job's filter. */
static bool child_is_idle(const struct edge *edge, struct error **err)
{
    while (edge && node_check_idle(edge_child(edge), err)) {
        edge = node_primary(edge_child(edge));
        if (!edge || !(edge_role(edge) & EDGE_FILTERED))
            return true;
    }
    return false;
}

bool CO_FN co_qmp_x_blockdev_change(struct daemon *daemon, const struct x_blockdev_change_arg *arg, struct error **err)
{
    struct node *parent = graph_find(daemon->graph, arg->parent, NULL);
    const struct block_driver_children *children = parent ? node_driver(parent)->children : NULL;
    struct node *child;

    if (!parent)
        return error_set(err, "Cannot find device='%s' nor node-name='%s'", arg->parent, arg->parent);
    if (!arg->child == !arg->node)
        return error_set(err, arg->child ? "The parameters child and node are in conflict"
                                         : "Either child or node must be specified");
    if (arg->child) {
        if (!node_child(parent, arg->child))
            return error_set(err, "Node '%s' does not have child '%s'", arg->parent, arg->child);
        if (!children)
            return error_set(err, "The node %s does not support removing a child", arg->parent);
        return child_is_idle(node_child(parent, arg->child), err) &&
               children->co_remove(parent, node_child(parent, arg->child), err);
    }
    child = graph_find(daemon->graph, arg->node, NULL);
    if (!child)
        return error_set(err, "Node '%s' not found", arg->node);
    if (!children)
        return error_set(err, "The node %s does not support adding a child", arg->parent);
    if (node_has_parents(child))
        return error_set(err, "The node %s already has a parent", arg->node);
    return children->co_add(parent, child, err);
}

bool CO_FN co_qmp_blockdev_set_active(struct daemon *daemon, const struct blockdev_set_active_arg *arg,
                                      struct error **err)
{
    return co_graph_set_active(daemon->graph, arg->node_name, arg->active, err);
}

/* Devices are for virtual machines; here a name of one never matches. */
static struct node *find_device_or_node(struct daemon *daemon, const char *device, const char *name, struct error **err)
{
    struct node *node = name ? graph_find(daemon->graph, name, NULL) : NULL;

    if (!node)
        error_set(err, "Cannot find device='%s' nor node-name='%s'", device ? device : "", name ? name : "");
    return node;
}

bool CO_FN co_qmp_block_resize(struct daemon *daemon, const struct block_resize_arg *arg, struct error **err)
{
    struct node *node = find_device_or_node(daemon, arg->device, arg->node_name, err);

    if (!node)
        return false;
    if (arg->size < 0)
        return error_set(err, "Parameter 'size' expects a >0 size");
    if (!node_check_no_overlay(node, err))
        return false;
    return co_node_resize(node, (uint64_t)arg->size, err);
}

bool CO_FN co_qmp_block_set_write_threshold(struct daemon *daemon, const struct block_set_write_threshold_arg *arg,
                                            struct error **err)
{
    struct node *node = graph_find(daemon->graph, arg->node_name, NULL);

    if (!node)
        return error_set(err, "Device '%s' not found", arg->node_name);
    node_set_write_threshold(node, arg->write_threshold);
    return true;
}

bool CO_FN co_qmp_x_blockdev_set_iothread(struct daemon *daemon, const struct x_blockdev_set_iothread_arg *arg,
                                          struct error **err)
{
    struct node *node = graph_find(daemon->graph, arg->node_name, err);
    const char *id = arg->iothread->kind == STR_OR_NULL_KIND_S ? arg->iothread->u.s : "";
    const char *fixing = export_fixing(daemon->exports, arg->node_name);
    struct object *object = NULL;

    if (!node)
        return false;
    if (fixing)
        return error_set(err, "Cannot change iothread of active block backend: export '%s' has fixed-iothread", fixing);
    if (node_has_handles(node) && !(arg->has_force && arg->force))
        return error_set(err,
                         "Node %s is associated with a BlockBackend and could be in use (use force=true to override "
                         "this check)",
                         arg->node_name);
    if (*id && !iothread_hold_loop(daemon->objects, id, &object, NULL))
        return error_set(err, "Cannot find iothread %s", id);
    object_release(object);
    node_set_iothread(node, *id ? id : NULL);
    return true;
}
