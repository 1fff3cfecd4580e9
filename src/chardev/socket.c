/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * socket: a stream socket that listens or connects; plain, or with TLS, telnet or WebSocket on top.
 *
 * One coroutine, the keeper, looks after the connection: it accepts or connects, shakes hands, announces the session,
 * waits for its end, clears it away, and begins again. Keeps:
 * (1) at most one connection, that of the session; who connects meanwhile waits in the listener's queue;
 * (2) only the keeper frees a connection, when nobody reads or writes it any more;
 * (3) a peer that has only shut its sending side can be written to until the front end asks for the next session.
 */
#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <poll.h>

#include "base/error.h"
#include "base/log.h"
#include "base/units.h"
#include "chardev/chardev-internal.h"
#include "chardev/socket-layers.h"
#include "chardev/socket-name.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "loop/stream.h"
#include "schema/socket-address.h"

enum {
    SOCKET_BACKLOG = 64,
    HANDSHAKE_TIMEOUT_S = 10,
    GOODBYE_TIMEOUT_S = 1,
    ACCEPT_PAUSE_S = 1, /* when descriptors or memory have run out */
    RECONNECT_MAX_S = 86400,
};

static const int64_t ns_per_ms = 1000000;

struct socket_connection {
    struct stream *stream;
    struct co_task *watch; /* for the peer's leaving, while nobody reads */
    struct co_group users; /* inside of read or write */
    bool gone;             /* the peer has closed at least its sending side; seen by the watch */
    bool closing;          /* asked for, by us or by an error */
};

struct socket_chardev {
    struct chardev_socket *options; /* owned */
    struct socket_layers layers;
    struct socket_address *address;   /* owned: that of the options */
    struct socket_endpoint endpoint;  /* its strings are those of `address` */
    struct socket_listener *listener; /* of a server */
    struct co_task *keeper;
    bool stopping;
    int64_t reconnect_ns;                 /* 0: never */
    struct stream *first_stream;          /* of a client that connected when it was made */
    bool tried;                           /* to connect, at least once */
    bool told;                            /* that connecting failed: once an outage */
    struct socket_connection *connection; /* NULL: none */
};

static struct socket_chardev *socket_of(const struct chardev *chardev)
{
    assert(chardev->ops == &chardev_socket_ops);
    return chardev->state;
}

static bool socket_is_server(const struct socket_chardev *socket)
{
    return !socket->options->has_server || socket->options->server;
}

/* --- reading and writing --- */

static void connection_close(struct chardev *chardev, struct socket_connection *connection)
{
    connection->closing = true;
    co_condition_broadcast(&chardev->changed);
}

static bool is_own_doing(ssize_t result)
{
    return result == -ECANCELED || result == -ETIMEDOUT;
}

static ssize_t CO_FN co_socket_chardev_read(struct chardev_frontend *frontend, void *to, size_t size)
{
    struct chardev *chardev = frontend->chardev;
    struct socket_connection *connection = socket_of(chardev)->connection;
    ssize_t result;

    if (!connection || connection->closing)
        return 0;
    co_group_add(&connection->users, 1);
    result = co_stream_read(connection->stream, to, size);
    /* However a connection breaks, it is the end of the conversation. */
    if (result < 0 && !is_own_doing(result)) {
        connection_close(chardev, connection);
        result = 0;
    }
    co_group_done(&connection->users);
    return result;
}

static int CO_FN co_socket_chardev_write(struct chardev *chardev, const void *from, size_t size)
{
    struct socket_connection *connection = socket_of(chardev)->connection;
    int result;

    if (!connection || connection->closing)
        return -EPIPE;
    co_group_add(&connection->users, 1);
    result = co_stream_write(connection->stream, from, size);
    /* A message that went out in part makes all that would follow it worthless. */
    if (result < 0) {
        connection_close(chardev, connection);
        result = is_own_doing(result) ? result : -EPIPE;
    }
    co_group_done(&connection->users);
    return result;
}

static void socket_chardev_hang_up(struct chardev_frontend *frontend)
{
    struct socket_connection *connection = socket_of(frontend->chardev)->connection;

    if (connection)
        connection_close(frontend->chardev, connection);
}

static void CO_FN co_socket_send_break(struct chardev *chardev)
{
    struct socket_chardev *socket = socket_of(chardev);
    struct socket_connection *connection = socket->connection;

    if (!connection || connection->closing || !socket->layers.telnet)
        return;
    co_group_add(&connection->users, 1);
    if (co_socket_layers_send_break(&socket->layers, connection->stream) < 0)
        connection_close(chardev, connection);
    co_group_done(&connection->users);
}

/* --- the keeper --- */

struct peer_watch {
    struct chardev *chardev;
    struct socket_connection *connection;
    bool layered;
};

/* Notices that a peer with whom nobody talks has gone; not while it has left something to read. */
static void CO_FN co_watch_peer(void *opaque)
{
    g_autofree struct peer_watch *watch = opaque;
    int fd = watch->connection->stream->fd;
    char byte;

    if (co_fd_poll(fd, POLLRDHUP) < 0)
        return;
    if (watch->layered || co_socket_recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0)
        watch->connection->gone = true;
    co_condition_broadcast(&watch->chardev->changed);
}

static void connection_watch_start(struct chardev *chardev, struct socket_connection *connection)
{
    struct peer_watch *watch = g_new0(struct peer_watch, 1);

    watch->chardev = chardev;
    watch->connection = connection;
    watch->layered = socket_layers_any(&socket_of(chardev)->layers);
    connection->watch = co_task_start(loop_current(), co_watch_peer, watch);
}

static void CO_FN co_connection_watch_end(struct socket_connection *connection)
{
    struct co_task *watch = TAKE(connection->watch);

    if (!watch)
        return;
    co_task_cancel(watch);
    co_task_join(watch);
}

/* Returns when the connection is to be cleared away. */
static void CO_FN co_connection_await_end(struct chardev *chardev, struct socket_connection *connection)
{
    while (!connection->closing) {
        bool in_use = chardev->frontend_count;

        if (in_use)
            co_connection_watch_end(connection);
        else if (connection->gone)
            break;
        else if (!connection->watch)
            connection_watch_start(chardev, connection);
        if (connection->closing || in_use != !!chardev->frontend_count)
            continue;
        co_condition_wait_always(&chardev->changed, NULL);
    }
    co_connection_watch_end(connection);
}

/* From hello to goodbye. Takes `stream`. */
static void CO_FN co_socket_converse(struct chardev *chardev, struct stream *stream)
{
    struct socket_chardev *socket = socket_of(chardev);
    struct socket_connection connection = {.stream = stream, .closing = socket->stopping};
    struct co_deadline deadline;

    assert(!socket->connection);
    socket->connection = &connection;
    socket->told = false;
    chardev_opened(chardev);
    co_connection_await_end(chardev, &connection);
    connection.closing = true;
    chardev_closed(chardev);
    if (connection.users.count) {
        stream_abort(stream);
    } else {
        co_deadline_begin(&deadline, GOODBYE_TIMEOUT_S * NS_PER_S);
        co_stream_shutdown(stream);
        co_deadline_end(&deadline);
    }
    co_group_wait(&connection.users);
    socket->connection = NULL;
    stream_free(stream);
}

/* The stream of a new connection, which must shake hands in time. Takes `fd`. */
static struct stream *CO_FN co_socket_hello(struct socket_chardev *socket, int fd, struct error **err)
{
    struct co_deadline deadline;
    struct stream *stream;

    co_deadline_begin(&deadline, HANDSHAKE_TIMEOUT_S * NS_PER_S);
    stream = co_socket_layers_new(&socket->layers, fd, err);
    co_deadline_end(&deadline);
    return stream;
}

static void CO_FN co_keep_server(void *opaque)
{
    struct chardev *chardev = opaque;
    struct socket_chardev *socket = socket_of(chardev);

    while (!socket->stopping) {
        int fd = co_socket_listener_accept(socket->listener);
        struct stream *stream;

        if (fd == -ECANCELED)
            return;
        if (fd < 0) {
            if (co_sleep_ns(ACCEPT_PAUSE_S * NS_PER_S) < 0)
                return;
            continue;
        }
        /* A stranger who cannot shake hands is no news to anybody. */
        stream = co_socket_hello(socket, fd, NULL);
        if (stream)
            co_socket_converse(chardev, stream);
    }
}

static struct stream *CO_FN co_socket_connect_out(struct socket_chardev *socket, struct error **err)
{
    int fd = co_socket_dial(&socket->endpoint, err);

    return fd < 0 ? NULL : co_socket_hello(socket, fd, err);
}

static void CO_FN co_keep_client(void *opaque)
{
    struct chardev *chardev = opaque;
    struct socket_chardev *socket = socket_of(chardev);

    if (socket->first_stream)
        co_socket_converse(chardev, TAKE(socket->first_stream));
    while (!socket->stopping && socket->reconnect_ns) {
        AUTO(error) error = NULL;
        struct stream *stream;

        if (socket->tried && co_sleep_ns(socket->reconnect_ns) < 0)
            return;
        socket->tried = true;
        stream = co_socket_connect_out(socket, &error);
        if (stream) {
            co_socket_converse(chardev, stream);
        } else if (!socket->told && !socket->stopping) {
            socket->told = true;
            log_warning("Unable to connect character device %s: %s", chardev->id, error_message(error));
        }
    }
}

/* --- life --- */

static bool socket_check_options(const struct chardev_socket *options, struct error **err)
{
    bool server = !options->has_server || options->server;

    if (options->has_reconnect && options->has_reconnect_ms)
        return error_set(err, "'reconnect' and 'reconnect-ms' are mutually exclusive");
    if (options->has_reconnect && (options->reconnect < 0 || options->reconnect > RECONNECT_MAX_S))
        return error_set(err, "'reconnect' is %" PRId64 ", it must be between 0 and %d seconds", options->reconnect,
                         RECONNECT_MAX_S);
    if (options->has_reconnect_ms &&
        (options->reconnect_ms < 0 || options->reconnect_ms > (int64_t)RECONNECT_MAX_S * 1000))
        return error_set(err, "'reconnect-ms' is %" PRId64 ", it must be between 0 and %d000 milliseconds",
                         options->reconnect_ms, RECONNECT_MAX_S);
    if (server &&
        ((options->has_reconnect && options->reconnect) || (options->has_reconnect_ms && options->reconnect_ms)))
        return error_set(err, "'reconnect' option is incompatible with socket in server listen mode");
    if (!server && options->has_wait && options->wait)
        return error_set(err, "'wait' option is incompatible with socket in client connect mode");
    return true;
}

/* Frees what co_socket_chardev_create() has made so far. */
static void socket_done(struct socket_chardev *socket)
{
    assert(!socket->connection);
    stream_free(socket->first_stream);
    socket_listener_free(socket->listener);
    socket_layers_done(&socket->layers);
    socket_address_free(socket->address);
    chardev_socket_free(socket->options);
}

static void CO_FN co_socket_stop(struct chardev *chardev)
{
    struct socket_chardev *socket = socket_of(chardev);

    socket->stopping = true;
    /* A conversation ends with a goodbye; all else that the keeper may be doing is cut short. */
    if (socket->connection)
        connection_close(chardev, socket->connection);
    else
        co_task_cancel(socket->keeper);
    co_task_join(socket->keeper);
}

static void CO_FN co_socket_chardev_destroy(struct chardev *chardev)
{
    struct socket_chardev *socket = socket_of(chardev);

    co_socket_stop(chardev);
    socket_done(socket);
}

static char *socket_chardev_describe(const struct chardev *chardev)
{
    const struct socket_chardev *socket = socket_of(chardev);
    struct socket_naming naming = {
        .protocol = socket_layers_protocol(&socket->layers),
        .server = socket_is_server(socket),
        .listening = socket->listener ? socket_listener_address(socket->listener) : NULL,
    };
    g_autofree char *name = NULL;

    if (socket->connection)
        return socket_name_connected(socket->address, &naming, socket->connection->stream->fd);
    name = socket_name(socket->address, &naming);
    return g_strdup_printf("disconnected:%s", name);
}

/* wait=on: who starts us wants to go on with a client. */
static bool CO_FN co_socket_wait_client(struct chardev *chardev, struct error **err)
{
    g_autofree char *name = socket_chardev_describe(chardev);
    int result = 0;

    log_info("waiting for connection on: %s", name);
    while (!chardev->open && result >= 0)
        result = co_condition_wait(&chardev->changed, NULL);
    if (result < 0)
        return error_set_errno(err, result, "no connection on %s", name);
    return true;
}

static bool CO_FN co_socket_start_server(struct chardev *chardev, struct error **err)
{
    struct socket_chardev *socket = socket_of(chardev);

    socket->listener = co_socket_listen(&socket->endpoint, SOCKET_BACKLOG, err);
    if (!socket->listener)
        return false;
    socket->keeper = co_task_start(loop_current(), co_keep_server, chardev);
    if (!socket->options->has_wait || !socket->options->wait || co_socket_wait_client(chardev, err))
        return true;
    co_socket_stop(chardev);
    return false;
}

static bool CO_FN co_socket_start_client(struct chardev *chardev, struct error **err)
{
    struct socket_chardev *socket = socket_of(chardev);

    if (!socket->reconnect_ns) {
        socket->first_stream = co_socket_connect_out(socket, err);
        if (!socket->first_stream)
            return false;
    }
    socket->keeper = co_task_start(loop_current(), co_keep_client, chardev);
    return true;
}

static bool CO_FN co_socket_chardev_create(struct chardev *chardev, const struct chardev_backend *backend,
                                           struct error **err)
{
    struct socket_chardev *socket = socket_of(chardev);
    const struct chardev_socket *options = backend->u.socket.data;
    bool done;

    if (!socket_check_options(options, err))
        return false;
    socket->options = chardev_socket_clone(options);
    socket->address = socket_address_from_legacy(options->addr);
    socket->reconnect_ns = options->has_reconnect_ms ? options->reconnect_ms * ns_per_ms
                           : options->has_reconnect  ? options->reconnect * NS_PER_S
                                                     : 0;
    done = socket_address_endpoint(socket->address, &socket->endpoint, err) &&
           socket_layers_init(&socket->layers, chardev, socket->options, err) &&
           (socket_is_server(socket) ? co_socket_start_server(chardev, err) : co_socket_start_client(chardev, err));
    if (!done)
        socket_done(socket);
    return done;
}

const struct chardev_ops chardev_socket_ops = {
    .kind = CHARDEV_BACKEND_KIND_SOCKET,
    .state_size = sizeof(struct socket_chardev),
    .co_create = co_socket_chardev_create,
    .co_destroy = co_socket_chardev_destroy,
    .co_read = co_socket_chardev_read,
    .co_write = co_socket_chardev_write,
    .hang_up = socket_chardev_hang_up,
    .co_send_break = co_socket_send_break,
    .describe = socket_chardev_describe,
};
