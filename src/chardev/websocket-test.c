/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "chardev/websocket.h"

#include <glib.h>
#include <string.h>

#include "base/error.h"

/* --- frames --- */

#define BYTES(...) ((uint8_t[]){__VA_ARGS__}), sizeof((uint8_t[]){__VA_ARGS__})

static enum websocket_outcome decode_first(bool masked, uint8_t *input, size_t size)
{
    struct websocket_decoder decoder;
    struct websocket_found found;

    websocket_decoder_init(&decoder, masked);
    return websocket_decode(&decoder, input, size, &found);
}

/* The examples of RFC 6455, section 5.7. */
static void test_examples(void)
{
    uint8_t input[] = {0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58, 0x89,
                       0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58, 0x8a, 0x80,
                       1,    2,    3,    4,    0x88, 0x82, 0,    0,    0,    0,    0x03, 0xe8};
    struct websocket_decoder decoder;
    struct websocket_found found;
    size_t at;

    websocket_decoder_init(&decoder, true);
    g_assert_cmpint(websocket_decode(&decoder, input, sizeof(input), &found), ==, WEBSOCKET_FOUND_DATA);
    g_assert_cmpmem(found.data, found.data_size, "Hello", 5);
    at = found.used;
    g_assert_cmpint(websocket_decode(&decoder, input + at, sizeof(input) - at, &found), ==, WEBSOCKET_FOUND_PING);
    g_assert_cmpmem(found.data, found.data_size, "Hello", 5);
    at += found.used;
    /* The pong between them is nothing to us. */
    g_assert_cmpint(websocket_decode(&decoder, input + at, sizeof(input) - at, &found), ==, WEBSOCKET_FOUND_CLOSE);
    g_assert_cmpmem(found.data, found.data_size, "\x03\xe8", 2);
    g_assert_cmpuint(at + found.used, ==, sizeof(input));
}

static void test_fragments(void)
{
    uint8_t input[] = {0x02, 2, 'a', 'b', 0x89, 1, 'p', 0x00, 0, 0x80, 1, 'c'};
    struct websocket_decoder decoder;
    struct websocket_found found;
    g_autoptr(GString) data = g_string_new(NULL);
    unsigned pings = 0;

    websocket_decoder_init(&decoder, false);
    for (size_t i = 0; i < sizeof(input); i++) {
        enum websocket_outcome outcome = websocket_decode(&decoder, input + i, 1, &found);

        g_assert_cmpuint(found.used, ==, 1);
        g_assert_cmpint(outcome, !=, WEBSOCKET_FOUND_VIOLATION);
        pings += outcome == WEBSOCKET_FOUND_PING;
        if (outcome == WEBSOCKET_FOUND_DATA)
            g_string_append_len(data, (const char *)found.data, (gssize)found.data_size);
    }
    g_assert_cmpstr(data->str, ==, "abc");
    g_assert_cmpuint(pings, ==, 1);
}

static void test_violations(void)
{
    /* From a client: not masked. From a server: masked. */
    g_assert_cmpint(decode_first(true, BYTES(0x82, 0x01, 'a')), ==, WEBSOCKET_FOUND_VIOLATION);
    g_assert_cmpint(decode_first(false, BYTES(0x82, 0x81, 0, 0, 0, 0, 'a')), ==, WEBSOCKET_FOUND_VIOLATION);
    /* Reserved bits and opcodes. */
    g_assert_cmpint(decode_first(false, BYTES(0xc2, 0x01, 'a')), ==, WEBSOCKET_FOUND_VIOLATION);
    g_assert_cmpint(decode_first(false, BYTES(0x83, 0x01, 'a')), ==, WEBSOCKET_FOUND_VIOLATION);
    g_assert_cmpint(decode_first(false, BYTES(0x8b, 0x00)), ==, WEBSOCKET_FOUND_VIOLATION);
    /* A control frame that is fragmented, one that is too long, a close with half a status. */
    g_assert_cmpint(decode_first(false, BYTES(0x09, 0x00)), ==, WEBSOCKET_FOUND_VIOLATION);
    g_assert_cmpint(decode_first(false, BYTES(0x89, 126, 0, 126)), ==, WEBSOCKET_FOUND_VIOLATION);
    g_assert_cmpint(decode_first(false, BYTES(0x88, 0x01, 3)), ==, WEBSOCKET_FOUND_VIOLATION);
    /* A continuation of nothing, and a message within a message. */
    g_assert_cmpint(decode_first(false, BYTES(0x80, 0x01, 'a')), ==, WEBSOCKET_FOUND_VIOLATION);
    uint8_t nested[] = {0x02, 0, 0x82, 0};
    g_assert_cmpint(decode_first(false, nested, sizeof(nested)), ==, WEBSOCKET_FOUND_VIOLATION);
    /* Lengths that are longer than need be, or have 64 bits. */
    g_assert_cmpint(decode_first(false, BYTES(0x82, 126, 0, 125)), ==, WEBSOCKET_FOUND_VIOLATION);
    g_assert_cmpint(decode_first(false, BYTES(0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff)), ==, WEBSOCKET_FOUND_VIOLATION);
    g_assert_cmpint(decode_first(false, BYTES(0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0)), ==, WEBSOCKET_FOUND_VIOLATION);
    g_assert_cmpint(decode_first(false, BYTES(0x82, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)), ==,
                    WEBSOCKET_FOUND_NOTHING);
}

static void test_headers(void)
{
    static const uint8_t mask[WEBSOCKET_MASK_SIZE] = {1, 2, 3, 4};
    uint8_t header[WEBSOCKET_HEADER_MAX];

    g_assert_cmpmem(header, websocket_encode_header(header, WEBSOCKET_BINARY, 125, NULL), "\x82\x7d", 2);
    g_assert_cmpmem(header, websocket_encode_header(header, WEBSOCKET_BINARY, 126, NULL), "\x82\x7e\x00\x7e", 4);
    g_assert_cmpmem(header, websocket_encode_header(header, WEBSOCKET_BINARY, 65536, NULL),
                    "\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", 10);
    g_assert_cmpmem(header, websocket_encode_header(header, WEBSOCKET_CLOSE, 2, mask), "\x88\x82\x01\x02\x03\x04", 6);
}

/* --- handshakes --- */

#define REQUEST_HEAD "GET /chat HTTP/1.1\r\nHost: server.example.com\r\n"
#define REQUEST_UPGRADE "upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
#define REQUEST_KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define REQUEST_VERSION "Sec-WebSocket-Version: 13\r\n"

/* The example of RFC 6455, section 1.2. */
static void test_answer(void)
{
    const char *request =
        REQUEST_HEAD REQUEST_UPGRADE REQUEST_KEY REQUEST_VERSION "Sec-WebSocket-Protocol: chat, binary\r\n\r\nrest";
    size_t size = websocket_handshake_size(request, strlen(request));
    g_autofree char *reply = NULL;
    AUTO(error) err = NULL;

    g_assert_cmpuint(size, ==, strlen(request) - 4);
    g_assert_true(websocket_answer(request, size, &reply, &err));
    g_assert_true(g_str_has_prefix(reply, "HTTP/1.1 101 "));
    g_assert_nonnull(strstr(reply, "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    g_assert_nonnull(strstr(reply, "\r\nSec-WebSocket-Protocol: binary\r\n"));
    g_assert_true(g_str_has_suffix(reply, "\r\n\r\n"));
}

static void assert_refused(const char *request, const char *status, const char *message)
{
    g_autofree char *reply = NULL;
    AUTO(error) err = NULL;

    g_assert_false(websocket_answer(request, strlen(request), &reply, &err));
    g_assert_nonnull(strstr(error_message(err), message));
    g_assert_true(g_str_has_prefix(reply, status));
    g_assert_nonnull(strstr(reply, message));
}

static void test_refusals(void)
{
    assert_refused("\r\n\r\n", "HTTP/1.1 400 ", "no GET");
    assert_refused("\xff\r\n\r\n", "HTTP/1.1 400 ", "not text");
    assert_refused("PUT / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 ", "no GET");
    assert_refused("GET x HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 ", "'x'");
    assert_refused("GET / HTTP/1.0\r\nHost: x\r\n\r\n", "HTTP/1.1 400 ", "'HTTP/1.0'");
    assert_refused("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", "'Host'");
    assert_refused(REQUEST_HEAD "Connection: upgrade\r\n" REQUEST_KEY REQUEST_VERSION "\r\n", "HTTP/1.1 400 ",
                   "'Upgrade'");
    assert_refused(REQUEST_HEAD "Upgrade: websocket\r\n" REQUEST_KEY REQUEST_VERSION "\r\n", "HTTP/1.1 400 ",
                   "'Connection'");
    assert_refused(REQUEST_HEAD REQUEST_UPGRADE "Sec-WebSocket-Key: short\r\n" REQUEST_VERSION "\r\n", "HTTP/1.1 400 ",
                   "'Sec-WebSocket-Key'");
    assert_refused(REQUEST_HEAD REQUEST_UPGRADE REQUEST_KEY "Sec-WebSocket-Version: 8\r\n\r\n", "HTTP/1.1 426 ", "'8'");
}

static void test_client(void)
{
    static const uint8_t key[16] = "0123456789abcdef";
    static const uint8_t other_key[16] = "0123456789abcdeg";
    g_autofree char *request = websocket_request("host:80", key);
    g_autofree char *reply = NULL;
    AUTO(error) wrong = NULL;
    AUTO(error) refused = NULL;
    const char *forbidden = "HTTP/1.1 403 Forbidden\r\n\r\n";

    g_assert_nonnull(strstr(request, "\r\nHost: host:80\r\n"));
    g_assert_true(websocket_answer(request, strlen(request), &reply, NULL));
    g_assert_true(websocket_check_reply(reply, strlen(reply), key, NULL));
    g_assert_false(websocket_check_reply(reply, strlen(reply), other_key, &wrong));
    g_assert_nonnull(strstr(error_message(wrong), "'Sec-WebSocket-Accept'"));
    g_assert_false(websocket_check_reply(forbidden, strlen(forbidden), key, &refused));
    g_assert_nonnull(strstr(error_message(refused), "403 Forbidden"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/websocket/examples", test_examples);
    g_test_add_func("/websocket/fragments", test_fragments);
    g_test_add_func("/websocket/violations", test_violations);
    g_test_add_func("/websocket/headers", test_headers);
    g_test_add_func("/websocket/answer", test_answer);
    g_test_add_func("/websocket/refusals", test_refusals);
    g_test_add_func("/websocket/client", test_client);
    return g_test_run();
}
