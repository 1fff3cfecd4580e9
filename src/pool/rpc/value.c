/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/rpc/value.h"

#include <assert.h>
#include <string.h>

#include "pool/rpc/packet.h"
#include "pool/rpc/typed-params.h"
#include "pool/rpc/xdr.h"

enum { BYTES_MAX = 64 << 10, CHARS_MAX = 65536, AUTH_TYPES_MAX = 20 };

void secret_id_free(struct secret_id *id)
{
    if (!id)
        return;
    g_free(id->usage);
    g_free(id);
}

void secret_id_array_free(struct secret_id_array *array)
{
    if (!array)
        return;
    for (size_t i = 0; i < array->count; i++)
        secret_id_free(array->items[i]);
    g_free(array->items);
    g_free(array);
}

void admin_client_id_free(struct admin_client_id *id)
{
    if (!id)
        return;
    g_free(id->server);
    g_free(id);
}

struct rpc_bytes *rpc_bytes_new(const void *data, size_t size)
{
    struct rpc_bytes *bytes = g_new0(struct rpc_bytes, 1);

    bytes->data = g_memdup2(data, size);
    bytes->size = size;
    return bytes;
}

/* Secrets' values travel as bytes, so nothing of them stays behind. */
static void rpc_bytes_free(struct rpc_bytes *bytes)
{
    if (!bytes)
        return;
    if (bytes->data)
        explicit_bzero(bytes->data, bytes->size);
    g_free(bytes->data);
    g_free(bytes);
}

/* --- reading --- */

static bool get_pool(struct xdr_reader *reader, struct pool_id **ret)
{
    *ret = g_new0(struct pool_id, 1);
    return xdr_get_string(reader, &(*ret)->name) && xdr_get_fixed(reader, (*ret)->uuid, STORAGE_UUID_SIZE);
}

static bool get_volume(struct xdr_reader *reader, struct volume_id **ret)
{
    *ret = g_new0(struct volume_id, 1);
    return xdr_get_string(reader, &(*ret)->pool) && xdr_get_string(reader, &(*ret)->name) &&
           xdr_get_string(reader, &(*ret)->key);
}

static bool get_secret(struct xdr_reader *reader, struct secret_id **ret)
{
    uint32_t type;

    *ret = g_new0(struct secret_id, 1);
    if (!xdr_get_fixed(reader, (*ret)->uuid, STORAGE_UUID_SIZE) || !xdr_get_u32(reader, &type))
        return false;
    (*ret)->usage_type = (int32_t)type;
    return xdr_get_string(reader, &(*ret)->usage);
}

static bool get_client(struct xdr_reader *reader, struct admin_client_id **ret)
{
    *ret = g_new0(struct admin_client_id, 1);
    return xdr_get_string(reader, &(*ret)->server) && xdr_get_u64(reader, &(*ret)->id) &&
           xdr_get_u64(reader, &(*ret)->since_s) && xdr_get_u32(reader, &(*ret)->transport);
}

static bool get_bytes(struct xdr_reader *reader, struct rpc_bytes **ret)
{
    *ret = g_new0(struct rpc_bytes, 1);
    return xdr_get_bytes(reader, BYTES_MAX, &(*ret)->data, &(*ret)->size);
}

/* Each byte in the last place of a word. */
static bool get_chars(struct xdr_reader *reader, struct rpc_bytes **ret)
{
    uint32_t word;
    size_t count;

    *ret = g_new0(struct rpc_bytes, 1);
    if (!xdr_get_count(reader, CHARS_MAX, &count))
        return false;
    (*ret)->data = g_malloc(MAX(count, 1));
    while ((*ret)->size < count) {
        if (!xdr_get_u32(reader, &word))
            return false;
        (*ret)->data[(*ret)->size++] = (uint8_t)word;
    }
    return true;
}

static bool get_ints(struct xdr_reader *reader, struct rpc_ints **ret)
{
    size_t count;

    *ret = g_new0(struct rpc_ints, 1);
    if (!xdr_get_count(reader, AUTH_TYPES_MAX, &count))
        return false;
    while ((*ret)->count < count) {
        if (!xdr_get_u32(reader, &(*ret)->values[(*ret)->count++]))
            return false;
    }
    return true;
}

static bool get_strings(struct xdr_reader *reader, GPtrArray **ret)
{
    size_t count;

    *ret = g_ptr_array_new_with_free_func(g_free);
    if (!xdr_get_count(reader, STORAGE_LIST_MAX, &count))
        return false;
    while ((*ret)->len < count) {
        char *text;

        if (!xdr_get_string(reader, &text))
            return false;
        g_ptr_array_add(*ret, text);
    }
    return true;
}

static bool get_secrets(struct xdr_reader *reader, struct secret_id_array **ret)
{
    size_t count;

    *ret = g_new0(struct secret_id_array, 1);
    if (!xdr_get_count(reader, STORAGE_LIST_MAX, &count))
        return false;
    (*ret)->items = g_new0(struct secret_id *, count);
    while ((*ret)->count < count) {
        if (!get_secret(reader, &(*ret)->items[(*ret)->count++]))
            return false;
    }
    return true;
}

static bool get_pools(struct xdr_reader *reader, struct pool_id_array **ret)
{
    size_t count;

    *ret = g_new0(struct pool_id_array, 1);
    if (!xdr_get_count(reader, STORAGE_LIST_MAX, &count))
        return false;
    (*ret)->items = g_new0(struct pool_id *, count);
    while ((*ret)->count < count) {
        if (!get_pool(reader, &(*ret)->items[(*ret)->count++]))
            return false;
    }
    return true;
}

static bool get_volumes(struct xdr_reader *reader, struct volume_id_array **ret)
{
    size_t count;

    *ret = g_new0(struct volume_id_array, 1);
    if (!xdr_get_count(reader, STORAGE_LIST_MAX, &count))
        return false;
    (*ret)->items = g_new0(struct volume_id *, count);
    while ((*ret)->count < count) {
        if (!get_volume(reader, &(*ret)->items[(*ret)->count++]))
            return false;
    }
    return true;
}

static bool get_value(char letter, struct xdr_reader *reader, union rpc_value *value)
{
    bool present = true;
    uint32_t word;

    if (strchr("qy", letter) && (!xdr_get_present(reader, &present) || !present))
        return !present;
    switch (letter) {
    case 'i':
    case 'u':
    case 'c':
        if (!xdr_get_u32(reader, &word))
            return false;
        value->u = word;
        return true;
    case 'h':
        return xdr_get_u64(reader, &value->h);
    case 's':
        return xdr_get_string(reader, &value->string);
    case 'n':
        return xdr_get_optional_string(reader, &value->string);
    case 'S':
        return get_strings(reader, &value->strings);
    case 'b':
        return get_bytes(reader, &value->bytes);
    case 'a':
        return get_chars(reader, &value->bytes);
    case 'U':
        return xdr_get_fixed(reader, value->uuid, sizeof(value->uuid));
    case 'p':
    case 'q':
        return get_pool(reader, &value->pool);
    case 'P':
        return get_pools(reader, &value->pools);
    case 'v':
        return get_volume(reader, &value->volume);
    case 'V':
        return get_volumes(reader, &value->volumes);
    case 'x':
    case 'y':
        return get_secret(reader, &value->secret);
    case 'X':
        return get_secrets(reader, &value->secrets);
    case 't':
        return typed_params_decode(reader, &value->params);
    case 'k':
        return get_client(reader, &value->client);
    case 'I':
        return get_ints(reader, &value->ints);
    }
    assert(!"a letter that is only written");
    return false;
}

bool rpc_values_decode(const char *layout, struct xdr_reader *reader, union rpc_value *values)
{
    assert(strlen(layout) <= RPC_VALUES_MAX);
    for (size_t i = 0; layout[i]; i++) {
        if (!get_value(layout[i], reader, &values[i]))
            return false;
    }
    return true;
}

/* --- writing --- */

static void put_pool(const struct pool_id *pool, GByteArray *to)
{
    xdr_put_string(to, pool->name);
    xdr_put_fixed(to, pool->uuid, STORAGE_UUID_SIZE);
}

static void put_volume(const struct volume_id *volume, GByteArray *to)
{
    xdr_put_string(to, volume->pool);
    xdr_put_string(to, volume->name);
    xdr_put_string(to, volume->key);
}

static void put_secret(const struct secret_id *secret, GByteArray *to)
{
    xdr_put_fixed(to, secret->uuid, STORAGE_UUID_SIZE);
    xdr_put_u32(to, (uint32_t)secret->usage_type);
    xdr_put_string(to, secret->usage ? secret->usage : "");
}

static void put_client(const struct admin_client_id *client, GByteArray *to)
{
    xdr_put_string(to, client->server);
    xdr_put_u64(to, client->id);
    xdr_put_u64(to, client->since_s);
    xdr_put_u32(to, client->transport);
}

static void put_chars(const struct rpc_bytes *bytes, GByteArray *to)
{
    xdr_put_u32(to, bytes ? (uint32_t)bytes->size : 0);
    for (size_t i = 0; bytes && i < bytes->size; i++)
        xdr_put_u32(to, bytes->data[i]);
}

/* What is too long for a packet is not written to its end: nobody gets it. */
static void put_array(char letter, const union rpc_value *value, GByteArray *to)
{
    size_t count = 0;

    if (letter == 'P' && value->pools)
        count = value->pools->count;
    else if (letter == 'V' && value->volumes)
        count = value->volumes->count;
    else if (letter == 'X' && value->secrets)
        count = value->secrets->count;
    else if (letter == 'I' && value->ints)
        count = value->ints->count;
    else if (strchr("SK", letter) && value->strings)
        count = value->strings->len;
    xdr_put_u32(to, (uint32_t)count);
    for (size_t i = 0; i < count && to->len <= RPC_PACKET_MAX; i++) {
        if (letter == 'P')
            put_pool(value->pools->items[i], to);
        else if (letter == 'V')
            put_volume(value->volumes->items[i], to);
        else if (letter == 'X')
            put_secret(value->secrets->items[i], to);
        else if (letter == 'I')
            xdr_put_u32(to, value->ints->values[i]);
        else if (letter == 'S')
            xdr_put_string(to, value->strings->pdata[i]);
        else
            put_client(value->clients->pdata[i], to);
    }
}

static void put_value(char letter, const union rpc_value *value, GByteArray *to)
{
    if (strchr("qy", letter))
        xdr_put_u32(to, value->pool != NULL);
    switch (letter) {
    case 'i':
    case 'u':
    case 'c':
        return xdr_put_u32(to, value->u);
    case 'h':
        return xdr_put_u64(to, value->h);
    case 's':
        return xdr_put_string(to, value->string);
    case 'n':
        return xdr_put_optional_string(to, value->string);
    case 'b':
        return xdr_put_bytes(to, value->bytes ? value->bytes->data : NULL, value->bytes ? value->bytes->size : 0);
    case 'a':
        return put_chars(value->bytes, to);
    case 'U':
        return xdr_put_fixed(to, value->uuid, sizeof(value->uuid));
    case 'p':
        return put_pool(value->pool, to);
    case 'q':
        return value->pool ? put_pool(value->pool, to) : (void)0;
    case 'v':
        return put_volume(value->volume, to);
    case 'x':
        return put_secret(value->secret, to);
    case 'y':
        return value->secret ? put_secret(value->secret, to) : (void)0;
    case 't':
        return typed_params_encode(value->params, to);
    case 'k':
        return put_client(value->client, to);
    default:
        return put_array(letter, value, to);
    }
}

void rpc_values_encode(const char *layout, const union rpc_value *values, GByteArray *to)
{
    assert(strlen(layout) <= RPC_VALUES_MAX);
    for (size_t i = 0; layout[i]; i++)
        put_value(layout[i], &values[i], to);
}

void rpc_values_free(const char *layout, union rpc_value *values)
{
    for (size_t i = 0; layout[i]; i++) {
        union rpc_value *value = &values[i];

        switch (layout[i]) {
        case 's':
        case 'n':
            g_free(value->string);
            break;
        case 'S':
        case 'K':
            g_clear_pointer(&value->strings, g_ptr_array_unref);
            break;
        case 'a':
        case 'b':
            rpc_bytes_free(value->bytes);
            break;
        case 'p':
        case 'q':
            pool_id_free(value->pool);
            break;
        case 'P':
            pool_id_array_free(value->pools);
            break;
        case 'v':
            volume_id_free(value->volume);
            break;
        case 'V':
            volume_id_array_free(value->volumes);
            break;
        case 'x':
        case 'y':
            secret_id_free(value->secret);
            break;
        case 'X':
            secret_id_array_free(value->secrets);
            break;
        case 't':
            typed_params_free(value->params);
            break;
        case 'k':
            admin_client_id_free(value->client);
            break;
        case 'I':
            g_free(value->ints);
            break;
        }
    }
}
