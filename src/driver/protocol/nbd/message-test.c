/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the client sends and takes, byte by byte. */
#include "driver/protocol/nbd/message.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"

static void test_requests(void)
{
    struct nbd_call call = {.type = NBD_CMD_WRITE, .flags = NBD_CMD_FLAG_FUA, .cookie = 5, .offset = 6, .bytes = 7};
    uint8_t bytes[NBD_CLIENT_REQUEST_BYTES_MAX];

    g_assert_cmpuint(nbd_call_encode(bytes, NBD_MODE_STRUCTURED, &call), ==, 28);
    g_assert_cmphex(load_be32(bytes), ==, NBD_REQUEST_MAGIC);
    g_assert_cmphex(load_be16(bytes + 4), ==, NBD_CMD_FLAG_FUA);
    g_assert_cmpuint(load_be16(bytes + 6), ==, NBD_CMD_WRITE);
    g_assert_cmpuint(load_be64(bytes + 8), ==, 5);
    g_assert_cmpuint(load_be64(bytes + 16), ==, 6);
    g_assert_cmpuint(load_be32(bytes + 24), ==, 7);

    call.bytes = UINT64_C(1) << 40;
    g_assert_cmpuint(nbd_call_encode(bytes, NBD_MODE_EXTENDED, &call), ==, 32);
    g_assert_cmphex(load_be16(bytes + 4), ==, NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_PAYLOAD_LEN);
    g_assert_cmpuint(load_be64(bytes + 24), ==, UINT64_C(1) << 40);
}

static void test_reply_headers(void)
{
    g_assert_cmpuint(nbd_reply_header_bytes(NBD_SIMPLE_REPLY_MAGIC, NBD_MODE_SIMPLE), ==, 16);
    g_assert_cmpuint(nbd_reply_header_bytes(NBD_SIMPLE_REPLY_MAGIC, NBD_MODE_STRUCTURED), ==, 16);
    g_assert_cmpuint(nbd_reply_header_bytes(NBD_SIMPLE_REPLY_MAGIC, NBD_MODE_EXTENDED), ==, 0);
    g_assert_cmpuint(nbd_reply_header_bytes(NBD_STRUCTURED_REPLY_MAGIC, NBD_MODE_SIMPLE), ==, 0);
    g_assert_cmpuint(nbd_reply_header_bytes(NBD_STRUCTURED_REPLY_MAGIC, NBD_MODE_STRUCTURED), ==, 20);
    g_assert_cmpuint(nbd_reply_header_bytes(NBD_EXTENDED_REPLY_MAGIC, NBD_MODE_STRUCTURED), ==, 0);
    g_assert_cmpuint(nbd_reply_header_bytes(NBD_EXTENDED_REPLY_MAGIC, NBD_MODE_EXTENDED), ==, 32);
    g_assert_cmpuint(nbd_reply_header_bytes(0, NBD_MODE_SIMPLE), ==, 0);
}

static bool status(uint32_t id, size_t length, struct nbd_extent *ret)
{
    uint8_t bytes[20] = {0};

    store_be32(bytes, 7);
    store_be32(bytes + 4, 4096);
    store_be32(bytes + 8, NBD_STATE_ZERO);
    store_be32(bytes + 12, 512);
    return nbd_status_payload_decode(bytes, length, NBD_REPLY_BLOCK_STATUS, id, ret);
}

static void test_status(void)
{
    struct nbd_extent extent;
    uint8_t extended[24] = {0};

    g_assert_true(status(7, 20, &extent));
    g_assert_cmpuint(extent.bytes, ==, 4096);
    g_assert_cmpuint(extent.flags, ==, NBD_STATE_ZERO);
    g_assert_false(status(8, 20, &extent));
    g_assert_false(status(7, 4, &extent));
    g_assert_false(status(7, 16, &extent));
    g_assert_false(status(7, 3, &extent));

    store_be32(extended + 4, 1);
    store_be64(extended + 8, UINT64_C(1) << 40);
    g_assert_true(nbd_status_payload_decode(extended, 24, NBD_REPLY_BLOCK_STATUS_EXT, 0, &extent));
    g_assert_cmpuint(extent.bytes, ==, UINT64_C(1) << 40);
    store_be32(extended + 4, 2);
    g_assert_false(nbd_status_payload_decode(extended, 24, NBD_REPLY_BLOCK_STATUS_EXT, 0, &extent));
}

static void test_errors(void)
{
    static const uint8_t plain[] = {0, 0, 0, 28, 0, 2, 'n', 'o'};
    static const uint8_t none[] = {0, 0, 0, 0, 0, 0};
    int errno_value = 0;

    g_assert_true(nbd_error_payload_decode(plain, sizeof(plain), NBD_REPLY_ERROR, &errno_value));
    g_assert_cmpint(errno_value, ==, ENOSPC);
    g_assert_false(nbd_error_payload_decode(plain, sizeof(plain) - 1, NBD_REPLY_ERROR, &errno_value));
    g_assert_false(nbd_error_payload_decode(plain, sizeof(plain), NBD_REPLY_ERROR_OFFSET, &errno_value));
    g_assert_false(nbd_error_payload_decode(none, sizeof(none), NBD_REPLY_ERROR, &errno_value));
    for (uint32_t error = 0; error < 200; error++)
        g_assert_cmpint(nbd_error_to_errno(error), >, 0);
}

static void check_sizes(uint32_t min, uint32_t preferred, uint32_t max, bool good)
{
    struct nbd_export_info info = {0};
    const char *why = NULL;
    uint8_t bytes[14];

    store_be16(bytes, NBD_INFO_BLOCK_SIZE);
    store_be32(bytes + 2, min);
    store_be32(bytes + 6, preferred);
    store_be32(bytes + 10, max);
    g_assert_true(nbd_info_decode(bytes, sizeof(bytes), &info, &why) == good);
    g_assert_true(good == !why);
}

static void test_block_sizes(void)
{
    check_sizes(1, 4096, 32 << 20, true);
    check_sizes(512, 512, UINT32_MAX, true);
    check_sizes(65536, 65536, 65536, true);
    check_sizes(0, 4096, 65536, false);
    check_sizes(3, 4096, 65536, false);
    check_sizes(1 << 17, 1 << 17, 1 << 20, false);
    check_sizes(4096, 512, 65536, false);
    check_sizes(4096, 4096, 512, false);
    check_sizes(4096, 4096, 5000, false);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/nbd-message/requests", test_requests);
    g_test_add_func("/nbd-message/reply-headers", test_reply_headers);
    g_test_add_func("/nbd-message/status", test_status);
    g_test_add_func("/nbd-message/errors", test_errors);
    g_test_add_func("/nbd-message/block-sizes", test_block_sizes);
    return g_test_run();
}
