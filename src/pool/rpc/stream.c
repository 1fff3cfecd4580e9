/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/rpc/stream.h"

#include <assert.h>
#include <glib.h>
#include <sys/uio.h>

#include "loop/loop.h"
#include "pool/log.h"
#include "pool/pool-error.h"
#include "pool/rpc/client.h"
#include "pool/rpc/xdr.h"
#include "pool/storage.h"

enum { CHUNKS = 2, STREAMS_MAX = 64 };

/* A packet of an upload that waits. */
struct stream_data {
    uint8_t *packet; /* owned; NULL: a hole */
    size_t length;   /* of the packet, its header included */
    uint64_t hole;
};

/* A packet of a download. */
struct stream_chunk {
    struct rpc_output output; /* data: a header, and room for RPC_STREAM_CHUNK bytes */
    struct rpc_stream *stream;
    bool busy; /* on its way */
};

struct rpc_stream {
    struct rpc_client *client; /* referenced */
    struct rpc_header header;  /* of its packets */
    struct volume_stream *volume;
    bool upload;
    bool sparse;
    bool finish; /* the client says that this is all */
    bool abort;  /* ... that it does not want to go on */
    bool bad_hole;
    bool stop;   /* the daemon is about to end */
    bool failed; /* the client has been told; it gets no confirmation */
    bool ended;  /* no packet of it is looked at any more */
    GQueue data; /* uploads: of struct stream_data */
    struct stream_chunk chunks[CHUNKS];
    struct co_condition wake;
};

/* --- packets that come --- */

static struct rpc_stream *find(struct rpc_client *client, const struct rpc_header *header)
{
    for (guint i = 0; i < client->streams->len; i++) {
        struct rpc_stream *stream = client->streams->pdata[i];

        if (stream->header.serial == header->serial && stream->header.procedure == header->procedure && !stream->ended)
            return stream;
    }
    return NULL;
}

static void accept_hole(struct rpc_stream *stream, const uint8_t *packet, size_t length)
{
    struct xdr_reader reader = {.at = packet + RPC_HEADER_SIZE, .left = length - RPC_HEADER_SIZE};
    struct stream_data *data;
    uint64_t bytes;
    uint32_t flags;

    if (!stream->upload || !stream->sparse || !xdr_get_u64(&reader, &bytes) || !xdr_get_u32(&reader, &flags) || flags ||
        !bytes || bytes > INT64_MAX) {
        stream->bad_hole = true;
        return;
    }
    data = g_new0(struct stream_data, 1);
    data->hole = bytes;
    rpc_client_request_begin(stream->client);
    g_queue_push_tail(&stream->data, data);
}

static void accept_data(struct rpc_stream *stream, const uint8_t *packet, size_t length)
{
    struct stream_data *data;

    if (!stream->upload || length == RPC_HEADER_SIZE)
        return;
    data = g_new0(struct stream_data, 1);
    data->packet = rpc_client_take_packet(stream->client, packet, length);
    data->length = length;
    rpc_client_request_begin(stream->client);
    g_queue_push_tail(&stream->data, data);
}

void rpc_stream_accept(struct rpc_client *client, const struct rpc_header *header, const uint8_t *packet, size_t length)
{
    struct rpc_stream *stream = find(client, header);

    if (!stream || stream->finish || stream->abort)
        return;
    if (header->type == RPC_STREAM_HOLE)
        accept_hole(stream, packet, length);
    else if (header->status == RPC_OK)
        stream->finish = true;
    else if (header->status == RPC_ERROR)
        stream->abort = true;
    else if (header->status == RPC_CONTINUE)
        accept_data(stream, packet, length);
    rpc_stream_wake(stream);
}

void rpc_stream_wake(struct rpc_stream *stream)
{
    co_condition_broadcast(&stream->wake);
}

void rpc_stream_stop(struct rpc_stream *stream)
{
    stream->stop = true;
    rpc_stream_wake(stream);
}

/* --- what both directions share --- */

static void send_status(struct rpc_stream *stream, enum rpc_status status)
{
    struct rpc_header header = stream->header;

    header.status = status;
    rpc_client_send_values(stream->client, header, "", NULL);
}

/* `error` is taken. The stream is over with it. */
static void fail(struct rpc_stream *stream, struct pool_error *error)
{
    pool_log_error("rpc.stream", "%s", error->message);
    stream->failed = true;
    rpc_client_send_error(stream->client, stream->header, error);
    pool_error_free(error);
}

static void fail_hole(struct rpc_stream *stream)
{
    struct pool_error *error = NULL;

    pool_error_set_domain(&error, POOL_DOMAIN_RPC, POOL_ERROR_RPC, "Unexpected stream hole");
    fail(stream, error);
}

static void fail_stopped(struct rpc_stream *stream)
{
    struct pool_error *error = NULL;

    pool_error_set_domain(&error, POOL_DOMAIN_RPC, POOL_ERROR_ABORTED, "the daemon is about to end");
    fail(stream, error);
}

static bool is_over(const struct rpc_stream *stream)
{
    return !stream->client->open || stream->abort || stream->failed;
}

/* --- uploads --- */

static void data_done(struct rpc_stream *stream, struct stream_data *data)
{
    if (data->packet)
        rpc_client_return_packet(stream->client, data->packet, data->length);
    g_free(data);
    rpc_client_request_end(stream->client);
}

static bool has_packet(const struct rpc_stream *stream)
{
    const struct stream_data *data = g_queue_peek_head((GQueue *)(uintptr_t)&stream->data);

    return data && data->packet;
}

/* Writes what has come so far, in one go. */
static bool CO_FN co_write_packets(struct rpc_stream *stream, struct pool_error **err)
{
    struct stream_data *data[VOLUME_STREAM_SEGMENTS_MAX];
    struct iovec segments[VOLUME_STREAM_SEGMENTS_MAX];
    int count = 0;
    bool ok;

    while (count < VOLUME_STREAM_SEGMENTS_MAX && has_packet(stream)) {
        data[count] = g_queue_pop_head(&stream->data);
        segments[count] = (struct iovec){
            .iov_base = data[count]->packet + RPC_HEADER_SIZE,
            .iov_len = data[count]->length - RPC_HEADER_SIZE,
        };
        count++;
    }
    ok = co_volume_stream_write(stream->volume, segments, count, err);
    for (int i = 0; i < count; i++)
        data_done(stream, data[i]);
    return ok;
}

static bool CO_FN co_write_hole(struct rpc_stream *stream, struct pool_error **err)
{
    struct stream_data *data = g_queue_pop_head(&stream->data);
    bool ok = co_volume_stream_write_hole(stream->volume, data->hole, err);

    data_done(stream, data);
    return ok;
}

static void CO_FN co_upload(struct rpc_stream *stream)
{
    while (!is_over(stream)) {
        struct pool_error *error = NULL;

        if (stream->stop) {
            fail_stopped(stream);
        } else if (!g_queue_is_empty(&stream->data)) {
            if (!(has_packet(stream) ? co_write_packets(stream, &error) : co_write_hole(stream, &error)))
                fail(stream, error);
        } else if (stream->bad_hole) {
            fail_hole(stream);
        } else if (stream->finish) {
            if (!co_volume_stream_finish(stream->volume, &error))
                fail(stream, error);
            return;
        } else {
            co_condition_wait_always(&stream->wake, NULL);
        }
    }
}

/* --- downloads --- */

static void chunk_sent(struct rpc_client *client, struct rpc_output *output)
{
    struct stream_chunk *chunk = container_of(output, struct stream_chunk, output);

    chunk->busy = false;
    rpc_stream_wake(chunk->stream);
}

static struct stream_chunk *free_chunk(struct rpc_stream *stream)
{
    for (int i = 0; i < CHUNKS; i++) {
        if (!stream->chunks[i].busy)
            return &stream->chunks[i];
    }
    return NULL;
}

static bool all_sent(const struct rpc_stream *stream)
{
    for (int i = 0; i < CHUNKS; i++) {
        if (stream->chunks[i].busy)
            return false;
    }
    return true;
}

static void send_chunk(struct stream_chunk *chunk, size_t size)
{
    struct rpc_header header = chunk->stream->header;

    header.status = RPC_CONTINUE;
    header.length = (uint32_t)(RPC_HEADER_SIZE + size);
    rpc_header_encode(&header, chunk->output.data);
    chunk->output.size = header.length;
    chunk->output.sent = chunk_sent;
    chunk->busy = true;
    rpc_client_send(chunk->stream->client, &chunk->output);
}

static void send_hole(struct rpc_stream *stream, uint64_t bytes)
{
    struct rpc_header header = stream->header;
    union rpc_value values[] = {{.h = bytes}, {.u = 0}};

    header.type = RPC_STREAM_HOLE;
    header.status = RPC_CONTINUE;
    rpc_client_send_values(stream->client, header, "hu", values);
}

/* The next piece; false: that was all, or it has failed. */
static bool CO_FN co_download_piece(struct rpc_stream *stream, struct stream_chunk *chunk)
{
    struct pool_error *error = NULL;
    uint64_t hole = 0;
    int64_t size;

    if (!chunk->output.data) {
        chunk->stream = stream;
        chunk->output.data = g_malloc(RPC_HEADER_SIZE + RPC_STREAM_CHUNK);
    }
    size = co_volume_stream_read(stream->volume, chunk->output.data + RPC_HEADER_SIZE, RPC_STREAM_CHUNK, &hole, &error);
    if (size < 0) {
        fail(stream, error);
        return false;
    }
    if (size)
        send_chunk(chunk, (size_t)size);
    else if (hole)
        send_hole(stream, hole);
    return size || hole;
}

static void CO_FN co_download(struct rpc_stream *stream)
{
    bool more = true;

    while (!is_over(stream) && !stream->finish) {
        struct stream_chunk *chunk = free_chunk(stream);

        if (stream->stop) {
            fail_stopped(stream);
        } else if (stream->bad_hole) {
            fail_hole(stream);
        } else if (!more || !chunk) {
            co_condition_wait_always(&stream->wake, NULL);
        } else {
            more = co_download_piece(stream, chunk);
            if (!more && !stream->failed)
                send_status(stream, RPC_CONTINUE); /* with nothing in it: the end */
        }
    }
    while (!all_sent(stream))
        co_condition_wait_always(&stream->wake, NULL);
}

/* --- life --- */

bool rpc_stream_may_open(const struct rpc_client *client, struct pool_error **err)
{
    return client->streams->len < STREAMS_MAX ||
           pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_INTERNAL,
                                 "too many streams on one connection (at most %d)", STREAMS_MAX);
}

static void CO_FN co_stream_live(void *opaque)
{
    struct rpc_stream *stream = opaque;
    struct rpc_client *client = stream->client;
    struct stream_data *data;

    if (stream->upload)
        co_upload(stream);
    else
        co_download(stream);
    stream->ended = true;
    co_volume_stream_close(stream->volume);
    if (!stream->failed)
        send_status(stream, RPC_OK);
    while ((data = g_queue_pop_head(&stream->data)))
        data_done(stream, data);
    g_ptr_array_remove(client->streams, stream);
    rpc_client_stream_ended(client);
    for (int i = 0; i < CHUNKS; i++)
        g_free(stream->chunks[i].output.data);
    co_condition_done(&stream->wake);
    g_free(stream);
    rpc_client_unref(client);
}

void rpc_stream_open(struct rpc_client *client, const struct rpc_header *header, struct volume_stream *volume,
                     bool upload, bool sparse)
{
    struct rpc_stream *stream = g_new0(struct rpc_stream, 1);

    stream->client = rpc_client_ref(client);
    stream->header = *header;
    stream->header.type = RPC_STREAM;
    stream->header.status = RPC_OK;
    stream->volume = volume;
    stream->upload = upload;
    stream->sparse = sparse;
    g_queue_init(&stream->data);
    g_ptr_array_add(client->streams, stream);
    co_spawn(client->server->loop, co_stream_live, stream);
}
