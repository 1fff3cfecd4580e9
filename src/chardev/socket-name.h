/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What query-chardev calls the addresses of sockets. Private to this folder. */
#pragma once

#include <stdbool.h>

struct socket_address;

/* How a chardev names where it listens or connects to. */
struct socket_naming {
    const char *protocol; /* of inet: "tcp", "telnet" or "websocket" */
    bool server;
    const char *listening; /* socket_listener_address() of a server; NULL: not known */
};

/* "unix:PATH,server=on", "tcp:HOST:PORT", ...; owned. */
char *socket_name(const struct socket_address *address, const struct socket_naming *naming);

/* The same for a connection, whose real addresses are told where it is inet: "tcp:HOST:PORT <-> HOST:PORT"; owned. */
char *socket_name_connected(const struct socket_address *address, const struct socket_naming *naming, int fd);
