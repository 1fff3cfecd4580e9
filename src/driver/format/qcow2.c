/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The driver's table; see docs/qcow2.md and the files in qcow2/. */
#include "driver/format/qcow2.h"

#include "block/driver.h"
#include "driver/format/qcow2/bitmap.h"
#include "driver/format/qcow2/image.h"
#include "driver/format/qcow2/info.h"
#include "driver/format/qcow2/reopen.h"
#include "driver/format/qcow2/request.h"
#include "driver/format/qcow2/vm-state.h"

static bool CO_FN qcow2_co_refresh_limits(struct node *node, struct node_limits *limits, struct error **err)
{
    const struct qcow2_image *image = node_state(node);

    /* Anything can be written where the file takes it; zeroes and discards in units that tables can tell. */
    limits->zeroes_alignment = MAX(limits->request_alignment, 1u << image->subcluster_bits);
    limits->discard_alignment = (uint32_t)image->cluster_size;
    limits->zeroes_max = 0;
    limits->discard_max = 0;
    if (image->crypt)
        limits->request_alignment = MAX(limits->request_alignment, 512);
    return true;
}

static bool CO_FN qcow2_co_get_info(struct node *node, struct node_info *ret, struct error **err)
{
    const struct qcow2_image *image = node_state(node);

    *ret = (struct node_info){
        .cluster_size = (uint32_t)image->cluster_size,
        .dirty = image->header->incompatible_features & QCOW2_DIRTY,
        .encrypted = image->header->crypt_method != QCOW2_CRYPT_NONE,
        .vm_state_offset = qcow2_vm_state_offset(image),
    };
    return true;
}

/* Encryption computes. */
static bool qcow2_is_near(const struct node *node)
{
    return !((const struct qcow2_image *)node_state(node))->crypt;
}

static const char *const qcow2_significant_options[] = {"data-file", NULL};

const struct block_driver qcow2_driver = {
    .name = "qcow2",
    .kind = BLOCK_DRIVER_FORMAT,
    .state_size = sizeof(struct qcow2_image),
    .co_open = co_qcow2_open,
    .co_close = co_qcow2_close,
    .co_preadv = co_qcow2_preadv,
    .co_pwritev = co_qcow2_pwritev,
    .co_pwrite_zeroes = co_qcow2_pwrite_zeroes,
    .co_reserve = co_qcow2_reserve,
    .co_pdiscard = co_qcow2_pdiscard,
    .co_flush_to_children = co_qcow2_flush_to_children,
    .is_near = qcow2_is_near,
    .co_block_status = co_qcow2_block_status,
    .co_truncate = co_qcow2_truncate,
    .co_refresh_limits = qcow2_co_refresh_limits,
    .significant_options = qcow2_significant_options,
    .co_get_info = qcow2_co_get_info,
    .co_get_specific_info = qcow2_co_get_specific_info,
    .image = &qcow2_image_slots,
    .bitmaps = &qcow2_bitmap_ops,
    .reopen = &qcow2_reopen,
};
