/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/rpc/xdr.h"

#include <assert.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"

enum { UNIT = 4 }; /* everything is padded with zeroes to a multiple of it */

static size_t padding(size_t size)
{
    return (UNIT - size % UNIT) % UNIT;
}

/* `size` bytes and their padding; NULL: there are not so many. */
static const uint8_t *take(struct xdr_reader *reader, size_t size)
{
    const uint8_t *at = reader->at;
    size_t whole = size + padding(size);

    assert(size <= SIZE_MAX / 2);
    if (whole > reader->left)
        return NULL;
    reader->at += whole;
    reader->left -= whole;
    return at;
}

bool xdr_get_u32(struct xdr_reader *reader, uint32_t *ret)
{
    const uint8_t *at = take(reader, sizeof(*ret));

    if (!at)
        return false;
    *ret = load_be32(at);
    return true;
}

bool xdr_get_u64(struct xdr_reader *reader, uint64_t *ret)
{
    const uint8_t *at = take(reader, sizeof(*ret));

    if (!at)
        return false;
    *ret = load_be64(at);
    return true;
}

bool xdr_get_fixed(struct xdr_reader *reader, void *ret, size_t size)
{
    const uint8_t *at = take(reader, size);

    if (!at)
        return false;
    memcpy(ret, at, size);
    return true;
}

bool xdr_get_bytes(struct xdr_reader *reader, size_t max, uint8_t **ret, size_t *ret_size)
{
    uint32_t size;
    const uint8_t *at;
    uint8_t *bytes;

    if (!xdr_get_u32(reader, &size) || size > max)
        return false;
    at = take(reader, size);
    if (!at)
        return false;
    bytes = g_malloc((size_t)size + 1);
    memcpy(bytes, at, size);
    bytes[size] = 0;
    *ret = bytes;
    *ret_size = size;
    return true;
}

bool xdr_get_string(struct xdr_reader *reader, char **ret)
{
    g_autofree uint8_t *bytes = NULL;
    size_t size;

    if (!xdr_get_bytes(reader, XDR_STRING_MAX, &bytes, &size) || memchr(bytes, 0, size))
        return false;
    *ret = (char *)TAKE(bytes);
    return true;
}

bool xdr_get_present(struct xdr_reader *reader, bool *ret)
{
    uint32_t value;

    if (!xdr_get_u32(reader, &value) || value > 1)
        return false;
    *ret = value;
    return true;
}

bool xdr_get_optional_string(struct xdr_reader *reader, char **ret)
{
    bool present;

    if (!xdr_get_present(reader, &present))
        return false;
    if (present)
        return xdr_get_string(reader, ret);
    *ret = NULL;
    return true;
}

bool xdr_get_count(struct xdr_reader *reader, size_t max, size_t *ret)
{
    uint32_t count;

    if (!xdr_get_u32(reader, &count) || count > max || count > reader->left / UNIT)
        return false;
    *ret = count;
    return true;
}

void xdr_put_u32(GByteArray *to, uint32_t value)
{
    uint8_t bytes[sizeof(value)];

    store_be32(bytes, value);
    g_byte_array_append(to, bytes, sizeof(bytes));
}

void xdr_put_u64(GByteArray *to, uint64_t value)
{
    uint8_t bytes[sizeof(value)];

    store_be64(bytes, value);
    g_byte_array_append(to, bytes, sizeof(bytes));
}

void xdr_put_fixed(GByteArray *to, const void *from, size_t size)
{
    static const uint8_t zeroes[UNIT];

    assert(size <= UINT32_MAX - to->len - UNIT);
    g_byte_array_append(to, from, (guint)size);
    g_byte_array_append(to, zeroes, (guint)padding(size));
}

void xdr_put_bytes(GByteArray *to, const void *from, size_t size)
{
    assert(size <= UINT32_MAX);
    xdr_put_u32(to, (uint32_t)size);
    if (size)
        xdr_put_fixed(to, from, size);
}

void xdr_put_string(GByteArray *to, const char *text)
{
    xdr_put_bytes(to, text, strlen(text));
}

void xdr_put_optional_string(GByteArray *to, const char *text)
{
    xdr_put_u32(to, text != NULL);
    if (text)
        xdr_put_string(to, text);
}
