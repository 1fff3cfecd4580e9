/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "driver/protocol/nbd/message.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"

enum {
    INFO_EXPORT_BYTES = 12,
    INFO_BLOCK_SIZE_BYTES = 14,
    ERROR_BYTES_MIN = 6,
    ERROR_OFFSET_BYTES = 8,
    EXTENT_BYTES = 8,
    EXTENT_EXT_BYTES = 16,
};

/* --- handshake --- */

bool nbd_greeting_decode(const uint8_t from[16], enum nbd_style *ret)
{
    uint64_t second = load_be64(from + 8);

    if (load_be64(from) != NBD_INIT_MAGIC || (second != NBD_OPTION_MAGIC && second != NBD_OLDSTYLE_MAGIC))
        return false;
    *ret = second == NBD_OLDSTYLE_MAGIC ? NBD_STYLE_OLD : NBD_STYLE_NEW;
    return true;
}

static void append_be32(GByteArray *to, uint32_t value)
{
    uint8_t bytes[4];

    store_be32(bytes, value);
    g_byte_array_append(to, bytes, sizeof(bytes));
}

static void append_string(GByteArray *to, const char *text)
{
    size_t length = strlen(text);

    assert(length <= NBD_STRING_BYTES_MAX);
    append_be32(to, (uint32_t)length);
    g_byte_array_append(to, (const guint8 *)text, (guint)length);
}

void nbd_option_encode(GByteArray *to, uint32_t option, const void *data, uint32_t length)
{
    uint8_t head[NBD_OPTION_HEADER_BYTES];

    store_be64(head, NBD_OPTION_MAGIC);
    store_be32(head + 8, option);
    store_be32(head + 12, length);
    g_byte_array_append(to, head, sizeof(head));
    if (length)
        g_byte_array_append(to, data, length);
}

void nbd_option_encode_info(GByteArray *to, uint32_t option, const char *name)
{
    g_autoptr(GByteArray) data = g_byte_array_new();
    static const uint8_t wanted[] = {0, 1, 0, NBD_INFO_BLOCK_SIZE};
    static const uint8_t wanted_all[] = {0, 2, 0, NBD_INFO_BLOCK_SIZE, 0, NBD_INFO_DESCRIPTION};

    append_string(data, name);
    if (option == NBD_OPT_INFO)
        g_byte_array_append(data, wanted_all, sizeof(wanted_all));
    else
        g_byte_array_append(data, wanted, sizeof(wanted));
    nbd_option_encode(to, option, data->data, data->len);
}

void nbd_option_encode_meta(GByteArray *to, uint32_t option, const char *name, const char *query)
{
    g_autoptr(GByteArray) data = g_byte_array_new();

    append_string(data, name);
    append_be32(data, query ? 1 : 0);
    if (query)
        append_string(data, query);
    nbd_option_encode(to, option, data->data, data->len);
}

bool nbd_option_reply_decode(const uint8_t from[NBD_OPTION_REPLY_HEADER_BYTES], struct nbd_option_reply_header *ret)
{
    if (load_be64(from) != NBD_OPTION_REPLY_MAGIC)
        return false;
    ret->option = load_be32(from + 8);
    ret->type = load_be32(from + 12);
    ret->length = load_be32(from + 16);
    return true;
}

const char *nbd_option_title(uint32_t option)
{
    static const char *const titles[] = {
        [NBD_OPT_EXPORT_NAME] = "EXPORT_NAME",
        [NBD_OPT_ABORT] = "ABORT",
        [NBD_OPT_LIST] = "LIST",
        [NBD_OPT_STARTTLS] = "STARTTLS",
        [NBD_OPT_INFO] = "INFO",
        [NBD_OPT_GO] = "GO",
        [NBD_OPT_STRUCTURED_REPLY] = "STRUCTURED_REPLY",
        [NBD_OPT_LIST_META_CONTEXT] = "LIST_META_CONTEXT",
        [NBD_OPT_SET_META_CONTEXT] = "SET_META_CONTEXT",
        [NBD_OPT_EXTENDED_HEADERS] = "EXTENDED_HEADERS",
    };

    return option < G_N_ELEMENTS(titles) && titles[option] ? titles[option] : "unknown";
}

const char *nbd_option_error_title(uint32_t type)
{
    switch (type) {
    case NBD_REP_ERR_UNSUP:
        return "the server does not know it";
    case NBD_REP_ERR_POLICY:
        return "the server's policy forbids it";
    case NBD_REP_ERR_INVALID:
        return "the server finds it invalid";
    case NBD_REP_ERR_PLATFORM:
        return "the server's system cannot do it";
    case NBD_REP_ERR_TLS_REQD:
        return "the server requires TLS";
    case NBD_REP_ERR_UNKNOWN:
        return "there is no such export";
    case NBD_REP_ERR_SHUTDOWN:
        return "the server is shutting down";
    case NBD_REP_ERR_BLOCK_SIZE_REQD:
        return "the server requires that its block size is kept to";
    case NBD_REP_ERR_TOO_BIG:
        return "it is too big for the server";
    case NBD_REP_ERR_EXT_HEADER_REQD:
        return "the server requires extended headers";
    default:
        return "unknown error";
    }
}

static bool decode_block_size(const uint8_t *data, struct nbd_export_info *info, const char **ret_why)
{
    uint32_t min = load_be32(data), preferred = load_be32(data + 4), max = load_be32(data + 8);

    if (!is_power_of_two(min) || min > NBD_MIN_BLOCK_BYTES_MAX)
        *ret_why = "its minimum block size is no power of two up to 64 KiB";
    else if (!is_power_of_two(preferred) || preferred < min)
        *ret_why = "its preferred block size is no power of two, or below the minimum";
    else if (max < min)
        *ret_why = "its maximum block size is below the minimum";
    else if (max != UINT32_MAX && !is_aligned(max, min))
        *ret_why = "its maximum block size is no multiple of the minimum";
    else {
        info->has_block_size = true;
        info->min_block = min;
        info->preferred_block = preferred;
        info->max_block = max;
        return true;
    }
    return false;
}

bool nbd_info_decode(const uint8_t *data, size_t length, struct nbd_export_info *info, const char **ret_why)
{
    if (length < 2) {
        *ret_why = "it is too short";
        return false;
    }
    switch (load_be16(data)) {
    case NBD_INFO_EXPORT:
        if (length != INFO_EXPORT_BYTES) {
            *ret_why = "the size of the export has a wrong length";
            return false;
        }
        info->size = load_be64(data + 2);
        info->flags = load_be16(data + 10);
        return true;
    case NBD_INFO_BLOCK_SIZE:
        if (length != INFO_BLOCK_SIZE_BYTES) {
            *ret_why = "the block sizes have a wrong length";
            return false;
        }
        return decode_block_size(data + 2, info, ret_why);
    case NBD_INFO_DESCRIPTION:
        if (length - 2 > NBD_STRING_BYTES_MAX || !g_utf8_validate((const char *)data + 2, (gssize)length - 2, NULL)) {
            *ret_why = "the description is too long or not UTF-8";
            return false;
        }
        g_free(info->description);
        info->description = g_strndup((const char *)data + 2, length - 2);
        return true;
    default:
        return true;
    }
}

/* --- transmission --- */

size_t nbd_call_encode(uint8_t to[NBD_CLIENT_REQUEST_BYTES_MAX], enum nbd_mode mode, const struct nbd_call *call)
{
    bool extended = mode == NBD_MODE_EXTENDED;
    uint16_t flags = call->flags;

    /* There the length of a write is that of its payload, and says so. */
    if (extended && call->type == NBD_CMD_WRITE)
        flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
    store_be32(to, extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC);
    store_be16(to + 4, flags);
    store_be16(to + 6, call->type);
    store_be64(to + 8, call->cookie);
    store_be64(to + 16, call->offset);
    if (extended) {
        store_be64(to + 24, call->bytes);
        return NBD_EXTENDED_REQUEST_BYTES;
    }
    assert(call->bytes <= UINT32_MAX);
    store_be32(to + 24, (uint32_t)call->bytes);
    return NBD_REQUEST_BYTES;
}

size_t nbd_reply_header_bytes(uint32_t magic, enum nbd_mode mode)
{
    if (magic == NBD_SIMPLE_REPLY_MAGIC)
        return mode == NBD_MODE_EXTENDED ? 0 : NBD_SIMPLE_REPLY_BYTES;
    if (magic == NBD_STRUCTURED_REPLY_MAGIC)
        return mode == NBD_MODE_STRUCTURED ? NBD_STRUCTURED_REPLY_BYTES : 0;
    if (magic == NBD_EXTENDED_REPLY_MAGIC)
        return mode == NBD_MODE_EXTENDED ? NBD_EXTENDED_REPLY_BYTES : 0;
    return 0;
}

void nbd_reply_header_decode(const uint8_t *from, struct nbd_reply_header *ret)
{
    uint32_t magic = load_be32(from);

    *ret = (struct nbd_reply_header){.cookie = load_be64(from + 8)};
    if (magic == NBD_SIMPLE_REPLY_MAGIC) {
        ret->simple = true;
        ret->error = load_be32(from + 4);
        ret->flags = NBD_REPLY_FLAG_DONE;
        return;
    }
    ret->flags = load_be16(from + 4);
    ret->type = load_be16(from + 6);
    ret->length = magic == NBD_EXTENDED_REPLY_MAGIC ? load_be64(from + 24) : load_be32(from + 16);
}

int nbd_error_to_errno(uint32_t error)
{
    switch (error) {
    case NBD_EPERM:
        return EPERM;
    case NBD_EIO:
        return EIO;
    case NBD_ENOMEM:
        return ENOMEM;
    case NBD_ENOSPC:
        return ENOSPC;
    case NBD_EOVERFLOW:
        return EOVERFLOW;
    case NBD_ENOTSUP:
        return ENOTSUP;
    case NBD_ESHUTDOWN:
        return ESHUTDOWN;
    default:
        return EINVAL;
    }
}

bool nbd_error_payload_decode(const uint8_t *data, size_t length, uint16_t type, int *ret_errno)
{
    size_t text;

    if (length < ERROR_BYTES_MIN || !load_be32(data))
        return false;
    text = load_be16(data + 4);
    if (text > NBD_STRING_BYTES_MAX || text > length - ERROR_BYTES_MIN)
        return false;
    if (type == NBD_REPLY_ERROR && text + ERROR_BYTES_MIN != length)
        return false;
    if (type == NBD_REPLY_ERROR_OFFSET && text + ERROR_BYTES_MIN + ERROR_OFFSET_BYTES != length)
        return false;
    *ret_errno = nbd_error_to_errno(load_be32(data));
    return true;
}

bool nbd_status_payload_decode(const uint8_t *data, size_t length, uint16_t type, uint32_t id, struct nbd_extent *ret)
{
    bool extended = type == NBD_REPLY_BLOCK_STATUS_EXT;
    size_t head = extended ? 8 : 4, extent = extended ? EXTENT_EXT_BYTES : EXTENT_BYTES;

    if (length < head + extent || (length - head) % extent || load_be32(data) != id)
        return false;
    if (extended && load_be32(data + 4) != (length - head) / extent)
        return false;
    data += head;
    ret->bytes = extended ? load_be64(data) : load_be32(data);
    ret->flags = extended ? load_be64(data + 8) : load_be32(data + 4);
    return ret->bytes;
}
