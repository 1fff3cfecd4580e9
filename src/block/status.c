/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What lies where: one node's own answer, and that of a whole chain. */
#include "block/graph-internal.h"

#include <assert.h>
#include <errno.h>

#include "base/checked.h"

/* Holds the driver to its contract: an answer about at least a byte, and about no more than it was asked. */
static int check_answer(const struct node *node, uint64_t offset, uint64_t bytes, struct block_extent *ret)
{
    if (!ret->bytes || (ret->flags & BLOCK_OFFSET_VALID && !ret->host))
        return -EIO;
    ret->bytes = MIN(ret->bytes, bytes);
    if (offset + ret->bytes >= node_length(node))
        ret->flags |= BLOCK_EOF;
    else
        ret->flags &= ~(unsigned)BLOCK_EOF;
    return 0;
}

/* Asks about whole blocks, and cuts the answer to what was asked. */
static int CO_FN co_ask_driver(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                               struct block_extent *ret)
{
    uint64_t alignment = node->driver->passthrough ? 1 : node->limits.request_alignment;
    uint64_t start = align_down(offset, alignment);
    uint64_t lead = offset - start;
    int result =
        node->driver->co_block_status(node, start, align_up(offset + bytes, alignment) - start, want_zero, ret);

    if (result)
        return result;
    if (ret->bytes <= lead)
        return -EIO;
    ret->bytes -= lead;
    if (ret->flags & BLOCK_OFFSET_VALID)
        ret->host_offset += lead;
    return 0;
}

/* The node's data lies in a child as it is: zeroes there are zeroes here. */
static void CO_FN co_look_into_host(struct block_extent *extent)
{
    struct block_extent inner;
    uint64_t length = node_length(extent->host);

    extent->flags &= ~(unsigned)BLOCK_RECURSE;
    if (extent->host_offset >= length)
        return;
    /* A host that cannot tell leaves the answer as it was. */
    if (co_node_block_status(extent->host, extent->host_offset, MIN(extent->bytes, length - extent->host_offset), true,
                             &inner))
        return;
    if (inner.flags & BLOCK_ZERO) {
        extent->flags |= BLOCK_ZERO;
        extent->bytes = inner.bytes;
    } else if (inner.bytes < extent->bytes) {
        extent->bytes = inner.bytes;
    }
}

int CO_FN co_node_block_status(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                               struct block_extent *ret)
{
    uint64_t length = node_length(node);
    int result;

    assert(bytes);
    *ret = (struct block_extent){0};
    /* It may have become shorter since the caller looked, on another loop. */
    if (unlikely(offset >= length)) {
        *ret = (struct block_extent){.bytes = bytes, .flags = BLOCK_ZERO | BLOCK_EOF};
        return 0;
    }
    bytes = MIN(bytes, length - offset);
    if (node->driver->co_block_status) {
        result = co_ask_driver(node, offset, bytes, want_zero, ret);
        if (result)
            return result;
    } else if (node->driver->kind == BLOCK_DRIVER_FILTER) {
        if (unlikely(node->driver->debug != NULL)) {
            result = node->driver->debug->co_block_status(node, offset, bytes);
            if (result)
                return result;
        }
        result = co_node_block_status(node->primary->child, offset, bytes, want_zero, ret);
        ret->flags |= BLOCK_FILTERED;
        return result;
    } else {
        ret->flags = BLOCK_DATA | BLOCK_ALLOCATED;
        ret->bytes = bytes;
    }
    result = check_answer(node, offset, bytes, ret);
    if (!result && ret->flags & BLOCK_RECURSE && ret->flags & BLOCK_OFFSET_VALID && want_zero)
        co_look_into_host(ret);
    return result;
}

static bool is_transparent(const struct node *node)
{
    return node->driver->kind == BLOCK_DRIVER_FILTER && !node->driver->co_block_status;
}

static struct node *skip_filters(struct node *node)
{
    while (is_transparent(node))
        node = node->primary->child;
    return node;
}

/* The same on the way of a question, which those who watch may answer with an error. *ret_any: there was one. */
static int CO_FN co_pass_filters(struct node **node, uint64_t offset, uint64_t bytes, bool *ret_any)
{
    int ret = 0;

    for (; is_transparent(*node) && !ret; *node = (*node)->primary->child) {
        *ret_any = true;
        if (unlikely((*node)->driver->debug != NULL))
            ret = (*node)->driver->debug->co_block_status(*node, offset, bytes);
    }
    return ret;
}

int CO_FN co_chain_block_status(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                                struct block_extent *ret, int *ret_depth)
{
    uint64_t end = node_length(node);
    bool filtered = false;
    int depth = 0;
    int result;

    for (;;) {
        uint64_t length;

        result = co_pass_filters(&node, offset, bytes, &filtered);
        if (result)
            return result;
        length = node_length(node);
        if (offset >= length) {
            /* A backing image that is shorter than what stands on it. */
            *ret = (struct block_extent){.bytes = bytes, .flags = BLOCK_ZERO};
            break;
        }
        result = co_node_block_status(node, offset, MIN(bytes, length - offset), want_zero, ret);
        if (result)
            return result;
        bytes = ret->bytes;
        depth++;
        if (ret->flags & BLOCK_ALLOCATED) {
            if (ret_depth)
                *ret_depth = depth;
            break;
        }
        if (!node->backing) {
            ret->flags |= BLOCK_ZERO;
            break;
        }
        node = node->backing->child;
    }
    if (!(ret->flags & BLOCK_ALLOCATED) && ret_depth)
        *ret_depth = 0;
    if (filtered)
        ret->flags |= BLOCK_FILTERED;
    ret->flags = offset + ret->bytes >= end ? ret->flags | BLOCK_EOF : ret->flags & ~(unsigned)BLOCK_EOF;
    return 0;
}

int CO_FN co_edge_block_status(struct edge *edge, uint64_t offset, uint64_t bytes, bool want_zero,
                               struct block_extent *ret)
{
    uint64_t length = node_length(edge->child);

    if (offset >= length) {
        *ret = (struct block_extent){.bytes = bytes, .flags = BLOCK_ZERO | BLOCK_EOF};
        return 0;
    }
    return co_chain_block_status(edge->child, offset, MIN(bytes, length - offset), want_zero, ret, NULL);
}

int CO_FN co_edge_allocated_above(struct edge *edge, const struct node *base, uint64_t offset, uint64_t bytes,
                                  uint64_t *ret_bytes)
{
    const struct node *end = base ? skip_filters((struct node *)(uintptr_t)base) : NULL;
    struct node *node = edge->child;
    bool top = true, filtered;
    int result = co_pass_filters(&node, offset, bytes, &filtered);

    *ret_bytes = bytes;
    if (result)
        return result;
    while (node != end) {
        uint64_t length = node_length(node);
        struct block_extent extent;

        /* Beyond the end of a backing image there are zeroes, whatever lies below it. */
        if (offset >= length)
            return !top;
        result = co_node_block_status(node, offset, MIN(*ret_bytes, length - offset), false, &extent);
        if (result)
            return result;
        *ret_bytes = extent.bytes;
        if (extent.flags & BLOCK_ALLOCATED)
            return 1;
        if (!node->backing)
            return 0;
        node = node->backing->child;
        result = co_pass_filters(&node, offset, *ret_bytes, &filtered);
        if (result)
            return result;
        top = false;
    }
    return 0;
}
