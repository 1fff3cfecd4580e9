/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Everything that a client sends is looked at here first, field by field; see protocol.h. */
#include "export/nbd/protocol.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/cleanup.h"

const char *nbd_option_name(uint32_t option)
{
    static const char *const names[] = {
        [NBD_OPT_EXPORT_NAME] = "export name",
        [NBD_OPT_ABORT] = "abort",
        [NBD_OPT_LIST] = "list",
        [NBD_OPT_STARTTLS] = "starttls",
        [NBD_OPT_INFO] = "info",
        [NBD_OPT_GO] = "go",
        [NBD_OPT_STRUCTURED_REPLY] = "structured reply",
        [NBD_OPT_LIST_META_CONTEXT] = "list meta context",
        [NBD_OPT_SET_META_CONTEXT] = "set meta context",
        [NBD_OPT_EXTENDED_HEADERS] = "extended headers",
    };

    return option < G_N_ELEMENTS(names) && names[option] ? names[option] : "unknown";
}

/* What is allowed for each command. */
struct command_rule {
    const char *name;
    uint16_t flags;   /* valid flags beside FUA, which is valid everywhere */
    uint32_t feature; /* transmission flag that must have been announced */
    bool modifies;
    bool has_range; /* offset and length name a part of the export */
};

static const struct command_rule command_rules[] = {
    [NBD_CMD_READ] = {.name = "read", .flags = NBD_CMD_FLAG_DF, .has_range = true},
    [NBD_CMD_WRITE] = {.name = "write", .flags = NBD_CMD_FLAG_PAYLOAD_LEN, .modifies = true, .has_range = true},
    [NBD_CMD_DISC] = {.name = "disconnect"},
    [NBD_CMD_FLUSH] = {.name = "flush", .feature = NBD_FLAG_SEND_FLUSH},
    [NBD_CMD_TRIM] = {.name = "trim", .feature = NBD_FLAG_SEND_TRIM, .modifies = true, .has_range = true},
    [NBD_CMD_CACHE] = {.name = "cache", .feature = NBD_FLAG_SEND_CACHE, .has_range = true},
    [NBD_CMD_WRITE_ZEROES] = {.name = "write zeroes",
                              .flags = NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
                              .feature = NBD_FLAG_SEND_WRITE_ZEROES,
                              .modifies = true,
                              .has_range = true},
    [NBD_CMD_BLOCK_STATUS] = {.name = "block status",
                              .flags = NBD_CMD_FLAG_REQ_ONE | NBD_CMD_FLAG_PAYLOAD_LEN,
                              .has_range = true},
};

static const struct command_rule *command_rule(uint16_t command)
{
    return command < G_N_ELEMENTS(command_rules) ? &command_rules[command] : NULL;
}

const char *nbd_command_name(uint16_t command)
{
    const struct command_rule *rule = command_rule(command);

    return rule ? rule->name : "unknown";
}

uint32_t nbd_error_of(int errno_value)
{
    assert(errno_value <= 0);
    switch (-errno_value) {
    case 0:
        return NBD_SUCCESS;
    case EPERM:
    case EACCES:
    case EROFS:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return NBD_ENOSPC;
    case EOVERFLOW:
        return NBD_EOVERFLOW;
    case ENOTSUP:
        return NBD_ENOTSUP;
    case ESHUTDOWN:
        return NBD_ESHUTDOWN;
    default:
        return NBD_EIO;
    }
}

bool nbd_option_header_decode(const uint8_t *from, struct nbd_option_header *ret)
{
    if (load_be64(from) != NBD_OPTION_MAGIC)
        return false;
    ret->option = load_be32(from + 8);
    ret->length = load_be32(from + 12);
    return true;
}

bool nbd_export_name_is_valid(const struct nbd_string *string, const char **ret_why)
{
    if (string->length > NBD_STRING_BYTES_MAX)
        *ret_why = "export name is longer than 4096 bytes";
    else if (memchr(string->text, 0, string->length))
        *ret_why = "export name has an embedded NUL";
    else if (!g_utf8_validate(string->text, string->length, NULL))
        *ret_why = "export name is not UTF-8";
    else
        return true;
    return false;
}

char *nbd_name_shorten(const char *text, size_t length)
{
    enum { CHARACTERS_MAX = 80 };
    g_autofree char *whole = g_strndup(text, length);
    g_autofree char *start = NULL;

    if (g_utf8_strlen(whole, -1) <= CHARACTERS_MAX)
        return TAKE(whole);
    start = g_utf8_substring(whole, 0, CHARACTERS_MAX);
    return g_strconcat(start, "...", NULL);
}

/* What is left of an option's data. */
struct cursor {
    const uint8_t *at;
    size_t left;
};

static bool take_be16(struct cursor *cursor, uint16_t *ret)
{
    if (cursor->left < 2)
        return false;
    *ret = load_be16(cursor->at);
    cursor->at += 2;
    cursor->left -= 2;
    return true;
}

static bool take_be32(struct cursor *cursor, uint32_t *ret)
{
    if (cursor->left < 4)
        return false;
    *ret = load_be32(cursor->at);
    cursor->at += 4;
    cursor->left -= 4;
    return true;
}

/* A length of 32 bits, and that many bytes. */
static bool take_string(struct cursor *cursor, struct nbd_string *ret)
{
    uint32_t length;

    if (!take_be32(cursor, &length) || length > cursor->left)
        return false;
    *ret = (struct nbd_string){.text = (const char *)cursor->at, .length = length};
    cursor->at += length;
    cursor->left -= length;
    return true;
}

bool nbd_info_request_decode(const uint8_t *data, size_t length, struct nbd_info_request *ret, const char **ret_why)
{
    struct cursor cursor = {.at = data, .left = length};
    struct nbd_info_request request = {0};
    uint16_t count;

    *ret_why = "export name is longer than the option";
    if (!take_string(&cursor, &request.name))
        return false;
    *ret_why = "list of information requests has not the stated length";
    if (!take_be16(&cursor, &count) || cursor.left != (size_t)count * 2)
        return false;
    for (unsigned i = 0; i < count; i++) {
        uint16_t what;
        bool taken = take_be16(&cursor, &what);

        assert(taken);
        if (what <= NBD_INFO_BLOCK_SIZE)
            request.wanted |= 1u << what;
    }
    if (!nbd_export_name_is_valid(&request.name, ret_why))
        return false;
    *ret = request;
    return true;
}

bool nbd_meta_request_decode(const uint8_t *data, size_t length, struct nbd_meta_request *ret, const char **ret_why)
{
    struct cursor cursor = {.at = data, .left = length};
    struct nbd_meta_request request = {0};
    struct nbd_string query;

    *ret_why = "export name is longer than the option";
    if (!take_string(&cursor, &request.name))
        return false;
    *ret_why = "queries have not the stated number and lengths";
    if (!take_be32(&cursor, &request.query_count))
        return false;
    request.queries = cursor.at;
    request.queries_length = cursor.left;
    for (uint32_t i = 0; i < request.query_count; i++) {
        if (!take_string(&cursor, &query))
            return false;
    }
    *ret_why = "bytes are left over behind the last query";
    if (cursor.left)
        return false;
    if (!nbd_export_name_is_valid(&request.name, ret_why))
        return false;
    *ret = request;
    return true;
}

bool nbd_meta_query_next(struct nbd_meta_request *request, struct nbd_string *ret)
{
    struct cursor cursor = {.at = request->queries, .left = request->queries_length};
    bool taken;

    if (!request->query_count)
        return false;
    taken = take_string(&cursor, ret);
    assert(taken);
    request->query_count--;
    request->queries = cursor.at;
    request->queries_length = cursor.left;
    return true;
}

void nbd_greeting_encode(uint8_t to[NBD_GREETING_BYTES])
{
    store_be64(to, NBD_INIT_MAGIC);
    store_be64(to + 8, NBD_OPTION_MAGIC);
    store_be16(to + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
}

void nbd_option_reply_encode(uint8_t to[NBD_OPTION_REPLY_HEADER_BYTES], uint32_t option, uint32_t type, uint32_t length)
{
    store_be64(to, NBD_OPTION_REPLY_MAGIC);
    store_be32(to + 8, option);
    store_be32(to + 12, type);
    store_be32(to + 16, length);
}

bool nbd_request_decode(const uint8_t *from, enum nbd_mode mode, struct nbd_request_header *ret)
{
    bool extended = mode == NBD_MODE_EXTENDED;

    if (load_be32(from) != (extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC))
        return false;
    ret->flags = load_be16(from + 4);
    ret->type = load_be16(from + 6);
    memcpy(&ret->cookie, from + 8, sizeof(ret->cookie));
    ret->offset = load_be64(from + 16);
    ret->length = extended ? load_be64(from + 24) : load_be32(from + 24);
    return true;
}

uint64_t nbd_request_payload(const struct nbd_request_header *header, enum nbd_mode mode)
{
    if (header->type == NBD_CMD_WRITE)
        return header->length;
    return mode == NBD_MODE_EXTENDED && header->flags & NBD_CMD_FLAG_PAYLOAD_LEN ? header->length : 0;
}

bool nbd_status_filter_decode(const uint8_t *data, size_t length, uint64_t selected, struct nbd_status_filter *ret,
                              const char **ret_why)
{
    struct nbd_status_filter filter = {0};

    *ret_why = "payload is no length followed by context ids";
    if (length <= 8 || length % 4)
        return false;
    filter.length = load_be64(data);
    for (size_t at = 8; at < length; at += 4) {
        uint32_t id = load_be32(data + at);

        *ret_why = "payload names a context that was not negotiated";
        if (id >= 64 || !(selected >> id & 1))
            return false;
        *ret_why = "payload names a context twice";
        if (filter.contexts >> id & 1)
            return false;
        filter.contexts |= UINT64_C(1) << id;
    }
    *ret = filter;
    return true;
}

static bool flags_are_valid(const struct nbd_request_header *header, const struct command_rule *rule,
                            const struct nbd_terms *terms)
{
    uint16_t valid = NBD_CMD_FLAG_FUA | rule->flags;

    if (!(terms->flags & NBD_FLAG_SEND_FUA))
        valid &= ~NBD_CMD_FLAG_FUA;
    if (!(terms->flags & NBD_FLAG_SEND_DF))
        valid &= ~NBD_CMD_FLAG_DF;
    if (!(terms->flags & NBD_FLAG_SEND_FAST_ZERO))
        valid &= ~NBD_CMD_FLAG_FAST_ZERO;
    if (terms->mode != NBD_MODE_EXTENDED ||
        (header->type == NBD_CMD_BLOCK_STATUS && !(terms->flags & NBD_FLAG_BLOCK_STATUS_PAYLOAD)))
        valid &= ~NBD_CMD_FLAG_PAYLOAD_LEN;
    return !(header->flags & ~valid);
}

/* The part of the export that a request names; a block status with payload names only where it starts. */
static enum nbd_error range_check(const struct nbd_request_header *header, const struct command_rule *rule,
                                  const struct nbd_terms *terms, uint64_t size, const char **ret_why)
{
    bool moves_data = header->type == NBD_CMD_READ || header->type == NBD_CMD_WRITE;
    bool grows = header->type == NBD_CMD_WRITE || header->type == NBD_CMD_WRITE_ZEROES;

    *ret_why = "length is zero";
    if (!header->length)
        return NBD_EINVAL;
    *ret_why = "length exceeds 33554432 bytes";
    if (moves_data && header->length > NBD_PAYLOAD_BYTES_MAX)
        return NBD_EINVAL;
    *ret_why = "range is not aligned to the minimum block size";
    if (!is_aligned(header->offset | header->length, terms->min_block))
        return NBD_EINVAL;
    *ret_why = "range lies past the end of the export";
    if (!range_fits(header->offset, header->length, size))
        return grows ? NBD_ENOSPC : NBD_EINVAL;
    return NBD_SUCCESS;
}

enum nbd_error nbd_request_check(const struct nbd_request_header *header, const struct nbd_terms *terms, uint64_t size,
                                 const char **ret_why)
{
    const struct command_rule *rule = command_rule(header->type);

    assert(is_power_of_two(terms->min_block));
    *ret_why = "command is unknown";
    if (!rule)
        return NBD_EINVAL;
    if (header->type == NBD_CMD_DISC)
        return NBD_SUCCESS;
    *ret_why = "export is read-only";
    if (rule->modifies && terms->flags & NBD_FLAG_READ_ONLY)
        return NBD_EPERM;
    *ret_why = "command was not announced";
    if ((terms->flags & rule->feature) != rule->feature)
        return NBD_EINVAL;
    *ret_why = "flags are unknown or not valid for the command";
    if (!flags_are_valid(header, rule, terms))
        return NBD_EINVAL;
    *ret_why = "no metadata context was negotiated";
    if (header->type == NBD_CMD_BLOCK_STATUS && !terms->has_contexts)
        return NBD_EINVAL;
    return rule->has_range ? range_check(header, rule, terms, size, ret_why) : NBD_SUCCESS;
}

size_t nbd_simple_reply_encode(uint8_t *to, const struct nbd_request_header *header, uint32_t error)
{
    store_be32(to, NBD_SIMPLE_REPLY_MAGIC);
    store_be32(to + 4, error);
    memcpy(to + 8, &header->cookie, sizeof(header->cookie));
    return NBD_SIMPLE_REPLY_BYTES;
}

size_t nbd_chunk_encode(uint8_t *to, enum nbd_mode mode, const struct nbd_request_header *header, uint16_t flags,
                        uint16_t type, uint64_t length)
{
    assert(mode >= NBD_MODE_STRUCTURED);
    store_be32(to, mode == NBD_MODE_EXTENDED ? NBD_EXTENDED_REPLY_MAGIC : NBD_STRUCTURED_REPLY_MAGIC);
    store_be16(to + 4, flags);
    store_be16(to + 6, type);
    memcpy(to + 8, &header->cookie, sizeof(header->cookie));
    if (mode == NBD_MODE_EXTENDED) {
        store_be64(to + 16, header->offset);
        store_be64(to + 24, length);
        return NBD_EXTENDED_REPLY_BYTES;
    }
    assert(length <= UINT32_MAX);
    store_be32(to + 16, (uint32_t)length);
    return NBD_STRUCTURED_REPLY_BYTES;
}
