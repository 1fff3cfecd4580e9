/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a socket chardev's options lay on top of its connections: TLS, WebSocket, telnet. Private to this folder. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "gen/types.h"

struct chardev;
struct error;
struct object;
struct stream;

struct socket_layers {
    struct chardev *chardev;
    struct object *tls_creds; /* held; NULL: no TLS */
    const char *tls_authz;    /* of the options, as are the next; NULL: everybody may come in */
    const char *tls_host;     /* what a server's certificate has to name; NULL: anything */
    char *host;               /* what a WebSocket server is called */
    bool server;
    bool websocket;
    bool telnet; /* or tn3270 */
    bool tn3270;
};

/* Checks the options, which must stay, and holds the credentials. Zero-filled memory may be handed to done(), too. */
bool socket_layers_init(struct socket_layers *layers, struct chardev *chardev, const struct chardev_socket *options,
                        struct error **err) MUST_CHECK;
void socket_layers_done(struct socket_layers *layers);

/* Whether there are any. */
bool socket_layers_any(const struct socket_layers *layers);

/* "tcp", "telnet" or "websocket". */
const char *socket_layers_protocol(const struct socket_layers *layers);

/* The stream over a new connection, once all have shaken hands. Takes `fd`. */
struct stream *CO_FN co_socket_layers_new(const struct socket_layers *layers, int fd, struct error **err) MUST_CHECK;

/* `stream` is one that co_socket_layers_new() made. Without telnet there is no such thing: nothing is done. */
int CO_FN co_socket_layers_send_break(const struct socket_layers *layers, struct stream *stream);
