/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The queue of in-band requests: those of all sessions, run one after the other in the order of arrival by one
 * coroutine. Main loop.
 */
#pragma once

#include <stddef.h>

#include "base/compiler.h"

struct error;
struct json;
struct loop;
struct qmp_queue;
struct qmp_session;

struct qmp_queue *qmp_queue_new(struct loop *loop) MUST_CHECK;

/* From now on requests only wait, until qmp_queue_release(); the command that is running goes on. */
void qmp_queue_hold(struct qmp_queue *queue);
void qmp_queue_release(struct qmp_queue *queue);

/* Runs nothing more: cancels the command that is running, waits for its reply, and forgets those that wait. */
void CO_FN co_qmp_queue_stop(struct qmp_queue *queue);

/* After co_qmp_queue_stop(). */
void qmp_queue_free(struct qmp_queue *queue);

/*
 * Puts a request of `session` (which the queue keeps alive) at the end: `input`, or the `error` for what was no JSON;
 * both taken. `bytes` is the length of its text.
 */
void qmp_queue_put(struct qmp_queue *queue, struct qmp_session *session, struct json *input, struct error *error,
                   size_t bytes);

/* The session whose output has drained takes part again. */
void qmp_queue_resume(struct qmp_queue *queue, struct qmp_session *session);

/* The session whose in-band command is running; NULL: none. */
struct qmp_session *qmp_queue_current(const struct qmp_queue *queue);
