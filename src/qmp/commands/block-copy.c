/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QMP commands that start jobs which copy between nodes. */
#include "gen/commands.h"
#include "gen/types.h"
#include "job/backup.h"
#include "job/commit.h"
#include "job/drive.h"
#include "job/job.h"
#include "job/mirror.h"
#include "job/stream.h"
#include "qmp/daemon.h"

static struct job_place place_of(struct daemon *daemon)
{
    return (struct job_place){.jobs = daemon->jobs, .graph = daemon->graph};
}

/* Starts what has been made; false where it has not. */
static bool start(struct job *job)
{
    if (job)
        job_start(job);
    return job;
}

bool CO_FN co_qmp_blockdev_backup(struct daemon *daemon, const struct blockdev_backup *arg, struct error **err)
{
    struct job_place place = place_of(daemon);

    return start(co_backup_new(&place, arg, err));
}

bool CO_FN co_qmp_blockdev_mirror(struct daemon *daemon, const struct blockdev_mirror_arg *arg, struct error **err)
{
    struct job_place place = place_of(daemon);

    return start(co_blockdev_mirror_new(&place, arg, err));
}

bool CO_FN co_qmp_block_commit(struct daemon *daemon, const struct block_commit_arg *arg, struct error **err)
{
    struct job_place place = place_of(daemon);

    return start(co_commit_new(&place, arg, err));
}

bool CO_FN co_qmp_block_stream(struct daemon *daemon, const struct block_stream_arg *arg, struct error **err)
{
    struct job_place place = place_of(daemon);

    return start(co_stream_new(&place, arg, err));
}

bool CO_FN co_qmp_drive_backup(struct daemon *daemon, const struct drive_backup *arg, struct error **err)
{
    struct job_place place = place_of(daemon);

    return start(co_drive_backup_new(&place, arg, err));
}

bool CO_FN co_qmp_drive_mirror(struct daemon *daemon, const struct drive_mirror *arg, struct error **err)
{
    struct job_place place = place_of(daemon);

    return start(co_drive_mirror_new(&place, arg, err));
}
