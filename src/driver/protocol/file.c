/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file driver: a regular file of the host. Its parts lie in file/, and the drivers for devices share them
 * (host-device.c).
 */
#include "driver/protocol/file.h"

#include <linux/fs.h>

#include "driver/protocol/file/file.h"

static bool CO_FN file_co_open_regular(struct node *node, const struct blockdev_options *options, struct error **err)
{
    return file_co_open(node, &options->u.file, false, err);
}

static struct image_info_specific *CO_FN file_co_get_specific_info(struct node *node)
{
    struct file_node *file = node_state(node);
    struct image_info_specific *info = g_new0(struct image_info_specific, 1);
    struct image_info_specific_file *data = g_new0(struct image_info_specific_file, 1);
    struct fsxattr attributes;

    if (co_file_ioctl(file->fd, FS_IOC_FSGETXATTR, &attributes) == 0 && attributes.fsx_xflags & FS_XFLAG_EXTSIZE) {
        data->has_extent_size_hint = true;
        data->extent_size_hint = attributes.fsx_extsize;
    }
    info->type = IMAGE_INFO_SPECIFIC_KIND_FILE;
    info->u.file.data = data;
    return info;
}

static struct block_stats_specific *file_get_specific_stats(struct node *node)
{
    struct file_node *file = node_state(node);
    struct block_stats_specific *stats = g_new0(struct block_stats_specific, 1);

    stats->driver = BLOCKDEV_DRIVER_FILE;
    stats->u.file = file_get_discard_stats(file);
    return stats;
}

const struct block_driver file_driver = {
    .name = "file",
    .kind = BLOCK_DRIVER_PROTOCOL,
    .state_size = sizeof(struct file_node),
    .co_open = file_co_open_regular,
    .co_close = file_co_close,
    .co_preadv = file_co_preadv,
    .co_pwritev = file_co_pwritev,
    .co_pwrite_zeroes = file_co_pwrite_zeroes,
    .co_copy_from = file_co_copy_from,
    .co_reserve = file_co_reserve,
    .co_pdiscard = file_co_pdiscard,
    .co_flush = file_co_flush,
    .co_flush_soon = file_co_flush_soon,
    .is_near = file_is_near,
    .co_block_status = file_co_block_status,
    .co_truncate = file_co_truncate,
    .co_length = file_co_length,
    .co_allocated_size = file_co_allocated_size,
    .co_refresh_limits = file_co_refresh_limits,
    .filename = file_filename,
    .significant_options = file_significant_options,
    .co_get_info = file_co_get_info,
    .co_get_specific_info = file_co_get_specific_info,
    .get_specific_stats = file_get_specific_stats,
    .image = &file_image,
    .permission = &file_permission,
    .reopen = &file_reopen,
};
