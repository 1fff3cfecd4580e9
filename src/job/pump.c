/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/pump.h"

#include <assert.h>
#include <glib.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/units.h"
#include "block/handle.h"
#include "job/job-internal.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

/* Between tries of a job that ignores errors. */
#define RETRY_NS INT64_C(100000000)

struct request {
    struct job_pump *pump;
    uint64_t offset;
    uint64_t bytes;
};

static void request_run(void *opaque)
{
    struct request *request = opaque;
    struct job_pump *pump = request->pump;
    bool is_read = false;
    int ret = pump->co_work(job_state(pump->job), request->offset, request->bytes, &is_read);

    assert(pump->in_flight);
    if (ret && !pump->error) {
        pump->error = ret;
        pump->error_is_read = is_read;
    }
    pump->in_flight--;
    co_condition_broadcast(&pump->ended);
    g_free(request);
}

/* Of all jobs together, so that hundreds of them leave loops to others; who gets none copies on the main loop. */
enum { THREADS_MAX = 32 };

static void start_thread(struct job_pump *pump)
{
    struct loop_options options = {.name = "copy", .may_block = true};
    unsigned *count = &pump->job->registry->copy_threads;

    if (!pump->has_thread || pump->thread)
        return;
    if (loop_get_backend(loop_current()) != LOOP_SIM && *count < THREADS_MAX)
        pump->thread = loop_thread_new(&options, NULL);
    pump->has_thread = pump->thread != NULL;
    *count += pump->has_thread;
}

int CO_FN co_pump_call(struct job_pump *pump, struct handle *handle, int (*co_call)(struct node *node, void *opaque),
                       void *opaque)
{
    struct loop *home = loop_current();
    int ret;

    if (pump->thread)
        co_move_to(loop_thread_loop(pump->thread));
    ret = co_handle_call(handle, co_call, opaque);
    co_move_to(home);
    return ret;
}

void CO_FN co_pump_start(struct job_pump *pump, uint64_t offset, uint64_t bytes)
{
    struct request *request = g_new0(struct request, 1);

    assert(pump->limit);
    start_thread(pump);
    while (pump->in_flight >= pump->limit)
        co_condition_wait_always(&pump->ended, NULL);
    *request = (struct request){.pump = pump, .offset = offset, .bytes = bytes};
    pump->in_flight++;
    co_spawn(loop_current(), request_run, request);
}

void CO_FN co_pump_idle(struct job_pump *pump)
{
    while (pump->in_flight)
        co_condition_wait_always(&pump->ended, NULL);
}

void CO_FN co_pump_done(struct job_pump *pump)
{
    assert(!pump->in_flight);
    if (pump->thread) {
        assert(pump->job->registry->copy_threads);
        pump->job->registry->copy_threads--;
        co_loop_thread_free(TAKE(pump->thread));
    }
    co_condition_done(&pump->ended);
}

static enum pump_verdict CO_FN co_judge_error(struct job_pump *pump, const struct job_error_policy *policy)
{
    enum blockdev_on_error wanted = pump->error_is_read ? policy->on_source : policy->on_target;

    switch (job_handle_error(pump->job, wanted, pump->error_is_read, pump->error)) {
    case BLOCK_ERROR_ACTION_REPORT:
        return PUMP_FAIL;
    case BLOCK_ERROR_ACTION_STOP:
        co_job_pause_point(pump->job);
        break;
    default:
        if (pump->error_is_flush)
            pump->no_flush = true;
        else
            co_job_wait(pump->job, RETRY_NS);
        break;
    }
    pump->error = 0;
    pump->error_is_flush = false;
    return PUMP_AGAIN;
}

enum pump_verdict CO_FN co_pump_check(struct job_pump *pump, const struct job_error_policy *policy)
{
    if (job_should_pause(pump->job) && !pump->error) {
        co_pump_idle(pump);
        if (!pump->error)
            co_job_pause_point(pump->job);
    }
    if (!pump->error)
        return PUMP_GO;
    co_pump_idle(pump);
    return job_is_cancelled(pump->job) ? PUMP_FAIL : co_judge_error(pump, policy);
}

bool job_pump_flushed(struct job_pump *pump, int result)
{
    assert(result <= 0);
    if (!result || pump->no_flush)
        return true;
    if (!pump->error) {
        pump->error = result;
        pump->error_is_read = false;
        pump->error_is_flush = true;
    }
    return false;
}

bool job_pump_fail(const struct job_pump *pump, struct error **err)
{
    return error_set_errno(err, pump->error, "Could not %s",
                           pump->error_is_read ? "read from the source" : "write to the target");
}
