/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/drive.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "block/driver.h"
#include "block/graph-change.h"
#include "block/handle.h"
#include "block/new-image.h"
#include "block/node.h"
#include "job/backup.h"
#include "job/chain.h"
#include "job/filter.h"
#include "job/job.h"
#include "job/mirror.h"

/* A target on its way. */
struct target {
    struct node *source;
    const char *filename;
    const char *format; /* NULL: not said */
    const char *node_name;
    enum mirror_sync_mode sync;
    bool existing;
};

/* The image that shines through where nothing is copied; NULL: there is none. */
static struct node *backing_of_copy(const struct target *target)
{
    struct edge *backing = node_backing(chain_skip_filters(target->source));

    if (target->sync == MIRROR_SYNC_MODE_NONE)
        return target->source;
    return target->sync == MIRROR_SYNC_MODE_TOP && backing ? edge_child(backing) : NULL;
}

/* Made where that is wanted, and open: it is kept until the handle is freed. `no_backing`: its backing image is put
 * below it later. */
static struct handle *CO_FN co_open_target(const struct job_place *place, const struct target *target, bool no_backing,
                                           struct error **err)
{
    struct node *image = chain_skip_filters(target->source);
    struct node *backing = target->existing ? NULL : backing_of_copy(target);
    struct node *below = backing ? chain_skip_filters(backing) : NULL;
    g_autofree char *backing_file = below ? node_filename(below) : NULL;
    struct new_image new_image = {
        .filename = target->filename,
        .format = target->format || target->existing ? target->format : node_driver_name(image),
        .size = node_length(target->source),
        .backing_file = backing_file,
        .backing_format = below ? node_driver_name(below) : NULL,
    };
    struct handle_options options = {.name = "a new job", .shared = PERM_ALL, .follows_length = true, .stays = true};
    struct handle *keep;
    struct node *node;

    if (!target->existing && !co_new_image_create(place->graph, &new_image, err))
        return NULL;
    node = co_new_image_open(place->graph, &new_image, target->node_name, target->source, no_backing, err);
    keep = node ? co_handle_new(node, &options, err) : NULL;
    if (node && !keep)
        co_graph_release_node(node);
    return keep;
}

struct job *CO_FN co_drive_mirror_new(const struct job_place *place, const struct drive_mirror *arg, struct error **err)
{
    struct target target = {
        .source = job_find_node(place->graph, arg->device, err),
        .filename = arg->target,
        .format = arg->format,
        .node_name = arg->node_name,
        .sync = arg->sync,
        .existing = arg->has_mode && arg->mode == NEW_IMAGE_MODE_EXISTING,
    };
    struct mirror_options options = {
        .type = JOB_TYPE_MIRROR,
        .source = target.source,
        .id = arg->job_id,
        .replaces = arg->replaces,
        .sync = arg->sync,
        .speed = arg->has_speed ? arg->speed : 0,
        .granularity = arg->has_granularity ? arg->granularity : 0,
        .buffer_bytes = arg->has_buf_size ? arg->buf_size : 0,
        .policy = {.on_source = arg->has_on_source_error ? arg->on_source_error : BLOCKDEV_ON_ERROR_REPORT,
                   .on_target = arg->has_on_target_error ? arg->on_target_error : BLOCKDEV_ON_ERROR_REPORT},
        .keep_zeroes = arg->has_unmap && !arg->unmap,
        .active = arg->has_copy_mode && arg->copy_mode == MIRROR_COPY_MODE_WRITE_BLOCKING,
        .manual_finalize = arg->has_auto_finalize && !arg->auto_finalize,
        .manual_dismiss = arg->has_auto_dismiss && !arg->auto_dismiss,
    };
    struct handle *keep;
    struct job *job;

    if (!target.source || !mirror_check_options(place, &options, err))
        return NULL;
    if (arg->replaces && !arg->node_name) {
        error_set(err, "a node-name must be provided when replacing a named node of the graph");
        return NULL;
    }
    options.takes_backing = !target.existing && backing_of_copy(&target);
    keep = co_open_target(place, &target, options.takes_backing, err);
    if (!keep)
        return NULL;
    options.target = handle_node(keep);
    job = co_mirror_checked_new(place, &options, err);
    co_handle_free(keep);
    return job;
}

/* 'none': what has not been saved shows through. */
static bool CO_FN co_put_below(struct node *target, struct node *source, struct error **err)
{
    struct graph_change *change = co_graph_change_begin(node_graph(target));
    bool ok = co_graph_change_add_child(change, target, "backing", source, EDGE_COW, err);

    return co_graph_change_end(change, ok, err);
}

struct job *CO_FN co_drive_backup_new(const struct job_place *place, const struct drive_backup *arg, struct error **err)
{
    struct target target = {
        .source = job_find_node(place->graph, arg->device, err),
        .filename = arg->target,
        .format = arg->format,
        .sync = arg->sync,
        .existing = arg->has_mode && arg->mode == NEW_IMAGE_MODE_EXISTING,
    };
    struct blockdev_backup options = {
        .job_id = arg->job_id,
        .device = arg->device,
        .sync = arg->sync,
        .has_speed = arg->has_speed,
        .speed = arg->speed,
        .bitmap = arg->bitmap,
        .has_bitmap_mode = arg->has_bitmap_mode,
        .bitmap_mode = arg->bitmap_mode,
        .has_compress = arg->has_compress,
        .compress = arg->compress,
        .has_on_source_error = arg->has_on_source_error,
        .on_source_error = arg->on_source_error,
        .has_on_target_error = arg->has_on_target_error,
        .on_target_error = arg->on_target_error,
        .has_on_cbw_error = arg->has_on_cbw_error,
        .on_cbw_error = arg->on_cbw_error,
        .has_auto_finalize = arg->has_auto_finalize,
        .auto_finalize = arg->auto_finalize,
        .has_auto_dismiss = arg->has_auto_dismiss,
        .auto_dismiss = arg->auto_dismiss,
        .filter_node_name = arg->filter_node_name,
        .has_discard_source = arg->has_discard_source,
        .discard_source = arg->discard_source,
        .x_perf = arg->x_perf,
    };
    bool below = arg->sync == MIRROR_SYNC_MODE_NONE && !target.existing;
    struct handle *keep;
    struct node *node;
    struct job *job = NULL;

    if (!target.source || !backup_check_job(place, &options, err))
        return NULL;
    keep = co_open_target(place, &target, below, err);
    if (!keep)
        return NULL;
    node = handle_node(keep);
    options.target = (char *)(uintptr_t)node_name(node);
    if (!below || co_put_below(node, target.source, err))
        job = co_backup_new(place, &options, err);
    co_handle_free(keep);
    return job;
}
