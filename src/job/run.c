/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A job while it runs: rests, pauses, the speed limit, errors, and what clients ask of it.
 *
 * Keeps: (1) `pauses` counts the user's pause as one; (2) a job at rest is 'paused' or 'standby', and leaves that stage
 * at the moment in which the last reason to pause goes, or it is cancelled, before its coroutine goes on.
 */
#include <assert.h>
#include <errno.h>

#include "base/error.h"
#include "base/units.h"
#include "gen/events.h"
#include "job/job-internal.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

/* How long the reply to a pause waits for the job to come to rest: enough for requests under way in the usual case. */
#define PAUSE_PATIENCE_NS INT64_C(100000000)

void job_run(void *opaque)
{
    struct job *job = opaque;
    struct error *err = NULL;
    bool ok = false;

    co_job_pause_point(job);
    if (!job_is_cancelled(job))
        ok = job->driver->co_run(job, &err);
    if (job_is_cancelled(job)) {
        error_free(err);
        job_fail(job, NULL);
    } else if (!ok) {
        assert(err);
        job_fail(job, err);
    }
    co_job_ended(job);
    job_release(job);
}

/* --- what the job asks --- */

bool job_is_cancelled(const struct job *job)
{
    return job->cancel_forced;
}

bool job_should_complete(const struct job *job)
{
    return job->complete_asked || job->cancel_asked;
}

bool job_is_cancelled_well(const struct job *job)
{
    return job->cancel_asked && !job->cancel_forced && !job->complete_asked;
}

bool job_should_pause(const struct job *job)
{
    return job->pauses && !job->cancel_forced;
}

bool job_is_ready(const struct job *job)
{
    return job->status == JOB_STATUS_READY || job->status == JOB_STATUS_STANDBY;
}

void job_set_ready(struct job *job)
{
    job_set_status(job, JOB_STATUS_READY);
    job_send_ready(job);
}

/* --- rests --- */

static void come_to_rest(struct job *job)
{
    assert(!job->at_rest);
    job->at_rest = true;
    job_set_status(job, job->status == JOB_STATUS_READY ? JOB_STATUS_STANDBY : JOB_STATUS_PAUSED);
}

/* Goes on where nothing holds it any more. */
static void leave_rest(struct job *job)
{
    if (!job->at_rest || job_should_pause(job))
        return;
    job->at_rest = false;
    job_set_status(job, job->status == JOB_STATUS_STANDBY ? JOB_STATUS_READY : JOB_STATUS_RUNNING);
}

void job_kick(struct job *job)
{
    job->kicks++;
    co_condition_broadcast(&job->kicked);
}

void CO_FN co_job_pause_point(struct job *job)
{
    if (!job_should_pause(job))
        return;
    job->idle = true;
    while (job_should_pause(job)) {
        /* Again, where it was let go and stopped anew before it came to run. */
        if (!job->at_rest)
            come_to_rest(job);
        co_condition_wait_always(&job->kicked, NULL);
    }
    assert(!job->at_rest);
    job->idle = false;
}

void CO_FN co_job_wait(struct job *job, int64_t duration_ns)
{
    uint64_t kicks = job->kicks;
    struct co_deadline deadline;
    int result = 0;

    if (job_should_pause(job)) {
        co_job_pause_point(job);
        return;
    }
    job->idle = true;
    if (duration_ns >= 0)
        co_deadline_begin(&deadline, duration_ns);
    while (kicks == job->kicks && !result)
        result = co_condition_wait(&job->kicked, NULL);
    if (duration_ns >= 0)
        co_deadline_end(&deadline);
    job->idle = false;
    co_job_pause_point(job);
}

/*
 * What has been moved takes so much time; who moves more waits until that is over. Nothing is saved up while the job
 * does nothing.
 */
void CO_FN co_job_throttle(struct job *job, uint64_t bytes)
{
    int64_t now_ns = loop_now_ns();

    while (job->speed && now_ns < job->speed_next_ns && !job_is_cancelled(job)) {
        co_job_wait(job, job->speed_next_ns - now_ns);
        now_ns = loop_now_ns();
    }
    if (job->speed) {
        double cost_ns = (double)bytes * NS_PER_S / (double)job->speed;
        int64_t start_ns = MAX(now_ns, job->speed_next_ns);

        job->speed_next_ns = cost_ns < (double)(INT64_MAX - start_ns) ? start_ns + (int64_t)cost_ns : INT64_MAX;
    }
}

/* --- progress --- */

void job_progress_add(struct job *job, uint64_t done)
{
    job->progress += done;
    job->total = MAX(job->total, job->progress);
}

void job_progress_set_remaining(struct job *job, uint64_t remaining)
{
    job->total = job->progress + remaining;
}

void job_progress_add_remaining(struct job *job, uint64_t more)
{
    job->total += more;
}

/* --- errors --- */

static enum block_error_action choose_action(enum blockdev_on_error policy, int result)
{
    switch (policy) {
    case BLOCKDEV_ON_ERROR_IGNORE:
        return BLOCK_ERROR_ACTION_IGNORE;
    case BLOCKDEV_ON_ERROR_STOP:
        return BLOCK_ERROR_ACTION_STOP;
    case BLOCKDEV_ON_ERROR_AUTO:
    case BLOCKDEV_ON_ERROR_ENOSPC:
        return result == -ENOSPC ? BLOCK_ERROR_ACTION_STOP : BLOCK_ERROR_ACTION_REPORT;
    default:
        return BLOCK_ERROR_ACTION_REPORT;
    }
}

enum block_error_action job_handle_error(struct job *job, enum blockdev_on_error policy, bool is_read, int result)
{
    enum block_error_action action = choose_action(policy, result);
    struct block_job_error_event event = {
        .device = job->id,
        .operation = is_read ? IO_OPERATION_TYPE_READ : IO_OPERATION_TYPE_WRITE,
        .action = action,
    };

    assert(result < 0);
    event_send_block_job_error(job->registry->events, &event);
    if (action == BLOCK_ERROR_ACTION_STOP) {
        if (!job->user_paused) {
            job->user_paused = true;
            job->pauses++;
        }
        job->io_status = result == -ENOSPC ? BLOCK_DEVICE_IO_STATUS_NOSPACE : BLOCK_DEVICE_IO_STATUS_FAILED;
    }
    return action;
}

/* --- what clients ask --- */

bool job_is_user_paused(const struct job *job)
{
    return job->user_paused;
}

bool CO_FN co_job_user_pause(struct job *job, struct error **err)
{
    struct co_deadline deadline;
    int result = 0;

    if (!job_check_verb(job, JOB_VERB_PAUSE, err))
        return false;
    if (job->user_paused)
        return error_set(err, "Job is already paused");
    job->user_paused = true;
    job->pauses++;
    job_hold(job);
    job_kick(job);
    co_deadline_begin(&deadline, PAUSE_PATIENCE_NS);
    while (!result && job->started && !job->ended && !job->at_rest && job_should_pause(job))
        result = co_condition_wait(&job->changed, NULL);
    co_deadline_end(&deadline);
    job_release(job);
    return true;
}

bool job_user_resume(struct job *job, struct error **err)
{
    if (!job->user_paused)
        return error_set(err, "Can't resume a job that was not paused");
    if (!job_check_verb(job, JOB_VERB_RESUME, err))
        return false;
    assert(job->pauses);
    job->user_paused = false;
    job->pauses--;
    job->io_status = BLOCK_DEVICE_IO_STATUS_OK;
    leave_rest(job);
    job_kick(job);
    return true;
}

/* Once a job has given up, it stays so; one that ends well may still be made to give up. */
void job_cancel(struct job *job, bool force)
{
    job->cancel_asked = true;
    if (!force && job->driver->cancels_well && job_is_ready(job) && !job->cancel_forced) {
        if (job->user_paused) {
            job->user_paused = false;
            job->pauses--;
        }
    } else {
        job->cancel_forced = true;
    }
    leave_rest(job);
    job_kick(job);
}

void CO_FN co_job_cancel(struct job *job, bool force)
{
    /* Who is at the end of a transaction and waits only for the others, or for the user, has no coroutine any more. */
    if (job->ended && job->transaction->settling)
        return;
    job_cancel(job, force || job->ended);
    if (job->ended) {
        job_fail(job, NULL);
        co_transaction_cancel(job->transaction);
    }
}

bool CO_FN co_job_user_cancel(struct job *job, bool force, struct error **err)
{
    if (!job_check_verb(job, JOB_VERB_CANCEL, err))
        return false;
    co_job_cancel(job, force);
    return true;
}

bool job_user_complete(struct job *job, struct error **err)
{
    if (!job_check_verb(job, JOB_VERB_COMPLETE, err))
        return false;
    if (job->cancel_asked)
        return error_set(err, "The active block job '%s' cannot be completed", job->id);
    job->complete_asked = true;
    job_kick(job);
    return true;
}

bool job_user_set_speed(struct job *job, int64_t speed, struct error **err)
{
    if (!job_check_verb(job, JOB_VERB_SET_SPEED, err))
        return false;
    if (speed < 0)
        return error_set(err, "Parameter 'speed' expects a non-negative value");
    job->speed = speed;
    /* What the old speed made it wait for is forgotten. */
    job->speed_next_ns = 0;
    job_kick(job);
    return true;
}

bool CO_FN co_job_user_change(struct job *job, const struct block_job_change_options *options, struct error **err)
{
    bool ok;

    if (!job_check_verb(job, JOB_VERB_CHANGE, err))
        return false;
    if (job->driver->type != options->type)
        return error_set(err, "Job '%s' is '%s' job, not '%s'", job->id, job_type_name(job->driver->type),
                         job_type_name(options->type));
    if (!job->driver->co_change)
        return error_set(err, "Job type does not support change");
    job_hold(job);
    ok = job->driver->co_change(job, options, err);
    job_kick(job);
    job_release(job);
    return ok;
}
