/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Backup: a copy-before-write filter is put above the source, which saves what is about to be overwritten, and the job
 * copies the rest through the same list of clusters. Its requests are made at a handle on the filter, so a drain of
 * either side stops them.
 *
 * Keeps: (1) the filter is there from the making of the job to its clean; (2) a bitmap that the job uses is frozen and
 * busy for as long.
 */
#include "job/backup.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/units.h"
#include "block/block-copy.h"
#include "block/dirty-bitmap.h"
#include "block/graph-change.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/node.h"
#include "driver/filter/copy-before-write.h"
#include "job/filter.h"
#include "job/job.h"
#include "job/pump.h"

enum { WORKERS = 64, CHUNK_BYTES = 1024 * 1024, ZERO_CHUNK_BYTES = 1024 * 1024 * 1024 };
/* How often a job that copies nothing by itself looks whether the saved state is still whole. */
#define LOOK_NS NS_PER_S

struct backup_job {
    struct job_filter filter;
    struct block_copy *copy; /* the filter's */
    enum mirror_sync_mode sync;
    struct job_error_policy policy;
    struct dirty_bitmap *bitmap; /* held, busy and frozen; NULL: none */
    enum bitmap_sync_mode bitmap_mode;
    struct job_pump pump;
    uint64_t chunk_max;     /* bytes */
    uint64_t start_bytes;   /* that were to be copied in the beginning */
    uint64_t counted_bytes; /* of them, that progress has been told of */
};

/* --- the work --- */

struct copy_call {
    struct block_copy *copy;
    uint64_t offset;
    uint64_t bytes;
    bool wait;
    bool is_read;
};

static int CO_FN co_call_copy(struct node *node, void *opaque)
{
    struct copy_call *call = opaque;

    int ret = co_block_copy(call->copy, call->offset, call->bytes, call->wait, &call->is_read);

    if (!ret)
        co_block_copy_flush_ahead(call->copy);
    return ret;
}

static int CO_FN backup_co_work(void *state, uint64_t offset, uint64_t bytes, bool *ret_is_read)
{
    struct backup_job *backup = state;
    struct copy_call call = {.copy = backup->copy, .offset = offset, .bytes = bytes};
    int ret = co_pump_call(&backup->pump, backup->filter.handle, co_call_copy, &call);

    *ret_is_read = call.is_read;
    return ret;
}

/* Waits for what writers are saving. */
static void CO_FN co_wait_for_writers(struct backup_job *backup)
{
    struct copy_call call = {
        .copy = backup->copy, .bytes = block_copy_length(backup->copy), .wait = true, .is_read = false};
    int ret = co_handle_call(backup->filter.handle, co_call_copy, &call);

    if (ret && !backup->pump.error) {
        backup->pump.error = ret;
        backup->pump.error_is_read = call.is_read;
    }
}

static int CO_FN co_call_zeroes(struct node *node, void *opaque)
{
    struct copy_call *call = opaque;

    call->bytes = co_block_copy_zeroes(call->copy, call->offset, call->bytes);
    return 0;
}

/* How much is copied in one go at `offset`: more where there is nothing but zeroes. */
static uint64_t CO_FN co_choose_chunk(struct backup_job *backup, uint64_t offset, uint64_t bytes)
{
    struct copy_call call = {.copy = backup->copy, .offset = offset, .bytes = MIN(bytes, ZERO_CHUNK_BYTES)};
    uint32_t cluster = block_copy_cluster_size(backup->copy);

    if (bytes > backup->chunk_max && backup->chunk_max == CHUNK_BYTES) {
        co_handle_call(backup->filter.handle, co_call_zeroes, &call);
        if (call.bytes > backup->chunk_max)
            return call.bytes >= bytes ? bytes : align_down(call.bytes, cluster);
    }
    return MIN(bytes, MAX(align_down(backup->chunk_max, cluster), cluster));
}

static void show_progress(struct job *job)
{
    struct backup_job *backup = job_state(job);
    uint64_t remaining = block_copy_remaining(backup->copy);
    uint64_t copied = backup->start_bytes > remaining ? backup->start_bytes - remaining : 0;

    if (copied > backup->counted_bytes) {
        job_progress_add(job, copied - backup->counted_bytes);
        backup->counted_bytes = copied;
    }
}

static int CO_FN co_call_flush(struct node *node, void *opaque)
{
    return co_block_copy_flush(((struct backup_job *)opaque)->copy);
}

/* Whether the copy is whole, and on the target's medium. */
static bool CO_FN co_is_whole(struct job *job)
{
    struct backup_job *backup = job_state(job);

    if (backup->pump.error || block_copy_remaining(backup->copy))
        return false;
    show_progress(job);
    return job_pump_flushed(&backup->pump, co_handle_call(backup->filter.handle, co_call_flush, backup));
}

/* 'top': what the backing images have is not copied. */
struct skip_call {
    struct backup_job *backup;
    uint64_t offset;
    uint64_t bytes; /* looked at */
};

static int CO_FN co_call_skip(struct node *node, void *opaque)
{
    struct skip_call *call = opaque;
    struct edge *source = node_primary(node);
    struct node *top = edge_child(source);
    int ret;

    /* Where there are only filters below, they pass on. */
    while (!node_backing(top) && node_primary(top) && edge_role(node_primary(top)) & EDGE_FILTERED)
        top = edge_child(node_primary(top));
    if (!node_backing(top))
        return 1;
    ret = co_edge_allocated_above(source, edge_child(node_backing(top)), call->offset, call->bytes, &call->bytes);
    if (!ret)
        block_copy_unmark(call->backup->copy, call->offset, call->bytes);
    return ret;
}

static bool CO_FN co_skip_unallocated(struct job *job, struct error **err)
{
    struct backup_job *backup = job_state(job);
    uint64_t length = block_copy_length(backup->copy);
    struct skip_call call = {.backup = backup};

    while (call.offset < length && !job_is_cancelled(job)) {
        int ret;

        co_job_pause_point(job);
        call.bytes = length - call.offset;
        ret = co_handle_call(backup->filter.handle, co_call_skip, &call);
        if (ret < 0)
            return error_set_errno(err, ret, "Could not ask what the source has allocated");
        call.offset += call.bytes;
    }
    backup->start_bytes = block_copy_remaining(backup->copy);
    job_progress_set_remaining(job, backup->start_bytes);
    return true;
}

static bool check_state(struct backup_job *backup, struct error **err)
{
    int lost = copy_before_write_lost(backup->filter.node);

    return !lost || error_set_errno(err, lost, "Old data could not be saved before it was overwritten");
}

static bool CO_FN co_copy_all(struct job *job, struct error **err)
{
    struct backup_job *backup = job_state(job);
    uint64_t cursor = 0, offset, bytes;

    while (!job_is_cancelled(job)) {
        enum pump_verdict verdict = co_pump_check(&backup->pump, &backup->policy);

        if (verdict == PUMP_FAIL)
            return job_is_cancelled(job) || job_pump_fail(&backup->pump, err);
        if (verdict == PUMP_AGAIN)
            cursor = 0;
        if (!check_state(backup, err))
            return false;
        show_progress(job);
        if (block_copy_next(backup->copy, cursor, &offset, &bytes)) {
            bytes = co_choose_chunk(backup, offset, bytes);
            co_job_throttle(job, bytes);
            if (job_is_cancelled(job) || job_should_pause(job))
                continue;
            co_pump_start(&backup->pump, offset, bytes);
            cursor = offset + bytes;
            continue;
        }
        co_pump_idle(&backup->pump);
        if (!backup->pump.error)
            co_wait_for_writers(backup);
        if (co_is_whole(job))
            break;
        cursor = 0;
    }
    return true;
}

static bool CO_FN backup_co_run(struct job *job, struct error **err)
{
    struct backup_job *backup = job_state(job);
    bool ok = true;

    backup->start_bytes = block_copy_remaining(backup->copy);
    job_progress_set_remaining(job, backup->start_bytes);
    if (backup->sync == MIRROR_SYNC_MODE_NONE) {
        while (ok && !job_is_cancelled(job)) {
            ok = check_state(backup, err);
            show_progress(job);
            if (ok)
                co_job_wait(job, LOOK_NS);
        }
        return ok;
    }
    if (backup->sync == MIRROR_SYNC_MODE_TOP)
        ok = co_skip_unallocated(job, err);
    ok = ok && co_copy_all(job, err);
    co_pump_idle(&backup->pump);
    show_progress(job);
    return ok && (job_is_cancelled(job) || check_state(backup, err));
}

/* --- the end --- */

/* 'always': it marks what has not been copied, and what was written meanwhile. */
static void bitmap_take_remaining(struct backup_job *backup)
{
    uint64_t length = dirty_bitmap_length(backup->bitmap);
    uint64_t offset = 0, bytes = 0;

    dirty_bitmap_clear(backup->bitmap, 0, length);
    while (block_copy_next(backup->copy, offset + bytes, &offset, &bytes))
        dirty_bitmap_set(backup->bitmap, offset, bytes);
}

static void bitmap_finish(struct backup_job *backup, bool success)
{
    bool drop = success && backup->bitmap_mode != BITMAP_SYNC_MODE_NEVER;

    if (!backup->bitmap)
        return;
    if (!success && backup->bitmap_mode == BITMAP_SYNC_MODE_ALWAYS)
        bitmap_take_remaining(backup);
    dirty_bitmap_thaw(backup->bitmap, drop ? DIRTY_BITMAP_DROP : DIRTY_BITMAP_KEEP);
    dirty_bitmap_set_busy(backup->bitmap, NULL);
    dirty_bitmap_unref(TAKE(backup->bitmap));
}

static void CO_FN backup_co_commit(struct job *job)
{
    bitmap_finish(job_state(job), true);
}

static void CO_FN backup_co_abort(struct job *job)
{
    bitmap_finish(job_state(job), false);
}

static void CO_FN backup_co_clean(struct job *job)
{
    struct backup_job *backup = job_state(job);

    assert(!backup->bitmap);
    co_job_filter_remove(&backup->filter);
    co_pump_done(&backup->pump);
}

static const struct job_driver backup_job_driver = {
    .type = JOB_TYPE_BACKUP,
    .state_size = sizeof(struct backup_job),
    .is_block_job = true,
    .co_run = backup_co_run,
    .co_commit = backup_co_commit,
    .co_abort = backup_co_abort,
    .co_clean = backup_co_clean,
};

/* --- making --- */

static bool check_perf(const struct backup_perf *perf, struct error **err)
{
    if (!perf)
        return true;
    if (perf->has_max_workers && (perf->max_workers < 1 || perf->max_workers > INT_MAX))
        return error_set(err, "max-workers must be between 1 and %d", INT_MAX);
    if (perf->has_max_chunk && perf->max_chunk < 0)
        return error_set(err, "max-chunk must be zero (which means no limit) or positive");
    return true;
}

static bool wants_bitmap(enum mirror_sync_mode sync)
{
    return sync == MIRROR_SYNC_MODE_BITMAP || sync == MIRROR_SYNC_MODE_INCREMENTAL;
}

/* The bitmap and what becomes of it; both in `backup`. */
static bool take_bitmap(struct backup_job *backup, struct node *source, const struct blockdev_backup *options,
                        struct error **err)
{
    struct dirty_bitmap *bitmap;

    if (wants_bitmap(options->sync) && !options->bitmap)
        return error_set(err, "must provide a valid bitmap name for '%s' sync mode",
                         mirror_sync_mode_name(options->sync));
    if (options->sync == MIRROR_SYNC_MODE_INCREMENTAL) {
        if (options->has_bitmap_mode && options->bitmap_mode != BITMAP_SYNC_MODE_ON_SUCCESS)
            return error_set(err, "Bitmap sync mode must be 'on-success' when using sync mode 'incremental'");
        backup->bitmap_mode = BITMAP_SYNC_MODE_ON_SUCCESS;
    }
    if (!options->bitmap)
        return !options->has_bitmap_mode || error_set(err, "Cannot specify bitmap sync mode without a bitmap");
    bitmap = dirty_bitmap_find(source, options->bitmap, NULL);
    if (!bitmap)
        return error_set(err, "Bitmap '%s' could not be found", options->bitmap);
    if (options->sync != MIRROR_SYNC_MODE_INCREMENTAL) {
        if (!options->has_bitmap_mode)
            return error_set(err, "Bitmap sync mode must be given when providing a bitmap");
        backup->bitmap_mode = options->bitmap_mode;
    }
    if (!dirty_bitmap_check(bitmap, 0, err))
        return false;
    if (options->sync == MIRROR_SYNC_MODE_NONE)
        return error_set(err, "sync mode '%s' does not produce meaningful bitmap outputs",
                         mirror_sync_mode_name(options->sync));
    if (!wants_bitmap(options->sync) && backup->bitmap_mode == BITMAP_SYNC_MODE_NEVER)
        return error_set(err, "Bitmap sync mode '%s' has no meaningful effect when combined with sync mode '%s'",
                         bitmap_sync_mode_name(backup->bitmap_mode), mirror_sync_mode_name(options->sync));
    backup->bitmap = dirty_bitmap_ref(bitmap);
    return true;
}

static bool check_nodes(struct node *source, struct node *target, const struct blockdev_backup *options,
                        struct error **err)
{
    if (source == target)
        return error_set(err, "Source and target cannot be the same");
    if (options->has_compress && options->compress && !node_can_compress(target))
        return error_set(err, "Compression is not supported for this drive %s", node_name(target));
    if (node_length(source) != node_length(target))
        return error_set(err, "Source and target image have different sizes");
    return check_perf(options->x_perf, err);
}

static struct node *CO_FN co_open_filter(const struct job_place *place, const struct blockdev_backup *options,
                                         struct node *source, struct node *target, struct error **err)
{
    const struct backup_perf *perf = options->x_perf;
    struct blockdev_ref file = {.kind = BLOCKDEV_REF_KIND_REFERENCE, .u.reference = (char *)node_name(source)};
    struct blockdev_ref to = {.kind = BLOCKDEV_REF_KIND_REFERENCE, .u.reference = (char *)node_name(target)};
    struct blockdev_options filter = {
        .driver = BLOCKDEV_DRIVER_COPY_BEFORE_WRITE,
        .node_name = options->filter_node_name,
        .has_read_only = true,
        .read_only = node_read_only(source),
        .has_discard = true,
        .discard = BLOCKDEV_DISCARD_OPTIONS_UNMAP,
        .u.copy_before_write = {.file = &file,
                                .target = &to,
                                .has_on_cbw_error = options->has_on_cbw_error,
                                .on_cbw_error = options->on_cbw_error,
                                .has_min_cluster_size = perf && perf->has_min_cluster_size,
                                .min_cluster_size = perf ? perf->min_cluster_size : 0},
    };

    return co_graph_open_node(place->graph, NULL, &filter, err);
}

static bool set_up_copy(struct backup_job *backup, const struct blockdev_backup *options, struct error **err)
{
    const struct backup_perf *perf = options->x_perf;
    uint32_t cluster = block_copy_cluster_size(backup->copy);

    if (perf && perf->has_max_chunk && perf->max_chunk && (uint64_t)perf->max_chunk < cluster)
        return error_set(err, "Required max-chunk (%" PRId64 ") is less than backup cluster size (%" PRIu32 ")",
                         perf->max_chunk, cluster);
    backup->chunk_max = perf && perf->has_max_chunk && perf->max_chunk ? (uint64_t)perf->max_chunk : CHUNK_BYTES;
    block_copy_set_compress(backup->copy, options->has_compress && options->compress);
    backup->pump.limit =
        perf && perf->has_max_workers ? (unsigned)perf->max_workers : block_copy_parallel(backup->copy, WORKERS);
    backup->pump.has_thread = block_copy_is_near(backup->copy);
    if (backup->pump.has_thread)
        block_copy_set_gives_way(backup->copy);
    block_copy_set_copy_range(backup->copy, perf && perf->has_use_copy_range && perf->use_copy_range);
    if (options->sync == MIRROR_SYNC_MODE_TOP)
        block_copy_set_explicit_zeroes(backup->copy);
    block_copy_set_discard_source(backup->copy, options->has_discard_source && options->discard_source);
    return true;
}

/* From now on the bitmap stands still, and says what is copied. */
static void freeze_bitmap(struct backup_job *backup, const char *user)
{
    uint64_t length = block_copy_length(backup->copy);
    uint64_t offset = 0, bytes = 0;

    if (!backup->bitmap)
        return;
    dirty_bitmap_set_busy(backup->bitmap, user);
    dirty_bitmap_freeze(backup->bitmap);
    if (!wants_bitmap(backup->sync))
        return;
    block_copy_unmark(backup->copy, 0, length);
    while (dirty_bitmap_next_area(backup->bitmap, offset + bytes, length, 0, &offset, &bytes))
        block_copy_mark(backup->copy, offset, bytes);
}

/* The moment that the copy will show: between the drain of the source and the end of the change. */
static bool CO_FN co_insert(struct backup_job *backup, const struct job_place *place, struct node *source,
                            const char *user, struct error **err)
{
    struct graph_change *change = co_graph_change_begin(place->graph);
    struct job_filter_options filter = {.user = user,
                                        .perm = PERM_CONSISTENT_READ | (backup->filter.discards ? PERM_WRITE : 0u)};
    bool ok;

    co_graph_change_drain(change, source);
    freeze_bitmap(backup, user);
    ok = co_job_filter_insert(&backup->filter, source, &filter, err);
    co_graph_change_end(change, ok, NULL);
    if (!ok) {
        bitmap_finish(backup, false);
        co_job_filter_give_up(&backup->filter);
    }
    return ok;
}

bool backup_check_job(const struct job_place *place, const struct blockdev_backup *options, struct error **err)
{
    struct job_options job_options = {.id = options->job_id ? options->job_id : "",
                                      .speed = options->has_speed ? options->speed : 0};

    return job_check_options(place->jobs, &job_options, err) && check_perf(options->x_perf, err);
}

struct job *CO_FN co_backup_new(const struct job_place *place, const struct blockdev_backup *options,
                                struct error **err)
{
    struct backup_job backup = {
        .sync = options->sync,
        .policy = {.on_source = options->has_on_source_error ? options->on_source_error : BLOCKDEV_ON_ERROR_REPORT,
                   .on_target = options->has_on_target_error ? options->on_target_error : BLOCKDEV_ON_ERROR_REPORT},
        .pump = {.co_work = backup_co_work},
    };
    struct job_options job_options = {.driver = &backup_job_driver,
                                      .id = options->job_id ? options->job_id : "",
                                      .speed = options->has_speed ? options->speed : 0,
                                      .manual_finalize = options->has_auto_finalize && !options->auto_finalize,
                                      .manual_dismiss = options->has_auto_dismiss && !options->auto_dismiss,
                                      .transaction = place->transaction};
    g_autofree char *user = g_strdup_printf("block job '%s'", job_options.id);
    struct node *source = job_find_node(place->graph, options->device, err);
    struct node *target = source ? job_find_node(place->graph, options->target, err) : NULL;
    struct job *job;
    bool ok;

    if (!target || !node_check_idle(source, err) || !check_nodes(source, target, options, err) ||
        !job_check_options(place->jobs, &job_options, err) || !take_bitmap(&backup, source, options, err))
        return NULL;
    backup.filter.discards = options->has_discard_source && options->discard_source;
    if (co_job_filter_hold(&backup.filter, target, JOB_TYPE_BACKUP, err))
        backup.filter.node = co_open_filter(place, options, source, target, err);
    if (backup.filter.node) {
        backup.copy = copy_before_write_copy(backup.filter.node);
        ok = set_up_copy(&backup, options, err);
        if (!ok)
            co_graph_release_node(backup.filter.node);
    } else {
        ok = false;
    }
    if (!ok) {
        co_job_filter_let_go(&backup.filter);
        dirty_bitmap_unref(backup.bitmap);
        return NULL;
    }
    if (!co_insert(&backup, place, source, user, err))
        return NULL;
    job = job_new(place->jobs, &job_options, err);
    if (!job) {
        bitmap_finish(&backup, false);
        co_job_filter_remove(&backup.filter);
        return NULL;
    }
    *(struct backup_job *)job_state(job) = backup;
    ((struct backup_job *)job_state(job))->pump.job = job;
    return job;
}
