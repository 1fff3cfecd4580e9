/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Metadata contexts: what clients may ask for each place of an export. A context of the export is known by its index,
 * which is its id on the wire too; sets of them are bits of a 64-bit word.
 *
 *     base:allocation          is it a hole, does it read as zeroes
 *     qemu:allocation-depth    which layer of the backing chain it comes from: 0 none, 1 the top one, ...
 *     qemu:dirty-bitmap:NAME   is it dirty in that bitmap
 */
#include <assert.h>
#include <errno.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "block/handle.h"
#include "export/nbd/nbd.h"

static_assert(NBD_CONTEXTS_MAX <= 64, "sets of contexts are words");
static_assert((int)NBD_CONTEXTS_MAX <= (int)NBD_CHUNKS_MAX, "each has a chunk in the reply");

uint64_t nbd_contexts_all(const struct nbd_export *export)
{
    assert(export->context_count);
    return UINT64_MAX >> (64 - export->context_count);
}

uint64_t nbd_contexts_match(const struct nbd_export *export, const struct nbd_string *query, bool listing)
{
    bool is_wildcard = listing && query->length && query->text[query->length - 1] == ':';
    uint64_t found = 0;

    for (unsigned i = 0; i < export->context_count; i++) {
        const char *name = export->contexts[i].name;

        if (strncmp(name, query->text, query->length) || !query->length)
            continue;
        if (is_wildcard || !name[query->length])
            found |= UINT64_C(1) << i;
    }
    return found;
}

/* The run from `offset` on that has the same status. */
struct status_run {
    uint64_t bytes;
    uint32_t status;
};

static int CO_FN co_find_run(struct nbd_request *request, const struct nbd_context *context, uint64_t offset,
                             uint64_t bytes, struct status_run *ret)
{
    struct handle *handle = request->client->handle;
    struct block_extent extent;
    int result;

    if (context->kind == NBD_CONTEXT_DIRTY_BITMAP) {
        nbd_bitmap_run(context, offset, bytes, &ret->bytes, &ret->status);
        return 0;
    }
    if (context->kind == NBD_CONTEXT_ALLOCATION_DEPTH) {
        result = co_handle_allocation_depth(handle, offset, bytes, &ret->bytes);
        if (result >= 0)
            ret->status = (uint32_t)result;
    } else {
        result = co_handle_block_status(handle, offset, bytes, &extent);
        if (result >= 0) {
            ret->bytes = extent.bytes;
            ret->status = extent.flags & BLOCK_DATA ? 0 : NBD_STATE_HOLE;
            if (extent.flags & BLOCK_ZERO)
                ret->status |= NBD_STATE_ZERO;
        }
    }
    return result < 0 ? result : 0;
}

/* Keeps runs inside what was asked, and to the client's minimum block; a block of several kinds counts as data, or
 * as dirty. */
static void run_fit(struct status_run *run, const struct nbd_context *context, uint64_t bytes, uint32_t min_block)
{
    run->bytes = MIN(run->bytes, bytes);
    if (is_aligned(run->bytes, min_block))
        return;
    if (run->bytes > min_block) {
        run->bytes = align_down(run->bytes, min_block);
        return;
    }
    run->bytes = MIN(min_block, bytes);
    if (context->kind == NBD_CONTEXT_ALLOCATION)
        run->status = 0;
    else if (context->kind == NBD_CONTEXT_DIRTY_BITMAP)
        run->status = NBD_STATE_DIRTY;
}

static size_t run_encode(uint8_t *to, enum nbd_mode mode, const struct status_run *run)
{
    if (mode == NBD_MODE_EXTENDED) {
        store_be64(to, run->bytes);
        store_be64(to + 8, run->status);
        return 16;
    }
    assert(run->bytes <= UINT32_MAX);
    store_be32(to, (uint32_t)run->bytes);
    store_be32(to + 4, run->status);
    return 8;
}

int co_nbd_context_status(struct nbd_request *request, unsigned context, uint8_t *to, size_t *ret_bytes)
{
    const struct nbd_context *what = &request->client->export->contexts[context];
    enum nbd_mode mode = request->client->terms.mode;
    size_t head = mode == NBD_MODE_EXTENDED ? 8 : 4, used = head;
    size_t each = mode == NBD_MODE_EXTENDED ? 16 : 8;
    uint64_t offset = request->header.offset, left = request->header.length;
    struct status_run run = {0};

    assert(context < request->client->export->context_count);
    while (left && used + each <= NBD_STATUS_BYTES) {
        struct status_run next;
        int result = co_find_run(request, what, offset, left, &next);

        /* What is known is an answer too; the client asks again for the rest and then gets the error. */
        if (result < 0 && !run.bytes)
            return result;
        if (result < 0)
            break;
        assert(next.bytes);
        run_fit(&next, what, left, request->client->terms.min_block);
        offset += next.bytes;
        left -= next.bytes;
        if (run.bytes && next.status == run.status) {
            run.bytes += next.bytes;
            continue;
        }
        if (run.bytes)
            used += run_encode(to + used, mode, &run);
        run = next;
        if (request->header.flags & NBD_CMD_FLAG_REQ_ONE)
            break;
    }
    if (used + each <= NBD_STATUS_BYTES)
        used += run_encode(to + used, mode, &run);
    store_be32(to, context);
    if (mode == NBD_MODE_EXTENDED)
        store_be32(to + 4, (uint32_t)((used - head) / each));
    *ret_bytes = used;
    return 0;
}
