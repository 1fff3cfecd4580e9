/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The life of a connection: handshake on the main loop, requests on the export's loop, the end on the main loop again.
 *
 * Keeps: (1) a client is in server->clients from its start to its end, and in export->clients from its choice of an
 * export to its end; (2) who finds it there, on the main loop, may cancel its task; (3) it leaves the lists with
 * nothing of it running any more, so that who waits for them to be empty may free server, export and handle.
 */
#include <assert.h>
#include <stdio.h>

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "base/units.h"
#include "export/nbd/nbd.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "loop/stream.h"

enum { GOODBYE_SECONDS = 2 };

static bool CO_FN co_do_handshake(struct nbd_client *client)
{
    struct co_deadline deadline;
    AUTO(error) error = NULL;
    enum nbd_handshake outcome;

    if (client->server->handshake_seconds)
        co_deadline_begin(&deadline, client->server->handshake_seconds * NS_PER_S);
    outcome = co_nbd_handshake(client, &error);
    if (client->server->handshake_seconds)
        co_deadline_end(&deadline);
    if (outcome == NBD_HANDSHAKE_FAILED && !co_cancelled())
        log_warning("NBD client (%s) dropped during the handshake: %s", client->peer, error_message(error));
    return outcome == NBD_HANDSHAKE_DONE;
}

/* On whatever loop the stream was used last. */
static void CO_FN co_close_stream(struct nbd_client *client)
{
    struct co_deadline deadline;

    if (!client->stream)
        return;
    co_deadline_begin(&deadline, GOODBYE_SECONDS * NS_PER_S);
    if (!client->broken)
        co_stream_shutdown(client->stream);
    co_deadline_end(&deadline);
    stream_free(TAKE(client->stream));
}

static void nbd_client_free(struct nbd_client *client)
{
    struct nbd_server *server = client->server;

    assert(loop_current() == server->loop);
    assert(!client->stream);
    if (client->export) {
        g_ptr_array_remove_fast(client->export->clients, client);
        co_condition_broadcast(&client->export->idle);
    }
    g_ptr_array_remove_fast(server->clients, client);
    co_condition_broadcast(&server->left);
    if (client->export && !server->clients->len && server->idle)
        server->idle(server->idle_opaque);
    co_condition_done(&client->room);
    co_task_detach(client->task);
    TRACE(nbd_client_end, "client %p", (void *)client);
    g_free(client->peer);
    g_free(client);
}

static void nbd_client_run(void *opaque)
{
    struct nbd_client *client = opaque;

    if (co_do_handshake(client)) {
        client->loop = nbd_export_pick_loop(client->export);
        co_move_to(client->loop);
        co_nbd_receive(client);
    }
    co_close_stream(client);
    co_move_to(client->server->loop);
    nbd_client_free(client);
}

void nbd_client_start(struct nbd_server *server, int fd)
{
    struct nbd_client *client = g_new0(struct nbd_client, 1);

    assert(loop_current() == server->loop);
    client->server = server;
    client->peer = socket_peer_name(fd);
    client->stream = stream_new_socket(fd);
    client->terms = (struct nbd_terms){.mode = NBD_MODE_SIMPLE, .min_block = 1};
    client->allowance.budget = &server->budget;
    client->replies_end = &client->replies_first;
    g_ptr_array_add(server->clients, client);
    TRACE(nbd_client_start, "client %p of %s", (void *)client, client->peer);
    client->task = co_task_start(server->loop, nbd_client_run, client);
}

void nbd_client_drop(struct nbd_client *client)
{
    assert(loop_current() == client->server->loop);
    co_task_cancel(client->task);
}
