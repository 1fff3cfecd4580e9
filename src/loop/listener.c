/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Listening sockets: binding, with all that can be in the way, and accepting from several at once. */
#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "loop/endpoint.h"
#include "loop/loop-internal.h"

enum {
    LISTENER_SOCKETS_MAX = 32,
    PORT_ZERO_ATTEMPTS = 16, /* for one free port in all address families at once */
};

struct socket_listener {
    int fds[LISTENER_SOCKETS_MAX];
    unsigned count;
    int any_fd; /* an epoll set of them all, where there are several; else -1 */
    struct socket_keep_alive keep_alive;
    uint16_t port;
    char *address;
    char *path; /* that is ours to remove: only while it is still this file */
    dev_t path_device;
    ino_t path_inode;
};

static void listener_close_all(struct socket_listener *listener)
{
    while (listener->count)
        fd_close(listener->fds[--listener->count]);
}

void socket_listener_free(struct socket_listener *listener)
{
    struct stat now;

    if (!listener)
        return;
    listener_close_all(listener);
    fd_close(listener->any_fd);
    if (listener->path && !lstat(listener->path, &now) && now.st_dev == listener->path_device &&
        now.st_ino == listener->path_inode)
        (void)unlink(listener->path);
    g_free(listener->path);
    g_free(listener->address);
    g_free(listener);
}
AUTO_DEFINE(socket_listener, struct socket_listener *, socket_listener_free)

const char *socket_listener_address(const struct socket_listener *listener)
{
    return listener->address;
}

uint16_t socket_listener_port(const struct socket_listener *listener)
{
    return listener->port;
}

/* --- inet --- */

static void inet_set_port(struct socket_address *address, uint16_t port)
{
    if (address->storage.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&address->storage)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)&address->storage)->sin_port = htons(port);
}

static uint16_t inet_get_port(const struct socket_address *address)
{
    return ntohs(address->storage.ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)&address->storage)->sin6_port
                                                        : ((const struct sockaddr_in *)&address->storage)->sin_port);
}

/* A bound and listening socket, or -errno. Fills in the port that was chosen. */
static int inet_listen_one(struct socket_address *address, int backlog)
{
    AUTO(fd) fd = address_socket(address);
    int on = 1;

    if (fd < 0)
        return fd;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
        (address->storage.ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on))) ||
        bind(fd, (const struct sockaddr *)&address->storage, address->size) || listen(fd, backlog))
        return -errno;
    if (getsockname(fd, (struct sockaddr *)&address->storage, &address->size))
        return -errno;
    return TAKE_FD(fd);
}

/*
 * Listens on all addresses with the same port. An address that this machine does not have is left out, as long as there
 * is another. 0 or -errno, with nothing open then.
 */
static int inet_listen_all(struct socket_listener *listener, struct address_list *list, uint16_t port, int backlog)
{
    int failure = 0;

    for (unsigned i = 0; i < list->count && listener->count < LISTENER_SOCKETS_MAX; i++) {
        int fd;

        inet_set_port(&list->items[i], port);
        fd = inet_listen_one(&list->items[i], backlog);
        if (fd >= 0) {
            listener->fds[listener->count++] = fd;
            port = inet_get_port(&list->items[i]);
            listener->port = port;
        } else if (fd == -EADDRNOTAVAIL || fd == -EAFNOSUPPORT) {
            failure = fd;
        } else {
            listener_close_all(listener);
            return fd;
        }
    }
    return listener->count ? 0 : failure;
}

static int inet_listen_range(struct socket_listener *listener, struct address_list *list, unsigned first, unsigned last,
                             int backlog)
{
    unsigned attempts = first ? last - first + 1 : PORT_ZERO_ATTEMPTS;
    int result = -EADDRINUSE;

    for (unsigned i = 0; i < attempts && result == -EADDRINUSE; i++)
        result = inet_listen_all(listener, list, (uint16_t)(first ? first + i : 0), backlog);
    return result;
}

/* Makes several sockets one descriptor to wait for. */
static bool listener_join(struct socket_listener *listener, struct error **err)
{
    if (listener->count == 1)
        return true;
    listener->any_fd = epoll_create1(EPOLL_CLOEXEC);
    if (listener->any_fd < 0)
        return error_set_errno(err, errno, "Failed to create an epoll descriptor");
    for (unsigned i = 0; i < listener->count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = listener->fds[i]};

        if (epoll_ctl(listener->any_fd, EPOLL_CTL_ADD, listener->fds[i], &event))
            return error_set_errno(err, errno, "Failed to watch a listening socket");
    }
    return true;
}

static bool CO_FN co_inet_listen(struct socket_listener *listener, const struct socket_endpoint *endpoint, int backlog,
                                 struct error **err)
{
    g_autofree char *name = endpoint_name(endpoint);
    AUTO(address_list) list = {0};
    char host[NI_MAXHOST];
    uint16_t first;
    int result;

    if (!co_endpoint_resolve(endpoint, true, &list, err))
        return false;
    first = inet_get_port(&list.items[0]);
    if (endpoint->port_to && endpoint->port_to < first)
        return error_set(err, "the range of ports from %u to %u is empty", first, endpoint->port_to);
    result = inet_listen_range(listener, &list, first, endpoint->port_to ? endpoint->port_to : first, backlog);
    if (result == -EADDRINUSE)
        return error_set_errno(err, result, "Failed to find an available port for %s", name);
    if (result < 0)
        return error_set_errno(err, result, "Failed to bind socket to %s", name);
    address_host(&list.items[0], host);
    listener->address = g_strdup_printf(strchr(host, ':') ? "inet:[%s]:%u" : "inet:%s:%u",
                                        *endpoint->host ? endpoint->host : host, listener->port);
    return listener_join(listener, err);
}

/* --- unix --- */

/* Makes way where a socket lies at the path, as whatever program last listened there may have left it. */
static bool unix_remove_stale(const char *path, struct error **err)
{
    struct stat there;

    if (lstat(path, &there))
        return true;
    if (!S_ISSOCK(there.st_mode))
        return error_set(err, "Failed to bind socket to %s: there is a file of another kind in the way", path);
    if (unlink(path) && errno != ENOENT)
        return error_set_errno(err, errno, "Failed to unlink socket %s", path);
    return true;
}

static bool address_listen(struct socket_listener *listener, const struct socket_address *address, const char *name,
                           int backlog, struct error **err)
{
    int fd = address_socket(address);

    if (fd < 0)
        return error_set_errno(err, fd, "Failed to create a socket for %s", name);
    listener->fds[listener->count++] = fd;
    if (bind(fd, (const struct sockaddr *)&address->storage, address->size))
        return error_set_errno(err, errno, "Failed to bind socket to %s", name);
    if (listen(fd, backlog))
        return error_set_errno(err, errno, "Failed to listen on socket %s", name);
    return true;
}

static bool CO_FN co_unix_listen(struct socket_listener *listener, const struct socket_endpoint *endpoint, int backlog,
                                 struct error **err)
{
    AUTO(address_list) list = {0};
    struct stat made;

    if (!co_endpoint_resolve(endpoint, true, &list, err))
        return false;
    if (!endpoint->abstract && !unix_remove_stale(endpoint->path, err))
        return false;
    if (!address_listen(listener, &list.items[0], endpoint->path, backlog, err))
        return false;
    if (!endpoint->abstract && !lstat(endpoint->path, &made)) {
        listener->path = g_canonicalize_filename(endpoint->path, NULL); /* the working directory may change */
        listener->path_device = made.st_dev;
        listener->path_inode = made.st_ino;
    }
    listener->address = g_strdup_printf(endpoint->abstract ? "unix:@%s" : "unix:%s", endpoint->path);
    return true;
}

/* --- vsock --- */

static bool CO_FN co_vsock_listen(struct socket_listener *listener, const struct socket_endpoint *endpoint, int backlog,
                                  struct error **err)
{
    g_autofree char *name = endpoint_name(endpoint);
    struct sockaddr_vm vm = {0};
    socklen_t size = sizeof(vm);
    AUTO(address_list) list = {0};

    if (!co_endpoint_resolve(endpoint, true, &list, err))
        return false;
    if (!address_listen(listener, &list.items[0], name, backlog, err))
        return false;
    if (getsockname(listener->fds[0], (struct sockaddr *)&vm, &size))
        return error_set_errno(err, errno, "Failed to look up the address of socket %s", name);
    listener->address = g_strdup_printf("vsock:%s:%u", endpoint->cid, vm.svm_port);
    return true;
}

/* --- passed descriptors --- */

/* The value of a socket option that is an int, or -errno. */
static int socket_option(int fd, int option)
{
    int value = 0;
    socklen_t size = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, option, &value, &size) ? -errno : value;
}

static bool fd_listen(struct socket_listener *listener, const struct socket_endpoint *endpoint, struct error **err)
{
    struct socket_address address = {.size = sizeof(address.storage)};
    int type = socket_option(endpoint->fd, SO_TYPE);

    if (type == -EBADF)
        return error_set_errno(err, EBADF, "File descriptor '%d' cannot be used", endpoint->fd);
    if (type < 0)
        return error_set(err, "File descriptor '%d' is not a socket", endpoint->fd);
    if (type != SOCK_STREAM)
        return error_set(err, "File descriptor '%d' is not a stream socket", endpoint->fd);
    if (socket_option(endpoint->fd, SO_ACCEPTCONN) <= 0)
        return error_set(err, "File descriptor '%d' is not a listening socket", endpoint->fd);
    if (getsockname(endpoint->fd, (struct sockaddr *)&address.storage, &address.size))
        return error_set_errno(err, errno, "Failed to look up the address of file descriptor '%d'", endpoint->fd);
    if (address.storage.ss_family == AF_INET || address.storage.ss_family == AF_INET6)
        listener->port = inet_get_port(&address);
    fd_set_close_on_exec(endpoint->fd);
    /* Others may accept from it, too, between our being told of a connection and our taking it. */
    fd_set_nonblocking(endpoint->fd);
    listener->fds[listener->count++] = endpoint->fd;
    listener->address = g_strdup_printf("fd:%d", endpoint->fd);
    return true;
}

/* On a loop whose sockets are not the system's. */
static bool backend_listen(struct socket_listener *listener, const struct socket_endpoint *endpoint, int backlog,
                           struct error **err)
{
    g_autofree char *name = endpoint_name(endpoint);
    int fd = loop_self()->ops->listen(name, backlog);
    guint64 port;

    if (fd < 0)
        return error_set_errno(err, fd, "Failed to bind socket to %s", name);
    listener->fds[listener->count++] = fd;
    if (endpoint->family == SOCKET_INET && g_ascii_string_to_unsigned(endpoint->port, 10, 0, UINT16_MAX, &port, NULL))
        listener->port = (uint16_t)port;
    listener->address = g_strdup_printf("%s:%s", endpoint->family == SOCKET_INET ? "inet" : "unix", name);
    return true;
}

struct socket_listener *co_socket_listen(const struct socket_endpoint *endpoint, int backlog, struct error **err)
{
    AUTO(socket_listener) listener = g_new0(struct socket_listener, 1);
    bool done = false;

    CO_ASSERT();
    assert(backlog > 0);
    listener->any_fd = -1;
    listener->keep_alive = endpoint->keep_alive;
    if (loop_self()->ops->listen)
        return backend_listen(listener, endpoint, backlog, err) ? TAKE(listener) : NULL;
    switch (endpoint->family) {
    case SOCKET_UNIX:
        done = co_unix_listen(listener, endpoint, backlog, err);
        break;
    case SOCKET_INET:
        done = co_inet_listen(listener, endpoint, backlog, err);
        break;
    case SOCKET_VSOCK:
        done = co_vsock_listen(listener, endpoint, backlog, err);
        break;
    case SOCKET_FD:
        done = fd_listen(listener, endpoint, err);
        break;
    }
    return done ? TAKE(listener) : NULL;
}

/* --- accepting --- */

/* The next connection of any of the sockets, which are ours and hence non-blocking. */
static int CO_FN co_accept_any(struct socket_listener *listener)
{
    for (;;) {
        struct epoll_event ready;
        int result = epoll_wait(listener->any_fd, &ready, 1, 0);

        if (result > 0) {
            result = accept4(ready.data.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
            if (result >= 0 || (errno != EAGAIN && errno != EINTR))
                return result < 0 ? -errno : result;
            continue;
        }
        if (result < 0 && errno != EINTR)
            return -errno;
        result = co_fd_poll(listener->any_fd, POLLIN);
        if (result < 0)
            return result;
    }
}

int co_socket_listener_accept(struct socket_listener *listener)
{
    int fd;

    CO_ASSERT();
    assert(listener->count > 0);
    fd = listener->count == 1 ? co_socket_accept(listener->fds[0]) : co_accept_any(listener);
    if (fd >= 0)
        socket_prepare_connected(fd, &listener->keep_alive);
    return fd;
}
