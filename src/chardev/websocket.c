/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* WebSocket frames as pure functions on bytes. */
#include "chardev/websocket.h"

#include <assert.h>
#include <glib.h>
#include <string.h>

#include "base/bytes.h"

enum {
    HEADER_FINAL = 0x80,
    HEADER_RESERVED = 0x70,
    HEADER_OPCODE = 0x0f,
    HEADER_MASKED = 0x80,
    HEADER_LENGTH = 0x7f,
    LENGTH_16 = 126,
    LENGTH_64 = 127,
    OPCODE_CONTROL = 0x08,
};

void websocket_decoder_init(struct websocket_decoder *decoder, bool masked)
{
    *decoder = (struct websocket_decoder){.masked = masked};
}

static size_t header_size_of(const uint8_t *header, bool masked)
{
    uint8_t length = header[1] & HEADER_LENGTH;

    return 2 + (length == LENGTH_16 ? 2 : length == LENGTH_64 ? 8 : 0) + (masked ? WEBSOCKET_MASK_SIZE : 0);
}

static bool opcode_known(uint8_t opcode)
{
    return opcode <= WEBSOCKET_BINARY || (opcode >= WEBSOCKET_CLOSE && opcode <= WEBSOCKET_PONG);
}

/* Whether the first two bytes can begin a frame here. */
static bool header_begins_well(const struct websocket_decoder *decoder)
{
    const uint8_t *header = decoder->header;
    uint8_t opcode = header[0] & HEADER_OPCODE;

    if (header[0] & HEADER_RESERVED || !opcode_known(opcode))
        return false;
    if (!!(header[1] & HEADER_MASKED) != decoder->masked)
        return false;
    if (opcode & OPCODE_CONTROL)
        return header[0] & HEADER_FINAL && (header[1] & HEADER_LENGTH) <= WEBSOCKET_CONTROL_MAX;
    return (opcode == WEBSOCKET_CONTINUATION) == decoder->in_message;
}

/* Lengths have to be written in the shortest form, and have 63 bits. */
static bool header_length(const uint8_t *header, uint64_t *ret)
{
    uint8_t length = header[1] & HEADER_LENGTH;

    if (length == LENGTH_16) {
        *ret = load_be16(header + 2);
        return *ret >= LENGTH_16;
    }
    if (length == LENGTH_64) {
        *ret = load_be64(header + 2);
        return *ret > UINT16_MAX && *ret <= INT64_MAX;
    }
    *ret = length;
    return true;
}

/* Takes the header, which is complete, to heart. */
static bool header_finish(struct websocket_decoder *decoder)
{
    const uint8_t *header = decoder->header;

    if (!header_length(header, &decoder->left))
        return false;
    decoder->opcode = header[0] & HEADER_OPCODE;
    decoder->in_payload = true;
    decoder->mask_at = 0;
    decoder->control_size = 0;
    if (decoder->masked)
        memcpy(decoder->mask, header + decoder->header_size - WEBSOCKET_MASK_SIZE, WEBSOCKET_MASK_SIZE);
    if (!(decoder->opcode & OPCODE_CONTROL))
        decoder->in_message = !(header[0] & HEADER_FINAL);
    decoder->header_size = 0;
    return true;
}

/* Collects a header: whether all is well so far. */
static bool decode_header(struct websocket_decoder *decoder, const uint8_t *input, size_t size,
                          struct websocket_found *found)
{
    while (found->used < size) {
        decoder->header[decoder->header_size++] = input[found->used++];
        if (decoder->header_size < 2)
            continue;
        if (decoder->header_size == 2 && !header_begins_well(decoder))
            return false;
        if (decoder->header_size == header_size_of(decoder->header, decoder->masked))
            return header_finish(decoder);
    }
    return true;
}

/* The next piece of a payload, unmasked. */
static uint8_t *decode_payload(struct websocket_decoder *decoder, uint8_t *input, size_t size,
                               struct websocket_found *found, size_t *ret_size)
{
    uint8_t *piece = input + found->used;
    size_t piece_size = MIN(decoder->left, size - found->used);

    if (decoder->masked)
        websocket_mask(piece, piece_size, decoder->mask, decoder->mask_at);
    decoder->mask_at += piece_size;
    decoder->left -= piece_size;
    decoder->in_payload = decoder->left > 0;
    found->used += piece_size;
    *ret_size = piece_size;
    return piece;
}

/* A close frame is empty or begins with a status. */
static enum websocket_outcome control_outcome(const struct websocket_decoder *decoder)
{
    switch (decoder->opcode) {
    case WEBSOCKET_PING:
        return WEBSOCKET_FOUND_PING;
    case WEBSOCKET_CLOSE:
        return decoder->control_size == 1 ? WEBSOCKET_FOUND_VIOLATION : WEBSOCKET_FOUND_CLOSE;
    default:
        return WEBSOCKET_FOUND_NOTHING;
    }
}

enum websocket_outcome websocket_decode(struct websocket_decoder *decoder, uint8_t *input, size_t size,
                                        struct websocket_found *found)
{
    *found = (struct websocket_found){0};
    for (;;) {
        enum websocket_outcome outcome;
        uint8_t *piece;
        size_t piece_size;

        if (!decoder->in_payload) {
            if (found->used == size)
                return WEBSOCKET_FOUND_NOTHING;
            if (!decode_header(decoder, input, size, found))
                return WEBSOCKET_FOUND_VIOLATION;
            if (!decoder->in_payload)
                return WEBSOCKET_FOUND_NOTHING;
        }
        if (found->used == size && decoder->left)
            return WEBSOCKET_FOUND_NOTHING;
        piece = decode_payload(decoder, input, size, found, &piece_size);
        if (!(decoder->opcode & OPCODE_CONTROL)) {
            if (!piece_size)
                continue;
            found->data = piece;
            found->data_size = piece_size;
            return WEBSOCKET_FOUND_DATA;
        }
        assert(decoder->control_size + piece_size <= WEBSOCKET_CONTROL_MAX);
        memcpy(decoder->control + decoder->control_size, piece, piece_size);
        decoder->control_size += piece_size;
        if (decoder->in_payload)
            return WEBSOCKET_FOUND_NOTHING;
        outcome = control_outcome(decoder);
        if (outcome == WEBSOCKET_FOUND_NOTHING)
            continue;
        found->data = decoder->control;
        found->data_size = decoder->control_size;
        return outcome;
    }
}

void websocket_mask(uint8_t *data, size_t size, const uint8_t mask[WEBSOCKET_MASK_SIZE], uint64_t at)
{
    for (size_t i = 0; i < size; i++)
        data[i] ^= mask[(at + i) % WEBSOCKET_MASK_SIZE];
}

size_t websocket_encode_header(uint8_t to[WEBSOCKET_HEADER_MAX], enum websocket_opcode opcode, uint64_t size,
                               const uint8_t *mask)
{
    size_t done = 2;

    assert(size <= INT64_MAX);
    assert(!(opcode & OPCODE_CONTROL) || size <= WEBSOCKET_CONTROL_MAX);
    to[0] = (uint8_t)(HEADER_FINAL | opcode);
    to[1] = mask ? HEADER_MASKED : 0;
    if (size < LENGTH_16) {
        to[1] |= (uint8_t)size;
    } else if (size <= UINT16_MAX) {
        to[1] |= LENGTH_16;
        store_be16(to + done, (uint16_t)size);
        done += 2;
    } else {
        to[1] |= LENGTH_64;
        store_be64(to + done, size);
        done += 8;
    }
    if (mask) {
        memcpy(to + done, mask, WEBSOCKET_MASK_SIZE);
        done += WEBSOCKET_MASK_SIZE;
    }
    assert(done <= WEBSOCKET_HEADER_MAX);
    return done;
}
