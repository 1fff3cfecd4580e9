/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The handshake: fixed newstyle, option after option, until the client has chosen an export or gives up.
 *
 * Nothing is read beyond the option at hand, so that what a client (or somebody between) sends in the clear behind
 * STARTTLS is never taken for part of the secured session. Settings of before TLS are forgotten. An option's data are
 * only kept when they have a sensible size, and answers are bounded by what the server has, not by what was asked.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/trace.h"
#include "block/handle.h"
#include "export/nbd/nbd.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "loop/stream.h"
#include "object/tls-creds.h"

enum { OPTION_DATA_MAX = 64 * 1024 }; /* that we take into memory */

/* One option that is being served. */
struct option {
    struct nbd_client *client;
    uint32_t type;
    const uint8_t *data;
    uint32_t length;
    GByteArray *out; /* replies, sent together */
};

/* What an option leads to. */
enum outcome { OUTCOME_NEXT, OUTCOME_TRANSMISSION, OUTCOME_TLS, OUTCOME_ABORT, OUTCOME_FAILED };

static void reply(struct option *option, uint32_t type, const void *data, size_t length)
{
    uint8_t header[NBD_OPTION_REPLY_HEADER_BYTES];

    assert(length <= 2 * NBD_STRING_BYTES_MAX + 4);
    nbd_option_reply_encode(header, option->type, type, (uint32_t)length);
    g_byte_array_append(option->out, header, sizeof(header));
    g_byte_array_append(option->out, data, (guint)length);
}

static void reply_ack(struct option *option)
{
    reply(option, NBD_REP_ACK, NULL, 0);
}

static enum outcome reply_error(struct option *option, enum nbd_option_reply type, const char *format, ...)
    PRINTF_LIKE(3, 4);

static enum outcome reply_error(struct option *option, enum nbd_option_reply type, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list arguments;

    va_start(arguments, format);
    text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    TRACE(nbd_option_refused, "client %p option %s: %s", (void *)option->client, nbd_option_name(option->type), text);
    reply(option, type, text, MIN(strlen(text), NBD_STRING_BYTES_MAX));
    return OUTCOME_NEXT;
}

/* The export of that name; else NULL, and the error is among the replies. */
static struct nbd_export *find_export(struct option *option, const struct nbd_string *name)
{
    struct nbd_export *export = nbd_server_find_export(option->client->server, name->text, name->length);
    g_autofree char *short_name = NULL;

    if (export)
        return export;
    short_name = nbd_name_shorten(name->text, name->length);
    reply_error(option, NBD_REP_ERR_UNKNOWN, "export '%s' not present", short_name);
    return NULL;
}

static enum outcome refuse_data(struct option *option)
{
    return reply_error(option, NBD_REP_ERR_INVALID, "option '%s' takes no data, but came with %" PRIu32 " bytes",
                       nbd_option_name(option->type), option->length);
}

static enum outcome serve_list(struct option *option)
{
    GPtrArray *exports = option->client->server->exports;

    if (option->length)
        return refuse_data(option);
    for (unsigned i = 0; i < exports->len; i++) {
        const struct nbd_export *export = g_ptr_array_index(exports, i);
        size_t name_length = strlen(export->name);
        g_autoptr(GByteArray) data = g_byte_array_new();
        uint8_t length[4];

        store_be32(length, (uint32_t)name_length);
        g_byte_array_append(data, length, sizeof(length));
        g_byte_array_append(data, (const uint8_t *)export->name, (guint)name_length);
        if (export->description)
            g_byte_array_append(data, (const uint8_t *)export->description, (guint)strlen(export->description));
        reply(option, NBD_REP_SERVER, data->data, data->len);
    }
    reply_ack(option);
    return OUTCOME_NEXT;
}

static void reply_info_text(struct option *option, enum nbd_info what, const char *text)
{
    uint8_t data[2 + NBD_STRING_BYTES_MAX];
    size_t length = strlen(text);

    assert(length <= NBD_STRING_BYTES_MAX);
    store_be16(data, what);
    memcpy(data + 2, text, length);
    reply(option, NBD_REP_INFO, data, 2 + length);
}

/* Makes the choice final: the terms that hold from now on. */
static void choose_export(struct nbd_client *client, struct nbd_export *export, uint32_t min_block)
{
    struct nbd_terms *terms = &client->terms;

    assert(!client->export);
    if (client->context_serial != export->serial)
        client->contexts = 0;
    terms->flags = nbd_export_flags(export, terms->mode);
    terms->min_block = min_block;
    terms->has_contexts = client->contexts != 0;
    client->export = export;
    client->handle = export->handle;
    g_ptr_array_add(export->clients, client);
}

static enum outcome serve_info(struct option *option)
{
    struct nbd_client *client = option->client;
    struct nbd_info_request request;
    struct nbd_export *export;
    uint8_t size_info[12], block_info[14];
    bool wants_blocks;
    uint32_t min_block;
    const char *why;

    if (!nbd_info_request_decode(option->data, option->length, &request, &why))
        return reply_error(option, NBD_REP_ERR_INVALID, "option '%s': %s", nbd_option_name(option->type), why);
    export = find_export(option, &request.name);
    if (!export)
        return OUTCOME_NEXT;
    /* Only who has asked for the block size may be held to it. */
    wants_blocks = request.wanted & 1u << NBD_INFO_BLOCK_SIZE;
    min_block = wants_blocks ? nbd_export_min_block(export) : 1;
    if (request.wanted & 1u << NBD_INFO_NAME)
        reply_info_text(option, NBD_INFO_NAME, export->name);
    if (export->description)
        reply_info_text(option, NBD_INFO_DESCRIPTION, export->description);
    store_be16(block_info, NBD_INFO_BLOCK_SIZE);
    store_be32(block_info + 2, min_block);
    store_be32(block_info + 6, nbd_export_preferred_block(export));
    store_be32(block_info + 10, NBD_PAYLOAD_BYTES_MAX);
    reply(option, NBD_REP_INFO, block_info, sizeof(block_info));
    store_be16(size_info, NBD_INFO_EXPORT);
    store_be64(size_info + 2, handle_length(export->handle));
    store_be16(size_info + 10, (uint16_t)nbd_export_flags(export, client->terms.mode));
    reply(option, NBD_REP_INFO, size_info, sizeof(size_info));
    reply_ack(option);
    if (option->type == NBD_OPT_INFO)
        return OUTCOME_NEXT;
    choose_export(client, export, min_block);
    return OUTCOME_TRANSMISSION;
}

static enum outcome serve_export_name(struct option *option, struct error **err)
{
    struct nbd_client *client = option->client;
    struct nbd_string name = {.text = (const char *)option->data, .length = option->length};
    struct nbd_export *export;
    uint8_t head[NBD_EXPORT_REPLY_BYTES];
    static const uint8_t padding[NBD_EXPORT_REPLY_PADDING];
    const char *why;

    if (!nbd_export_name_is_valid(&name, &why)) {
        error_set(err, "%s", why);
        return OUTCOME_FAILED;
    }
    export = nbd_server_find_export(client->server, name.text, name.length);
    if (!export) {
        g_autofree char *short_name = nbd_name_shorten(name.text, name.length);

        error_set(err, "export '%s' not present", short_name);
        return OUTCOME_FAILED;
    }
    choose_export(client, export, 1);
    store_be64(head, handle_length(export->handle));
    store_be16(head + 8, (uint16_t)client->terms.flags);
    g_byte_array_append(option->out, head, sizeof(head));
    if (!client->no_zeroes)
        g_byte_array_append(option->out, padding, sizeof(padding));
    return OUTCOME_TRANSMISSION;
}

static enum outcome serve_structured_reply(struct option *option)
{
    struct nbd_terms *terms = &option->client->terms;

    if (option->length)
        return refuse_data(option);
    if (terms->mode == NBD_MODE_EXTENDED)
        return reply_error(option, NBD_REP_ERR_EXT_HEADER_REQD, "extended headers already negotiated");
    if (terms->mode == NBD_MODE_STRUCTURED)
        return reply_error(option, NBD_REP_ERR_INVALID, "structured reply already negotiated");
    terms->mode = NBD_MODE_STRUCTURED;
    reply_ack(option);
    return OUTCOME_NEXT;
}

static enum outcome serve_extended_headers(struct option *option)
{
    struct nbd_terms *terms = &option->client->terms;

    if (option->length)
        return refuse_data(option);
    if (terms->mode == NBD_MODE_EXTENDED)
        return reply_error(option, NBD_REP_ERR_INVALID, "extended headers already negotiated");
    terms->mode = NBD_MODE_EXTENDED;
    reply_ack(option);
    return OUTCOME_NEXT;
}

static void reply_contexts(struct option *option, const struct nbd_export *export, uint64_t contexts, bool listing)
{
    for (unsigned i = 0; i < export->context_count; i++) {
        const char *name = export->contexts[i].name;
        uint8_t data[4 + NBD_STRING_BYTES_MAX];

        if (!(contexts >> i & 1))
            continue;
        assert(strlen(name) <= NBD_STRING_BYTES_MAX);
        store_be32(data, listing ? 0 : i);
        memcpy(data + 4, name, strlen(name));
        reply(option, NBD_REP_META_CONTEXT, data, 4 + strlen(name));
    }
    reply_ack(option);
}

static enum outcome serve_meta_context(struct option *option)
{
    struct nbd_client *client = option->client;
    bool listing = option->type == NBD_OPT_LIST_META_CONTEXT;
    struct nbd_meta_request request;
    struct nbd_string query;
    struct nbd_export *export;
    uint64_t found = 0;
    const char *why;

    if (!listing)
        client->contexts = 0; /* also when it fails */
    if (!listing && client->terms.mode == NBD_MODE_SIMPLE)
        return reply_error(option, NBD_REP_ERR_INVALID, "option '%s' needs structured replies, negotiated before it",
                           nbd_option_name(option->type));
    if (!nbd_meta_request_decode(option->data, option->length, &request, &why))
        return reply_error(option, NBD_REP_ERR_INVALID, "option '%s': %s", nbd_option_name(option->type), why);
    export = find_export(option, &request.name);
    if (!export)
        return OUTCOME_NEXT;
    if (listing && !request.query_count)
        found = nbd_contexts_all(export);
    while (nbd_meta_query_next(&request, &query))
        found |= nbd_contexts_match(export, &query, listing);
    if (!listing) {
        client->contexts = found;
        client->context_serial = export->serial;
    }
    reply_contexts(option, export, found, listing);
    return OUTCOME_NEXT;
}

/* Whether the client already sent something, before our go-ahead. */
static bool CO_FN co_has_pending_input(struct nbd_client *client)
{
    char byte;

    return co_socket_recv(client->stream->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

static enum outcome CO_FN co_serve_starttls(struct option *option, struct error **err)
{
    struct nbd_client *client = option->client;

    if (option->length)
        return refuse_data(option);
    if (client->tls)
        return reply_error(option, NBD_REP_ERR_INVALID, "TLS already negotiated");
    if (!client->server->tls_creds)
        return reply_error(option, NBD_REP_ERR_POLICY, "TLS not configured");
    if (co_has_pending_input(client)) {
        error_set(err, "data in the clear behind STARTTLS");
        return OUTCOME_FAILED;
    }
    reply_ack(option);
    return OUTCOME_TLS;
}

/* Options but EXPORT_NAME, which has no way to fail softly. */
static enum outcome CO_FN co_serve_option(struct option *option, struct error **err)
{
    switch (option->type) {
    case NBD_OPT_ABORT:
        reply_ack(option);
        return OUTCOME_ABORT;
    case NBD_OPT_LIST:
        return serve_list(option);
    case NBD_OPT_STARTTLS:
        return co_serve_starttls(option, err);
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return serve_info(option);
    case NBD_OPT_STRUCTURED_REPLY:
        return serve_structured_reply(option);
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        return serve_meta_context(option);
    case NBD_OPT_EXTENDED_HEADERS:
        return serve_extended_headers(option);
    default:
        return reply_error(option, NBD_REP_ERR_UNSUP, "Unsupported option %" PRIu32, option->type);
    }
}

static bool CO_FN co_read_exact(struct nbd_client *client, void *to, size_t size, const char *what, struct error **err)
{
    int result = co_stream_read_exact(client->stream, to, size);

    return result < 0 ? error_set_errno(err, result, "reading %s", what) : true;
}

static bool CO_FN co_skip(struct nbd_client *client, uint32_t length, struct error **err)
{
    uint8_t scratch[4096];

    while (length) {
        uint32_t here = MIN(length, sizeof(scratch));

        if (!co_read_exact(client, scratch, here, "option data", err))
            return false;
        length -= here;
    }
    return true;
}

static bool is_allowed_before_tls(uint32_t type)
{
    return type == NBD_OPT_STARTTLS || type == NBD_OPT_ABORT;
}

/* The option's data are here, or (`data` NULL, length not zero) were too long to keep. */
static enum outcome CO_FN co_answer(struct option *option, struct error **err)
{
    struct nbd_client *client = option->client;
    bool needs_tls = client->server->tls_creds && !client->tls && !is_allowed_before_tls(option->type);

    if (option->type == NBD_OPT_EXPORT_NAME) {
        if (!needs_tls)
            return serve_export_name(option, err);
        error_set(err, "TLS is required, but option '%s' came without", nbd_option_name(option->type));
        return OUTCOME_FAILED;
    }
    if (needs_tls)
        return reply_error(option, NBD_REP_ERR_TLS_REQD, "option %s not permitted before TLS",
                           nbd_option_name(option->type));
    if (client->server->stopping && option->type != NBD_OPT_ABORT)
        return reply_error(option, NBD_REP_ERR_SHUTDOWN, "server is shutting down");
    if (option->length && !option->data && g_str_equal(nbd_option_name(option->type), "unknown"))
        return reply_error(option, NBD_REP_ERR_UNSUP, "Unsupported option %" PRIu32, option->type);
    if (option->length && !option->data && option->type != NBD_OPT_ABORT)
        return reply_error(option, NBD_REP_ERR_TOO_BIG,
                           "option '%s' has %" PRIu32 " bytes of data, at most %d are served",
                           nbd_option_name(option->type), option->length, OPTION_DATA_MAX);
    return co_serve_option(option, err);
}

/* Reads one option, serves it and sends the replies. */
static enum outcome CO_FN co_next_option(struct nbd_client *client, struct error **err)
{
    uint8_t bytes[NBD_OPTION_HEADER_BYTES];
    struct nbd_option_header header;
    g_autofree uint8_t *data = NULL;
    g_autoptr(GByteArray) out = g_byte_array_new();
    struct option option = {.client = client, .out = out};
    enum outcome outcome;
    int result;

    if (!co_read_exact(client, bytes, sizeof(bytes), "option header", err))
        return OUTCOME_FAILED;
    if (!nbd_option_header_decode(bytes, &header)) {
        error_set(err, "option header has magic 0x%016" PRIx64, load_be64(bytes));
        return OUTCOME_FAILED;
    }
    if (header.length > (header.option == NBD_OPT_EXPORT_NAME ? NBD_STRING_BYTES_MAX : NBD_OPTION_BYTES_MAX)) {
        error_set(err, "option '%s' (%" PRIu32 ") has %" PRIu32 " bytes of data", nbd_option_name(header.option),
                  header.option, header.length);
        return OUTCOME_FAILED;
    }
    if (client->is_old && header.option != NBD_OPT_EXPORT_NAME) {
        error_set(err, "option '%s' (%" PRIu32 ") without fixed newstyle", nbd_option_name(header.option),
                  header.option);
        return OUTCOME_FAILED;
    }
    option.type = header.option;
    option.length = header.length;
    if (header.length > OPTION_DATA_MAX) {
        if (!co_skip(client, header.length, err))
            return OUTCOME_FAILED;
    } else {
        option.data = data = g_malloc(header.length + 1);
        if (!co_read_exact(client, data, header.length, "option data", err))
            return OUTCOME_FAILED;
    }
    outcome = co_answer(&option, err);
    result = outcome == OUTCOME_FAILED ? 0 : co_stream_write(client->stream, out->data, out->len);
    /* Who aborts need not wait for the answer. */
    if (result < 0 && outcome != OUTCOME_ABORT) {
        error_set_errno(err, result, "replying to option '%s'", nbd_option_name(option.type));
        return OUTCOME_FAILED;
    }
    return outcome;
}

static bool CO_FN co_start_tls(struct nbd_client *client, struct error **err)
{
    struct nbd_server *server = client->server;

    client->stream = co_tls_stream_new(TAKE(client->stream), server->tls_creds, NULL, server->tls_authz, err);
    if (!client->stream)
        return false;
    client->tls = true;
    client->terms.mode = NBD_MODE_SIMPLE;
    client->contexts = 0;
    return true;
}

static bool CO_FN co_greet(struct nbd_client *client, struct error **err)
{
    uint8_t greeting[NBD_GREETING_BYTES], flag_bytes[NBD_CLIENT_FLAGS_BYTES];
    uint32_t flags;
    int result;

    nbd_greeting_encode(greeting);
    result = co_stream_write(client->stream, greeting, sizeof(greeting));
    if (result < 0)
        return error_set_errno(err, result, "sending the greeting");
    if (!co_read_exact(client, flag_bytes, sizeof(flag_bytes), "client flags", err))
        return false;
    flags = load_be32(flag_bytes);
    if (flags & ~(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES))
        return error_set(err, "client flags 0x%08" PRIx32 " are unknown", flags);
    client->is_old = !(flags & NBD_FLAG_FIXED_NEWSTYLE);
    client->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
    return true;
}

enum nbd_handshake co_nbd_handshake(struct nbd_client *client, struct error **err)
{
    assert(loop_current() == client->server->loop);
    if (!co_greet(client, err))
        return NBD_HANDSHAKE_FAILED;
    for (;;) {
        switch (co_next_option(client, err)) {
        case OUTCOME_NEXT:
            break;
        case OUTCOME_TLS:
            if (!co_start_tls(client, err))
                return NBD_HANDSHAKE_FAILED;
            break;
        case OUTCOME_TRANSMISSION:
            return NBD_HANDSHAKE_DONE;
        case OUTCOME_ABORT:
            return NBD_HANDSHAKE_ABORTED;
        case OUTCOME_FAILED:
            return NBD_HANDSHAKE_FAILED;
        }
    }
}
