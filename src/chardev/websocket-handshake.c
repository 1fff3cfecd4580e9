/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The HTTP requests and replies by which a WebSocket begins (RFC 6455, section 4). */
#include <assert.h>
#include <glib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "chardev/websocket.h"

enum { KEY_SIZE = 16, SHA1_SIZE = 20 };

/* Section 1.3: what the key is joined with, so that no other kind of server can have made the answer. */
#define ACCEPT_GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

size_t websocket_handshake_size(const char *text, size_t size)
{
    const char *end = memmem(text, size, "\r\n\r\n", 4);

    return end ? (size_t)(end - text) + 4 : 0;
}

/* The header fields, as lines; NULL and the error where the text is no HTTP message. The first line comes first. */
static char **handshake_lines(const char *text, size_t size, struct error **err)
{
    g_autofree char *copy = NULL;

    if (memchr(text, '\0', size) || !g_utf8_validate(text, (gssize)size, NULL)) {
        error_set(err, "WebSocket handshake: not text");
        return NULL;
    }
    assert(size >= 4);
    copy = g_strndup(text, size - 4);
    return g_strsplit(copy, "\r\n", 0);
}

/* The value of a field, without the spaces around it; fields that come several times are joined. NULL: not there. */
static char *handshake_field(char **lines, const char *name)
{
    GString *value = NULL;

    for (char **line = lines + 1; lines[0] && *line; line++) {
        size_t length = strlen(name);

        if (g_ascii_strncasecmp(*line, name, length) || (*line)[length] != ':')
            continue;
        if (!value)
            value = g_string_new(NULL);
        else
            g_string_append_c(value, ',');
        g_string_append(value, *line + length + 1);
    }
    return value ? g_strstrip(g_string_free(value, FALSE)) : NULL;
}

/* Whether a comma-separated field has the word. */
static bool field_has_word(const char *field, const char *word)
{
    g_auto(GStrv) words = g_strsplit(field ? field : "", ",", 0);

    for (char **i = words; *i; i++) {
        if (!g_ascii_strcasecmp(g_strstrip(*i), word))
            return true;
    }
    return false;
}

/* The server's proof for a key as the client has written it. */
static char *accept_value(const char *key)
{
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA1);
    guint8 digest[SHA1_SIZE];
    gsize size = sizeof(digest);

    g_checksum_update(sum, (const guchar *)key, -1);
    g_checksum_update(sum, (const guchar *)ACCEPT_GUID, -1);
    g_checksum_get_digest(sum, digest, &size);
    return g_base64_encode(digest, size);
}

static bool key_is_valid(const char *key)
{
    gsize size = 0;
    G_GNUC_UNUSED g_autofree guchar *bytes = key && strlen(key) == 24 ? g_base64_decode(key, &size) : NULL;

    return size == KEY_SIZE;
}

static bool request_check(char **lines, struct error **err)
{
    g_auto(GStrv) words = g_strsplit(lines[0] ? lines[0] : "", " ", 0);
    g_autofree char *host = handshake_field(lines, "Host");
    g_autofree char *upgrade = handshake_field(lines, "Upgrade");
    g_autofree char *connection = handshake_field(lines, "Connection");
    g_autofree char *key = handshake_field(lines, "Sec-WebSocket-Key");

    if (g_strv_length(words) != 3 || strcmp(words[0], "GET"))
        return error_set(err, "WebSocket handshake: the request is no GET");
    if (words[1][0] != '/')
        return error_set(err, "WebSocket handshake: the path '%s' is not absolute", words[1]);
    if (!g_str_has_prefix(words[2], "HTTP/1.") || !strcmp(words[2], "HTTP/1.0"))
        return error_set(err, "WebSocket handshake: the protocol is '%s', not HTTP/1.1", words[2]);
    if (!host)
        return error_set(err, "WebSocket handshake: field 'Host' is missing");
    if (!field_has_word(upgrade, "websocket"))
        return error_set(err, "WebSocket handshake: field 'Upgrade' does not have 'websocket'");
    if (!field_has_word(connection, "upgrade"))
        return error_set(err, "WebSocket handshake: field 'Connection' does not have 'Upgrade'");
    if (!key_is_valid(key))
        return error_set(err, "WebSocket handshake: field 'Sec-WebSocket-Key' is not a key of %d bytes", KEY_SIZE);
    return true;
}

static char *refusal(const char *status, const char *fields, const struct error *error)
{
    return g_strdup_printf("HTTP/1.1 %s\r\n"
                           "%s"
                           "Connection: close\r\n"
                           "Content-Type: text/plain; charset=utf-8\r\n"
                           "Content-Length: %zu\r\n"
                           "\r\n"
                           "%s\n",
                           status, fields, strlen(error_message(error)) + 1, error_message(error));
}

static char *consent(char **lines)
{
    g_autofree char *key = handshake_field(lines, "Sec-WebSocket-Key");
    g_autofree char *protocols = handshake_field(lines, "Sec-WebSocket-Protocol");
    g_autofree char *accept = accept_value(key);

    return g_strdup_printf("HTTP/1.1 101 Switching Protocols\r\n"
                           "Upgrade: websocket\r\n"
                           "Connection: Upgrade\r\n"
                           "Sec-WebSocket-Accept: %s\r\n"
                           "%s"
                           "\r\n",
                           accept, field_has_word(protocols, "binary") ? "Sec-WebSocket-Protocol: binary\r\n" : "");
}

bool websocket_answer(const char *request, size_t size, char **ret_reply, struct error **err)
{
    struct error *error = NULL;
    g_auto(GStrv) lines = handshake_lines(request, size, &error);
    g_autofree char *version = lines ? handshake_field(lines, "Sec-WebSocket-Version") : NULL;

    if (!lines || !request_check(lines, &error)) {
        *ret_reply = refusal("400 Bad Request", "", error);
        return error_move(err, error);
    }
    if (!version || strcmp(version, "13")) {
        error_set(&error, "WebSocket handshake: version '%s' is not 13", version ? version : "");
        *ret_reply = refusal("426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n", error);
        return error_move(err, error);
    }
    *ret_reply = consent(lines);
    return true;
}

char *websocket_request(const char *host, const uint8_t key[KEY_SIZE])
{
    g_autofree char *text = g_base64_encode(key, KEY_SIZE);

    return g_strdup_printf("GET / HTTP/1.1\r\n"
                           "Host: %s\r\n"
                           "Upgrade: websocket\r\n"
                           "Connection: Upgrade\r\n"
                           "Sec-WebSocket-Key: %s\r\n"
                           "Sec-WebSocket-Version: 13\r\n"
                           "Sec-WebSocket-Protocol: binary\r\n"
                           "\r\n",
                           host, text);
}

bool websocket_check_reply(const char *reply, size_t size, const uint8_t key[KEY_SIZE], struct error **err)
{
    g_auto(GStrv) lines = handshake_lines(reply, size, err);
    g_autofree char *key_text = g_base64_encode(key, KEY_SIZE);
    g_autofree char *expected = accept_value(key_text);
    g_autofree char *accept = lines ? handshake_field(lines, "Sec-WebSocket-Accept") : NULL;
    g_autofree char *upgrade = lines ? handshake_field(lines, "Upgrade") : NULL;
    g_autofree char *connection = lines ? handshake_field(lines, "Connection") : NULL;
    g_autofree char *extensions = lines ? handshake_field(lines, "Sec-WebSocket-Extensions") : NULL;

    if (!lines)
        return false;
    if (!lines[0] || !(g_str_has_prefix(lines[0], "HTTP/1.1 101 ") || !strcmp(lines[0], "HTTP/1.1 101")))
        return error_set(err, "WebSocket handshake: the server refused: %s", lines[0] ? lines[0] : "");
    if (!field_has_word(upgrade, "websocket") || !field_has_word(connection, "upgrade"))
        return error_set(err, "WebSocket handshake: the server did not upgrade the connection");
    if (!accept || strcmp(accept, expected))
        return error_set(err, "WebSocket handshake: field 'Sec-WebSocket-Accept' is '%s', not '%s'",
                         accept ? accept : "", expected);
    if (extensions && *extensions)
        return error_set(err, "WebSocket handshake: the server uses extensions, '%s', that were not asked for",
                         extensions);
    return true;
}
