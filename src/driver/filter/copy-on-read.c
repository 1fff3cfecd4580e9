/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy-on-read: what is read from a backing image of its file is written to the file, so that it is there the next
 * time. Options:
 *  - file: the node whose data it shows;
 *  - bottom: name of the lowest node of the chain whose data is kept, no filter (default: all layers).
 *
 * Nothing is copied where the node is read-only. Writes wait where something is being copied, so that what was read
 * before a write is not written after it.
 */
#include "driver/filter/copy-on-read.h"

#include <string.h>

#include "base/error.h"
#include "block/block-copy.h"
#include "block/describe.h"
#include "block/driver.h"
#include "block/graph-change.h"
#include "block/node.h"

enum { CLUSTER_DEFAULT = 64 * 1024 };

struct cor_node {
    struct edge *file;       /* const after open, as all */
    struct node *bottom;     /* in the chain below the file, which keeps it; NULL: no limit */
    struct block_copy *copy; /* in place */
};

/* The image below filters. */
static struct node *skip_filters(struct node *node)
{
    while (node_primary(node) && edge_role(node_primary(node)) & EDGE_FILTERED)
        node = edge_child(node_primary(node));
    return node;
}

static bool find_bottom(struct node *node, const char *name, struct error **err)
{
    struct cor_node *cor = node_state(node);

    if (!name)
        return true;
    cor->bottom = node_find_sibling(node, name, NULL);
    if (!cor->bottom)
        return error_set(err, "Bottom node '%s' not found", name);
    if (skip_filters(cor->bottom) != cor->bottom)
        return error_set(err, "Bottom node '%s' is a filter", name);
    if (!node_reaches(edge_child(cor->file), cor->bottom))
        return error_set(err, "Bottom node '%s' is not in the chain of '%s'", name, node_name(edge_child(cor->file)));
    return true;
}

static bool CO_FN cor_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    const struct blockdev_options_cor *own = &options->u.copy_on_read;
    struct cor_node *cor = node_state(node);
    struct block_copy_options copy = {.cluster_size = CLUSTER_DEFAULT};
    struct node_info info = {0};

    cor->file = co_node_add_child(node, "file", own->file, EDGE_FILTERED | EDGE_PRIMARY, err);
    if (!cor->file || !find_bottom(node, own->bottom, err))
        return false;
    if (co_node_get_info(edge_child(cor->file), &info) && info.cluster_size)
        copy.cluster_size = info.cluster_size;
    copy.source = cor->file;
    copy.target = cor->file;
    copy.length = node_length(edge_child(cor->file));
    cor->copy = block_copy_new(&copy);
    block_copy_set_in_place(cor->copy);
    return true;
}

static void CO_FN cor_co_close(struct node *node)
{
    struct cor_node *cor = node_state(node);

    block_copy_free(cor->copy);
}

static void cor_child_permissions(const struct node *node, const struct edge *edge, uint32_t perm, uint32_t shared,
                                  uint32_t *ret_perm, uint32_t *ret_shared)
{
    bool copies = perm && !node_read_only(node);

    *ret_perm = copies ? perm | PERM_CONSISTENT_READ | PERM_WRITE_UNCHANGED : perm;
    *ret_shared = copies ? shared & ~(uint32_t)PERM_WRITE : shared;
}

/* --- reading --- */

/* Whether the place is to be copied: it comes from a layer below the file's own image, and not from below the bottom.
 */
static int CO_FN co_is_below(const struct cor_node *cor, uint64_t offset, uint64_t bytes, uint64_t *ret_bytes)
{
    struct edge *backing = node_backing(skip_filters(edge_child(cor->file)));
    struct edge *below = cor->bottom ? node_backing(cor->bottom) : NULL;
    int ret;

    *ret_bytes = bytes;
    if (!backing)
        return 0;
    ret = co_edge_allocated_above(cor->file, edge_child(backing), offset, bytes, ret_bytes);
    if (ret)
        return ret < 0 ? ret : 0;
    return co_edge_allocated_above(cor->file, below ? edge_child(below) : NULL, offset, *ret_bytes, ret_bytes);
}

static int CO_FN co_keep(const struct cor_node *cor, uint64_t offset, uint64_t bytes)
{
    uint64_t length = block_copy_length(cor->copy);
    int ret = 0;

    bytes = offset < length ? MIN(bytes, length - offset) : 0;
    while (bytes && !ret) {
        uint64_t now;
        bool is_read;
        int below = co_is_below(cor, offset, bytes, &now);

        if (below < 0)
            return below;
        if (below) {
            block_copy_mark(cor->copy, offset, now);
            co_edge_event(cor->file, BLKDEBUG_EVENT_COR_WRITE);
            ret = co_block_copy(cor->copy, offset, now, true, &is_read);
        }
        offset += now;
        bytes -= now;
    }
    return ret;
}

static int CO_FN cor_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                               unsigned flags)
{
    const struct cor_node *cor = node_state(node);
    int ret = node_read_only(node) ? 0 : co_keep(cor, offset, bytes);

    return ret ? ret : co_edge_preadv(cor->file, offset, bytes, iov, flags);
}

/* --- changes --- */

static int CO_FN cor_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                unsigned flags)
{
    const struct cor_node *cor = node_state(node);
    struct block_copy_claim claim;
    int ret;

    co_block_copy_claim(cor->copy, &claim, offset, bytes);
    ret = co_edge_pwritev(cor->file, offset, bytes, iov, flags);
    block_copy_release(cor->copy, &claim, 0, 0, true);
    return ret;
}

static int CO_FN cor_co_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    const struct cor_node *cor = node_state(node);
    struct block_copy_claim claim;
    int ret;

    co_block_copy_claim(cor->copy, &claim, offset, bytes);
    ret = co_edge_pwrite_zeroes(cor->file, offset, bytes, flags);
    block_copy_release(cor->copy, &claim, 0, 0, true);
    return ret;
}

static int CO_FN cor_co_pdiscard(struct node *node, uint64_t offset, uint64_t bytes)
{
    const struct cor_node *cor = node_state(node);
    struct block_copy_claim claim;
    int ret;

    co_block_copy_claim(cor->copy, &claim, offset, bytes);
    ret = co_edge_pdiscard(cor->file, offset, bytes);
    block_copy_release(cor->copy, &claim, 0, 0, true);
    return ret;
}

static const char *const cor_significant_options[] = {"bottom", NULL};

const struct block_driver copy_on_read_driver = {
    .name = "copy-on-read",
    .kind = BLOCK_DRIVER_FILTER,
    .state_size = sizeof(struct cor_node),
    .passthrough = true,
    .co_open = cor_co_open,
    .co_close = cor_co_close,
    .co_preadv = cor_co_preadv,
    .co_pwritev = cor_co_pwritev,
    .co_pwrite_zeroes = cor_co_pwrite_zeroes,
    .co_pdiscard = cor_co_pdiscard,
    .child_permissions = cor_child_permissions,
    .significant_options = cor_significant_options,
};
