/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The frame of everything that is sent: a length that counts itself, and a header of six words, big-endian. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    RPC_LENGTH_SIZE = 4,
    RPC_HEADER_SIZE = 28, /* the length included */
    RPC_PACKET_MAX = (32 << 20) + RPC_LENGTH_SIZE,
    RPC_STREAM_CHUNK = 262120, /* what clients put into one packet of a stream */
};

enum { RPC_PROGRAM_REMOTE = 0x20008086, RPC_PROGRAM_KEEPALIVE = 0x6b656570, RPC_PROGRAM_ADMIN = 0x06900690 };
enum { RPC_VERSION = 1 }; /* of all programs */
enum { RPC_KEEPALIVE_PING = 1, RPC_KEEPALIVE_PONG = 2 };

enum rpc_type {
    RPC_CALL,
    RPC_REPLY,
    RPC_MESSAGE,
    RPC_STREAM,
    RPC_CALL_WITH_FDS,
    RPC_REPLY_WITH_FDS,
    RPC_STREAM_HOLE,
};

enum rpc_status { RPC_OK, RPC_ERROR, RPC_CONTINUE };

struct rpc_header {
    uint32_t length; /* of the whole packet */
    uint32_t program;
    uint32_t version;
    int32_t procedure;
    uint32_t type; /* enum rpc_type, or nonsense */
    uint32_t serial;
    uint32_t status; /* enum rpc_status, or nonsense */
};

/* Whether a packet may have this length; nobody talks on with who sends another. */
bool rpc_length_valid(uint32_t length);

/* From and to RPC_HEADER_SIZE bytes. */
void rpc_header_decode(struct rpc_header *ret, const uint8_t *bytes);
void rpc_header_encode(const struct rpc_header *header, uint8_t *bytes);
