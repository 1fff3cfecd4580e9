/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The whole server with the program that clients call, on sockets; the storage is one volume in memory. */
#include "pool/rpc/server.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "loop/stream.h"
#include "pool/daemon.h"
#include "pool/log.h"
#include "pool/polkit.h"
#include "pool/pool-error.h"
#include "pool/rpc/client.h"
#include "pool/rpc/packet.h"
#include "pool/rpc/remote-events.h"
#include "pool/rpc/remote.h"
#include "pool/rpc/storage-fake-test.h"
#include "pool/rpc/xdr.h"

enum {
    OPEN = 1,
    CLOSE = 2,
    SUPPORTS_FEATURE = 60,
    POOL_DEFINE_XML = 77,
    POOL_REFRESH = 83,
    POOL_LOOKUP = 84,
    SECRET_SET_VALUE = 144,
    UPLOAD = 208,
    DOWNLOAD = 209,
    POOL_EVENT_REGISTER = 368,
};

struct bench {
    struct pool_daemon daemon;
    struct stream *client; /* our end of the connection */
    uint32_t serial;
    struct rpc_header header; /* of the packet that came last */
    uint8_t *body;
    size_t size;
};

/* --- a client --- */

static void send_packet(struct bench *bench, struct rpc_header header, const void *body, size_t size)
{
    g_autofree uint8_t *packet = g_malloc(RPC_HEADER_SIZE + size);

    header.length = (uint32_t)(RPC_HEADER_SIZE + size);
    rpc_header_encode(&header, packet);
    if (size)
        memcpy(packet + RPC_HEADER_SIZE, body, size);
    g_assert_cmpint(co_stream_write(bench->client, packet, header.length), ==, 0);
}

static struct rpc_header call_header(struct bench *bench, int32_t procedure)
{
    return (struct rpc_header){
        .program = RPC_PROGRAM_REMOTE, .version = RPC_VERSION, .procedure = procedure, .serial = bench->serial++};
}

static uint32_t send_call(struct bench *bench, int32_t procedure, const char *layout, const union rpc_value *values)
{
    struct rpc_header header = call_header(bench, procedure);
    g_autoptr(GByteArray) body = g_byte_array_new();

    rpc_values_encode(layout, values, body);
    send_packet(bench, header, body->data, body->len);
    return header.serial;
}

static void receive(struct bench *bench)
{
    uint8_t bytes[RPC_HEADER_SIZE];

    g_assert_cmpint(co_stream_read_exact(bench->client, bytes, sizeof(bytes)), ==, 0);
    rpc_header_decode(&bench->header, bytes);
    g_free(bench->body);
    bench->size = bench->header.length - RPC_HEADER_SIZE;
    bench->body = g_malloc(bench->size + 1);
    g_assert_cmpint(co_stream_read_exact(bench->client, bench->body, bench->size), ==, 0);
}

static bool is_closed(struct bench *bench)
{
    uint8_t byte;

    return co_stream_read(bench->client, &byte, 1) <= 0;
}

/* The reply came with this error, whose text begins like that. */
static void expect_error(struct bench *bench, uint32_t code, uint32_t domain, const char *text)
{
    struct xdr_reader reader = {bench->body, bench->size};
    g_autofree char *message = NULL;
    uint32_t value;

    g_assert_cmpuint(bench->header.status, ==, RPC_ERROR);
    g_assert_true(xdr_get_u32(&reader, &value));
    g_assert_cmpuint(value, ==, code);
    g_assert_true(xdr_get_u32(&reader, &value));
    g_assert_cmpuint(value, ==, domain);
    g_assert_true(xdr_get_optional_string(&reader, &message));
    if (!g_str_has_prefix(message, text))
        g_assert_cmpstr(message, ==, text);
}

static void expect_ok(struct bench *bench, uint32_t serial)
{
    g_assert_cmpuint(bench->header.type, ==, RPC_REPLY);
    g_assert_cmpuint(bench->header.serial, ==, serial);
    g_assert_cmpuint(bench->header.status, ==, RPC_OK);
}

static void connect_client(struct bench *bench, const struct rpc_socket_options *options)
{
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), ==, 0);
    bench->client = stream_new_socket(fds[0]);
    rpc_client_start(bench->daemon.main, fds[1], options);
}

static void open_connection(struct bench *bench)
{
    char uri[] = "storage:///system";
    union rpc_value values[] = {{.string = uri}, {.u = 0}};
    uint32_t serial = send_call(bench, OPEN, "nu", values);

    receive(bench);
    expect_ok(bench, serial);
}

static uint32_t send_lookup(struct bench *bench, const char *name)
{
    g_autofree char *copy = g_strdup(name);
    union rpc_value value = {.string = copy};

    return send_call(bench, POOL_LOOKUP, "s", &value);
}

static uint32_t send_refresh(struct bench *bench)
{
    struct pool_id pool = {.name = g_strdup("p")};
    union rpc_value values[] = {{.pool = &pool}, {.u = 0}};
    uint32_t serial;

    memset(pool.uuid, 0x11, sizeof(pool.uuid));
    serial = send_call(bench, POOL_REFRESH, "pu", values);
    g_free(pool.name);
    return serial;
}

/* --- the server's side --- */

static struct storage *storage_of(struct bench *bench)
{
    return bench->daemon.storage;
}

static void start(struct bench *bench, unsigned requests_max, unsigned workers_max)
{
    struct rpc_server_options options = {
        .name = "test",
        .program = &remote_program,
        .opaque = &bench->daemon,
        .clients_max = 10,
        .anonymous_max = 10,
        .requests_max = requests_max,
        .workers_min = 1,
        .workers_max = workers_max,
    };

    pool_log_set_level(POOL_LOG_ERROR);
    g_assert_true(pool_log_set_outputs("4:file:/dev/null", NULL));
    *bench = (struct bench){.daemon = {.privileged = true}};
    bench->daemon.storage = fake_storage_new();
    bench->daemon.events = remote_events_new();
    remote_events_listen(bench->daemon.events, bench->daemon.storage);
    bench->daemon.main = rpc_server_new(&options);
}

static void stop(struct bench *bench)
{
    co_rpc_server_stop(bench->daemon.main);
    rpc_server_free(bench->daemon.main);
    remote_events_free(bench->daemon.events);
    storage_free(bench->daemon.storage);
    stream_free(bench->client);
    g_free(bench->body);
    pool_log_close();
}

static void begin(struct bench *bench)
{
    start(bench, 5, 20);
    connect_client(bench, &(struct rpc_socket_options){0});
    open_connection(bench);
}

/* --- tests --- */

static void co_test_calls(void *opaque)
{
    struct bench bench;

    begin(&bench);
    uint32_t serial = send_lookup(&bench, "p");
    receive(&bench);
    expect_ok(&bench, serial);
    g_assert_cmpmem(bench.body, bench.size,
                    "\0\0\0\1p\0\0\0\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11", 24);
    send_lookup(&bench, "none");
    receive(&bench);
    expect_error(&bench, 49, 18, "Storage pool not found: no storage pool with matching name 'none'");
    send_call(&bench, CLOSE, "", NULL);
    receive(&bench);
    g_assert_true(is_closed(&bench));
    stop(&bench);
}

static void co_test_refused(void *opaque)
{
    struct rpc_header header;
    struct bench bench;

    start(&bench, 5, 20);
    connect_client(&bench, &(struct rpc_socket_options){.read_only = true});
    send_lookup(&bench, "p");
    receive(&bench);
    expect_error(&bench, 1, 7, "internal error: connection not open");
    send_call(&bench, 3, "", NULL);
    receive(&bench);
    expect_error(&bench, 1, 7, "internal error: hypervisor connection not open");
    open_connection(&bench);
    send_refresh(&bench);
    receive(&bench);
    expect_error(&bench, 29, 18, "operation forbidden: read only access prevents virStoragePoolRefresh");
    send_call(&bench, 4, "", NULL);
    receive(&bench);
    expect_error(&bench, 3, 20, "this function is not supported by the connection driver: virConnectGetVersion");
    send_call(&bench, 370, "", NULL);
    receive(&bench);
    expect_error(&bench, 39, 7, "unknown procedure: 370");
    send_call(&bench, POOL_LOOKUP, "", NULL);
    receive(&bench);
    expect_error(&bench, 39, 7, "Unable to decode message payload");
    header = call_header(&bench, POOL_LOOKUP);
    header.status = RPC_CONTINUE;
    send_packet(&bench, header, NULL, 0);
    receive(&bench);
    expect_error(&bench, 39, 7, "Unexpected message status 2");
    header = call_header(&bench, POOL_LOOKUP);
    header.program = 5;
    send_packet(&bench, header, NULL, 0);
    receive(&bench);
    expect_error(&bench, 39, 7, "Cannot find program 5 version 1");
    g_assert_cmpuint(bench.header.program, ==, 5);
    stop(&bench);
}

/* Who has not said who it is may not do anything else. */
static void co_test_anonymous(void *opaque)
{
    struct bench bench;

    start(&bench, 5, 20);
    connect_client(&bench, &(struct rpc_socket_options){.auth = RPC_AUTH_POLKIT});
    g_assert_cmpuint(bench.daemon.main->anonymous, ==, 1);
    send_lookup(&bench, "p");
    receive(&bench);
    expect_error(&bench, 39, 7, "authentication required");
    stop(&bench);
}

/* Whoever does not say who it is within its time makes room for others; whoever has said it may be silent. */
static void co_test_patience(void *opaque)
{
    struct bench bench;
    struct rpc_client *client;

    start(&bench, 5, 20);
    bench.daemon.main->anonymous_s = 3600;
    connect_client(&bench, &(struct rpc_socket_options){.auth = RPC_AUTH_SASL});
    client = bench.daemon.main->clients->pdata[0];
    g_assert_cmpint(client->anonymous_until_ns, >, loop_now_ns());
    client->anonymous_until_ns = loop_now_ns();
    g_assert_true(is_closed(&bench));
    stream_free(bench.client);

    connect_client(&bench, &(struct rpc_socket_options){.auth = RPC_AUTH_SASL});
    client = bench.daemon.main->clients->pdata[0];
    client->anonymous_until_ns = loop_now_ns();
    rpc_client_set_authenticated(client);
    open_connection(&bench);
    stop(&bench);
}

/* A slow call does not hold up others, and replies come as they are ready. */
static void co_test_any_order(void *opaque)
{
    struct bench bench;

    begin(&bench);
    storage_of(&bench)->gate_shut = true;
    uint32_t slow = send_refresh(&bench);
    uint32_t quick = send_lookup(&bench, "p");
    receive(&bench);
    expect_ok(&bench, quick);
    fake_storage_open_gate(storage_of(&bench));
    receive(&bench);
    expect_ok(&bench, slow);
    stop(&bench);
}

/* More requests than a client may have in flight are not read; signs of life are. */
static void co_test_request_limit(void *opaque)
{
    struct rpc_header ping = {
        .program = RPC_PROGRAM_KEEPALIVE, .version = RPC_VERSION, .procedure = RPC_KEEPALIVE_PING, .type = RPC_MESSAGE};
    struct bench bench;

    start(&bench, 2, 20);
    connect_client(&bench, &(struct rpc_socket_options){0});
    open_connection(&bench);
    storage_of(&bench)->gate_shut = true;
    send_refresh(&bench);
    send_refresh(&bench);
    send_packet(&bench, ping, NULL, 0);
    receive(&bench);
    g_assert_cmpuint(bench.header.program, ==, RPC_PROGRAM_KEEPALIVE);
    g_assert_cmpint(bench.header.procedure, ==, RPC_KEEPALIVE_PONG);
    send_refresh(&bench);
    uint32_t quick = send_lookup(&bench, "p");
    for (int i = 0; i < 100; i++)
        co_yield ();
    g_assert_cmpuint(storage_of(&bench)->waiting, ==, 2);
    fake_storage_open_gate(storage_of(&bench));
    for (int i = 0; i < 3; i++)
        receive(&bench);
    receive(&bench);
    g_assert_cmpuint(bench.header.serial, <=, quick);
    stop(&bench);
}

/* With one worker calls wait for each other, but priority calls have another. */
static void co_test_workers(void *opaque)
{
    struct bench bench;

    start(&bench, 5, 1);
    connect_client(&bench, &(struct rpc_socket_options){0});
    open_connection(&bench);
    storage_of(&bench)->gate_shut = true;
    send_refresh(&bench);
    send_refresh(&bench);
    uint32_t quick = send_lookup(&bench, "p");
    for (int i = 0; i < 100; i++)
        co_yield ();
    g_assert_cmpuint(storage_of(&bench)->waiting, ==, 1);
    g_assert_cmpuint(bench.daemon.main->workers.queued, ==, 2);
    rpc_workers_configure(&bench.daemon.main->workers, 1, 1, 1);
    receive(&bench);
    expect_ok(&bench, quick);
    fake_storage_open_gate(storage_of(&bench));
    receive(&bench);
    receive(&bench);
    g_assert_cmpuint(bench.daemon.main->workers.busy, ==, 0);
    stop(&bench);
}

static void co_test_events(void *opaque)
{
    union rpc_value all[] = {{.i = 0}, {.pool = NULL}};
    union rpc_value wrong[] = {{.i = 2}, {.pool = NULL}};
    g_autofree char *xml = g_strdup("<pool/>");
    union rpc_value define[] = {{.string = xml}, {.u = 0}};
    struct bench bench;

    begin(&bench);
    send_call(&bench, POOL_EVENT_REGISTER, "iq", wrong);
    receive(&bench);
    expect_error(&bench, 1, 7, "internal error: unsupported storage pool event ID 2");
    send_call(&bench, POOL_EVENT_REGISTER, "iq", all);
    receive(&bench);
    send_call(&bench, POOL_EVENT_REGISTER, "iq", all);
    receive(&bench);
    g_assert_cmpuint(load_be32(bench.body), ==, 1);
    send_call(&bench, POOL_DEFINE_XML, "su", define);
    for (uint32_t i = 0; i < 2; i++) {
        receive(&bench);
        g_assert_cmpuint(bench.header.type, ==, RPC_MESSAGE);
        g_assert_cmpint(bench.header.procedure, ==, 370);
        g_assert_cmpuint(load_be32(bench.body), ==, i);
    }
    receive(&bench);
    g_assert_cmpuint(bench.header.type, ==, RPC_REPLY);
    stop(&bench);
}

/* Where polkit does not say whether a client may know of them, events do not wait without end. */
static void co_test_events_that_wait(void *opaque)
{
    union rpc_value all[] = {{.i = 1}, {.pool = NULL}};
    g_autofree char *folder = g_dir_make_tmp("ashlar-bus-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(folder, "bus", NULL);
    g_autofree char *address = g_strdup_printf("unix:path=%s", path);
    struct socket_endpoint endpoint = {.family = SOCKET_UNIX, .path = path};
    struct socket_listener *mute = co_socket_listen(&endpoint, 10, NULL);
    struct pool_id pool = {.name = path};
    struct storage_listener *listener;
    struct bench bench;
    unsigned told = 0;

    g_assert_nonnull(mute);
    g_setenv("DBUS_SYSTEM_BUS_ADDRESS", address, TRUE);
    begin(&bench);
    send_call(&bench, POOL_EVENT_REGISTER, "iq", all);
    receive(&bench);
    bench.daemon.polkit = bench.daemon.access = polkit_new();
    co_remote_access_begin(bench.daemon.main->clients->pdata[0]);
    listener = storage_of(&bench)->listener;
    while (bench.daemon.main->clients->len && told < 100000) {
        listener->refreshed(listener, &pool);
        told++;
    }
    g_assert_cmpuint(bench.daemon.main->clients->len, ==, 0);
    g_assert_cmpuint(told, >, 1000);
    socket_listener_free(mute);
    stop(&bench);
    polkit_free(bench.daemon.polkit);
    g_rmdir(folder);
}

/* --- streams --- */

static struct rpc_header open_stream(struct bench *bench, int32_t procedure, uint64_t length, unsigned flags)
{
    struct volume_id volume = {.pool = g_strdup("p"), .name = g_strdup("v"), .key = g_strdup("k")};
    union rpc_value values[] = {{.volume = &volume}, {.h = 0}, {.h = length}, {.u = flags}};
    struct rpc_header header;

    send_call(bench, procedure, "vhhu", values);
    g_free(volume.pool);
    g_free(volume.name);
    g_free(volume.key);
    receive(bench);
    g_assert_cmpuint(bench->header.status, ==, RPC_OK);
    header = bench->header;
    header.type = RPC_STREAM;
    return header;
}

static void send_stream(struct bench *bench, struct rpc_header header, enum rpc_status status, const void *data,
                        size_t size)
{
    header.status = status;
    send_packet(bench, header, data, size);
}

static void co_test_upload(void *opaque)
{
    enum { PIECES = 20 };
    g_autofree uint8_t *data = g_malloc(RPC_STREAM_CHUNK);
    struct bench bench;

    begin(&bench);
    struct rpc_header header = open_stream(&bench, UPLOAD, 0, 1);
    for (int i = 0; i < PIECES; i++) {
        memset(data, 'a' + i, RPC_STREAM_CHUNK);
        send_stream(&bench, header, RPC_CONTINUE, data, RPC_STREAM_CHUNK);
    }
    send_stream(&bench, header, RPC_CONTINUE, NULL, 0);
    header.type = RPC_STREAM_HOLE;
    send_stream(&bench, header, RPC_CONTINUE, "\0\0\0\0\0\0\x10\0\0\0\0\0", 12);
    header.type = RPC_STREAM;
    send_stream(&bench, header, RPC_OK, NULL, 0);
    receive(&bench);
    g_assert_cmpuint(bench.header.type, ==, RPC_STREAM);
    g_assert_cmpuint(bench.header.status, ==, RPC_OK);
    g_assert_cmpuint(storage_of(&bench)->closed, ==, 1);
    g_assert_cmpuint(storage_of(&bench)->content->len, ==, PIECES * RPC_STREAM_CHUNK + 4096);
    for (int i = 0; i < PIECES; i++) {
        const uint8_t *piece = storage_of(&bench)->content->data + i * RPC_STREAM_CHUNK;
        g_assert_cmpuint(piece[0], ==, 'a' + i);
        g_assert_cmpuint(piece[RPC_STREAM_CHUNK - 1], ==, 'a' + i);
    }
    stop(&bench);
}

static void co_test_upload_refused(void *opaque)
{
    static const uint8_t data[100] = {0};
    struct bench bench;

    begin(&bench);
    struct rpc_header header = open_stream(&bench, UPLOAD, 50, 0);
    send_stream(&bench, header, RPC_CONTINUE, data, sizeof(data));
    receive(&bench);
    g_assert_cmpuint(bench.header.type, ==, RPC_STREAM);
    expect_error(&bench, 38, 18, "cannot write to stream: No space left on device");
    send_stream(&bench, header, RPC_CONTINUE, data, sizeof(data));

    header = open_stream(&bench, UPLOAD, 0, 0);
    header.type = RPC_STREAM_HOLE;
    send_stream(&bench, header, RPC_CONTINUE, "\0\0\0\0\0\0\x10\0\0\0\0\0", 12);
    receive(&bench);
    expect_error(&bench, 39, 7, "Unexpected stream hole");

    header = open_stream(&bench, UPLOAD, 0, 0);
    send_stream(&bench, header, RPC_ERROR, NULL, 0);
    receive(&bench);
    g_assert_cmpuint(bench.header.status, ==, RPC_OK);
    g_assert_cmpuint(storage_of(&bench)->closed, ==, 3);
    stop(&bench);
}

static void co_test_download(void *opaque)
{
    enum { SIZE = 1 << 20, HOLE = 300000 };
    uint64_t holes = 0;
    struct bench bench;
    size_t got = 0;

    begin(&bench);
    g_byte_array_set_size(storage_of(&bench)->content, SIZE);
    memset(storage_of(&bench)->content->data, 'x', SIZE);
    memset(storage_of(&bench)->content->data + HOLE, 0, HOLE);
    struct rpc_header header = open_stream(&bench, DOWNLOAD, 0, 1);
    for (;;) {
        receive(&bench);
        g_assert_cmpuint(bench.header.status, ==, RPC_CONTINUE);
        if (bench.header.type == RPC_STREAM_HOLE) {
            g_assert_cmpuint(got, ==, HOLE);
            holes += load_be64(bench.body);
            got += load_be64(bench.body);
            continue;
        }
        if (!bench.size)
            break;
        g_assert_cmpmem(bench.body, bench.size, storage_of(&bench)->content->data + got, bench.size);
        got += bench.size;
    }
    g_assert_cmpuint(got, ==, SIZE);
    g_assert_cmpuint(holes, ==, HOLE);
    send_stream(&bench, header, RPC_OK, NULL, 0);
    receive(&bench);
    g_assert_cmpuint(bench.header.status, ==, RPC_OK);
    g_assert_cmpuint(storage_of(&bench)->closed, ==, 1);
    stop(&bench);
}

/* The connection ends while streams are open. */
static void co_test_vanish(void *opaque)
{
    static const uint8_t data[5000] = {0};
    struct bench bench;

    begin(&bench);
    g_byte_array_set_size(storage_of(&bench)->content, 4 << 20);
    send_stream(&bench, open_stream(&bench, UPLOAD, 0, 0), RPC_CONTINUE, data, sizeof(data));
    open_stream(&bench, DOWNLOAD, 0, 0);
    stream_abort(bench.client);
    while (bench.daemon.main->clients->len || storage_of(&bench)->closed < 2)
        co_yield ();
    stop(&bench);
}

/* A client cannot take all descriptors of the daemon; those that it gives back are for it again. */
static void co_test_streams_at_once(void *opaque)
{
    enum { STREAMS = 64 };
    struct volume_id volume = {.pool = g_strdup("p"), .name = g_strdup("v"), .key = g_strdup("k")};
    union rpc_value values[] = {{.volume = &volume}, {.h = 0}, {.h = 0}, {.u = 0}};
    struct rpc_header last;
    struct bench bench;

    begin(&bench);
    for (int i = 0; i < STREAMS; i++)
        last = open_stream(&bench, UPLOAD, 0, 0);
    send_call(&bench, DOWNLOAD, "vhhu", values);
    receive(&bench);
    expect_error(&bench, 1, 7, "internal error: too many streams on one connection (at most 64)");
    send_stream(&bench, last, RPC_OK, NULL, 0);
    receive(&bench);
    g_assert_cmpuint(bench.header.type, ==, RPC_STREAM);
    open_stream(&bench, UPLOAD, 0, 0);
    stop(&bench);
    g_free(volume.pool);
    g_free(volume.name);
    g_free(volume.key);
}

static void CO_FN co_stop_server(void *server)
{
    co_rpc_server_stop(server);
}

/* When the server stops, who waits for an answer gets it, and who asks for more is refused. */
static void co_test_stop(void *opaque)
{
    struct bench bench;
    struct co_task *task;

    begin(&bench);
    storage_of(&bench)->gate_shut = true;
    uint32_t slow = send_refresh(&bench);
    while (!storage_of(&bench)->waiting)
        co_yield ();
    task = co_task_start(loop_current(), co_stop_server, bench.daemon.main);
    while (!bench.daemon.main->stopping)
        co_yield ();
    send_lookup(&bench, "p");
    receive(&bench);
    expect_error(&bench, 78, 7, "operation aborted: the daemon is about to end");
    fake_storage_open_gate(storage_of(&bench));
    receive(&bench);
    expect_ok(&bench, slow);
    g_assert_true(is_closed(&bench));
    co_task_join(task);
    stop(&bench);
}

/* So it is with streams, in both directions; one that is not read is not waited for. */
static void co_test_stop_streams(void *opaque)
{
    static const int32_t procedures[] = {UPLOAD, DOWNLOAD};

    for (size_t i = 0; i < G_N_ELEMENTS(procedures); i++) {
        struct bench bench;
        struct co_task *task;

        begin(&bench);
        open_stream(&bench, procedures[i], 0, 0);
        task = co_task_start(loop_current(), co_stop_server, bench.daemon.main);
        do
            receive(&bench);
        while (bench.header.status == RPC_CONTINUE);
        g_assert_cmpuint(bench.header.type, ==, RPC_STREAM);
        expect_error(&bench, 78, 7, "operation aborted: the daemon is about to end");
        g_assert_true(is_closed(&bench));
        co_task_join(task);
        g_assert_cmpuint(storage_of(&bench)->closed, ==, 1);
        stop(&bench);
    }
}

/* The value of a secret is not in the connection's memory once the call has been read. */
static void co_test_confidential(void *opaque)
{
    static const char value[] = "nobody-is-to-see-this";
    struct rpc_bytes *bytes = rpc_bytes_new(value, sizeof(value));
    struct secret_id secret = {.usage = g_strdup("u")};
    union rpc_value values[] = {{.secret = &secret}, {.bytes = bytes}, {.u = 0}};
    const struct rpc_client *client;
    struct bench bench;

    begin(&bench);
    send_call(&bench, SECRET_SET_VALUE, "xbu", values);
    receive(&bench);
    client = bench.daemon.main->clients->pdata[0];
    g_assert_nonnull(client->input.data);
    g_assert_null(memmem(client->input.data, client->input.capacity, value, sizeof(value)));
    stop(&bench);
    g_free(secret.usage);
    rpc_values_free("b", &values[1]);
}

/* Lengths that cannot be end the connection; ones that can cost nothing until the bytes come. */
static void co_test_lengths(void *opaque)
{
    static const char *const lengths[] = {"\0\0\0\0", "\0\0\0\3", "\0\0\0\x1b", "\2\0\0\5", "\xff\xff\xff\xff"};

    for (size_t i = 0; i < G_N_ELEMENTS(lengths); i++) {
        struct bench bench;

        begin(&bench);
        g_assert_cmpint(co_stream_write(bench.client, lengths[i], 4), ==, 0);
        g_assert_true(is_closed(&bench));
        stop(&bench);
    }

    struct bench bench;
    begin(&bench);
    g_assert_cmpint(co_stream_write(bench.client, "\2\0\0\4", 4), ==, 0);
    for (int i = 0; i < 20; i++)
        co_yield ();
    const struct rpc_client *client = bench.daemon.main->clients->pdata[0];
    g_assert_cmpuint(client->input.capacity, <=, 64 << 10);
    stop(&bench);
}

static void run_entry(const void *entry)
{
    struct loop *loop = loop_new(&(struct loop_options){0}, NULL);

    g_assert_nonnull(loop);
    co_run(loop, *(co_entry *const *)entry, NULL);
    loop_free(loop);
}

static void add(const char *name, co_entry *entry)
{
    g_autofree char *path = g_strdup_printf("/rpc-server/%s", name);

    g_test_add_data_func_full(path, g_memdup2(&entry, sizeof(entry)), (GTestDataFunc)run_entry, g_free);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add("calls", co_test_calls);
    add("refused", co_test_refused);
    add("anonymous", co_test_anonymous);
    add("patience", co_test_patience);
    add("any-order", co_test_any_order);
    add("request-limit", co_test_request_limit);
    add("workers", co_test_workers);
    add("events", co_test_events);
    add("events-that-wait", co_test_events_that_wait);
    add("upload", co_test_upload);
    add("upload-refused", co_test_upload_refused);
    add("download", co_test_download);
    add("vanish", co_test_vanish);
    add("streams-at-once", co_test_streams_at_once);
    add("stop", co_test_stop);
    add("stop-streams", co_test_stop_streams);
    add("confidential", co_test_confidential);
    add("lengths", co_test_lengths);
    return g_test_run();
}
