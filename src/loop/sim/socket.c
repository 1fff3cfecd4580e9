/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Connections in memory. What is sent or received at once is a random part, as any network may do it. */
#include "loop/sim/sim-internal.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/io-vector.h"

enum { SOCKET_CAPACITY = 64 * 1024 };

/* One end. Bytes for it wait in a ring of its own. */
struct sim_socket {
    struct sim_socket *peer; /* NULL: closed */
    unsigned char *ring;
    size_t capacity;
    size_t head;
    size_t used;
    bool in_ended;      /* nothing will be added to the ring any more */
    GPtrArray *waiters; /* coroutines that wait for a change of this end's state */
};

struct sim_listener {
    char *name;
    GQueue connections; /* struct sim_socket */
    GPtrArray *waiters;
};

static void wake_all(GPtrArray *waiters)
{
    for (guint i = 0; i < waiters->len; i++)
        co_wake(g_ptr_array_index(waiters, i));
}

/* Waits for a change: 0, or why the wait has ended. */
static int CO_FN co_wait_change(GPtrArray *waiters, struct cancellable *wait)
{
    int reason = cancellable_reason(wait);

    if (reason < 0)
        return reason;
    g_ptr_array_add(waiters, co_self());
    co_suspend();
    g_ptr_array_remove(waiters, co_self());
    return cancellable_reason(wait);
}

static struct sim_socket *socket_new(size_t capacity)
{
    struct sim_socket *socket = g_new0(struct sim_socket, 1);

    socket->capacity = capacity;
    socket->ring = g_malloc(capacity);
    socket->waiters = g_ptr_array_new();
    return socket;
}

static void socket_connect(struct sim_socket *a, struct sim_socket *b)
{
    a->peer = b;
    b->peer = a;
}

void sim_socket_pair(struct loop *loop, int ret_fds[2], size_t capacity)
{
    struct sim_socket *a = socket_new(capacity ? capacity : SOCKET_CAPACITY);
    struct sim_socket *b = socket_new(capacity ? capacity : SOCKET_CAPACITY);

    socket_connect(a, b);
    ret_fds[0] = sim_handle_add(sim_of(loop), &(struct sim_handle){.socket = a});
    ret_fds[1] = sim_handle_add(sim_of(loop), &(struct sim_handle){.socket = b});
}

/* Nothing more goes from `socket` to its peer. */
static void socket_end_out(struct sim_socket *socket)
{
    if (socket->peer) {
        socket->peer->in_ended = true;
        wake_all(socket->peer->waiters);
    }
}

void sim_socket_close(struct sim_socket *socket)
{
    assert(!socket->waiters->len);
    socket_end_out(socket);
    if (socket->peer)
        socket->peer->peer = NULL;
    g_ptr_array_free(socket->waiters, TRUE);
    g_free(socket->ring);
    g_free(socket);
}

void sim_shutdown(int fd, int how)
{
    struct sim_handle *handle = sim_handle_get(fd);
    struct sim_socket *socket = handle ? handle->socket : NULL;

    if (!socket)
        return;
    if (how != SHUT_RD)
        socket_end_out(socket);
    if (how != SHUT_WR)
        socket->in_ended = true;
    wake_all(socket->waiters);
}

/* --- moving bytes --- */

static size_t ring_copy_out(struct sim_socket *socket, const struct io_vector *to, size_t offset, size_t size,
                            bool peek)
{
    size_t head = socket->head;

    for (size_t done = 0; done < size;) {
        size_t part = MIN(size - done, socket->capacity - head);

        io_vector_write(to, offset + done, socket->ring + head, part);
        head = (head + part) % socket->capacity;
        done += part;
    }
    /* Waking for nothing would make two ends that both wait for data wake each other for ever. */
    if (!peek && size) {
        socket->head = head;
        socket->used -= size;
        if (socket->peer)
            wake_all(socket->peer->waiters);
    }
    return size;
}

static void ring_copy_in(struct sim_socket *socket, const struct io_vector *from, size_t size)
{
    size_t tail = (socket->head + socket->used) % socket->capacity;

    assert(size <= socket->capacity - socket->used);
    for (size_t done = 0; done < size;) {
        size_t part = MIN(size - done, socket->capacity - tail);

        io_vector_read(from, done, socket->ring + tail, part);
        tail = (tail + part) % socket->capacity;
        done += part;
    }
    socket->used += size;
    wake_all(socket->waiters);
}

static ssize_t CO_FN co_receive(struct sim *sim, struct sim_socket *socket, const struct io_vector *to, int flags,
                                struct cancellable *wait)
{
    size_t done = 0;

    for (;;) {
        size_t part = MIN(to->size - done, socket->used);
        int reason;

        if (part && !(flags & (MSG_WAITALL | MSG_PEEK)))
            part = sim_part(sim, part, 1);
        done += ring_copy_out(socket, to, done, part, flags & MSG_PEEK);
        if (done == to->size || (done && !(flags & MSG_WAITALL)) || socket->in_ended || (flags & MSG_PEEK && done))
            return (ssize_t)done;
        if (flags & MSG_DONTWAIT)
            return done ? (ssize_t)done : -EAGAIN;
        reason = co_wait_change(socket->waiters, wait);
        if (reason < 0)
            return done ? (ssize_t)done : reason;
    }
}

static ssize_t CO_FN co_transmit(struct sim *sim, struct sim_socket *socket, const struct io_vector *from, int flags,
                                 struct cancellable *wait)
{
    for (;;) {
        struct sim_socket *peer = socket->peer;
        size_t part;
        int reason;

        if (!peer || peer->in_ended)
            return -EPIPE;
        part = MIN(from->size, peer->capacity - peer->used);
        if (part || !from->size) {
            part = part ? sim_part(sim, part, 1) : 0;
            ring_copy_in(peer, from, part);
            return (ssize_t)part;
        }
        if (flags & MSG_DONTWAIT)
            return -EAGAIN;
        reason = co_wait_change(socket->waiters, wait);
        if (reason < 0)
            return reason;
    }
}

static ssize_t CO_FN co_move(int fd, const struct iovec *iov, int count, int flags, bool write)
{
    struct sim *sim = sim_self();
    struct sim_handle *handle = sim_handle_get(fd);
    struct io_vector vector = io_vector_of(iov, (unsigned)count);
    struct cancellable wait;
    ssize_t result;

    if (!handle)
        return -EBADF;
    if (!handle->socket)
        return -ENOTSOCK;
    result = cancellable_begin(&wait);
    if (result < 0)
        return result;
    handle->users++;
    result = co_sim_op(sim, SIM_OP_SOCKET);
    if (!result && write)
        result = co_transmit(sim, handle->socket, &vector, flags, &wait);
    else if (!result)
        result = co_receive(sim, handle->socket, &vector, flags, &wait);
    handle->users--;
    cancellable_end(&wait);
    sim_note(sim, (uint64_t)result);
    return result;
}

ssize_t sim_co_transfer(const struct socket_request *request)
{
    struct iovec iov = {.iov_base = request->data, .iov_len = request->size};

    if (!request->message)
        return co_move(request->fd, &iov, 1, request->flags, request->write);
    if (!request->write) {
        /* No descriptors are passed along here. */
        request->message->msg_controllen = 0;
        request->message->msg_flags = 0;
    }
    return co_move(request->fd, request->message->msg_iov, (int)request->message->msg_iovlen, request->flags,
                   request->write);
}

static ssize_t CO_FN co_stream(int fd, void *data, size_t size, bool write)
{
    struct iovec iov = {.iov_base = data, .iov_len = size};
    const struct sim_handle *handle = sim_handle_get(fd);

    if (handle && handle->file)
        return co_sim_file_stream(fd, data, size, write);
    return co_move(fd, &iov, 1, 0, write);
}

ssize_t sim_co_read(int fd, void *to, size_t size)
{
    return co_stream(fd, to, size, false);
}

ssize_t sim_co_write(int fd, const void *from, size_t size)
{
    return co_stream(fd, (void *)(uintptr_t)from, size, true);
}

/* There are no event descriptors in the simulation. */
void sim_signal(struct loop *loop, int fd, bool nonblocking)
{
    assert(!sim_handle_get(fd));
}

/* --- polling --- */

static int handle_ready(const struct sim_handle *handle, int events)
{
    const struct sim_socket *socket = handle->socket;
    int ready = 0;

    if (handle->listener)
        return handle->listener->connections.length ? events & POLLIN : 0;
    if (!socket)
        return events;
    if (socket->used || socket->in_ended)
        ready |= events & POLLIN;
    if (!socket->peer || socket->peer->in_ended || socket->peer->used < socket->peer->capacity)
        ready |= events & POLLOUT;
    if (socket->in_ended && (!socket->peer || socket->peer->in_ended))
        ready |= POLLHUP;
    return ready;
}

int sim_co_poll(int fd, int events)
{
    struct sim_handle *handle = sim_handle_get(fd);
    struct cancellable wait;
    int result;

    if (!handle)
        return -EBADF;
    result = cancellable_begin(&wait);
    if (result < 0)
        return result;
    handle->users++;
    result = co_sim_op(sim_self(), SIM_OP_SOCKET);
    while (!result) {
        GPtrArray *waiters = handle->listener ? handle->listener->waiters : NULL;

        result = handle_ready(handle, events);
        if (!result)
            result = co_wait_change(waiters ? waiters : handle->socket->waiters, &wait);
    }
    handle->users--;
    cancellable_end(&wait);
    return result;
}

/* --- listening --- */

int sim_listen(const char *name, int backlog)
{
    struct sim *sim = sim_self();
    struct sim_listener *listener;

    if (g_hash_table_contains(sim->listeners, name))
        return -EADDRINUSE;
    listener = g_new0(struct sim_listener, 1);
    listener->name = g_strdup(name);
    listener->waiters = g_ptr_array_new();
    g_queue_init(&listener->connections);
    g_hash_table_insert(sim->listeners, g_strdup(name), listener);
    return sim_handle_add(sim, &(struct sim_handle){.listener = listener});
}

void sim_listener_close(struct sim *sim, struct sim_listener *listener)
{
    struct sim_socket *socket;

    assert(!listener->waiters->len);
    while ((socket = g_queue_pop_head(&listener->connections)))
        sim_socket_close(socket);
    g_hash_table_remove(sim->listeners, listener->name);
    g_ptr_array_free(listener->waiters, TRUE);
    g_free(listener->name);
    g_free(listener);
}

int sim_co_dial(const char *name)
{
    struct sim *sim = sim_self();
    int result = co_sim_op(sim, SIM_OP_SOCKET);
    struct sim_listener *listener;
    struct sim_socket *here;
    struct sim_socket *there;

    if (result < 0)
        return result;
    if (co_cancelled())
        return -ECANCELED;
    listener = g_hash_table_lookup(sim->listeners, name);
    if (!listener)
        return -ECONNREFUSED;
    here = socket_new(SOCKET_CAPACITY);
    there = socket_new(SOCKET_CAPACITY);
    socket_connect(here, there);
    g_queue_push_tail(&listener->connections, there);
    wake_all(listener->waiters);
    return sim_handle_add(sim, &(struct sim_handle){.socket = here});
}

int sim_co_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    /* Descriptors of this machine are born connected. */
    return sim_handle_get(fd) ? -EISCONN : -EBADF;
}

int sim_co_accept(int fd)
{
    struct sim *sim = sim_self();
    struct sim_handle *handle = sim_handle_get(fd);
    struct cancellable wait;
    int result;

    if (!handle || !handle->listener)
        return handle ? -EINVAL : -EBADF;
    result = cancellable_begin(&wait);
    if (result < 0)
        return result;
    handle->users++;
    result = co_sim_op(sim, SIM_OP_SOCKET);
    while (!result && !handle->listener->connections.length)
        result = co_wait_change(handle->listener->waiters, &wait);
    if (!result)
        result = sim_handle_add(sim, &(struct sim_handle){.socket = g_queue_pop_head(&handle->listener->connections)});
    handle->users--;
    cancellable_end(&wait);
    return result;
}
