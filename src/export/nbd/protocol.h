/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The NBD protocol on the wire: its numbers, and pure functions between bytes and structs. Names and values are those
 * of the protocol's document, doc/proto.md of the nbd project.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

#define NBD_INIT_MAGIC UINT64_C(0x4e42444d41474943)
#define NBD_OPTION_MAGIC UINT64_C(0x49484156454f5054)
#define NBD_OPTION_REPLY_MAGIC UINT64_C(0x0003e889045565a9)
#define NBD_REQUEST_MAGIC UINT32_C(0x25609513)
#define NBD_EXTENDED_REQUEST_MAGIC UINT32_C(0x21e41c71)
#define NBD_SIMPLE_REPLY_MAGIC UINT32_C(0x67446698)
#define NBD_STRUCTURED_REPLY_MAGIC UINT32_C(0x668e33ef)
#define NBD_EXTENDED_REPLY_MAGIC UINT32_C(0x6e8a278c)

enum {
    NBD_GREETING_BYTES = 18,
    NBD_CLIENT_FLAGS_BYTES = 4,
    NBD_OPTION_HEADER_BYTES = 16,
    NBD_OPTION_REPLY_HEADER_BYTES = 20,
    NBD_EXPORT_REPLY_BYTES = 10, /* of NBD_OPT_EXPORT_NAME, before its padding */
    NBD_EXPORT_REPLY_PADDING = 124,
    NBD_REQUEST_BYTES = 28,
    NBD_EXTENDED_REQUEST_BYTES = 32,
    NBD_SIMPLE_REPLY_BYTES = 16,
    NBD_STRUCTURED_REPLY_BYTES = 20,
    NBD_EXTENDED_REPLY_BYTES = 32,
    NBD_REPLY_HEADER_BYTES_MAX = NBD_EXTENDED_REPLY_BYTES,

    NBD_STRING_BYTES_MAX = 4096,              /* of any string: names, descriptions, error texts */
    NBD_OPTION_BYTES_MAX = 32 * 1024 * 1024,  /* longer option data ends the connection */
    NBD_PAYLOAD_BYTES_MAX = 32 * 1024 * 1024, /* of a read's reply or a write; what we announce as maximum block size */
    NBD_MIN_BLOCK_BYTES_MAX = 64 * 1024,
};

enum nbd_handshake_flags { NBD_FLAG_FIXED_NEWSTYLE = 1u << 0, NBD_FLAG_NO_ZEROES = 1u << 1 };

enum nbd_transmission_flags {
    NBD_FLAG_HAS_FLAGS = 1u << 0,
    NBD_FLAG_READ_ONLY = 1u << 1,
    NBD_FLAG_SEND_FLUSH = 1u << 2,
    NBD_FLAG_SEND_FUA = 1u << 3,
    NBD_FLAG_ROTATIONAL = 1u << 4,
    NBD_FLAG_SEND_TRIM = 1u << 5,
    NBD_FLAG_SEND_WRITE_ZEROES = 1u << 6,
    NBD_FLAG_SEND_DF = 1u << 7,
    NBD_FLAG_CAN_MULTI_CONN = 1u << 8,
    NBD_FLAG_SEND_CACHE = 1u << 10,
    NBD_FLAG_SEND_FAST_ZERO = 1u << 11,
    NBD_FLAG_BLOCK_STATUS_PAYLOAD = 1u << 12,
};

enum nbd_option {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_STARTTLS = 5,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8,
    NBD_OPT_LIST_META_CONTEXT = 9,
    NBD_OPT_SET_META_CONTEXT = 10,
    NBD_OPT_EXTENDED_HEADERS = 11,
};

#define NBD_REP_ERROR UINT32_C(0x80000000)
enum nbd_option_reply {
    NBD_REP_ACK = 1,
    NBD_REP_SERVER = 2,
    NBD_REP_INFO = 3,
    NBD_REP_META_CONTEXT = 4,
    NBD_REP_ERR_UNSUP = 1 | NBD_REP_ERROR,
    NBD_REP_ERR_POLICY = 2 | NBD_REP_ERROR,
    NBD_REP_ERR_INVALID = 3 | NBD_REP_ERROR,
    NBD_REP_ERR_PLATFORM = 4 | NBD_REP_ERROR,
    NBD_REP_ERR_TLS_REQD = 5 | NBD_REP_ERROR,
    NBD_REP_ERR_UNKNOWN = 6 | NBD_REP_ERROR,
    NBD_REP_ERR_SHUTDOWN = 7 | NBD_REP_ERROR,
    NBD_REP_ERR_BLOCK_SIZE_REQD = 8 | NBD_REP_ERROR,
    NBD_REP_ERR_TOO_BIG = 9 | NBD_REP_ERROR,
    NBD_REP_ERR_EXT_HEADER_REQD = 10 | NBD_REP_ERROR,
};

enum nbd_info { NBD_INFO_EXPORT = 0, NBD_INFO_NAME = 1, NBD_INFO_DESCRIPTION = 2, NBD_INFO_BLOCK_SIZE = 3 };

enum nbd_command {
    NBD_CMD_READ = 0,
    NBD_CMD_WRITE = 1,
    NBD_CMD_DISC = 2,
    NBD_CMD_FLUSH = 3,
    NBD_CMD_TRIM = 4,
    NBD_CMD_CACHE = 5,
    NBD_CMD_WRITE_ZEROES = 6,
    NBD_CMD_BLOCK_STATUS = 7,
};

enum nbd_command_flags {
    NBD_CMD_FLAG_FUA = 1u << 0,
    NBD_CMD_FLAG_NO_HOLE = 1u << 1,
    NBD_CMD_FLAG_DF = 1u << 2,
    NBD_CMD_FLAG_REQ_ONE = 1u << 3,
    NBD_CMD_FLAG_FAST_ZERO = 1u << 4,
    NBD_CMD_FLAG_PAYLOAD_LEN = 1u << 5,
};

enum { NBD_REPLY_FLAG_DONE = 1u << 0 };

enum nbd_reply_type {
    NBD_REPLY_NONE = 0,
    NBD_REPLY_OFFSET_DATA = 1,
    NBD_REPLY_OFFSET_HOLE = 2,
    NBD_REPLY_BLOCK_STATUS = 5,
    NBD_REPLY_BLOCK_STATUS_EXT = 6,
    NBD_REPLY_ERROR = 0x8001,
    NBD_REPLY_ERROR_OFFSET = 0x8002,
};

enum nbd_state { NBD_STATE_HOLE = 1u << 0, NBD_STATE_ZERO = 1u << 1 };
enum nbd_bitmap_state { NBD_STATE_DIRTY = 1u << 0 };

enum nbd_error {
    NBD_SUCCESS = 0,
    NBD_EPERM = 1,
    NBD_EIO = 5,
    NBD_ENOMEM = 12,
    NBD_EINVAL = 22,
    NBD_ENOSPC = 28,
    NBD_EOVERFLOW = 75,
    NBD_ENOTSUP = 95,
    NBD_ESHUTDOWN = 108,
};

/* What replies look like; each mode has what the one before it has. */
enum nbd_mode { NBD_MODE_SIMPLE, NBD_MODE_STRUCTURED, NBD_MODE_EXTENDED };

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
