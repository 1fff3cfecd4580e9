/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a socket chardev's options lay on top of its connections: TLS lowest, then WebSocket, then telnet. */
#include "chardev/socket-layers.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "chardev/chardev-internal.h"
#include "chardev/telnet-stream.h"
#include "chardev/websocket-stream.h"
#include "loop/stream.h"
#include "object/object.h"
#include "object/tls-creds.h"

static bool layers_hold_creds(struct socket_layers *layers, const char *creds, struct error **err)
{
    enum q_crypto_tls_creds_endpoint endpoint =
        layers->server ? Q_CRYPTO_TLS_CREDS_ENDPOINT_SERVER : Q_CRYPTO_TLS_CREDS_ENDPOINT_CLIENT;

    layers->tls_creds = tls_creds_hold(layers->chardev->registry->objects, creds, endpoint, err);
    return layers->tls_creds;
}

/* The host and port of a URL. */
static char *inet_url_host(const struct inet_socket_address *inet)
{
    return g_strdup_printf(strchr(inet->host, ':') ? "[%s]:%s" : "%s:%s", inet->host, inet->port);
}

bool socket_layers_init(struct socket_layers *layers, struct chardev *chardev, const struct chardev_socket *options,
                        struct error **err)
{
    bool inet = options->addr->type == SOCKET_ADDRESS_TYPE_INET;

    *layers = (struct socket_layers){
        .chardev = chardev,
        .tls_authz = options->tls_authz,
        .server = !options->has_server || options->server,
        .websocket = options->has_websocket && options->websocket,
        .tn3270 = options->has_tn3270 && options->tn3270,
    };
    layers->telnet = layers->tn3270 || (options->has_telnet && options->telnet);
    if (options->tls_authz && !options->tls_creds)
        return error_set(err, "'tls_authz' option requires 'tls_creds' option");
    if (options->tls_authz && !layers->server)
        return error_set(err, "'tls_authz' option is for servers only");
    if (options->tls_creds && !layers_hold_creds(layers, options->tls_creds, err))
        return false;
    layers->tls_host = inet && !layers->server ? options->addr->u.inet.data->host : NULL;
    layers->host = inet ? inet_url_host(options->addr->u.inet.data) : g_strdup("localhost");
    return true;
}

void socket_layers_done(struct socket_layers *layers)
{
    object_release(layers->tls_creds);
    g_free(layers->host);
    *layers = (struct socket_layers){0};
}

bool socket_layers_any(const struct socket_layers *layers)
{
    return layers->tls_creds || layers->websocket || layers->telnet;
}

const char *socket_layers_protocol(const struct socket_layers *layers)
{
    if (layers->telnet && !layers->tn3270)
        return "telnet";
    return layers->websocket ? "websocket" : "tcp";
}

struct stream *co_socket_layers_new(const struct socket_layers *layers, int fd, struct error **err)
{
    struct telnet_role role = {.server = layers->server, .tn3270 = layers->tn3270};
    struct stream *stream = stream_new_socket(fd);

    if (layers->tls_creds)
        stream = co_tls_stream_new(stream, layers->tls_creds, layers->tls_host, layers->tls_authz, err);
    if (stream && layers->websocket)
        stream = layers->server ? co_websocket_stream_accept(stream, err)
                                : co_websocket_stream_connect(stream, layers->host, err);
    if (stream && layers->telnet) {
        stream = co_telnet_stream_new(stream, &role, layers->chardev);
        if (!stream)
            error_set_errno(err, ECONNRESET, "telnet");
    }
    return stream;
}

int co_socket_layers_send_break(const struct socket_layers *layers, struct stream *stream)
{
    return layers->telnet ? co_telnet_stream_send_break(stream) : 0;
}
