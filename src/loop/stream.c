/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Byte streams: what is common to all, and the plain socket. */
#include "loop/stream.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <limits.h>
#include <sys/socket.h>

#include "loop/loop-internal.h"

ssize_t co_stream_readv(struct stream *stream, const struct iovec *iov, int count)
{
    return stream->ops->co_readv(stream, iov, count);
}

ssize_t co_stream_read(struct stream *stream, void *to, size_t size)
{
    struct iovec iov = {.iov_base = to, .iov_len = size};

    return stream->ops->co_readv(stream, &iov, 1);
}

ssize_t co_stream_read_now(struct stream *stream, void *to, size_t size)
{
    return stream->ops->co_read_now ? stream->ops->co_read_now(stream, to, size) : -EAGAIN;
}

int co_stream_read_exact(struct stream *stream, void *to, size_t size)
{
    char *at = to;

    while (size) {
        ssize_t moved = co_stream_read(stream, at, size);

        if (moved <= 0)
            return moved < 0 ? (int)moved : -ECONNRESET;
        at += moved;
        size -= (size_t)moved;
    }
    return 0;
}

int co_stream_writev(struct stream *stream, struct iovec *iov, int count)
{
    for (;;) {
        ssize_t moved;

        while (count && !iov->iov_len) {
            iov++;
            count--;
        }
        if (!count)
            return 0;
        moved = stream->ops->co_writev(stream, iov, MIN(count, IOV_MAX));
        if (moved < 0)
            return (int)moved;
        while (moved) {
            size_t part = MIN((size_t)moved, iov->iov_len);

            iov->iov_base = (char *)iov->iov_base + part;
            iov->iov_len -= part;
            moved -= (ssize_t)part;
            if (!iov->iov_len && moved) {
                iov++;
                count--;
                assert(count > 0);
            }
        }
    }
}

int co_stream_write(struct stream *stream, const void *from, size_t size)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)from, .iov_len = size};

    return co_stream_writev(stream, &iov, 1);
}

void co_stream_shutdown(struct stream *stream)
{
    if (stream->ops->co_shutdown)
        stream->ops->co_shutdown(stream);
}

void stream_abort(struct stream *stream)
{
    stream->ops->abort(stream);
}

void stream_free(struct stream *stream)
{
    if (stream)
        stream->ops->free(stream);
}

/* --- the plain socket --- */

static ssize_t socket_co_readv(struct stream *stream, const struct iovec *iov, int count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};

    if (count == 1)
        return co_socket_recv(stream->fd, iov->iov_base, iov->iov_len, 0);
    return co_socket_recv_message(stream->fd, &message, 0);
}

static ssize_t socket_co_writev(struct stream *stream, const struct iovec *iov, int count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};

    /* Where the back end can, it goes on by itself as there is room: one completion instead of several. */
    if (count == 1)
        return co_socket_send(stream->fd, iov->iov_base, iov->iov_len, MSG_WAITALL);
    return co_socket_send_message(stream->fd, &message, MSG_WAITALL);
}

static ssize_t socket_co_read_now(struct stream *stream, void *to, size_t size)
{
    return co_socket_recv(stream->fd, to, size, MSG_DONTWAIT);
}

static void socket_co_shutdown(struct stream *stream)
{
    loop_self()->ops->shutdown(stream->fd, SHUT_WR);
}

static void socket_abort(struct stream *stream)
{
    struct loop *loop = loop_current();

    if (loop)
        loop->ops->shutdown(stream->fd, SHUT_RDWR);
    else
        posix_socket_shutdown(stream->fd, SHUT_RDWR);
}

static void socket_free(struct stream *stream)
{
    fd_close(stream->fd);
    g_free(stream);
}

static const struct stream_ops socket_stream_ops = {
    .co_readv = socket_co_readv,
    .co_writev = socket_co_writev,
    .co_read_now = socket_co_read_now,
    .co_shutdown = socket_co_shutdown,
    .abort = socket_abort,
    .free = socket_free,
};

struct stream *stream_new_socket(int fd)
{
    struct stream *stream = g_new0(struct stream, 1);

    assert(fd >= 0);
    stream->ops = &socket_stream_ops;
    stream->fd = fd;
    return stream;
}
