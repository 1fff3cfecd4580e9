/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "schema/socket-address.h"

#include <errno.h>
#include <glib.h>
#include <limits.h>
#include <string.h>

#include "base/error.h"
#include "loop/socket.h"
#include "schema/json.h"

static bool inet_endpoint(const struct inet_socket_address *inet, struct socket_endpoint *ret, struct error **err)
{
    bool only_ipv4 = inet->has_ipv4 && inet->ipv4 && !inet->has_ipv6;
    bool only_ipv6 = inet->has_ipv6 && inet->ipv6 && !inet->has_ipv4;

    *ret = (struct socket_endpoint){
        .family = SOCKET_INET,
        .host = inet->host,
        .port = inet->port,
        .port_to = inet->has_to ? inet->to : 0,
        .numeric = inet->has_numeric && inet->numeric,
        .refuse_ipv4 = only_ipv6 || (inet->has_ipv4 && !inet->ipv4),
        .refuse_ipv6 = only_ipv4 || (inet->has_ipv6 && !inet->ipv6),
        .keep_alive =
            {
                .on = inet->has_keep_alive && inet->keep_alive,
                .count = inet->has_keep_alive_count ? inet->keep_alive_count : 0,
                .idle_s = inet->has_keep_alive_idle ? inet->keep_alive_idle : 0,
                .interval_s = inet->has_keep_alive_interval ? inet->keep_alive_interval : 0,
            },
        .mptcp = inet->has_mptcp && inet->mptcp,
    };
    if (ret->refuse_ipv4 && ret->refuse_ipv6)
        return error_set(err, "Cannot disable IPv4 and IPv6 at same time");
    /* The resolver would take the remainder. */
    if (strspn(inet->port, "0123456789") == strlen(inet->port) && g_ascii_strtoull(inet->port, NULL, 10) > UINT16_MAX)
        return error_set(err, "Port '%s' of '%s' exceeds %d", inet->port, inet->host, UINT16_MAX);
    return true;
}

static bool unix_endpoint(const struct unix_socket_address *address, struct socket_endpoint *ret, struct error **err)
{
    bool abstract = address->has_abstract && address->abstract;

    *ret = (struct socket_endpoint){
        .family = SOCKET_UNIX,
        .path = address->path,
        .abstract = abstract,
        .loose = abstract && address->has_tight && !address->tight,
    };
    return true;
}

static bool fd_endpoint(const struct fd_socket_address *address, struct socket_endpoint *ret, struct error **err)
{
    char *end;
    long fd;

    errno = 0;
    fd = strtol(address->str, &end, 10);
    if (!g_ascii_isdigit(*address->str) || *end || errno || fd > INT_MAX)
        return error_set(err, "Unable to parse FD number %s", address->str);
    *ret = (struct socket_endpoint){.family = SOCKET_FD, .fd = (int)fd};
    return true;
}

bool socket_address_endpoint(const struct socket_address *address, struct socket_endpoint *ret, struct error **err)
{
    switch (address->type) {
    case SOCKET_ADDRESS_TYPE_INET:
        return inet_endpoint(&address->u.inet, ret, err);
    case SOCKET_ADDRESS_TYPE_UNIX:
        return unix_endpoint(&address->u.unix_, ret, err);
    case SOCKET_ADDRESS_TYPE_VSOCK:
        *ret = (struct socket_endpoint){
            .family = SOCKET_VSOCK, .cid = address->u.vsock.cid, .port = address->u.vsock.port};
        return true;
    case SOCKET_ADDRESS_TYPE_FD:
        return fd_endpoint(&address->u.fd, ret, err);
    default:
        return error_set(err, "address type %d is unknown", address->type);
    }
}

struct socket_address *socket_address_from_legacy(const struct socket_address_legacy *legacy)
{
    AUTO(json) wrapped = socket_address_legacy_write(legacy);
    AUTO(json) flat = json_take(wrapped, "data");
    struct socket_address *address;

    json_set(flat, "type", json_string(socket_address_type_name(legacy->type)));
    address = socket_address_parse(flat, NULL);
    g_assert(address);
    return address;
}
