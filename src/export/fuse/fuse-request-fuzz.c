/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests of a kernel gone mad, on a disk in memory: the input is a sequence of them, each with a length before it.
 * The answers go to a socket in the place of the device.
 */
#include <assert.h>
#include <glib.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/node.h"
#include "export/fuse/session.h"
#include "gen/types.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "object/object.h"
#include "schema/event.h"
#include "schema/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ignore_event(struct event_sink *sink, const char *name, struct json *data)
{
    json_free(data);
}

static struct fixture {
    struct loop *loop;
    struct event_sink events;
    struct graph *graph;
    struct fuse_file file;
    struct fuse_queue queue;
    int answers;
} fixture = {.events = {.send = ignore_event}};

static void fixture_start(void *opaque)
{
    static const char node[] = "{'driver': 'null-co', 'node-name': 'n', 'size': 65536, 'read-zeroes': true}";
    struct handle_options handle = {
        .name = "fuzz", .perm = PERM_CONSISTENT_READ | PERM_WRITE | PERM_RESIZE, .shared = PERM_ALL};
    AUTO(json) json = json_parse(node, strlen(node), NULL);
    AUTO(blockdev_options) options = blockdev_options_parse(json, NULL);
    int pair[2];

    fixture.graph = graph_new(object_registry_new(), &fixture.events);
    g_assert_true(co_graph_add(fixture.graph, options, NULL));
    fixture.file.handle = co_handle_new(graph_find(fixture.graph, "n", NULL), &handle, NULL);
    g_assert_nonnull(fixture.file.handle);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), ==, 0);
    fixture.queue.fd = pair[0];
    fixture.answers = pair[1];
    fixture.file.main = loop_current();
    fixture.file.may_chown = true;
}

struct input {
    const uint8_t *data;
    size_t size;
};

static void check_answer(uint64_t unique)
{
    static uint8_t answer[FUSE_WRITE_BYTES_MAX + 4096];
    ssize_t got = recv(fixture.answers, answer, sizeof(answer), MSG_DONTWAIT);
    struct fuse_out_header header;

    if (got < 0)
        return;
    g_assert_cmpint(got, >=, sizeof(header));
    memcpy(&header, answer, sizeof(header));
    g_assert_cmpuint(header.len, ==, got);
    g_assert_cmpuint(header.unique, ==, unique);
    g_assert_cmpint(header.error, <=, 0);
    g_assert_cmpint(header.error, >, -1000);
}

static void run_input(void *opaque)
{
    struct input *input = opaque;

    while (input->size > 2) {
        size_t size = load_le16(input->data);
        size_t offset = fuse_request_offset();
        size_t capacity = offset + MAX(size, sizeof(struct fuse_in_header));
        struct fuse_request request = {.file = &fixture.file, .queue = &fixture.queue, .capacity = capacity};

        input->data += 2;
        input->size -= 2;
        size = MIN(size, input->size);
        if (size >= sizeof(struct fuse_in_header)) {
            request.buffer = g_malloc0(capacity);
            fuse_request_place(&request, request.buffer + offset, size);
            memcpy(request.buffer + offset, input->data, size);
            co_fuse_handle(&request);
            check_answer(((const struct fuse_in_header *)(const void *)request.in)->unique);
            g_free(request.buffer);
        }
        input->data += size;
        input->size -= size;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {.data = data, .size = size};

    if (!fixture.loop) {
        fixture.loop = loop_new(&(struct loop_options){0}, NULL);
        g_assert_nonnull(fixture.loop);
        co_run(fixture.loop, fixture_start, NULL);
    }
    if (size)
        fixture.file.writable = data[0] & 1;
    co_run(fixture.loop, run_input, &input);
    return 0;
}
