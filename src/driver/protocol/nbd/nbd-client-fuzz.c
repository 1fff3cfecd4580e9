/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Any bytes from a server. The first byte says where the conversation stands: the handshake, a list of exports, or
 * calls in flight over simple, structured or extended replies. Whatever comes, it ends; and data that a read is said to
 * have got has been sent.
 */
#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "driver/protocol/nbd/handshake.h"
#include "driver/protocol/nbd/link.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "loop/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { READ_BYTES = 4096, UNTOUCHED = 0xa5, CALLS = 5 };

/* A connection whose other end is the input. */
struct script {
    struct stream stream;
    const uint8_t *data;
    size_t size;
    bool aborted;
};

static ssize_t CO_FN script_co_readv(struct stream *stream, const struct iovec *iov, int count)
{
    struct script *script = (struct script *)stream;
    size_t moved = 0;

    co_yield ();
    if (script->aborted)
        return -ECONNRESET;
    for (int i = 0; i < count; i++) {
        size_t part = MIN(iov[i].iov_len, script->size);

        if (part)
            memcpy(iov[i].iov_base, script->data, part);
        script->data += part;
        script->size -= part;
        moved += part;
    }
    return (ssize_t)moved;
}

static ssize_t CO_FN script_co_writev(struct stream *stream, const struct iovec *iov, int count)
{
    struct script *script = (struct script *)stream;
    size_t moved = 0;

    co_yield ();
    for (int i = 0; i < count; i++)
        moved += iov[i].iov_len;
    return script->aborted ? -EPIPE : (ssize_t)moved;
}

static void script_abort(struct stream *stream)
{
    ((struct script *)stream)->aborted = true;
}

static const struct stream_ops script_ops = {
    .co_readv = script_co_readv,
    .co_writev = script_co_writev,
    .abort = script_abort,
    .free = (void (*)(struct stream *))g_free,
};

static struct stream *script_new(const uint8_t *data, size_t size)
{
    struct script *script = g_new0(struct script, 1);

    script->stream = (struct stream){.ops = &script_ops, .fd = -1};
    script->data = data;
    script->size = size;
    return &script->stream;
}

/* --- the handshake --- */

static void CO_FN co_fuzz_handshake(const uint8_t *data, size_t size)
{
    struct nbd_handshake_options options = {.export = "x", .context = "base:allocation"};
    struct nbd_handshake_result result = {0};
    AUTO(stream) stream = script_new(data, size);
    AUTO(error) error = NULL;

    if (!co_nbd_client_handshake(&stream, &options, &result, &error)) {
        assert(error);
        return;
    }
    assert(result.info.size <= INT64_MAX);
    assert(!result.info.has_block_size || result.info.min_block <= NBD_MIN_BLOCK_BYTES_MAX);
    nbd_export_info_clear(&result.info);
}

static void CO_FN co_fuzz_list(const uint8_t *data, size_t size)
{
    struct nbd_handshake_options options = {.export = ""};
    AUTO(stream) stream = script_new(data, size);
    AUTO(error) error = NULL;
    GPtrArray *exports = co_nbd_client_list(&stream, &options, &error);

    assert(!exports == !!error);
    if (exports)
        g_ptr_array_unref(exports);
}

/* --- calls --- */

struct fuzz_call {
    struct nbd_link *link;
    struct co_group *group;
    uint16_t type;
};

static void CO_FN co_call(void *opaque)
{
    struct fuzz_call *call = opaque;
    uint8_t memory[READ_BYTES];
    struct iovec segments[] = {{memory, 100}, {memory + 100, sizeof(memory) - 100}};
    struct io_vector iov = io_vector_of(segments, 2);
    struct nbd_transfer transfer = {
        .call = {.type = call->type, .bytes = call->type == NBD_CMD_FLUSH ? 0 : READ_BYTES},
        .iov = &iov,
    };
    int ret;

    memset(memory, UNTOUCHED, sizeof(memory));
    ret = co_nbd_link_call(call->link, &transfer);
    assert(ret <= 0);
    if (!ret && call->type == NBD_CMD_BLOCK_STATUS)
        assert(transfer.extent.bytes);
    co_group_done(call->group);
}

static void CO_FN co_fuzz_calls(const uint8_t *data, size_t size, enum nbd_mode mode)
{
    static const uint16_t types[CALLS] = {NBD_CMD_READ, NBD_CMD_BLOCK_STATUS, NBD_CMD_WRITE, NBD_CMD_FLUSH,
                                          NBD_CMD_READ};
    struct nbd_link *link = nbd_link_new(script_new(data, size), loop_current(), mode, 7);
    struct fuzz_call calls[CALLS];
    struct co_group group = {0};

    for (unsigned i = 0; i < CALLS; i++) {
        calls[i] = (struct fuzz_call){.link = link, .group = &group, .type = types[i]};
        co_group_add(&group, 1);
        co_spawn(loop_current(), co_call, &calls[i]);
    }
    co_group_wait(&group);
    co_nbd_link_goodbye(link);
    nbd_link_unref(link);
}

struct input {
    const uint8_t *data;
    size_t size;
};

static void CO_FN co_fuzz(void *opaque)
{
    struct input *input = opaque;
    unsigned what = input->data[0] % 5;

    if (what == 0)
        co_fuzz_handshake(input->data + 1, input->size - 1);
    else if (what == 1)
        co_fuzz_list(input->data + 1, input->size - 1);
    else
        co_fuzz_calls(input->data + 1, input->size - 1, (enum nbd_mode)(NBD_MODE_SIMPLE + what - 2));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct loop_options options = {.backend = LOOP_EPOLL};
    struct input input = {.data = data, .size = size};
    struct loop *loop;

    if (!size)
        return 0;
    loop = loop_new(&options, NULL);
    assert(loop);
    co_run(loop, co_fuzz, &input);
    loop_free(loop);
    return 0;
}
