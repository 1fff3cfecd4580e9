/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The client's side of the NBD protocol: pure functions between bytes and structs. What a server sends is looked at
 * here first, field by field. */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "driver/protocol/nbd/wire.h"

enum {
    NBD_CLIENT_REQUEST_BYTES_MAX = NBD_EXTENDED_REQUEST_BYTES,
    NBD_STATUS_PAYLOAD_BYTES_MAX = 1 << 20, /* of a reply to a block status request */
    NBD_OPTION_REPLY_BYTES_MAX = 64 * 1024,
    NBD_OLDSTYLE_BYTES = 16 + 8 + 4 + NBD_EXPORT_REPLY_PADDING, /* greeting and all of the old handshake */
};

/* --- handshake --- */

enum nbd_style { NBD_STYLE_OLD, NBD_STYLE_NEW, NBD_STYLE_FIXED };

/* `from`: the first 16 bytes. False: it is no NBD server. NBD_STYLE_NEW: the handshake flags follow. */
bool nbd_greeting_decode(const uint8_t from[16], enum nbd_style *ret) MUST_CHECK;

/* An option to be sent, header and data; NBD_OPT_EXPORT_NAME, _GO, _INFO and the meta contexts have data of their own.
 */
void nbd_option_encode(GByteArray *to, uint32_t option, const void *data, uint32_t length);
void nbd_option_encode_info(GByteArray *to, uint32_t option, const char *name);
/* `query` NULL: no query, which lists all. */
void nbd_option_encode_meta(GByteArray *to, uint32_t option, const char *name, const char *query);

struct nbd_option_reply_header {
    uint32_t option;
    uint32_t type;
    uint32_t length;
};
/* False: it doesn't begin with the magic number. */
bool nbd_option_reply_decode(const uint8_t from[NBD_OPTION_REPLY_HEADER_BYTES],
                             struct nbd_option_reply_header *ret) MUST_CHECK;
const char *nbd_option_title(uint32_t option); /* for messages: "GO", "STARTTLS"; "unknown" */
const char *nbd_option_error_title(uint32_t type);

/* What is known of an export. */
struct nbd_export_info {
    uint64_t size;  /* bytes */
    uint32_t flags; /* enum nbd_transmission_flags */
    bool has_block_size;
    uint32_t min_block; /* bytes; powers of two ... */
    uint32_t preferred_block;
    uint32_t max_block;
    char *description; /* owned; NULL: none */
    bool has_context;
    uint32_t context_id;
};

/* One NBD_REP_INFO into *info; unknown kinds leave it alone. False and the reason for what is malformed. */
bool nbd_info_decode(const uint8_t *data, size_t length, struct nbd_export_info *info, const char **ret_why) MUST_CHECK;

/* --- transmission --- */

struct nbd_call {
    uint16_t type; /* enum nbd_command */
    uint16_t flags;
    uint64_t cookie;
    uint64_t offset;
    uint64_t bytes;
};
/* Writes the header and returns its size. */
size_t nbd_call_encode(uint8_t to[NBD_CLIENT_REQUEST_BYTES_MAX], enum nbd_mode mode, const struct nbd_call *call);

/* The header of a reply or of a part of one. */
struct nbd_reply_header {
    bool simple;
    uint16_t flags;
    uint16_t type;
    uint32_t error; /* simple ones */
    uint64_t cookie;
    uint64_t length; /* of the payload; simple ones: 0 here */
};

/* How long the header is that begins with `magic` in a connection of that mode; 0: no header does. */
size_t nbd_reply_header_bytes(uint32_t magic, enum nbd_mode mode);
/* `from`: that many bytes, with that magic number. */
void nbd_reply_header_decode(const uint8_t *from, struct nbd_reply_header *ret);

/* The errno, positive, that stands for the protocol's error number; never 0. */
int nbd_error_to_errno(uint32_t error);

/* The payload of an error: the errno. False: malformed. */
bool nbd_error_payload_decode(const uint8_t *data, size_t length, uint16_t type, int *ret_errno) MUST_CHECK;

/* The first extent of a block status reply for the context `id`. False: malformed, or of another context. */
struct nbd_extent {
    uint64_t bytes;
    uint64_t flags;
};
bool nbd_status_payload_decode(const uint8_t *data, size_t length, uint16_t type, uint32_t id,
                               struct nbd_extent *ret) MUST_CHECK;
