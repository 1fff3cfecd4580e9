/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sockets, pipes, terminals: descriptors that block. All waits here are cancellable (see coroutine.h). Results: 0 or a
 * count, or a negative errno. No operation raises SIGPIPE.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/compiler.h"
#include "loop/file.h"

struct error;

int CO_FN co_socket_accept(int fd); /* the new descriptor */
int CO_FN co_socket_connect(int fd, const struct sockaddr *address, socklen_t size);
ssize_t CO_FN co_socket_recv(int fd, void *to, size_t size, int flags); /* 0: the peer is through */
ssize_t CO_FN co_socket_recv_message(int fd, struct msghdr *message, int flags);
ssize_t CO_FN co_socket_send(int fd, const void *from, size_t size, int flags);
ssize_t CO_FN co_socket_send_message(int fd, const struct msghdr *message, int flags);

/* read(2) and write(2) for pipes, terminals, signal and event descriptors, whether or not they are non-blocking. */
ssize_t CO_FN co_fd_read(int fd, void *to, size_t size);
ssize_t CO_FN co_fd_write(int fd, const void *from, size_t size);

/*
 * read(2) and write(2) of a non-blocking descriptor that is a device or the like, at once and on the calling thread:
 * -EAGAIN where it would have to wait.
 */
ssize_t fd_read_now(int fd, void *to, size_t size);
ssize_t fd_write_now(int fd, const void *from, size_t size);

/*
 * Who is at the other end of a connected socket, for messages: "127.0.0.1:1234", "process 42" (Unix), "vsock 2:1024";
 * owned.
 */
char *socket_peer_name(int fd);

/* Waits until one of `events` (POLLIN, POLLOUT) or an error holds; the set that does. */
int CO_FN co_fd_poll(int fd, int events);

/* Waits for one of the signals in `set`, which all threads block: its number, or -errno. */
int CO_FN co_signal_wait(const sigset_t *set);

enum socket_family { SOCKET_UNIX, SOCKET_INET, SOCKET_VSOCK, SOCKET_FD };

/* TCP's own look whether the peer is still there; 0: the system's default. */
struct socket_keep_alive {
    bool on;
    uint32_t count;      /* unanswered probes that end the connection */
    uint32_t idle_s;     /* before the first */
    uint32_t interval_s; /* between them */
};

/* Where to listen or connect. Strings are borrowed. */
struct socket_endpoint {
    enum socket_family family;
    const char *path; /* unix; relative to the abstract namespace where `abstract` */
    bool abstract;
    bool loose;       /* abstract: the name fills sun_path, padded with NUL */
    const char *host; /* inet; "" : any */
    const char *port; /* inet: number or service name; vsock: number */
    uint16_t port_to; /* inet, listening: last port to try, 0: only `port` */
    bool numeric;     /* inet: no name resolution */
    bool refuse_ipv4;
    bool refuse_ipv6;
    struct socket_keep_alive keep_alive;
    bool mptcp;
    const char *cid; /* vsock */
    int fd;          /* fd: taken on success */
};

/* Listening sockets: one, or several where a host name has several addresses. */
struct socket_listener;
struct socket_listener *CO_FN co_socket_listen(const struct socket_endpoint *endpoint, int backlog,
                                               struct error **err) MUST_CHECK;

/* The next connection's descriptor, non-blocking, TCP_NODELAY set; or -errno. */
int CO_FN co_socket_listener_accept(struct socket_listener *listener);

/*
 * On a Unix socket, lets `bytes` or more be sent before they are received, as far as the system's limit goes: fewer
 * wake-ups for who sends much. What is there already stays; TCP finds out by itself. Any thread.
 */
void socket_widen(int fd, int bytes);

/* The address in use, as "unix:PATH", "inet:HOST:PORT", "vsock:CID:PORT", "fd:N"; with the real port. Borrowed. */
const char *socket_listener_address(const struct socket_listener *listener);
uint16_t socket_listener_port(const struct socket_listener *listener); /* inet; else 0 */

/* Closes; a Unix socket's path that it made is removed. NULL is allowed. Nobody may be inside accept. */
void socket_listener_free(struct socket_listener *listener);

/* A connected descriptor, or -1 with the error. */
int CO_FN co_socket_dial(const struct socket_endpoint *endpoint, struct error **err) MUST_CHECK;

/*
 * A datagram socket from `local` (NULL: any address and port) to `remote` and from nobody else, both inet; or -1 with
 * the error. Sent and received on as other sockets are.
 */
int CO_FN co_socket_datagram(const struct socket_endpoint *remote, const struct socket_endpoint *local,
                             struct error **err) MUST_CHECK;
