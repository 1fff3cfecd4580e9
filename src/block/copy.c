/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copying between two nodes, extent by extent: by the target's driver where the source's data lies in a protocol node
 * as it is, as zeroes where there are some, and else through memory.
 */
#include <assert.h>
#include <errno.h>

#include "block/graph-internal.h"
#include "loop/loop.h"

/* STEP_BYTES: what is asked for and copied in one go, so that no call to the system takes too long. */
enum { BUFFER_BYTES = 1024 * 1024, STEP_BYTES = 64 * 1024 * 1024 };

static int CO_FN co_copy_by_memory(struct node *from, uint64_t from_offset, struct node *to, uint64_t to_offset,
                                   uint64_t bytes, unsigned flags)
{
    size_t size = MIN(bytes, BUFFER_BYTES);
    void *buffer = loop_buffer_get(size);
    int ret = buffer ? 0 : -ENOMEM;

    while (bytes && !ret) {
        struct iovec segment = {.iov_base = buffer, .iov_len = MIN(bytes, size)};
        struct io_vector iov = io_vector_of(&segment, 1);

        ret = co_node_preadv(from, from_offset, iov.size, &iov, 0);
        if (!ret)
            ret = co_node_pwritev(to, to_offset, iov.size, &iov, flags);
        from_offset += iov.size;
        to_offset += iov.size;
        bytes -= iov.size;
    }
    if (buffer)
        loop_buffer_put(buffer, size);
    return ret;
}

/* Whether what the extent describes can be fetched from its host directly. */
static bool lies_as_it_is(const struct block_extent *extent)
{
    return extent->flags & BLOCK_DATA && extent->flags & BLOCK_OFFSET_VALID && !(extent->flags & BLOCK_FILTERED) &&
           extent->host->driver->kind == BLOCK_DRIVER_PROTOCOL;
}

static int CO_FN co_copy_extent(struct node *from, uint64_t from_offset, struct node *to, uint64_t to_offset,
                                const struct block_extent *extent, unsigned flags)
{
    unsigned write_flags = flags & ~(unsigned)IO_NO_FALLBACK;
    int ret = -ENOTSUP;

    if (extent->flags & BLOCK_ZERO)
        ret = co_node_pwrite_zeroes(to, to_offset, extent->bytes, flags | IO_MAY_UNMAP);
    else if (lies_as_it_is(extent))
        ret = co_node_copy_from(to, to_offset, extent->bytes, extent->host, extent->host_offset, write_flags);
    if (ret != -ENOTSUP || flags & IO_NO_FALLBACK)
        return ret;
    return co_copy_by_memory(from, from_offset, to, to_offset, extent->bytes, write_flags);
}

int CO_FN co_node_copy_range(struct node *from, uint64_t from_offset, struct node *to, uint64_t to_offset,
                             uint64_t bytes, unsigned flags)
{
    int ret = 0;

    while (bytes && !ret) {
        struct block_extent extent;

        ret = co_chain_block_status(from, from_offset, MIN(bytes, STEP_BYTES), true, &extent, NULL);
        if (!ret) {
            assert(extent.bytes);
            assert(extent.bytes <= bytes);
            ret = co_copy_extent(from, from_offset, to, to_offset, &extent, flags);
        }
        from_offset += extent.bytes;
        to_offset += extent.bytes;
        bytes -= extent.bytes;
    }
    return ret;
}
