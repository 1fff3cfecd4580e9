/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sockets and other descriptors that block: the way in to the running loop's back end. */
#include "loop/socket.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "loop/loop-internal.h"

int co_socket_accept(int fd)
{
    CO_ASSERT();
    return loop_self()->ops->co_accept(fd);
}

/* Waits until an attempt under way has come to its end. */
static int CO_FN co_finish_connecting(int fd)
{
    int result = co_fd_poll(fd, POLLOUT);
    int failure = 0;
    socklen_t size = sizeof(failure);

    if (result < 0)
        return result;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &size) ? -errno : -failure;
}

int co_socket_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    int result;

    CO_ASSERT();
    result = loop_self()->ops->co_connect(fd, address, size);
    /* io_uring leaves vsock sockets like that. */
    return result == -EINPROGRESS || result == -EALREADY ? co_finish_connecting(fd) : result;
}

ssize_t co_socket_recv(int fd, void *to, size_t size, int flags)
{
    struct socket_request request = {.fd = fd, .flags = flags, .data = to, .size = size};

    CO_ASSERT();
    return loop_self()->ops->co_transfer(&request);
}

ssize_t co_socket_recv_message(int fd, struct msghdr *message, int flags)
{
    struct socket_request request = {.fd = fd, .flags = flags | MSG_CMSG_CLOEXEC, .message = message};

    CO_ASSERT();
    return loop_self()->ops->co_transfer(&request);
}

ssize_t co_socket_send(int fd, const void *from, size_t size, int flags)
{
    struct socket_request request = {
        .fd = fd, .flags = flags, .write = true, .data = (void *)(uintptr_t)from, .size = size};

    CO_ASSERT();
    return loop_self()->ops->co_transfer(&request);
}

ssize_t co_socket_send_message(int fd, const struct msghdr *message, int flags)
{
    struct socket_request request = {
        .fd = fd, .flags = flags, .write = true, .message = (struct msghdr *)(uintptr_t)message};

    CO_ASSERT();
    return loop_self()->ops->co_transfer(&request);
}

ssize_t fd_read_now(int fd, void *to, size_t size)
{
    ssize_t moved;

    do
        moved = read(fd, to, size);
    while (moved < 0 && errno == EINTR);
    return moved < 0 ? -errno : moved;
}

ssize_t fd_write_now(int fd, const void *from, size_t size)
{
    ssize_t moved;

    do
        moved = write(fd, from, size);
    while (moved < 0 && errno == EINTR);
    return moved < 0 ? -errno : moved;
}

ssize_t co_fd_read(int fd, void *to, size_t size)
{
    CO_ASSERT();
    return loop_self()->ops->co_read(fd, to, size);
}

ssize_t co_fd_write(int fd, const void *from, size_t size)
{
    CO_ASSERT();
    return loop_self()->ops->co_write(fd, from, size);
}

int co_fd_poll(int fd, int events)
{
    CO_ASSERT();
    assert(events);
    return loop_self()->ops->co_poll(fd, events);
}

void posix_socket_shutdown(int fd, int how)
{
    /* It may not be connected any more, or not be a socket: then there is nothing to end. */
    (void)shutdown(fd, how);
}

ssize_t posix_socket_transfer(const struct socket_request *request)
{
    int fd = request->fd;
    int flags = request->flags | MSG_NOSIGNAL | MSG_DONTWAIT;
    ssize_t moved;

    if (request->message)
        moved = request->write ? sendmsg(fd, request->message, flags) : recvmsg(fd, request->message, flags);
    else
        moved = request->write ? send(fd, request->data, request->size, flags)
                               : recv(fd, request->data, request->size, flags);
    return moved < 0 ? -errno : moved;
}

int co_signal_wait(const sigset_t *set)
{
    struct signalfd_siginfo info;
    AUTO(fd) fd = -1;
    ssize_t size;

    CO_ASSERT();
    if (loop_self()->backend == LOOP_SIM) {
        /* Nobody sends any there: only cancellation ends this. */
        struct co_condition never = {0};
        int result;

        do {
            result = co_condition_wait(&never, NULL);
        } while (!result);
        return result;
    }
    fd = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return -errno;
    size = co_fd_read(fd, &info, sizeof(info));
    if (size < 0)
        return (int)size;
    assert(size == sizeof(info));
    return (int)info.ssi_signo;
}
