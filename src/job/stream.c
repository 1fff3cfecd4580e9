/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stream: what the image does not have itself, and layers above the base do, is read through it and written to it. A
 * filter above the image keeps its users' writes away from where that is being done, so that nothing read before such a
 * write is written after it.
 *
 * Keeps: (1) the filter is there from the making of the job to its clean; (2) the backing image is taken away only when
 * all has been copied, and after the header says so.
 */
#include "job/stream.h"

#include <assert.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "block/block-copy.h"
#include "block/describe.h"
#include "block/driver.h"
#include "block/graph-change.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/node.h"
#include "block/reopen.h"
#include "job/chain.h"
#include "job/filter.h"
#include "job/job.h"
#include "job/mirror-filter.h"
#include "job/pump.h"

enum { WORKERS = 16, CHUNK_BYTES = 1024 * 1024, CLUSTER_DEFAULT = 64 * 1024 };

struct stream_job {
    struct job_filter filter;
    struct block_copy *copy; /* the filter's */
    struct node *top;        /* the image, which the filter keeps */
    bool top_was_read_only;
    struct node *base; /* it stays: a handle is on it; NULL: nothing stays */
    struct handle *base_handle;
    char *backing_file; /* NULL: the base's file name */
    bool mask;
    struct job_error_policy policy;
    struct job_pump pump;
    int ignored_error; /* of requests that were not tried again; 0: none */
    uint64_t counted_bytes;
};

/* --- requests --- */

struct stream_call {
    struct stream_job *stream;
    uint64_t offset;
    uint64_t bytes;
    bool is_read;
};

static int CO_FN co_call_copy(struct node *node, void *opaque)
{
    struct stream_call *call = opaque;

    return co_block_copy(call->stream->copy, call->offset, call->bytes, false, &call->is_read);
}

static int CO_FN stream_co_work(void *state, uint64_t offset, uint64_t bytes, bool *ret_is_read)
{
    struct stream_job *stream = state;
    struct stream_call call = {.stream = stream, .offset = offset, .bytes = bytes};
    int ret = co_pump_call(&stream->pump, stream->filter.handle, co_call_copy, &call);

    *ret_is_read = call.is_read;
    if (!ret || stream->policy.on_source != BLOCKDEV_ON_ERROR_IGNORE || job_is_cancelled(stream->pump.job))
        return ret;
    /* The rest is copied; in the end the job fails all the same. */
    job_handle_error(stream->pump.job, BLOCKDEV_ON_ERROR_IGNORE, call.is_read, ret);
    block_copy_unmark(stream->copy, offset, bytes);
    if (!stream->ignored_error)
        stream->ignored_error = ret;
    return 0;
}

/* What is to be copied: not in the image, and in a layer above the base. */
static int CO_FN co_call_look(struct node *node, void *opaque)
{
    struct stream_call *call = opaque;
    struct stream_job *stream = call->stream;
    struct edge *backing = node_backing(stream->top);
    int ret;

    if (!backing)
        return 0;
    ret = co_edge_allocated_above(node_primary(node), edge_child(backing), call->offset, call->bytes, &call->bytes);
    if (ret)
        return ret < 0 ? ret : 0;
    ret = co_edge_allocated_above(node_primary(node), stream->base, call->offset, call->bytes, &call->bytes);
    if (ret == 1)
        block_copy_mark(stream->copy, call->offset, call->bytes);
    return ret < 0 ? ret : 0;
}

static void show_progress(struct job *job)
{
    struct stream_job *stream = job_state(job);
    uint64_t done = block_copy_done(stream->copy);

    job_progress_add(job, done - stream->counted_bytes);
    stream->counted_bytes = done;
    job_progress_set_remaining(job, block_copy_remaining(stream->copy));
}

static bool CO_FN co_mark_start(struct job *job, struct error **err)
{
    struct stream_job *stream = job_state(job);
    uint64_t length = block_copy_length(stream->copy);
    struct stream_call call = {.stream = stream};

    while (call.offset < length && !job_is_cancelled(job)) {
        int ret;

        co_job_pause_point(job);
        call.bytes = length - call.offset;
        ret = co_handle_call(stream->filter.handle, co_call_look, &call);
        if (ret < 0)
            return error_set_errno(err, ret, "Could not ask what the backing images have allocated");
        call.offset += call.bytes;
    }
    show_progress(job);
    return true;
}

static bool CO_FN co_copy_all(struct job *job, struct error **err)
{
    struct stream_job *stream = job_state(job);
    uint64_t cursor = 0, offset, bytes;

    while (!job_is_cancelled(job)) {
        enum pump_verdict verdict = co_pump_check(&stream->pump, &stream->policy);

        if (verdict == PUMP_FAIL)
            return job_is_cancelled(job) || job_pump_fail(&stream->pump, err);
        if (verdict == PUMP_AGAIN)
            cursor = 0;
        show_progress(job);
        if (block_copy_next(stream->copy, cursor, &offset, &bytes)) {
            bytes = MIN(bytes, MAX(CHUNK_BYTES, block_copy_cluster_size(stream->copy)));
            co_job_throttle(job, bytes);
            if (job_is_cancelled(job) || job_should_pause(job))
                continue;
            co_pump_start(&stream->pump, offset, bytes);
            cursor = offset + bytes;
            continue;
        }
        co_pump_idle(&stream->pump);
        if (!stream->pump.error && !block_copy_remaining(stream->copy))
            return true;
        cursor = 0;
    }
    return true;
}

static bool CO_FN stream_co_run(struct job *job, struct error **err)
{
    struct stream_job *stream = job_state(job);
    bool ok = !node_backing(stream->top) || (co_mark_start(job, err) && co_copy_all(job, err));

    co_pump_idle(&stream->pump);
    show_progress(job);
    if (ok && stream->ignored_error && !job_is_cancelled(job))
        return error_set_errno(err, stream->ignored_error, "Could not copy all of the backing images");
    return ok;
}

/* --- the end --- */

static int CO_FN co_call_flush(struct node *node, void *opaque)
{
    return co_edge_flush(node_primary(node));
}

/* What has been copied is on the medium before the header says that nothing else is needed. */
static bool CO_FN stream_co_prepare(struct job *job, struct error **err)
{
    struct stream_job *stream = job_state(job);
    struct edge *backing = node_backing(stream->top);
    struct graph_change *change;
    bool ok = true;
    int ret;

    if (!backing)
        return true;
    ret = co_handle_call(stream->filter.handle, co_call_flush, NULL);
    if (ret)
        return error_set_errno(err, ret, "Could not flush node '%s'", node_name(stream->top));
    change = co_graph_change_begin(node_graph(stream->top));
    co_graph_change_drain(change, stream->top);
    ok = co_chain_write_backing(stream->top, stream->base, stream->backing_file, stream->mask, err);
    if (ok && stream->base)
        ok = co_graph_change_set_child(change, backing, stream->base, err);
    else if (ok)
        co_graph_change_remove_child(change, backing);
    return co_graph_change_end(change, ok, err);
}

static void CO_FN stream_co_clean(struct job *job)
{
    struct stream_job *stream = job_state(job);
    struct node *top = stream->top;
    AUTO(error) err = NULL;

    co_mirror_filter_unwatch(stream->filter.node);
    /* Nobody writes to it any more but those above the filter. */
    mirror_filter_set_stopped(stream->filter.node, true);
    if (stream->top_was_read_only && (!co_handle_set_permissions(stream->filter.handle, 0, PERM_ALL, &err) ||
                                      !co_node_make_writable(top, false, &err)))
        log_warning("Node '%s' stays writable: %s", node_name(top), error_message(err));
    co_job_filter_remove(&stream->filter);
    co_handle_free(stream->base_handle);
    g_free(stream->backing_file);
    co_pump_done(&stream->pump);
}

static const struct job_driver stream_job_driver = {
    .type = JOB_TYPE_STREAM,
    .state_size = sizeof(struct stream_job),
    .is_block_job = true,
    .co_run = stream_co_run,
    .co_prepare = stream_co_prepare,
    .co_clean = stream_co_clean,
};

/* --- making --- */

static bool find_bottom(const struct job_place *place, struct node *device, const char *name, struct stream_job *stream,
                        struct error **err)
{
    struct node *bottom = graph_find(place->graph, name, err);

    if (!bottom)
        return false;
    if (!chain_contains(device, bottom))
        return error_set(err, "Node '%s' is not in a chain starting from '%s'", name, node_name(device));
    if (chain_skip_filters(bottom) != bottom)
        return error_set(err, "Node '%s' is a filter, use a non-filter node as 'bottom'", name);
    stream->base = chain_next(bottom);
    return true;
}

static bool find_base(const struct job_place *place, const struct block_stream_arg *arg, struct node *device,
                      struct stream_job *stream, struct error **err)
{
    if (arg->base && arg->base_node)
        return error_set(err, "'base' and 'base-node' cannot be specified at the same time");
    if (arg->base && arg->bottom)
        return error_set(err, "'base' and 'bottom' cannot be specified at the same time");
    if (arg->bottom && arg->base_node)
        return error_set(err, "'bottom' and 'base-node' cannot be specified at the same time");
    if (arg->bottom)
        return find_bottom(place, device, arg->bottom, stream, err);
    if (arg->base) {
        stream->base = chain_find_file(device, arg->base);
        return stream->base || error_set(err, "Can't find '%s' in the backing chain", arg->base);
    }
    if (!arg->base_node)
        return true;
    stream->base = graph_find(place->graph, arg->base_node, err);
    if (!stream->base)
        return false;
    if (stream->base == device || !chain_contains(device, stream->base))
        return error_set(err, "Node '%s' is not a backing image of '%s'", arg->base_node, node_name(device));
    return true;
}

static uint32_t CO_FN co_cluster_size(struct node *top)
{
    struct node_info info = {0};

    return co_node_get_info(top, &info) && info.cluster_size ? info.cluster_size : CLUSTER_DEFAULT;
}

/* Nobody writes between the filter's coming and its beginning to watch. */
static bool CO_FN co_insert_filter(struct stream_job *stream, struct node *device, const char *user, struct error **err)
{
    struct job_filter_options insertion = {.user = user, .perm = PERM_CONSISTENT_READ};
    struct graph_change *change = co_graph_change_begin(node_graph(device));
    bool ok;

    co_graph_change_drain(change, stream->top);
    ok = co_job_filter_insert(&stream->filter, device, &insertion, err);
    if (ok)
        mirror_filter_watch(stream->filter.node, stream->top);
    (void)co_graph_change_end(change, ok, NULL);
    return ok;
}

/* The base is kept, the image made writable, and the filter put above `device`. */
static bool CO_FN co_insert(struct stream_job *stream, struct node *device, const struct block_stream_arg *arg,
                            const char *user, struct error **err)
{
    struct handle_options handle = {.name = user, .shared = PERM_ALL, .follows_length = true, .stays = true};
    struct mirror_filter_options filter = {.node_name = arg->filter_node_name, .source = device};

    for (struct node *node = stream->top; node && node != stream->base; node = chain_next(node)) {
        if (!co_job_filter_hold(&stream->filter, node, JOB_TYPE_STREAM, err))
            return false;
    }
    if (stream->base) {
        stream->base_handle = co_handle_new(stream->base, &handle, err);
        if (!stream->base_handle)
            return false;
    }
    if (node_read_only(stream->top)) {
        stream->top_was_read_only = co_node_make_writable(stream->top, true, err);
        if (!stream->top_was_read_only)
            return false;
    }
    filter.granularity = co_cluster_size(stream->top);
    stream->filter.node = co_mirror_filter_open(&filter, err);
    if (!stream->filter.node)
        return false;
    stream->copy = mirror_filter_copy(stream->filter.node);
    block_copy_set_in_place(stream->copy);
    block_copy_set_flush_ahead(stream->copy);
    return co_insert_filter(stream, device, user, err);
}

static void CO_FN co_undo(struct stream_job *stream)
{
    AUTO(error) err = NULL;

    co_job_filter_give_up(&stream->filter);
    if (stream->top_was_read_only && !co_node_make_writable(stream->top, false, &err))
        log_warning("Node '%s' stays writable: %s", node_name(stream->top), error_message(err));
    co_handle_free(stream->base_handle);
    g_free(stream->backing_file);
}

struct job *CO_FN co_stream_new(const struct job_place *place, const struct block_stream_arg *arg, struct error **err)
{
    enum blockdev_on_error on_error = arg->has_on_error ? arg->on_error : BLOCKDEV_ON_ERROR_REPORT;
    struct stream_job stream = {
        .policy = {.on_source = on_error, .on_target = on_error},
        .mask = arg->has_backing_mask_protocol && arg->backing_mask_protocol,
        .pump = {.co_work = stream_co_work},
    };
    struct job_options job_options = {
        .driver = &stream_job_driver,
        .id = arg->job_id ? arg->job_id : "",
        .speed = arg->has_speed ? arg->speed : 0,
        .manual_finalize = arg->has_auto_finalize && !arg->auto_finalize,
        .manual_dismiss = arg->has_auto_dismiss && !arg->auto_dismiss,
        .transaction = place->transaction,
    };
    g_autofree char *user = g_strdup_printf("block job '%s'", job_options.id);
    struct node *device = job_find_node(place->graph, arg->device, err);
    struct job *job;

    if (!device || !find_base(place, arg, device, &stream, err) || !job_check_options(place->jobs, &job_options, err))
        return NULL;
    if (arg->backing_file && !stream.base) {
        error_set(err, "backing file specified, but streaming the entire chain");
        return NULL;
    }
    stream.top = chain_skip_filters(device);
    stream.backing_file = g_strdup(arg->backing_file);
    if (!co_insert(&stream, device, arg, user, err)) {
        co_undo(&stream);
        return NULL;
    }
    job = job_new(place->jobs, &job_options, err);
    if (!job) {
        co_mirror_filter_unwatch(stream.filter.node);
        co_undo(&stream);
        return NULL;
    }
    stream.pump.job = job;
    stream.pump.limit = block_copy_parallel(stream.copy, WORKERS);
    stream.pump.has_thread = block_copy_is_near(stream.copy);
    if (stream.pump.has_thread)
        block_copy_set_gives_way(stream.copy);
    *(struct stream_job *)job_state(job) = stream;
    return job;
}
