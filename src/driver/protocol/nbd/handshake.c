/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The client's side of the handshake. A server may answer wrongly in any place and at any length: what it can make us
 * keep is bounded, and so is how many answers it may give to one option.
 */
#include "driver/protocol/nbd/handshake.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/trace.h"
#include "block/node.h"
#include "loop/stream.h"
#include "object/tls-creds.h"

enum { REPLIES_MAX = 1024, EXPORTS_MAX = 64 * 1024, CONTEXTS_MAX = 1024, GREETING_BYTES = 16 };

struct handshake {
    struct stream **stream;
    const struct nbd_handshake_options *options;
    enum nbd_style style;
    bool no_zeroes;
    enum nbd_mode mode;
};

/* An answer to an option. */
struct answer {
    uint32_t type;
    GByteArray *data;
};

void nbd_export_info_clear(struct nbd_export_info *info)
{
    g_free(info->description);
    *info = (struct nbd_export_info){0};
}

static bool CO_FN co_read(struct handshake *self, void *to, size_t size, const char *what, struct error **err)
{
    int ret = co_stream_read_exact(*self->stream, to, size);

    return ret == 0 || error_set_errno(err, ret, "Failed to read %s", what);
}

static bool CO_FN co_write(struct handshake *self, const void *from, size_t size, const char *what, struct error **err)
{
    int ret = co_stream_write(*self->stream, from, size);

    return ret == 0 || error_set_errno(err, ret, "Failed to send %s", what);
}

/* --- options and their answers --- */

static bool CO_FN co_send_option(struct handshake *self, const GByteArray *option, struct error **err)
{
    return co_write(self, option->data, option->len, "an option", err);
}

static bool CO_FN co_send_plain_option(struct handshake *self, uint32_t option, struct error **err)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    nbd_option_encode(bytes, option, NULL, 0);
    return co_send_option(self, bytes, err);
}

/* Ends the conversation in good order; best effort. */
static void CO_FN co_say_abort(struct handshake *self)
{
    AUTO(error) unwanted = NULL;

    if (self->style == NBD_STYLE_FIXED && *self->stream)
        (void)co_send_plain_option(self, NBD_OPT_ABORT, &unwanted);
}

/* The next answer to `option`; answer->data is reused. */
static bool CO_FN co_read_answer(struct handshake *self, uint32_t option, struct answer *answer, struct error **err)
{
    uint8_t head[NBD_OPTION_REPLY_HEADER_BYTES];
    struct nbd_option_reply_header header;

    if (!co_read(self, head, sizeof(head), "an option reply", err))
        return false;
    if (!nbd_option_reply_decode(head, &header))
        return error_set(err, "Unexpected option reply magic");
    if (header.option != option)
        return error_set(err, "Unexpected option reply for option %" PRIu32 " (%s), expected %" PRIu32 " (%s)",
                         header.option, nbd_option_title(header.option), option, nbd_option_title(option));
    if (header.length > NBD_OPTION_REPLY_BYTES_MAX)
        return error_set(err, "option reply of %" PRIu32 " bytes to option %" PRIu32 " (%s) is longer than %d",
                         header.length, option, nbd_option_title(option), NBD_OPTION_REPLY_BYTES_MAX);
    answer->type = header.type;
    g_byte_array_set_size(answer->data, header.length);
    TRACE(nbd_client_option_reply, "option %" PRIu32 " type %" PRIu32 " length %" PRIu32, option, header.type,
          header.length);
    return !header.length || co_read(self, answer->data->data, header.length, "an option reply", err);
}

/* What the server said in a refusal, as a hint. */
static void add_server_text(const struct answer *answer, struct error **err)
{
    const char *text = (const char *)answer->data->data;

    if (answer->data->len && answer->data->len <= NBD_STRING_BYTES_MAX &&
        g_utf8_validate(text, (gssize)answer->data->len, NULL)) {
        g_autofree char *copy = g_strndup(text, answer->data->len);
        g_autofree char *clean = g_strescape(copy, NULL);

        error_hint(err, "server reported: %s", clean);
    }
}

/* The error for a refused option; returns false. */
static bool fail_refused(const struct answer *answer, uint32_t option, struct error **err)
{
    if (answer->type == NBD_REP_ERR_UNKNOWN)
        error_set(err, "Requested export not available");
    else if (answer->type == NBD_REP_ERR_TLS_REQD)
        error_set(err, "Server requires TLS for option %" PRIu32 " (%s)", option, nbd_option_title(option));
    else if (answer->type & NBD_REP_ERROR)
        error_set(err, "Option %" PRIu32 " (%s) refused: %s", option, nbd_option_title(option),
                  nbd_option_error_title(answer->type));
    else
        error_set(err, "Unexpected reply type %" PRIu32 " to option %" PRIu32 " (%s)", answer->type, option,
                  nbd_option_title(option));
    if (answer->type & NBD_REP_ERROR)
        add_server_text(answer, err);
    return false;
}

/* Sends an option without data that is answered by yes or no. */
static bool CO_FN co_ask(struct handshake *self, uint32_t option, bool *ret_yes, struct error **err)
{
    g_autoptr(GByteArray) data = g_byte_array_new();
    struct answer answer = {.data = data};

    if (!co_send_plain_option(self, option, err) || !co_read_answer(self, option, &answer, err))
        return false;
    if (answer.type == NBD_REP_ERR_TLS_REQD || answer.type == NBD_REP_ERR_SHUTDOWN)
        return fail_refused(&answer, option, err);
    *ret_yes = answer.type == NBD_REP_ACK;
    if (!*ret_yes && !(answer.type & NBD_REP_ERROR))
        return fail_refused(&answer, option, err);
    if (*ret_yes && data->len)
        return error_set(err, "reply to option %" PRIu32 " (%s) has data", option, nbd_option_title(option));
    return true;
}

static bool CO_FN co_start_tls(struct handshake *self, struct error **err)
{
    g_autoptr(GByteArray) data = g_byte_array_new();
    struct answer answer = {.data = data};

    if (self->style != NBD_STYLE_FIXED)
        return error_set(err, "Server does not support STARTTLS");
    if (!co_send_plain_option(self, NBD_OPT_STARTTLS, err) || !co_read_answer(self, NBD_OPT_STARTTLS, &answer, err))
        return false;
    if (answer.type != NBD_REP_ACK) {
        fail_refused(&answer, NBD_OPT_STARTTLS, err);
        return error_prefix(err, "Server does not support STARTTLS: ");
    }
    *self->stream =
        co_tls_stream_new(TAKE(*self->stream), self->options->tls_creds, self->options->tls_hostname, NULL, err);
    return *self->stream;
}

static bool CO_FN co_choose_mode(struct handshake *self, struct error **err)
{
    bool yes = false;

    self->mode = NBD_MODE_SIMPLE;
    if (self->style != NBD_STYLE_FIXED || self->options->simple_replies)
        return true;
    if (!self->options->no_extended_headers && !co_ask(self, NBD_OPT_EXTENDED_HEADERS, &yes, err))
        return false;
    if (yes) {
        self->mode = NBD_MODE_EXTENDED;
        return true;
    }
    if (!co_ask(self, NBD_OPT_STRUCTURED_REPLY, &yes, err))
        return false;
    if (yes)
        self->mode = NBD_MODE_STRUCTURED;
    return true;
}

/* --- greeting --- */

static bool CO_FN co_greet(struct handshake *self, struct error **err)
{
    uint8_t greeting[GREETING_BYTES], flags[2], answer[NBD_CLIENT_FLAGS_BYTES];
    uint32_t mine = 0;
    uint16_t theirs;

    if (!co_read(self, greeting, sizeof(greeting), "initial magic", err))
        return false;
    if (!nbd_greeting_decode(greeting, &self->style))
        return error_set(err, "Bad initial magic received: 0x%016" PRIx64, load_be64(greeting));
    if (self->style == NBD_STYLE_OLD)
        return true;
    if (!co_read(self, flags, sizeof(flags), "server flags", err))
        return false;
    theirs = load_be16(flags);
    if (theirs & NBD_FLAG_FIXED_NEWSTYLE) {
        self->style = NBD_STYLE_FIXED;
        mine |= NBD_FLAG_FIXED_NEWSTYLE;
    }
    if (theirs & NBD_FLAG_NO_ZEROES) {
        self->no_zeroes = true;
        mine |= NBD_FLAG_NO_ZEROES;
    }
    store_be32(answer, mine);
    return co_write(self, answer, sizeof(answer), "client flags", err);
}

static bool CO_FN co_begin(struct handshake *self, struct error **err)
{
    if (!co_greet(self, err))
        return false;
    if (self->options->tls_creds && !co_start_tls(self, err))
        return false;
    return co_choose_mode(self, err);
}

/* --- opening an export --- */

static bool decode_context(const struct answer *answer, const char *wanted, struct nbd_export_info *info,
                           struct error **err)
{
    const GByteArray *data = answer->data;

    if (data->len < 4)
        return error_set(err, "reply to option SET_META_CONTEXT is too short");
    if (data->len - 4 != strlen(wanted) || memcmp(data->data + 4, wanted, data->len - 4) != 0)
        return error_set(err, "server selected another metadata context than '%s'", wanted);
    if (info->has_context)
        return error_set(err, "server selected metadata context '%s' twice", wanted);
    info->has_context = true;
    info->context_id = load_be32(data->data);
    return true;
}

static bool CO_FN co_select_context(struct handshake *self, struct nbd_export_info *info, struct error **err)
{
    const char *wanted = self->options->context;
    g_autoptr(GByteArray) option = g_byte_array_new();
    g_autoptr(GByteArray) data = g_byte_array_new();
    struct answer answer = {.data = data};

    nbd_option_encode_meta(option, NBD_OPT_SET_META_CONTEXT, self->options->export, wanted);
    if (!co_send_option(self, option, err))
        return false;
    for (unsigned i = 0; i < REPLIES_MAX; i++) {
        if (!co_read_answer(self, NBD_OPT_SET_META_CONTEXT, &answer, err))
            return false;
        if (answer.type == NBD_REP_ACK)
            return true;
        /* A server that has none of this may still serve the export. */
        if ((answer.type & NBD_REP_ERROR) && answer.type != NBD_REP_ERR_TLS_REQD && answer.type != NBD_REP_ERR_SHUTDOWN)
            return true;
        if (answer.type != NBD_REP_META_CONTEXT)
            return fail_refused(&answer, NBD_OPT_SET_META_CONTEXT, err);
        if (!decode_context(&answer, wanted, info, err))
            return false;
    }
    return error_set(err, "server does not end its replies to option SET_META_CONTEXT");
}

static bool take_info(const struct answer *answer, struct nbd_export_info *info, bool *has_export, struct error **err)
{
    const char *why = NULL;

    if (!nbd_info_decode(answer->data->data, answer->data->len, info, &why))
        return error_set(err, "server sent invalid information on the export: %s", why);
    if (load_be16(answer->data->data) == NBD_INFO_EXPORT)
        *has_export = true;
    return true;
}

/* *ret_unknown: the server does not know this option. */
static bool CO_FN co_go(struct handshake *self, uint32_t option, const char *name, struct nbd_export_info *info,
                        bool *ret_unknown, struct error **err)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autoptr(GByteArray) data = g_byte_array_new();
    struct answer answer = {.data = data};
    bool has_export = false;

    nbd_option_encode_info(bytes, option, name);
    if (!co_send_option(self, bytes, err))
        return false;
    for (unsigned i = 0; i < REPLIES_MAX; i++) {
        if (!co_read_answer(self, option, &answer, err))
            return false;
        if (answer.type == NBD_REP_ACK)
            return has_export || error_set(err, "server did not tell the size of the export");
        *ret_unknown = answer.type == NBD_REP_ERR_UNSUP;
        if (answer.type != NBD_REP_INFO)
            return fail_refused(&answer, option, err);
        if (!take_info(&answer, info, &has_export, err))
            return false;
    }
    return error_set(err, "server does not end its replies to option %s", nbd_option_title(option));
}

static bool CO_FN co_open_by_name(struct handshake *self, struct nbd_export_info *info, struct error **err)
{
    const char *name = self->options->export;
    uint8_t reply[NBD_EXPORT_REPLY_BYTES + NBD_EXPORT_REPLY_PADDING];
    g_autoptr(GByteArray) option = g_byte_array_new();

    nbd_option_encode(option, NBD_OPT_EXPORT_NAME, name, (uint32_t)strlen(name));
    if (!co_send_option(self, option, err))
        return false;
    if (!co_read(self, reply, self->no_zeroes ? NBD_EXPORT_REPLY_BYTES : sizeof(reply), "the reply to EXPORT_NAME",
                 err))
        return error_prefix(err, "Requested export not available, or the server failed: ");
    info->size = load_be64(reply);
    info->flags = load_be16(reply + 8);
    return true;
}

static bool CO_FN co_open_old(struct handshake *self, struct nbd_export_info *info, struct error **err)
{
    uint8_t rest[NBD_OLDSTYLE_BYTES - GREETING_BYTES];

    if (*self->options->export)
        return error_set(err, "Server does not support non-empty export names");
    if (!co_read(self, rest, sizeof(rest), "the export's length", err))
        return false;
    info->size = load_be64(rest);
    info->flags = load_be32(rest + 8) & UINT16_MAX;
    return true;
}

static bool CO_FN co_open_fixed(struct handshake *self, struct nbd_export_info *info, struct error **err)
{
    AUTO(error) error = NULL;
    bool unknown = false;

    if (self->mode != NBD_MODE_SIMPLE && self->options->context && !co_select_context(self, info, err))
        return false;
    if (co_go(self, NBD_OPT_GO, self->options->export, info, &unknown, &error))
        return true;
    return unknown ? co_open_by_name(self, info, err) : error_move(err, TAKE(error));
}

static bool CO_FN co_open(struct handshake *self, struct nbd_export_info *info, struct error **err)
{
    switch (self->style) {
    case NBD_STYLE_OLD:
        return co_open_old(self, info, err);
    case NBD_STYLE_NEW:
        return co_open_by_name(self, info, err);
    default:
        return co_open_fixed(self, info, err);
    }
}

bool co_nbd_client_handshake(struct stream **stream, const struct nbd_handshake_options *options,
                             struct nbd_handshake_result *ret, struct error **err)
{
    struct handshake self = {.stream = stream, .options = options};
    struct nbd_export_info info = {0};
    bool ok = co_begin(&self, err);

    assert(strlen(options->export) <= NBD_STRING_BYTES_MAX);
    ok = ok && co_open(&self, &info, err);
    if (ok && info.size > NODE_LENGTH_MAX)
        ok = error_set(err, "export length %" PRIu64 " is too large", info.size);
    if (!ok) {
        co_say_abort(&self);
        nbd_export_info_clear(&info);
        return false;
    }
    TRACE(nbd_client_handshake, "mode %d size %" PRIu64 " flags 0x%" PRIx32, self.mode, info.size, info.flags);
    *ret = (struct nbd_handshake_result){.mode = self.mode, .info = info};
    return true;
}

/* --- listing --- */

void nbd_listed_export_free(struct nbd_listed_export *export)
{
    if (!export)
        return;
    nbd_export_info_clear(&export->info);
    g_ptr_array_unref(export->contexts);
    g_free(export->name);
    g_free(export);
}

static struct nbd_listed_export *listed_export_new(char *name)
{
    struct nbd_listed_export *export = g_new0(struct nbd_listed_export, 1);

    export->name = name;
    export->contexts = g_ptr_array_new_with_free_func(g_free);
    return export;
}

static bool take_listed(const struct answer *answer, GPtrArray *exports, struct error **err)
{
    const GByteArray *data = answer->data;
    struct nbd_listed_export *export;
    uint32_t length = data->len >= 4 ? load_be32(data->data) : UINT32_MAX;

    if (length > NBD_STRING_BYTES_MAX || length > data->len - 4 || data->len - 4 - length > NBD_STRING_BYTES_MAX)
        return error_set(err, "server listed an export with an incorrect length");
    if (!g_utf8_validate((const char *)data->data + 4, (gssize)(data->len - 4), NULL))
        return error_set(err, "server listed an export whose name or description is not UTF-8");
    export = listed_export_new(g_strndup((const char *)data->data + 4, length));
    if (data->len - 4 > length)
        export->info.description = g_strndup((const char *)data->data + 4 + length, data->len - 4 - length);
    g_ptr_array_add(exports, export);
    return true;
}

static bool CO_FN co_list_names(struct handshake *self, GPtrArray *exports, struct error **err)
{
    g_autoptr(GByteArray) data = g_byte_array_new();
    struct answer answer = {.data = data};

    if (!co_send_plain_option(self, NBD_OPT_LIST, err))
        return false;
    while (exports->len < EXPORTS_MAX) {
        if (!co_read_answer(self, NBD_OPT_LIST, &answer, err))
            return false;
        if (answer.type == NBD_REP_ACK)
            return true;
        if (answer.type != NBD_REP_SERVER)
            return fail_refused(&answer, NBD_OPT_LIST, err);
        if (!take_listed(&answer, exports, err))
            return false;
    }
    return error_set(err, "server lists more than %d exports", EXPORTS_MAX);
}

static bool CO_FN co_list_contexts(struct handshake *self, struct nbd_listed_export *export, struct error **err)
{
    g_autoptr(GByteArray) option = g_byte_array_new();
    g_autoptr(GByteArray) data = g_byte_array_new();
    struct answer answer = {.data = data};

    nbd_option_encode_meta(option, NBD_OPT_LIST_META_CONTEXT, export->name, NULL);
    if (!co_send_option(self, option, err))
        return false;
    while (export->contexts->len < CONTEXTS_MAX) {
        if (!co_read_answer(self, NBD_OPT_LIST_META_CONTEXT, &answer, err))
            return false;
        if (answer.type == NBD_REP_ACK || (answer.type & NBD_REP_ERROR))
            return true;
        if (answer.type != NBD_REP_META_CONTEXT || data->len < 4 ||
            !g_utf8_validate((const char *)data->data + 4, (gssize)(data->len - 4), NULL))
            return error_set(err, "server listed an invalid metadata context");
        g_ptr_array_add(export->contexts, g_strndup((const char *)data->data + 4, data->len - 4));
    }
    return error_set(err, "server lists more than %d metadata contexts", CONTEXTS_MAX);
}

static bool CO_FN co_list_details(struct handshake *self, struct nbd_listed_export *export, struct error **err)
{
    g_autofree char *description = g_strdup(export->info.description);
    AUTO(error) error = NULL;
    bool unknown = false;

    export->has_info = co_go(self, NBD_OPT_INFO, export->name, &export->info, &unknown, &error);
    if (!export->info.description)
        export->info.description = g_steal_pointer(&description);
    if (!export->has_info)
        return unknown || error_move(err, TAKE(error));
    return self->mode == NBD_MODE_SIMPLE || co_list_contexts(self, export, err);
}

static bool CO_FN co_list_fixed(struct handshake *self, GPtrArray *exports, struct error **err)
{
    if (!co_list_names(self, exports, err))
        return false;
    for (unsigned i = 0; i < exports->len; i++) {
        if (!co_list_details(self, g_ptr_array_index(exports, i), err))
            return false;
    }
    return true;
}

static void free_listed(gpointer export)
{
    nbd_listed_export_free(export);
}

GPtrArray *co_nbd_client_list(struct stream **stream, const struct nbd_handshake_options *options, struct error **err)
{
    struct nbd_handshake_options unnamed = *options;
    struct handshake self = {.stream = stream, .options = &unnamed};
    g_autoptr(GPtrArray) exports = g_ptr_array_new_with_free_func(free_listed);
    bool ok;

    unnamed.export = "";
    ok = co_begin(&self, err);
    if (ok && self.style == NBD_STYLE_OLD) {
        struct nbd_listed_export *export = listed_export_new(g_strdup(""));

        g_ptr_array_add(exports, export);
        ok = export->has_info = co_open_old(&self, &export->info, err);
    } else if (ok && self.style == NBD_STYLE_NEW) {
        ok = error_set(err, "Server does not support export lists");
    } else if (ok) {
        ok = co_list_fixed(&self, exports, err);
    }
    co_say_abort(&self);
    return ok ? g_steal_pointer(&exports) : NULL;
}
