/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/qmp-client.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "base/units.h"
#include "loop/coroutine.h"
#include "loop/socket.h"
#include "loop/stream.h"
#include "schema/json.h"

enum { READ_SIZE = 16 << 10, EVENTS_MAX = 4096 };

/* A daemon may be busy with what others have asked for; but one that hangs does not hang us. */
static const int64_t patience_ns = 60 * NS_PER_S;

struct qmp_client {
    struct stream *stream;
    struct json_reader *reader;
    GQueue events; /* of struct json, as they came */
};

static bool lost(int result, struct error **err)
{
    return error_set_errno(err, result ? result : -ECONNRESET, "cannot talk with the daemon over QMP");
}

/* The next message, owned; NULL: *err. */
static struct json *CO_FN co_receive(struct qmp_client *client, struct error **err)
{
    char buffer[READ_SIZE];

    for (;;) {
        struct json *message = NULL;
        struct error *error = NULL;
        ssize_t size;

        if (json_reader_next(client->reader, &message, &error)) {
            if (message && json_get_kind(message) == JSON_OBJECT)
                return message;
            json_free(message);
            if (error)
                error_move(err, error);
            else
                error_set(err, "the daemon has said over QMP what is no object");
            return NULL;
        }
        size = co_stream_read(client->stream, buffer, sizeof(buffer));
        if (size <= 0) {
            lost((int)size, err);
            return NULL;
        }
        json_reader_feed(client->reader, buffer, (size_t)size);
    }
}

static void remember_event(struct qmp_client *client, struct json *event)
{
    g_queue_push_tail(&client->events, event);
    if (client->events.length > EVENTS_MAX)
        json_free(g_queue_pop_head(&client->events));
}

static const char *string_of(const struct json *object, const char *key)
{
    const struct json *value = object && json_get_kind(object) == JSON_OBJECT ? json_get(object, key) : NULL;

    return value && json_get_kind(value) == JSON_STRING ? json_get_string(value) : NULL;
}

static bool set_refused(const struct json *refused, struct error **err)
{
    const char *class = string_of(refused, "class");
    const char *text = string_of(refused, "desc");

    for (int i = ERROR_GENERIC; class && i <= ERROR_DEVICE_NOT_FOUND; i++) {
        if (!strcmp(class, error_class_name((enum error_class)i)))
            return error_set_class(err, (enum error_class)i, "%s", text ? text : "no reason given");
    }
    return error_set(err, "%s", text ? text : "no reason given");
}

static struct json *CO_FN co_reply(struct qmp_client *client, struct error **err)
{
    for (;;) {
        AUTO(json) message = co_receive(client, err);
        struct json *value;

        if (!message)
            return NULL;
        if (json_get(message, "event")) {
            remember_event(client, TAKE(message));
            continue;
        }
        value = json_take(message, "return");
        if (!value)
            set_refused(json_get(message, "error"), err);
        return value;
    }
}

struct json *co_qmp_client_call(struct qmp_client *client, const char *command, struct json *arguments,
                                struct error **err)
{
    AUTO(json) request = json_object();
    g_autofree char *text = NULL;
    struct co_deadline deadline;
    struct json *reply;
    int result;

    json_set(request, "execute", json_string(command));
    if (arguments)
        json_set(request, "arguments", arguments);
    text = json_format(request, false);
    co_deadline_begin(&deadline, patience_ns);
    result = co_stream_write(client->stream, text, strlen(text));
    reply = result ? NULL : co_reply(client, err);
    co_deadline_end(&deadline);
    explicit_bzero(text, strlen(text)); /* it may hold a secret */
    if (result)
        lost(result, err);
    return reply;
}

bool co_qmp_client_do(struct qmp_client *client, const char *command, struct json *arguments, struct error **err)
{
    AUTO(json) reply = co_qmp_client_call(client, command, arguments, err);

    return reply;
}

static bool is_event(const struct json *event, const char *name, const char *key, const char *value)
{
    return !g_strcmp0(string_of(event, "event"), name) && !g_strcmp0(string_of(json_get(event, "data"), key), value);
}

bool co_qmp_client_wait(struct qmp_client *client, const char *name, const char *key, const char *value,
                        struct error **err)
{
    struct co_deadline deadline;
    bool found = false;

    for (GList *item = client->events.head; item; item = item->next)
        found = found || is_event(item->data, name, key, value);
    co_deadline_begin(&deadline, patience_ns);
    while (!found) {
        struct json *message = co_receive(client, err);

        if (!message)
            break;
        found = is_event(message, name, key, value);
        remember_event(client, message);
    }
    co_deadline_end(&deadline);
    return found;
}

static bool CO_FN co_greet(struct qmp_client *client, struct error **err)
{
    AUTO(json) greeting = NULL;
    struct co_deadline deadline;

    /* A monitor serves one client at a time, and says nothing to others. */
    co_deadline_begin(&deadline, patience_ns);
    greeting = co_receive(client, err);
    co_deadline_end(&deadline);
    if (!greeting) {
        error_hint(err, "A monitor serves one client at a time: maybe another one is connected.");
        return false;
    }
    if (!json_get(greeting, "QMP"))
        return error_set(err, "who listens there does not speak QMP");
    return co_qmp_client_do(client, "qmp_capabilities", NULL, err);
}

struct qmp_client *co_qmp_client_new(const char *path, struct error **err)
{
    struct socket_endpoint endpoint = {.family = SOCKET_UNIX, .path = path};
    AUTO(qmp_client) client = g_new0(struct qmp_client, 1);
    int fd = co_socket_dial(&endpoint, err);

    if (fd < 0)
        return NULL;
    client->stream = stream_new_socket(fd);
    client->reader = json_reader_new(NULL);
    g_queue_init(&client->events);
    if (co_greet(client, err))
        return TAKE(client);
    error_prefix(err, "%s: ", path);
    return NULL;
}

void qmp_client_free(struct qmp_client *client)
{
    if (!client)
        return;
    stream_free(client->stream);
    json_reader_free(client->reader);
    g_queue_clear_full(&client->events, (GDestroyNotify)json_free);
    g_free(client);
}
