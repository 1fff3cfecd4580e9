/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Any bytes from a telnet peer, cut anywhere. The first byte chooses the role and where the input is cut. Decoding
 * piece by piece finds what decoding at once finds; what is quoted comes out again; two ends do not talk in a circle.
 */
#include <assert.h>
#include <glib.h>
#include <string.h>

#include "chardev/telnet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct result {
    GByteArray *data;
    GByteArray *answer;
    unsigned breaks;
};

static void decode_some(struct telnet *telnet, const uint8_t *from, size_t size, struct result *result)
{
    struct telnet_found found = {0};

    found.data = g_malloc(telnet_decode_bound(size));
    found.answer = g_malloc(telnet_decode_bound(size));
    telnet_decode(telnet, from, size, &found);
    g_byte_array_append(result->data, found.data, (guint)found.data_size);
    g_byte_array_append(result->answer, found.answer, (guint)found.answer_size);
    result->breaks += found.breaks;
    g_free(found.data);
    g_free(found.answer);
}

static struct result decode(const struct telnet_role *role, const uint8_t *from, size_t size, size_t piece)
{
    struct result result = {.data = g_byte_array_new(), .answer = g_byte_array_new()};
    uint8_t greeting[TELNET_GREETING_MAX];
    struct telnet telnet;

    telnet_begin(&telnet, role, greeting);
    for (size_t at = 0; at < size; at += piece)
        decode_some(&telnet, from + at, MIN(piece, size - at), &result);
    return result;
}

static void result_done(struct result *result)
{
    g_byte_array_unref(result->data);
    g_byte_array_unref(result->answer);
}

static bool same_bytes(const GByteArray *array, const uint8_t *bytes, size_t size)
{
    return array->len == size && (!size || !memcmp(array->data, bytes, size));
}

static void check_pieces(const struct telnet_role *role, const uint8_t *from, size_t size, size_t piece)
{
    struct result whole = decode(role, from, size, MAX(size, (size_t)1));
    struct result parts = decode(role, from, size, piece);

    assert(whole.breaks == parts.breaks);
    assert(same_bytes(whole.data, parts.data->data, parts.data->len));
    assert(same_bytes(whole.answer, parts.answer->data, parts.answer->len));
    result_done(&whole);
    result_done(&parts);
}

static void check_quoting(const struct telnet_role *role, const uint8_t *from, size_t size)
{
    /* Binary mode has to be agreed on first, or carriage returns are special. */
    static const uint8_t will_binary[] = {255, 251, 0};
    g_autofree uint8_t *quoted = g_malloc(sizeof(will_binary) + 2 * size);
    struct telnet telnet = {.role = *role};
    size_t quoted_size;
    struct result result;

    memcpy(quoted, will_binary, sizeof(will_binary));
    quoted_size = sizeof(will_binary) + telnet_encode(&telnet, from, size, quoted + sizeof(will_binary));
    result = decode(role, quoted, quoted_size, quoted_size);
    assert(same_bytes(result.data, from, size));
    result_done(&result);
}

/* Hands answers to and fro until nobody has any more. */
static void check_circle(const struct telnet_role *role, const uint8_t *from, size_t size)
{
    struct telnet_role other = {.server = !role->server, .tn3270 = role->tn3270};
    struct result results[2] = {
        {.data = g_byte_array_new(), .answer = g_byte_array_new()},
        {.data = g_byte_array_new(), .answer = g_byte_array_new()},
    };
    uint8_t greeting[TELNET_GREETING_MAX];
    struct telnet ends[2];
    unsigned rounds = 0;

    telnet_begin(&ends[0], role, greeting);
    telnet_begin(&ends[1], &other, greeting);
    decode_some(&ends[0], from, size, &results[0]);
    for (unsigned end = 0; results[end].answer->len; end = !end) {
        g_autoptr(GByteArray) said = g_steal_pointer(&results[end].answer);

        results[end].answer = g_byte_array_new();
        decode_some(&ends[!end], said->data, said->len, &results[!end]);
        rounds++;
        assert(rounds < 8);
    }
    result_done(&results[0]);
    result_done(&results[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct telnet_role role;

    if (!size)
        return 0;
    role.server = data[0] & 1;
    role.tn3270 = data[0] & 2;
    check_pieces(&role, data + 1, size - 1, 1 + (data[0] >> 2));
    check_circle(&role, data + 1, size - 1);
    if (!role.tn3270)
        check_quoting(&role, data + 1, size - 1);
    return 0;
}
