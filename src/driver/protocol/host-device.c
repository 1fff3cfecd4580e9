/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The host_device and host_cdrom drivers: block and character devices of the host. They share all operations with the
 * file driver (file/); where a device differs, the operation looks at the kind.
 */
#include "base/error.h"
#include "driver/protocol/file.h"
#include "driver/protocol/file/file.h"

static bool CO_FN host_device_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    return file_co_open(node, &options->u.host_device, true, err);
}

static struct block_stats_specific *host_device_get_specific_stats(struct node *node)
{
    struct file_node *file = node_state(node);
    struct block_stats_specific *stats = g_new0(struct block_stats_specific, 1);

    stats->driver = BLOCKDEV_DRIVER_HOST_DEVICE;
    stats->u.host_device = file_get_discard_stats(file);
    return stats;
}

const struct block_driver host_device_driver = {
    .name = "host_device",
    .kind = BLOCK_DRIVER_PROTOCOL,
    .state_size = sizeof(struct file_node),
    .co_open = host_device_co_open,
    .co_close = file_co_close,
    .co_preadv = file_co_preadv,
    .co_pwritev = file_co_pwritev,
    .co_pwrite_zeroes = file_co_pwrite_zeroes,
    .co_copy_from = file_co_copy_from,
    .co_pdiscard = file_co_pdiscard,
    .co_flush = file_co_flush,
    .co_block_status = file_co_block_status,
    .co_truncate = file_co_truncate,
    .co_length = file_co_length,
    .co_allocated_size = file_co_allocated_size,
    .co_refresh_limits = file_co_refresh_limits,
    .filename = file_filename,
    .significant_options = file_significant_options,
    .co_get_info = file_co_get_info,
    .get_specific_stats = host_device_get_specific_stats,
    .permission = &file_permission,
    .reopen = &file_reopen,
};

static bool CO_FN host_cdrom_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    return file_co_open(node, &options->u.host_cdrom, true, err);
}

const struct block_driver host_cdrom_driver = {
    .name = "host_cdrom",
    .kind = BLOCK_DRIVER_PROTOCOL,
    .state_size = sizeof(struct file_node),
    .co_open = host_cdrom_co_open,
    .co_close = file_co_close,
    .co_preadv = file_co_preadv,
    .co_pwritev = file_co_pwritev,
    .co_pwrite_zeroes = file_co_pwrite_zeroes,
    .co_copy_from = file_co_copy_from,
    .co_pdiscard = file_co_pdiscard,
    .co_flush = file_co_flush,
    .co_block_status = file_co_block_status,
    .co_truncate = file_co_truncate,
    .co_length = file_co_length,
    .co_allocated_size = file_co_allocated_size,
    .co_refresh_limits = file_co_refresh_limits,
    .filename = file_filename,
    .significant_options = file_significant_options,
    .co_get_info = file_co_get_info,
    .permission = &file_permission,
    .reopen = &file_reopen,
};
