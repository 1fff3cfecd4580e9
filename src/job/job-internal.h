/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs from inside. Everything here belongs to the main loop. */
#pragma once

#include <glib.h>

#include "job/job.h"
#include "loop/lock.h"

struct job_registry {
    struct event_sink *events;
    GPtrArray *jobs;          /* struct job *, oldest first; each holds one reference */
    struct co_condition gone; /* broadcast when one has concluded or left the list */
    unsigned copy_threads;    /* that jobs have now */
};

/* Jobs that end together. Keeps: a job is in `jobs` from its making until it has concluded. */
struct job_transaction {
    unsigned references;
    GPtrArray *jobs; /* struct job *, held, in the order in which they were made */
    bool aborting;   /* one has failed: none succeeds */
    bool settling;   /* somebody runs the end of all */
};

struct job {
    const struct job_driver *driver;
    struct job_registry *registry;
    struct job_transaction *transaction; /* held */
    unsigned references;
    char *id;
    void *state;
    bool auto_finalize;
    bool auto_dismiss;

    enum job_status status;
    bool started;
    bool ended;          /* co_run() has returned, or will never be called */
    bool idle;           /* in co_job_wait() or paused: no request is under way */
    bool failed;         /* it will not succeed, whatever its stage says yet */
    struct error *error; /* why; NULL unless `failed` */

    unsigned pauses; /* reasons to be paused; one of them the user's */
    bool user_paused;
    bool at_rest; /* stopped at a pause point: 'paused' or 'standby' */
    bool cancel_asked;
    bool cancel_forced;
    bool complete_asked;
    struct co_condition kicked;  /* the job's coroutine waits for it */
    struct co_condition changed; /* others wait for it: it has come to rest, or moved on */

    int64_t speed;         /* bytes a second, 0: no limit */
    int64_t speed_next_ns; /* when what was moved so far has been paid for */
    uint64_t kicks;        /* counts what happens to it */
    uint64_t progress;
    uint64_t total;
    enum block_device_io_status io_status;
};

/* job.c */
struct job *job_hold(struct job *job);
void job_release(struct job *job);
void job_unlist(struct job *job); /* to 'null', and out of the registry */
void job_send_completed(struct job *job);
void job_send_pending(struct job *job);
void job_send_ready(struct job *job);

/* stage.c */
void job_set_status(struct job *job, enum job_status status); /* asserts that the step is legal, and sends the event */
bool job_verb_allowed(enum job_status status, enum job_verb verb);
bool job_check_verb(const struct job *job, enum job_verb verb, struct error **err) MUST_CHECK;

/* run.c */
void job_cancel(struct job *job, bool force);          /* of a job that runs */
void CO_FN co_job_cancel(struct job *job, bool force); /* in any stage that allows it */
void job_run(void *job);                               /* the coroutine; takes a reference */

/* settle.c */
void job_fail(struct job *job, struct error *error); /* takes `error`; NULL: it was cancelled */
void CO_FN co_job_ended(struct job *job);            /* co_run() has returned */
void CO_FN co_transaction_finalize(struct job_transaction *transaction);
void CO_FN co_transaction_cancel(struct job_transaction *transaction);
