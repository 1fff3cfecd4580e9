/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QMP commands on jobs of every kind, and those that make images. */
#include "job/job.h"
#include "gen/commands.h"
#include "gen/types.h"
#include "job/create.h"
#include "qmp/daemon.h"

bool CO_FN co_qmp_job_pause(struct daemon *daemon, const struct job_pause_arg *arg, struct error **err)
{
    struct job *job = job_find(daemon->jobs, arg->id, err);

    return job && co_job_user_pause(job, err);
}

bool CO_FN co_qmp_job_resume(struct daemon *daemon, const struct job_resume_arg *arg, struct error **err)
{
    struct job *job = job_find(daemon->jobs, arg->id, err);

    return job && job_user_resume(job, err);
}

bool CO_FN co_qmp_job_cancel(struct daemon *daemon, const struct job_cancel_arg *arg, struct error **err)
{
    struct job *job = job_find(daemon->jobs, arg->id, err);

    return job && co_job_user_cancel(job, true, err);
}

bool CO_FN co_qmp_job_complete(struct daemon *daemon, const struct job_complete_arg *arg, struct error **err)
{
    struct job *job = job_find(daemon->jobs, arg->id, err);

    return job && job_user_complete(job, err);
}

bool CO_FN co_qmp_job_dismiss(struct daemon *daemon, const struct job_dismiss_arg *arg, struct error **err)
{
    struct job *job = job_find(daemon->jobs, arg->id, err);

    return job && job_user_dismiss(job, err);
}

bool CO_FN co_qmp_job_finalize(struct daemon *daemon, const struct job_finalize_arg *arg, struct error **err)
{
    struct job *job = job_find(daemon->jobs, arg->id, err);

    return job && co_job_user_finalize(job, err);
}

bool CO_FN co_qmp_query_jobs(struct daemon *daemon, struct job_info_array **ret, struct error **err)
{
    *ret = job_query(daemon->jobs);
    return true;
}

bool CO_FN co_qmp_blockdev_create(struct daemon *daemon, const struct blockdev_create_arg *arg, struct error **err)
{
    return job_start_create(daemon->jobs, daemon->graph, arg->job_id, arg->options, err);
}

bool CO_FN co_qmp_x_blockdev_amend(struct daemon *daemon, const struct x_blockdev_amend_arg *arg, struct error **err)
{
    return co_job_start_amend(daemon->jobs, daemon->graph, arg, err);
}
