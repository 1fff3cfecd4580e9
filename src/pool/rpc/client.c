/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/rpc/client.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/units.h"
#include "loop/loop.h"
#include "loop/stream.h"
#include "pool/log.h"
#include "pool/pool-error.h"
#include "pool/rpc/call.h"
#include "pool/rpc/program.h"
#include "pool/rpc/stream.h"
#include "pool/rpc/xdr.h"

enum {
    INPUT_FIRST = 4096,         /* bytes for the first packets of a client */
    INPUT_LARGE = 64 << 10,     /* a larger packet is read alone, and its memory not kept */
    OUTPUT_VECTOR = 16,         /* packets that are sent in one go */
    SPARE_MAX = 1 << 20,        /* packets of more are not kept as spares */
    ANONYMOUS_MAX = 256 << 10,  /* the length of a packet from those of whom nothing is known */
    EVENTS_WAIT_MAX = 16 << 20, /* bytes that wait when another event comes: then nobody reads them */
};

/* --- life --- */

static void forget_spares(struct rpc_input *input)
{
    while (input->spares)
        g_free(input->spare[--input->spares].data);
}

struct rpc_client *rpc_client_ref(struct rpc_client *client)
{
    assert(client->references > 0);
    client->references++;
    return client;
}

void rpc_client_unref(struct rpc_client *client)
{
    struct rpc_server *server = client->server;

    assert(client->references > 0);
    if (--client->references)
        return;
    assert(!client->open);
    assert(!client->writing);
    assert(!client->streams->len);
    assert(g_queue_is_empty(&client->output));
    if (client->session)
        server->program->session_free(client->session);
    stream_free(client->stream);
    g_ptr_array_unref(client->streams);
    forget_spares(&client->input);
    g_free(client->input.data);
    g_free(client->peer.selinux);
    g_free(client->sasl_user);
    co_condition_done(&client->room);
    g_free(client);
    rpc_server_end(server);
}

/* Nothing of the output will be sent any more. */
static void forget_output(struct rpc_client *client)
{
    struct rpc_output *output;

    while ((output = g_queue_pop_head(&client->output)))
        output->sent(client, output);
    client->output_bytes = 0;
}

void rpc_client_drop(struct rpc_client *client)
{
    if (!client->open)
        return;
    client->open = false;
    pool_log_debug("rpc.client", "server %s: client %" PRIu64 " goes", client->server->name, client->id);
    rpc_server_remove_client(client->server, client, !client->authenticated);
    stream_abort(client->stream);
    if (!client->writing)
        forget_output(client);
    for (guint i = 0; i < client->streams->len; i++)
        rpc_stream_wake(client->streams->pdata[i]);
    co_condition_broadcast(&client->room);
}

void rpc_client_set_authenticated(struct rpc_client *client)
{
    if (client->authenticated)
        return;
    client->authenticated = true;
    if (client->open)
        rpc_server_client_known(client->server);
}

/* --- output --- */

/* Sends up to OUTPUT_VECTOR packets; false: the connection is broken. */
static bool CO_FN co_send_some(struct rpc_client *client)
{
    struct rpc_output *outputs[OUTPUT_VECTOR];
    struct iovec vector[OUTPUT_VECTOR];
    int count = 0;

    while (count < OUTPUT_VECTOR && !g_queue_is_empty(&client->output)) {
        struct rpc_output *output = g_queue_pop_head(&client->output);

        vector[count] = (struct iovec){.iov_base = output->data, .iov_len = output->size};
        outputs[count++] = output;
    }
    bool ok = !co_stream_writev(client->stream, vector, count);

    for (int i = 0; i < count; i++) {
        client->output_bytes -= outputs[i]->size;
        outputs[i]->sent(client, outputs[i]);
    }
    rpc_server_told(client->server);
    return ok;
}

static void CO_FN co_write_output(void *opaque)
{
    struct rpc_client *client = opaque;

    while (client->open && !g_queue_is_empty(&client->output)) {
        if (!co_send_some(client))
            rpc_client_drop(client);
    }
    client->writing = false;
    if (!client->open)
        forget_output(client);
    else if (client->closing)
        rpc_client_drop(client);
    rpc_client_unref(client);
}

void rpc_client_send(struct rpc_client *client, struct rpc_output *output)
{
    if (!client->open) {
        output->sent(client, output);
        return;
    }
    g_queue_push_tail(&client->output, output);
    client->output_bytes += output->size;
    if (!client->writing) {
        client->writing = true;
        co_spawn(client->server->loop, co_write_output, rpc_client_ref(client));
    }
}

static void free_output(struct rpc_client *client, struct rpc_output *output)
{
    explicit_bzero(output->data, output->size); /* it may be the value of a secret */
    g_free(output->data);
    g_free(output);
}

/* A reply: the call is through. */
static void reply_sent(struct rpc_client *client, struct rpc_output *output)
{
    free_output(client, output);
    rpc_client_request_end(client);
}

static void pong_sent(struct rpc_client *client, struct rpc_output *output)
{
    free_output(client, output);
    client->pong_waits = false;
}

/* `body` is taken; NULL: none. */
static void send_packet(struct rpc_client *client, struct rpc_header header, GByteArray *body,
                        void (*sent)(struct rpc_client *client, struct rpc_output *output))
{
    struct rpc_output *output = g_new0(struct rpc_output, 1);
    size_t size = body ? body->len : 0;

    assert(size <= RPC_PACKET_MAX - RPC_HEADER_SIZE);
    header.length = (uint32_t)(RPC_HEADER_SIZE + size);
    output->size = header.length;
    output->data = g_malloc(header.length);
    rpc_header_encode(&header, output->data);
    if (size) {
        memcpy(output->data + RPC_HEADER_SIZE, body->data, size);
        explicit_bzero(body->data, size);
    }
    if (body)
        g_byte_array_unref(body);
    output->sent = sent;
    rpc_client_send(client, output);
}

void rpc_error_encode(const struct pool_error *error, GByteArray *to)
{
    xdr_put_u32(to, error->code);
    xdr_put_u32(to, error->domain);
    xdr_put_optional_string(to, error->message);
    xdr_put_u32(to, 2); /* an error, not a warning */
    xdr_put_u32(to, 0); /* no domain */
    xdr_put_optional_string(to, error->str1);
    xdr_put_optional_string(to, error->str2);
    xdr_put_optional_string(to, error->str3);
    xdr_put_u32(to, (uint32_t)error->int1);
    xdr_put_u32(to, (uint32_t)error->int2);
    xdr_put_u32(to, 0); /* no network */
}

/* A reply ends its call; an error of a stream has no call any more. */
static void *sent_of(const struct rpc_header *header)
{
    return header->type == RPC_REPLY ? reply_sent : free_output;
}

void rpc_client_send_error(struct rpc_client *client, struct rpc_header header, const struct pool_error *error)
{
    GByteArray *body = g_byte_array_new();

    header.status = RPC_ERROR;
    rpc_error_encode(error, body);
    send_packet(client, header, body, sent_of(&header));
}

void rpc_client_send_values(struct rpc_client *client, struct rpc_header header, const char *layout,
                            const union rpc_value *values)
{
    GByteArray *body = g_byte_array_new();

    rpc_values_encode(layout, values, body);
    if (body->len > RPC_PACKET_MAX - RPC_HEADER_SIZE) {
        AUTO(pool_error) error = NULL;

        g_byte_array_unref(body);
        pool_error_set_domain(&error, POOL_DOMAIN_RPC, POOL_ERROR_RPC, "Unable to encode message payload");
        rpc_client_send_error(client, header, error);
        return;
    }
    send_packet(client, header, body, sent_of(&header));
}

void rpc_client_send_event(struct rpc_client *client, int32_t procedure, const char *layout,
                           const union rpc_value *values)
{
    struct rpc_header header = {
        .program = client->server->program->number,
        .version = RPC_VERSION,
        .procedure = procedure,
        .type = RPC_MESSAGE,
        .serial = 1, /* as libvirt's daemons do; clients do not look at it */
    };

    if (!client->open)
        return;
    if (client->output_bytes > EVENTS_WAIT_MAX) {
        pool_log_warning("rpc.client", "server %s: client %" PRIu64 " does not read its events, and is dropped",
                         client->server->name, client->id);
        rpc_client_drop(client);
        return;
    }
    rpc_client_send_values(client, header, layout, values);
}

/* --- requests --- */

void rpc_client_request_begin(struct rpc_client *client)
{
    client->requests++;
}

void rpc_client_request_end(struct rpc_client *client)
{
    assert(client->requests > 0);
    client->requests--;
    co_condition_signal(&client->room);
}

/* --- signs of life --- */

static void send_keepalive(struct rpc_client *client, int32_t procedure)
{
    struct rpc_header header = {
        .program = RPC_PROGRAM_KEEPALIVE, .version = RPC_VERSION, .procedure = procedure, .type = RPC_MESSAGE};

    if (procedure == RPC_KEEPALIVE_PONG) {
        /* One tells as much as several, and who does not read them makes us keep one only. */
        if (client->pong_waits)
            return;
        client->pong_waits = true;
    }
    send_packet(client, header, NULL, procedure == RPC_KEEPALIVE_PONG ? pong_sent : free_output);
}

void rpc_client_answer_ping(struct rpc_client *client)
{
    send_keepalive(client, RPC_KEEPALIVE_PONG);
}

void rpc_client_start_pinging(struct rpc_client *client)
{
    if (client->server->keepalive_interval_s <= 0)
        return;
    client->ping_interval_ns = client->server->keepalive_interval_s * NS_PER_S;
    client->ping_at_ns = loop_now_ns() + client->ping_interval_ns;
}

static void heard(struct rpc_client *client)
{
    client->pings_missed = 0;
    client->ping_at_ns = loop_now_ns() + client->ping_interval_ns;
}

/* The client was silent. False: for too long. */
static bool ping(struct rpc_client *client)
{
    if (client->pings_missed >= client->server->keepalive_count) {
        pool_log_warning("rpc.client", "server %s: client %" PRIu64 " is dead: no answer to %u pings",
                         client->server->name, client->id, client->pings_missed);
        return false;
    }
    client->pings_missed++;
    client->ping_at_ns = loop_now_ns() + client->ping_interval_ns;
    send_keepalive(client, RPC_KEEPALIVE_PING);
    return true;
}

/* --- input --- */

/* Whether the client says who it is in time. One that waits for our answer has longer. */
static bool is_patience_left(struct rpc_client *client)
{
    int64_t now_ns = loop_now_ns();

    if (client->authenticated || !client->anonymous_until_ns || now_ns < client->anonymous_until_ns)
        return true;
    if (client->requests) {
        client->anonymous_until_ns = now_ns + NS_PER_S;
        return true;
    }
    pool_log_warning("rpc.client", "server %s: client %" PRIu64 " has not authenticated within %d seconds",
                     client->server->name, client->id, client->server->anonymous_s);
    return false;
}

/* When to look after the client though it says nothing; INT64_MAX: never. */
static int64_t next_look_ns(const struct rpc_client *client)
{
    int64_t at_ns = client->ping_interval_ns ? client->ping_at_ns : INT64_MAX;

    return !client->authenticated && client->anonymous_until_ns ? MIN(at_ns, client->anonymous_until_ns) : at_ns;
}

/* Some bytes: their number, or 0 at the end of the connection. */
static size_t CO_FN co_read_some(struct rpc_client *client, uint8_t *to, size_t size)
{
    while (client->open && is_patience_left(client)) {
        struct co_deadline deadline;
        int64_t look_at_ns = next_look_ns(client);
        ssize_t count;

        if (look_at_ns != INT64_MAX)
            co_deadline_begin(&deadline, MAX(look_at_ns - loop_now_ns(), 1));
        count = co_stream_read(client->stream, to, size);
        if (look_at_ns != INT64_MAX)
            co_deadline_end(&deadline);
        if (count != -ETIMEDOUT) {
            heard(client);
            return count > 0 ? (size_t)count : 0;
        }
        if (client->ping_interval_ns && loop_now_ns() >= client->ping_at_ns && !ping(client))
            break;
    }
    return 0;
}

/* Room for `size` bytes from `begin` on. */
static void reserve(struct rpc_input *input, size_t size)
{
    size_t have = input->end - input->begin;

    if (input->capacity - input->begin >= size)
        return;
    if (input->begin) {
        memmove(input->data, input->data + input->begin, have);
        input->begin = 0;
        input->end = have;
    }
    if (!input->data && input->spares && input->spare[input->spares - 1].size >= size) {
        input->spares--;
        input->data = input->spare[input->spares].data;
        input->capacity = input->spare[input->spares].size;
    } else if (input->capacity < size) {
        input->data = g_realloc(input->data, size);
        input->capacity = size;
    }
}

/*
 * Reads more of a packet of `length` bytes; 0: not known yet. Memory grows as bytes come, so that a length alone costs
 * us nothing. Large packets are read alone; and what comes after one is likely to be another of the same length.
 */
static bool CO_FN co_read_more(struct rpc_client *client, size_t length)
{
    struct rpc_input *input = &client->input;
    size_t have = input->end - input->begin;
    size_t wanted = length ? length : MAX(input->last_large, INPUT_FIRST);
    size_t count;

    if (input->skip)
        wanted = INPUT_FIRST;
    reserve(input, MIN(wanted, MAX(input->last_large, MAX(2 * have, INPUT_FIRST))));
    count = input->capacity - input->end;
    if (wanted > INPUT_LARGE)
        count = MIN(count, wanted - have);
    count = co_read_some(client, input->data + input->end, count);
    input->end += count;
    return count;
}

/* Nothing waits in the input: its memory goes back where it is much. */
static void input_empty(struct rpc_client *client)
{
    struct rpc_input *input = &client->input;

    input->begin = input->end = 0;
    if (client->streams->len)
        return;
    input->last_large = 0;
    if (input->capacity > INPUT_LARGE) {
        g_clear_pointer(&input->data, g_free);
        input->capacity = 0;
    }
}

/* The next packet, which stays valid until the next call; NULL: there is none. */
static const uint8_t *CO_FN co_next_packet(struct rpc_client *client, size_t *ret_length)
{
    struct rpc_input *input = &client->input;

    if (input->begin == input->end)
        input_empty(client);
    for (;;) {
        size_t have = input->end - input->begin;
        size_t skipped = MIN(input->skip, have);
        uint32_t length = 0;

        input->skip -= skipped;
        input->begin += skipped;
        have -= skipped;
        if (!input->skip && have >= RPC_LENGTH_SIZE) {
            length = load_be32(input->data + input->begin);
            if (!rpc_length_valid(length) || (length > ANONYMOUS_MAX && !client->authenticated)) {
                pool_log_warning("rpc.client", "server %s: client %" PRIu64 " sends a packet of length %u",
                                 client->server->name, client->id, length);
                return NULL;
            }
            if (have >= length) {
                const uint8_t *packet = input->data + input->begin;

                input->begin += length;
                input->last_large = length > INPUT_LARGE ? length : 0;
                *ret_length = length;
                return packet;
            }
        }
        if (!co_read_more(client, length))
            return NULL;
    }
}

uint8_t *rpc_client_take_packet(struct rpc_client *client, const uint8_t *packet, size_t length)
{
    struct rpc_input *input = &client->input;

    assert(packet + length == input->data + input->begin);
    if (packet == input->data && input->begin == input->end && length > INPUT_LARGE) {
        input->begin = input->end = input->capacity = 0;
        return TAKE(input->data);
    }
    return g_memdup2(packet, length);
}

void rpc_client_return_packet(struct rpc_client *client, uint8_t *data, size_t size)
{
    struct rpc_input *input = &client->input;

    if (!input->data && client->open) {
        input->data = data;
        input->capacity = size;
    } else if (client->streams->len && input->spares < RPC_SPARES_MAX && size <= SPARE_MAX) {
        input->spare[input->spares].data = data;
        input->spare[input->spares++].size = size;
    } else {
        g_free(data);
    }
}

void rpc_client_stream_ended(struct rpc_client *client)
{
    rpc_server_told(client->server);
    if (!client->streams->len)
        forget_spares(&client->input);
}

static void CO_FN co_serve(void *opaque)
{
    struct rpc_client *client = opaque;
    const uint8_t *packet;
    size_t length;

    if (client->server->program->co_begin)
        client->server->program->co_begin(client);
    while (client->open && !client->closing && (packet = co_next_packet(client, &length))) {
        if (!co_rpc_packet_accept(client, packet, length))
            break;
    }
    if (!client->closing)
        rpc_client_drop(client);
    rpc_client_unref(client);
}

/* --- beginning --- */

static void look_at_peer(struct rpc_peer *peer, int fd)
{
    struct ucred credentials;
    socklen_t size = sizeof(credentials);
    char context[256];

    peer->pid = 0;
    peer->uid = (uid_t)-1;
    peer->gid = (gid_t)-1;
    if (!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size)) {
        peer->pid = credentials.pid;
        peer->uid = credentials.uid;
        peer->gid = credentials.gid;
    }
    size = sizeof(context) - 1;
    if (!access("/sys/fs/selinux/enforce", F_OK) && !getsockopt(fd, SOL_SOCKET, SO_PEERSEC, context, &size)) {
        context[size] = 0;
        peer->selinux = g_strdup(context);
    }
}

void rpc_client_start(struct rpc_server *server, int fd, const struct rpc_socket_options *options)
{
    struct rpc_client *client = g_new0(struct rpc_client, 1);

    client->references = 1;
    client->server = server;
    client->since_s = loop_wall_time_us() / 1000000;
    client->since_ns = loop_now_ns();
    client->stream = stream_new_socket(fd);
    client->auth = options->auth;
    client->read_only = options->read_only;
    client->authenticated = options->auth == RPC_AUTH_NONE;
    if (!client->authenticated && server->anonymous_s)
        client->anonymous_until_ns = loop_now_ns() + server->anonymous_s * NS_PER_S;
    client->open = true;
    g_queue_init(&client->output);
    client->streams = g_ptr_array_new();
    look_at_peer(&client->peer, fd);
    if (server->program->session_new)
        client->session = server->program->session_new(client);
    rpc_server_begin(server);
    rpc_server_add_client(server, client, !client->authenticated);
    pool_log_debug("rpc.client", "server %s: client %" PRIu64 " comes: process %d, user %u", server->name, client->id,
                   (int)client->peer.pid, (unsigned)client->peer.uid);
    co_spawn(server->loop, co_serve, client);
}
