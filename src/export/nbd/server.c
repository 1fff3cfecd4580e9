/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Listens, and takes connections in as long as there are places; the others wait in the kernel's queue, not greeted. */
#include "export/nbd/server.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "base/units.h"
#include "block/handle.h"
#include "export/export.h"
#include "export/nbd/nbd.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "object/object.h"
#include "object/tls-creds.h"
#include "schema/socket-address.h"

/* Who waits for a place should not be turned away by the system: it cuts this to its own limit. */
enum { BACKLOG = 4096, RETRY_MS = 100, DRAIN_AGAIN_MS = 50 };
enum { SEND_AHEAD_BYTES = 512 * 1024 }; /* more of it did not help any further, and is memory of the kernel's */

static void CO_FN co_accept_clients(void *opaque)
{
    struct nbd_server *server = opaque;

    while (!co_cancelled()) {
        int fd;

        if (server->connections_max && server->clients->len >= server->connections_max) {
            (void)!co_condition_wait(&server->left, NULL);
            continue;
        }
        fd = co_socket_listener_accept(server->listener);
        if (fd >= 0) {
            socket_widen(fd, SEND_AHEAD_BYTES);
            nbd_client_start(server, fd);
        } else if (fd != -ECANCELED && fd != -ECONNABORTED && fd != -EINTR) {
            /* No descriptors or no memory: there may be some when a client has left. */
            TRACE(nbd_accept_failed, "%d", fd);
            (void)!co_sleep_ns(RETRY_MS * NS_PER_MS);
        }
    }
}

static bool server_set_options(struct nbd_server *server, const struct nbd_server_options *options, struct error **err)
{
    server->connections_max = options->has_max_connections ? options->max_connections : NBD_CONNECTIONS_DEFAULT;
    server->handshake_seconds =
        options->has_handshake_max_seconds ? options->handshake_max_seconds : NBD_HANDSHAKE_SECONDS_DEFAULT;
    server->tls_authz = g_strdup(options->tls_authz);
    if (!options->tls_creds)
        return true;
    server->tls_creds = tls_creds_hold(server->objects, options->tls_creds, Q_CRYPTO_TLS_CREDS_ENDPOINT_SERVER, err);
    return server->tls_creds;
}

struct nbd_server *co_nbd_server_new(struct object_registry *objects, const struct nbd_server_options *options,
                                     struct error **err)
{
    struct nbd_server *server = g_new0(struct nbd_server, 1);
    struct socket_endpoint endpoint;

    server->objects = objects;
    server->loop = loop_current();
    server->exports = g_ptr_array_new();
    server->clients = g_ptr_array_new();
    if (server_set_options(server, options, err) && socket_address_endpoint(options->addr, &endpoint, err))
        server->listener = co_socket_listen(&endpoint, BACKLOG, err);
    if (!server->listener) {
        nbd_server_free(server);
        return NULL;
    }
    server->acceptor = co_task_start(server->loop, co_accept_clients, server);
    TRACE(nbd_server_start, "%s", socket_listener_address(server->listener));
    return server;
}

void co_nbd_wait_for_client(struct co_condition *gone)
{
    struct co_deadline deadline;

    co_deadline_begin(&deadline, DRAIN_AGAIN_MS * NS_PER_MS);
    if (co_condition_wait(gone, NULL) == -ECANCELED)
        co_condition_wait_always(gone, NULL);
    co_deadline_end(&deadline);
}

void co_nbd_server_close(struct nbd_server *server)
{
    server->stopping = true;
    if (server->acceptor)
        co_task_cancel(server->acceptor);
    co_task_join(TAKE(server->acceptor));
    socket_listener_free(TAKE(server->listener));
    for (unsigned i = 0; i < server->clients->len; i++)
        nbd_client_drop(g_ptr_array_index(server->clients, i));
    while (server->clients->len) {
        /* An export that is taken down meanwhile has left the list first, and waits for the drain. */
        for (unsigned i = 0; i < server->exports->len; i++)
            co_handle_drain(((struct nbd_export *)g_ptr_array_index(server->exports, i))->handle);
        co_nbd_wait_for_client(&server->left);
    }
}

void nbd_server_free(struct nbd_server *server)
{
    if (!server)
        return;
    assert(!server->acceptor && !server->listener);
    assert(!server->clients->len);
    assert(!server->exports->len);
    g_ptr_array_unref(server->clients);
    g_ptr_array_unref(server->exports);
    object_release(server->tls_creds);
    g_free(server->tls_authz);
    co_condition_done(&server->left);
    g_free(server);
}

void nbd_server_watch(struct nbd_server *server, void (*idle)(void *opaque), void *opaque)
{
    server->idle = idle;
    server->idle_opaque = opaque;
}

const char *nbd_server_address(const struct nbd_server *server)
{
    return socket_listener_address(server->listener);
}

struct nbd_export *nbd_server_find_export(struct nbd_server *server, const char *name, size_t length)
{
    for (unsigned i = 0; i < server->exports->len; i++) {
        struct nbd_export *export = g_ptr_array_index(server->exports, i);

        if (strlen(export->name) == length && !memcmp(export->name, name, length))
            return export;
    }
    return NULL;
}
