/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What query-chardev calls the addresses of sockets. */
#include "chardev/socket-name.h"

#include <assert.h>
#include <glib.h>
#include <netdb.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "gen/types.h"

/* "HOST:PORT" of an address of the system; NULL where it is no inet address. */
static char *inet_name(const struct sockaddr_storage *address, socklen_t size)
{
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];

    if (address->ss_family != AF_INET && address->ss_family != AF_INET6)
        return NULL;
    if (getnameinfo((const struct sockaddr *)address, size, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV))
        return NULL;
    return g_strdup_printf(address->ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static const char *server_suffix(const struct socket_naming *naming)
{
    return naming->server ? ",server=on" : "";
}

static char *inet_describe(const struct inet_socket_address *data, const struct socket_naming *naming)
{
    const char *listening = naming->listening;

    /* The listener knows the port that was chosen. */
    if (listening && g_str_has_prefix(listening, "inet:"))
        return g_strdup_printf("%s%s%s", naming->protocol, listening + strlen("inet"), server_suffix(naming));
    return g_strdup_printf(strchr(data->host, ':') ? "%s:[%s]:%s%s" : "%s:%s:%s%s", naming->protocol, data->host,
                           data->port, server_suffix(naming));
}

static char *unix_describe(const struct unix_socket_address *data, const struct socket_naming *naming)
{
    bool abstract = data->has_abstract && data->abstract;
    bool tight = abstract && !(data->has_tight && !data->tight);

    return g_strdup_printf("unix:%s%s%s%s", data->path, abstract ? ",abstract=on" : "", tight ? ",tight=on" : "",
                           server_suffix(naming));
}

/* A passed descriptor is called what it is bound to. */
static char *fd_describe(const char *text, const struct socket_naming *naming)
{
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    const struct sockaddr_un *un = (const struct sockaddr_un *)&address;
    socklen_t size = sizeof(address);
    g_autofree char *name = NULL;

    if (!getsockname((int)g_ascii_strtoull(text, NULL, 10), (struct sockaddr *)&address, &size)) {
        name = inet_name(&address, size);
        if (name)
            return g_strdup_printf("%s:%s%s", naming->protocol, name, server_suffix(naming));
        if (address.ss_family == AF_UNIX && size > offsetof(struct sockaddr_un, sun_path) && un->sun_path[0])
            return g_strdup_printf("unix:%.*s%s", (int)(size - offsetof(struct sockaddr_un, sun_path)), un->sun_path,
                                   server_suffix(naming));
    }
    return g_strdup_printf("fd:%s%s", text, server_suffix(naming));
}

char *socket_name(const struct socket_address *address, const struct socket_naming *naming)
{
    switch (address->type) {
    case SOCKET_ADDRESS_TYPE_INET:
        return inet_describe(&address->u.inet, naming);
    case SOCKET_ADDRESS_TYPE_UNIX:
        return unix_describe(&address->u.unix_, naming);
    case SOCKET_ADDRESS_TYPE_VSOCK:
        return g_strdup_printf("vsock:%s:%s%s", address->u.vsock.cid, address->u.vsock.port, server_suffix(naming));
    case SOCKET_ADDRESS_TYPE_FD:
        return fd_describe(address->u.fd.str, naming);
    case SOCKET_ADDRESS_TYPE__MAX:
        break;
    }
    g_assert_not_reached();
}

char *socket_name_connected(const struct socket_address *address, const struct socket_naming *naming, int fd)
{
    struct sockaddr_storage own;
    struct sockaddr_storage peer;
    socklen_t own_size = sizeof(own);
    socklen_t peer_size = sizeof(peer);
    g_autofree char *own_name = NULL;
    g_autofree char *peer_name = NULL;

    if (!getsockname(fd, (struct sockaddr *)&own, &own_size) &&
        !getpeername(fd, (struct sockaddr *)&peer, &peer_size)) {
        own_name = inet_name(&own, own_size);
        peer_name = inet_name(&peer, peer_size);
    }
    if (!own_name || !peer_name)
        return socket_name(address, naming);
    return g_strdup_printf("%s:%s%s <-> %s", naming->protocol, own_name, server_suffix(naming), peer_name);
}
