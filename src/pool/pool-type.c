/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/pool-type.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

const char *const volume_format_names[] = {
    "none", "raw", "dir",   "bochs", "cloop", "dmg",   "iso", "vpc",  "vdi",
    "fat",  "vhd", "ploop", "cow",   "qcow",  "qcow2", "qed", "vmdk", NULL,
};

static const char *const partition_format_names[] = {
    "none", "linux", "fat16", "fat32", "linux-swap", "linux-lvm", "linux-raid", "extended", NULL,
};

static const char *const fs_formats[] = {
    "auto", "ext2", "ext3", "ext4", "ufs",   "iso9660", "udf", "gfs",
    "gfs2", "vfat", "hfs+", "xfs",  "ocfs2", "vmfs",    NULL,
};
static const char *const netfs_formats[] = {"auto", "nfs", "glusterfs", "cifs", NULL};
static const char *const logical_formats[] = {"unknown", "lvm2", NULL};
static const char *const disk_formats[] = {
    "unknown", "dos", "dvh", "gpt", "mac", "bsd", "pc98", "sun", "lvm2", NULL,
};

static const struct pool_type_info types[POOL_TYPE__MAX] = {
    [POOL_DIR] =
        {
            .name = "dir",
            .volume_formats = volume_format_names,
            .volume_format_default = VOLUME_FORMAT_RAW,
            .volume_features = true,
        },
    [POOL_FS] =
        {
            .name = "fs",
            .source_formats = fs_formats,
            .volume_formats = volume_format_names,
            .volume_format_default = VOLUME_FORMAT_RAW,
            .parts = POOL_SOURCE_DEVICE,
            .volume_features = true,
        },
    [POOL_NETFS] =
        {
            .name = "netfs",
            .source_formats = netfs_formats,
            .volume_formats = volume_format_names,
            .volume_format_default = VOLUME_FORMAT_RAW,
            .parts = POOL_SOURCE_HOST | POOL_SOURCE_DIR,
            .volume_features = true,
        },
    [POOL_LOGICAL] =
        {
            .name = "logical",
            .source_formats = logical_formats,
            .source_format_default = LOGICAL_LVM2,
            .parts = POOL_SOURCE_NAME | POOL_SOURCE_DEVICE,
            .target = POOL_TARGET_SOURCE,
            .target_prefix = "/dev/",
            .named_by_source = true,
        },
    [POOL_DISK] =
        {
            .name = "disk",
            .source_formats = disk_formats,
            .volume_formats = partition_format_names,
            .parts = POOL_SOURCE_DEVICE,
        },
    [POOL_ISCSI] = {.name = "iscsi", .parts = POOL_SOURCE_HOST | POOL_SOURCE_DEVICE | POOL_SOURCE_INITIATOR},
    [POOL_ISCSI_DIRECT] =
        {
            .name = "iscsi-direct",
            .parts = POOL_SOURCE_HOST | POOL_SOURCE_DEVICE | POOL_SOURCE_INITIATOR,
            .target = POOL_TARGET_NONE,
        },
    [POOL_SCSI] = {.name = "scsi", .parts = POOL_SOURCE_ADAPTER},
    [POOL_MPATH] = {.name = "mpath"},
    [POOL_RBD] =
        {
            .name = "rbd",
            .volume_formats = volume_format_names,
            .volume_format_default = VOLUME_FORMAT_RAW,
            .hides_volume_formats = true,
            .parts = POOL_SOURCE_HOST | POOL_SOURCE_NAME,
            .target = POOL_TARGET_NONE,
            .named_by_source = true,
            .volume_features = true,
        },
    [POOL_SHEEPDOG] =
        {
            .name = "sheepdog",
            .parts = POOL_SOURCE_HOST | POOL_SOURCE_NAME,
            .target = POOL_TARGET_NONE,
            .named_by_source = true,
        },
    [POOL_GLUSTER] =
        {
            .name = "gluster",
            .volume_formats = volume_format_names,
            .volume_format_default = VOLUME_FORMAT_RAW,
            .parts = POOL_SOURCE_HOST | POOL_SOURCE_DIR | POOL_SOURCE_NAME,
            .target = POOL_TARGET_NONE,
            .named_by_source = true,
            .volume_features = true,
        },
    [POOL_ZFS] =
        {
            .name = "zfs",
            .parts = POOL_SOURCE_NAME | POOL_SOURCE_DEVICE,
            .target = POOL_TARGET_SOURCE,
            .target_prefix = "/dev/zvol/",
            .named_by_source = true,
        },
    [POOL_VSTORAGE] =
        {
            .name = "vstorage",
            .volume_formats = volume_format_names,
            .volume_format_default = VOLUME_FORMAT_RAW,
            .parts = POOL_SOURCE_NAME,
            .named_by_source = true,
            .volume_features = true,
        },
};

const struct pool_type_info *pool_type_info(enum pool_type type)
{
    assert(type < POOL_TYPE__MAX);
    return &types[type];
}

int pool_type_value(const char *name)
{
    for (int i = 0; i < POOL_TYPE__MAX; i++) {
        if (!strcmp(types[i].name, name))
            return i;
    }
    return -1;
}

int format_value(const char *const *names, const char *name)
{
    for (int i = 0; names && names[i]; i++) {
        if (!strcmp(names[i], name))
            return i;
    }
    return -1;
}
