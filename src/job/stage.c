/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The stages of a job: which follows which, and what can be asked of a job in each. */
#include <assert.h>

#include "base/error.h"
#include "base/trace.h"
#include "gen/events.h"
#include "job/job-internal.h"

#define STAGE(name) (1u << JOB_STATUS_##name)

/* What may come after each. */
static const unsigned next_stages[JOB_STATUS__MAX] = {
    [JOB_STATUS_UNDEFINED] = STAGE(CREATED),
    [JOB_STATUS_CREATED] = STAGE(RUNNING) | STAGE(ABORTING),
    [JOB_STATUS_RUNNING] = STAGE(PAUSED) | STAGE(READY) | STAGE(WAITING) | STAGE(ABORTING),
    [JOB_STATUS_PAUSED] = STAGE(RUNNING),
    [JOB_STATUS_READY] = STAGE(STANDBY) | STAGE(WAITING) | STAGE(ABORTING),
    [JOB_STATUS_STANDBY] = STAGE(READY),
    [JOB_STATUS_WAITING] = STAGE(PENDING) | STAGE(ABORTING),
    [JOB_STATUS_PENDING] = STAGE(ABORTING) | STAGE(CONCLUDED),
    [JOB_STATUS_ABORTING] = STAGE(CONCLUDED),
    [JOB_STATUS_CONCLUDED] = STAGE(NULL),
    [JOB_STATUS_NULL] = 0,
};

enum { STAGES_ALIVE = STAGE(CREATED) | STAGE(RUNNING) | STAGE(PAUSED) | STAGE(READY) | STAGE(STANDBY) };

/* Where each can be asked. */
static const unsigned verb_stages[JOB_VERB__MAX] = {
    [JOB_VERB_CANCEL] = STAGES_ALIVE | STAGE(WAITING) | STAGE(PENDING),
    [JOB_VERB_PAUSE] = STAGES_ALIVE,
    [JOB_VERB_RESUME] = STAGES_ALIVE,
    [JOB_VERB_SET_SPEED] = STAGES_ALIVE,
    [JOB_VERB_COMPLETE] = STAGE(READY) | STAGE(STANDBY),
    [JOB_VERB_FINALIZE] = STAGE(PENDING),
    [JOB_VERB_DISMISS] = STAGE(CONCLUDED),
    [JOB_VERB_CHANGE] = STAGES_ALIVE,
};

void job_set_status(struct job *job, enum job_status status)
{
    struct job_status_change_event event = {.id = job->id, .status = status};

    assert(next_stages[job->status] & 1u << status);
    TRACE(job_status, "%s from %s to %s", job->id, job_status_name(job->status), job_status_name(status));
    job->status = status;
    event_send_job_status_change(job->registry->events, &event);
    co_condition_broadcast(&job->changed);
}

bool job_verb_allowed(enum job_status status, enum job_verb verb)
{
    assert(status < JOB_STATUS__MAX);
    assert(verb < JOB_VERB__MAX);
    return verb_stages[verb] & 1u << status;
}

bool job_check_verb(const struct job *job, enum job_verb verb, struct error **err)
{
    if (job_verb_allowed(job->status, verb))
        return true;
    return error_set(err, "Job '%s' in state '%s' cannot accept command verb '%s'", job->id,
                     job_status_name(job->status), job_verb_name(verb));
}
