/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Room for clusters that are about to be taken: at the end of the file, where new ones lie. */
#include <errno.h>

#include "driver/format/qcow2/request.h"

/* At least this part of what the file has, so that one that grows for long has few and large runs on the disk. */
enum { GROWTH_DIVISOR = 8, GROWTH_BYTES_MAX = 16 << 20 };

/* What has to be reserved behind what has been already, for `bytes` of new clusters; how much, or 0. */
static uint64_t take_range(struct qcow2_image *image, uint64_t bytes, uint64_t *ret_from)
{
    uint64_t lacking = 0;

    spin_lock(&image->alloc_spin);
    *ret_from = MAX(image->reserved_to, image->fresh_from);
    if (*ret_from - image->fresh_from < bytes) {
        lacking = bytes - (*ret_from - image->fresh_from);
        lacking = MAX(lacking, MIN(image->fresh_from / GROWTH_DIVISOR, GROWTH_BYTES_MAX));
        image->reserved_to = *ret_from + lacking;
    }
    spin_unlock(&image->alloc_spin);
    return lacking;
}

int CO_FN co_qcow2_reserve(struct node *node, uint64_t offset, uint64_t bytes)
{
    struct qcow2_image *image = node_state(node);
    struct qcow2_extent extent;
    struct qcow2_hold hold;
    uint64_t from;
    int ret = co_qcow2_extent_get(image, offset, bytes, &extent, &hold);

    if (ret)
        return ret;
    qcow2_hold_end(&hold);
    if (extent.kind != QCOW2_EXTENT_UNALLOCATED)
        return -ENOTSUP;
    if (image->has_data_file)
        return co_edge_reserve(image->data, offset, bytes);
    bytes = take_range(image, bytes, &from);
    /* What is left over is for the clusters that come after. */
    ret = bytes ? co_edge_reserve(image->file, from, bytes) : 0;
    return ret < 0 ? ret : 0;
}
