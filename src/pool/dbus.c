/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The D-Bus specification, sections "Type system", "Message protocol" and "Authentication protocol". */
#include "pool/dbus.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "loop/socket.h"
#include "loop/stream.h"

enum { HEADER_FIXED = 16, LINE_MAX_BYTES = 1024 };
enum { TYPE_CALL = 1, TYPE_RETURN = 2, TYPE_ERROR = 3 };
enum {
    FIELD_PATH = 1,
    FIELD_INTERFACE = 2,
    FIELD_MEMBER = 3,
    FIELD_ERROR_NAME = 4,
    FIELD_REPLY_SERIAL = 5,
    FIELD_DESTINATION = 6,
    FIELD_SIGNATURE = 8,
};

/* Messages are in the host's order; the peers of a system's bus are on the same host. */
static const char byte_order = G_BYTE_ORDER == G_LITTLE_ENDIAN ? 'l' : 'B';

static const char default_address[] = "unix:path=/run/dbus/system_bus_socket";

struct dbus {
    struct stream *stream;
    uint32_t serial; /* of the last call */
};

/* --- writing values --- */

void dbus_put_align(GByteArray *bytes, unsigned alignment)
{
    static const uint8_t zeroes[8];

    assert(alignment <= sizeof(zeroes));
    g_byte_array_append(bytes, zeroes, (alignment - bytes->len % alignment) % alignment);
}

void dbus_put_u32(GByteArray *bytes, uint32_t value)
{
    dbus_put_align(bytes, sizeof(value));
    g_byte_array_append(bytes, (const uint8_t *)&value, sizeof(value));
}

void dbus_put_u64(GByteArray *bytes, uint64_t value)
{
    dbus_put_align(bytes, sizeof(value));
    g_byte_array_append(bytes, (const uint8_t *)&value, sizeof(value));
}

void dbus_put_text(GByteArray *bytes, const char *text)
{
    size_t length = strlen(text);

    dbus_put_u32(bytes, (uint32_t)length);
    g_byte_array_append(bytes, (const uint8_t *)text, (guint)length + 1);
}

void dbus_put_signature(GByteArray *bytes, const char *text)
{
    uint8_t length = (uint8_t)strlen(text);

    assert(strlen(text) <= UINT8_MAX);
    g_byte_array_append(bytes, &length, 1);
    g_byte_array_append(bytes, (const uint8_t *)text, length + 1u);
}

size_t dbus_put_array_begin(GByteArray *bytes, unsigned alignment)
{
    size_t at;

    dbus_put_align(bytes, sizeof(uint32_t));
    at = bytes->len;
    dbus_put_u32(bytes, 0);
    dbus_put_align(bytes, alignment);
    return at;
}

/* The padding before the first element does not count. */
void dbus_put_array_end(GByteArray *bytes, size_t at, unsigned alignment)
{
    size_t first = (at + sizeof(uint32_t) + alignment - 1) / alignment * alignment;
    uint32_t length = (uint32_t)(bytes->len - first);

    assert(first <= bytes->len);
    memcpy(bytes->data + at, &length, sizeof(length));
}

/* --- reading values --- */

bool dbus_get_align(struct dbus_reader *reader, unsigned alignment)
{
    size_t at = (reader->at + alignment - 1) / alignment * alignment;

    if (at > reader->size)
        return false;
    reader->at = at;
    return true;
}

bool dbus_get_u32(struct dbus_reader *reader, uint32_t *ret)
{
    if (!dbus_get_align(reader, sizeof(*ret)) || reader->size - reader->at < sizeof(*ret))
        return false;
    memcpy(ret, reader->data + reader->at, sizeof(*ret));
    reader->at += sizeof(*ret);
    return true;
}

/* `length` bytes and the NUL after them. */
static bool get_bytes(struct dbus_reader *reader, size_t length, const char **ret)
{
    const char *text = (const char *)reader->data + reader->at;

    if (reader->size - reader->at <= length || text[length] || strlen(text) != length)
        return false;
    reader->at += length + 1;
    *ret = text;
    return true;
}

bool dbus_get_text(struct dbus_reader *reader, const char **ret)
{
    uint32_t length;

    return dbus_get_u32(reader, &length) && get_bytes(reader, length, ret);
}

bool dbus_get_signature(struct dbus_reader *reader, const char **ret)
{
    if (reader->at >= reader->size)
        return false;
    reader->at++;
    return get_bytes(reader, reader->data[reader->at - 1], ret);
}

bool dbus_get_array(struct dbus_reader *reader, unsigned alignment, size_t *ret_end)
{
    uint32_t length;

    if (!dbus_get_u32(reader, &length) || !dbus_get_align(reader, alignment) || length > reader->size - reader->at)
        return false;
    *ret_end = reader->at + length;
    return true;
}

/* --- messages --- */

static void put_field(GByteArray *bytes, uint8_t field, const char *type, const char *text)
{
    dbus_put_align(bytes, 8);
    g_byte_array_append(bytes, &field, 1);
    dbus_put_signature(bytes, type);
    if (*type == 'g')
        dbus_put_signature(bytes, text);
    else
        dbus_put_text(bytes, text);
}

static GByteArray *format_call(const struct dbus_call *call, uint32_t serial)
{
    const uint8_t head[] = {(uint8_t)byte_order, TYPE_CALL, 0, 1};
    GByteArray *bytes = g_byte_array_new();
    size_t fields;

    g_byte_array_append(bytes, head, sizeof(head));
    dbus_put_u32(bytes, call->arguments ? call->arguments->len : 0);
    dbus_put_u32(bytes, serial);
    fields = dbus_put_array_begin(bytes, 8);
    put_field(bytes, FIELD_PATH, "o", call->path);
    put_field(bytes, FIELD_INTERFACE, "s", call->interface);
    put_field(bytes, FIELD_MEMBER, "s", call->method);
    put_field(bytes, FIELD_DESTINATION, "s", call->service);
    if (call->arguments)
        put_field(bytes, FIELD_SIGNATURE, "g", call->signature);
    dbus_put_array_end(bytes, fields, 8);
    dbus_put_align(bytes, 8);
    if (call->arguments)
        g_byte_array_append(bytes, call->arguments->data, call->arguments->len);
    return bytes;
}

/* One field; those that mean nothing to us have values of the same few types. */
static bool parse_field(struct dbus_reader *reader, struct dbus_header *ret)
{
    const char *type;
    const char *text = NULL;
    uint32_t number = 0;
    uint8_t field;

    if (!dbus_get_align(reader, 8) || reader->at >= reader->size)
        return false;
    field = reader->data[reader->at++];
    if (!dbus_get_signature(reader, &type))
        return false;
    if (!strcmp(type, "u")) {
        if (!dbus_get_u32(reader, &number))
            return false;
    } else if (!strcmp(type, "g")) {
        if (!dbus_get_signature(reader, &text))
            return false;
    } else if ((strcmp(type, "s") != 0 && strcmp(type, "o") != 0) || !dbus_get_text(reader, &text)) {
        return false;
    }
    if (field == FIELD_REPLY_SERIAL)
        ret->reply_to = number;
    else if (field == FIELD_ERROR_NAME)
        ret->error = text;
    else if (field == FIELD_SIGNATURE && text)
        ret->signature = text;
    return true;
}

bool dbus_header_parse(const uint8_t *message, size_t size, struct dbus_header *ret)
{
    struct dbus_reader reader = {.data = message, .at = HEADER_FIXED - sizeof(uint32_t), .size = size};
    size_t end;

    *ret = (struct dbus_header){.signature = ""};
    if (size < HEADER_FIXED || message[0] != byte_order)
        return false;
    ret->type = message[1];
    if (!dbus_get_array(&reader, 8, &end))
        return false;
    while (reader.at < end) {
        if (!parse_field(&reader, ret))
            return false;
    }
    if (!dbus_get_align(&reader, 8))
        return false;
    ret->body = reader.at;
    return true;
}

/* How long the message is that begins with these HEADER_FIXED bytes; 0: none is. */
static size_t message_size(const uint8_t *head)
{
    uint32_t body;
    uint32_t fields;

    memcpy(&body, head + 4, sizeof(body));
    memcpy(&fields, head + 12, sizeof(fields));
    if (head[0] != byte_order || body > DBUS_MESSAGE_MAX || fields > DBUS_MESSAGE_MAX)
        return 0;
    return HEADER_FIXED + (fields + 7) / 8 * 8 + body;
}

/* The next message, owned; *ret_error where there is none. */
static uint8_t *CO_FN co_receive(struct dbus *dbus, size_t *ret_size, int *ret_error)
{
    g_autofree uint8_t *message = g_malloc(HEADER_FIXED);
    size_t size;

    *ret_error = co_stream_read_exact(dbus->stream, message, HEADER_FIXED);
    if (*ret_error)
        return NULL;
    size = message_size(message);
    if (!size) {
        *ret_error = -EPROTO;
        return NULL;
    }
    message = g_realloc(message, size);
    *ret_error = co_stream_read_exact(dbus->stream, message + HEADER_FIXED, size - HEADER_FIXED);
    *ret_size = size;
    return *ret_error ? NULL : TAKE(message);
}

static bool refused(const struct dbus_reply *reply, const struct dbus_header *header, struct error **err)
{
    struct dbus_reader body = reply->body;
    const char *text = NULL;

    if (*header->signature != 's' || !dbus_get_text(&body, &text))
        text = header->error;
    return error_set(err, "%s", text ? text : "no reason given");
}

void dbus_reply_clear(struct dbus_reply *reply)
{
    g_free(reply->message);
    *reply = (struct dbus_reply){0};
}

/* The answer to the last call; what else comes is passed over. */
static int CO_FN co_answer(struct dbus *dbus, struct dbus_reply *ret, struct dbus_header *ret_header)
{
    for (;;) {
        size_t size;
        int error;
        g_autofree uint8_t *message = co_receive(dbus, &size, &error);

        if (!message)
            return error;
        if (!dbus_header_parse(message, size, ret_header))
            return -EPROTO;
        if ((ret_header->type != TYPE_RETURN && ret_header->type != TYPE_ERROR) || ret_header->reply_to != dbus->serial)
            continue;
        ret->body = (struct dbus_reader){.data = message + ret_header->body, .size = size - ret_header->body};
        ret->signature = ret_header->signature;
        ret->message = TAKE(message);
        return 0;
    }
}

bool co_dbus_call(struct dbus *dbus, const struct dbus_call *call, struct dbus_reply *ret, bool *ret_lost,
                  struct error **err)
{
    g_autoptr(GByteArray) message = format_call(call, ++dbus->serial);
    struct dbus_header header;
    int error;

    *ret = (struct dbus_reply){0};
    error = co_stream_write(dbus->stream, message->data, message->len);
    if (!error)
        error = co_answer(dbus, ret, &header);
    if (ret_lost)
        *ret_lost = error;
    if (error)
        return error_set_errno(err, error, "the system's message bus");
    if (header.type == TYPE_RETURN)
        return true;
    refused(ret, &header, err);
    dbus_reply_clear(ret);
    return false;
}

/* --- connecting --- */

GPtrArray *dbus_address_paths(const char *address)
{
    g_auto(GStrv) addresses = g_strsplit(address, ";", -1);
    GPtrArray *paths = g_ptr_array_new_with_free_func(g_free);

    for (char **one = addresses; *one; one++) {
        g_auto(GStrv) parts = NULL;

        if (!g_str_has_prefix(*one, "unix:"))
            continue;
        parts = g_strsplit(*one + strlen("unix:"), ",", -1);
        for (char **part = parts; *part; part++) {
            bool abstract = g_str_has_prefix(*part, "abstract=");
            g_autofree char *value = NULL;

            if (!abstract && !g_str_has_prefix(*part, "path="))
                continue;
            value = g_uri_unescape_string(strchr(*part, '=') + 1, NULL);
            if (value)
                g_ptr_array_add(paths, g_strconcat(abstract ? "@" : "", value, NULL));
        }
    }
    return paths;
}

static int CO_FN co_dial(struct error **err)
{
    const char *address = g_getenv("DBUS_SYSTEM_BUS_ADDRESS");
    g_autoptr(GPtrArray) paths = dbus_address_paths(address && *address ? address : default_address);

    for (guint i = 0; i < paths->len; i++) {
        const char *path = paths->pdata[i];
        const struct socket_endpoint endpoint = {
            .family = SOCKET_UNIX, .abstract = *path == '@', .path = *path == '@' ? path + 1 : path};
        int fd = co_socket_dial(&endpoint, i + 1 == paths->len ? err : NULL);

        if (fd >= 0)
            return fd;
    }
    if (!paths->len)
        error_set(err, "the address of the system's message bus, '%s', has no Unix socket", address);
    return -1;
}

/* The bus answers with one line. */
static int CO_FN co_read_line(struct dbus *dbus, char *line, size_t size)
{
    for (size_t i = 0; i + 1 < size; i++) {
        int error = co_stream_read_exact(dbus->stream, line + i, 1);

        if (error)
            return error;
        if (line[i] == '\n') {
            line[i] = '\0';
            return 0;
        }
    }
    return -EPROTO;
}

/* Who we are, the system tells it; the text says so in hexadecimal digits of decimal ones. */
static int CO_FN co_authenticate(struct dbus *dbus)
{
    g_autofree char *user = g_strdup_printf("%u", (unsigned)geteuid());
    g_autoptr(GString) words = g_string_new(NULL);
    char line[LINE_MAX_BYTES];
    int error;

    g_string_append_c(words, '\0');
    g_string_append(words, "AUTH EXTERNAL ");
    for (const char *c = user; *c; c++)
        g_string_append_printf(words, "%02x", (unsigned)*c);
    g_string_append(words, "\r\n");
    error = co_stream_write(dbus->stream, words->str, words->len);
    if (!error)
        error = co_read_line(dbus, line, sizeof(line));
    if (error)
        return error;
    return g_str_has_prefix(line, "OK ") ? co_stream_write(dbus->stream, "BEGIN\r\n", strlen("BEGIN\r\n")) : -EACCES;
}

struct dbus *co_dbus_new(struct error **err)
{
    static const struct dbus_call hello = {.service = "org.freedesktop.DBus",
                                           .path = "/org/freedesktop/DBus",
                                           .interface = "org.freedesktop.DBus",
                                           .method = "Hello"};
    AUTO(dbus) dbus = NULL;
    struct dbus_reply reply;
    int fd = co_dial(err);
    int error;

    if (fd < 0)
        return NULL;
    dbus = g_new0(struct dbus, 1);
    dbus->stream = stream_new_socket(fd);
    error = co_authenticate(dbus);
    if (error) {
        error_set_errno(err, error, "cannot authenticate to the system's message bus");
        return NULL;
    }
    if (!co_dbus_call(dbus, &hello, &reply, NULL, err))
        return NULL;
    dbus_reply_clear(&reply);
    return TAKE(dbus);
}

void dbus_free(struct dbus *dbus)
{
    if (!dbus)
        return;
    stream_free(dbus->stream);
    g_free(dbus);
}
