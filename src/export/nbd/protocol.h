/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The server's side of the NBD protocol: pure functions between bytes and structs. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "driver/protocol/nbd/wire.h"

/* Words for messages; "unknown" where there is none. */
const char *nbd_option_name(uint32_t option);
const char *nbd_command_name(uint16_t command);

/* The protocol's number for a negative errno (0 for 0). */
uint32_t nbd_error_of(int errno_value);

/* --- handshake --- */

struct nbd_option_header {
    uint32_t option;
    uint32_t length; /* of the data that follow */
};

/* `from`: NBD_OPTION_HEADER_BYTES. False: it doesn't begin with the magic number. */
bool nbd_option_header_decode(const uint8_t *from, struct nbd_option_header *ret) MUST_CHECK;

/* A string inside the option's data: not NUL-terminated. */
struct nbd_string {
    const char *text;
    uint32_t length;
};

/* UTF-8, no NUL, at most NBD_STRING_BYTES_MAX long; else *ret_why says why not. */
bool nbd_export_name_is_valid(const struct nbd_string *string, const char **ret_why) MUST_CHECK;

/* A name (UTF-8) for messages: its first 80 characters, and "..." where there are more. Owned. */
char *nbd_name_shorten(const char *text, size_t length);

/* The data of NBD_OPT_INFO and NBD_OPT_GO. */
struct nbd_info_request {
    struct nbd_string name;
    uint32_t wanted; /* bit 1 << NBD_INFO_x for those we know */
};
bool nbd_info_request_decode(const uint8_t *data, size_t length, struct nbd_info_request *ret,
                             const char **ret_why) MUST_CHECK;

/* The data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. */
struct nbd_meta_request {
    struct nbd_string name;
    uint32_t query_count;
    const uint8_t *queries; /* for nbd_meta_query_next() */
    size_t queries_length;
};

/* Checks the frame of all queries too, so that walking them cannot fail. */
bool nbd_meta_request_decode(const uint8_t *data, size_t length, struct nbd_meta_request *ret,
                             const char **ret_why) MUST_CHECK;

/* Takes the next query out of `request`; false after the last. */
bool nbd_meta_query_next(struct nbd_meta_request *request, struct nbd_string *ret) MUST_CHECK;

void nbd_greeting_encode(uint8_t to[NBD_GREETING_BYTES]);
void nbd_option_reply_encode(uint8_t to[NBD_OPTION_REPLY_HEADER_BYTES], uint32_t option, uint32_t type,
                             uint32_t length);

/* --- transmission --- */

/* A request as it came; nothing but the magic number has been checked. */
struct nbd_request_header {
    uint64_t cookie; /* bytes as on the wire, for the reply */
    uint64_t offset; /* bytes */
    uint64_t length; /* bytes; of the payload, where the type or NBD_CMD_FLAG_PAYLOAD_LEN says so */
    uint16_t type;
    uint16_t flags;
};

static inline size_t nbd_request_bytes(enum nbd_mode mode)
{
    return mode == NBD_MODE_EXTENDED ? NBD_EXTENDED_REQUEST_BYTES : NBD_REQUEST_BYTES;
}

/* `from`: nbd_request_bytes(mode). False: the magic number isn't that of the mode. */
bool nbd_request_decode(const uint8_t *from, enum nbd_mode mode, struct nbd_request_header *ret) MUST_CHECK;

/* How many bytes of payload follow the header. */
uint64_t nbd_request_payload(const struct nbd_request_header *header, enum nbd_mode mode);

/* The payload of a block status request. */
enum { NBD_STATUS_FILTER_BYTES_MAX = 8 + 4 * 64 };
struct nbd_status_filter {
    uint64_t length;   /* bytes of the export that are asked for */
    uint64_t contexts; /* bit 1 << id for each metadata context */
};

/* False and the reason where it is malformed, or names none, one twice, or one that `selected` lacks. */
bool nbd_status_filter_decode(const uint8_t *data, size_t length, uint64_t selected, struct nbd_status_filter *ret,
                              const char **ret_why) MUST_CHECK;

/* What a connection has agreed on, against which its requests are checked. */
struct nbd_terms {
    enum nbd_mode mode;
    uint32_t flags;     /* enum nbd_transmission_flags */
    uint32_t min_block; /* bytes, a power of two; 1 where the client has not asked for it */
    bool has_contexts;  /* at least one metadata context is selected */
};

/*
 * Whether the request may run on an export of `size` bytes: NBD_SUCCESS, or the error with the reason in *ret_why.
 * NBD_CMD_DISC always may.
 */
enum nbd_error nbd_request_check(const struct nbd_request_header *header, const struct nbd_terms *terms, uint64_t size,
                                 const char **ret_why) MUST_CHECK;

/* Each writes one header to `to` and returns its size, at most NBD_REPLY_HEADER_BYTES_MAX. */
size_t nbd_simple_reply_encode(uint8_t *to, const struct nbd_request_header *header, uint32_t error);

/* A structured or extended chunk, by `mode`, of `length` bytes of payload. */
size_t nbd_chunk_encode(uint8_t *to, enum nbd_mode mode, const struct nbd_request_header *header, uint16_t flags,
                        uint16_t type, uint64_t length);
