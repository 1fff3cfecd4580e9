/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A WebSocket on top of a stream. Each write is a binary frame; what comes in may be binary or text, in fragments or
 * not: the bytes are what counts. Pings are answered while somebody reads.
 */
#include "chardev/websocket-stream.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>

#include "base/bytes.h"
#include "base/error.h"
#include "chardev/websocket.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "loop/stream.h"

enum {
    INPUT_SIZE = WEBSOCKET_HANDSHAKE_MAX,
    SERVER_FRAME_MAX = 1 << 20,
    CLIENT_FRAME_MAX = 4096, /* it has to be copied for masking */
};

struct websocket_stream {
    struct stream stream;
    struct stream *lower; /* owned */
    bool client;
    bool ended;                  /* the peer's close has been seen, or a violation */
    bool close_sent;             /* write_mutex */
    struct co_mutex write_mutex; /* answers come from who reads */
    struct websocket_decoder decoder;
    uint8_t *data; /* in `input`: decoded, and not handed out yet */
    size_t data_size;
    size_t input_from; /* not decoded yet */
    size_t input_to;
    uint8_t input[INPUT_SIZE];
};

static const struct stream_ops websocket_stream_ops;

static struct websocket_stream *websocket_of(struct stream *stream)
{
    assert(stream->ops == &websocket_stream_ops);
    return (struct websocket_stream *)stream;
}

/* Sends one frame: 0 or -errno. With the write mutex. */
static int CO_FN co_websocket_send(struct websocket_stream *websocket, enum websocket_opcode opcode, const void *from,
                                   size_t size)
{
    uint8_t header[WEBSOCKET_HEADER_MAX];
    uint8_t masked[CLIENT_FRAME_MAX];
    uint8_t mask[WEBSOCKET_MASK_SIZE];
    struct iovec iov[2] = {
        {.iov_base = header},
        {.iov_base = (void *)(uintptr_t)from, .iov_len = size},
    };

    if (websocket->close_sent)
        return -EPIPE;
    if (websocket->client) {
        assert(size <= sizeof(masked));
        loop_random_bytes(mask, sizeof(mask));
        memcpy(masked, from, size);
        websocket_mask(masked, size, mask, 0);
        iov[1].iov_base = masked;
    }
    websocket->close_sent = opcode == WEBSOCKET_CLOSE;
    iov[0].iov_len = websocket_encode_header(header, opcode, size, websocket->client ? mask : NULL);
    return co_stream_writev(websocket->lower, iov, 2);
}

static int CO_FN co_websocket_send_locked(struct websocket_stream *websocket, enum websocket_opcode opcode,
                                          const void *from, size_t size)
{
    int result;

    co_mutex_lock(&websocket->write_mutex);
    result = co_websocket_send(websocket, opcode, from, size);
    co_mutex_unlock(&websocket->write_mutex);
    return result;
}

static void CO_FN co_websocket_say_close(struct websocket_stream *websocket, uint16_t status)
{
    uint8_t bytes[2];

    store_be16(bytes, status);
    (void)co_websocket_send_locked(websocket, WEBSOCKET_CLOSE, bytes, sizeof(bytes));
}

/* More input, behind what is there; as co_stream_read(). */
static ssize_t CO_FN co_websocket_receive(struct websocket_stream *websocket)
{
    ssize_t size;

    if (websocket->input_from == websocket->input_to)
        websocket->input_from = websocket->input_to = 0;
    assert(websocket->input_to < INPUT_SIZE);
    size = co_stream_read(websocket->lower, websocket->input + websocket->input_to, INPUT_SIZE - websocket->input_to);
    if (size > 0)
        websocket->input_to += (size_t)size;
    return size;
}

/* Acts on what the decoder finds next: 1, 0 at the end, or -errno. */
static ssize_t CO_FN co_websocket_step(struct websocket_stream *websocket)
{
    struct websocket_found found;
    enum websocket_outcome outcome;
    int result;

    if (websocket->input_from == websocket->input_to) {
        ssize_t size = co_websocket_receive(websocket);

        if (size <= 0)
            return size;
    }
    outcome = websocket_decode(&websocket->decoder, websocket->input + websocket->input_from,
                               websocket->input_to - websocket->input_from, &found);
    websocket->input_from += found.used;
    switch (outcome) {
    case WEBSOCKET_FOUND_NOTHING:
        break;
    case WEBSOCKET_FOUND_DATA:
        websocket->data = found.data;
        websocket->data_size = found.data_size;
        break;
    case WEBSOCKET_FOUND_PING:
        result = co_websocket_send_locked(websocket, WEBSOCKET_PONG, found.data, found.data_size);
        return result < 0 ? result : 1;
    case WEBSOCKET_FOUND_CLOSE:
        websocket->ended = true;
        (void)co_websocket_send_locked(websocket, WEBSOCKET_CLOSE, found.data, MIN(found.data_size, (size_t)2));
        return 0;
    case WEBSOCKET_FOUND_VIOLATION:
        websocket->ended = true;
        co_websocket_say_close(websocket, WEBSOCKET_STATUS_PROTOCOL_ERROR);
        return -EPROTO;
    }
    return 1;
}

static ssize_t CO_FN co_websocket_readv(struct stream *stream, const struct iovec *iov, int count)
{
    struct websocket_stream *websocket = websocket_of(stream);
    size_t size;

    while (!websocket->data_size) {
        ssize_t result = websocket->ended ? 0 : co_websocket_step(websocket);

        if (result <= 0)
            return result;
    }
    size = MIN(iov->iov_len, websocket->data_size);
    memcpy(iov->iov_base, websocket->data, size);
    websocket->data += size;
    websocket->data_size -= size;
    return (ssize_t)size;
}

static ssize_t CO_FN co_websocket_writev(struct stream *stream, const struct iovec *iov, int count)
{
    struct websocket_stream *websocket = websocket_of(stream);
    size_t size = MIN(iov->iov_len, (size_t)(websocket->client ? CLIENT_FRAME_MAX : SERVER_FRAME_MAX));
    int result = co_websocket_send_locked(websocket, WEBSOCKET_BINARY, iov->iov_base, size);

    return result < 0 ? result : (ssize_t)size;
}

static void CO_FN co_websocket_shutdown(struct stream *stream)
{
    struct websocket_stream *websocket = websocket_of(stream);

    co_websocket_say_close(websocket, WEBSOCKET_STATUS_NORMAL);
    co_stream_shutdown(websocket->lower);
}

static void websocket_abort(struct stream *stream)
{
    stream_abort(websocket_of(stream)->lower);
}

static void websocket_free(struct stream *stream)
{
    struct websocket_stream *websocket = websocket_of(stream);

    co_mutex_done(&websocket->write_mutex);
    stream_free(websocket->lower);
    g_free(websocket);
}

static struct websocket_stream *websocket_new(struct stream *lower, bool client)
{
    struct websocket_stream *websocket = g_new0(struct websocket_stream, 1);

    websocket->stream.ops = &websocket_stream_ops;
    websocket->stream.fd = lower->fd;
    websocket->lower = lower;
    websocket->client = client;
    websocket_decoder_init(&websocket->decoder, !client);
    return websocket;
}

/* Reads a request or reply into the beginning of `input`: its size, or 0 and the error. */
static size_t CO_FN co_handshake_read(struct websocket_stream *websocket, struct error **err)
{
    for (;;) {
        size_t size = websocket_handshake_size((const char *)websocket->input, websocket->input_to);
        ssize_t moved;

        if (size)
            return size;
        if (websocket->input_to == INPUT_SIZE) {
            error_set(err, "WebSocket handshake: longer than %d bytes", WEBSOCKET_HANDSHAKE_MAX);
            return 0;
        }
        moved = co_websocket_receive(websocket);
        if (moved <= 0) {
            error_set_errno(err, moved ? (int)moved : ECONNRESET, "WebSocket handshake");
            return 0;
        }
    }
}

struct stream *co_websocket_stream_accept(struct stream *lower, struct error **err)
{
    AUTO(stream) stream = &websocket_new(lower, false)->stream;
    struct websocket_stream *websocket = websocket_of(stream);
    size_t size = co_handshake_read(websocket, err);
    g_autofree char *reply = NULL;
    bool agreed;
    int result;

    if (!size)
        return NULL;
    websocket->input_from = size;
    agreed = websocket_answer((const char *)websocket->input, size, &reply, err);
    result = co_stream_write(lower, reply, strlen(reply));
    if (!agreed)
        return NULL;
    if (result < 0) {
        error_set_errno(err, result, "WebSocket handshake");
        return NULL;
    }
    return TAKE(stream);
}

struct stream *co_websocket_stream_connect(struct stream *lower, const char *host, struct error **err)
{
    AUTO(stream) stream = &websocket_new(lower, true)->stream;
    struct websocket_stream *websocket = websocket_of(stream);
    g_autofree char *request = NULL;
    uint8_t key[16];
    size_t size;
    int result;

    loop_random_bytes(key, sizeof(key));
    request = websocket_request(host, key);
    result = co_stream_write(lower, request, strlen(request));
    if (result < 0) {
        error_set_errno(err, result, "WebSocket handshake");
        return NULL;
    }
    size = co_handshake_read(websocket, err);
    websocket->input_from = size;
    if (!size || !websocket_check_reply((const char *)websocket->input, size, key, err))
        return NULL;
    return TAKE(stream);
}

static const struct stream_ops websocket_stream_ops = {
    .co_readv = co_websocket_readv,
    .co_writev = co_websocket_writev,
    .co_shutdown = co_websocket_shutdown,
    .abort = websocket_abort,
    .free = websocket_free,
};
