/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Volumes that are devices with nodes: what logical, disk, iscsi, scsi and mpath have in common. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/cdrom.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/units.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "pool/backend.h"
#include "pool/backend/command.h"
#include "pool/backend/image.h"
#include "pool/backend/wipe.h"
#include "pool/pool-error.h"
#include "pool/storage-internal.h"

enum { WAIT_STEP_MS = 100, NODE_MODE = 0600 };

/* --- looking --- */

static int is_there(void *opaque)
{
    struct stat status;

    return !stat(opaque, &status);
}

bool CO_FN co_device_exists(const char *path)
{
    return co_worker_run(is_there, (void *)(uintptr_t)path);
}

struct device_look {
    const char *path;
    struct stat status;
    uint64_t size;
    char *label;
};

/* An empty drive can be opened, and has the size of the largest disc. */
static bool is_empty_drive(int fd)
{
    int status = ioctl(fd, CDROM_DRIVE_STATUS, CDSL_CURRENT);

    return status == CDS_NO_DISC || status == CDS_TRAY_OPEN;
}

static int look(void *opaque)
{
    struct device_look *look = opaque;
    AUTO(fd) fd = open(look->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &look->status))
        return -errno;
    if (!S_ISBLK(look->status.st_mode))
        return -ENOTBLK;
    if (is_empty_drive(fd))
        return -ENOMEDIUM;
    if (ioctl(fd, BLKGETSIZE64, &look->size))
        return -errno;
    look->label = file_label(look->path);
    return 0;
}

bool CO_FN co_device_volume_refresh(struct pool *pool, struct volume *volume, struct pool_error **err)
{
    /* Of a partition that is renumbered meanwhile it changes. */
    g_autofree char *path = g_strdup(volume->target.path);
    struct device_look found = {.path = path};
    int ret = co_worker_run(look, &found);

    if (ret)
        return pool_error_set_errno(err, ret, "cannot open volume '%s'", path);
    volume->type = VOLUME_BLOCK;
    volume->capacity = found.size;
    volume->allocation = found.size;
    volume->physical = found.size;
    volume_target_from_stat(&volume->target, &found.status);
    g_free(volume->target.permissions.label);
    volume->target.permissions.label = found.label;
    return true;
}

bool CO_FN co_device_volume_wipe(struct pool *pool, struct volume *volume, enum volume_wipe_algorithm algorithm,
                                 struct pool_error **err)
{
    return co_wipe_path(volume->target.path, algorithm, &pool->storage->closing, err);
}

/* --- content --- */

static int set_owner_and_mode(void *opaque)
{
    const struct volume_target *target = opaque;
    const struct permissions *permissions = &target->permissions;
    uid_t owner = permissions->owner >= 0 ? (uid_t)permissions->owner : (uid_t)-1;
    gid_t group = permissions->group >= 0 ? (gid_t)permissions->group : (gid_t)-1;
    mode_t mode = permissions->mode >= 0 ? (mode_t)permissions->mode : NODE_MODE;

    if ((permissions->owner >= 0 || permissions->group >= 0) && chown(target->path, owner, group))
        return -errno;
    return chmod(target->path, mode) ? -errno : 0;
}

bool CO_FN co_device_volume_build(struct pool *pool, struct volume *volume, struct pool *source_pool,
                                  struct volume *source, unsigned flags, struct pool_error **err)
{
    int ret;

    volume->type = VOLUME_BLOCK;
    if (volume->target.encryption &&
        (!co_image_check(pool, volume, flags, err) || !co_image_make(pool, volume, flags, err)))
        return false;
    if (source && !co_image_copy(pool, volume, source_pool, source, err))
        return false;
    /* When somebody who could write has closed a device, udev gives its node the owner and mode that it knows. */
    if (source || volume->target.encryption)
        co_command_settle();
    ret = co_worker_run(set_owner_and_mode, &volume->target);
    return !ret || pool_error_set_errno(err, ret, "cannot set the owner or mode of '%s'", volume->target.path);
}

/* --- stable paths --- */

struct link_search {
    const char *folder;
    const char *node;
    char *found;
};

static int search(void *opaque)
{
    struct link_search *search = opaque;
    DIR *directory = opendir(search->folder);
    const struct dirent *entry;
    struct stat wanted;

    if (!directory)
        return -errno;
    if (stat(search->node, &wanted))
        wanted.st_rdev = 0;
    while (wanted.st_rdev && !search->found && (entry = readdir(directory))) {
        struct stat status;

        if (*entry->d_name == '.' || fstatat(dirfd(directory), entry->d_name, &status, 0))
            continue;
        if (S_ISBLK(status.st_mode) && status.st_rdev == wanted.st_rdev)
            search->found = g_build_filename(search->folder, entry->d_name, NULL);
    }
    closedir(directory);
    return 0;
}

char *CO_FN co_device_stable_path(struct pool *pool, const char *node, unsigned wait_ms, bool *ret_found)
{
    struct link_search links = {.folder = pool->def->target_path, .node = node};

    if (ret_found)
        *ret_found = true;
    /* Where nodes lie there are no links to look for; elsewhere there is nothing that udev keeps. */
    if (!links.folder || !strcmp(links.folder, "/dev") || !g_str_has_prefix(links.folder, "/dev/"))
        return g_strdup(node);
    for (unsigned waited = 0;; waited += WAIT_STEP_MS) {
        (void)co_worker_run(search, &links);
        if (links.found || waited >= wait_ms)
            break;
        if (co_sleep_ns(WAIT_STEP_MS * NS_PER_MS))
            break;
    }
    if (!links.found && ret_found)
        *ret_found = false;
    return links.found ? links.found : g_strdup(node);
}
