/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Background jobs: what takes longer than a command may. The engine keeps the stage of each job, lets clients steer it
 * and ends jobs of one transaction together; what a job does is its driver's. See docs/jobs.md.
 *
 * A job is a coroutine of the main loop, and all functions here are for the main loop.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "gen/types.h"

struct error;
struct event_sink;
struct job;
struct job_registry;
struct job_transaction;

/* What a kind of job does. NULL: nothing to do there, unless said otherwise. */
struct job_driver {
    enum job_type type;
    size_t state_size; /* job_state(), zero-filled */
    bool is_block_job; /* the block-job-* commands know it, and it sends BLOCK_JOB_* events */
    bool cancels_well; /* once it is ready, cancelling without force lets co_run() end it well */

    /*
     * The work. It comes by co_job_pause_point() or co_job_wait() often, and returns soon once job_is_cancelled().
     * False and the error: it failed; with job_is_cancelled() the error does not matter.
     */
    bool (*co_run)(struct job *job, struct error **err);

    /*
     * The end, after all jobs of the transaction have returned from co_run(): either prepare of each, and if none
     * fails commit of each; or abort. Then clean, which releases what the state holds. A job that was never started
     * sees abort and clean only.
     */
    bool (*co_prepare)(struct job *job, struct error **err);
    void (*co_commit)(struct job *job);
    void (*co_abort)(struct job *job);
    void (*co_clean)(struct job *job);

    /* NULL: no option can change. */
    bool (*co_change)(struct job *job, const struct block_job_change_options *options, struct error **err);
    /* Fills in the members of its own type. */
    void (*query)(const struct job *job, struct block_job_info *info);
};

/* Zero is the default of each but `id` and `driver`. */
struct job_options {
    const struct job_driver *driver;
    const char *id;
    int64_t speed; /* bytes a second, 0: no limit */
    bool manual_finalize;
    bool manual_dismiss;
    struct job_transaction *transaction; /* NULL: one of its own */
};

struct job_registry *job_registry_new(struct event_sink *events);

/* Cancels all jobs, and waits until they are gone. */
void CO_FN co_job_registry_free(struct job_registry *registry);

/* --- transactions: jobs that end together --- */

struct job_transaction *job_transaction_new(void);
struct job_transaction *job_transaction_hold(struct job_transaction *transaction);
void job_transaction_release(struct job_transaction *transaction); /* NULL is allowed */

/* --- making a job --- */

/*
 * A new job in the stage 'created', for which an event has been sent; NULL and the error where the id is not valid or
 * taken, or the speed negative. It is the registry's; then exactly one of start and discard follows.
 */
struct job *job_new(struct job_registry *registry, const struct job_options *options, struct error **err) MUST_CHECK;
/* Whether job_new() would succeed with these options now. */
bool job_check_options(const struct job_registry *registry, const struct job_options *options,
                       struct error **err) MUST_CHECK;
void job_start(struct job *job);
void CO_FN co_job_discard(struct job *job);

void *job_state(const struct job *job);
const char *job_id(const struct job *job);
struct job_registry *job_get_registry(const struct job *job);

/* --- what a running job asks and says --- */

/* Whether it is to give up: co_run() returns as soon as it can. */
bool job_is_cancelled(const struct job *job);

/* Whether a job that is ready is to end: it was told to complete, or (job_is_cancelled_well()) cancelled without force.
 */
bool job_should_complete(const struct job *job);
bool job_is_cancelled_well(const struct job *job);

/* Stops here as long as somebody wants it paused. */
void CO_FN co_job_pause_point(struct job *job);

/* Whether co_job_pause_point() would stop: a job with requests under way lets them end first. */
bool job_should_pause(const struct job *job);

/*
 * Rests for `duration_ns` (negative: without end), or until something happens to the job: cancelled, completed, another
 * speed, job_kick(). It is idle meanwhile and stops where it should pause.
 */
void CO_FN co_job_wait(struct job *job, int64_t duration_ns);

/* Wakes the job from co_job_wait(): something of its own has changed. */
void job_kick(struct job *job);

/* The speed limit: waits until `bytes` more may be moved, and counts them. Ends early when the job is cancelled. */
void CO_FN co_job_throttle(struct job *job, uint64_t bytes);

/* From 'running' to 'ready', with its events. */
void job_set_ready(struct job *job);
bool job_is_ready(const struct job *job);

/* Progress, in the job's own unit. */
void job_progress_add(struct job *job, uint64_t done);
void job_progress_set_remaining(struct job *job, uint64_t remaining);
void job_progress_add_remaining(struct job *job, uint64_t more);

/*
 * What follows from a failed request (`result`: negative errno) under `policy`; sends BLOCK_JOB_ERROR and remembers how
 * I/O goes. After STOP the job pauses at its next pause point, and tries again when it is resumed.
 */
enum block_error_action job_handle_error(struct job *job, enum blockdev_on_error policy, bool is_read, int result);

/* --- what clients do; errors say why not --- */

/* NULL and "Job not found", or (block) class DeviceNotActive. The job stays as long as the caller does not suspend. */
struct job *job_find(struct job_registry *registry, const char *id, struct error **err) MUST_CHECK;
struct job *job_find_block_job(struct job_registry *registry, const char *id, struct error **err) MUST_CHECK;

bool job_is_user_paused(const struct job *job);
bool CO_FN co_job_user_pause(struct job *job, struct error **err) MUST_CHECK;
bool job_user_resume(struct job *job, struct error **err) MUST_CHECK;
bool CO_FN co_job_user_cancel(struct job *job, bool force, struct error **err) MUST_CHECK;
bool job_user_complete(struct job *job, struct error **err) MUST_CHECK;
bool CO_FN co_job_user_finalize(struct job *job, struct error **err) MUST_CHECK;
bool job_user_dismiss(struct job *job, struct error **err) MUST_CHECK;
bool job_user_set_speed(struct job *job, int64_t speed, struct error **err) MUST_CHECK;
bool CO_FN co_job_user_change(struct job *job, const struct block_job_change_options *options,
                              struct error **err) MUST_CHECK;

/* Newest first; owned. */
struct job_info_array *job_query(const struct job_registry *registry);
struct block_job_info_array *job_query_block_jobs(const struct job_registry *registry);
