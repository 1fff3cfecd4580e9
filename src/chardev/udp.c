/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * udp: each write is a datagram to the remote address, or several where it is too long for one; datagrams from there
 * are the input. Whether anybody is at the other end nobody knows.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "chardev/chardev-internal.h"
#include "loop/file.h"
#include "loop/socket.h"
#include "schema/socket-address.h"

enum {
    DATAGRAM_SENT_MAX = 65507, /* over IPv4: 65,535 less the headers */
    DATAGRAM_MAX = 65536,
};

struct udp_chardev {
    int fd;
    size_t from; /* what has been read of `datagram` */
    size_t to;
    char datagram[DATAGRAM_MAX];
};

/* Opens the socket between the two addresses, `local` may be NULL: the descriptor, or -1 and the error. */
static int CO_FN co_udp_open(const struct socket_address *remote, const struct socket_address *local,
                             struct error **err)
{
    struct socket_endpoint to;
    struct socket_endpoint from;

    if (!socket_address_endpoint(remote, &to, err) || (local && !socket_address_endpoint(local, &from, err)))
        return -1;
    return co_socket_datagram(&to, local ? &from : NULL, err);
}

static bool CO_FN co_udp_create(struct chardev *chardev, const struct chardev_backend *backend, struct error **err)
{
    const struct chardev_udp *options = backend->u.udp.data;
    AUTO(socket_address) remote = socket_address_from_legacy(options->remote);
    AUTO(socket_address) local = options->local ? socket_address_from_legacy(options->local) : NULL;
    struct udp_chardev *udp = chardev->state;

    udp->fd = co_udp_open(remote, local, err);
    if (udp->fd < 0)
        return false;
    chardev_opened(chardev);
    return true;
}

static void CO_FN co_udp_destroy(struct chardev *chardev)
{
    struct udp_chardev *udp = chardev->state;

    fd_close(udp->fd);
}

/* What the network tells of a datagram that was lost is no end: they may be lost anyway. */
static bool is_loss(ssize_t result)
{
    return result == -ECONNREFUSED || result == -EHOSTUNREACH || result == -ENETUNREACH || result == -ENOBUFS;
}

static ssize_t CO_FN co_udp_read(struct chardev_frontend *frontend, void *to, size_t size)
{
    struct udp_chardev *udp = frontend->chardev->state;
    size_t moved;

    while (udp->from == udp->to) {
        ssize_t result = co_socket_recv(udp->fd, udp->datagram, DATAGRAM_MAX, 0);

        if (result < 0 && !is_loss(result))
            return result;
        udp->from = 0;
        udp->to = result > 0 ? (size_t)result : 0;
    }
    moved = MIN(size, udp->to - udp->from);
    memcpy(to, udp->datagram + udp->from, moved);
    udp->from += moved;
    return (ssize_t)moved;
}

static int CO_FN co_udp_write(struct chardev *chardev, const void *from, size_t size)
{
    struct udp_chardev *udp = chardev->state;
    const char *at = from;

    while (size) {
        size_t piece = MIN(size, (size_t)DATAGRAM_SENT_MAX);
        ssize_t result = co_socket_send(udp->fd, at, piece, 0);

        /* The news of an earlier datagram's loss comes in the place of this one's sending. */
        if (is_loss(result))
            result = co_socket_send(udp->fd, at, piece, 0);
        if (result < 0 && !is_loss(result))
            return (int)result;
        at += piece;
        size -= piece;
    }
    return 0;
}

const struct chardev_ops chardev_udp_ops = {
    .kind = CHARDEV_BACKEND_KIND_UDP,
    .state_size = sizeof(struct udp_chardev),
    .permanent = true,
    .co_create = co_udp_create,
    .co_destroy = co_udp_destroy,
    .co_read = co_udp_read,
    .co_write = co_udp_write,
};
