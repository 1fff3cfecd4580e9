/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The NBD protocol on the wire: its numbers, for client and server. Names and values are those of the protocol's
 * document, doc/proto.md of the nbd project.
 */
#pragma once

#include <stdint.h>

#define NBD_INIT_MAGIC UINT64_C(0x4e42444d41474943)
#define NBD_OLDSTYLE_MAGIC UINT64_C(0x00420281861253)
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
