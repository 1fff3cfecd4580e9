/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The decoders alone. The first byte says which; what one accepts has to be true of the bytes. */
#include <assert.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "export/nbd/protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(const struct nbd_string *string, const uint8_t *data, size_t size)
{
    const uint8_t *text = (const uint8_t *)string->text;

    assert(text >= data);
    assert(string->length <= size - (size_t)(text - data));
}

static void fuzz_info(const uint8_t *data, size_t size)
{
    struct nbd_info_request request;
    const char *why = NULL;

    if (!nbd_info_request_decode(data, size, &request, &why)) {
        assert(why);
        return;
    }
    check_inside(&request.name, data, size);
    assert(request.name.length <= NBD_STRING_BYTES_MAX);
    assert(request.wanted < 16);
}

static void fuzz_meta(const uint8_t *data, size_t size)
{
    struct nbd_meta_request request;
    struct nbd_string query;
    const char *why = NULL;
    uint32_t count = 0;

    if (!nbd_meta_request_decode(data, size, &request, &why)) {
        assert(why);
        return;
    }
    check_inside(&request.name, data, size);
    for (uint32_t expected = request.query_count; nbd_meta_query_next(&request, &query); count++) {
        check_inside(&query, data, size);
        assert(count < expected);
    }
    assert(!request.query_count && !request.queries_length);
}

/* What is let through lies inside of the export. */
static void check_range(const struct nbd_request_header *header, const struct nbd_terms *terms, uint64_t export_size)
{
    const char *why = NULL;

    if (nbd_request_check(header, terms, export_size, &why)) {
        assert(why);
        return;
    }
    if (header->type == NBD_CMD_FLUSH || header->type == NBD_CMD_DISC)
        return;
    assert(header->length);
    assert(range_fits(header->offset, header->length, export_size));
    assert(is_aligned(header->offset, terms->min_block) && is_aligned(header->length, terms->min_block));
    if (header->type == NBD_CMD_READ || header->type == NBD_CMD_WRITE)
        assert(header->length <= NBD_PAYLOAD_BYTES_MAX);
    if (terms->flags & NBD_FLAG_READ_ONLY)
        assert(header->type != NBD_CMD_WRITE && header->type != NBD_CMD_TRIM && header->type != NBD_CMD_WRITE_ZEROES);
}

static void fuzz_request(const uint8_t *data, size_t size)
{
    struct nbd_request_header header;
    struct nbd_terms terms;
    uint8_t bytes[NBD_EXTENDED_REQUEST_BYTES] = {0};

    if (size < 12)
        return;
    terms.mode = data[0] % 3;
    terms.flags = load_be16(data + 1);
    terms.min_block = 1u << data[3] % 17;
    terms.has_contexts = data[3] & 32;
    memcpy(bytes, data + 12, size - 12 < sizeof(bytes) ? size - 12 : sizeof(bytes));
    store_be32(bytes, terms.mode == NBD_MODE_EXTENDED ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC);
    if (!nbd_request_decode(bytes, terms.mode, &header))
        assert(!"the magic number is right");
    (void)nbd_request_payload(&header, terms.mode);
    check_range(&header, &terms, load_be64(data + 4));
}

static void fuzz_filter(const uint8_t *data, size_t size)
{
    struct nbd_status_filter filter;
    const char *why = NULL;
    uint64_t selected;

    if (size < 8)
        return;
    selected = load_be64(data);
    if (!nbd_status_filter_decode(data + 8, size - 8, selected, &filter, &why)) {
        assert(why);
        return;
    }
    assert(filter.contexts && !(filter.contexts & ~selected));
    assert((size_t)__builtin_popcountll(filter.contexts) == (size - 16) / 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const targets[])(const uint8_t *, size_t) = {fuzz_info, fuzz_meta, fuzz_request, fuzz_filter};

    if (size)
        targets[data[0] % 4](data + 1, size - 1);
    return 0;
}
