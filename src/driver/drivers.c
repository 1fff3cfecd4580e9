/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every block driver that this build has, in the order in which lists show them. */
#include <stddef.h>

#include "block/driver.h"
#include "driver/filter/blkdebug.h"
#include "driver/filter/blklogwrites.h"
#include "driver/filter/blkverify.h"
#include "driver/filter/compress.h"
#include "driver/filter/copy-before-write.h"
#include "driver/filter/copy-on-read.h"
#include "driver/filter/preallocate.h"
#include "driver/filter/quorum.h"
#include "driver/filter/replication.h"
#include "driver/filter/snapshot-access.h"
#include "driver/filter/throttle.h"
#include "driver/format/luks.h"
#include "driver/format/qcow2.h"
#include "driver/format/raw.h"
#include "driver/protocol/file.h"
#include "driver/protocol/nbd.h"
#include "driver/protocol/null.h"
#include "driver/protocol/virtio-blk.h"

const struct block_driver *const block_drivers[] = {
    &blkdebug_driver,
    &blklogwrites_driver,
    &blkverify_driver,
    &compress_driver,
    &copy_before_write_driver,
    &copy_on_read_driver,
    &file_driver,
    &host_cdrom_driver,
    &host_device_driver,
    &luks_driver,
    &nbd_driver,
    &null_aio_driver,
    &null_co_driver,
    &preallocate_driver,
    &qcow2_driver,
    &quorum_driver,
    &raw_driver,
    &replication_driver,
    &snapshot_access_driver,
    &throttle_filter_driver,
    &virtio_blk_vhost_user_driver,
    &virtio_blk_vhost_vdpa_driver,
    NULL,
};
