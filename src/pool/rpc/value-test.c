/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Layouts: what is written reads back, and what cannot be is refused without reading beyond the input. */
#include "pool/rpc/value.h"

#include <string.h>

#include "base/bytes.h"
#include "pool/rpc/packet.h"
#include "pool/rpc/typed-params.h"
#include "pool/rpc/xdr.h"

static struct pool_id *new_pool(void)
{
    struct pool_id *pool = g_new0(struct pool_id, 1);

    pool->name = g_strdup("p1");
    memcpy(pool->uuid, "0123456789abcdef", sizeof(pool->uuid));
    return pool;
}

static void test_pool_bytes(void)
{
    static const uint8_t expected[] = "\0\0\0\2p1\0\0"
                                      "0123456789abcdef"
                                      "\0\0\0\7";
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    union rpc_value values[] = {{.pool = new_pool()}, {.u = 7}};

    rpc_values_encode("pu", values, bytes);
    g_assert_cmpmem(bytes->data, bytes->len, expected, sizeof(expected) - 1);
    rpc_values_free("pu", values);
}

static void test_round_trip(void)
{
    static const char layout[] = "nsbqyt";
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    union rpc_value in[RPC_VALUES_MAX] = {0};
    union rpc_value out[RPC_VALUES_MAX] = {0};
    struct xdr_reader reader;

    in[1].string = g_strdup("h\xc3\xa4llo");
    in[2].bytes = rpc_bytes_new("a\0b", 3);
    in[3].pool = new_pool();
    in[5].params = typed_params_new();
    typed_params_add_string(in[5].params, "name", "value");
    typed_params_add_ullong(in[5].params, "big", UINT64_MAX);
    typed_params_add_int(in[5].params, "small", -1);
    typed_params_add_boolean(in[5].params, "yes", true);
    rpc_values_encode(layout, in, bytes);
    g_assert_cmpuint(bytes->len % 4, ==, 0);

    reader = (struct xdr_reader){bytes->data, bytes->len};
    g_assert_true(rpc_values_decode(layout, &reader, out));
    g_assert_cmpuint(reader.left, ==, 0);
    g_assert_null(out[0].string);
    g_assert_cmpstr(out[1].string, ==, in[1].string);
    g_assert_cmpmem(out[2].bytes->data, out[2].bytes->size, "a\0b", 3);
    g_assert_cmpstr(out[3].pool->name, ==, "p1");
    g_assert_null(out[4].secret);
    g_assert_cmpuint(out[5].params->count, ==, 4);
    g_assert_cmpuint(typed_params_find(out[5].params, "big")->number, ==, UINT64_MAX);
    g_assert_cmpint((int32_t)typed_params_find(out[5].params, "small")->number, ==, -1);
    rpc_values_free(layout, in);
    rpc_values_free(layout, out);
}

/* Lists of pools and volumes, as those read them who ask a daemon; every prefix is refused. */
static void test_lists(void)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    struct pool_id pool = {.name = (char[]){"demo"}, .uuid = {7}};
    struct volume_id volume = {(char[]){"demo"}, (char[]){"a.img"}, (char[]){"/x/a.img"}};
    struct pool_id_array pools = {1, (struct pool_id *[]){&pool}};
    struct volume_id_array volumes = {2, (struct volume_id *[]){&volume, &volume}};
    const union rpc_value in[] = {{.pools = &pools}, {.volumes = &volumes}};

    rpc_values_encode("PV", in, bytes);
    for (size_t size = 0; size <= bytes->len; size++) {
        g_autofree uint8_t *copy = g_memdup2(bytes->data, size);
        struct xdr_reader reader = {copy, size};
        union rpc_value out[2] = {0};

        g_assert_true(rpc_values_decode("PV", &reader, out) == (size == bytes->len));
        if (size == bytes->len) {
            g_assert_cmpuint(out[0].pools->count, ==, 1);
            g_assert_cmpint(out[0].pools->items[0]->uuid[0], ==, 7);
            g_assert_cmpuint(out[1].volumes->count, ==, 2);
            g_assert_cmpstr(out[1].volumes->items[1]->key, ==, "/x/a.img");
        }
        rpc_values_free("PV", out);
    }
}

/* A list that no packet can hold takes no more memory than shows that. */
static void test_too_much(void)
{
    enum { TEXT = 1 << 20, COUNT = 1000 };
    g_autofree char *text = g_strnfill(TEXT, 'x');
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    union rpc_value values[] = {{.strings = g_ptr_array_new()}};

    for (int i = 0; i < COUNT; i++)
        g_ptr_array_add(values[0].strings, text);
    rpc_values_encode("S", values, bytes);
    g_assert_cmpuint(bytes->len, >, RPC_PACKET_MAX);
    g_assert_cmpuint(bytes->len, <=, RPC_PACKET_MAX + TEXT + 8);
    rpc_values_free("S", values);
}

/* Every prefix of a good input is refused. */
static void test_truncated(void)
{
    static const char layout[] = "sxtkSu";
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    union rpc_value values[RPC_VALUES_MAX] = {0};

    values[0].string = g_strdup("name");
    values[1].secret = g_new0(struct secret_id, 1);
    values[1].secret->usage = g_strdup("/x");
    values[2].params = typed_params_new();
    typed_params_add_uint(values[2].params, "maxWorkers", 5);
    values[3].client = g_new0(struct admin_client_id, 1);
    values[3].client->server = g_strdup("admin");
    values[4].strings = g_ptr_array_new_with_free_func(g_free);
    g_ptr_array_add(values[4].strings, g_strdup("one"));
    rpc_values_encode(layout, values, bytes);
    rpc_values_free(layout, values);

    for (size_t size = 0; size <= bytes->len; size++) {
        g_autofree uint8_t *copy = g_memdup2(bytes->data, size);
        struct xdr_reader reader = {copy, size};
        union rpc_value out[RPC_VALUES_MAX] = {0};

        g_assert_true(rpc_values_decode(layout, &reader, out) == (size == bytes->len));
        rpc_values_free(layout, out);
    }
}

static bool decodes(const char *layout, const void *bytes, size_t size)
{
    struct xdr_reader reader = {bytes, size};
    union rpc_value values[RPC_VALUES_MAX] = {0};
    bool ok = rpc_values_decode(layout, &reader, values);

    rpc_values_free(layout, values);
    return ok;
}

static void test_refused(void)
{
    static const uint8_t text_with_nul[] = "\0\0\0\2a\0\0\0";
    static const uint8_t huge_text[] = "\x7f\xff\xff\xff"
                                       "aaaa";
    static const uint8_t huge_array[] = "\0\0\x40\1aaaa";
    static const uint8_t not_a_bool[] = "\0\0\0\2\0\0\0\1a\0\0\0";
    static const uint8_t bad_arm[] = "\0\0\0\1\0\0\0\1a\0\0\0\0\0\0\x8\0\0\0\0";

    g_assert_false(decodes("s", text_with_nul, 8));
    g_assert_false(decodes("s", huge_text, 8));
    g_assert_false(decodes("S", huge_array, 8));
    g_assert_false(decodes("a", huge_array, 8));
    g_assert_true(decodes("a", "\0\0\0\1\0\0\0a", 8));
    g_assert_false(decodes("n", not_a_bool, 12));
    g_assert_false(decodes("t", bad_arm, 20));
    g_assert_true(decodes("c", "\0\0\0\2", 4));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/rpc-value/pool-bytes", test_pool_bytes);
    g_test_add_func("/rpc-value/round-trip", test_round_trip);
    g_test_add_func("/rpc-value/lists", test_lists);
    g_test_add_func("/rpc-value/too-much", test_too_much);
    g_test_add_func("/rpc-value/truncated", test_truncated);
    g_test_add_func("/rpc-value/refused", test_refused);
    return g_test_run();
}
