/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How large an image would be: the layout of a full one, less the clusters that would not be written. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "block/dirty-bitmap.h"
#include "block/handle.h"
#include "block/node.h"
#include "driver/format/qcow2/create.h"
#include "driver/format/qcow2/crypt.h"
#include "driver/format/qcow2/header.h"
#include "driver/format/qcow2/layout.h"

enum { SECTOR = 512, BITMAP_DIRECTORY_ENTRY_BYTES = 24, BITMAP_DIRECTORY_ALIGNMENT = 8 };

/* Bytes of the clusters of the new image that have data of the source. */
static int CO_FN co_count_data(struct handle *source, uint64_t cluster_size, uint64_t *ret)
{
    uint64_t length = handle_length(source);
    uint64_t counted_end = 0; /* clusters before it are in `count` */
    uint64_t count = 0;

    for (uint64_t at = 0; at < length;) {
        struct block_extent extent;
        int result = co_handle_block_status(source, at, length - at, &extent);

        if (result)
            return result;
        if (!(extent.flags & BLOCK_ZERO) && extent.flags & (BLOCK_DATA | BLOCK_ALLOCATED)) {
            uint64_t first = MAX(align_down(at, cluster_size), counted_end);
            uint64_t end = align_up(at + extent.bytes, cluster_size);

            count += end > first ? end - first : 0;
            counted_end = MAX(counted_end, end);
        }
        at += extent.bytes;
    }
    *ret = count;
    return 0;
}

/* What the persistent bitmaps of the source would take in the new image. */
static uint64_t measure_bitmaps(const struct node *node, uint64_t cluster_size)
{
    uint64_t directory = 0;
    uint64_t clusters = 0;

    for (struct dirty_bitmap *bitmap = NULL; (bitmap = dirty_bitmap_next(node, bitmap));) {
        uint64_t bits_covered = (uint64_t)dirty_bitmap_granularity(bitmap) * 8;
        uint64_t bytes, data;

        if (!dirty_bitmap_persistent(bitmap))
            continue;
        bytes = (dirty_bitmap_length(bitmap) + bits_covered - 1) / bits_covered;
        data = (bytes + cluster_size - 1) / cluster_size;
        clusters += data + (data * 8 + cluster_size - 1) / cluster_size;
        directory +=
            align_up(BITMAP_DIRECTORY_ENTRY_BYTES + strlen(dirty_bitmap_name(bitmap)), BITMAP_DIRECTORY_ALIGNMENT);
    }
    return clusters * cluster_size + align_up(directory, cluster_size);
}

/* Whether a node's driver stores bitmaps. */
static bool keeps_bitmaps(const struct node *node)
{
    return !strcmp(node_driver_name(node), "qcow2");
}

static bool measure_layout(const struct blockdev_create_options_qcow2 *options,
                           const struct qcow2_create_request *request, uint64_t size, struct qcow2_layout *ret,
                           struct error **err)
{
    struct qcow2_crypt_plan crypt;
    struct qcow2_layout_request wanted = {
        .size = size,
        .cluster_bits = request->cluster_bits,
        .refcount_order = request->refcount_order,
        .subclusters = request->subclusters,
        .tables = true,
        .data_bytes = size,
    };

    if (!qcow2_crypt_plan(options->encrypt, &crypt, err))
        return false;
    wanted.crypto_bytes = crypt.header_bytes;
    if (!qcow2_layout_make(&wanted, ret, NULL))
        return error_set(err, "The image size is too large (try using a larger cluster size): %" PRIu64 " bytes", size);
    return true;
}

struct block_measure_info *CO_FN qcow2_co_measure(const struct blockdev_create_options *all, struct handle *source,
                                                  uint64_t size, struct error **err)
{
    struct blockdev_create_options_qcow2 options = all->u.qcow2;
    struct qcow2_create_request request;
    struct qcow2_layout layout;
    struct block_measure_info *info;
    uint64_t cluster_size;
    uint64_t data = 0;

    size = source ? handle_length(source) : size;
    options.size = 0;
    if (!qcow2_create_request_check(&options, &request, err))
        return NULL;
    if (size > NODE_LENGTH_MAX) {
        error_set(err, "The image size is too large (try using a larger cluster size): %" PRIu64 " bytes", size);
        return NULL;
    }
    size = align_up(size, SECTOR);
    if (!measure_layout(&options, &request, size, &layout, err))
        return NULL;
    cluster_size = UINT64_C(1) << request.cluster_bits;
    if (source && !options.backing_file) {
        int ret = co_count_data(source, cluster_size, &data);

        if (ret) {
            error_set_errno(err, ret, "Unable to get block status");
            return NULL;
        }
    } else if (source) {
        /* What the backing image has already, nobody knows here. */
        data = align_up(size, cluster_size);
    }
    if (request.preallocation == PREALLOC_MODE_FULL || request.preallocation == PREALLOC_MODE_FALLOC)
        data = align_up(size, cluster_size);

    info = g_new0(struct block_measure_info, 1);
    info->fully_allocated = (int64_t)(layout.clusters * cluster_size);
    info->required = info->fully_allocated - (int64_t)(layout.data_clusters * cluster_size) + (int64_t)data;
    info->has_bitmaps = request.version >= 3 && source && keeps_bitmaps(handle_node(source));
    if (info->has_bitmaps)
        info->bitmaps = (int64_t)measure_bitmaps(handle_node(source), cluster_size);
    return info;
}
