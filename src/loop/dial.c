/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Connecting to an endpoint: each of its addresses in turn, until one answers. */
#include <assert.h>
#include <errno.h>
#include <glib.h>

#include "base/error.h"
#include "loop/endpoint.h"
#include "loop/loop-internal.h"

static int CO_FN co_dial_address(const struct socket_address *address)
{
    AUTO(fd) fd = address_socket(address);
    int result;

    if (fd < 0)
        return fd;
    result = co_socket_connect(fd, (const struct sockaddr *)&address->storage, address->size);
    return result < 0 ? result : TAKE_FD(fd);
}

/* A descriptor that somebody has connected for us. */
static int fd_dial(const struct socket_endpoint *endpoint, struct error **err)
{
    int type = 0;
    socklen_t size = sizeof(type);

    if (getsockopt(endpoint->fd, SOL_SOCKET, SO_TYPE, &type, &size)) {
        if (errno == EBADF)
            error_set_errno(err, errno, "File descriptor '%d' cannot be used", endpoint->fd);
        else
            error_set(err, "File descriptor '%d' is not a socket", endpoint->fd);
        return -1;
    }
    if (type != SOCK_STREAM) {
        error_set(err, "File descriptor '%d' is not a stream socket", endpoint->fd);
        return -1;
    }
    fd_set_close_on_exec(endpoint->fd);
    fd_set_nonblocking(endpoint->fd);
    return endpoint->fd;
}

int co_socket_dial(const struct socket_endpoint *endpoint, struct error **err)
{
    g_autofree char *name = endpoint_name(endpoint);
    AUTO(address_list) list = {0};
    int fd = -EADDRNOTAVAIL;

    CO_ASSERT();
    if (endpoint->family == SOCKET_FD) {
        fd = fd_dial(endpoint, err);
    } else if (loop_self()->ops->co_dial) {
        fd = loop_self()->ops->co_dial(name);
        if (fd < 0)
            error_set_errno(err, fd, "Failed to connect to '%s'", name);
    } else {
        if (!co_endpoint_resolve(endpoint, false, &list, err))
            return -1;
        for (unsigned i = 0; i < list.count && fd < 0 && fd != -ECANCELED; i++)
            fd = co_dial_address(&list.items[i]);
        if (fd < 0)
            error_set_errno(err, fd, "Failed to connect to '%s'", name);
    }
    if (fd < 0)
        return -1;
    socket_prepare_connected(fd, &endpoint->keep_alive);
    return fd;
}
