/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "export/nbd/protocol.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/bytes.h"

static void test_option_header(void)
{
    uint8_t bytes[NBD_OPTION_HEADER_BYTES];
    struct nbd_option_header header;

    store_be64(bytes, NBD_OPTION_MAGIC);
    store_be32(bytes + 8, NBD_OPT_GO);
    store_be32(bytes + 12, UINT32_MAX);
    g_assert_true(nbd_option_header_decode(bytes, &header));
    g_assert_cmpuint(header.option, ==, NBD_OPT_GO);
    g_assert_cmpuint(header.length, ==, UINT32_MAX);
    bytes[7] ^= 1;
    g_assert_false(nbd_option_header_decode(bytes, &header));
}

static void test_strings(void)
{
    g_autofree char *longest = g_strnfill(NBD_STRING_BYTES_MAX + 1, 'x');
    const char *why = NULL;

    g_assert_true(nbd_export_name_is_valid(&(struct nbd_string){.text = "", .length = 0}, &why));
    g_assert_true(nbd_export_name_is_valid(&(struct nbd_string){.text = "n\xc3\xa4me", .length = 5}, &why));
    g_assert_true(
        nbd_export_name_is_valid(&(struct nbd_string){.text = longest, .length = NBD_STRING_BYTES_MAX}, &why));
    g_assert_false(
        nbd_export_name_is_valid(&(struct nbd_string){.text = longest, .length = NBD_STRING_BYTES_MAX + 1}, &why));
    g_assert_cmpstr(why, ==, "export name is longer than 4096 bytes");
    g_assert_false(nbd_export_name_is_valid(&(struct nbd_string){.text = "a\0b", .length = 3}, &why));
    g_assert_cmpstr(why, ==, "export name has an embedded NUL");
    g_assert_false(nbd_export_name_is_valid(&(struct nbd_string){.text = "\xc3", .length = 1}, &why));
    g_assert_cmpstr(why, ==, "export name is not UTF-8");
}

static void test_info_request(void)
{
    /* Name "ab", three information requests, one of which nobody knows. */
    static const uint8_t data[] = {0, 0, 0, 2, 'a', 'b', 0, 3, 0, 3, 0, 1, 0x12, 0x34};
    struct nbd_info_request request;
    const char *why;

    g_assert_true(nbd_info_request_decode(data, sizeof(data), &request, &why));
    g_assert_cmpmem(request.name.text, request.name.length, "ab", 2);
    g_assert_cmpuint(request.wanted, ==, 1u << NBD_INFO_BLOCK_SIZE | 1u << NBD_INFO_NAME);
    for (size_t length = 0; length < sizeof(data); length++)
        g_assert_false(nbd_info_request_decode(data, length, &request, &why));
}

static void test_info_request_length_wraps(void)
{
    static const uint8_t data[] = {0xff, 0xff, 0xff, 0xfe, 'a', 'b', 0, 0};
    struct nbd_info_request request;
    const char *why = NULL;

    g_assert_false(nbd_info_request_decode(data, sizeof(data), &request, &why));
    g_assert_nonnull(why);
}

static void test_meta_request(void)
{
    static const uint8_t data[] = {0, 0, 0, 1, 'x', 0, 0, 0, 2, 0, 0, 0, 3, 'a', ':', 'b', 0, 0, 0, 0};
    struct nbd_meta_request request;
    struct nbd_string query;
    const char *why;

    for (size_t length = 0; length < sizeof(data); length++)
        g_assert_false(nbd_meta_request_decode(data, length, &request, &why));
    g_assert_true(nbd_meta_request_decode(data, sizeof(data), &request, &why));
    g_assert_cmpmem(request.name.text, request.name.length, "x", 1);
    g_assert_true(nbd_meta_query_next(&request, &query));
    g_assert_cmpmem(query.text, query.length, "a:b", 3);
    g_assert_true(nbd_meta_query_next(&request, &query));
    g_assert_cmpuint(query.length, ==, 0);
    g_assert_false(nbd_meta_query_next(&request, &query));
}

static void test_meta_request_leftover(void)
{
    static const uint8_t data[] = {0, 0, 0, 1, 'x', 0, 0, 0, 0, 7};
    struct nbd_meta_request request;
    const char *why = NULL;

    g_assert_false(nbd_meta_request_decode(data, sizeof(data), &request, &why));
    g_assert_cmpstr(why, ==, "bytes are left over behind the last query");
}

static void test_status_filter(void)
{
    uint8_t data[8 + 3 * 4] = {0};
    struct nbd_status_filter filter;
    const char *why;

    store_be64(data, UINT64_C(1) << 40);
    store_be32(data + 8, 0);
    store_be32(data + 12, 2);
    g_assert_true(nbd_status_filter_decode(data, 16, 5, &filter, &why));
    g_assert_cmpuint(filter.length, ==, UINT64_C(1) << 40);
    g_assert_cmpuint(filter.contexts, ==, 5);
    g_assert_false(nbd_status_filter_decode(data, 16, 1, &filter, &why)); /* not selected */
    g_assert_false(nbd_status_filter_decode(data, 8, 5, &filter, &why));  /* none */
    g_assert_false(nbd_status_filter_decode(data, 15, 5, &filter, &why));
    g_assert_false(nbd_status_filter_decode(data, 20, 5, &filter, &why)); /* 0 twice */
    store_be32(data + 12, UINT32_MAX);
    g_assert_false(nbd_status_filter_decode(data, 16, UINT64_MAX, &filter, &why));
}

static void test_request_compact(void)
{
    uint8_t bytes[NBD_REQUEST_BYTES];
    struct nbd_request_header header;

    store_be32(bytes, NBD_REQUEST_MAGIC);
    store_be16(bytes + 4, NBD_CMD_FLAG_FUA);
    store_be16(bytes + 6, NBD_CMD_WRITE);
    memcpy(bytes + 8, "cookie!!", 8);
    store_be64(bytes + 16, UINT64_MAX);
    store_be32(bytes + 24, UINT32_MAX);
    g_assert_true(nbd_request_decode(bytes, NBD_MODE_STRUCTURED, &header));
    g_assert_cmpuint(header.flags, ==, NBD_CMD_FLAG_FUA);
    g_assert_cmpuint(header.type, ==, NBD_CMD_WRITE);
    g_assert_cmpmem(&header.cookie, 8, "cookie!!", 8);
    g_assert_cmpuint(header.offset, ==, UINT64_MAX);
    g_assert_cmpuint(header.length, ==, UINT32_MAX);
    g_assert_cmpuint(nbd_request_payload(&header, NBD_MODE_SIMPLE), ==, UINT32_MAX);
    g_assert_false(nbd_request_decode(bytes, NBD_MODE_EXTENDED, &header));
}

static void test_request_extended(void)
{
    uint8_t bytes[NBD_EXTENDED_REQUEST_BYTES] = {0};
    struct nbd_request_header header;

    store_be32(bytes, NBD_EXTENDED_REQUEST_MAGIC);
    store_be16(bytes + 6, NBD_CMD_BLOCK_STATUS);
    store_be64(bytes + 24, UINT64_MAX);
    g_assert_true(nbd_request_decode(bytes, NBD_MODE_EXTENDED, &header));
    g_assert_cmpuint(header.length, ==, UINT64_MAX);
    g_assert_cmpuint(nbd_request_payload(&header, NBD_MODE_EXTENDED), ==, 0);
    header.flags = NBD_CMD_FLAG_PAYLOAD_LEN;
    g_assert_cmpuint(nbd_request_payload(&header, NBD_MODE_EXTENDED), ==, UINT64_MAX);
    g_assert_cmpuint(nbd_request_payload(&header, NBD_MODE_STRUCTURED), ==, 0);
    g_assert_false(nbd_request_decode(bytes, NBD_MODE_STRUCTURED, &header));
}

enum { SIZE = 1024 * 1024, ALL_FLAGS = 0xffff & ~NBD_FLAG_READ_ONLY };

/* What the check says of a request under `terms`. */
static enum nbd_error check(const struct nbd_terms *terms, uint16_t type, uint16_t flags, uint64_t offset,
                            uint64_t length)
{
    struct nbd_request_header header = {.type = type, .flags = flags, .offset = offset, .length = length};
    const char *why = NULL;
    enum nbd_error error = nbd_request_check(&header, terms, SIZE, &why);

    g_assert_true(!error || why);
    return error;
}

static const struct nbd_terms writable = {
    .mode = NBD_MODE_STRUCTURED, .flags = ALL_FLAGS, .min_block = 1, .has_contexts = true};

static void test_check_range(void)
{
    static const uint16_t with_range[] = {NBD_CMD_READ,  NBD_CMD_WRITE,        NBD_CMD_TRIM,
                                          NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES, NBD_CMD_BLOCK_STATUS};

    for (size_t i = 0; i < G_N_ELEMENTS(with_range); i++) {
        uint16_t type = with_range[i];
        bool grows = type == NBD_CMD_WRITE || type == NBD_CMD_WRITE_ZEROES;
        enum nbd_error past_end = grows ? NBD_ENOSPC : NBD_EINVAL;

        g_assert_cmpint(check(&writable, type, 0, 0, SIZE), ==, NBD_SUCCESS);
        g_assert_cmpint(check(&writable, type, 0, SIZE - 1, 1), ==, NBD_SUCCESS);
        g_assert_cmpint(check(&writable, type, 0, 0, 0), ==, NBD_EINVAL);
        g_assert_cmpint(check(&writable, type, 0, SIZE, 1), ==, past_end);
        g_assert_cmpint(check(&writable, type, 0, 1, SIZE), ==, past_end);
        g_assert_cmpint(check(&writable, type, 0, UINT64_MAX, 1), ==, past_end);
        g_assert_cmpint(check(&writable, type, 0, UINT64_MAX - 10, 20), ==, past_end);
    }
    g_assert_cmpint(check(&writable, NBD_CMD_READ, 0, 0, NBD_PAYLOAD_BYTES_MAX + 1), ==, NBD_EINVAL);
    g_assert_cmpint(check(&writable, NBD_CMD_WRITE, 0, 0, NBD_PAYLOAD_BYTES_MAX + 1), ==, NBD_EINVAL);
    g_assert_cmpint(check(&writable, NBD_CMD_FLUSH, 0, 0, 0), ==, NBD_SUCCESS);
    g_assert_cmpint(check(&writable, NBD_CMD_DISC, 0xffff, 5, 5), ==, NBD_SUCCESS);
}

static void test_check_read_only(void)
{
    struct nbd_terms terms = writable;

    terms.flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA;
    g_assert_cmpint(check(&terms, NBD_CMD_READ, NBD_CMD_FLAG_FUA, 0, 1), ==, NBD_SUCCESS);
    g_assert_cmpint(check(&terms, NBD_CMD_FLUSH, 0, 0, 0), ==, NBD_SUCCESS);
    g_assert_cmpint(check(&terms, NBD_CMD_WRITE, 0, 0, 1), ==, NBD_EPERM);
    g_assert_cmpint(check(&terms, NBD_CMD_TRIM, 0, 0, 1), ==, NBD_EPERM);
    g_assert_cmpint(check(&terms, NBD_CMD_WRITE_ZEROES, 0, 0, 1), ==, NBD_EPERM);
    g_assert_cmpint(check(&terms, NBD_CMD_CACHE, 0, 0, 1), ==, NBD_EINVAL); /* not announced */
}

static void test_check_flags(void)
{
    struct nbd_terms terms = writable;

    for (unsigned bit = 0; bit < 16; bit++) {
        uint16_t flag = (uint16_t)(1u << bit);
        uint16_t everywhere = NBD_CMD_FLAG_FUA;

        g_assert_cmpint(!check(&terms, NBD_CMD_READ, flag, 0, 1), ==, !!(flag & (everywhere | NBD_CMD_FLAG_DF)));
        g_assert_cmpint(!check(&terms, NBD_CMD_WRITE, flag, 0, 1), ==, !!(flag & everywhere));
        g_assert_cmpint(!check(&terms, NBD_CMD_TRIM, flag, 0, 1), ==, !!(flag & everywhere));
        g_assert_cmpint(!check(&terms, NBD_CMD_FLUSH, flag, 0, 0), ==, !!(flag & everywhere));
        g_assert_cmpint(!check(&terms, NBD_CMD_WRITE_ZEROES, flag, 0, 1), ==,
                        !!(flag & (everywhere | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO)));
        g_assert_cmpint(!check(&terms, NBD_CMD_BLOCK_STATUS, flag, 0, 1), ==,
                        !!(flag & (everywhere | NBD_CMD_FLAG_REQ_ONE)));
    }
    terms.mode = NBD_MODE_EXTENDED;
    g_assert_cmpint(check(&terms, NBD_CMD_WRITE, NBD_CMD_FLAG_PAYLOAD_LEN, 0, 1), ==, NBD_SUCCESS);
    g_assert_cmpint(check(&terms, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_PAYLOAD_LEN, 0, 1), ==, NBD_SUCCESS);
    g_assert_cmpint(check(&terms, NBD_CMD_READ, NBD_CMD_FLAG_PAYLOAD_LEN, 0, 1), ==, NBD_EINVAL);
    terms.flags &= ~NBD_FLAG_BLOCK_STATUS_PAYLOAD;
    g_assert_cmpint(check(&terms, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_PAYLOAD_LEN, 0, 1), ==, NBD_EINVAL);
    terms.flags &= ~(NBD_FLAG_SEND_DF | NBD_FLAG_SEND_FAST_ZERO | NBD_FLAG_SEND_FUA);
    g_assert_cmpint(check(&terms, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 1), ==, NBD_EINVAL);
    g_assert_cmpint(check(&terms, NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, 0, 1), ==, NBD_EINVAL);
    g_assert_cmpint(check(&terms, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FAST_ZERO, 0, 1), ==, NBD_EINVAL);
}

static void test_check_other(void)
{
    struct nbd_terms terms = writable;

    for (unsigned type = NBD_CMD_BLOCK_STATUS + 1; type <= UINT16_MAX; type++)
        g_assert_cmpint(check(&terms, (uint16_t)type, 0, 0, 1), ==, NBD_EINVAL);
    terms.min_block = 4096;
    g_assert_cmpint(check(&terms, NBD_CMD_READ, 0, 4096, 4096), ==, NBD_SUCCESS);
    g_assert_cmpint(check(&terms, NBD_CMD_READ, 0, 4095, 4096), ==, NBD_EINVAL);
    g_assert_cmpint(check(&terms, NBD_CMD_WRITE, 0, 4096, 512), ==, NBD_EINVAL);
    terms.has_contexts = false;
    g_assert_cmpint(check(&terms, NBD_CMD_BLOCK_STATUS, 0, 0, 4096), ==, NBD_EINVAL);
}

static void test_replies(void)
{
    struct nbd_request_header header = {.offset = 0x1122334455667788, .cookie = 0};
    uint8_t bytes[NBD_REPLY_HEADER_BYTES_MAX];

    memcpy(&header.cookie, "cookie!!", 8);
    g_assert_cmpuint(nbd_simple_reply_encode(bytes, &header, NBD_EIO), ==, 16);
    g_assert_cmpmem(bytes, 16, "\x67\x44\x66\x98\0\0\0\5cookie!!", 16);
    g_assert_cmpuint(nbd_chunk_encode(bytes, NBD_MODE_STRUCTURED, &header, 1, NBD_REPLY_OFFSET_DATA, 0x01020304), ==,
                     20);
    g_assert_cmpmem(bytes, 20, "\x66\x8e\x33\xef\0\1\0\1cookie!!\1\2\3\4", 20);
    g_assert_cmpuint(nbd_chunk_encode(bytes, NBD_MODE_EXTENDED, &header, 0, NBD_REPLY_ERROR, 6), ==, 32);
    g_assert_cmpmem(bytes, 32, "\x6e\x8a\x27\x8c\0\0\x80\1cookie!!\x11\x22\x33\x44\x55\x66\x77\x88\0\0\0\0\0\0\0\6",
                    32);
}

static void test_errors(void)
{
    g_assert_cmpuint(nbd_error_of(0), ==, 0);
    g_assert_cmpuint(nbd_error_of(-EROFS), ==, NBD_EPERM);
    g_assert_cmpuint(nbd_error_of(-EDQUOT), ==, NBD_ENOSPC);
    g_assert_cmpuint(nbd_error_of(-EFBIG), ==, NBD_ENOSPC);
    g_assert_cmpuint(nbd_error_of(-ENOTSUP), ==, NBD_ENOTSUP);
    g_assert_cmpuint(nbd_error_of(-EBADF), ==, NBD_EIO);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/nbd-protocol/option-header", test_option_header);
    g_test_add_func("/nbd-protocol/strings", test_strings);
    g_test_add_func("/nbd-protocol/info-request", test_info_request);
    g_test_add_func("/nbd-protocol/info-request-length-wraps", test_info_request_length_wraps);
    g_test_add_func("/nbd-protocol/meta-request", test_meta_request);
    g_test_add_func("/nbd-protocol/meta-request-leftover", test_meta_request_leftover);
    g_test_add_func("/nbd-protocol/status-filter", test_status_filter);
    g_test_add_func("/nbd-protocol/request-compact", test_request_compact);
    g_test_add_func("/nbd-protocol/request-extended", test_request_extended);
    g_test_add_func("/nbd-protocol/check-range", test_check_range);
    g_test_add_func("/nbd-protocol/check-read-only", test_check_read_only);
    g_test_add_func("/nbd-protocol/check-flags", test_check_flags);
    g_test_add_func("/nbd-protocol/check-other", test_check_other);
    g_test_add_func("/nbd-protocol/replies", test_replies);
    g_test_add_func("/nbd-protocol/errors", test_errors);
    return g_test_run();
}
