/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The types of pools and what each has: the words of its formats, and which parts of a source it uses. Any thread. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct xml_writer;

/* In libvirt's order: the filter of lists counts on it. */
enum pool_type {
    POOL_DIR,
    POOL_FS,
    POOL_NETFS,
    POOL_LOGICAL,
    POOL_DISK,
    POOL_ISCSI,
    POOL_ISCSI_DIRECT,
    POOL_SCSI,
    POOL_MPATH,
    POOL_RBD,
    POOL_SHEEPDOG,
    POOL_GLUSTER,
    POOL_ZFS,
    POOL_VSTORAGE,
    POOL_TYPE__MAX,
};

enum pool_source_part {
    POOL_SOURCE_HOST = 1u << 0,
    POOL_SOURCE_DEVICE = 1u << 1,
    POOL_SOURCE_DIR = 1u << 2,
    POOL_SOURCE_ADAPTER = 1u << 3,
    POOL_SOURCE_NAME = 1u << 4,
    POOL_SOURCE_INITIATOR = 1u << 5,
};

/* How a volume's content is laid out in a file. */
enum volume_format {
    VOLUME_FORMAT_NONE,
    VOLUME_FORMAT_RAW,
    VOLUME_FORMAT_DIR,
    VOLUME_FORMAT_BOCHS,
    VOLUME_FORMAT_CLOOP,
    VOLUME_FORMAT_DMG,
    VOLUME_FORMAT_ISO,
    VOLUME_FORMAT_VPC,
    VOLUME_FORMAT_VDI,
    VOLUME_FORMAT_FAT,
    VOLUME_FORMAT_VHD,
    VOLUME_FORMAT_PLOOP,
    VOLUME_FORMAT_COW,
    VOLUME_FORMAT_QCOW,
    VOLUME_FORMAT_QCOW2,
    VOLUME_FORMAT_QED,
    VOLUME_FORMAT_VMDK,
    VOLUME_FORMAT__MAX,
};

/* What a partition of a disk pool is to hold. */
enum partition_format {
    PARTITION_NONE,
    PARTITION_LINUX,
    PARTITION_FAT16,
    PARTITION_FAT32,
    PARTITION_LINUX_SWAP,
    PARTITION_LINUX_LVM,
    PARTITION_LINUX_RAID,
    PARTITION_EXTENDED,
};

/* Source formats, numbered by their place in the list of the type. */
enum fs_format {
    FS_AUTO,
    FS_EXT2,
    FS_EXT3,
    FS_EXT4,
    FS_UFS,
    FS_ISO9660,
    FS_UDF,
    FS_GFS,
    FS_GFS2,
    FS_VFAT,
    FS_HFSPLUS,
    FS_XFS,
    FS_OCFS2,
    FS_VMFS
};
enum netfs_format { NETFS_AUTO, NETFS_NFS, NETFS_GLUSTERFS, NETFS_CIFS };
enum logical_format { LOGICAL_UNKNOWN, LOGICAL_LVM2 };
enum disk_format { DISK_UNKNOWN, DISK_DOS, DISK_DVH, DISK_GPT, DISK_MAC, DISK_BSD, DISK_PC98, DISK_SUN, DISK_LVM2 };

enum pool_target {
    POOL_TARGET_GIVEN,  /* a path that the XML must have */
    POOL_TARGET_SOURCE, /* `target_prefix` and the source's name, whatever the XML says */
    POOL_TARGET_NONE,
};

struct pool_type_info {
    const char *name;
    const char *const *source_formats; /* ended by NULL; NULL: the type has none */
    int source_format_default;
    const char *const *volume_formats; /* by number; NULL: volumes have no format */
    int volume_format_default;
    bool hides_volume_formats; /* in pool capabilities */
    unsigned parts;            /* enum pool_source_part */
    enum pool_target target;
    const char *target_prefix;
    bool named_by_source; /* name and source name stand in for each other */
    bool volume_features; /* volumes are files, so they can have a compatibility level, features and encryption */
};

const struct pool_type_info *pool_type_info(enum pool_type type);

/* -1: there is none of that name. */
int pool_type_value(const char *name);
int format_value(const char *const *names, const char *name);

extern const char *const volume_format_names[];
