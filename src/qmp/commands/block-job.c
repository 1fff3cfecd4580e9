/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QMP commands on jobs that copy between nodes. */
#include "base/error.h"
#include "gen/commands.h"
#include "gen/types.h"
#include "job/job.h"
#include "qmp/daemon.h"

bool CO_FN co_qmp_query_block_jobs(struct daemon *daemon, struct block_job_info_array **ret, struct error **err)
{
    *ret = job_query_block_jobs(daemon->jobs);
    return true;
}

bool CO_FN co_qmp_block_job_set_speed(struct daemon *daemon, const struct block_job_set_speed_arg *arg,
                                      struct error **err)
{
    struct job *job = job_find_block_job(daemon->jobs, arg->device, err);

    return job && job_user_set_speed(job, arg->speed, err);
}

bool CO_FN co_qmp_block_job_cancel(struct daemon *daemon, const struct block_job_cancel_arg *arg, struct error **err)
{
    struct job *job = job_find_block_job(daemon->jobs, arg->device, err);
    bool force = arg->has_force && arg->force;

    /* As the reference has it; 'job-cancel' may. */
    if (job && !force && job_is_user_paused(job))
        return error_set(err, "The block job for device '%s' is currently paused", arg->device);
    return job && co_job_user_cancel(job, force, err);
}

bool CO_FN co_qmp_block_job_pause(struct daemon *daemon, const struct block_job_pause_arg *arg, struct error **err)
{
    struct job *job = job_find_block_job(daemon->jobs, arg->device, err);

    return job && co_job_user_pause(job, err);
}

bool CO_FN co_qmp_block_job_resume(struct daemon *daemon, const struct block_job_resume_arg *arg, struct error **err)
{
    struct job *job = job_find_block_job(daemon->jobs, arg->device, err);

    return job && job_user_resume(job, err);
}

bool CO_FN co_qmp_block_job_complete(struct daemon *daemon, const struct block_job_complete_arg *arg,
                                     struct error **err)
{
    struct job *job = job_find_block_job(daemon->jobs, arg->device, err);

    return job && job_user_complete(job, err);
}

bool CO_FN co_qmp_block_job_dismiss(struct daemon *daemon, const struct block_job_dismiss_arg *arg, struct error **err)
{
    struct job *job = job_find_block_job(daemon->jobs, arg->id, err);

    return job && job_user_dismiss(job, err);
}

bool CO_FN co_qmp_block_job_finalize(struct daemon *daemon, const struct block_job_finalize_arg *arg,
                                     struct error **err)
{
    struct job *job = job_find_block_job(daemon->jobs, arg->id, err);

    return job && co_job_user_finalize(job, err);
}

bool CO_FN co_qmp_block_job_change(struct daemon *daemon, const struct block_job_change_options *arg,
                                   struct error **err)
{
    struct job *job = job_find_block_job(daemon->jobs, arg->id, err);

    return job && co_job_user_change(job, arg, err);
}
