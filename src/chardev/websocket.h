/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* WebSocket frames and handshakes (RFC 6455) as pure functions on bytes. Private to this folder. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

struct error;

/* --- frames --- */

enum websocket_opcode {
    WEBSOCKET_CONTINUATION = 0,
    WEBSOCKET_TEXT = 1,
    WEBSOCKET_BINARY = 2,
    WEBSOCKET_CLOSE = 8,
    WEBSOCKET_PING = 9,
    WEBSOCKET_PONG = 10,
};

enum {
    WEBSOCKET_HEADER_MAX = 14,
    WEBSOCKET_CONTROL_MAX = 125, /* payload of a control frame */
    WEBSOCKET_MASK_SIZE = 4,
    WEBSOCKET_STATUS_NORMAL = 1000,
    WEBSOCKET_STATUS_PROTOCOL_ERROR = 1002,
};

struct websocket_decoder {
    bool masked; /* whether the other end has to mask: clients do */
    uint8_t header[WEBSOCKET_HEADER_MAX];
    size_t header_size;
    uint64_t left; /* of the payload */
    uint8_t mask[WEBSOCKET_MASK_SIZE];
    uint64_t mask_at;
    enum websocket_opcode opcode;
    bool in_payload;
    bool in_message; /* the last data frame was not the last of its message */
    uint8_t control[WEBSOCKET_CONTROL_MAX];
    size_t control_size;
};

void websocket_decoder_init(struct websocket_decoder *decoder, bool masked);

enum websocket_outcome {
    WEBSOCKET_FOUND_NOTHING,   /* all of the input is used up */
    WEBSOCKET_FOUND_DATA,      /* `data`, unmasked where it lay in the input */
    WEBSOCKET_FOUND_PING,      /* `data` in the decoder, until the next call */
    WEBSOCKET_FOUND_CLOSE,     /* so too */
    WEBSOCKET_FOUND_VIOLATION, /* of the protocol: the connection has to end */
};

struct websocket_found {
    size_t used; /* bytes of the input */
    uint8_t *data;
    size_t data_size;
};

/* Looks at the next bytes, cut anywhere; to be called until it finds nothing. */
enum websocket_outcome websocket_decode(struct websocket_decoder *decoder, uint8_t *input, size_t size,
                                        struct websocket_found *found);

/* The header of a whole, unfragmented frame; `mask` may be NULL. Its size. */
size_t websocket_encode_header(uint8_t to[WEBSOCKET_HEADER_MAX], enum websocket_opcode opcode, uint64_t size,
                               const uint8_t *mask);

/* Masks or unmasks; `at` is the position in the payload. */
void websocket_mask(uint8_t *data, size_t size, const uint8_t mask[WEBSOCKET_MASK_SIZE], uint64_t at);

/* --- handshakes --- */

enum { WEBSOCKET_HANDSHAKE_MAX = 8192 }; /* bytes of a request or a reply */

/* Size of the request or reply at the beginning of `text`, with its empty line; 0: not complete yet. */
size_t websocket_handshake_size(const char *text, size_t size);

/*
 * What a server says to a request: the reply, owned, and true; or false and the error, with the reply that tells the
 * client so.
 */
bool websocket_answer(const char *request, size_t size, char **ret_reply, struct error **err) MUST_CHECK;

/* A client's request; `key` is 16 random bytes. Owned. */
char *websocket_request(const char *host, const uint8_t key[16]);

/* Whether a server's reply consents to the request. */
bool websocket_check_reply(const char *reply, size_t size, const uint8_t key[16], struct error **err) MUST_CHECK;
