/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/backend/new-file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loop/file.h"
#include "loop/loop.h"
#include "pool/backend/files.h"
#include "pool/backend/wipe.h"
#include "pool/pool-error.h"
#include "pool/replace-file.h"

enum { USUAL_MODE = 0600 };

static const char passing_prefix[] = ".ashlar-new-";

/* For the worker thread. Of the volume it uses only what nobody changes meanwhile. */
struct making {
    const struct volume *volume;
    const struct new_file_options *options;
    int64_t now_us;
    struct volume *found; /* what the file is like in its place */
    bool placed;
    bool needs_zeroes;  /* the file system gives no space without them */
    const char *failed; /* to do what, with "... path 'P'" behind it */
};

/* --- the passing name --- */

static char *passing_path(const struct volume *volume)
{
    g_autofree char *folder = g_path_get_dirname(volume->target.path);
    uint64_t number;

    loop_random_bytes(&number, sizeof(number));
    return g_strdup_printf("%s/%s%016llx", folder, passing_prefix, (unsigned long long)number);
}

bool new_file_has_such_name(const char *name)
{
    return g_str_has_prefix(name, passing_prefix);
}

void new_file_clean_up(int folder, const char *name)
{
    AUTO(fd) fd = openat(folder, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    /* Nobody has folders under such a name for longer than an instant; and one with something in it stays. */
    if (fd < 0)
        (void)unlinkat(folder, name, AT_REMOVEDIR);
    else if (!file_lock_set(fd, 0, 1, FILE_LOCK_EXCLUSIVE))
        (void)unlinkat(folder, name, 0);
}

/* --- its place --- */

static int move_to_place(const struct volume *volume)
{
    const char *place = volume->target.path;
    struct stat status;

    if (!renameat2(AT_FDCWD, volume->new_path, AT_FDCWD, place, RENAME_NOREPLACE))
        return 0;
    /* Some file systems cannot look and move in one. */
    if (errno != EINVAL && errno != ENOSYS)
        return -errno;
    if (!lstat(place, &status))
        return -EEXIST;
    return rename(volume->new_path, place) ? -errno : 0;
}

/* `fd`: the file, where it reads as zeroes; -1: see what it has. */
static int take_place(struct making *making, int fd)
{
    const struct volume *volume = making->volume;
    int ret;

    making->failed = "create";
    ret = move_to_place(volume);
    if (ret)
        return ret;
    making->placed = true;
    making->found->target.path = g_strdup(volume->target.path);
    making->found->target.format = volume->target.format;
    making->found->capacity = volume->capacity;
    making->failed = "look at";
    ret = fd >= 0 ? file_volume_take_empty(making->found, fd, making->now_us)
                  : file_volume_probe(making->found, false, making->now_us);
    if (ret && making->options->folder)
        (void)rmdir(volume->target.path);
    else if (ret)
        (void)unlink(volume->target.path);
    return ret;
}

/* --- making it --- */

static void set_no_cow(int fd)
{
    int flags = 0;

    if (!ioctl(fd, FS_IOC_GETFLAGS, &flags)) {
        flags |= FS_NOCOW_FL;
        (void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
    }
}

/* The mode is set apart from making it, past the process's mask. */
static int take_ownership(int fd, const struct permissions *permissions, mode_t mode)
{
    uid_t owner = permissions->owner >= 0 ? (uid_t)permissions->owner : (uid_t)-1;
    gid_t group = permissions->group >= 0 ? (gid_t)permissions->group : (gid_t)-1;

    if ((permissions->owner >= 0 || permissions->group >= 0) && fchown(fd, owner, group))
        return -errno;
    return fchmod(fd, mode) ? -errno : 0;
}

static int fill_file(struct making *making, int fd)
{
    const struct new_file_options *options = making->options;
    int ret;

    if (!options->length && !options->allocated)
        return 0;
    making->failed = options->allocated ? "allocate space in" : "extend";
    ret = file_resize_blocking(fd, options->length, options->allocated);
    making->needs_zeroes = ret == -EOPNOTSUPP;
    return making->needs_zeroes ? 0 : ret;
}

static int open_new(const struct making *making, mode_t mode)
{
    const char *path = making->volume->new_path;
    int fd;

    if (making->options->folder && mkdir(path, mode))
        return -errno;
    fd = making->options->folder ? open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
                                 : open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode & 0700);
    return fd < 0 ? -errno : fd;
}

static int make_and_fill(struct making *making, int fd, mode_t mode)
{
    const struct volume *volume = making->volume;
    bool folder = making->options->folder;
    int ret = folder ? 0 : file_lock_set(fd, 0, 1, FILE_LOCK_EXCLUSIVE);

    /* Where there are no locks, nobody can tell that it is in use; it is as good as it gets. */
    if (ret == -EAGAIN)
        return ret;
    if (volume->target.nocow)
        set_no_cow(fd);
    making->failed = "set the owner or mode of";
    ret = take_ownership(fd, &volume->target.permissions, mode);
    if (!ret)
        ret = fill_file(making, fd);
    if (!ret && !making->needs_zeroes && (making->options->at_once || folder))
        ret = take_place(making, folder ? -1 : fd);
    return ret;
}

static void remove_new(const struct making *making)
{
    const char *path = making->volume->new_path;

    if (!making->placed)
        (void)(making->options->folder ? rmdir(path) : unlink(path));
}

/* The descriptor, or -errno. */
static int make_file(void *opaque)
{
    struct making *making = opaque;
    const struct volume_target *target = &making->volume->target;
    mode_t mode = target->permissions.mode >= 0 ? (mode_t)target->permissions.mode : USUAL_MODE;
    struct stat status;
    AUTO(fd) fd = -1;
    int ret;

    if (!lstat(target->path, &status))
        return -EEXIST;
    making->failed = "create";
    fd = open_new(making, mode);
    ret = fd < 0 ? fd : make_and_fill(making, fd, mode);
    if (ret < 0)
        remove_new(making);
    return ret < 0 ? ret : TAKE_FD(fd);
}

/* --- what the main loop does --- */

static void making_begin(struct making *making, const struct volume *volume, const struct new_file_options *options)
{
    *making =
        (struct making){.volume = volume, .options = options, .now_us = loop_wall_time_us(), .found = volume_new()};
}

static void making_end(struct making *making, struct volume *volume)
{
    if (making->placed) {
        g_clear_pointer(&volume->new_path, g_free);
        file_volume_take(volume, making->found, false);
    }
    volume_unref(making->found);
}

static bool set_error(const struct making *making, int result, struct pool_error **err)
{
    const char *path = making->volume->target.path;

    if (!making->failed)
        return pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "volume target path '%s' already exists", path);
    return pool_error_set_errno(err, result, "cannot %s path '%s'", making->failed, path);
}

/* What the worker could not do. */
static bool CO_FN co_finish(struct volume *volume, const struct new_file_options *options, int fd,
                            struct pool_error **err)
{
    int ret = co_wipe_range(fd, 0, options->allocated, options->stop);

    if (ret)
        pool_error_set_errno(err, ret, "cannot allocate %llu bytes in file '%s'",
                             (unsigned long long)options->allocated, volume->target.path);
    if (!ret && (!options->at_once || co_new_file_place(volume, err)))
        return true;
    co_new_file_discard(volume);
    return false;
}

int co_new_file_make(struct volume *volume, const struct new_file_options *options, struct pool_error **err)
{
    struct making making;
    AUTO(fd) fd = -1;

    assert(!volume->new_path);
    volume->new_path = passing_path(volume);
    making_begin(&making, volume, options);
    fd = co_worker_run(make_file, &making);
    if (fd < 0) {
        set_error(&making, fd, err);
        making.placed = false;
        g_clear_pointer(&volume->new_path, g_free);
    }
    making_end(&making, volume);
    if (fd >= 0 && making.needs_zeroes && !co_finish(volume, options, fd, err))
        return -1;
    return fd < 0 ? -1 : TAKE_FD(fd);
}

static int place_file(void *opaque)
{
    return take_place(opaque, -1);
}

bool co_new_file_place(struct volume *volume, struct pool_error **err)
{
    const struct new_file_options options = {.at_once = true};
    struct making making;
    int ret;

    assert(volume->new_path);
    making_begin(&making, volume, &options);
    ret = co_worker_run(place_file, &making);
    /* What is in it is on the disk already; so must the name be that it has to be found by. */
    if (!ret) {
        making.failed = "make sure of";
        ret = co_sync_name(volume->target.path);
        if (ret)
            (void)co_file_unlink(volume->target.path);
    }
    if (ret) {
        set_error(&making, ret, err);
        if (making.placed) /* and taken away again */
            g_clear_pointer(&volume->new_path, g_free);
        making.placed = false;
    }
    making_end(&making, volume);
    return !ret;
}

void co_new_file_discard(struct volume *volume)
{
    if (!volume->new_path)
        return;
    (void)co_file_unlink(volume->new_path);
    g_clear_pointer(&volume->new_path, g_free);
}
