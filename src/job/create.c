/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Making images, as a job: the driver does it. */
#include "job/create.h"

#include "base/error.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/image.h"
#include "job/job.h"

struct create_job {
    struct graph *graph;
    const struct block_driver *driver;
    struct blockdev_create_options *options;
};

static bool CO_FN create_co_run(struct job *job, struct error **err)
{
    struct create_job *create = job_state(job);
    bool ok;

    job_progress_set_remaining(job, 1);
    ok = create->driver->image->co_create(create->graph, create->options, err);
    job_progress_add(job, 1);
    return ok;
}

static void CO_FN create_co_clean(struct job *job)
{
    struct create_job *create = job_state(job);

    blockdev_create_options_free(create->options);
}

static const struct job_driver create_job_driver = {
    .type = JOB_TYPE_CREATE,
    .state_size = sizeof(struct create_job),
    .co_run = create_co_run,
    .co_clean = create_co_clean,
};

bool job_start_create(struct job_registry *jobs, struct graph *graph, const char *id,
                      const struct blockdev_create_options *options, struct error **err)
{
    struct job_options job_options = {.driver = &create_job_driver, .id = id, .manual_dismiss = true};
    const struct block_driver *driver = graph_find_driver(graph, options->driver, NULL);
    struct create_job *create;
    struct job *job;

    if (!driver)
        return error_set(err, "Block driver '%s' not found or not supported", blockdev_driver_name(options->driver));
    if (!driver->image || !driver->image->co_create)
        return error_set(err, "Driver does not support blockdev-create");
    job = job_new(jobs, &job_options, err);
    if (!job)
        return false;
    create = job_state(job);
    create->graph = graph;
    create->driver = driver;
    create->options = blockdev_create_options_clone(options);
    job_start(job);
    return true;
}
