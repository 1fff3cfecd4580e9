/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changing options of an image in use, as a job: the driver does it. The job's handle keeps the node there. */
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/image.h"
#include "block/node.h"
#include "job/create.h"
#include "job/job.h"

struct amend_job {
    const struct block_driver *driver;
    struct handle *handle;
    struct blockdev_amend_options *options;
    bool force;
};

static bool CO_FN amend_co_run(struct job *job, struct error **err)
{
    struct amend_job *amend = job_state(job);
    bool ok;

    job_progress_set_remaining(job, 1);
    ok = amend->driver->image->co_amend(handle_node(amend->handle), amend->options, amend->force, err);
    job_progress_add(job, 1);
    return ok;
}

static void CO_FN amend_co_clean(struct job *job)
{
    struct amend_job *amend = job_state(job);

    co_handle_free(amend->handle);
    blockdev_amend_options_free(amend->options);
}

static const struct job_driver amend_job_driver = {
    .type = JOB_TYPE_AMEND,
    .state_size = sizeof(struct amend_job),
    .co_run = amend_co_run,
    .co_clean = amend_co_clean,
};

bool CO_FN co_job_start_amend(struct job_registry *jobs, struct graph *graph, const struct x_blockdev_amend_arg *arg,
                              struct error **err)
{
    struct job_options job_options = {.driver = &amend_job_driver, .id = arg->job_id, .manual_dismiss = true};
    g_autofree char *name = g_strdup_printf("block job '%s'", arg->job_id);
    struct handle_options handle_options = {.name = name, .shared = PERM_ALL};
    struct node *node = graph_find(graph, arg->node_name, err);
    const struct block_driver *driver;
    struct handle *handle;
    struct amend_job *amend;
    struct job *job;

    if (!node)
        return false;
    driver = graph_find_driver(graph, arg->options->driver, NULL);
    if (!driver)
        return error_set(err, "Block driver '%s' not found or not supported",
                         blockdev_driver_name(arg->options->driver));
    if (strcmp(node_driver_name(node), driver->name) != 0)
        return error_set(err, "x-blockdev-amend doesn't support changing the driver");
    if (!driver->image || !driver->image->co_amend)
        return error_set(err, "Driver does not support x-blockdev-amend");
    handle = co_handle_new(node, &handle_options, err);
    if (!handle)
        return false;
    job = job_new(jobs, &job_options, err);
    if (!job) {
        co_handle_free(handle);
        return false;
    }
    amend = job_state(job);
    amend->driver = driver;
    amend->handle = handle;
    amend->options = blockdev_amend_options_clone(arg->options);
    amend->force = arg->has_force && arg->force;
    job_start(job);
    return true;
}
