/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Datagram sockets that have one peer. */
#include <errno.h>
#include <glib.h>
#include <sys/socket.h>

#include "base/error.h"
#include "loop/endpoint.h"
#include "loop/loop-internal.h"

/* A socket from `local` (NULL: any address) to `remote`, or -errno. */
static int datagram_socket(const struct socket_address *remote, const struct socket_address *local)
{
    AUTO(fd) fd = socket(remote->storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1;

    if (fd < 0)
        return -errno;
    if (local && (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
                  bind(fd, (const struct sockaddr *)&local->storage, local->size)))
        return -errno;
    if (connect(fd, (const struct sockaddr *)&remote->storage, remote->size))
        return -errno;
    return TAKE_FD(fd);
}

/* The first pair of addresses of one family that will do; the descriptor or -errno. */
static int datagram_socket_any(const struct address_list *remotes, const struct address_list *locals)
{
    int fd = -EAFNOSUPPORT;

    for (unsigned i = 0; i < remotes->count; i++) {
        if (!locals->count) {
            fd = datagram_socket(&remotes->items[i], NULL);
            if (fd >= 0)
                return fd;
        }
        for (unsigned j = 0; j < locals->count; j++) {
            if (remotes->items[i].storage.ss_family != locals->items[j].storage.ss_family)
                continue;
            fd = datagram_socket(&remotes->items[i], &locals->items[j]);
            if (fd >= 0)
                return fd;
        }
    }
    return fd;
}

int co_socket_datagram(const struct socket_endpoint *remote, const struct socket_endpoint *local, struct error **err)
{
    AUTO(address_list) remotes = {0};
    AUTO(address_list) locals = {0};
    int fd;

    CO_ASSERT();
    if (remote->family != SOCKET_INET || (local && local->family != SOCKET_INET)) {
        error_set(err, "socket type unsupported for datagram");
        return -1;
    }
    if (!co_endpoint_resolve(remote, false, &remotes, err) ||
        (local && !co_endpoint_resolve(local, true, &locals, err)))
        return -1;
    fd = datagram_socket_any(&remotes, &locals);
    if (fd < 0) {
        g_autofree char *remote_name = endpoint_name(remote);
        g_autofree char *local_name = local ? endpoint_name(local) : g_strdup("any address");

        error_set_errno(err, fd, "Failed to send datagrams from %s to %s", local_name, remote_name);
        return -1;
    }
    return fd;
}
