/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The whole server over a real socket: the input is all that a client sends, from its flags to its last request, on an
 * export 'x' of 16 KiB. The seed corpus was recorded from libnbd's and QEMU's tools and fio.
 */
#include <assert.h>
#include <glib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/graph.h"
#include "export/export.h"
#include "gen/types.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "loop/stream.h"
#include "object/object.h"
#include "schema/event.h"
#include "schema/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ignore_event(struct event_sink *sink, const char *name, struct json *data)
{
    json_free(data);
}

/* What the inputs share, made for the first one. */
static struct fixture {
    struct loop *loop;
    struct event_sink events;
    struct graph *graph;
    struct export_registry *exports;
    char *address; /* in the abstract namespace */
} fixture = {.events = {.send = ignore_event}};

static struct json *json_of(const char *format, const char *argument)
{
    g_autofree char *text = g_strdup_printf(format, argument);
    struct json *json = json_parse(text, strlen(text), NULL);

    g_assert_nonnull(json);
    return json;
}

static void fixture_start(void *opaque)
{
    struct object_registry *objects = object_registry_new();
    AUTO(json) node_json = json_of("{'driver': 'null-co', 'node-name': '%s', 'size': 16384, 'read-zeroes': true}", "n");
    AUTO(json) server_json = json_of("{'addr': {'type': 'unix', 'path': '%s', 'abstract': true}}", fixture.address);
    AUTO(json)
    export_json = json_of("{'type': 'nbd', 'id': '%s', 'node-name': 'n', 'name': 'x', 'writable': true,"
                          " 'allocation-depth': true, 'description': 'text'}",
                          "e");
    AUTO(blockdev_options) node = blockdev_options_parse(node_json, NULL);
    AUTO(nbd_server_options) server = nbd_server_options_parse(server_json, NULL);
    AUTO(block_export_options) export = block_export_options_parse(export_json, NULL);

    fixture.graph = graph_new(objects, &fixture.events);
    fixture.exports = export_registry_new(fixture.graph, objects, &fixture.events);
    g_assert_true(co_graph_add(fixture.graph, node, NULL));
    g_assert_true(co_nbd_server_start(fixture.exports, server, NULL));
    g_assert_true(co_export_add(fixture.exports, export, NULL));
}

struct input {
    const uint8_t *data;
    size_t size;
    struct stream *stream;
};

/* The server may hang up at any point, then there is nobody to send to. */
static void send_input(void *opaque)
{
    struct input *input = opaque;

    if (!co_stream_write(input->stream, input->data, input->size))
        co_stream_shutdown(input->stream);
}

static void run_input(void *opaque)
{
    struct input *input = opaque;
    struct socket_endpoint endpoint = {.family = SOCKET_UNIX, .path = fixture.address, .abstract = true};
    struct co_task *sender;
    uint8_t scratch[4096];
    int fd = co_socket_dial(&endpoint, NULL);

    g_assert_cmpint(fd, >=, 0);
    input->stream = stream_new_socket(fd);
    sender = co_task_start(fixture.loop, send_input, input);
    while (co_stream_read(input->stream, scratch, sizeof(scratch)) > 0)
        continue;
    stream_abort(input->stream);
    co_task_join(sender);
    stream_free(input->stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {.data = data, .size = size};

    if (!fixture.loop) {
        fixture.loop = loop_new(&(struct loop_options){0}, NULL);
        g_assert_nonnull(fixture.loop);
        fixture.address = g_strdup_printf("ashlar-nbd-server-fuzz-%d", getpid());
        co_run(fixture.loop, fixture_start, NULL);
    }
    co_run(fixture.loop, run_input, &input);
    return 0;
}
