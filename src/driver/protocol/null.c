/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * null-co and null-aio: a disk that forgets what is written and answers after a given time. Options:
 *  - size: bytes (default 1 GiB);
 *  - latency-ns: how long each request takes (default 0);
 *  - read-zeroes: whether reading fills the buffer with zeroes (default: it is left as it was, for measuring).
 * The two are the same here: both names are there for who has one in a script.
 */
#include "driver/protocol/null.h"

#include <errno.h>
#include <inttypes.h>

#include "base/error.h"
#include "block/driver.h"
#include "block/node.h"
#include "loop/loop.h"

#define NULL_SIZE_DEFAULT (UINT64_C(1) << 30)

/* All const after open. */
struct null_node {
    int64_t latency_ns;
    bool read_zeroes;
};

static bool CO_FN null_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    const struct blockdev_options_null *own =
        options->driver == BLOCKDEV_DRIVER_NULL_AIO ? &options->u.null_aio : &options->u.null_co;
    struct null_node *null = node_state(node);
    uint64_t size = own->has_size ? (uint64_t)own->size : NULL_SIZE_DEFAULT;

    if (own->has_size && own->size < 0)
        return error_set(err, "Parameter 'size' expects a non-negative number below 2^64: it is %" PRId64, own->size);
    if (size > NODE_LENGTH_MAX)
        return error_set_errno(err, EFBIG, "Could not refresh total sector count");
    if (own->has_latency_ns && own->latency_ns > INT64_MAX)
        return error_set(err, "latency-ns is invalid: it is %" PRIu64 ", at most %" PRId64, own->latency_ns, INT64_MAX);
    null->latency_ns = own->has_latency_ns ? (int64_t)own->latency_ns : 0;
    null->read_zeroes = own->has_read_zeroes && own->read_zeroes;
    node_set_length(node, size);
    node_set_read_flags(node, IO_REGISTERED);
    node_set_flags(node, IO_FUA | IO_REGISTERED | IO_UNCHANGED, IO_FUA | IO_MAY_UNMAP | IO_NO_FALLBACK | IO_UNCHANGED);
    return true;
}

static int CO_FN null_co_wait(const struct node *node)
{
    const struct null_node *null = node_state(node);

    return null->latency_ns ? co_sleep_ns(null->latency_ns) : 0;
}

static int CO_FN null_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                unsigned flags)
{
    const struct null_node *null = node_state(node);

    if (null->read_zeroes)
        io_vector_fill(iov, 0, 0, bytes);
    return null_co_wait(node);
}

static int CO_FN null_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                 unsigned flags)
{
    return null_co_wait(node);
}

static int CO_FN null_co_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    return null_co_wait(node);
}

static int CO_FN null_co_flush(struct node *node)
{
    return null_co_wait(node);
}

static int CO_FN null_co_block_status(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                                      struct block_extent *ret)
{
    const struct null_node *null = node_state(node);

    ret->bytes = bytes;
    ret->flags = BLOCK_OFFSET_VALID | BLOCK_ALLOCATED | (null->read_zeroes ? BLOCK_ZERO : BLOCK_DATA);
    ret->host = node;
    ret->host_offset = offset;
    return 0;
}

static int64_t CO_FN null_co_allocated_size(struct node *node)
{
    return 0;
}

static const char *const null_significant_options[] = {"size", "read-zeroes", NULL};

static char *null_filename(const struct node *node)
{
    const struct blockdev_options *options = node_options(node);
    const struct blockdev_options_null *own =
        options->driver == BLOCKDEV_DRIVER_NULL_AIO ? &options->u.null_aio : &options->u.null_co;

    return own->has_size || own->has_read_zeroes ? NULL : g_strdup_printf("%s://", node_driver_name(node));
}

#define NULL_DRIVER(driver_name)                                                                                       \
    {                                                                                                                  \
        .name = driver_name, .kind = BLOCK_DRIVER_PROTOCOL, .state_size = sizeof(struct null_node),                    \
        .co_open = null_co_open, .co_preadv = null_co_preadv, .co_pwritev = null_co_pwritev,                           \
        .co_pwrite_zeroes = null_co_pwrite_zeroes, .co_flush = null_co_flush, .co_block_status = null_co_block_status, \
        .co_allocated_size = null_co_allocated_size, .filename = null_filename,                                        \
        .significant_options = null_significant_options,                                                               \
    }

const struct block_driver null_co_driver = NULL_DRIVER("null-co");
const struct block_driver null_aio_driver = NULL_DRIVER("null-aio");
