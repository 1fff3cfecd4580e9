/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a client's bytes to requests that run.
 *
 * What is there is read in one go, into a small buffer of the client's own, or when that gets full, into a large one
 * from the loop; nobody waits for requests holding a large one. Each request in it gets a coroutine. The payload of a
 * write goes into that request's own memory, what is not yet there directly from the socket. When the client has as
 * many requests in flight, or as much memory, as it may have, no more is read until some are answered: who doesn't read
 * his replies can send no more requests.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/trace.h"
#include "base/units.h"
#include "block/handle.h"
#include "export/nbd/nbd.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/stream.h"

enum { DROP_CHECK_MS = 50, DROP_CHECKS = 4 };

static size_t receiver_left(const struct nbd_receiver *receiver)
{
    return receiver->end - receiver->start;
}

static void receiver_use(struct nbd_receiver *receiver, uint8_t *data, size_t capacity)
{
    assert(!receiver_left(receiver));
    if (receiver->data != data && receiver->data && receiver->data != receiver->idle)
        loop_buffer_put(receiver->data, receiver->capacity);
    receiver->data = data;
    receiver->capacity = capacity;
    receiver->start = receiver->end = 0;
}

/* Goes over to a large buffer, if there is memory for it. */
static void receiver_enlarge(struct nbd_receiver *receiver)
{
    uint8_t *large = receiver->capacity == NBD_RECEIVE_BYTES ? receiver->data : loop_buffer_get(NBD_RECEIVE_BYTES);

    if (large)
        receiver_use(receiver, large, NBD_RECEIVE_BYTES);
}

/* Reads something more; less than a header is there. 0 at the end, or -errno. */
static ssize_t CO_FN co_receive_more(struct nbd_client *client)
{
    struct nbd_receiver *receiver = &client->receiver;
    size_t left = receiver_left(receiver);
    ssize_t got = -EAGAIN;

    if (left) {
        memmove(receiver->data, receiver->data + receiver->start, left);
        receiver->start = 0;
        receiver->end = left;
    } else if (receiver->was_full) {
        receiver_enlarge(receiver);
        got = co_stream_read_now(client->stream, receiver->data, receiver->capacity);
    }
    if (got == -EAGAIN) {
        if (!left)
            receiver_use(receiver, receiver->idle, sizeof(receiver->idle));
        assert(receiver->end < receiver->capacity);
        got = co_stream_read(client->stream, receiver->data + receiver->end, receiver->capacity - receiver->end);
    }
    if (got > 0) {
        receiver->end += (size_t)got;
        receiver->was_full = receiver->end == receiver->capacity;
    }
    return got;
}

/* The next header; false when there is none: the client is through, or in error. */
static bool CO_FN co_receive_header(struct nbd_client *client, struct nbd_request_header *ret)
{
    struct nbd_receiver *receiver = &client->receiver;
    size_t needed = nbd_request_bytes(client->terms.mode);

    while (receiver_left(receiver) < needed) {
        if (co_receive_more(client) <= 0)
            return false;
    }
    if (!nbd_request_decode(receiver->data + receiver->start, client->terms.mode, ret)) {
        TRACE(nbd_bad_magic, "client %p", (void *)client);
        return false;
    }
    receiver->start += needed;
    return true;
}

/* `bytes` of payload to `to`. What comes behind it in the same call is kept for the next header. */
static bool CO_FN co_receive_payload(struct nbd_client *client, uint8_t *to, size_t bytes)
{
    struct nbd_receiver *receiver = &client->receiver;
    size_t done = MIN(bytes, receiver_left(receiver));

    memcpy(to, receiver->data + receiver->start, done);
    receiver->start += done;
    while (done < bytes) {
        struct iovec iov[2] = {{.iov_base = to + done, .iov_len = bytes - done}};
        ssize_t got;

        if (receiver->was_full)
            receiver_enlarge(receiver);
        iov[1] = (struct iovec){.iov_base = receiver->data, .iov_len = receiver->capacity};
        got = co_stream_readv(client->stream, iov, 2);
        if (got <= 0)
            return false;
        receiver->start = receiver->end = 0;
        if ((size_t)got > bytes - done)
            receiver->end = (size_t)got - (bytes - done);
        receiver->was_full = receiver->end == receiver->capacity;
        done += MIN((size_t)got, bytes - done);
    }
    return true;
}

/* Throws `bytes` of payload away. */
static bool CO_FN co_receive_nothing(struct nbd_client *client, uint64_t bytes)
{
    struct nbd_receiver *receiver = &client->receiver;

    for (;;) {
        size_t here = MIN(bytes, receiver_left(receiver));

        receiver->start += here;
        bytes -= here;
        if (!bytes)
            return true;
        if (co_receive_more(client) <= 0)
            return false;
    }
}

/* Waits until the client may have one more request, of `bytes` of memory; false: it is being dropped. */
static bool CO_FN co_wait_for_room(struct nbd_client *client, uint64_t bytes)
{
    while (client->requests_in_flight >= NBD_REQUESTS_MAX || !nbd_allowance_take(&client->allowance, bytes)) {
        if (co_condition_wait(&client->room, NULL) < 0 || client->broken)
            return false;
    }
    return true;
}

/* How much memory the request will hold. */
static uint64_t request_cost(const struct nbd_client *client, const struct nbd_request_header *header)
{
    switch (header->type) {
    case NBD_CMD_READ:
    case NBD_CMD_WRITE:
        return header->length;
    case NBD_CMD_BLOCK_STATUS:
        return (uint64_t)__builtin_popcountll(client->contexts) * NBD_STATUS_BYTES;
    default:
        return 0;
    }
}

/* Answers a request that will not run, whose payload is thrown away. */
static bool CO_FN co_refuse(struct nbd_client *client, const struct nbd_request_header *header, uint64_t payload,
                            enum nbd_error error, const char *why)
{
    struct nbd_request *request;

    TRACE(nbd_refused, "client %p type %u error %u: %s", (void *)client, header->type, error, why);
    if (payload > UINT32_MAX || !co_receive_nothing(client, payload) || !co_wait_for_room(client, 0))
        return false;
    request = nbd_request_new(client, header, 0);
    nbd_reply_error(request, error,
                    "%s (type %u) of %" PRIu64 " bytes at offset %" PRIu64 ", flags 0x%x, on export '%s' of %" PRIu64
                    " bytes: %s",
                    nbd_command_name(header->type), header->type, header->length, header->offset, header->flags,
                    client->export->short_name, handle_length(client->handle), why);
    return true;
}

/* Starts a request that has been checked; `contexts`: of a block status. */
static bool CO_FN co_start(struct nbd_client *client, const struct nbd_request_header *header, uint64_t contexts)
{
    uint64_t cost = request_cost(client, header);
    struct nbd_request *request;

    if (!co_wait_for_room(client, cost))
        return false;
    request = nbd_request_new(client, header, cost);
    request->contexts = contexts;
    if (header->type == NBD_CMD_WRITE) {
        if (!nbd_request_allocate(request, header->length)) {
            nbd_request_free(request);
            return co_refuse(client, header, header->length, NBD_ENOMEM, "no memory");
        }
        if (!co_receive_payload(client, request->buffer, header->length)) {
            nbd_request_free(request);
            return false;
        }
    }
    co_spawn(client->loop, nbd_request_run, request);
    return true;
}

/* A block status whose payload says how long a part is meant, and which contexts. */
static bool CO_FN co_start_filtered_status(struct nbd_client *client, struct nbd_request_header *header)
{
    uint8_t payload[NBD_STATUS_FILTER_BYTES_MAX];
    uint64_t bytes = header->length;
    struct nbd_status_filter filter;
    const char *why = "payload is longer than all contexts need";
    enum nbd_error error;

    if (bytes > sizeof(payload))
        return co_refuse(client, header, bytes, NBD_EINVAL, why);
    if (!co_receive_payload(client, payload, bytes))
        return false;
    if (!nbd_status_filter_decode(payload, bytes, client->contexts, &filter, &why))
        return co_refuse(client, header, 0, NBD_EINVAL, why);
    header->length = filter.length;
    error = nbd_request_check(header, &client->terms, handle_length(client->handle), &why);
    return error ? co_refuse(client, header, 0, error, why) : co_start(client, header, filter.contexts);
}

/* Takes in one request; false when there are no more. */
static bool CO_FN co_receive_request(struct nbd_client *client)
{
    struct nbd_request_header header;
    uint64_t payload;
    enum nbd_error error;
    const char *why;

    if (!co_receive_header(client, &header) || header.type == NBD_CMD_DISC)
        return false;
    payload = nbd_request_payload(&header, client->terms.mode);
    if (header.type == NBD_CMD_BLOCK_STATUS && payload && client->terms.flags & NBD_FLAG_BLOCK_STATUS_PAYLOAD)
        return co_start_filtered_status(client, &header);
    error = nbd_request_check(&header, &client->terms, handle_length(client->handle), &why);
    return error ? co_refuse(client, &header, payload, error, why) : co_start(client, &header, client->contexts);
}

/* Cuts off a client that is being dropped and has taken no reply for a while. Those that are not made yet are nobody's
 * delay. */
static void cut_off(void *opaque)
{
    struct nbd_client *client = opaque;
    unsigned before = client->requests_in_flight;

    for (unsigned stuck = 0; stuck < DROP_CHECKS;) {
        if (co_sleep_ns(DROP_CHECK_MS * NS_PER_MS) < 0)
            return;
        stuck = client->sending && client->requests_in_flight == before ? stuck + 1 : 0;
        before = client->requests_in_flight;
    }
    client->broken = true;
    stream_abort(client->stream);
}

/* Lets requests that have begun end, and their replies go out, which a client that is dropped has to take without
 * delay. */
static void CO_FN co_finish(struct nbd_client *client)
{
    struct co_task *guard = NULL;

    while (client->requests_in_flight || client->sending) {
        if (client->broken || guard)
            co_condition_wait_always(&client->room, NULL);
        else if (co_condition_wait(&client->room, NULL) < 0)
            guard = co_task_start(client->loop, cut_off, client);
    }
    if (guard)
        co_task_cancel(guard);
    co_task_join(guard);
}

void co_nbd_receive(struct nbd_client *client)
{
    assert(loop_current() == client->loop);
    client->receiver.data = client->receiver.idle;
    client->receiver.capacity = sizeof(client->receiver.idle);
    while (!client->broken && co_receive_request(client))
        continue;
    co_finish(client);
    client->receiver.start = client->receiver.end;
    receiver_use(&client->receiver, NULL, 0);
    nbd_allowance_done(&client->allowance);
}
