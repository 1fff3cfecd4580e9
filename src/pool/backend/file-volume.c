/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files as volumes: making, deleting and resizing them. Images are made by our own drivers, in this process. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "pool/backend/files.h"
#include "pool/backend/image.h"
#include "pool/backend/wipe.h"
#include "pool/pool-error.h"
#include "pool/storage-internal.h"
#include "pool/xml/document.h"

enum { FILE_MODE = 0600, FOLDER_MODE = 0711, ZEROES_BYTES = 1024 * 1024, KIB = 1024, NAME_BYTES_MAX = 255 };

/* --- the place --- */

static bool check_name(const char *name, struct pool_error **err)
{
    if (strchr(name, '/'))
        return pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "volume name '%s' cannot contain '/'", name);
    if (strpbrk(name, "\t\n\r\x7f"))
        return pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "volume name '%s' cannot contain control characters",
                              name);
    if (strlen(name) > NAME_BYTES_MAX)
        return pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "volume name '%s' is longer than %d bytes", name,
                              NAME_BYTES_MAX);
    return true;
}

static int is_there(void *opaque)
{
    struct stat status;

    return !lstat(opaque, &status);
}

static bool CO_FN files_co_create(struct pool *pool, struct volume *volume, struct pool_error **err)
{
    if (!check_name(volume->name, err))
        return false;
    volume->target.path = g_build_filename(pool->def->target_path, volume->name, NULL);
    if (co_worker_run(is_there, volume->target.path))
        return pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "volume target path '%s' already exists",
                              volume->target.path);
    volume->key = g_strdup(volume->target.path);
    volume->type = VOLUME_FILE;
    if (volume->target.format == VOLUME_FORMAT_DIR)
        volume->type = VOLUME_DIR;
    else if (volume->target.format == VOLUME_FORMAT_PLOOP)
        volume->type = VOLUME_PLOOP;
    return true;
}

/* --- an empty file --- */

struct new_file {
    const struct volume *volume;
    bool as_owner; /* where root may not write, the owner may */
    const char *failed;
};

static int take_ownership(int fd, const struct permissions *permissions)
{
    uid_t owner = permissions->owner >= 0 ? (uid_t)permissions->owner : (uid_t)-1;
    gid_t group = permissions->group >= 0 ? (gid_t)permissions->group : (gid_t)-1;

    return (permissions->owner >= 0 || permissions->group >= 0) && fchown(fd, owner, group) ? -errno : 0;
}

static void set_no_cow(int fd)
{
    int flags = 0;

    if (!ioctl(fd, FS_IOC_GETFLAGS, &flags)) {
        flags |= FS_NOCOW_FL;
        (void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
    }
}

/* The descriptor, or -errno. The mode is set apart from making it, past the process's mask. */
static int make_file(void *opaque)
{
    struct new_file *file = opaque;
    const struct volume_target *target = &file->volume->target;
    mode_t mode = target->permissions.mode >= 0 ? (mode_t)target->permissions.mode : FILE_MODE;
    AUTO(fd) fd = -1;
    int ret;

    file->failed = "create";
    fd = open(target->path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode & 0700);
    if (fd < 0)
        return -errno;
    if (target->nocow)
        set_no_cow(fd);
    file->failed = "set the owner or mode of";
    ret = take_ownership(fd, &target->permissions);
    if (!ret && fchmod(fd, mode))
        ret = -errno;
    if (ret)
        unlink(target->path);
    return ret ? ret : TAKE_FD(fd);
}

/* The descriptor; -1: *err. */
static int CO_FN co_make_file(struct volume *volume, struct pool_error **err)
{
    struct new_file file = {.volume = volume};
    int fd = co_worker_run(make_file, &file);

    if (fd >= 0)
        return fd;
    /* What somebody else has put there meanwhile is not ours to remove. */
    volume->unmade = true;
    pool_error_set_errno(err, fd, "cannot %s path '%s'", file.failed, volume->target.path);
    return -1;
}

static int CO_FN co_fill_with_zeroes(int fd, uint64_t bytes)
{
    size_t piece = ZEROES_BYTES;
    void *zeroes = loop_buffer_get(piece);
    int ret = zeroes ? 0 : -ENOMEM;

    if (zeroes)
        memset(zeroes, 0, piece);
    for (uint64_t done = 0; !ret && done < bytes; done += piece)
        ret = co_file_write_exact(fd, zeroes, MIN(piece, bytes - done), done);
    if (zeroes)
        loop_buffer_put(zeroes, piece);
    return ret;
}

/* The first `bytes` take up space from now on. */
static int CO_FN co_allocate(int fd, uint64_t bytes)
{
    int ret = bytes ? co_file_allocate(fd, 0, 0, bytes) : 0;

    return ret == -EOPNOTSUPP || ret == -ENOSYS ? co_fill_with_zeroes(fd, bytes) : ret;
}

static bool check_raw(const struct volume *volume, unsigned flags, struct pool_error **err)
{
    if (flags & VOLUME_CREATE_PREALLOC_METADATA)
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED,
                              "metadata preallocation is not supported for raw volumes");
    if (volume->backing)
        return pool_error_set(err, POOL_ERROR_NO_SUPPORT, "backing storage not supported for raw volumes");
    return true;
}

static bool CO_FN co_build_raw(struct volume *volume, unsigned flags, struct pool_error **err)
{
    AUTO(fd) fd = -1;
    int ret;

    volume->unmade = true;
    if (!check_raw(volume, flags, err))
        return false;
    volume->unmade = false;
    fd = co_make_file(volume, err);
    if (fd < 0)
        return false;
    ret = co_file_truncate(fd, volume->capacity);
    if (ret)
        return pool_error_set_errno(err, ret, "cannot extend file '%s'", volume->target.path);
    ret = co_allocate(fd, MIN(volume->allocation, volume->capacity));
    if (ret)
        return pool_error_set_errno(err, ret, "cannot allocate %llu bytes in file '%s'",
                                    (unsigned long long)volume->allocation, volume->target.path);
    ret = co_file_sync(fd, false);
    return !ret || pool_error_set_errno(err, ret, "cannot sync data to file '%s'", volume->target.path);
}

/* --- a directory --- */

static int make_folder(void *opaque)
{
    const struct volume_target *target = opaque;
    mode_t mode = target->permissions.mode >= 0 ? (mode_t)target->permissions.mode : FOLDER_MODE;
    AUTO(fd) fd = -1;
    int ret;

    if (mkdir(target->path, mode))
        return -errno;
    fd = open(target->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    ret = fd < 0 ? -errno : take_ownership(fd, &target->permissions);
    return !ret && fchmod(fd, mode) ? -errno : ret;
}

static bool CO_FN co_build_folder(struct volume *volume, struct pool_error **err)
{
    int ret;

    if (volume->backing)
        return pool_error_set(err, POOL_ERROR_NO_SUPPORT, "backing storage not supported for directories volumes");
    ret = co_worker_run(make_folder, &volume->target);
    volume->unmade = ret == -EEXIST;
    return !ret || pool_error_set_errno(err, ret, "cannot create path '%s'", volume->target.path);
}

/* --- an image --- */

static bool CO_FN co_build_image(struct pool *pool, struct volume *volume, unsigned flags, struct pool_error **err)
{
    int fd;

    volume->unmade = true;
    if (!co_image_check(pool, volume, flags, err))
        return false;
    volume->unmade = false;
    fd = co_make_file(volume, err);
    if (fd < 0)
        return false;
    fd_close(fd);
    return co_image_make(pool, volume, flags, err);
}

static bool is_image(const struct volume *volume)
{
    return (volume->target.format != VOLUME_FORMAT_RAW && volume->target.format != VOLUME_FORMAT_ISO) ||
           volume->target.encryption;
}

static bool CO_FN files_co_build(struct pool *pool, struct volume *volume, unsigned flags, struct pool_error **err)
{
    if (volume->type == VOLUME_DIR)
        return co_build_folder(volume, err);
    return is_image(volume) ? co_build_image(pool, volume, flags, err) : co_build_raw(volume, flags, err);
}

/* --- from another volume --- */

/* FICLONE, on a file that has been made. */
static bool CO_FN co_reflink(struct volume *volume, const struct volume *source, struct pool_error **err)
{
    AUTO(fd) from = co_file_open(source->target.path, O_RDONLY, 0);
    AUTO(fd) to = from < 0 ? -1 : co_make_file(volume, err);
    int ret;

    if (from < 0)
        return pool_error_set_errno(err, from, "could not open input path '%s'", source->target.path);
    if (to < 0)
        return false;
    ret = co_file_ioctl(to, FICLONE, (void *)(uintptr_t)from);
    if (ret < 0)
        return pool_error_set_errno(err, ret, "failed to clone files from '%s'", source->target.path);
    ret = co_file_truncate(to, volume->capacity);
    if (!ret)
        ret = co_file_sync(to, false);
    return !ret || pool_error_set_errno(err, ret, "cannot extend file '%s'", volume->target.path);
}

static bool check_copy(const struct volume *volume, const struct volume *source, unsigned flags,
                       struct pool_error **err)
{
    if (volume->type == VOLUME_DIR || source->type == VOLUME_DIR)
        return pool_error_set(err, POOL_ERROR_INTERNAL, "cannot copy from or to the directory volume '%s'",
                              volume->type == VOLUME_DIR ? volume->name : source->name);
    if (volume->backing && (!source->backing || strcmp(volume->backing->path, source->backing->path) != 0))
        return pool_error_set(err, POOL_ERROR_INTERNAL, "a different backing store cannot be specified.");
    if (flags & VOLUME_CREATE_REFLINK && (is_image(volume) || is_image(source)))
        return pool_error_check_flags(err, flags, VOLUME_CREATE_PREALLOC_METADATA,
                                      "virStorageBackendCreateVolUsingQemuImg");
    return true;
}

static bool CO_FN files_co_build_from(struct pool *pool, struct volume *volume, struct pool *source_pool,
                                      struct volume *source, unsigned flags, struct pool_error **err)
{
    if (!check_copy(volume, source, flags, err))
        return false;
    /* What is copied has all that shows; nothing is below it any more. */
    volume_target_free(TAKE(volume->backing));
    if (flags & VOLUME_CREATE_REFLINK)
        return co_reflink(volume, source, err);
    return files_co_build(pool, volume, flags, err) && co_image_copy(pool, volume, source_pool, source, err);
}

/* --- looking again --- */

struct look {
    struct volume *volume;
    bool full;
};

static int look_again(void *opaque)
{
    const struct look *look = opaque;

    return file_volume_probe(look->volume, look->full);
}

/* Looks on a thread of its own at a stand-in, whose findings the volume takes over afterwards. */
static int CO_FN co_probe(struct volume *volume, bool full)
{
    AUTO(volume) found = volume_new();
    struct look look = {found, full};
    int ret;

    found->target.path = g_strdup(volume->target.path);
    found->target.format = volume->target.format;
    found->capacity = volume->capacity;
    ret = co_worker_run(look_again, &look);
    if (ret)
        return ret;
    volume->capacity = found->capacity;
    volume->allocation = found->allocation;
    volume->physical = found->physical;
    volume->target.timestamps = found->target.timestamps;
    permissions_copy(&volume->target.permissions, &found->target.permissions);
    if (!full)
        return 0;
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
    return 0;
}

static bool CO_FN files_co_refresh(struct pool *pool, struct volume *volume, struct pool_error **err)
{
    int ret = co_probe(volume, false);

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
    if (!co_wipe_path(volume->target.path, algorithm, err))
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
