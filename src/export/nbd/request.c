/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What each command does with the export's node. Requests have been checked when they come here. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "base/trace.h"
#include "block/handle.h"
#include "export/nbd/nbd.h"

static bool has_flag(const struct nbd_request *request, uint16_t flag)
{
    return request->header.flags & flag;
}

static int CO_FN co_write(struct nbd_request *request)
{
    const struct nbd_request_header *header = &request->header;

    return co_handle_pwrite(request->client->handle, header->offset, header->length, request->buffer,
                            has_flag(request, NBD_CMD_FLAG_FUA) ? IO_FUA : 0);
}

static int CO_FN co_write_zeroes(struct nbd_request *request)
{
    const struct nbd_request_header *header = &request->header;
    unsigned flags = 0;

    if (has_flag(request, NBD_CMD_FLAG_FUA))
        flags |= IO_FUA;
    if (!has_flag(request, NBD_CMD_FLAG_NO_HOLE))
        flags |= IO_MAY_UNMAP;
    if (has_flag(request, NBD_CMD_FLAG_FAST_ZERO))
        flags |= IO_NO_FALLBACK;
    return co_handle_pwrite_zeroes(request->client->handle, header->offset, header->length, flags);
}

static int CO_FN co_trim(struct nbd_request *request)
{
    struct handle *handle = request->client->handle;
    int result = co_handle_pdiscard(handle, request->header.offset, request->header.length);

    if (!result && has_flag(request, NBD_CMD_FLAG_FUA))
        result = co_handle_flush(handle);
    return result;
}

/* The commands whose reply says only whether they went well. */
static int CO_FN co_plain(struct nbd_request *request)
{
    const struct nbd_request_header *header = &request->header;

    switch (header->type) {
    case NBD_CMD_WRITE:
        return co_write(request);
    case NBD_CMD_FLUSH:
        return co_handle_flush(request->client->handle);
    case NBD_CMD_TRIM:
        return co_trim(request);
    case NBD_CMD_CACHE:
        return co_handle_preadv(request->client->handle, header->offset, header->length, NULL, IO_PREFETCH);
    case NBD_CMD_WRITE_ZEROES:
        return co_write_zeroes(request);
    default:
        assert(!"a command that was checked");
        return -EINVAL;
    }
}

/* Some numbers mean something between client and server, which what failed below cannot have meant. */
static enum nbd_error failure_code(const struct nbd_request *request, int result)
{
    enum nbd_error code = nbd_error_of(result);

    if (code == NBD_ENOTSUP && !has_flag(request, NBD_CMD_FLAG_FAST_ZERO))
        return NBD_EINVAL;
    if (code == NBD_EOVERFLOW)
        return NBD_EINVAL;
    return code == NBD_ESHUTDOWN ? NBD_EIO : code;
}

static void reply_failure(struct nbd_request *request, int result)
{
    const struct nbd_request_header *header = &request->header;

    nbd_reply_error(request, failure_code(request, result), "%s of %" PRIu64 " bytes at offset %" PRIu64 " failed: %s",
                    nbd_command_name(header->type), header->length, header->offset, g_strerror(-result));
}

static void CO_FN co_read(struct nbd_request *request)
{
    const struct nbd_request_header *header = &request->header;
    int result = -ENOMEM;

    if (nbd_request_allocate(request, header->length))
        result = co_handle_pread(request->client->handle, header->offset, header->length, request->buffer, 0);
    if (result < 0)
        reply_failure(request, result);
    else
        nbd_reply_data(request, header->offset, (uint32_t)header->length);
}

static void CO_FN co_block_status(struct nbd_request *request)
{
    size_t bytes[NBD_CONTEXTS_MAX];
    unsigned count = 0;
    int result = 0;

    assert(request->contexts);
    if (!nbd_request_allocate(request, (size_t)__builtin_popcountll(request->contexts) * NBD_STATUS_BYTES))
        result = -ENOMEM;
    for (unsigned i = 0; i < NBD_CONTEXTS_MAX && !result; i++) {
        if (!(request->contexts >> i & 1))
            continue;
        result = co_nbd_context_status(request, i, request->buffer + (size_t)count * NBD_STATUS_BYTES, &bytes[count]);
        count++;
    }
    if (result < 0)
        reply_failure(request, result);
    else
        nbd_reply_status(request, count, bytes);
}

void nbd_request_run(void *opaque)
{
    struct nbd_request *request = opaque;
    const struct nbd_request_header *header = &request->header;
    int result;

    TRACE(nbd_request, "client %p cookie %" PRIx64 " type %u flags %x offset %" PRIu64 " length %" PRIu64,
          (void *)request->client, header->cookie, header->type, header->flags, header->offset, header->length);
    switch (header->type) {
    case NBD_CMD_READ:
        co_read(request);
        break;
    case NBD_CMD_BLOCK_STATUS:
        co_block_status(request);
        break;
    default:
        result = co_plain(request);
        if (result < 0)
            reply_failure(request, result);
        else
            nbd_reply_success(request);
    }
}
