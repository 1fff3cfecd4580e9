/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The QMP command `transaction`: several actions as one. */
#include "qmp/commands/transaction.h"

#include <assert.h>

#include "base/error.h"
#include "block/dirty-bitmap-action.h"
#include "block/graph-change.h"
#include "block/graph.h"
#include "block/snapshot.h"
#include "block/transaction.h"
#include "gen/commands.h"
#include "job/backup.h"
#include "job/drive.h"
#include "job/job.h"
#include "qmp/daemon.h"

/* --- abort --- */

static bool CO_FN co_abort(struct transaction_run *run, const struct transaction_action *action, struct error **err)
{
    return error_set(err, "Transaction aborted using Abort action");
}

/* --- dirty bitmaps --- */

static const char *node_of_add(const struct transaction_action *action)
{
    return action->u.block_dirty_bitmap_add.data->node;
}

/* All but adding and merging have the same arguments. */
static const char *node_of_bitmap(const struct transaction_action *action)
{
    return action->u.block_dirty_bitmap_clear.data->node;
}

static const char *node_of_merge(const struct transaction_action *action)
{
    return action->u.block_dirty_bitmap_merge.data->node;
}

static bool CO_FN co_bitmap_add(struct transaction_run *run, const struct transaction_action *action,
                                struct error **err)
{
    return co_dirty_bitmap_do_add(run->transaction, run->daemon->graph, action->u.block_dirty_bitmap_add.data, err);
}

static bool CO_FN co_bitmap_remove(struct transaction_run *run, const struct transaction_action *action,
                                   struct error **err)
{
    return co_dirty_bitmap_do_remove(run->transaction, run->daemon->graph, action->u.block_dirty_bitmap_remove.data,
                                     err);
}

static bool CO_FN co_bitmap_clear(struct transaction_run *run, const struct transaction_action *action,
                                  struct error **err)
{
    return dirty_bitmap_do_clear(run->transaction, run->daemon->graph, action->u.block_dirty_bitmap_clear.data, err);
}

static bool CO_FN co_bitmap_enable(struct transaction_run *run, const struct transaction_action *action,
                                   struct error **err)
{
    return dirty_bitmap_do_enable(run->transaction, run->daemon->graph, action->u.block_dirty_bitmap_enable.data, err);
}

static bool CO_FN co_bitmap_disable(struct transaction_run *run, const struct transaction_action *action,
                                    struct error **err)
{
    return dirty_bitmap_do_disable(run->transaction, run->daemon->graph, action->u.block_dirty_bitmap_disable.data,
                                   err);
}

static bool CO_FN co_bitmap_merge(struct transaction_run *run, const struct transaction_action *action,
                                  struct error **err)
{
    return dirty_bitmap_do_merge(run->transaction, run->daemon->graph, action->u.block_dirty_bitmap_merge.data, err);
}

/* --- jobs: made by the action, started at the end --- */

static void co_start_job(void *opaque)
{
    job_start(opaque);
}

static void CO_FN co_discard_job(void *opaque)
{
    co_job_discard(opaque);
}

static bool add_job(struct transaction_run *run, struct job *job)
{
    static const struct transaction_ops ops = {.co_commit = co_start_job, .co_abort = co_discard_job};

    if (job)
        transaction_add(run->transaction, &ops, job);
    return job;
}

static struct job_place place_of(const struct transaction_run *run)
{
    return (struct job_place){.jobs = run->daemon->jobs, .graph = run->daemon->graph, .transaction = run->jobs};
}

static const char *node_of_backup(const struct transaction_action *action)
{
    return action->u.blockdev_backup.data->device;
}

static bool CO_FN co_backup(struct transaction_run *run, const struct transaction_action *action, struct error **err)
{
    struct job_place place = place_of(run);

    return add_job(run, co_backup_new(&place, action->u.blockdev_backup.data, err));
}

static const char *node_of_drive_backup(const struct transaction_action *action)
{
    return action->u.drive_backup.data->device;
}

static bool CO_FN co_drive_backup(struct transaction_run *run, const struct transaction_action *action,
                                  struct error **err)
{
    struct job_place place = place_of(run);

    return add_job(run, co_drive_backup_new(&place, action->u.drive_backup.data, err));
}

/* --- snapshots --- */

static const char *node_of_snapshot(const struct transaction_action *action)
{
    return action->u.blockdev_snapshot.data->node;
}

static const char *node_of_snapshot_sync(const struct transaction_action *action)
{
    return action->u.blockdev_snapshot_sync.data->node_name;
}

static const char *node_of_internal(const struct transaction_action *action)
{
    return action->u.blockdev_snapshot_internal_sync.data->device;
}

static bool CO_FN co_snapshot(struct transaction_run *run, const struct transaction_action *action, struct error **err)
{
    return co_snapshot_do(run->transaction, run->daemon->graph, action->u.blockdev_snapshot.data, err);
}

static bool CO_FN co_snapshot_sync(struct transaction_run *run, const struct transaction_action *action,
                                   struct error **err)
{
    return co_snapshot_do_sync(run->transaction, run->daemon->graph, action->u.blockdev_snapshot_sync.data, err);
}

static bool CO_FN co_snapshot_internal(struct transaction_run *run, const struct transaction_action *action,
                                       struct error **err)
{
    return co_snapshot_do_internal(run->transaction, run->daemon->graph, action->u.blockdev_snapshot_internal_sync.data,
                                   err);
}

/* --- all kinds --- */

static const struct transaction_action_kind_entry kinds[TRANSACTION_ACTION_KIND__MAX] = {
    [TRANSACTION_ACTION_KIND_ABORT] = {.co_do = co_abort, .grouped = true},
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_ADD] = {.node = node_of_add, .co_do = co_bitmap_add},
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_REMOVE] = {.node = node_of_bitmap, .co_do = co_bitmap_remove},
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_CLEAR] = {.node = node_of_bitmap, .co_do = co_bitmap_clear},
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_ENABLE] = {.node = node_of_bitmap, .co_do = co_bitmap_enable},
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_DISABLE] = {.node = node_of_bitmap, .co_do = co_bitmap_disable},
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_MERGE] = {.node = node_of_merge, .co_do = co_bitmap_merge},
    [TRANSACTION_ACTION_KIND_BLOCKDEV_SNAPSHOT] = {.node = node_of_snapshot, .co_do = co_snapshot},
    [TRANSACTION_ACTION_KIND_BLOCKDEV_SNAPSHOT_SYNC] = {.node = node_of_snapshot_sync, .co_do = co_snapshot_sync},
    [TRANSACTION_ACTION_KIND_BLOCKDEV_SNAPSHOT_INTERNAL_SYNC] = {.node = node_of_internal,
                                                                 .co_do = co_snapshot_internal},
    [TRANSACTION_ACTION_KIND_DRIVE_BACKUP] = {.node = node_of_drive_backup, .co_do = co_drive_backup, .grouped = true},
    [TRANSACTION_ACTION_KIND_BLOCKDEV_BACKUP] = {.node = node_of_backup, .co_do = co_backup, .grouped = true},
};

/* Refuses what cannot be done whatever the state of things is, before anything waits. */
static bool check_kinds(const struct transaction_action_array *actions, bool grouped, struct error **err)
{
    for (size_t i = 0; i < actions->count; i++) {
        enum transaction_action_kind type = actions->items[i]->type;

        if (!kinds[type].co_do)
            return error_set(err, "Action '%s' is not supported", transaction_action_kind_name(type));
        if (grouped && !kinds[type].grouped)
            return error_set(err, "Action '%s' does not support Transaction property completion-mode = grouped",
                             transaction_action_kind_name(type));
    }
    return true;
}

/* Lets all requests on the nodes of the actions end, so that all take effect at one moment. */
static void CO_FN co_quiesce(struct graph *graph, struct graph_change *pause,
                             const struct transaction_action_array *actions)
{
    for (size_t i = 0; i < actions->count; i++) {
        const struct transaction_action *action = actions->items[i];
        const char *name = kinds[action->type].node ? kinds[action->type].node(action) : NULL;
        struct node *node = name ? graph_find(graph, name, NULL) : NULL;

        if (node)
            co_graph_change_drain(pause, node);
    }
}

static bool CO_FN co_run(struct transaction_run *run, const struct transaction_action_array *actions,
                         struct error **err)
{
    bool ok = true;

    run->transaction = transaction_new();
    run->change = co_graph_change_begin(run->daemon->graph);
    for (size_t i = 0; ok && i < actions->count; i++)
        ok = kinds[actions->items[i]->type].co_do(run, actions->items[i], err);
    ok = co_graph_change_end(run->change, ok, err);
    return co_transaction_end(run->transaction, ok);
}

bool CO_FN co_qmp_transaction(struct daemon *daemon, const struct transaction_arg *arg, struct error **err)
{
    bool grouped = arg->properties && arg->properties->has_completion_mode &&
                   arg->properties->completion_mode == ACTION_COMPLETION_MODE_GROUPED;
    struct transaction_run run = {.daemon = daemon};
    struct graph_change *pause;
    bool ok;

    if (!check_kinds(arg->actions, grouped, err))
        return false;
    run.jobs = grouped ? job_transaction_new() : NULL;
    pause = co_graph_change_begin(daemon->graph);
    co_quiesce(daemon->graph, pause, arg->actions);
    ok = co_run(&run, arg->actions, err);
    (void)co_graph_change_end(pause, true, NULL);
    job_transaction_release(run.jobs);
    return ok;
}
