/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A QMP session: one client, from the greeting until it hangs up. All on the main loop.
 *
 * A client is never waited for by anybody else, and can make us keep only so much:
 * - Requests which it has sent wait in the queue, at most SESSION_REQUESTS_MAX or, where they are big,
 *   SESSION_REQUEST_BYTES_MAX of text and one more; then nothing more is read from it.
 * - While SESSION_OUTPUT_HIGH bytes or more wait for it to read, none of its commands is run or read.
 * - Events are kept until SESSION_EVENTS_MAX bytes wait for it to read, then dropped, which is logged.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "qmp/dispatch.h"

struct chardev_frontend;
struct error;
struct json;
struct qmp_queue;
struct qmp_session;

enum {
    SESSION_REQUESTS_MAX = 64,
    SESSION_REQUEST_BYTES_MAX = 1 << 20,
    SESSION_OUTPUT_HIGH = 1 << 20,
    SESSION_EVENTS_MAX = 4 << 20,
    SESSION_TEXT_MAX = 16 << 20, /* of one request */
    SESSION_DEPTH_MAX = 1024,
    SESSION_TOKENS_MAX = 250000,
};

struct qmp_session_options {
    const char *name; /* of the monitor, for the log; must stay */
    bool pretty;      /* replies and events over several lines, indented */
    struct daemon *daemon;
    const struct qmp_command_set *commands;
};

/* A session over `frontend`, which must stay until co_qmp_session_run() has returned; its requests go to `queue`. */
struct qmp_session *qmp_session_new(struct chardev_frontend *frontend, struct qmp_queue *queue,
                                    const struct qmp_session_options *options) MUST_CHECK;
struct qmp_session *qmp_session_ref(struct qmp_session *session);
void qmp_session_unref(struct qmp_session *session); /* NULL is allowed */

/* The session's life: returns when the client has hung up, or the coroutine is cancelled. */
void CO_FN co_qmp_session_run(struct qmp_session *session);

/* Sends what waits, at most until the deadline of the caller, and nothing more after that. */
void CO_FN co_qmp_session_flush(struct qmp_session *session);

struct qmp_client *qmp_session_client(struct qmp_session *session);

/* Whether so much output waits for the client that its commands have to wait too. */
bool qmp_session_congested(const struct qmp_session *session);

/* Appends a reply, or an event (both borrowed), to the output. Nothing happens after the end of the session. */
void qmp_session_reply(struct qmp_session *session, const struct json *reply);
void qmp_session_event(struct qmp_session *session, const struct json *event);

/* A request of the session's, with `bytes` of text, has been put into the queue, or has got its reply. */
void qmp_session_request_begin(struct qmp_session *session, size_t bytes);
void qmp_session_request_end(struct qmp_session *session, size_t bytes);
