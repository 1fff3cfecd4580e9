/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Several requests of a job at once: its own coroutine hands them out, workers make them. Main loop. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "gen/types.h"
#include "loop/lock.h"

struct error;
struct handle;
struct job;
struct loop_thread;
struct node;

/* Zero-filled but for the first four, which are set once. */
struct job_pump {
    struct job *job;
    unsigned limit;  /* requests at once */
    bool has_thread; /* requests are made on a thread of the job's own, where there can be one */
    /* One request: 0 or a negative errno, and where that came from. `opaque` is the job's state. */
    int (*co_work)(void *state, uint64_t offset, uint64_t bytes, bool *ret_is_read);

    struct loop_thread *thread; /* NULL: none yet, or none could be had */
    unsigned in_flight;
    int error; /* of the first request that failed; 0: none has */
    bool error_is_read;
    bool error_is_flush;       /* of the target */
    bool no_flush;             /* that error was ignored */
    struct co_condition ended; /* broadcast when a request has ended */
};

/* Starts a request, once there is room for it. */
void CO_FN co_pump_start(struct job_pump *pump, uint64_t offset, uint64_t bytes);

/*
 * For `co_work`: as co_handle_call(), on the job's thread if it has one. What copies between files in memory is work
 * for a processor, and on the main loop everybody else would wait for it; on another thread it also needs none of the
 * system's to write for it, and what has been read is still in that processor's cache when it is written.
 */
int CO_FN co_pump_call(struct job_pump *pump, struct handle *handle, int (*co_call)(struct node *node, void *opaque),
                       void *opaque);

/* Waits until no request is under way. */
void CO_FN co_pump_idle(struct job_pump *pump);
void CO_FN co_pump_done(struct job_pump *pump);

/* What a job that copies was told to do when requests fail, and whom it copies from and to. */
struct job_error_policy {
    enum blockdev_on_error on_source;
    enum blockdev_on_error on_target;
};

/*
 * To be called before each request: lets the job pause, and deals with a failed request. PUMP_GO: nothing happened;
 * PUMP_AGAIN: requests are to be tried again from the start; PUMP_FAIL: the job fails, `pump->error` says how.
 */
enum pump_verdict { PUMP_GO, PUMP_AGAIN, PUMP_FAIL };
enum pump_verdict CO_FN co_pump_check(struct job_pump *pump, const struct job_error_policy *policy);

/*
 * What a flush of the target came to: 0 or a negative errno, which becomes that of a failed request. Whether it is
 * done, or not counted on any more. What a node could not flush is lost, and trying again does not bring it back: an
 * error that is ignored is no longer asked for.
 */
bool job_pump_flushed(struct job_pump *pump, int result);

/* The error of a job whose request failed; false. */
bool job_pump_fail(const struct job_pump *pump, struct error **err);
