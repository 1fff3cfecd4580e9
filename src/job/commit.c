/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commit is a mirror whose target lies below its source. Where somebody can write to the topmost image, it follows and
 * becomes ready as a mirror does; where that is a backing image of an overlay, it ends by itself, and the overlay's
 * header is written to name the target.
 */
#include "job/commit.h"

#include <glib.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "block/graph-change.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/node.h"
#include "block/reopen.h"
#include "job/chain.h"
#include "job/filter.h"
#include "job/job.h"
#include "job/mirror.h"

/* What the job needs at its end. */
struct commit {
    struct node *base; /* it stays: a handle is on it */
    struct handle *base_handle;
    bool base_was_read_only;
    char *backing_file; /* NULL: the base's file name */
    bool mask;
};

static void CO_FN co_commit_free(struct commit *commit)
{
    AUTO(error) err = NULL;

    if (commit->base_was_read_only && !co_node_make_writable(commit->base, false, &err))
        log_warning("Node '%s' stays writable: %s", node_name(commit->base), error_message(err));
    co_handle_free(commit->base_handle);
    g_free(commit->backing_file);
    g_free(commit);
}

static void CO_FN co_done(void *opaque, bool success)
{
    co_commit_free(opaque);
}

/* The overlays that stand on the topmost image, by way of the job's filter. */
static bool CO_FN co_update_overlays(void *opaque, struct node *filter, struct error **err)
{
    struct commit *commit = opaque;
    g_autoptr(GPtrArray) overlays = g_ptr_array_new();

    node_list_overlays(filter, overlays);
    for (unsigned i = 0; i < overlays->len; i++) {
        if (!co_chain_write_backing(g_ptr_array_index(overlays, i), commit->base, commit->backing_file, commit->mask,
                                    err))
            return false;
    }
    return true;
}

/* --- which images --- */

struct range {
    struct node *device;
    struct node *top;
    struct node *base;
};

static struct node *find_in_chain(const struct job_place *place, struct node *top, const char *name, struct error **err)
{
    struct node *node = graph_find(place->graph, name, err);

    if (node && !chain_contains(top, node)) {
        error_set(err, "'%s' is not in this backing file chain", name);
        return NULL;
    }
    return node;
}

static bool find_top(const struct job_place *place, const struct block_commit_arg *arg, struct range *range,
                     struct error **err)
{
    range->top = range->device;
    if (arg->top_node && arg->top)
        return error_set(err, "'top-node' and 'top' are mutually exclusive");
    if (arg->top_node) {
        range->top = find_in_chain(place, range->device, arg->top_node, err);
    } else if (arg->top) {
        g_autofree char *own = node_filename(range->device);

        if (g_strcmp0(own, arg->top) != 0)
            range->top = chain_find_file(range->device, arg->top);
        if (!range->top)
            return error_set(err, "Top image file %s not found", arg->top);
    }
    return range->top;
}

static bool find_base(const struct job_place *place, const struct block_commit_arg *arg, struct range *range,
                      struct error **err)
{
    if (arg->base_node && arg->base)
        return error_set(err, "'base-node' and 'base' are mutually exclusive");
    if (arg->base_node) {
        range->base = find_in_chain(place, range->top, arg->base_node, err);
        if (!range->base)
            return false;
    } else if (arg->base) {
        range->base = chain_find_file(range->top, arg->base);
        if (!range->base)
            return error_set(err, "Can't find '%s' in the backing chain", arg->base);
    } else {
        range->base = range->top;
        while (chain_next(range->base))
            range->base = chain_next(range->base);
    }
    if (chain_skip_filters(range->base) == chain_skip_filters(range->top))
        return error_set(err, "cannot commit an image into itself");
    return true;
}

/* --- making --- */

/* Before anything is changed; the job holds them later. */
static bool check_idle(const struct range *range, struct error **err)
{
    for (const struct node *node = range->top; node; node = chain_next(node)) {
        if (!node_check_idle(node, err))
            return false;
        if (node == range->base)
            return true;
    }
    return true;
}

static struct commit *CO_FN co_commit_prepare(const struct block_commit_arg *arg, const struct range *range,
                                              const char *user, struct error **err)
{
    struct handle_options handle = {.name = user, .shared = PERM_ALL, .follows_length = true, .stays = true};
    struct commit *commit = g_new0(struct commit, 1);

    commit->base = range->base;
    commit->backing_file = g_strdup(arg->backing_file);
    commit->mask = arg->has_backing_mask_protocol && arg->backing_mask_protocol;
    commit->base_handle = co_handle_new(range->base, &handle, err);
    if (!commit->base_handle) {
        co_commit_free(commit);
        return NULL;
    }
    if (node_read_only(range->base)) {
        commit->base_was_read_only = co_node_make_writable(range->base, true, err);
        if (!commit->base_was_read_only) {
            co_commit_free(commit);
            return NULL;
        }
    }
    if (node_length(range->base) < node_length(range->top) &&
        !co_node_resize(range->base, node_length(range->top), err)) {
        co_commit_free(commit);
        return NULL;
    }
    return commit;
}

/* Whether the topmost image may change while the job runs. */
static bool is_active(const struct range *range)
{
    return range->top == range->device || node_used_permissions(range->top) & PERM_WRITE;
}

struct job *CO_FN co_commit_new(const struct job_place *place, const struct block_commit_arg *arg, struct error **err)
{
    enum blockdev_on_error on_error = arg->has_on_error ? arg->on_error : BLOCKDEV_ON_ERROR_REPORT;
    struct mirror_options options = {
        .type = JOB_TYPE_COMMIT,
        .id = arg->job_id,
        .filter_node_name = arg->filter_node_name,
        .sync = MIRROR_SYNC_MODE_TOP,
        .speed = arg->has_speed ? arg->speed : 0,
        .policy = {.on_source = on_error, .on_target = on_error},
        .manual_finalize = arg->has_auto_finalize && !arg->auto_finalize,
        .manual_dismiss = arg->has_auto_dismiss && !arg->auto_dismiss,
        .co_done = co_done,
    };
    struct range range = {.device = graph_find(place->graph, arg->device, NULL)};
    g_autofree char *user = g_strdup_printf("block job '%s'", arg->job_id ? arg->job_id : "");
    struct commit *commit;
    struct job *job;

    if (!range.device) {
        error_set_class(err, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", arg->device);
        return NULL;
    }
    if (!find_top(place, arg, &range, err) || !find_base(place, arg, &range, err))
        return NULL;
    if (is_active(&range) && arg->backing_file) {
        error_set(err, "'backing-file' specified, but 'top' is the active layer");
        return NULL;
    }
    if (!check_idle(&range, err))
        return NULL;
    commit = co_commit_prepare(arg, &range, user, err);
    if (!commit)
        return NULL;
    options.source = range.top;
    options.target = range.base;
    options.base = range.base;
    options.opaque = commit;
    options.one_shot = !is_active(&range);
    if (options.one_shot)
        options.co_before_swap = co_update_overlays;
    job = co_mirror_new(place, &options, err);
    if (!job)
        co_commit_free(commit);
    return job;
}
