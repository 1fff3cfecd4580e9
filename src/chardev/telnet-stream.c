/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Telnet on top of a stream. */
#include "chardev/telnet-stream.h"

#include <assert.h>
#include <glib.h>

#include "chardev/chardev-internal.h"
#include "loop/stream.h"

enum { TELNET_PIECE = 2048 };

struct telnet_stream {
    struct stream stream;
    struct stream *lower; /* owned */
    struct chardev *chardev;
    struct telnet telnet;
    struct co_mutex write_mutex; /* answers come from who reads */
    size_t ready_from;           /* decoded, and not handed out yet */
    size_t ready_to;
    uint8_t ready[TELNET_PIECE + 2];
};

static const struct stream_ops telnet_stream_ops;

static struct telnet_stream *telnet_of(struct stream *stream)
{
    assert(stream->ops == &telnet_stream_ops);
    return (struct telnet_stream *)stream;
}

static int CO_FN co_telnet_send(struct telnet_stream *telnet, const void *from, size_t size)
{
    int result;

    co_mutex_lock(&telnet->write_mutex);
    result = co_stream_write(telnet->lower, from, size);
    co_mutex_unlock(&telnet->write_mutex);
    return result;
}

/* Decodes what comes next into `ready`; 1, or 0 at the end, or -errno. */
static ssize_t CO_FN co_telnet_fill(struct telnet_stream *telnet)
{
    uint8_t raw[TELNET_PIECE];
    uint8_t answer[TELNET_PIECE + 2];
    struct telnet_found found = {.data = telnet->ready, .answer = answer};
    ssize_t size = co_stream_read(telnet->lower, raw, sizeof(raw));
    int result;

    static_assert(sizeof(telnet->ready) >= TELNET_PIECE + 2, "see telnet_decode_bound()");
    if (size <= 0)
        return size;
    telnet_decode(&telnet->telnet, raw, (size_t)size, &found);
    telnet->ready_from = 0;
    telnet->ready_to = found.data_size;
    while (found.breaks--)
        chardev_note_break(telnet->chardev);
    if (found.answer_size) {
        result = co_telnet_send(telnet, answer, found.answer_size);
        if (result < 0)
            return result;
    }
    return 1;
}

static ssize_t CO_FN co_telnet_readv(struct stream *stream, const struct iovec *iov, int count)
{
    struct telnet_stream *telnet = telnet_of(stream);
    size_t size;

    while (telnet->ready_from == telnet->ready_to) {
        ssize_t result = co_telnet_fill(telnet);

        if (result <= 0)
            return result;
    }
    size = MIN(iov->iov_len, telnet->ready_to - telnet->ready_from);
    memcpy(iov->iov_base, telnet->ready + telnet->ready_from, size);
    telnet->ready_from += size;
    return (ssize_t)size;
}

static ssize_t CO_FN co_telnet_writev(struct stream *stream, const struct iovec *iov, int count)
{
    struct telnet_stream *telnet = telnet_of(stream);
    size_t size = MIN(iov->iov_len, (size_t)TELNET_PIECE);
    uint8_t quoted[2 * TELNET_PIECE];
    int result = co_telnet_send(telnet, quoted, telnet_encode(&telnet->telnet, iov->iov_base, size, quoted));

    return result < 0 ? result : (ssize_t)size;
}

int co_telnet_stream_send_break(struct stream *stream)
{
    uint8_t bytes[TELNET_BREAK_SIZE];

    telnet_encode_break(bytes);
    return co_telnet_send(telnet_of(stream), bytes, sizeof(bytes));
}

static void CO_FN co_telnet_shutdown(struct stream *stream)
{
    co_stream_shutdown(telnet_of(stream)->lower);
}

static void telnet_abort(struct stream *stream)
{
    stream_abort(telnet_of(stream)->lower);
}

static void telnet_free(struct stream *stream)
{
    struct telnet_stream *telnet = telnet_of(stream);

    co_mutex_done(&telnet->write_mutex);
    stream_free(telnet->lower);
    g_free(telnet);
}

struct stream *co_telnet_stream_new(struct stream *lower, const struct telnet_role *role, struct chardev *chardev)
{
    struct telnet_stream *telnet = g_new0(struct telnet_stream, 1);
    uint8_t greeting[TELNET_GREETING_MAX];
    size_t size;

    telnet->stream.ops = &telnet_stream_ops;
    telnet->stream.fd = lower->fd;
    telnet->lower = lower;
    telnet->chardev = chardev;
    size = telnet_begin(&telnet->telnet, role, greeting);
    if (size && co_telnet_send(telnet, greeting, size) < 0) {
        stream_free(&telnet->stream);
        return NULL;
    }
    return &telnet->stream;
}

static const struct stream_ops telnet_stream_ops = {
    .co_readv = co_telnet_readv,
    .co_writev = co_telnet_writev,
    .co_shutdown = co_telnet_shutdown,
    .abort = telnet_abort,
    .free = telnet_free,
};
