/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a type of pool does: a const table a type, listed in backend/backends.c. NULL slots: the type has no such thing,
 * and the answer is libvirt's for that (stated at the slot).
 *
 * Everything runs on the main loop, in the coroutine of the client who asked. The pool's lock is held by the caller
 * unless said otherwise, and nothing else happens to the pool until the slot returns; `pool->def` may be read. What
 * blocks (directories, ioctls, libraries) runs by co_worker_run() of loop/loop.h, on copies or on what nobody else
 * uses; files by loop/file.h; other programs by backend/command.h. Before looking for new device nodes call
 * co_command_settle() there. Returned false: *err says why.
 *
 * How a backend reports its volumes: co_refresh() fills in a struct pool_scan with new volumes and the pool's numbers.
 * Only if it succeeds do they take the place of what the pool had; if it fails, the pool is stopped.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "pool/pool-def.h"
#include "pool/pool.h"
#include "pool/volume.h"

struct pool_error;
struct storage;
struct volume_job;

/* What a refresh found. */
struct pool_scan {
    GPtrArray *volumes;                       /* of struct volume, one reference each; scan_add() */
    uint64_t capacity, allocation, available; /* bytes */
    bool has_permissions;                     /* of the pool's target; the struct is taken */
    struct permissions permissions;
    struct pool_extent *free_extents; /* of the pool's only device (disk); taken */
    size_t free_extent_count;
};
void pool_scan_init(struct pool_scan *scan);
void pool_scan_done(struct pool_scan *scan);
/* Takes `volume`, which has name, key, path and type. */
void pool_scan_add(struct pool_scan *scan, struct volume *volume);

enum pool_build_flags { POOL_BUILD_NO_OVERWRITE = 4, POOL_BUILD_OVERWRITE = 8 };
enum volume_create_flags { VOLUME_CREATE_PREALLOC_METADATA = 1, VOLUME_CREATE_REFLINK = 2, VOLUME_CREATE_VALIDATE = 4 };
enum volume_delete_flags { VOLUME_DELETE_ZEROED = 1, VOLUME_DELETE_WITH_SNAPSHOTS = 2 };
enum volume_resize_flags { VOLUME_RESIZE_ALLOCATE = 1, VOLUME_RESIZE_DELTA = 2, VOLUME_RESIZE_SHRINK = 4 };
enum volume_wipe_algorithm {
    VOLUME_WIPE_ZERO,
    VOLUME_WIPE_NNSA,
    VOLUME_WIPE_DOD,
    VOLUME_WIPE_BSI,
    VOLUME_WIPE_GUTMANN,
    VOLUME_WIPE_SCHNEIER,
    VOLUME_WIPE_PFITZNER7,
    VOLUME_WIPE_PFITZNER33,
    VOLUME_WIPE_RANDOM,
    VOLUME_WIPE_TRIM,
    VOLUME_WIPE__MAX,
};

enum pool_backend_flags {
    BACKEND_FILES = 1u << 0,         /* volumes are files in the target: deleting, resizing etc. as for dir */
    BACKEND_STABLE_PATHS = 1u << 1,  /* look-ups by path first go by the links in the target directory */
    BACKEND_EXACT_PATHS = 1u << 2,   /* look-ups by path compare the text as given, without squeezing slashes */
    BACKEND_COUNTS_ITSELF = 1u << 3, /* creating and deleting volumes refreshes the pool's numbers by itself */
    BACKEND_NO_CAPACITY = 1u << 4,   /* a volume with a backing store may be created without a capacity */
    BACKEND_TRANSFERS = 1u << 5,     /* volumes can be uploaded and downloaded by their path */
};

/* Operations on volumes. */
struct pool_backend_volume {
    /*
     * Checks `volume`, which came from XML, and fills in type, key and path; for devices it makes them already. Then
     * the volume is listed. NULL: "storage pool does not support volume creation".
     */
    bool (*co_create)(struct pool *pool, struct volume *volume, struct pool_error **err);

    /*
     * Makes the content, without the pool's lock: the volume is marked as being built, and what it points to stays.
     * `flags`: enum volume_create_flags. On failure co_delete() is called, unless the volume is marked as unmade.
     * NULL: nothing to do.
     */
    bool (*co_build)(struct pool *pool, struct volume *volume, unsigned flags, struct pool_error **err);

    /* The same from the content of `source` of pool `source_pool` (maybe the same one), which is marked as in use.
     * NULL: "storage pool does not support volume creation from an existing volume". */
    bool (*co_build_from)(struct pool *pool, struct volume *volume, struct pool *source_pool, struct volume *source,
                          unsigned flags, struct pool_error **err);

    /* Reads sizes, owner and times anew, into `volume`; no lock. NULL: what is known is good. */
    bool (*co_refresh)(struct pool *pool, struct volume *volume, struct pool_error **err);

    /* Also called for volumes whose making has failed. NULL: "storage pool does not support vol deletion". */
    bool (*co_delete)(struct pool *pool, struct volume *volume, unsigned flags, struct pool_error **err);

    /* To `capacity` bytes. No lock; the volume is marked as in use. `flags` has only ALLOCATE and SHRINK, and was
     * checked against the capacity and what is available. The caller changes the numbers. NULL: "storage pool does not
     * support changing of volume capacity". */
    bool (*co_resize)(struct pool *pool, struct volume *volume, uint64_t capacity, unsigned flags,
                      struct pool_error **err);

    /* No lock; the volume is marked as in use. NULL: "storage pool doesn't support volume wiping". */
    bool (*co_wipe)(struct pool *pool, struct volume *volume, enum volume_wipe_algorithm algorithm,
                    struct pool_error **err);
};

struct pool_backend {
    enum pool_type type;
    unsigned flags; /* enum pool_backend_flags */

    /* Whether the pool is there and running already. NULL: it is as it was recorded before the
     * daemon started. */
    bool (*co_check)(struct pool *pool, bool *ret_active, struct pool_error **err);

    /* Makes it usable, and not usable. NULL: nothing to do. While co_start() and co_build() run, others see the pool as
     * starting. */
    bool (*co_start)(struct pool *pool, struct pool_error **err);
    bool (*co_stop)(struct pool *pool, struct pool_error **err);

    /* `flags` as the client gave them. NULL: succeeds, and does nothing. */
    bool (*co_build)(struct pool *pool, unsigned flags, struct pool_error **err);
    /* NULL: "pool does not support pool deletion". */
    bool (*co_delete)(struct pool *pool, unsigned flags, struct pool_error **err);

    bool (*co_refresh)(struct pool *pool, struct pool_scan *scan, struct pool_error **err); /* required */

    /*
     * Appends what is found to `sources` (struct pool_source, which its array's owner clears and frees): `source` NULL:
     * nothing was given. No pool, no lock. NULL: "pool type 'T' does not support source discovery".
     */
    bool (*co_find_sources)(struct storage *storage, const struct pool_source *source, GPtrArray *sources,
                            struct pool_error **err);

    const struct pool_backend_volume *volume; /* required; may be empty */
};

/* All that this build has, in the order in which capabilities list them; ended by NULL. */
extern const struct pool_backend *const pool_backends[];

/* NULL: this build has none for that type. */
const struct pool_backend *pool_backend_find(enum pool_type type);

/* Adds an empty source to `sources` of co_find_sources(), to be filled in: borrowed. */
struct pool_source *pool_sources_add(GPtrArray *sources, enum pool_type type);

/*
 * For backends whose volumes are devices with nodes (logical, disk, iscsi, scsi, mpath):
 */

/* Whether anything is at `path`, which is used without being copied. */
bool CO_FN co_device_exists(const char *path);
/* Capacity, allocation and physical size of the device, permissions and times of its node. */
bool CO_FN co_device_volume_refresh(struct pool *pool, struct volume *volume, struct pool_error **err);
/* Overwrites the whole device. */
bool CO_FN co_device_volume_wipe(struct pool *pool, struct volume *volume, enum volume_wipe_algorithm algorithm,
                                 struct pool_error **err);
/* Copies `source` (a raw file or a device) to the device of `volume`, and sets owner and mode; with encryption it makes
 * a LUKS header first. Without `source` (NULL) only that. */
bool CO_FN co_device_volume_build(struct pool *pool, struct volume *volume, struct pool *source_pool,
                                  struct volume *source, unsigned flags, struct pool_error **err);
/* The link in the pool's target directory that leads to `node`, else `node` itself; where the target is /dev or not
 * below /dev, always `node`. Owned. Waits up to `wait_ms` for it to appear; *ret_found false: no link (NULL allowed).
 */
char *CO_FN co_device_stable_path(struct pool *pool, const char *node, unsigned wait_ms, bool *ret_found);

/* What libblkid sees on the device, for building and starting. See backend/probe-device.h. */
