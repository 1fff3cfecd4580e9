/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkverify: two nodes that must show the same: what is read from both is compared. For tests of drivers. Options:
 *  - test: the node that is tried;
 *  - raw: a plain node with the same content, which is trusted to be right.
 *
 * The first difference, in data or in whether a request fails, is told on stderr with its place, and from then on every
 * request fails: what was found stays to be looked at.
 */
#include "driver/filter/blkverify.h"

#include <errno.h>
#include <inttypes.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/io-vector.h"
#include "base/log.h"
#include "block/driver.h"
#include "block/node.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"

enum { TRANSFER_BYTES_MAX = 4 << 20 }; /* a read is held in memory twice */

struct blkverify_node {
    struct edge *raw; /* const after open */
    struct edge *test;
    bool stopped; /* atomic: they have differed */
};

static bool CO_FN blkverify_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    const struct blockdev_options_blkverify *own = &options->u.blkverify;
    struct blkverify_node *verify = node_state(node);
    uint64_t raw_length, test_length;

    verify->raw = co_node_add_child(node, "raw", own->raw, EDGE_FILTERED | EDGE_PRIMARY, err);
    if (!verify->raw)
        return false;
    verify->test = co_node_add_child(node, "test", own->test, EDGE_DATA, err);
    if (!verify->test)
        return false;
    raw_length = node_length(edge_child(verify->raw));
    test_length = node_length(edge_child(verify->test));
    if (raw_length < test_length)
        return error_set(err,
                         "blkverify: the raw node '%s' of %" PRIu64 " bytes is shorter than the node '%s' of %" PRIu64
                         " bytes that is to be compared with it",
                         node_name(edge_child(verify->raw)), raw_length, node_name(edge_child(verify->test)),
                         test_length);
    node_set_flags(node, IO_FUA | IO_UNCHANGED, 0);
    return true;
}

static int64_t CO_FN blkverify_co_length(struct node *node)
{
    const struct blkverify_node *verify = node_state(node);

    return (int64_t)node_length(edge_child(verify->test));
}

static bool CO_FN blkverify_co_refresh_limits(struct node *node, struct node_limits *limits, struct error **err)
{
    const struct blkverify_node *verify = node_state(node);
    uint32_t other = node_get_limits(edge_child(verify->test))->request_alignment;
    uint32_t most = TRANSFER_BYTES_MAX;

    limits->request_alignment = MAX(limits->request_alignment, other);
    limits->transfer_max = limits->transfer_max ? MIN(limits->transfer_max, most) : most;
    limits->transfer_max =
        (uint32_t)align_down(MAX(limits->transfer_max, limits->request_alignment), limits->request_alignment);
    limits->zeroes_alignment = limits->discard_alignment = limits->request_alignment;
    return true;
}

static char *blkverify_filename(const struct node *node)
{
    const struct blkverify_node *verify = node_state(node);
    g_autofree char *raw = node_plain_filename(edge_child(verify->raw));
    g_autofree char *test = node_plain_filename(edge_child(verify->test));

    /* The first name ends at its first colon. */
    if (!raw || !test || strchr(raw, ':'))
        return NULL;
    return g_strdup_printf("blkverify:%s:%s", raw, test);
}

/* --- both at once --- */

struct request {
    struct edge *edge;
    bool write;
    uint64_t offset;
    uint64_t bytes;
    const struct io_vector *iov;
    unsigned flags;
    int result;
    struct co_group group;
};

static int CO_FN co_request(const struct request *request)
{
    if (request->write)
        return co_edge_pwritev_padded(request->edge, request->offset, request->bytes, request->iov, request->flags);
    return co_edge_preadv(request->edge, request->offset, request->bytes, request->iov, 0);
}

static void CO_FN co_request_entry(void *opaque)
{
    struct request *request = opaque;

    request->result = co_request(request);
    co_group_done(&request->group);
}

static int stop(struct blkverify_node *verify)
{
    __atomic_store_n(&verify->stopped, true, __ATOMIC_RELAXED);
    return -EIO;
}

/* `to`: where the node under test reads to; of a write what the other writes. */
static int CO_FN co_both(struct node *node, struct request *raw, const struct io_vector *to)
{
    struct blkverify_node *verify = node_state(node);
    struct request test = *raw;

    if (__atomic_load_n(&verify->stopped, __ATOMIC_RELAXED))
        return -EIO;
    raw->edge = verify->raw;
    test.edge = verify->test;
    test.iov = to;
    co_group_add(&raw->group, 1);
    co_spawn(loop_current(), co_request_entry, raw);
    test.result = co_request(&test);
    co_group_wait(&raw->group);
    if (test.result != raw->result) {
        log_error("blkverify: %s offset=%" PRIu64 " bytes=%" PRIu64 " return value mismatch %d != %d",
                  raw->write ? "write" : "read", raw->offset, raw->bytes, test.result, raw->result);
        return stop(verify);
    }
    return raw->result;
}

static int CO_FN blkverify_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                     unsigned flags)
{
    struct request request = {.offset = offset, .bytes = bytes, .iov = iov};
    struct iovec segment = {.iov_base = loop_buffer_get(bytes), .iov_len = bytes};
    struct io_vector to = io_vector_of(&segment, 1);
    size_t at;
    int ret;

    if (!segment.iov_base)
        return -ENOMEM;
    ret = co_both(node, &request, &to);
    at = ret ? bytes : io_vector_difference(iov, &to);
    loop_buffer_put(segment.iov_base, bytes);
    if (at == bytes)
        return ret;
    log_error("blkverify: read offset=%" PRIu64 " bytes=%" PRIu64 " contents mismatch at offset %" PRIu64, offset,
              bytes, offset + at);
    return stop(node_state(node));
}

static int CO_FN blkverify_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                      unsigned flags)
{
    struct request request = {.write = true, .offset = offset, .bytes = bytes, .iov = iov, .flags = flags};

    return co_both(node, &request, iov);
}

/* What lies where is the tried one's business; nobody shall see it with the other's eyes. */
static int CO_FN blkverify_co_block_status(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                                           struct block_extent *ret)
{
    const struct blkverify_node *verify = node_state(node);
    int result = co_edge_block_status(verify->test, offset, bytes, want_zero, ret);

    ret->flags |= BLOCK_ALLOCATED;
    ret->flags &= ~(unsigned)(BLOCK_OFFSET_VALID | BLOCK_RECURSE);
    ret->host = NULL;
    return result;
}

static int CO_FN blkverify_co_truncate(struct node *node, const struct truncate_request *request, struct error **err)
{
    error_set(err, "blkverify does not support resize");
    return -ENOTSUP;
}

const struct block_driver blkverify_driver = {
    .name = "blkverify",
    .kind = BLOCK_DRIVER_FILTER,
    .state_size = sizeof(struct blkverify_node),
    .co_open = blkverify_co_open,
    .co_preadv = blkverify_co_preadv,
    .co_pwritev = blkverify_co_pwritev,
    .co_block_status = blkverify_co_block_status,
    .co_truncate = blkverify_co_truncate,
    .co_length = blkverify_co_length,
    .co_refresh_limits = blkverify_co_refresh_limits,
    .filename = blkverify_filename,
};
