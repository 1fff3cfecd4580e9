/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The whole server over a socket: the input is all that a client sends, calls and streams alike, to the program that
 * everybody calls, or, where its first byte is odd, to that of administrators. The seed corpus was recorded from virsh
 * and virt-admin.
 */
#include <glib.h>
#include <sys/socket.h>

#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/stream.h"
#include "pool/daemon.h"
#include "pool/log.h"
#include "pool/rpc/admin.h"
#include "pool/rpc/client.h"
#include "pool/rpc/remote-events.h"
#include "pool/rpc/remote.h"
#include "pool/rpc/storage-fake-test.h"
#include "pool/secrets.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What the inputs share. */
static struct fixture {
    struct loop *loop;
    struct pool_daemon daemon;
} fixture = {.daemon = {.privileged = true}};

struct input {
    const uint8_t *data;
    size_t size;
    struct stream *stream;
};

static struct rpc_server *new_server(const char *name, const struct rpc_program *program)
{
    struct rpc_server_options options = {
        .name = name,
        .program = program,
        .opaque = &fixture.daemon,
        .clients_max = 10,
        .requests_max = 5,
        .workers_min = 1,
        .workers_max = 3,
        .workers_priority = 1,
    };

    return rpc_server_new(&options);
}

static void fixture_start(void *opaque)
{
    pool_log_set_filters("4:zork", NULL);
    pool_log_set_outputs("4:file:/dev/null", NULL);
    fixture.daemon.main = new_server("main", &remote_program);
    fixture.daemon.admin = new_server("admin", &admin_program);
    fixture.daemon.events = remote_events_new();
}

/* The server may hang up at any point, then there is nobody to send to. */
static void send_input(void *opaque)
{
    struct input *input = opaque;

    if (!co_stream_write(input->stream, input->data, input->size))
        co_stream_shutdown(input->stream);
}

static void run_input(void *opaque)
{
    struct secrets_options secrets = {.directory = "/dev/null/ashlar"};
    struct rpc_socket_options options = {0};
    struct input *input = opaque;
    bool administer = input->data[0] & 1;
    struct rpc_server *server = administer ? fixture.daemon.admin : fixture.daemon.main;
    struct co_task *sender;
    uint8_t scratch[4096];
    int fds[2];

    input->data++;
    input->size--;
    fixture.daemon.storage = fake_storage_new();
    fixture.daemon.secrets = pool_secrets_new(&secrets);
    remote_events_listen(fixture.daemon.events, fixture.daemon.storage);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), ==, 0);
    input->stream = stream_new_socket(fds[0]);
    rpc_client_start(server, fds[1], &options);
    sender = co_task_start(fixture.loop, send_input, input);
    while (co_stream_read(input->stream, scratch, sizeof(scratch)) > 0)
        continue;
    stream_abort(input->stream);
    co_task_join(sender);
    stream_free(input->stream);
    while (server->running)
        co_yield ();
    storage_free(fixture.daemon.storage);
    pool_secrets_free(fixture.daemon.secrets);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {.data = data, .size = size};

    if (!size)
        return 0;
    if (!fixture.loop) {
        fixture.loop = loop_new(&(struct loop_options){0}, NULL);
        g_assert_nonnull(fixture.loop);
        co_run(fixture.loop, fixture_start, NULL);
    }
    co_run(fixture.loop, run_input, &input);
    return 0;
}
