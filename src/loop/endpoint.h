/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From endpoints to the addresses that the system knows, and back to names. Private to this folder. */
#pragma once

#include <netdb.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/compiler.h"
#include "loop/socket.h"

struct error;

/* The longest path of a Unix socket, in bytes. */
enum { UNIX_PATH_MAX_BYTES = sizeof(((struct sockaddr_un *)0)->sun_path) - 1 };

struct socket_address {
    struct sockaddr_storage storage;
    socklen_t size;
    int protocol; /* for socket(2) */
};

struct address_list {
    struct socket_address *items;
    unsigned count;
};
void address_list_done(struct address_list list);
AUTO_DEFINE(address_list, struct address_list, address_list_done)

/* The addresses of a unix, inet or vsock endpoint, at least one; `passive`: for listening. */
bool CO_FN co_endpoint_resolve(const struct socket_endpoint *endpoint, bool passive, struct address_list *ret,
                               struct error **err) MUST_CHECK;

/* What error messages call the endpoint; owned. */
char *endpoint_name(const struct socket_endpoint *endpoint);

/* A new socket for `address`: close-on-exec, non-blocking; or -errno. */
int address_socket(const struct socket_address *address);

/* The host as digits. */
void address_host(const struct socket_address *address, char host[NI_MAXHOST]);

/* Sets what every connected socket of ours has: TCP_NODELAY, and SO_KEEPALIVE where wanted. */
void socket_prepare_connected(int fd, const struct socket_keep_alive *keep_alive);

/* For descriptors that others have made: close-on-exec and, where connected, non-blocking. */
void fd_set_close_on_exec(int fd);
void fd_set_nonblocking(int fd);
