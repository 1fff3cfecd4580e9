/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Any bytes from a WebSocket peer, cut anywhere. The first byte chooses what they are taken for: frames, of a client or
 * a server, a handshake's request or its reply, or a payload to be framed; and where the input is cut.
 */
#include <assert.h>
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "chardev/websocket.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct result {
    GString *found; /* what was found, in words */
    bool over;
};

static void decode_some(struct websocket_decoder *decoder, uint8_t *input, size_t size, struct result *result)
{
    size_t at = 0;

    while (!result->over) {
        struct websocket_found found;
        enum websocket_outcome outcome = websocket_decode(decoder, input + at, size - at, &found);

        assert(found.used <= size - at);
        at += found.used;
        if (outcome == WEBSOCKET_FOUND_NOTHING) {
            assert(at == size);
            return;
        }
        result->over = outcome == WEBSOCKET_FOUND_CLOSE || outcome == WEBSOCKET_FOUND_VIOLATION;
        if (outcome != WEBSOCKET_FOUND_DATA)
            g_string_append_printf(result->found, "<%d>", outcome);
        if (outcome != WEBSOCKET_FOUND_VIOLATION)
            g_string_append_len(result->found, (const char *)found.data, (gssize)found.data_size);
    }
}

static GString *decode(const uint8_t *from, size_t size, bool masked, size_t piece)
{
    struct result result = {.found = g_string_new(NULL)};
    struct websocket_decoder decoder;

    websocket_decoder_init(&decoder, masked);
    for (size_t at = 0; at < size; at += piece) {
        size_t part = MIN(piece, size - at);
        g_autofree uint8_t *copy = g_memdup2(from + at, part);

        decode_some(&decoder, copy, part, &result);
    }
    return result.found;
}

static void check_frames(const uint8_t *from, size_t size, bool masked, size_t piece)
{
    GString *whole = decode(from, size, masked, MAX(size, (size_t)1));
    GString *parts = decode(from, size, masked, piece);

    assert(g_string_equal(whole, parts));
    g_string_free(whole, TRUE);
    g_string_free(parts, TRUE);
}

static void check_framing(const uint8_t *from, size_t size, bool masked)
{
    static const uint8_t mask[WEBSOCKET_MASK_SIZE] = {1, 0x80, 0xff, 0};
    g_autofree uint8_t *frame = g_malloc(WEBSOCKET_HEADER_MAX + size);
    size_t header = websocket_encode_header(frame, WEBSOCKET_BINARY, size, masked ? mask : NULL);
    GString *found;

    memcpy(frame + header, from, size);
    if (masked)
        websocket_mask(frame + header, size, mask, 0);
    found = decode(frame, header + size, masked, header + size);
    assert(found->len == size && !memcmp(found->str, from, size));
    g_string_free(found, TRUE);
}

static void check_handshake(const uint8_t *from, size_t size)
{
    static const uint8_t key[16] = "0123456789abcdef";
    size_t handshake = websocket_handshake_size((const char *)from, size);
    g_autofree char *reply = NULL;
    AUTO(error) refused = NULL;
    AUTO(error) mistrusted = NULL;

    assert(handshake <= size);
    if (!handshake)
        return;
    assert(websocket_answer((const char *)from, handshake, &reply, &refused) == !refused);
    assert(websocket_handshake_size(reply, strlen(reply)));
    assert(websocket_check_reply((const char *)from, handshake, key, &mistrusted) == !mistrusted);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    switch (data[0] % 3) {
    case 0:
        check_frames(data + 1, size - 1, data[0] & 0x80, 1 + (data[0] >> 2) % 32);
        break;
    case 1:
        check_framing(data + 1, size - 1, data[0] & 0x80);
        break;
    case 2:
        check_handshake(data + 1, size - 1);
        break;
    }
    return 0;
}
