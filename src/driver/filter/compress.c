/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * compress: all that is written is stored compressed, for users that know of no such thing. Options:
 *  - file: an image of a format that can store compressed data.
 *
 * Writes come in whole clusters, which is the unit of compression: the core reads what a smaller one leaves as it is.
 */
#include "driver/filter/compress.h"

#include "base/checked.h"
#include "base/error.h"
#include "block/describe.h"
#include "block/driver.h"
#include "block/node.h"

struct compress_node {
    struct edge *file; /* const after open */
};

static bool CO_FN compress_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    struct compress_node *compress = node_state(node);

    compress->file = co_node_add_child(node, "file", options->u.compress.file, EDGE_FILTERED | EDGE_PRIMARY, err);
    if (!compress->file)
        return false;
    if (!node_can_compress(edge_child(compress->file)))
        return error_set(err, "Compression is not supported for underlying format: %s",
                         node_driver_name(edge_child(compress->file)));
    node_set_flags(node, IO_COMPRESSED | IO_FUA | IO_UNCHANGED, IO_FUA | IO_MAY_UNMAP | IO_NO_FALLBACK | IO_UNCHANGED);
    node_set_read_flags(node, IO_PREFETCH);
    return true;
}

static bool CO_FN compress_co_refresh_limits(struct node *node, struct node_limits *limits, struct error **err)
{
    const struct compress_node *compress = node_state(node);
    struct node_info info = {0};

    if (co_node_get_info(edge_child(compress->file), &info) && info.cluster_size)
        limits->request_alignment = MAX(limits->request_alignment, info.cluster_size);
    limits->zeroes_alignment = (uint32_t)align_up(limits->zeroes_alignment, limits->request_alignment);
    limits->discard_alignment = (uint32_t)align_up(limits->discard_alignment, limits->request_alignment);
    return true;
}

/* Who writes less than a cluster reads the rest of it. */
static void compress_child_permissions(const struct node *node, const struct edge *edge, uint32_t perm, uint32_t shared,
                                       uint32_t *ret_perm, uint32_t *ret_shared)
{
    *ret_perm = perm & (PERM_WRITE | PERM_WRITE_UNCHANGED) ? perm | PERM_CONSISTENT_READ : perm;
    *ret_shared = shared;
}

static int CO_FN compress_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                    unsigned flags)
{
    const struct compress_node *compress = node_state(node);

    return co_edge_preadv(compress->file, offset, bytes, iov, flags);
}

static int CO_FN compress_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                     unsigned flags)
{
    const struct compress_node *compress = node_state(node);

    /* Its last cluster may be a part of one. */
    return co_edge_pwritev_padded(compress->file, offset, bytes, iov, flags | IO_COMPRESSED);
}

static int CO_FN compress_co_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    const struct compress_node *compress = node_state(node);

    return co_edge_pwrite_zeroes_padded(compress->file, offset, bytes, flags);
}

static int CO_FN compress_co_pdiscard(struct node *node, uint64_t offset, uint64_t bytes)
{
    const struct compress_node *compress = node_state(node);

    return co_edge_pdiscard(compress->file, offset, bytes);
}

const struct block_driver compress_driver = {
    .name = "compress",
    .kind = BLOCK_DRIVER_FILTER,
    .state_size = sizeof(struct compress_node),
    .co_open = compress_co_open,
    .co_preadv = compress_co_preadv,
    .co_pwritev = compress_co_pwritev,
    .co_pwrite_zeroes = compress_co_pwrite_zeroes,
    .co_pdiscard = compress_co_pdiscard,
    .co_refresh_limits = compress_co_refresh_limits,
    .child_permissions = compress_child_permissions,
};
