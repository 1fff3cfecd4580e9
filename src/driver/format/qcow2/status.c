/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What lies where, by the tables. */
#include "base/checked.h"
#include "driver/format/qcow2/request.h"

static void describe(const struct qcow2_image *image, const struct qcow2_extent *extent, struct block_extent *ret)
{
    switch (extent->kind) {
    case QCOW2_EXTENT_NORMAL:
        ret->flags = BLOCK_DATA | BLOCK_ALLOCATED;
        break;
    case QCOW2_EXTENT_ZERO:
        ret->flags = BLOCK_ZERO | BLOCK_ALLOCATED;
        break;
    case QCOW2_EXTENT_COMPRESSED:
        ret->flags = BLOCK_DATA | BLOCK_ALLOCATED | BLOCK_COMPRESSED;
        break;
    default:
        ret->flags = 0;
        break;
    }
    if (extent->has_host && extent->kind != QCOW2_EXTENT_UNALLOCATED && !image->crypt) {
        ret->flags |= BLOCK_OFFSET_VALID;
        ret->host = edge_child(image->data);
        ret->host_offset = extent->host;
        if (image->data_may_be_zero && extent->kind == QCOW2_EXTENT_NORMAL)
            ret->flags |= BLOCK_RECURSE;
    }
}

/* Whether `next`, which follows, is more of the same. */
static bool goes_on(const struct block_extent *extent, const struct block_extent *next)
{
    return extent->flags == next->flags && !(extent->flags & BLOCK_COMPRESSED) &&
           (!(extent->flags & BLOCK_OFFSET_VALID) || extent->host_offset + extent->bytes == next->host_offset);
}

int CO_FN co_qcow2_block_status(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                                struct block_extent *ret_extent)
{
    struct qcow2_image *image = node_state(node);
    uint64_t done = 0;

    while (done < bytes) {
        struct block_extent next = {0};
        struct qcow2_extent extent;
        struct qcow2_hold hold;
        int ret = co_qcow2_extent_get(image, offset + done, bytes - done, &extent, &hold);

        if (ret)
            return done ? 0 : ret;
        qcow2_hold_end(&hold);
        next.bytes = extent.bytes;
        describe(image, &extent, &next);
        if (!done)
            *ret_extent = next;
        else if (goes_on(ret_extent, &next))
            ret_extent->bytes += next.bytes;
        else
            break;
        done += extent.bytes;
    }
    return 0;
}
