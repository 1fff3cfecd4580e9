/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The server on disks in memory that fail on demand: clients in the same loop talk to it over a socket. */
#include "export/export.h"

#include <assert.h>
#include <glib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "block/memory-disk-test.h"
#include "export/nbd/protocol.h"
#include "gen/types.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "loop/stream.h"
#include "object/object.h"
#include "schema/event.h"
#include "schema/json.h"

enum { SIZE = 1024 * 1024 };

static unsigned deleted_events;

static void count_event(struct event_sink *sink, const char *name, struct json *data)
{
    g_assert_cmpstr(name, ==, "BLOCK_EXPORT_DELETED");
    deleted_events++;
    json_free(data);
}

static struct event_sink sink = {.send = count_event};

/* A daemon's part: a disk, the server, and an export 'x' of the disk with the id 'e'. */
struct served {
    struct graph *graph;
    struct object_registry *objects;
    struct export_registry *exports;
    char *address;
    bool on_thread; /* the export has an iothread */
};

static struct json *json_of(const char *text)
{
    struct json *json = json_parse(text, strlen(text), NULL);

    g_assert_nonnull(json);
    return json;
}

static void CO_FN co_add_export(struct served *served)
{
    AUTO(json) json = json_of("{'type': 'nbd', 'id': 'e', 'node-name': 'disk', 'name': 'x', 'writable': true}");
    AUTO(block_export_options) options = NULL;

    if (served->on_thread)
        json_set(json, "iothread", json_string("thread"));
    options = block_export_options_parse(json, NULL);
    g_assert_true(co_export_add(served->exports, options, NULL));
}

static void CO_FN co_serve(struct served *served, struct graph *graph)
{
    static unsigned count;
    g_autofree char *address = g_strdup_printf("ashlar-nbd-server-test-%d-%u", getpid(), count++);
    g_autofree char *text = g_strdup_printf("{'addr': {'type': 'unix', 'path': '%s', 'abstract': true}}", address);
    AUTO(json) json = json_of(text);
    AUTO(nbd_server_options) options = nbd_server_options_parse(json, NULL);
    AUTO(json) thread_json = json_of("{'qom-type': 'iothread', 'id': 'thread'}");
    AUTO(object_options) thread = object_options_parse(thread_json, NULL);

    served->graph = graph;
    served->objects = object_registry_new();
    if (served->on_thread)
        g_assert_true(co_object_add(served->objects, thread, NULL));
    served->address = TAKE(address);
    served->exports = export_registry_new(graph, served->objects, &sink);
    co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'disk', 'size': 1048576, 'discard': 'unmap'}");
    g_assert_true(co_nbd_server_start(served->exports, options, NULL));
    co_add_export(served);
    deleted_events = 0;
}

static void CO_FN co_serve_end(struct served *served)
{
    co_export_registry_free(served->exports);
    g_assert_true(co_graph_delete(served->graph, "disk", NULL));
    co_object_registry_free(served->objects);
    g_free(served->address);
}

/* --- a client --- */

struct client {
    struct stream *stream;
    enum nbd_mode mode;
};

static void CO_FN co_expect(struct client *client, void *to, size_t size)
{
    g_assert_cmpint(co_stream_read_exact(client->stream, to, size), ==, 0);
}

static void CO_FN co_send(struct client *client, const void *from, size_t size)
{
    g_assert_cmpint(co_stream_write(client->stream, from, size), ==, 0);
}

static void CO_FN co_option(struct client *client, uint32_t option, const void *data, uint32_t length)
{
    uint8_t header[NBD_OPTION_HEADER_BYTES];
    uint8_t reply[NBD_OPTION_REPLY_HEADER_BYTES];
    uint8_t text[4096];

    store_be64(header, NBD_OPTION_MAGIC);
    store_be32(header + 8, option);
    store_be32(header + 12, length);
    co_send(client, header, sizeof(header));
    if (length)
        co_send(client, data, length);
    do {
        co_expect(client, reply, sizeof(reply));
        g_assert_cmpuint(load_be32(reply + 16), <, sizeof(text));
        co_expect(client, text, load_be32(reply + 16));
    } while (load_be32(reply + 12) == NBD_REP_INFO || load_be32(reply + 12) == NBD_REP_META_CONTEXT);
    g_assert_cmpuint(load_be32(reply + 12), ==, NBD_REP_ACK);
}

static void CO_FN co_connect(struct client *client, const struct served *served, enum nbd_mode mode)
{
    struct socket_endpoint endpoint = {.family = SOCKET_UNIX, .path = served->address, .abstract = true};
    static const uint8_t flags[] = {0, 0, 0, 3}, go[] = {0, 0, 0, 1, 'x', 0, 0};
    static const char query[] = "\0\0\0\1x\0\0\0\1\0\0\0\17base:allocation";
    uint8_t greeting[NBD_GREETING_BYTES];
    int fd = co_socket_dial(&endpoint, NULL);

    g_assert_cmpint(fd, >=, 0);
    client->stream = stream_new_socket(fd);
    client->mode = mode;
    co_expect(client, greeting, sizeof(greeting));
    co_send(client, flags, sizeof(flags));
    if (mode != NBD_MODE_SIMPLE) {
        co_option(client, mode == NBD_MODE_EXTENDED ? NBD_OPT_EXTENDED_HEADERS : NBD_OPT_STRUCTURED_REPLY, NULL, 0);
        co_option(client, NBD_OPT_SET_META_CONTEXT, query, sizeof(query) - 1);
    }
    co_option(client, NBD_OPT_GO, go, sizeof(go));
}

static void CO_FN co_submit(struct client *client, uint16_t type, uint64_t offset, uint32_t length, const void *payload)
{
    bool extended = client->mode == NBD_MODE_EXTENDED;
    uint8_t header[NBD_EXTENDED_REQUEST_BYTES] = {0};

    store_be32(header, extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC);
    store_be16(header + 4, extended && payload ? NBD_CMD_FLAG_PAYLOAD_LEN : 0);
    store_be16(header + 6, type);
    store_be64(header + 8, offset + 1);
    store_be64(header + 16, offset);
    if (extended)
        store_be64(header + 24, length);
    else
        store_be32(header + 24, length);
    co_send(client, header, nbd_request_bytes(client->mode));
    if (payload)
        co_send(client, payload, length);
}

/* The error of the next reply, 0 for success; its data in `to`, which a read of `length` bytes fills. */
static uint32_t CO_FN co_reply(struct client *client, uint64_t offset, void *to, uint32_t length)
{
    uint8_t header[NBD_EXTENDED_REPLY_BYTES], head[12], rest[4096];
    bool extended = client->mode == NBD_MODE_EXTENDED;
    uint16_t flags, type;
    uint64_t payload;

    co_expect(client, header, 16);
    g_assert_cmpuint(load_be64(header + 8), ==, offset + 1);
    if (load_be32(header) == NBD_SIMPLE_REPLY_MAGIC) {
        if (!load_be32(header + 4) && length)
            co_expect(client, to, length);
        return load_be32(header + 4);
    }
    co_expect(client, header + 16, extended ? 16 : 4);
    flags = load_be16(header + 4);
    type = load_be16(header + 6);
    payload = extended ? load_be64(header + 24) : load_be32(header + 16);
    g_assert_cmpuint(flags, ==, NBD_REPLY_FLAG_DONE);
    if (type == NBD_REPLY_OFFSET_DATA) {
        g_assert_cmpuint(payload, ==, 8 + length);
        co_expect(client, head, 8);
        co_expect(client, to, length);
        return 0;
    }
    if (type == NBD_REPLY_OFFSET_HOLE) {
        co_expect(client, head, 12);
        memset(to, 0, length);
        return 0;
    }
    g_assert_cmpuint(payload, <=, sizeof(rest));
    co_expect(client, rest, payload);
    if (type == NBD_REPLY_ERROR) {
        g_assert_cmpuint(load_be16(rest + 4) + 6u, ==, payload);
        g_assert_cmpuint(load_be16(rest + 4), >, 0);
        return load_be32(rest);
    }
    g_assert_true(type == NBD_REPLY_NONE || type == NBD_REPLY_BLOCK_STATUS || type == NBD_REPLY_BLOCK_STATUS_EXT);
    return 0;
}

static uint32_t CO_FN co_request(struct client *client, uint16_t type, uint64_t offset, uint32_t length, void *data)
{
    co_submit(client, type, offset, length, type == NBD_CMD_WRITE ? data : NULL);
    return co_reply(client, offset, data, type == NBD_CMD_READ ? length : 0);
}

static bool CO_FN co_at_end(struct client *client)
{
    uint8_t byte;

    return co_stream_read(client->stream, &byte, 1) <= 0;
}

static void CO_FN co_disconnect(struct client *client)
{
    co_submit(client, NBD_CMD_DISC, 0, 0, NULL);
    g_assert_true(co_at_end(client));
    stream_free(client->stream);
}

/* --- tests --- */

/* An error of the disk is the error of that request, in every mode, and the connection goes on. */
static void test_disk_errors(struct graph *graph)
{
    struct served served = {0};
    uint8_t data[4096] = {1}, back[4096];

    co_serve(&served, graph);
    for (enum nbd_mode mode = NBD_MODE_SIMPLE; mode <= NBD_MODE_EXTENDED; mode++) {
        struct client client;

        co_connect(&client, &served, mode);
        g_assert_cmpuint(co_request(&client, NBD_CMD_WRITE, 0, sizeof(data), data), ==, NBD_SUCCESS);
        memory_disk_fail[MEMORY_DISK_READ] = 1;
        g_assert_cmpuint(co_request(&client, NBD_CMD_READ, 0, sizeof(back), back), ==, NBD_EIO);
        memory_disk_fail[MEMORY_DISK_WRITE] = 1;
        g_assert_cmpuint(co_request(&client, NBD_CMD_WRITE, 0, sizeof(data), data), ==, NBD_EIO);
        memory_disk_fail[MEMORY_DISK_ZERO] = 1;
        g_assert_cmpuint(co_request(&client, NBD_CMD_WRITE_ZEROES, 8192, 4096, NULL), ==, NBD_EIO);
        memory_disk_fail[MEMORY_DISK_DISCARD] = 1;
        g_assert_cmpuint(co_request(&client, NBD_CMD_TRIM, 8192, 4096, NULL), ==, NBD_EIO);
        g_assert_cmpuint(co_request(&client, NBD_CMD_READ, 0, sizeof(back), back), ==, NBD_SUCCESS);
        g_assert_cmpmem(data, sizeof(data), back, sizeof(back));
        if (mode != NBD_MODE_SIMPLE)
            g_assert_cmpuint(co_request(&client, NBD_CMD_BLOCK_STATUS, 0, SIZE, NULL), ==, NBD_SUCCESS);
        co_disconnect(&client);
    }
    co_serve_end(&served);
}

static void test_flush_error(struct graph *graph)
{
    struct served served = {0};
    struct client client;
    uint8_t data[512] = {1};

    co_serve(&served, graph);
    co_connect(&client, &served, NBD_MODE_STRUCTURED);
    g_assert_cmpuint(co_request(&client, NBD_CMD_WRITE, 0, sizeof(data), data), ==, NBD_SUCCESS);
    memory_disk_fail[MEMORY_DISK_FLUSH] = 1;
    g_assert_cmpuint(co_request(&client, NBD_CMD_FLUSH, 0, 0, NULL), ==, NBD_EIO);
    g_assert_cmpuint(co_request(&client, NBD_CMD_READ, 0, sizeof(data), data), ==, NBD_SUCCESS);
    co_disconnect(&client);
    co_serve_end(&served);
}

/* Writes of all sizes come through whole, however the bytes were cut into receives. */
static void test_write_sizes(struct graph *graph)
{
    static const uint32_t sizes[] = {1, 100, 4068, 4069, 4096, 4580, 4581, 65507, 65508, 65509, 131072, 1000000};
    g_autofree uint8_t *data = g_malloc(SIZE);
    g_autofree uint8_t *back = g_malloc(SIZE);
    struct served served = {0};
    struct client client;

    for (uint32_t i = 0; i < SIZE; i++)
        data[i] = (uint8_t)(i * 7 + i / 251 + 1);
    co_serve(&served, graph);
    co_connect(&client, &served, NBD_MODE_SIMPLE);
    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        /* Two in one go: the second begins where the first one's payload ends. */
        co_submit(&client, NBD_CMD_WRITE, i, sizes[i], data + i);
        co_submit(&client, NBD_CMD_WRITE, SIZE - 10, 10, data + SIZE - 10);
        for (unsigned replies = 0; replies < 2; replies++) {
            uint8_t header[NBD_SIMPLE_REPLY_BYTES];

            co_expect(&client, header, sizeof(header));
            g_assert_cmpuint(load_be32(header + 4), ==, 0);
        }
        g_assert_cmpuint(co_request(&client, NBD_CMD_READ, i, sizes[i], back), ==, NBD_SUCCESS);
        g_assert_cmpmem(back, sizes[i], data + i, sizes[i]);
    }
    co_disconnect(&client);
    co_serve_end(&served);
}

/* A client that sends requests without end, until the server hangs up. */
static void flood(void *opaque)
{
    struct client *client = opaque;
    uint8_t scratch[4096];

    for (uint64_t i = 0;; i++) {
        uint8_t header[NBD_REQUEST_BYTES] = {0};

        store_be32(header, NBD_REQUEST_MAGIC);
        store_be16(header + 6, i % 3 ? NBD_CMD_READ : NBD_CMD_FLUSH);
        store_be64(header + 8, i);
        store_be32(header + 24, i % 3 ? 65536 : 0);
        if (co_stream_write(client->stream, header, sizeof(header)) < 0)
            break;
        if (i % 5 == 0 && co_stream_read(client->stream, scratch, sizeof(scratch)) <= 0)
            break;
    }
}

/* Removal and re-adding while clients have requests in every stage: everybody goes, nothing of them is left. */
static void CO_FN co_test_removal_under_load(struct graph *graph, bool on_thread)
{
    struct client clients[4];
    struct co_task *tasks[G_N_ELEMENTS(clients)];
    struct served served = {.on_thread = on_thread};

    memory_disk_options.yields = true;
    co_serve(&served, graph);
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < G_N_ELEMENTS(clients); i++) {
            co_connect(&clients[i], &served, NBD_MODE_SIMPLE);
            tasks[i] = co_task_start(loop_current(), flood, &clients[i]);
        }
        for (unsigned turns = 0; turns < round * 3; turns++)
            co_yield ();
        g_assert_false(co_export_delete(served.exports, "e", BLOCK_EXPORT_REMOVE_MODE_SAFE, NULL));
        g_assert_true(co_export_delete(served.exports, "e", BLOCK_EXPORT_REMOVE_MODE_HARD, NULL));
        for (unsigned i = 0; i < G_N_ELEMENTS(clients); i++) {
            co_task_join(tasks[i]);
            stream_free(clients[i].stream);
        }
        /* A deletion may end after its command, which has little patience. */
        while (deleted_events == round)
            co_yield ();
        g_assert_cmpuint(deleted_events, ==, round + 1);
        co_add_export(&served);
    }
    memory_disk_options.yields = false;
    co_serve_end(&served);
}

static void test_removal_under_load(struct graph *graph)
{
    co_test_removal_under_load(graph, false);
}

static void test_removal_on_thread(struct graph *graph)
{
    co_test_removal_under_load(graph, true);
}

/* Clients that never read: what they asked for is bounded, and the server's end ends them. */
static void test_end_with_stuck_clients(struct graph *graph)
{
    struct client clients[4];
    struct served served = {0};

    co_serve(&served, graph);
    for (unsigned i = 0; i < G_N_ELEMENTS(clients); i++) {
        co_connect(&clients[i], &served, (enum nbd_mode)(i % 3));
        for (unsigned request = 0; request < 200; request++)
            co_submit(&clients[i], NBD_CMD_READ, 0, SIZE, NULL);
    }
    co_serve_end(&served);
    g_assert_cmpuint(deleted_events, ==, 1);
    for (unsigned i = 0; i < G_N_ELEMENTS(clients); i++)
        stream_free(clients[i].stream);
}

/* What was sent before the end of the client's side is done, and answered. */
static void test_half_closed(struct graph *graph)
{
    struct served served = {0};
    struct client client;
    uint8_t data[4096] = {7};

    memory_disk_options.yields = true;
    co_serve(&served, graph);
    co_connect(&client, &served, NBD_MODE_SIMPLE);
    for (unsigned i = 0; i < 100; i++)
        co_submit(&client, NBD_CMD_WRITE, (uint64_t)i * 4096, sizeof(data), data);
    co_stream_shutdown(client.stream);
    for (unsigned i = 0; i < 100; i++) {
        uint8_t header[NBD_SIMPLE_REPLY_BYTES];

        co_expect(&client, header, sizeof(header));
        g_assert_cmpuint(load_be32(header + 4), ==, 0);
    }
    g_assert_true(co_at_end(&client));
    stream_free(client.stream);
    memory_disk_options.yields = false;
    co_serve_end(&served);
}

static void run_test(gconstpointer test)
{
    run_graph_test((graph_test *)test);
    g_assert_cmpint(memory_disks_open, ==, 0);
}

static void run_simulated(void *opaque)
{
    graph_test *test = *(graph_test **)opaque;
    struct graph *graph = graph_new(NULL, NULL);

    memory_disk_options = (struct memory_disk_options){0};
    graph_set_drivers(graph, memory_disk_drivers);
    test(graph);
    co_graph_free(graph);
}

/* The same on the simulated machine, whose scheduler tries another order with each seed. */
G_GNUC_UNUSED static void run_seeds(gconstpointer test)
{
    enum { SEEDS = 30 };

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct loop_options options = {.backend = LOOP_SIM, .sim_seed = seed};
        struct loop *loop = loop_new(&options, NULL);

        g_test_message("seed %" G_GUINT64_FORMAT, seed);
        g_assert_nonnull(loop);
        co_run(loop, run_simulated, &test);
        loop_free(loop);
        g_assert_cmpint(memory_disks_open, ==, 0);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_data_func("/nbd-server/disk-errors", test_disk_errors, run_test);
    g_test_add_data_func("/nbd-server/flush-error", test_flush_error, run_test);
    g_test_add_data_func("/nbd-server/write-sizes", test_write_sizes, run_test);
    g_test_add_data_func("/nbd-server/removal-under-load", test_removal_under_load, run_test);
    g_test_add_data_func("/nbd-server/removal-on-thread", test_removal_on_thread, run_test);
    g_test_add_data_func("/nbd-server/end-with-stuck-clients", test_end_with_stuck_clients, run_test);
    g_test_add_data_func("/nbd-server/half-closed", test_half_closed, run_test);
#ifndef __SANITIZE_THREAD__ /* The simulated machine has one thread. */
    g_test_add_data_func("/nbd-server/sim/disk-errors", test_disk_errors, run_seeds);
    g_test_add_data_func("/nbd-server/sim/write-sizes", test_write_sizes, run_seeds);
    g_test_add_data_func("/nbd-server/sim/removal-under-load", test_removal_under_load, run_seeds);
    g_test_add_data_func("/nbd-server/sim/end-with-stuck-clients", test_end_with_stuck_clients, run_seeds);
    g_test_add_data_func("/nbd-server/sim/half-closed", test_half_closed, run_seeds);
#endif
    return g_test_run();
}
