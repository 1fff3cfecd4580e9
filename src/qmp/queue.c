/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Invariants: (1) requests of one session are answered in the order in which they came; (2) a parked request belongs to
 * a session that was congested when its turn came, and came before all of that session's that still wait; (3) every
 * request holds a reference to its session, and is counted there.
 */
#include "qmp/queue.h"

#include <assert.h>
#include <glib.h>
#include <stdbool.h>

#include "base/error.h"
#include "base/trace.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "qmp/dispatch.h"
#include "qmp/session.h"
#include "schema/json.h"

struct request {
    struct qmp_session *session; /* owned reference */
    struct json *input;          /* owned; NULL: `error` */
    struct error *error;         /* owned */
    size_t bytes;
};

struct qmp_queue {
    GQueue waiting; /* of struct request */
    GQueue parked;  /* of struct request, whose sessions are congested */
    struct co_condition arrived;
    struct qmp_session *current; /* borrowed */
    bool held;
    struct co_task *runner; /* NULL: stopped */
};

static void request_free(struct request *request)
{
    qmp_session_request_end(request->session, request->bytes);
    qmp_session_unref(request->session);
    json_free(request->input);
    error_free(request->error);
    g_free(request);
}

/* The request at the head, whose session can take the reply; others are parked on the way. NULL: none waits. */
static struct request *next_request(struct qmp_queue *queue)
{
    struct request *request;

    while ((request = g_queue_pop_head(&queue->waiting))) {
        if (!qmp_session_congested(request->session))
            return request;
        TRACE(qmp_request_park, "session %p", (void *)request->session);
        g_queue_push_tail(&queue->parked, request);
    }
    return NULL;
}

static void CO_FN co_run_request(struct qmp_queue *queue, struct request *request)
{
    AUTO(json) reply = NULL;

    if (request->input) {
        queue->current = request->session;
        reply = co_qmp_dispatch(qmp_session_client(request->session), TAKE(request->input));
        queue->current = NULL;
    } else {
        reply = qmp_error_reply(NULL, request->error);
    }
    qmp_session_reply(request->session, reply);
}

static void CO_FN co_run_requests(void *opaque)
{
    struct qmp_queue *queue = opaque;

    while (!co_cancelled()) {
        struct request *request = queue->held ? NULL : next_request(queue);

        if (request) {
            co_run_request(queue, request);
            request_free(request);
        } else if (co_condition_wait(&queue->arrived, NULL)) {
            return;
        }
    }
}

struct qmp_queue *qmp_queue_new(struct loop *loop)
{
    struct qmp_queue *queue = g_new0(struct qmp_queue, 1);

    g_queue_init(&queue->waiting);
    g_queue_init(&queue->parked);
    queue->runner = co_task_start(loop, co_run_requests, queue);
    return queue;
}

void qmp_queue_hold(struct qmp_queue *queue)
{
    queue->held = true;
}

void qmp_queue_release(struct qmp_queue *queue)
{
    queue->held = false;
    co_condition_signal(&queue->arrived);
}

static void forget(GQueue *requests)
{
    struct request *request;

    while ((request = g_queue_pop_head(requests)))
        request_free(request);
}

void co_qmp_queue_stop(struct qmp_queue *queue)
{
    struct co_task *runner = TAKE(queue->runner);

    if (!runner)
        return;
    co_task_cancel(runner);
    co_task_join(runner);
    assert(!queue->current);
    forget(&queue->waiting);
    forget(&queue->parked);
}

void qmp_queue_free(struct qmp_queue *queue)
{
    assert(!queue->runner);
    assert(g_queue_is_empty(&queue->waiting));
    co_condition_done(&queue->arrived);
    g_free(queue);
}

void qmp_queue_put(struct qmp_queue *queue, struct qmp_session *session, struct json *input, struct error *error,
                   size_t bytes)
{
    struct request *request = g_new0(struct request, 1);

    assert(!input != !error);
    request->session = qmp_session_ref(session);
    request->input = input;
    request->error = error;
    request->bytes = bytes;
    qmp_session_request_begin(session, bytes);
    if (!queue->runner) {
        request_free(request);
        return;
    }
    g_queue_push_tail(&queue->waiting, request);
    co_condition_signal(&queue->arrived);
}

void qmp_queue_resume(struct qmp_queue *queue, struct qmp_session *session)
{
    /* From the newest on, each to the front: their order stays, and they stand before all that came later. */
    for (GList *link = queue->parked.tail, *previous; link; link = previous) {
        struct request *request = link->data;

        previous = link->prev;
        if (request->session != session)
            continue;
        g_queue_delete_link(&queue->parked, link);
        g_queue_push_head(&queue->waiting, request);
        co_condition_signal(&queue->arrived);
    }
}

struct qmp_session *qmp_queue_current(const struct qmp_queue *queue)
{
    return queue->current;
}
