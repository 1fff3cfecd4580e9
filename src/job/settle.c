/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How jobs end. A job waits until all jobs of its transaction have done their work; then either all of them make their
 * changes, or all go back. Whoever is the last, or the client who finalizes or cancels, runs that for all.
 *
 * Keeps: (1) once one job of a transaction has failed, none of it succeeds; (2) commit comes only after every prepare
 * has succeeded; (3) each job is cleaned exactly once, right before it concludes.
 */
#include <assert.h>

#include "base/error.h"
#include "job/job-internal.h"
#include "loop/coroutine.h"

void job_fail(struct job *job, struct error *error)
{
    if (job->failed) {
        error_free(error);
        return;
    }
    job->failed = true;
    job->error = error;
}

/* The others of a transaction in which a job has failed. */
static void cancel_others(struct job_transaction *transaction)
{
    if (transaction->aborting)
        return;
    transaction->aborting = true;
    for (unsigned i = 0; i < transaction->jobs->len; i++) {
        struct job *job = g_ptr_array_index(transaction->jobs, i);

        if (!job->ended)
            job_cancel(job, true);
    }
}

/* The last step of each; the job may be gone afterwards. */
static void CO_FN co_conclude(struct job *job)
{
    if (job->driver->co_clean)
        job->driver->co_clean(job);
    if (job->started)
        job_send_completed(job);
    job_set_status(job, JOB_STATUS_CONCLUDED);
    co_condition_broadcast(&job->registry->gone);
    g_ptr_array_remove(job->transaction->jobs, job);
    if (job->auto_dismiss || !job->started)
        job_unlist(job);
    job_release(job);
}

static void CO_FN co_abort_all(struct job_transaction *transaction)
{
    assert(transaction->aborting);
    while (transaction->jobs->len) {
        struct job *job = g_ptr_array_index(transaction->jobs, 0);

        job_fail(job, NULL);
        if (job->status != JOB_STATUS_ABORTING)
            job_set_status(job, JOB_STATUS_ABORTING);
        if (job->driver->co_abort)
            job->driver->co_abort(job);
        co_conclude(job);
    }
}

/* From 'pending' on. */
static void CO_FN co_finish_all(struct job_transaction *transaction)
{
    for (unsigned i = 0; i < transaction->jobs->len && !transaction->aborting; i++) {
        struct job *job = g_ptr_array_index(transaction->jobs, i);
        struct error *err = NULL;

        if (job->driver->co_prepare && !job->driver->co_prepare(job, &err)) {
            job_fail(job, err);
            transaction->aborting = true;
        }
    }
    if (transaction->aborting) {
        co_abort_all(transaction);
        return;
    }
    while (transaction->jobs->len) {
        struct job *job = g_ptr_array_index(transaction->jobs, 0);

        if (job->driver->co_commit)
            job->driver->co_commit(job);
        co_conclude(job);
    }
}

/* All have done their work. False: a client will say when to go on. */
static bool become_pending(struct job_transaction *transaction)
{
    bool go_on = true;

    for (unsigned i = 0; i < transaction->jobs->len; i++) {
        struct job *job = g_ptr_array_index(transaction->jobs, i);

        job_set_status(job, JOB_STATUS_PENDING);
        if (!job->auto_finalize) {
            job_send_pending(job);
            go_on = false;
        }
    }
    return go_on;
}

static void CO_FN co_settle(struct job_transaction *transaction)
{
    for (unsigned i = 0; i < transaction->jobs->len; i++) {
        if (!((struct job *)g_ptr_array_index(transaction->jobs, i))->ended)
            return;
    }
    if (transaction->settling)
        return;
    transaction->settling = true;
    job_transaction_hold(transaction);
    if (transaction->aborting)
        co_abort_all(transaction);
    else if (become_pending(transaction))
        co_finish_all(transaction);
    transaction->settling = false;
    job_transaction_release(transaction);
}

void CO_FN co_job_ended(struct job *job)
{
    job->ended = true;
    job->idle = true;
    assert(!job->at_rest);
    if (job->failed) {
        job_set_status(job, JOB_STATUS_ABORTING);
        cancel_others(job->transaction);
    } else {
        job_set_status(job, JOB_STATUS_WAITING);
    }
    co_settle(job->transaction);
}

void CO_FN co_transaction_finalize(struct job_transaction *transaction)
{
    transaction->settling = true;
    job_transaction_hold(transaction);
    co_finish_all(transaction);
    transaction->settling = false;
    job_transaction_release(transaction);
}

void CO_FN co_transaction_cancel(struct job_transaction *transaction)
{
    job_transaction_hold(transaction);
    cancel_others(transaction);
    co_settle(transaction);
    job_transaction_release(transaction);
}

bool CO_FN co_job_user_finalize(struct job *job, struct error **err)
{
    struct job_transaction *transaction = job->transaction;

    if (!job_check_verb(job, JOB_VERB_FINALIZE, err))
        return false;
    if (transaction->settling)
        return error_set(err, "Job '%s' is being finalized already", job->id);
    co_transaction_finalize(transaction);
    return true;
}

bool job_user_dismiss(struct job *job, struct error **err)
{
    if (!job_check_verb(job, JOB_VERB_DISMISS, err))
        return false;
    job_unlist(job);
    return true;
}

void CO_FN co_job_discard(struct job *job)
{
    struct job_transaction *transaction = job->transaction;

    assert(!job->started);
    assert(!job->ended);
    job_transaction_hold(transaction);
    job->ended = true;
    job_fail(job, NULL);
    job_set_status(job, JOB_STATUS_ABORTING);
    if (job->driver->co_abort)
        job->driver->co_abort(job);
    co_conclude(job);
    job_transaction_release(transaction);
}
