/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "export/fixture-test.h"

#include <glib.h>
#include <inttypes.h>
#include <unistd.h>

#include "block/graph.h"
#include "export/export.h"
#include "gen/types.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "object/object.h"
#include "schema/json.h"

static void ignore_event(struct event_sink *sink, const char *name, struct json *data)
{
    json_free(data);
}

static struct json *options_of(const struct export_fixture *fixture, const char *text)
{
    g_auto(GStrv) parts = g_strsplit(text, "%s", -1);
    g_autofree char *whole = g_strjoinv(fixture->address, parts);
    struct json *json = json_parse(whole, strlen(whole), NULL);

    g_assert_nonnull(json);
    return json;
}

struct start {
    struct export_fixture *fixture;
    uint64_t node_bytes;
};

static void start(void *opaque)
{
    const struct start *start = opaque;
    struct export_fixture *fixture = start->fixture;
    struct object_registry *objects = object_registry_new();
    g_autofree char *text = g_strdup_printf(
        "{'driver': 'null-co', 'node-name': 'n', 'size': %" PRIu64 ", 'read-zeroes': true}", start->node_bytes);
    AUTO(json) json = options_of(fixture, text);
    AUTO(blockdev_options) node = blockdev_options_parse(json, NULL);

    fixture->graph = graph_new(objects, &fixture->events);
    fixture->exports = export_registry_new(fixture->graph, objects, &fixture->events);
    g_assert_true(co_graph_add(fixture->graph, node, NULL));
}

void export_fixture_begin(struct export_fixture *fixture, uint64_t node_bytes, void (*co_begin)(void *opaque))
{
    struct start parameters = {.fixture = fixture, .node_bytes = node_bytes};

    if (fixture->loop)
        return;
    fixture->events.send = ignore_event;
    fixture->address = g_strdup_printf("ashlar-export-fixture-%d", getpid());
    fixture->loop = loop_new(&(struct loop_options){0}, NULL);
    g_assert_nonnull(fixture->loop);
    co_run(fixture->loop, start, &parameters);
    co_run(fixture->loop, co_begin, fixture);
}

void co_export_fixture_serve_nbd(struct export_fixture *fixture, const char *options)
{
    AUTO(json) json = options_of(fixture, options);
    AUTO(nbd_server_options) server = nbd_server_options_parse(json, NULL);

    g_assert_true(co_nbd_server_start(fixture->exports, server, NULL));
}

void co_export_fixture_export(struct export_fixture *fixture, const char *options)
{
    AUTO(json) json = options_of(fixture, options);
    AUTO(block_export_options) export = block_export_options_parse(json, NULL);

    g_assert_true(co_export_add(fixture->exports, export, NULL));
}

int co_export_fixture_dial(const struct export_fixture *fixture)
{
    struct socket_endpoint endpoint = {.family = SOCKET_UNIX, .path = fixture->address, .abstract = true};
    int fd = co_socket_dial(&endpoint, NULL);

    g_assert_cmpint(fd, >=, 0);
    return fd;
}
