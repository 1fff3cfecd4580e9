/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keeps: (1) a flight is in `flights` from its call's start to its end; (2) it ends when it has been answered and its
 * bytes have been taken by the stream (an answer may be seen first), or, once the link is broken, when neither sender
 * nor receiver is there any more: until then they may use its memory; (3) the sender is there while something is
 * queued, the receiver while some flight has no answer.
 */
#include "driver/protocol/nbd/link.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/trace.h"
#include "base/units.h"
#include "driver/protocol/nbd/coverage.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "loop/stream.h"

enum {
    FLIGHTS_MAX = 128,
    COOKIE_SLOT_BITS = 8,
    BUFFER_BYTES = 64 * 1024,
    SEGMENTS_MAX = 256,                                  /* handed to the stream at once */
    ERROR_PAYLOAD_BYTES_MAX = NBD_STRING_BYTES_MAX + 14, /* number, length, text, offset */
    DATA_HEAD_BYTES = 8,
    HOLE_PAYLOAD_BYTES = 12,
    GOODBYE_SECONDS = 2,
};
static_assert(FLIGHTS_MAX <= 1 << COOKIE_SLOT_BITS, "a cookie holds the number of its flight");

/* A call under way; on its caller's stack. */
struct flight {
    struct nbd_transfer *transfer;
    struct coroutine *caller;
    struct flight *next; /* in the queue of the sender */
    struct nbd_coverage coverage;
    int error; /* positive errno that the server has sent; 0: none so far */
    int result;
    bool has_extent;
    bool sent;
    bool answered;
    bool done;
    uint8_t head_bytes;
    uint8_t head[NBD_CLIENT_REQUEST_BYTES_MAX];
};

struct nbd_link {
    unsigned references;
    struct stream *stream;
    struct loop *loop;
    enum nbd_mode mode;
    uint32_t context_id;
    uint64_t serial;
    struct flight *flights[FLIGHTS_MAX];
    unsigned in_flight;
    unsigned unanswered;
    struct flight *queue;
    struct flight **queue_end;
    bool sending;
    bool receiving;
    bool broken;
    struct co_condition room; /* broadcast when a flight ends */
    uint8_t *buffer;          /* of the receiver: [start, end) has come and is not used yet */
    size_t start;
    size_t end;
    struct iovec segments[SEGMENTS_MAX]; /* of the sender */
};

struct nbd_link *nbd_link_new(struct stream *stream, struct loop *loop, enum nbd_mode mode, uint32_t context_id)
{
    struct nbd_link *link = g_new0(struct nbd_link, 1);

    link->references = 1;
    link->stream = stream;
    link->loop = loop;
    link->mode = mode;
    link->context_id = context_id;
    link->queue_end = &link->queue;
    link->buffer = g_malloc(BUFFER_BYTES);
    return link;
}

struct nbd_link *nbd_link_ref(struct nbd_link *link)
{
    assert(link->references);
    link->references++;
    return link;
}

void nbd_link_unref(struct nbd_link *link)
{
    if (!link || --link->references)
        return;
    assert(!link->in_flight && !link->sending && !link->receiving);
    stream_free(link->stream);
    co_condition_done(&link->room);
    g_free(link->buffer);
    g_free(link);
}

bool nbd_link_is_broken(const struct nbd_link *link)
{
    return link->broken;
}

struct loop *nbd_link_loop(const struct nbd_link *link)
{
    return link->loop;
}

/* --- ends of flights --- */

static void end_flight(struct flight *flight)
{
    assert(!flight->done);
    flight->done = true;
    co_wake(flight->caller);
}

static void answer_flight(struct nbd_link *link, struct flight *flight, int result)
{
    assert(!flight->answered);
    flight->answered = true;
    flight->result = result;
    link->unanswered--;
    if (flight->sent)
        end_flight(flight);
}

/* Called when one of sender and receiver has come to its end: the last one gives the calls back. */
static void settle_broken(struct nbd_link *link)
{
    if (!link->broken || link->sending || link->receiving)
        return;
    link->queue = NULL;
    link->queue_end = &link->queue;
    for (unsigned i = 0; i < FLIGHTS_MAX; i++) {
        struct flight *flight = link->flights[i];

        if (!flight || flight->done)
            continue;
        if (!flight->answered) {
            flight->answered = true;
            flight->result = NBD_LINK_LOST;
            link->unanswered--;
        }
        end_flight(flight);
    }
}

/* Breaks it: sender and receiver end, and the last of them gives the calls back as lost. */
static void abort_link(struct nbd_link *link)
{
    if (link->broken)
        return;
    TRACE(nbd_client_link_broken, "link %p with %u calls", (void *)link, link->in_flight);
    link->broken = true;
    stream_abort(link->stream);
    co_condition_broadcast(&link->room);
}

/* --- sending --- */

/* The segments of one flight; at most `room` of them, or -1. */
static int collect_segments(const struct flight *flight, struct iovec *to, unsigned room)
{
    const struct nbd_transfer *transfer = flight->transfer;
    unsigned count = 0;

    if (transfer->call.type == NBD_CMD_WRITE)
        count = io_vector_slice_count(transfer->iov, transfer->iov_offset, transfer->call.bytes);
    if (count + 1 > room)
        return -1;
    to[0] = (struct iovec){.iov_base = (void *)(uintptr_t)flight->head, .iov_len = flight->head_bytes};
    if (count)
        io_vector_slice(transfer->iov, transfer->iov_offset, transfer->call.bytes, to + 1);
    return (int)count + 1;
}

/* A flight whose segments are too many for the link's array. */
static int CO_FN co_send_large(struct nbd_link *link, const struct flight *flight)
{
    const struct nbd_transfer *transfer = flight->transfer;
    unsigned room = io_vector_slice_count(transfer->iov, transfer->iov_offset, transfer->call.bytes) + 1;
    g_autofree struct iovec *segments = g_new(struct iovec, room);
    int count = collect_segments(flight, segments, room);

    assert(count > 0);
    return co_stream_writev(link->stream, segments, count);
}

/* Sends what is queued, as much as fits into one go. */
static int CO_FN co_send_batch(struct nbd_link *link)
{
    struct flight *batch = link->queue, **end = &batch, *next;
    unsigned count = 0;
    int ret;

    while (link->queue) {
        int added = collect_segments(link->queue, link->segments + count, SEGMENTS_MAX - count);

        if (added < 0)
            break;
        count += (unsigned)added;
        end = &link->queue->next;
        link->queue = *end;
    }
    if (!count) {
        end = &link->queue->next;
        link->queue = *end;
    }
    *end = NULL;
    if (!link->queue)
        link->queue_end = &link->queue;
    ret = count ? co_stream_writev(link->stream, link->segments, (int)count) : co_send_large(link, batch);
    if (ret < 0)
        return ret;
    for (struct flight *flight = batch; flight; flight = next) {
        next = flight->next;
        flight->sent = true;
        if (flight->answered)
            end_flight(flight);
    }
    return 0;
}

static void CO_FN co_send(void *opaque)
{
    struct nbd_link *link = opaque;
    int ret = 0;

    while (link->queue && !link->broken && !ret)
        ret = co_send_batch(link);
    link->sending = false;
    if (ret < 0)
        abort_link(link);
    co_condition_broadcast(&link->room);
    settle_broken(link);
}

/* --- receiving --- */

/* Has at least `size` bytes in the buffer. */
static int CO_FN co_fill(struct nbd_link *link, size_t size)
{
    assert(size <= BUFFER_BYTES);
    if (link->end - link->start >= size)
        return 0;
    memmove(link->buffer, link->buffer + link->start, link->end - link->start);
    link->end -= link->start;
    link->start = 0;
    while (link->end < size) {
        ssize_t moved = co_stream_read(link->stream, link->buffer + link->end, BUFFER_BYTES - link->end);

        if (moved <= 0)
            return moved < 0 ? (int)moved : -ECONNRESET;
        link->end += (size_t)moved;
    }
    return 0;
}

static int CO_FN co_take(struct nbd_link *link, void *to, size_t size)
{
    size_t buffered = MIN(size, link->end - link->start);

    memcpy(to, link->buffer + link->start, buffered);
    link->start += buffered;
    return size == buffered ? 0 : co_stream_read_exact(link->stream, (uint8_t *)to + buffered, size - buffered);
}

/* Into the part [offset, offset + size) of what the flight reads. */
static int CO_FN co_take_data(struct nbd_link *link, const struct flight *flight, size_t offset, size_t size)
{
    const struct io_vector *iov = flight->transfer->iov;

    offset += flight->transfer->iov_offset;
    for (unsigned i = 0; i < iov->count && size; i++) {
        const struct iovec *segment = &iov->segments[i];
        size_t part;
        int ret;

        if (offset >= segment->iov_len) {
            offset -= segment->iov_len;
            continue;
        }
        part = MIN(size, segment->iov_len - offset);
        ret = co_take(link, (uint8_t *)segment->iov_base + offset, part);
        if (ret < 0)
            return ret;
        offset = 0;
        size -= part;
    }
    assert(!size);
    return 0;
}

/* Whether the answer may fill this part of what the flight reads; `offset` is the export's. */
static bool claim_part(struct flight *flight, uint64_t offset, uint64_t bytes)
{
    const struct nbd_call *call = &flight->transfer->call;

    return bytes && offset >= call->offset && range_fits(offset - call->offset, bytes, call->bytes) &&
           nbd_coverage_add(&flight->coverage, offset - call->offset, bytes);
}

static int CO_FN co_take_data_chunk(struct nbd_link *link, struct flight *flight, uint64_t length)
{
    uint8_t head[DATA_HEAD_BYTES];
    uint64_t offset;
    int ret;

    if (flight->transfer->call.type != NBD_CMD_READ || length <= DATA_HEAD_BYTES)
        return -EPROTO;
    ret = co_take(link, head, sizeof(head));
    if (ret < 0)
        return ret;
    offset = load_be64(head);
    length -= DATA_HEAD_BYTES;
    if (!claim_part(flight, offset, length))
        return -EPROTO;
    return co_take_data(link, flight, offset - flight->transfer->call.offset, length);
}

static int CO_FN co_take_hole_chunk(struct nbd_link *link, struct flight *flight, uint64_t length)
{
    const struct nbd_transfer *transfer = flight->transfer;
    uint8_t payload[HOLE_PAYLOAD_BYTES];
    uint64_t offset;
    uint32_t bytes;
    int ret;

    if (transfer->call.type != NBD_CMD_READ || length != HOLE_PAYLOAD_BYTES)
        return -EPROTO;
    ret = co_take(link, payload, sizeof(payload));
    if (ret < 0)
        return ret;
    offset = load_be64(payload);
    bytes = load_be32(payload + 8);
    if (!claim_part(flight, offset, bytes))
        return -EPROTO;
    io_vector_fill(transfer->iov, transfer->iov_offset + (offset - transfer->call.offset), 0, bytes);
    return 0;
}

static int CO_FN co_take_status_chunk(struct nbd_link *link, struct flight *flight, uint16_t type, uint64_t length)
{
    bool extended = type == NBD_REPLY_BLOCK_STATUS_EXT;
    g_autofree uint8_t *payload = NULL;
    int ret;

    if (flight->transfer->call.type != NBD_CMD_BLOCK_STATUS || flight->has_extent ||
        extended != (link->mode == NBD_MODE_EXTENDED) || length > NBD_STATUS_PAYLOAD_BYTES_MAX)
        return -EPROTO;
    payload = g_malloc(length + 1);
    ret = co_take(link, payload, length);
    if (ret < 0)
        return ret;
    if (!nbd_status_payload_decode(payload, length, type, link->context_id, &flight->transfer->extent))
        return -EPROTO;
    flight->has_extent = true;
    return 0;
}

static int CO_FN co_take_error_chunk(struct nbd_link *link, struct flight *flight, uint16_t type, uint64_t length)
{
    uint8_t payload[ERROR_PAYLOAD_BYTES_MAX];
    int errno_value, ret;

    if (length > sizeof(payload))
        return -EPROTO;
    ret = co_take(link, payload, length);
    if (ret < 0)
        return ret;
    if (!nbd_error_payload_decode(payload, length, type, &errno_value))
        return -EPROTO;
    if (!flight->error)
        flight->error = errno_value;
    return 0;
}

static int CO_FN co_take_chunk(struct nbd_link *link, struct flight *flight, const struct nbd_reply_header *header)
{
    switch (header->type) {
    case NBD_REPLY_NONE:
        return header->length || !(header->flags & NBD_REPLY_FLAG_DONE) ? -EPROTO : 0;
    case NBD_REPLY_OFFSET_DATA:
        return co_take_data_chunk(link, flight, header->length);
    case NBD_REPLY_OFFSET_HOLE:
        return co_take_hole_chunk(link, flight, header->length);
    case NBD_REPLY_BLOCK_STATUS:
    case NBD_REPLY_BLOCK_STATUS_EXT:
        return co_take_status_chunk(link, flight, header->type, header->length);
    default:
        /* Errors of kinds to come have the known start. */
        return header->type & (1u << 15) ? co_take_error_chunk(link, flight, header->type, header->length) : -EPROTO;
    }
}

static int CO_FN co_take_simple(struct nbd_link *link, struct flight *flight, const struct nbd_reply_header *header)
{
    const struct nbd_call *call = &flight->transfer->call;

    if (header->error) {
        flight->error = nbd_error_to_errno(header->error);
        return 0;
    }
    if (call->type == NBD_CMD_BLOCK_STATUS || (call->type == NBD_CMD_READ && link->mode != NBD_MODE_SIMPLE))
        return -EPROTO;
    if (call->type != NBD_CMD_READ)
        return 0;
    return claim_part(flight, call->offset, call->bytes) ? co_take_data(link, flight, 0, call->bytes) : -EPROTO;
}

/* What the whole answer says: 0, -errno, or -EPROTO for one that lacks something. */
static int final_result(const struct flight *flight, bool *ret_violation)
{
    const struct nbd_call *call = &flight->transfer->call;

    *ret_violation = false;
    if (flight->error)
        return -flight->error;
    *ret_violation = (call->type == NBD_CMD_READ && flight->coverage.prefix != call->bytes) ||
                     (call->type == NBD_CMD_BLOCK_STATUS && !flight->has_extent);
    return *ret_violation ? -EPROTO : 0;
}

static struct flight *find_flight(const struct nbd_link *link, uint64_t cookie)
{
    uint64_t slot = cookie & ((1u << COOKIE_SLOT_BITS) - 1);
    struct flight *flight = slot < FLIGHTS_MAX ? link->flights[slot] : NULL;

    return flight && !flight->answered && flight->transfer->call.cookie == cookie ? flight : NULL;
}

/* One reply, or one part of a structured one. */
static int CO_FN co_receive_one(struct nbd_link *link)
{
    struct nbd_reply_header header;
    struct flight *flight;
    bool violation;
    size_t size;
    int ret = co_fill(link, sizeof(uint32_t));

    if (ret < 0)
        return ret;
    size = nbd_reply_header_bytes(load_be32(link->buffer + link->start), link->mode);
    if (!size)
        return -EPROTO;
    ret = co_fill(link, size);
    if (ret < 0)
        return ret;
    nbd_reply_header_decode(link->buffer + link->start, &header);
    link->start += size;
    flight = find_flight(link, header.cookie);
    if (!flight)
        return -EPROTO;
    ret = header.simple ? co_take_simple(link, flight, &header) : co_take_chunk(link, flight, &header);
    if (ret < 0 || !(header.flags & NBD_REPLY_FLAG_DONE))
        return ret;
    ret = final_result(flight, &violation);
    /* A server that shuts down is to be left; the call may be repeated on another connection. */
    if (violation || ret == -ESHUTDOWN)
        return ret;
    answer_flight(link, flight, ret);
    return 0;
}

/* Leaves a server that wants it: nothing more is sent but that, in its place behind what is being sent. */
static void CO_FN co_leave(struct nbd_link *link)
{
    struct nbd_call call = {.type = NBD_CMD_DISC};
    uint8_t head[NBD_CLIENT_REQUEST_BYTES_MAX];
    size_t size = nbd_call_encode(head, link->mode, &call);
    struct co_deadline deadline;
    int ret = 0;

    if (link->broken)
        return;
    link->broken = true;
    co_deadline_begin(&deadline, GOODBYE_SECONDS * NS_PER_S);
    co_condition_broadcast(&link->room);
    while (link->sending && !ret)
        ret = co_condition_wait(&link->room, NULL);
    if (!ret && !co_stream_write(link->stream, head, size))
        co_stream_shutdown(link->stream);
    co_deadline_end(&deadline);
    stream_abort(link->stream);
}

static void CO_FN co_receive(void *opaque)
{
    struct nbd_link *link = opaque;
    int ret = 0;

    while (link->unanswered && !link->broken && !ret)
        ret = co_receive_one(link);
    if (ret == -ESHUTDOWN)
        co_leave(link);
    link->receiving = false;
    if (ret == -EPROTO)
        TRACE(nbd_client_protocol_error, "link %p", (void *)link);
    if (ret < 0)
        abort_link(link);
    settle_broken(link);
}

/* --- calls --- */

static void begin_flight(struct nbd_link *link, struct flight *flight)
{
    struct nbd_call *call = &flight->transfer->call;
    unsigned slot = 0;

    while (link->flights[slot])
        slot++;
    assert(slot < FLIGHTS_MAX);
    link->flights[slot] = flight;
    link->in_flight++;
    link->unanswered++;
    call->cookie = ++link->serial << COOKIE_SLOT_BITS | slot;
    flight->head_bytes = (uint8_t)nbd_call_encode(flight->head, link->mode, call);
    *link->queue_end = flight;
    link->queue_end = &flight->next;
    if (!link->sending) {
        link->sending = true;
        co_spawn(link->loop, co_send, link);
    }
    if (!link->receiving) {
        link->receiving = true;
        co_spawn(link->loop, co_receive, link);
    }
}

int co_nbd_link_call(struct nbd_link *link, struct nbd_transfer *transfer)
{
    struct flight flight = {.transfer = transfer, .caller = co_self()};

    assert(loop_current() == link->loop);
    while (!link->broken && link->in_flight == FLIGHTS_MAX)
        co_condition_wait_always(&link->room, NULL);
    if (link->broken)
        return NBD_LINK_LOST;
    begin_flight(link, &flight);
    while (!flight.done)
        co_suspend();
    link->flights[transfer->call.cookie & ((1u << COOKIE_SLOT_BITS) - 1)] = NULL;
    link->in_flight--;
    nbd_coverage_done(&flight.coverage);
    co_condition_broadcast(&link->room);
    return flight.result;
}

void co_nbd_link_goodbye(struct nbd_link *link)
{
    struct nbd_call call = {.type = NBD_CMD_DISC};
    uint8_t head[NBD_CLIENT_REQUEST_BYTES_MAX];
    size_t size = nbd_call_encode(head, link->mode, &call);

    assert(!link->in_flight);
    if (link->broken || co_stream_write(link->stream, head, size) < 0)
        return;
    co_stream_shutdown(link->stream);
}
