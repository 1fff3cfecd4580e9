/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Replies: made when a request has ended, gathered by one coroutine a client, sent together.
 *
 * The first reply of a turn of the loop starts the sender behind everything else that is ready to run, so it finds the
 * replies of all requests that ended in that turn. The sender ends when nothing is left to send.
 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/trace.h"
#include "export/nbd/nbd.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/stream.h"

enum {
    SEND_SEGMENTS_MAX = 2 * NBD_CHUNKS_MAX + 126, /* in one call; any single reply fits */
    SEND_BYTES = 1024 * 1024,                     /* no further reply when there are more */
    ERROR_TEXT_MAX = 640,
    ERROR_HEAD = 4 + 2, /* payload of an error chunk before its text */
};

struct nbd_request *nbd_request_new(struct nbd_client *client, const struct nbd_request_header *header,
                                    uint64_t charged)
{
    struct nbd_request *request = loop_alloc(sizeof(*request));

    request->client = client;
    request->next = NULL;
    request->header = *header;
    request->contexts = client->contexts;
    request->charged = charged;
    request->buffer = NULL;
    request->buffer_bytes = 0;
    request->chunks = &request->chunk;
    request->chunk_count = 0;
    client->requests_in_flight++;
    return request;
}

void nbd_request_free(struct nbd_request *request)
{
    struct nbd_client *client = request->client;

    if (request->buffer)
        loop_buffer_put(request->buffer, request->buffer_bytes);
    if (request->chunks != &request->chunk)
        loop_release(request->chunks, request->chunk_count * sizeof(struct nbd_chunk));
    nbd_allowance_give(&client->allowance, request->charged);
    assert(client->requests_in_flight);
    client->requests_in_flight--;
    loop_release(request, sizeof(*request));
}

bool nbd_request_allocate(struct nbd_request *request, size_t bytes)
{
    assert(!request->buffer);
    request->buffer = loop_buffer_get(bytes);
    request->buffer_bytes = bytes;
    return request->buffer;
}

/* Takes replies off the queue, as many as go in one call; their segments in `iov`. */
static struct nbd_request *gather(struct nbd_client *client, struct iovec *iov, int *ret_segments)
{
    struct nbd_request *first = client->replies_first;
    struct nbd_request **end = &client->replies_first;
    size_t bytes = 0;
    int segments = 0;

    while (*end && segments + 2 * (int)(*end)->chunk_count <= SEND_SEGMENTS_MAX && bytes < SEND_BYTES) {
        struct nbd_request *request = *end;

        for (unsigned i = 0; i < request->chunk_count; i++) {
            struct nbd_chunk *chunk = &request->chunks[i];

            iov[segments++] = (struct iovec){.iov_base = chunk->head, .iov_len = chunk->head_bytes};
            if (chunk->data)
                iov[segments++] =
                    (struct iovec){.iov_base = (void *)(uintptr_t)chunk->data, .iov_len = chunk->data_bytes};
            bytes += chunk->head_bytes + chunk->data_bytes;
        }
        end = &request->next;
    }
    assert(segments);
    client->replies_first = *end;
    *end = NULL;
    if (!client->replies_first)
        client->replies_end = &client->replies_first;
    *ret_segments = segments;
    return first;
}

static void CO_FN co_send_replies(void *opaque)
{
    struct nbd_client *client = opaque;
    struct iovec iov[SEND_SEGMENTS_MAX];

    while (client->replies_first) {
        int segments;
        struct nbd_request *batch = gather(client, iov, &segments);
        int result = client->broken ? -EPIPE : co_stream_writev(client->stream, iov, segments);

        if (result < 0 && !client->broken) {
            TRACE(nbd_send_failed, "client %p: %d", (void *)client, result);
            client->broken = true;
            stream_abort(client->stream);
        }
        while (batch) {
            struct nbd_request *next = batch->next;

            nbd_request_free(batch);
            batch = next;
        }
        co_condition_broadcast(&client->room);
    }
    client->sending = false;
    co_condition_broadcast(&client->room);
}

static void reply_queue(struct nbd_request *request)
{
    struct nbd_client *client = request->client;

    assert(request->chunk_count);
    assert(!request->next);
    *client->replies_end = request;
    client->replies_end = &request->next;
    if (!client->sending) {
        client->sending = true;
        co_spawn(client->loop, co_send_replies, client);
    }
}

/* A chunk's header for `payload` bytes, of which the first few are to follow in the head itself: their place. */
static uint8_t *chunk_begin(struct nbd_request *request, struct nbd_chunk *chunk, bool done, uint16_t type,
                            uint64_t payload, uint8_t in_head)
{
    size_t header = nbd_chunk_encode(chunk->head, request->client->terms.mode, &request->header,
                                     done ? NBD_REPLY_FLAG_DONE : 0, type, payload);

    assert(header + in_head <= sizeof(chunk->head));
    chunk->head_bytes = (uint8_t)(header + in_head);
    chunk->data = NULL;
    chunk->data_bytes = 0;
    return chunk->head + header;
}

void nbd_reply_success(struct nbd_request *request)
{
    struct nbd_chunk *chunk = &request->chunks[0];

    request->chunk_count = 1;
    if (request->client->terms.mode == NBD_MODE_EXTENDED) {
        chunk_begin(request, chunk, true, NBD_REPLY_NONE, 0, 0);
    } else {
        /* A structured reply is only demanded where there is payload. */
        chunk->head_bytes = (uint8_t)nbd_simple_reply_encode(chunk->head, &request->header, NBD_SUCCESS);
        chunk->data = NULL;
        chunk->data_bytes = 0;
    }
    reply_queue(request);
}

static void part_encode(struct nbd_request *request, struct nbd_chunk *chunk, const struct nbd_part *part, bool done)
{
    uint8_t *in_head;

    if (part->is_zero) {
        in_head = chunk_begin(request, chunk, done, NBD_REPLY_OFFSET_HOLE, 12, 12);
        store_be64(in_head, part->offset);
        store_be32(in_head + 8, part->bytes);
        return;
    }
    in_head = chunk_begin(request, chunk, done, NBD_REPLY_OFFSET_DATA, 8 + (uint64_t)part->bytes, 8);
    store_be64(in_head, part->offset);
    chunk->data = request->buffer + (part->offset - request->header.offset);
    chunk->data_bytes = part->bytes;
}

/* Room for `count` chunks. */
static void request_hold_chunks(struct nbd_request *request, unsigned count)
{
    assert(count && count <= NBD_CHUNKS_MAX);
    if (count > 1)
        request->chunks = loop_alloc(count * sizeof(struct nbd_chunk));
    request->chunk_count = count;
}

void nbd_reply_data(struct nbd_request *request, uint64_t offset, uint32_t bytes)
{
    struct nbd_part parts[NBD_PARTS_MAX] = {{.offset = offset, .bytes = bytes}};
    unsigned count = 1;

    assert(bytes && bytes <= request->buffer_bytes);
    if (request->client->terms.mode == NBD_MODE_SIMPLE) {
        request->chunk_count = 1;
        request->chunk.head_bytes = (uint8_t)nbd_simple_reply_encode(request->chunk.head, &request->header, 0);
        request->chunk.data = request->buffer;
        request->chunk.data_bytes = bytes;
    } else {
        if (!(request->header.flags & NBD_CMD_FLAG_DF))
            count = nbd_parts_find(request->buffer, bytes, offset, parts);
        request_hold_chunks(request, count);
        for (unsigned i = 0; i < count; i++)
            part_encode(request, &request->chunks[i], &parts[i], i + 1 == count);
    }
    reply_queue(request);
}

void nbd_reply_status(struct nbd_request *request, unsigned count, const size_t *bytes)
{
    enum nbd_mode mode = request->client->terms.mode;
    uint16_t type = mode == NBD_MODE_EXTENDED ? NBD_REPLY_BLOCK_STATUS_EXT : NBD_REPLY_BLOCK_STATUS;

    request_hold_chunks(request, count);
    for (unsigned i = 0; i < count; i++) {
        struct nbd_chunk *chunk = &request->chunks[i];

        assert(bytes[i] && bytes[i] <= NBD_STATUS_BYTES);
        chunk_begin(request, chunk, i + 1 == count, type, bytes[i], 0);
        chunk->data = request->buffer + (size_t)i * NBD_STATUS_BYTES;
        chunk->data_bytes = (uint32_t)bytes[i];
    }
    reply_queue(request);
}

/* Puts the text where the data were; without memory for it, or when it doesn't fit the mode, there is none. */
static void error_text(struct nbd_request *request, const char *format, va_list arguments, uint32_t *ret_bytes)
{
    const char *end;

    *ret_bytes = 0;
    if (request->buffer && request->buffer_bytes < ERROR_TEXT_MAX)
        loop_buffer_put(TAKE(request->buffer), request->buffer_bytes);
    if (!request->buffer && !nbd_request_allocate(request, ERROR_TEXT_MAX))
        return;
    (void)vsnprintf((char *)request->buffer, ERROR_TEXT_MAX, format, arguments);
    /* Where it has been cut, not inside of a character. */
    (void)g_utf8_validate((char *)request->buffer, -1, &end);
    *ret_bytes = (uint32_t)(end - (char *)request->buffer);
}

void nbd_reply_error(struct nbd_request *request, enum nbd_error error, const char *format, ...)
{
    struct nbd_chunk *chunk = &request->chunks[0];
    va_list arguments;
    uint32_t bytes;
    uint8_t *in_head;

    assert(error);
    assert(!request->chunk_count);
    request->chunk_count = 1;
    if (request->client->terms.mode == NBD_MODE_SIMPLE) {
        chunk->head_bytes = (uint8_t)nbd_simple_reply_encode(chunk->head, &request->header, error);
        chunk->data = NULL;
        chunk->data_bytes = 0;
        reply_queue(request);
        return;
    }
    va_start(arguments, format);
    error_text(request, format, arguments, &bytes);
    va_end(arguments);
    in_head = chunk_begin(request, chunk, true, NBD_REPLY_ERROR, ERROR_HEAD + (uint64_t)bytes, ERROR_HEAD);
    store_be32(in_head, error);
    store_be16(in_head + 4, (uint16_t)bytes);
    if (bytes) {
        chunk->data = request->buffer;
        chunk->data_bytes = bytes;
    }
    reply_queue(request);
}
