/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The list of jobs, and what a job is from its making until nobody holds it. */
#include "job/job.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "gen/events.h"
#include "job/job-internal.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

struct job_registry *job_registry_new(struct event_sink *events)
{
    struct job_registry *registry = g_new0(struct job_registry, 1);

    registry->events = events;
    registry->jobs = g_ptr_array_new();
    return registry;
}

void CO_FN co_job_registry_free(struct job_registry *registry)
{
    if (!registry)
        return;
    while (registry->jobs->len) {
        g_autoptr(GPtrArray) jobs = g_ptr_array_new();

        for (unsigned i = 0; i < registry->jobs->len; i++)
            g_ptr_array_add(jobs, job_hold(g_ptr_array_index(registry->jobs, i)));
        for (unsigned i = 0; i < jobs->len; i++) {
            struct job *job = g_ptr_array_index(jobs, i);

            if (job_verb_allowed(job->status, JOB_VERB_CANCEL))
                co_job_cancel(job, true);
            if (job->status == JOB_STATUS_CONCLUDED)
                job_unlist(job);
            job_release(job);
        }
        if (registry->jobs->len)
            co_condition_wait_always(&registry->gone, NULL);
    }
    g_ptr_array_free(registry->jobs, true);
    co_condition_done(&registry->gone);
    g_free(registry);
}

/* --- transactions --- */

struct job_transaction *job_transaction_new(void)
{
    struct job_transaction *transaction = g_new0(struct job_transaction, 1);

    transaction->references = 1;
    transaction->jobs = g_ptr_array_new();
    return transaction;
}

struct job_transaction *job_transaction_hold(struct job_transaction *transaction)
{
    transaction->references++;
    return transaction;
}

void job_transaction_release(struct job_transaction *transaction)
{
    if (!transaction || --transaction->references)
        return;
    assert(!transaction->jobs->len);
    g_ptr_array_free(transaction->jobs, true);
    g_free(transaction);
}

/* --- a job --- */

struct job *job_hold(struct job *job)
{
    job->references++;
    return job;
}

void job_release(struct job *job)
{
    assert(job->references);
    if (--job->references)
        return;
    assert(job->status == JOB_STATUS_NULL);
    job_transaction_release(job->transaction);
    co_condition_done(&job->kicked);
    co_condition_done(&job->changed);
    error_free(job->error);
    g_free(job->state);
    g_free(job->id);
    g_free(job);
}

void job_unlist(struct job *job)
{
    struct job_registry *registry = job->registry;

    job_set_status(job, JOB_STATUS_NULL);
    g_ptr_array_remove(registry->jobs, job);
    co_condition_broadcast(&registry->gone);
    job_release(job);
}

static struct job *find(const struct job_registry *registry, const char *id, bool block_jobs_only)
{
    for (unsigned i = 0; i < registry->jobs->len; i++) {
        struct job *job = g_ptr_array_index(registry->jobs, i);

        if (!strcmp(job->id, id) && (!block_jobs_only || job->driver->is_block_job))
            return job;
    }
    return NULL;
}

/* A letter, then letters, digits, '-', '.' and '_'. */
static bool id_is_valid(const char *id)
{
    if (!g_ascii_isalpha(*id))
        return false;
    while (*id && (g_ascii_isalnum(*id) || strchr("-._", *id)))
        id++;
    return !*id;
}

bool job_check_options(const struct job_registry *registry, const struct job_options *options, struct error **err)
{
    if (!id_is_valid(options->id))
        return error_set(err, "Invalid job ID '%s'", options->id);
    if (find(registry, options->id, false))
        return error_set(err, "Job ID '%s' already in use", options->id);
    return options->speed >= 0 || error_set(err, "Parameter 'speed' expects a non-negative value");
}

struct job *job_new(struct job_registry *registry, const struct job_options *options, struct error **err)
{
    struct job *job;

    assert(options->driver->co_run);
    if (!job_check_options(registry, options, err))
        return NULL;
    job = g_new0(struct job, 1);
    job->driver = options->driver;
    job->registry = registry;
    job->references = 1;
    job->id = g_strdup(options->id);
    job->state = g_malloc0(MAX(options->driver->state_size, 1));
    job->auto_finalize = !options->manual_finalize;
    job->auto_dismiss = !options->manual_dismiss;
    job->speed = options->speed;
    job->transaction = options->transaction ? job_transaction_hold(options->transaction) : job_transaction_new();
    g_ptr_array_add(job->transaction->jobs, job_hold(job));
    g_ptr_array_add(registry->jobs, job);
    job_set_status(job, JOB_STATUS_CREATED);
    return job;
}

void job_start(struct job *job)
{
    assert(!job->started);
    job->started = true;
    job_set_status(job, JOB_STATUS_RUNNING);
    co_spawn(loop_current(), job_run, job_hold(job));
}

void *job_state(const struct job *job)
{
    return job->state;
}

const char *job_id(const struct job *job)
{
    return job->id;
}

struct job_registry *job_get_registry(const struct job *job)
{
    return job->registry;
}

/* --- finding and describing --- */

struct job *job_find(struct job_registry *registry, const char *id, struct error **err)
{
    struct job *job = find(registry, id, false);

    if (!job)
        error_set(err, "Job not found");
    return job;
}

struct job *job_find_block_job(struct job_registry *registry, const char *id, struct error **err)
{
    struct job *job = find(registry, id, true);

    if (!job)
        error_set_class(err, ERROR_DEVICE_NOT_ACTIVE, "Block job '%s' not found", id);
    return job;
}

static char *describe_error(const struct job *job)
{
    if (!job->failed)
        return NULL;
    return g_strdup(job->error ? error_message(job->error) : "Operation canceled");
}

struct job_info_array *job_query(const struct job_registry *registry)
{
    struct job_info_array *array = g_new0(struct job_info_array, 1);

    array->items = g_new0(struct job_info *, registry->jobs->len);
    for (unsigned i = registry->jobs->len; i--;) {
        const struct job *job = g_ptr_array_index(registry->jobs, i);
        struct job_info *info = g_new0(struct job_info, 1);

        info->id = g_strdup(job->id);
        info->type = job->driver->type;
        info->status = job->status;
        info->current_progress = (int64_t)job->progress;
        info->total_progress = (int64_t)job->total;
        info->error = describe_error(job);
        array->items[array->count++] = info;
    }
    return array;
}

static struct block_job_info *describe_block_job(const struct job *job)
{
    struct block_job_info *info = g_new0(struct block_job_info, 1);

    info->type = job->driver->type;
    info->device = g_strdup(job->id);
    info->len = (int64_t)job->total;
    info->offset = (int64_t)job->progress;
    info->busy = job->started && !job->ended && !job->idle;
    info->paused = job->pauses > 0;
    info->speed = job->speed;
    info->io_status = job->io_status;
    info->ready = job_is_ready(job);
    info->status = job->status;
    info->auto_finalize = job->auto_finalize;
    info->auto_dismiss = job->auto_dismiss;
    info->error = describe_error(job);
    if (job->driver->query)
        job->driver->query(job, info);
    return info;
}

struct block_job_info_array *job_query_block_jobs(const struct job_registry *registry)
{
    struct block_job_info_array *array = g_new0(struct block_job_info_array, 1);

    array->items = g_new0(struct block_job_info *, registry->jobs->len);
    for (unsigned i = registry->jobs->len; i--;) {
        const struct job *job = g_ptr_array_index(registry->jobs, i);

        if (job->driver->is_block_job)
            array->items[array->count++] = describe_block_job(job);
    }
    return array;
}

/* --- events --- */

void job_send_completed(struct job *job)
{
    g_autofree char *text = describe_error(job);

    if (!job->driver->is_block_job)
        return;
    if (job->failed && !job->error) {
        struct block_job_cancelled_event event = {.type = job->driver->type,
                                                  .device = job->id,
                                                  .len = (int64_t)job->total,
                                                  .offset = (int64_t)job->progress,
                                                  .speed = job->speed};

        event_send_block_job_cancelled(job->registry->events, &event);
    } else {
        struct block_job_completed_event event = {.type = job->driver->type,
                                                  .device = job->id,
                                                  .len = (int64_t)job->total,
                                                  .offset = (int64_t)job->progress,
                                                  .speed = job->speed,
                                                  .error = text};

        event_send_block_job_completed(job->registry->events, &event);
    }
}

void job_send_pending(struct job *job)
{
    struct block_job_pending_event event = {.type = job->driver->type, .id = job->id};

    if (job->driver->is_block_job)
        event_send_block_job_pending(job->registry->events, &event);
}

void job_send_ready(struct job *job)
{
    struct block_job_ready_event event = {.type = job->driver->type,
                                          .device = job->id,
                                          .len = (int64_t)job->total,
                                          .offset = (int64_t)job->progress,
                                          .speed = job->speed};

    if (job->driver->is_block_job)
        event_send_block_job_ready(job->registry->events, &event);
}
