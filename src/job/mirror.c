/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Mirror: a filter above the source marks what changes; the job copies what is marked until nothing is, and is ready
 * then. In the end, in a drain, it copies the last of it, and the users of the source get the target.
 *
 * Keeps: (1) the filter is there from the making of the job to its clean; (2) the target takes the source's place only
 * in a drain in which nothing is marked.
 */
#include "job/mirror.h"

#include <assert.h>
#include <errno.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "block/block-copy.h"
#include "block/describe.h"
#include "block/driver.h"
#include "block/graph-change.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/node.h"
#include "job/chain.h"
#include "job/filter.h"
#include "job/job.h"
#include "job/mirror-filter.h"
#include "loop/coroutine.h"

enum {
    WORKERS = 16,
    CHUNK_BYTES = 1024 * 1024,
    ZERO_CHUNK_BYTES = 1024 * 1024 * 1024,
    GRANULARITY_MIN = 512,
    GRANULARITY_MAX = 64 * 1024 * 1024,
    GRANULARITY_CLUSTER_MIN = 4096,
    GRANULARITY_DEFAULT = 64 * 1024,
    LAST_BYTES = 8 * 1024 * 1024,
    LAST_ROUNDS = 8,
    READY_ROUNDS = 16,
};

struct mirror_job {
    struct job_filter filter;
    struct block_copy *copy; /* the filter's */
    enum job_type type;
    enum mirror_sync_mode sync;
    struct node *base;     /* borrowed: compared only */
    struct node *replaces; /* it stays: a handle is on it; NULL: the source */
    struct handle *replaces_handle;
    struct job_error_policy policy;
    struct job_pump pump;
    uint64_t chunk_max;
    uint64_t counted_bytes; /* that progress has been told of */
    unsigned rounds;        /* over all that was marked */
    unsigned last_rounds;   /* of them, since it was told to end */
    bool target_is_zero;
    bool swapped;
    bool takes_backing;
    bool one_shot;
    bool (*co_before_swap)(void *opaque, struct node *filter, struct error **err);
    void (*co_done)(void *opaque, bool success);
    void *opaque;
};

/* --- requests --- */

struct copy_call {
    struct block_copy *copy;
    uint64_t offset;
    uint64_t bytes;
    bool is_read;
};

static int CO_FN co_call_copy(struct node *node, void *opaque)
{
    struct copy_call *call = opaque;

    return co_block_copy(call->copy, call->offset, call->bytes, false, &call->is_read);
}

static int CO_FN mirror_co_work(void *state, uint64_t offset, uint64_t bytes, bool *ret_is_read)
{
    struct mirror_job *mirror = state;
    struct copy_call call = {.copy = mirror->copy, .offset = offset, .bytes = bytes};
    int ret = co_pump_call(&mirror->pump, mirror->filter.handle, co_call_copy, &call);

    *ret_is_read = call.is_read;
    return ret;
}

static int CO_FN co_call_zeroes(struct node *node, void *opaque)
{
    struct copy_call *call = opaque;

    call->bytes = co_block_copy_zeroes(call->copy, call->offset, call->bytes);
    return 0;
}

static uint64_t CO_FN co_choose_chunk(struct mirror_job *mirror, uint64_t offset, uint64_t bytes)
{
    struct copy_call call = {.copy = mirror->copy, .offset = offset, .bytes = MIN(bytes, ZERO_CHUNK_BYTES)};
    uint32_t cluster = block_copy_cluster_size(mirror->copy);

    if (bytes <= mirror->chunk_max)
        return bytes;
    co_handle_call(mirror->filter.handle, co_call_zeroes, &call);
    if (call.bytes > mirror->chunk_max)
        return call.bytes >= bytes ? bytes : align_down(call.bytes, cluster);
    return MIN(bytes, mirror->chunk_max);
}

static int CO_FN co_call_flush_target(struct node *node, void *opaque)
{
    return co_edge_flush(mirror_filter_target(node));
}

static void show_progress(struct job *job)
{
    struct mirror_job *mirror = job_state(job);
    uint64_t done = block_copy_done(mirror->copy);

    job_progress_add(job, done - mirror->counted_bytes);
    mirror->counted_bytes = done;
    job_progress_set_remaining(job, block_copy_remaining(mirror->copy));
}

/* --- what is to be copied in the beginning --- */

struct look_call {
    struct mirror_job *mirror;
    uint64_t offset;
    uint64_t bytes; /* looked at */
};

/* The layers whose data counts: all above this one. */
static const struct node *find_base(const struct mirror_job *mirror, struct node *top)
{
    if (mirror->base)
        return mirror->base;
    while (!node_backing(top) && node_primary(top) && edge_role(node_primary(top)) & EDGE_FILTERED)
        top = edge_child(node_primary(top));
    return node_backing(top) ? edge_child(node_backing(top)) : NULL;
}

static int CO_FN co_call_look(struct node *node, void *opaque)
{
    struct look_call *call = opaque;
    struct mirror_job *mirror = call->mirror;
    const struct node *base =
        mirror->sync == MIRROR_SYNC_MODE_TOP ? find_base(mirror, edge_child(node_primary(node))) : NULL;
    uint64_t zeroes;
    int ret = 1;

    if (base)
        ret = co_edge_allocated_above(node_primary(node), base, call->offset, call->bytes, &call->bytes);
    if (ret == 1 && mirror->target_is_zero) {
        zeroes = co_block_copy_zeroes(mirror->copy, call->offset, call->bytes);
        if (zeroes) {
            call->bytes = zeroes;
            ret = 0;
        } else {
            call->bytes = MIN(call->bytes, CHUNK_BYTES);
        }
    }
    if (ret == 1)
        block_copy_mark(mirror->copy, call->offset, call->bytes);
    return ret < 0 ? ret : 0;
}

static bool CO_FN co_mark_start(struct job *job, struct error **err)
{
    struct mirror_job *mirror = job_state(job);
    uint64_t length = block_copy_length(mirror->copy);
    struct look_call call = {.mirror = mirror};

    if (mirror->sync == MIRROR_SYNC_MODE_NONE)
        return true;
    if (mirror->sync == MIRROR_SYNC_MODE_FULL && !mirror->target_is_zero) {
        block_copy_mark(mirror->copy, 0, length);
        return true;
    }
    while (call.offset < length && !job_is_cancelled(job)) {
        int ret;

        co_job_pause_point(job);
        call.bytes = length - call.offset;
        ret = co_handle_call(mirror->filter.handle, co_call_look, &call);
        if (ret < 0)
            return error_set_errno(err, ret, "Could not ask what the source has allocated");
        call.offset += call.bytes;
    }
    return true;
}

/* --- the work --- */

static bool CO_FN co_flush_target(struct job *job)
{
    struct mirror_job *mirror = job_state(job);

    return job_pump_flushed(&mirror->pump, co_handle_call(mirror->filter.handle, co_call_flush_target, NULL));
}

/* Both sides are equal, as far as anybody can say now. False: the target cannot be flushed. */
static bool CO_FN co_in_sync(struct job *job)
{
    show_progress(job);
    if (job_is_ready(job))
        return true;
    if (!co_flush_target(job))
        return false;
    job_set_ready(job);
    return true;
}

/*
 * Whether the rest can be copied while the users wait: one who writes all the time would never let it become nothing.
 * After some rounds it is as small as it will get.
 */
static bool may_stop(struct job *job)
{
    struct mirror_job *mirror = job_state(job);

    return job_is_ready(job) && job_should_complete(job) &&
           (block_copy_remaining(mirror->copy) <= LAST_BYTES || mirror->last_rounds > LAST_ROUNDS);
}

/* Nothing is left to be started. True: the work is done. */
static bool CO_FN co_come_to_end(struct job *job)
{
    struct mirror_job *mirror = job_state(job);

    co_pump_idle(&mirror->pump);
    if (mirror->pump.error)
        return false;
    if (block_copy_remaining(mirror->copy))
        return false;
    show_progress(job);
    if (mirror->one_shot)
        return co_flush_target(job);
    if (!co_in_sync(job))
        return false;
    if (job_should_complete(job))
        return true;
    mirror_filter_ask(mirror->filter.node);
    if (!block_copy_remaining(mirror->copy))
        co_job_wait(job, -1);
    return false;
}

static bool CO_FN co_follow(struct job *job, struct error **err)
{
    struct mirror_job *mirror = job_state(job);
    uint64_t cursor = 0, offset, bytes;

    while (!job_is_cancelled(job)) {
        int target_error = mirror_filter_take_error(mirror->filter.node);
        enum pump_verdict verdict;

        if (target_error && !mirror->pump.error)
            mirror->pump.error = target_error;
        verdict = co_pump_check(&mirror->pump, &mirror->policy);
        if (verdict == PUMP_FAIL)
            return job_is_cancelled(job) || job_pump_fail(&mirror->pump, err);
        if (verdict == PUMP_AGAIN)
            cursor = 0;
        show_progress(job);
        if (may_stop(job)) {
            co_pump_idle(&mirror->pump);
            if (!mirror->pump.error)
                return true;
        } else if (block_copy_next(mirror->copy, cursor, &offset, &bytes)) {
            bytes = co_choose_chunk(mirror, offset, bytes);
            co_job_throttle(job, bytes);
            if (job_is_cancelled(job) || job_should_pause(job))
                continue;
            co_pump_start(&mirror->pump, offset, bytes);
            cursor = offset + bytes;
        } else if (cursor) {
            cursor = 0;
            /* Until what was started has claimed its part, it would be found again, round after round. */
            co_yield ();
            mirror->last_rounds += job_should_complete(job);
            /* One who writes all the time does not keep it from being ready for ever: the last is copied at the end. */
            if (!job_is_ready(job) && !mirror->one_shot && ++mirror->rounds > READY_ROUNDS &&
                block_copy_remaining(mirror->copy) <= LAST_BYTES)
                (void)co_in_sync(job);
        } else if (co_come_to_end(job)) {
            return true;
        }
    }
    return true;
}

static bool CO_FN mirror_co_run(struct job *job, struct error **err)
{
    struct mirror_job *mirror = job_state(job);
    bool ok = co_mark_start(job, err);

    if (ok) {
        show_progress(job);
        ok = co_follow(job, err);
    }
    co_pump_idle(&mirror->pump);
    show_progress(job);
    return ok;
}

/* --- the end --- */

/* In a drain of the source: what was changed since the work was done. */
static bool CO_FN co_copy_last(struct mirror_job *mirror, struct error **err)
{
    uint64_t offset, bytes;
    int ret = mirror_filter_take_error(mirror->filter.node);
    bool is_read = false;

    if (!ret) {
        while (!ret && block_copy_next(mirror->copy, 0, &offset, &bytes))
            ret = co_block_copy(mirror->copy, offset, bytes, true, &is_read);
    }
    if (!ret && !mirror->pump.no_flush)
        ret = co_edge_flush(mirror_filter_target(mirror->filter.node));
    if (!ret)
        return true;
    return error_set_errno(err, ret, "Could not %s", is_read ? "read from the source" : "write to the target");
}

/* The source's other layers, or the source itself, show through where nothing was copied. */
static bool CO_FN co_take_backing(struct graph_change *change, struct mirror_job *mirror, struct node *source,
                                  struct error **err)
{
    struct node *target = edge_child(mirror_filter_target(mirror->filter.node));
    struct edge *backing = node_backing(chain_skip_filters(source));

    if (mirror->sync == MIRROR_SYNC_MODE_NONE)
        return co_graph_change_add_child(change, target, "backing", source, EDGE_COW, err);
    return !backing || co_graph_change_add_child(change, target, "backing", edge_child(backing), EDGE_COW, err);
}

static bool CO_FN co_swap(struct graph_change *change, struct mirror_job *mirror, struct error **err)
{
    struct node *filter = mirror->filter.node;
    struct node *source = edge_child(node_primary(filter));
    struct node *target = edge_child(mirror_filter_target(filter));

    if (mirror->replaces && !node_reaches(source, mirror->replaces))
        return error_set(err,
                         "Can no longer replace '%s' by '%s', because it can no longer be guaranteed that doing so "
                         "would not lead to an abrupt change of visible data",
                         node_name(mirror->replaces), node_name(target));
    mirror_filter_set_stopped(filter, true);
    /* Those who have come to the source itself meanwhile, too; the filter, which ends, goes with them. */
    if (!mirror->replaces)
        return co_graph_change_replace(change, filter, target, err) &&
               co_graph_change_replace(change, source, target, err) &&
               (!mirror->takes_backing || co_take_backing(change, mirror, source, err));
    return co_graph_change_replace(change, filter, source, err) &&
           co_graph_change_replace(change, mirror->replaces, target, err);
}

static bool CO_FN mirror_co_prepare(struct job *job, struct error **err)
{
    struct mirror_job *mirror = job_state(job);
    bool swap = !job_is_cancelled_well(job);
    struct graph_change *change;
    bool ok;

    if (!co_handle_set_permissions(mirror->filter.handle, 0, PERM_ALL, err))
        return false;
    change = co_graph_change_begin(node_graph(mirror->filter.node));
    co_graph_change_drain(change, edge_child(node_primary(mirror->filter.node)));
    ok = co_copy_last(mirror, err);
    if (ok && swap && mirror->co_before_swap)
        ok = mirror->co_before_swap(mirror->opaque, mirror->filter.node, err);
    ok = ok && (!swap || co_swap(change, mirror, err));
    ok = co_graph_change_end(change, ok, err);
    if (!ok)
        mirror_filter_set_stopped(mirror->filter.node, false);
    show_progress(job);
    mirror->swapped = ok && swap;
    return ok;
}

static void CO_FN mirror_co_abort(struct job *job)
{
    struct mirror_job *mirror = job_state(job);

    /* Nothing comes after its prepare that could fail: it is alone in its transaction. */
    assert(!mirror->swapped);
}

static void CO_FN mirror_co_clean(struct job *job)
{
    struct mirror_job *mirror = job_state(job);

    co_mirror_filter_unwatch(mirror->filter.node);
    mirror_filter_set_job(mirror->filter.node, NULL);
    co_handle_free(mirror->replaces_handle);
    co_job_filter_remove(&mirror->filter);
    if (mirror->co_done)
        mirror->co_done(mirror->opaque, mirror->swapped);
    co_pump_done(&mirror->pump);
}

/* --- what clients ask --- */

static bool CO_FN mirror_co_change(struct job *job, const struct block_job_change_options *options, struct error **err)
{
    struct mirror_job *mirror = job_state(job);
    enum mirror_copy_mode mode = options->u.mirror.copy_mode;
    bool active = mirror_filter_active(mirror->filter.node);

    if (active == (mode == MIRROR_COPY_MODE_WRITE_BLOCKING))
        return true;
    if (active)
        return error_set(err, "Cannot switch copy mode to '%s': only from 'background' to 'write-blocking'",
                         mirror_copy_mode_name(mode));
    mirror_filter_set_active(mirror->filter.node, true);
    return true;
}

static void mirror_query(const struct job *job, struct block_job_info *info)
{
    struct mirror_job *mirror = job_state(job);

    info->u.mirror.actively_synced =
        job_is_ready(job) && mirror_filter_active(mirror->filter.node) && !block_copy_remaining(mirror->copy);
}

#define MIRROR_JOB_DRIVER(job_type)                                                                                    \
    .type = job_type, .state_size = sizeof(struct mirror_job), .is_block_job = true, .cancels_well = true,             \
    .co_run = mirror_co_run, .co_prepare = mirror_co_prepare, .co_abort = mirror_co_abort, .co_clean = mirror_co_clean

static const struct job_driver mirror_job_driver = {
    MIRROR_JOB_DRIVER(JOB_TYPE_MIRROR),
    .co_change = mirror_co_change,
    .query = mirror_query,
};

static const struct job_driver commit_job_driver = {MIRROR_JOB_DRIVER(JOB_TYPE_COMMIT)};

/* --- making --- */

static uint32_t CO_FN co_choose_granularity(const struct mirror_options *options)
{
    struct node_info info = {0};

    if (options->granularity)
        return (uint32_t)options->granularity;
    if (!co_node_get_info(options->target, &info) || !info.cluster_size)
        return GRANULARITY_DEFAULT;
    return MIN(MAX(info.cluster_size, GRANULARITY_CLUSTER_MIN), GRANULARITY_MAX);
}

static void set_up_buffers(struct mirror_job *mirror, const struct mirror_options *options)
{
    uint64_t granularity = block_copy_cluster_size(mirror->copy);
    uint64_t buffer = options->buffer_bytes ? (uint64_t)options->buffer_bytes : (uint64_t)WORKERS * CHUNK_BYTES;

    mirror->chunk_max = align_up(MIN(buffer, CHUNK_BYTES), granularity);
    mirror->pump.limit = (unsigned)MIN(MAX(buffer / mirror->chunk_max, 1), WORKERS);
    mirror->pump.limit = block_copy_parallel(mirror->copy, mirror->pump.limit);
    mirror->pump.has_thread = block_copy_is_near(mirror->copy);
    if (mirror->pump.has_thread)
        block_copy_set_gives_way(mirror->copy);
}

/* What is to be replaced is kept until then. */
static bool CO_FN co_hold_replaced(struct mirror_job *mirror, const struct mirror_options *options, const char *user,
                                   struct error **err)
{
    struct handle_options handle = {.name = user, .shared = PERM_ALL, .follows_length = true, .stays = true};

    if (!options->replaces)
        return true;
    mirror->replaces = graph_find(node_graph(options->source), options->replaces, err);
    if (!mirror->replaces)
        return false;
    if (mirror->replaces == options->source) {
        mirror->replaces = NULL;
        return true;
    }
    if (options->sync != MIRROR_SYNC_MODE_FULL)
        return error_set(err, "Parameter 'replaces' needs sync mode 'full', and it is '%s'",
                         mirror_sync_mode_name(options->sync));
    if (node_length(mirror->replaces) != node_length(options->source))
        return error_set(err, "cannot replace image with a mirror image of different size");
    if (!node_reaches(options->source, mirror->replaces))
        return error_set(err,
                         "Cannot replace '%s' by a node mirrored from '%s', because it cannot be guaranteed that doing "
                         "so would not lead to an abrupt change of visible data",
                         options->replaces, node_name(options->source));
    mirror->replaces_handle = co_handle_new(mirror->replaces, &handle, err);
    return mirror->replaces_handle;
}

/* The copy's both ends; of a commit also what lies between them. */
static bool CO_FN co_hold(struct mirror_job *mirror, const struct mirror_options *options, struct error **err)
{
    struct node *node = options->source;

    if (options->type == JOB_TYPE_COMMIT) {
        for (; node != options->target; node = chain_next(node)) {
            if (!co_job_filter_hold(&mirror->filter, node, options->type, err))
                return false;
        }
    } else if (!co_job_filter_hold(&mirror->filter, node, options->type, err)) {
        return false;
    }
    return co_job_filter_hold(&mirror->filter, options->target, options->type, err);
}

static bool CO_FN co_insert(struct mirror_job *mirror, const struct mirror_options *options, const char *user,
                            struct error **err)
{
    struct mirror_filter_options filter = {
        .node_name = options->filter_node_name,
        .is_commit = options->type == JOB_TYPE_COMMIT,
        .source = options->source,
        .target = options->target,
        .granularity = co_choose_granularity(options),
        .active = options->active,
    };
    struct job_filter_options insertion = {.user = user, .perm = PERM_CONSISTENT_READ};
    struct graph_change *change;
    bool ok;

    if (!co_hold(mirror, options, err)) {
        co_job_filter_let_go(&mirror->filter);
        return false;
    }
    mirror->filter.node = co_mirror_filter_open(&filter, err);
    if (!mirror->filter.node) {
        co_job_filter_let_go(&mirror->filter);
        return false;
    }
    mirror->copy = mirror_filter_copy(mirror->filter.node);
    block_copy_set_unmap(mirror->copy, !options->keep_zeroes);
    block_copy_set_copy_range(mirror->copy, true);
    block_copy_set_flush_ahead(mirror->copy);
    /* The layers that are not copied will show through where the copy has nothing. */
    if (options->type == JOB_TYPE_MIRROR && options->sync == MIRROR_SYNC_MODE_TOP)
        block_copy_set_explicit_zeroes(mirror->copy);
    set_up_buffers(mirror, options);
    /* Nobody writes between the filter's coming and its beginning to watch. */
    change = co_graph_change_begin(node_graph(options->source));
    co_graph_change_drain(change, options->source);
    ok = co_job_filter_insert(&mirror->filter, options->source, &insertion, err);
    if (ok)
        mirror_filter_watch(mirror->filter.node, options->source);
    (void)co_graph_change_end(change, ok, NULL);
    if (!ok)
        co_job_filter_give_up(&mirror->filter);
    return ok;
}

struct job *CO_FN co_mirror_new(const struct job_place *place, const struct mirror_options *options, struct error **err)
{
    struct mirror_job mirror = {
        .type = options->type,
        .sync = options->sync,
        .base = options->base,
        .policy = options->policy,
        .pump = {.co_work = mirror_co_work},
        .target_is_zero = options->target_is_zero,
        .takes_backing = options->takes_backing,
        .one_shot = options->one_shot,
        .co_before_swap = options->co_before_swap,
        .co_done = options->co_done,
        .opaque = options->opaque,
    };
    struct job_options job_options = {
        .driver = options->type == JOB_TYPE_COMMIT ? &commit_job_driver : &mirror_job_driver,
        .id = options->id ? options->id : "",
        .speed = options->speed,
        .manual_finalize = options->manual_finalize,
        .manual_dismiss = options->manual_dismiss,
        .transaction = place->transaction,
    };
    g_autofree char *user = g_strdup_printf("block job '%s'", job_options.id);
    struct job *job;

    if (!job_check_options(place->jobs, &job_options, err))
        return NULL;
    if (!co_hold_replaced(&mirror, options, user, err))
        return NULL;
    if (!co_insert(&mirror, options, user, err)) {
        co_handle_free(mirror.replaces_handle);
        return NULL;
    }
    job = job_new(place->jobs, &job_options, err);
    if (!job) {
        co_handle_free(mirror.replaces_handle);
        co_mirror_filter_unwatch(mirror.filter.node);
        co_job_filter_remove(&mirror.filter);
        return NULL;
    }
    mirror.pump.job = job;
    *(struct mirror_job *)job_state(job) = mirror;
    mirror_filter_set_job(mirror.filter.node, job);
    return job;
}

bool mirror_check_options(const struct job_place *place, const struct mirror_options *options, struct error **err)
{
    struct job_options job_options = {.id = options->id ? options->id : "", .speed = options->speed};

    if (options->sync == MIRROR_SYNC_MODE_INCREMENTAL || options->sync == MIRROR_SYNC_MODE_BITMAP)
        return error_set(err, "Sync mode '%s' not supported", mirror_sync_mode_name(options->sync));
    if (options->granularity && (options->granularity < GRANULARITY_MIN || options->granularity > GRANULARITY_MAX))
        return error_set(err, "Parameter 'granularity' expects a value in range [512B, 64MB]");
    if (options->granularity && !is_power_of_two(options->granularity))
        return error_set(err, "Parameter 'granularity' expects a power of 2");
    if (options->buffer_bytes < 0)
        return error_set(err, "Invalid parameter 'buf-size'");
    return job_check_options(place->jobs, &job_options, err);
}

struct job *CO_FN co_mirror_checked_new(const struct job_place *place, const struct mirror_options *options,
                                        struct error **err)
{
    if (options->source == options->target) {
        error_set(err, "Can't mirror node into itself");
        return NULL;
    }
    if (!mirror_check_options(place, options, err))
        return NULL;
    if (node_length(options->source) != node_length(options->target)) {
        error_set(err, "Source and target image have different sizes");
        return NULL;
    }
    return co_mirror_new(place, options, err);
}

struct job *CO_FN co_blockdev_mirror_new(const struct job_place *place, const struct blockdev_mirror_arg *arg,
                                         struct error **err)
{
    struct mirror_options options = {
        .type = JOB_TYPE_MIRROR,
        .id = arg->job_id,
        .filter_node_name = arg->filter_node_name,
        .replaces = arg->replaces,
        .sync = arg->sync,
        .speed = arg->has_speed ? arg->speed : 0,
        .granularity = arg->has_granularity ? arg->granularity : 0,
        .buffer_bytes = arg->has_buf_size ? arg->buf_size : 0,
        .policy = {.on_source = arg->has_on_source_error ? arg->on_source_error : BLOCKDEV_ON_ERROR_REPORT,
                   .on_target = arg->has_on_target_error ? arg->on_target_error : BLOCKDEV_ON_ERROR_REPORT},
        .target_is_zero = arg->has_target_is_zero && arg->target_is_zero,
        .active = arg->has_copy_mode && arg->copy_mode == MIRROR_COPY_MODE_WRITE_BLOCKING,
        .manual_finalize = arg->has_auto_finalize && !arg->auto_finalize,
        .manual_dismiss = arg->has_auto_dismiss && !arg->auto_dismiss,
    };

    options.source = job_find_node(place->graph, arg->device, err);
    options.target = options.source ? job_find_node(place->graph, arg->target, err) : NULL;
    return options.target ? co_mirror_checked_new(place, &options, err) : NULL;
}
