/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files as volumes: making, deleting and resizing them. Images are made by our own drivers, in this process. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <unistd.h>

#include "loop/file.h"
#include "loop/loop.h"
#include "pool/backend/files.h"
#include "pool/backend/image.h"
#include "pool/backend/new-file.h"
#include "pool/backend/wipe.h"
#include "pool/pool-error.h"
#include "pool/storage-internal.h"

enum { NAME_BYTES_MAX = 255 };

/* --- the place --- */

static bool check_name(const char *name, struct pool_error **err)
{
    if (strchr(name, '/'))
        return pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "volume name '%s' cannot contain '/'", name);
    if (strpbrk(name, "\t\n\r\x7f"))
        return pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "volume name '%s' cannot contain control characters",
                              name);
    if (new_file_has_such_name(name))
        return pool_error_set(err, POOL_ERROR_OPERATION_INVALID,
                              "volume name '%s' begins as those of files that are being made", name);
    if (strlen(name) > NAME_BYTES_MAX)
        return pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "volume name '%s' is longer than %d bytes", name,
                              NAME_BYTES_MAX);
    return true;
}

static bool CO_FN files_co_create(struct pool *pool, struct volume *volume, struct pool_error **err)
{
    if (!check_name(volume->name, err))
        return false;
    volume->target.path = g_build_filename(pool->def->target_path, volume->name, NULL);
    volume->key = g_strdup(volume->target.path);
    volume->type = VOLUME_FILE;
    if (volume->target.format == VOLUME_FORMAT_DIR)
        volume->type = VOLUME_DIR;
    else if (volume->target.format == VOLUME_FORMAT_PLOOP)
        volume->type = VOLUME_PLOOP;
    return true;
}

/* --- making --- */

static bool check_raw(const struct volume *volume, unsigned flags, struct pool_error **err)
{
    if (flags & VOLUME_CREATE_PREALLOC_METADATA)
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED,
                              "metadata preallocation is not supported for raw volumes");
    if (volume->backing)
        return pool_error_set(err, POOL_ERROR_NO_SUPPORT, "backing storage not supported for raw volumes");
    return true;
}

static bool is_image(const struct volume *volume)
{
    return (volume->target.format != VOLUME_FORMAT_RAW && volume->target.format != VOLUME_FORMAT_ISO) ||
           volume->target.encryption;
}

/* What is to be copied into the file; NULL: it is new. */
struct original {
    struct pool *pool;
    struct volume *volume;
};

/* The file under its passing name, whole but for what is copied; one that needs nothing more is in its place already.
 */
static int CO_FN co_make_content(struct pool *pool, struct volume *volume, const struct original *original,
                                 unsigned flags, struct pool_error **err)
{
    bool image = is_image(volume);
    struct new_file_options options = {.at_once = !image && !original, .stop = &pool->storage->closing};
    AUTO(fd) fd = -1;

    if (!(image ? co_image_check(pool, volume, flags, err) : check_raw(volume, flags, err)))
        return -1;
    if (!image) {
        options.length = volume->capacity;
        options.allocated = MIN(volume->allocation, volume->capacity);
    }
    fd = co_new_file_make(volume, &options, err);
    if (fd >= 0 && image && !co_image_make(pool, volume, flags, err))
        return -1;
    return TAKE_FD(fd);
}

static bool CO_FN co_build_file(struct pool *pool, struct volume *volume, const struct original *original,
                                unsigned flags, struct pool_error **err)
{
    AUTO(fd) fd = co_make_content(pool, volume, original, flags, err);
    bool ok = fd >= 0;

    if (ok && original)
        ok = co_image_copy(pool, volume, original->pool, original->volume, err);
    if (ok && volume->new_path)
        ok = co_new_file_place(volume, err);
    co_new_file_discard(volume);
    return ok;
}

static bool CO_FN co_build_folder(struct volume *volume, struct pool_error **err)
{
    const struct new_file_options options = {.folder = true};
    AUTO(fd) fd = -1;

    if (volume->backing)
        return pool_error_set(err, POOL_ERROR_NO_SUPPORT, "backing storage not supported for directories volumes");
    fd = co_new_file_make(volume, &options, err);
    return fd >= 0;
}

static bool CO_FN files_co_build(struct pool *pool, struct volume *volume, unsigned flags, struct pool_error **err)
{
    bool ok = volume->type == VOLUME_DIR ? co_build_folder(volume, err) : co_build_file(pool, volume, NULL, flags, err);

    /* Half a file is never in its place; and what somebody else has put there is not ours to remove. */
    volume->unmade = !ok;
    return ok;
}

/* --- from another volume --- */

/* FICLONE. */
static bool CO_FN co_clone_file(struct volume *volume, const struct volume *source, int to, struct pool_error **err)
{
    AUTO(fd) from = co_file_open(source->target.path, O_RDONLY, 0);
    int ret;

    if (from < 0)
        return pool_error_set_errno(err, from, "could not open input path '%s'", source->target.path);
    ret = co_file_ioctl(to, FICLONE, (void *)(uintptr_t)from);
    if (ret < 0)
        return pool_error_set_errno(err, ret, "failed to clone files from '%s'", source->target.path);
    ret = co_file_truncate(to, volume->capacity);
    if (!ret)
        ret = co_file_sync(to, false);
    return !ret || pool_error_set_errno(err, ret, "cannot extend file '%s'", volume->target.path);
}

static bool CO_FN co_reflink(struct volume *volume, const struct volume *source, struct pool_error **err)
{
    const struct new_file_options options = {0};
    AUTO(fd) fd = co_new_file_make(volume, &options, err);
    bool ok = fd >= 0 && co_clone_file(volume, source, fd, err) && co_new_file_place(volume, err);

    co_new_file_discard(volume);
    return ok;
}

static bool check_copy(const struct volume *volume, const struct volume *source, unsigned flags,
                       struct pool_error **err)
{
    if (volume->type == VOLUME_DIR || source->type == VOLUME_DIR)
        return pool_error_set(err, POOL_ERROR_INTERNAL, "cannot copy from or to the directory volume '%s'",
                              volume->type == VOLUME_DIR ? volume->name : source->name);
    if (volume->backing && source->backing && strcmp(volume->backing->path, source->backing->path) != 0)
        return pool_error_set(err, POOL_ERROR_INTERNAL, "a different backing store cannot be specified.");
    if (flags & VOLUME_CREATE_REFLINK && (is_image(volume) || is_image(source)))
        return pool_error_check_flags(err, flags, VOLUME_CREATE_PREALLOC_METADATA, "storageBackendCreateQemuImg");
    return true;
}

static bool CO_FN files_co_build_from(struct pool *pool, struct volume *volume, struct pool *source_pool,
                                      struct volume *source, unsigned flags, struct pool_error **err)
{
    const struct original original = {source_pool, source};
    bool ok = false;

    if (check_copy(volume, source, flags, err)) {
        /* What is copied has all that shows; nothing is below it any more. */
        volume_target_free(TAKE(volume->backing));
        ok = flags & VOLUME_CREATE_REFLINK ? co_reflink(volume, source, err)
                                           : co_build_file(pool, volume, &original, flags, err);
    }
    volume->unmade = !ok;
    return ok;
}

/* --- looking again --- */

void file_volume_take(struct volume *volume, struct volume *found, bool full)
{
    volume->capacity = found->capacity;
    volume->allocation = found->allocation;
    volume->physical = found->physical;
    volume->seen = found->seen;
    volume->target.timestamps = found->target.timestamps;
    permissions_copy(&volume->target.permissions, &found->target.permissions);
    if (!full)
        return;
    volume->type = found->type;
    volume->target.format = found->target.format;
    volume->target.cluster_size = found->target.cluster_size;
    volume->target.has_features = found->target.has_features;
    volume->target.features = found->target.features;
    g_free(volume->target.compat);
    volume->target.compat = TAKE(found->target.compat);
    volume_encryption_free(volume->target.encryption);
    volume->target.encryption = TAKE(found->target.encryption);
    volume_target_free(volume->backing);
    volume->backing = TAKE(found->backing);
}

struct look {
    struct volume *volume;
    bool full;
    int64_t now_us;
};

static int look_again(void *opaque)
{
    const struct look *look = opaque;

    return file_volume_probe(look->volume, look->full, look->now_us);
}

/* Looks on a thread of its own at a stand-in, whose findings the volume takes over afterwards. */
static int CO_FN co_probe(struct volume *volume, bool full)
{
    AUTO(volume) found = volume_new();
    struct look look = {found, full, loop_wall_time_us()};
    int ret;

    found->target.path = g_strdup(volume->target.path);
    found->target.format = volume->target.format;
    found->capacity = volume->capacity;
    ret = co_worker_run(look_again, &look);
    if (!ret)
        file_volume_take(volume, found, full);
    return ret;
}

static bool CO_FN files_co_refresh(struct pool *pool, struct volume *volume, struct pool_error **err)
{
    /* One that is marked as being made has just got its file, which has been looked at. */
    int ret = file_volume_is_as_seen(volume, volume->building) ? 0 : co_probe(volume, false);

    if (ret)
        return pool_error_set_errno(err, ret, "cannot open volume '%s'", volume->target.path);
    co_image_find_secret(pool, volume);
    return true;
}

/* --- deleting --- */

static int remove_file(void *opaque)
{
    return unlink(opaque) && errno != ENOENT ? -errno : 0;
}

static int remove_folder(void *opaque)
{
    return rmdir(opaque) && errno != ENOENT ? -errno : 0;
}

static bool CO_FN files_co_delete(struct pool *pool, struct volume *volume, unsigned flags, struct pool_error **err)
{
    int ret;

    if (!pool_error_check_flags(err, flags, 0, "virStorageBackendVolDeleteLocal"))
        return false;
    if (volume->type == VOLUME_PLOOP)
        return pool_error_set(err, POOL_ERROR_NO_SUPPORT, "removing ploop volume '%s' is not supported", volume->name);
    if (volume->type == VOLUME_DIR) {
        ret = co_worker_run(remove_folder, volume->target.path);
        return !ret || pool_error_set_errno(err, ret, "cannot remove directory '%s'", volume->target.path);
    }
    ret = co_worker_run(remove_file, volume->target.path);
    return !ret || pool_error_set_errno(err, ret, "cannot unlink file '%s'", volume->target.path);
}

/* --- resizing --- */

static bool CO_FN co_resize_raw(struct volume *volume, uint64_t capacity, bool allocate, struct pool_error **err)
{
    AUTO(fd) fd = co_file_open(volume->target.path, O_RDWR, 0);
    /* A LUKS header stands before the disk, and stays. */
    uint64_t header =
        volume->target.encryption && volume->physical > volume->capacity ? volume->physical - volume->capacity : 0;
    int ret;

    if (fd < 0)
        return pool_error_set_errno(err, fd, "Unable to open '%s'", volume->target.path);
    if (allocate) {
        ret = co_file_allocate(fd, 0, 0, capacity);
        if (ret == -EOPNOTSUPP || ret == -ENOSYS)
            return pool_error_set(err, POOL_ERROR_OPERATION_UNSUPPORTED,
                                  "preallocate is not supported on this platform");
        if (ret)
            return pool_error_set_errno(err, ret, "Failed to pre-allocate space for file '%s'", volume->target.path);
    }
    ret = co_file_truncate(fd, header + capacity);
    if (!ret)
        ret = co_file_sync(fd, false);
    return !ret || pool_error_set_errno(err, ret, "Failed to truncate file '%s'", volume->target.path);
}

static bool CO_FN files_co_resize(struct pool *pool, struct volume *volume, uint64_t capacity, unsigned flags,
                                  struct pool_error **err)
{
    bool allocate = flags & VOLUME_RESIZE_ALLOCATE;
    bool raw = volume->target.format == VOLUME_FORMAT_RAW;

    if (allocate && !raw)
        return pool_error_set(err, POOL_ERROR_OPERATION_UNSUPPORTED,
                              "preallocate is only supported for raw type volume");
    if (allocate && volume->target.encryption)
        return pool_error_set(err, POOL_ERROR_OPERATION_UNSUPPORTED,
                              "preallocate is only supported for an unencrypted raw volume");
    if (volume->type != VOLUME_FILE)
        return pool_error_set(err, POOL_ERROR_NO_SUPPORT, "volume '%s' is not a file, so it cannot be resized",
                              volume->name);
    return raw ? co_resize_raw(volume, capacity, allocate, err) : co_image_resize(pool, volume, capacity, err);
}

/* --- wiping --- */

static bool CO_FN files_co_wipe(struct pool *pool, struct volume *volume, enum volume_wipe_algorithm algorithm,
                                struct pool_error **err)
{
    int ret;

    if (volume->type == VOLUME_DIR || volume->type == VOLUME_PLOOP)
        return pool_error_set(err, POOL_ERROR_NO_SUPPORT, "volume '%s' is not a file, so it cannot be wiped",
                              volume->name);
    if (!co_wipe_path(volume->target.path, algorithm, &pool->storage->closing, err))
        return false;
    /* What it was, it is no longer. */
    ret = co_probe(volume, true);
    return !ret || pool_error_set_errno(err, ret, "cannot open volume '%s'", volume->target.path);
}

const struct pool_backend_volume files_volume_operations = {
    .co_create = files_co_create,
    .co_build = files_co_build,
    .co_build_from = files_co_build_from,
    .co_refresh = files_co_refresh,
    .co_delete = files_co_delete,
    .co_resize = files_co_resize,
    .co_wipe = files_co_wipe,
};
