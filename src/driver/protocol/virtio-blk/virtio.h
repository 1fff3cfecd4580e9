/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The numbers of virtio block devices (virtio 1.2, section 5.2), for both sides. All in little-endian. */
#pragma once

#include <stdint.h>

enum {
    VIRTIO_BLK_SECTOR_BYTES = 512,
    VIRTIO_BLK_CONFIG_BYTES = 60,
    VIRTIO_BLK_ID_BYTES = 20,
    VIRTIO_BLK_QUEUES_MAX = 1024,
    VIRTIO_QUEUE_SIZE_MAX = 32768,
};

/* Where the fields of the configuration lie. */
enum virtio_blk_config_field {
    VIRTIO_BLK_CONFIG_CAPACITY = 0, /* 64 bits; sectors */
    VIRTIO_BLK_CONFIG_SEG_MAX = 12,
    VIRTIO_BLK_CONFIG_BLK_SIZE = 20,
    VIRTIO_BLK_CONFIG_WRITEBACK = 32, /* a byte, the only one that a driver may write */
    VIRTIO_BLK_CONFIG_QUEUES = 34,    /* 16 bits */
    VIRTIO_BLK_CONFIG_DISCARD_SECTORS = 36,
    VIRTIO_BLK_CONFIG_DISCARD_SEGMENTS = 40,
    VIRTIO_BLK_CONFIG_DISCARD_ALIGNMENT = 44,
    VIRTIO_BLK_CONFIG_ZEROES_SECTORS = 48,
    VIRTIO_BLK_CONFIG_ZEROES_SEGMENTS = 52,
    VIRTIO_BLK_CONFIG_ZEROES_UNMAP = 56, /* a byte */
};

/* Bits of the device's features, and those of every virtio device that matter here. */
enum virtio_feature {
    VIRTIO_BLK_F_SEG_MAX = 2,
    VIRTIO_BLK_F_RO = 5,
    VIRTIO_BLK_F_BLK_SIZE = 6,
    VIRTIO_BLK_F_FLUSH = 9,
    VIRTIO_BLK_F_TOPOLOGY = 10,
    VIRTIO_BLK_F_CONFIG_WCE = 11,
    VIRTIO_BLK_F_MQ = 12,
    VIRTIO_BLK_F_DISCARD = 13,
    VIRTIO_BLK_F_WRITE_ZEROES = 14,
    VIRTIO_F_INDIRECT_DESC = 28,
    VIRTIO_F_EVENT_IDX = 29,
    VIRTIO_F_VERSION_1 = 32,
    VIRTIO_F_ACCESS_PLATFORM = 33,
    VIRTIO_F_RING_PACKED = 34,
    VIRTIO_F_IN_ORDER = 35,
};
#define VIRTIO_FEATURE(bit) (UINT64_C(1) << (bit))

/* How far a driver has come with a device. */
enum virtio_status {
    VIRTIO_STATUS_ACKNOWLEDGE = 1,
    VIRTIO_STATUS_DRIVER = 2,
    VIRTIO_STATUS_DRIVER_OK = 4,
    VIRTIO_STATUS_FEATURES_OK = 8,
};

/* A request: 32 bits of type, as many reserved, 64 of sector; data; a byte of status. */
enum { VIRTIO_BLK_HEADER_BYTES = 16, VIRTIO_BLK_HEADER_SECTOR = 8 };

enum virtio_blk_request {
    VIRTIO_BLK_IN = 0,
    VIRTIO_BLK_OUT = 1,
    VIRTIO_BLK_FLUSH = 4,
    VIRTIO_BLK_GET_ID = 8,
    VIRTIO_BLK_DISCARD = 11,
    VIRTIO_BLK_WRITE_ZEROES = 13,
};

enum virtio_blk_status { VIRTIO_BLK_OK = 0, VIRTIO_BLK_IOERR = 1, VIRTIO_BLK_UNSUPP = 2 };

/* The data of a discard or zero write: 64 bits of sector, 32 of count, 32 of flags, for each range. */
enum {
    VIRTIO_BLK_RANGE_BYTES = 16,
    VIRTIO_BLK_RANGE_COUNT = 8,
    VIRTIO_BLK_RANGE_FLAGS = 12,
    VIRTIO_BLK_RANGE_UNMAP = 1,
};
