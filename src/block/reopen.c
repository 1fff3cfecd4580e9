/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reopening: the new options are held against the old ones member by member, which finds what must not change and what
 * becomes of the children; then everything is done in one change of the graph.
 *
 * Keeps: (1) a node whose options have changed has been asked by its driver first, and flushed before it can no longer
 * write; (2) an aborted change leaves every option and every flag as it was.
 */
#include "block/reopen.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "block/graph-change.h"
#include "block/graph-internal.h"
#include "block/image.h"
#include "schema/json.h"

/* What the options of every driver say about the node itself, and may change. */
static const char *const common_options[] = {"read-only",     "auto-read-only", "cache", "discard",
                                             "detect-zeroes", "force-share",    NULL};

struct reopening {
    struct graph *graph;
    struct graph_change *change;
};

static bool listed(const char *const *names, const char *name)
{
    for (unsigned i = 0; names && names[i]; i++) {
        if (!strcmp(names[i], name))
            return true;
    }
    return false;
}

/* --- one node's own flags and options --- */

struct flags {
    bool read_only, auto_read_only, force_share, cache_direct, no_flush, discard_unmap;
    enum blockdev_detect_zeroes_options detect_zeroes;
};

static struct flags flags_get(const struct node *node)
{
    return (struct flags){node->read_only, node->auto_read_only, node->force_share,  node->cache_direct,
                          node->no_flush,  node->discard_unmap,  node->detect_zeroes};
}

static void flags_set(struct node *node, const struct flags *flags)
{
    node->read_only = flags->read_only;
    node->auto_read_only = flags->auto_read_only;
    node->force_share = flags->force_share;
    node->cache_direct = flags->cache_direct;
    node->no_flush = flags->no_flush;
    node->discard_unmap = flags->discard_unmap;
    node->detect_zeroes = flags->detect_zeroes;
    node_set_hook(node, NODE_HOOK_DETECT_ZEROES, node->detect_zeroes != BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF);
}

/* A node on its way from old to new. */
struct step {
    struct node *node;
    struct flags flags;               /* as before */
    struct blockdev_options *options; /* the ones not in force; NULL: they stay */
    bool driver_asked;
};

static void swap_options(struct step *step)
{
    struct blockdev_options *options = step->node->options;

    if (!step->options)
        return;
    step->node->options = step->options;
    step->options = options;
}

static void CO_FN co_step_commit(void *opaque)
{
    struct step *step = opaque;

    if (step->driver_asked)
        step->node->driver->reopen->co_commit(step->node);
    /* Who reopens a node knows of the failure, and goes on. */
    __atomic_store_n(&step->node->flush_error, 0, __ATOMIC_SEQ_CST);
}

static void CO_FN co_step_abort(void *opaque)
{
    struct step *step = opaque;

    flags_set(step->node, &step->flags);
    swap_options(step);
    if (step->driver_asked)
        step->node->driver->reopen->co_abort(step->node);
}

static void CO_FN co_step_clean(void *opaque)
{
    struct step *step = opaque;

    blockdev_options_free(step->options);
    g_free(step);
}

static const struct transaction_ops step_ops = {
    .co_commit = co_step_commit,
    .co_abort = co_step_abort,
    .co_clean = co_step_clean,
};

/* `options`: new ones, taken; NULL: they stay. */
static bool CO_FN co_change_node(struct reopening *reopening, struct node *node, const struct flags *flags,
                                 struct blockdev_options *options, struct error **err)
{
    struct step *step = g_new0(struct step, 1);
    int ret = 0;

    co_graph_change_drain(reopening->change, node);
    if (flags->read_only && !node->read_only)
        ret = co_node_flush(node);
    *step = (struct step){.node = node, .flags = flags_get(node), .options = options};
    flags_set(node, flags);
    swap_options(step);
    if (ret)
        error_set_errno(err, ret, "Error flushing drive '%s'", node->name);
    else if (node->driver->reopen)
        step->driver_asked = node->driver->reopen->co_prepare(node, node->options, err);
    graph_change_add(reopening->change, node, &step_ops, step);
    return !ret && (!node->driver->reopen || step->driver_asked);
}

/* --- from options to flags --- */

/* As when a node is opened (node.c): what the options leave open comes from the parent. */
static struct flags flags_of(const struct blockdev_options *options, const struct node *parent, unsigned role)
{
    const struct blockdev_cache_options *cache = options->cache;

    return (struct flags){
        .read_only = options->has_read_only ? options->read_only : parent && (parent->read_only || role & EDGE_COW),
        .auto_read_only = options->has_auto_read_only ? options->auto_read_only : parent && parent->auto_read_only,
        .force_share = options->has_force_share ? options->force_share : parent && parent->force_share,
        .cache_direct = cache && cache->has_direct ? cache->direct : parent && parent->cache_direct,
        .no_flush = cache && cache->has_no_flush ? cache->no_flush : parent && parent->no_flush,
        .discard_unmap = options->has_discard ? options->discard == BLOCKDEV_DISCARD_OPTIONS_UNMAP : parent != NULL,
        .detect_zeroes = options->has_detect_zeroes ? options->detect_zeroes : BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF,
    };
}

static bool check_flags(const struct node *node, const struct flags *flags, struct error **err)
{
    if (flags->force_share && !flags->read_only)
        return error_set(err, "force-share=on can only be used with read-only images");
    if (flags->detect_zeroes == BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP && !flags->discard_unmap)
        return error_set(err, "setting detect-zeroes to unmap is not allowed without setting discard operation to "
                              "unmap");
    if (!node->driver->co_pwritev && !flags->read_only)
        return error_set(err, "Driver '%s' can only be used for read-only devices", node->driver->name);
    return true;
}

/* "children.N" of a list; NULL: it was added later, and is the monitor's. */
static const struct json *list_member(const struct json *list, const char *name)
{
    guint64 index = g_ascii_strtoull(strchr(name, '.') + 1, NULL, 10);

    return list && index < json_count(list) ? json_at(list, index) : NULL;
}

/* Whether the child was defined inside of its parent's options, and takes from them what it does not say itself. */
static bool child_is_inside(const struct json *options, const struct edge *edge)
{
    const struct json *value = json_get(options, edge->name);

    if (g_str_has_prefix(edge->name, "children."))
        value = list_member(json_get(options, "children"), edge->name);
    return !value ? edge->role & EDGE_COW : json_get_kind(value) == JSON_OBJECT;
}

static bool inherits_the_same(const struct node *child, const struct flags *flags)
{
    return flags->read_only == child->read_only && flags->auto_read_only == child->auto_read_only &&
           flags->cache_direct == child->cache_direct && flags->no_flush == child->no_flush &&
           flags->force_share == child->force_share;
}

/* Hands flags down to children that were defined inside of `node`. */
static bool CO_FN co_hand_down(struct reopening *reopening, struct node *node, struct error **err)
{
    AUTO(json) options = blockdev_options_write(node->options);

    for (unsigned i = 0; i < node->children->len; i++) {
        struct edge *edge = g_ptr_array_index(node->children, i);
        struct node *child = edge->child;
        struct flags flags;

        if (!child_is_inside(options, edge) || child->monitor_owned)
            continue;
        flags = flags_of(child->options, node, edge->role);
        if (inherits_the_same(child, &flags))
            continue;
        flags.discard_unmap = child->discard_unmap;
        flags.detect_zeroes = child->detect_zeroes;
        if (!check_flags(child, &flags, err) || !co_change_node(reopening, child, &flags, NULL, err) ||
            !co_hand_down(reopening, child, err))
            return false;
    }
    return true;
}

/* --- comparing options --- */

static bool CO_FN co_reopen_node(struct reopening *reopening, struct node *node, const struct node *parent,
                                 unsigned role, const struct json *wanted, const char *prefix, struct error **err);

static bool refuse(const char *prefix, const char *name, struct error **err)
{
    return error_set(err, "Cannot change the option '%s%s'", prefix, name);
}

static struct node *find_new_child(struct reopening *reopening, const char *name, struct error **err)
{
    struct node *child = graph_find(reopening->graph, name, NULL);

    if (!child)
        error_set(err, "Cannot find device='' nor node-name='%s'", name);
    return child;
}

/* An option that names or defines a child, or null. */
static bool CO_FN co_reopen_child(struct reopening *reopening, struct node *node, const char *name,
                                  const struct json *value, const char *prefix, struct error **err)
{
    g_autofree char *inner = g_strdup_printf("%s%s.", prefix, name);
    struct edge *edge = node_child(node, name);
    bool backing = !strcmp(name, "backing");
    struct node *child;

    if (json_get_kind(value) == JSON_NULL) {
        if (!backing)
            return refuse(prefix, name, err);
        if (edge && !node_check_idle(node, err))
            return false;
        if (edge)
            co_graph_change_remove_child(reopening->change, edge);
        return true;
    }
    if (json_get_kind(value) == JSON_OBJECT)
        return edge ? co_reopen_node(reopening, edge->child, node, edge->role, value, inner, err)
                    : refuse(prefix, name, err);
    if (edge && !strcmp(json_get_string(value), edge->child->name))
        return true;
    if (!node_check_idle(node, err))
        return false;
    if (!backing && strcmp(name, "file") != 0)
        return refuse(prefix, name, err);
    child = find_new_child(reopening, json_get_string(value), err);
    if (!child)
        return false;
    if (edge)
        return co_graph_change_set_child(reopening->change, edge, child, err);
    return backing ? co_graph_change_add_child(reopening->change, node, name, child, EDGE_COW, err)
                   : refuse(prefix, name, err);
}

static bool names_backing(struct node *node)
{
    g_autofree char *file =
        node->driver->image && node->driver->image->backing_file ? node->driver->image->backing_file(node) : NULL;

    return file && *file;
}

/* Members that the new options have and the old ones not, or with another value. */
static bool CO_FN co_compare_wanted(struct reopening *reopening, struct node *node, const struct json *old,
                                    const struct json *wanted, const char *prefix, struct error **err)
{
    const char *const *changeable = node->driver->reopen ? node->driver->reopen->options : NULL;

    for (size_t i = 0; i < json_count(wanted); i++) {
        const char *name;
        const struct json *value = json_member(wanted, i, &name);
        const struct json *was = json_get(old, name);

        if (!strcmp(name, "node-name") || listed(common_options, name) || listed(changeable, name))
            continue;
        if (node_child(node, name) || !strcmp(name, "backing")) {
            if (!co_reopen_child(reopening, node, name, value, prefix, err))
                return false;
        } else if (!was || !json_equal(was, value)) {
            return refuse(prefix, name, err);
        }
    }
    return true;
}

/* Members that are gone: they would return to their default. */
static bool compare_gone(const struct node *node, const struct json *old, const struct json *wanted, const char *prefix,
                         struct error **err)
{
    const char *const *changeable = node->driver->reopen ? node->driver->reopen->options : NULL;

    for (size_t i = 0; i < json_count(old); i++) {
        const char *name;

        json_member(old, i, &name);
        if (json_get(wanted, name) || !strcmp(name, "node-name") || !strcmp(name, "backing") ||
            listed(common_options, name) || listed(changeable, name))
            continue;
        return error_set(err, "Option '%s%s' cannot be reset to its default value", prefix, name);
    }
    return true;
}

/* The options that the node has from now on; owned. Children stand there as they are. */
static struct blockdev_options *options_after(const struct node *node, const struct json *wanted, struct error **err)
{
    AUTO(json) options = json_clone(wanted);

    json_set(options, "node-name", json_string(node->name));
    return blockdev_options_parse(options, err);
}

static bool CO_FN co_reopen_node(struct reopening *reopening, struct node *node, const struct node *parent,
                                 unsigned role, const struct json *wanted, const char *prefix, struct error **err)
{
    AUTO(json) old = blockdev_options_write(node->options);
    const struct json *driver = json_get(wanted, "driver");
    const struct json *name = json_get(wanted, "node-name");
    struct blockdev_options *options;
    struct flags flags;

    if (node->inactive)
        return error_set(err, "Node '%s' is inactive", node->name);
    if (!driver || strcmp(json_get_string(driver), node->driver->name) != 0)
        return refuse(prefix, "driver", err);
    if (name && strcmp(json_get_string(name), node->name) != 0)
        return refuse(prefix, "node-name", err);
    if (!json_get(wanted, "backing") && (node->backing || names_backing(node)))
        return error_set(err, "backing is missing for '%s'", node->name);
    if (!compare_gone(node, old, wanted, prefix, err))
        return false;
    options = options_after(node, wanted, err);
    if (!options)
        return false;
    flags = flags_of(options, parent, role);
    if (!check_flags(node, &flags, err)) {
        blockdev_options_free(options);
        return false;
    }
    /* The node first: children inherit what it says now. */
    return co_change_node(reopening, node, &flags, options, err) &&
           co_compare_wanted(reopening, node, old, wanted, prefix, err) && co_hand_down(reopening, node, err);
}

/* --- entry points --- */

static bool CO_FN co_reopen_one(struct reopening *reopening, const struct blockdev_options *options, struct error **err)
{
    AUTO(json) wanted = blockdev_options_write(options);
    struct node *node;

    if (!options->node_name)
        return error_set(err, "node-name not specified");
    node = graph_find(reopening->graph, options->node_name, err);
    return node && co_reopen_node(reopening, node, NULL, 0, wanted, "", err);
}

bool CO_FN co_graph_reopen(struct graph *graph, const struct blockdev_options_array *options, struct error **err)
{
    struct reopening reopening = {.graph = graph};
    bool ok = true;

    if (!options->count)
        return error_set(err, "Parameter 'options' expects at least one node");
    reopening.change = co_graph_change_begin(graph);
    for (size_t i = 0; i < options->count && ok; i++)
        ok = co_reopen_one(&reopening, options->items[i], err);
    return co_graph_change_end(reopening.change, ok, err);
}

bool CO_FN co_node_make_writable(struct node *node, bool writable, struct error **err)
{
    struct reopening reopening = {.graph = node->graph};
    struct flags flags = flags_get(node);
    bool ok;

    if (node->read_only == !writable)
        return true;
    if (writable && node->options->has_read_only && node->options->read_only)
        return error_set(err, "Block node is read-only");
    flags.read_only = !writable;
    reopening.change = co_graph_change_begin(node->graph);
    ok = check_flags(node, &flags, err) && co_change_node(&reopening, node, &flags, NULL, err) &&
         co_hand_down(&reopening, node, err);
    return co_graph_change_end(reopening.change, ok, err);
}
