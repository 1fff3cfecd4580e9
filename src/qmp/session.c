/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two coroutines serve a session: the monitor's own reads, a second one writes. Replies are appended to the output as
 * they come, and the writer sends in one go what has gathered since its last turn.
 *
 * Invariants: (1) `open` falls once; from then on the output stays empty; (2) the writer runs from the start to the end
 * of co_qmp_session_run(); (3) a request that is counted in `requests` holds a reference, so the count is zero when the
 * session is freed.
 */
#include "qmp/session.h"

#include <assert.h>
#include <inttypes.h>

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "base/units.h"
#include "chardev/chardev.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "qmp/queue.h"
#include "schema/json.h"

enum { READ_SIZE = 16 << 10, OUTPUT_KEPT_MAX = 64 << 10 };

/* How long a client that has sent its last byte is waited for: for the end of its commands, and to take the replies. */
static const int64_t goodbye_ns = 2 * NS_PER_S;

struct qmp_session {
    unsigned references;
    struct chardev_frontend *frontend; /* borrowed; while open */
    struct qmp_queue *queue;           /* borrowed; while open */
    const char *name;                  /* borrowed */
    bool pretty;
    struct qmp_client client;
    struct json_reader *reader;

    bool open;    /* output is taken */
    bool ending;  /* the writer ends when it has sent everything */
    bool writing; /* the writer lives */

    size_t fed_bytes;         /* of text that the reader got since the last request */
    unsigned requests;        /* in the queue, or running */
    size_t request_bytes;     /* their text */
    struct co_condition room; /* a request has got its reply, or output was read */

    GString *output;      /* waits */
    GString *sending;     /* is being sent */
    uint64_t events_lost; /* since the client last read all */
    struct co_condition output_there;
    struct co_condition writer_done;
};

struct qmp_session *qmp_session_new(struct chardev_frontend *frontend, struct qmp_queue *queue,
                                    const struct qmp_session_options *options)
{
    static const struct json_limits limits = {
        .bytes = SESSION_TEXT_MAX,
        .depth = SESSION_DEPTH_MAX,
        .tokens = SESSION_TOKENS_MAX,
    };
    struct qmp_session *session = g_new0(struct qmp_session, 1);

    session->references = 1;
    session->frontend = frontend;
    session->queue = queue;
    session->name = options->name;
    session->pretty = options->pretty;
    session->client.daemon = options->daemon;
    session->client.commands = options->commands;
    session->reader = json_reader_new(&limits);
    session->open = true;
    session->output = g_string_new(NULL);
    session->sending = g_string_new(NULL);
    return session;
}

struct qmp_session *qmp_session_ref(struct qmp_session *session)
{
    assert(session->references > 0);
    session->references++;
    return session;
}

void qmp_session_unref(struct qmp_session *session)
{
    if (!session)
        return;
    assert(session->references > 0);
    if (--session->references)
        return;
    assert(!session->requests);
    assert(!session->writing);
    json_reader_free(session->reader);
    g_string_free(session->output, TRUE);
    g_string_free(session->sending, TRUE);
    co_condition_done(&session->room);
    co_condition_done(&session->output_there);
    co_condition_done(&session->writer_done);
    g_free(session);
}

struct qmp_client *qmp_session_client(struct qmp_session *session)
{
    return &session->client;
}

static size_t output_bytes(const struct qmp_session *session)
{
    return session->output->len + session->sending->len;
}

bool qmp_session_congested(const struct qmp_session *session)
{
    return session->open && output_bytes(session) >= SESSION_OUTPUT_HIGH;
}

static void append(struct qmp_session *session, const struct json *message)
{
    json_format_append(session->output, message, session->pretty);
    g_string_append(session->output, "\r\n");
    co_condition_signal(&session->output_there);
}

void qmp_session_reply(struct qmp_session *session, const struct json *reply)
{
    if (session->open)
        append(session, reply);
}

void qmp_session_event(struct qmp_session *session, const struct json *event)
{
    if (!session->open || !session->client.negotiated)
        return;
    if (output_bytes(session) < SESSION_EVENTS_MAX) {
        append(session, event);
        return;
    }
    if (!session->events_lost++)
        log_warning("monitor '%s': its client does not read, %d MiB wait for it: events are dropped", session->name,
                    SESSION_EVENTS_MAX >> 20);
}

void qmp_session_request_begin(struct qmp_session *session, size_t bytes)
{
    session->requests++;
    session->request_bytes += bytes;
}

void qmp_session_request_end(struct qmp_session *session, size_t bytes)
{
    assert(session->requests > 0);
    assert(session->request_bytes >= bytes);
    session->requests--;
    session->request_bytes -= bytes;
    co_condition_broadcast(&session->room);
}

/* Where the output is no longer too much, reading and the session's requests go on. */
static void output_drained(struct qmp_session *session)
{
    if (qmp_session_congested(session))
        return;
    co_condition_broadcast(&session->room);
    qmp_queue_resume(session->queue, session);
}

/* Takes no more output; what waits is forgotten, and no request has to wait for it to drain. */
static void close_output(struct qmp_session *session)
{
    if (!session->open)
        return;
    session->open = false;
    g_string_truncate(session->output, 0);
    output_drained(session);
}

static void sent(struct qmp_session *session)
{
    if (session->sending->allocated_len > OUTPUT_KEPT_MAX) {
        g_string_free(session->sending, TRUE);
        session->sending = g_string_new(NULL);
    }
    g_string_truncate(session->sending, 0);
    if (session->events_lost && !session->output->len) {
        log_warning("monitor '%s': its client reads again, %" PRIu64 " events were dropped", session->name,
                    session->events_lost);
        session->events_lost = 0;
    }
}

/* Sends everything that waits: 0, or -errno. */
static int CO_FN co_send_output(struct qmp_session *session)
{
    GString *output = session->output;

    session->output = session->sending;
    session->sending = output;

    int result = co_chardev_write(session->frontend, session->sending->str, session->sending->len);
    sent(session);
    output_drained(session);
    return result;
}

static void CO_FN co_write_output(void *opaque)
{
    struct qmp_session *session = opaque;

    for (;;) {
        if (session->output->len) {
            if (co_send_output(session))
                break;
        } else if (session->ending || co_condition_wait(&session->output_there, NULL)) {
            break;
        }
    }
    session->writing = false;
    close_output(session);
    co_condition_broadcast(&session->writer_done);
}

/* Whether nothing more is to be read. Output counts because replies to out-of-band commands pass the queue by. */
static bool is_full(const struct qmp_session *session)
{
    return session->requests >= SESSION_REQUESTS_MAX || session->request_bytes >= SESSION_REQUEST_BYTES_MAX ||
           qmp_session_congested(session);
}

/* Waits until the session may have one more request; false when it was cancelled. */
static bool CO_FN co_wait_room(struct qmp_session *session)
{
    while (is_full(session)) {
        if (co_condition_wait(&session->room, NULL))
            return false;
    }
    return true;
}

/* One request, or what was none; both taken. */
static void CO_FN co_accept(struct qmp_session *session, struct json *input, struct error *error)
{
    size_t bytes = session->fed_bytes;

    session->fed_bytes = 0;
    if (input && qmp_request_is_oob(&session->client, input)) {
        AUTO(json) reply = co_qmp_dispatch(&session->client, input);
        qmp_session_reply(session, reply);
        return;
    }
    qmp_queue_put(session->queue, session, input, error, bytes);
}

/* All requests in what was read; false when it was cancelled. */
static bool CO_FN co_accept_all(struct qmp_session *session)
{
    struct json *input = NULL;
    struct error *error = NULL;

    for (;;) {
        if (!co_wait_room(session))
            return false;
        if (!json_reader_next(session->reader, &input, &error))
            return true;
        co_accept(session, TAKE(input), TAKE(error));
    }
}

static void CO_FN co_read_requests(struct qmp_session *session)
{
    g_autofree char *text = g_malloc(READ_SIZE);

    for (;;) {
        ssize_t size = co_chardev_read(session->frontend, text, READ_SIZE);

        if (size <= 0)
            return;
        session->fed_bytes += (size_t)size;
        json_reader_feed(session->reader, text, (size_t)size);
        if (!co_accept_all(session))
            return;
    }
}

/* The client may have closed only its sending side: its requests are carried out, and it gets the replies. */
static void CO_FN co_say_goodbye(struct qmp_session *session)
{
    struct co_deadline deadline;

    co_deadline_begin(&deadline, goodbye_ns);
    while (session->requests) {
        if (co_condition_wait(&session->room, NULL))
            break;
    }
    co_qmp_session_flush(session);
    co_deadline_end(&deadline);
}

void co_qmp_session_flush(struct qmp_session *session)
{
    session->ending = true;
    co_condition_signal(&session->output_there);
    while (session->writing) {
        if (co_condition_wait(&session->writer_done, NULL))
            break;
    }
    close_output(session);
}

void co_qmp_session_run(struct qmp_session *session)
{
    AUTO(json) greeting = qmp_greeting();
    struct co_task *writer;

    assert(co_active());
    TRACE(qmp_session_begin, "session %p monitor %s", (void *)session, session->name);
    session->writing = true;
    writer = co_task_start(loop_current(), co_write_output, session);
    append(session, greeting);
    co_read_requests(session);
    co_say_goodbye(session);
    co_task_cancel(writer);
    co_task_join(writer);
    TRACE(qmp_session_end, "session %p requests %u", (void *)session, session->requests);
}
