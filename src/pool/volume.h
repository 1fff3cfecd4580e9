/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Volumes: what their XML says, and what is known of those that a pool has. A volume is referenced by its pool and by
 * whoever works on it, so it may outlive its place in the pool. Main loop, unless one holds the only reference.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/compiler.h"
#include "pool/permissions.h"
#include "pool/pool-def.h"
#include "pool/storage.h"

struct pool_error;
struct stat;

enum volume_feature { VOLUME_LAZY_REFCOUNTS = 1u << 0, VOLUME_EXTENDED_L2 = 1u << 1 };

enum encryption_format {
    ENCRYPTION_DEFAULT,
    ENCRYPTION_QCOW,
    ENCRYPTION_LUKS,
    ENCRYPTION_LUKS2,
    ENCRYPTION_LUKS_ANY,
};

struct volume_encryption {
    enum encryption_format format;
    char *engine;                     /* NULL: not given */
    struct secret_reference *secrets; /* of type "passphrase" */
    size_t secret_count;
    char *cipher_name, *cipher_mode, *cipher_hash;
    unsigned cipher_size; /* bits */
    char *ivgen_name, *ivgen_hash;
};
void volume_encryption_free(struct volume_encryption *encryption); /* NULL is allowed */

struct volume_timestamps {
    bool known;
    struct timespec atime, mtime, ctime;
};

/* Where content lies, and how: of a volume, and of the image that it is based on. */
struct volume_target {
    char *path;
    int format; /* of the pool type's volume formats; of backing images: enum volume_format */
    struct permissions permissions;
    struct volume_timestamps timestamps;
    char *compat; /* "0.10", "1.1"; NULL: not known */
    bool nocow;
    uint64_t cluster_size; /* bytes, 0: not known */
    bool has_features;
    unsigned features; /* enum volume_feature */
    struct volume_encryption *encryption;
};

/* A part of a device that a volume lies on. */
struct volume_extent {
    char *device;
    uint64_t start, end; /* bytes, the end not included */
};

/* What a file was like when it was looked at: as long as it still is, all that was seen holds. */
struct file_look {
    bool near;    /* nothing but this host's own disks answers for it, so asking again does not wait */
    bool settled; /* it had been left alone for so long that a later change must show in its time of change */
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed;
};

struct volume {
    /* --- what XML shows --- */
    char *name;
    char *key;
    enum volume_type type;
    uint64_t capacity, allocation, physical; /* bytes */
    bool has_capacity, has_allocation;       /* given in the XML that it was made of */
    struct volume_target target;
    struct volume_target *backing; /* NULL: none */
    struct volume_extent *extents;
    size_t extent_count;

    /* --- of its backend, which alone knows what they mean --- */
    bool sparse;
    enum partition_kind { PARTITION_PRIMARY, PARTITION_LOGICAL, PARTITION_IS_EXTENDED } partition_kind;
    unsigned partition_number;
    struct file_look seen;
    struct file_look scanned; /* as a scan of the directory saw it; not `near`: none has */

    /* --- at work --- */
    unsigned in_use; /* jobs that read or write it */
    bool building;   /* it is being allocated */
    bool unmade;     /* its making failed before there was anything of it */
    char *new_path;  /* where it is being made; NULL: in its place */
    unsigned references;
    size_t place; /* in its pool's list */
};

/* Nothing is known of it yet; one reference. */
struct volume *volume_new(void);
struct volume *volume_ref(struct volume *volume);
void volume_unref(struct volume *volume); /* NULL is allowed */
AUTO_DEFINE(volume, struct volume *, volume_unref)

/* An empty target; freed with its strings. */
struct volume_target *volume_target_new(void);
void volume_target_clear(struct volume_target *target);
void volume_target_free(struct volume_target *target); /* NULL is allowed */

/* Adds a part of a device to its extents; `device` is copied. */
void volume_add_extent(struct volume *volume, const char *device, uint64_t start, uint64_t end);

/*
 * Of a document whose root is <volume>, for a pool of that type. `capacity_optional`: it need not be there, and is 0
 * then (see has_capacity). NULL: *err.
 */
struct volume *volume_parse(const char *xml, enum pool_type type, bool capacity_optional,
                            struct pool_error **err) MUST_CHECK;
char *volume_format_xml(const struct volume *volume, enum pool_type type); /* owned */

/* Size, times and owner as `status` has them: of a regular file or directory; of a device only the times and owner. */
void volume_target_from_stat(struct volume_target *target, const struct stat *status);
