/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The whole server over a real socket: the input is all that a client sends, from its flags to its last request, on an
 * export 'x' of 16 KiB. The seed corpus was recorded from libnbd's and QEMU's tools and fio.
 */
#include "export/fixture-test.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct export_fixture fixture;

static void begin(void *opaque)
{
    co_export_fixture_serve_nbd(&fixture, "{'addr': {'type': 'unix', 'path': '%s', 'abstract': true}}");
    co_export_fixture_export(&fixture, "{'type': 'nbd', 'id': 'e', 'node-name': 'n', 'name': 'x', 'writable': true, "
                                       "'allocation-depth': true, 'description': 'text'}");
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
    struct co_task *sender;
    uint8_t scratch[4096];

    input->stream = stream_new_socket(co_export_fixture_dial(&fixture));
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

    export_fixture_begin(&fixture, 16384, begin);
    co_run(fixture.loop, run_input, &input);
    return 0;
}
