/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The "fuse" export: a regular file over which the image is mounted. */
#include "export/fuse/export.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "block/handle.h"
#include "export/export.h"
#include "export/fuse/mount.h"
#include "export/fuse/session.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

struct fuse_export {
    struct fuse_file file;
    const struct fuse_mounter *mounter;
    struct fuse_mount *mount;
    int fd; /* of the mount; borrowed */
    char *mountpoint;
};

/* What runs on a worker thread, as it may block. */
struct mount_work {
    const struct fuse_mounter *mounter;
    struct fuse_mount *mount;
    const char *mountpoint;
    const char *options;
    int fd;
    struct stat status;
    bool taken;
};

static int mount_work(void *opaque)
{
    struct mount_work *work = opaque;

    work->mount = work->mounter->mount(work->mountpoint, work->options, &work->fd);
    return work->mount ? 0 : -EIO;
}

static int unmount_work(void *opaque)
{
    struct mount_work *work = opaque;

    return work->mounter->unmount(work->mount) ? 0 : -EIO;
}

/* What can be asked of a mount whose server has died; the latter two while the kernel is still taking it apart. */
static bool server_is_gone(int errno_value)
{
    return errno_value == ENOTCONN || errno_value == ECONNABORTED || errno_value == ECANCELED;
}

/* Such a mount can be taken away. 1: it was. */
static int stat_work(void *opaque)
{
    struct mount_work *work = opaque;
    int result = 0;

    if (stat(work->mountpoint, &work->status)) {
        if (!server_is_gone(errno) || !work->mounter->clean(work->mountpoint) || stat(work->mountpoint, &work->status))
            return -errno;
        result = 1;
    }
    work->taken = S_ISREG(work->status.st_mode) && work->mounter->is_taken(work->mountpoint);
    return result;
}

static bool CO_FN co_check_mountpoint(const struct fuse_mounter *mounter, const char *mountpoint, struct error **err)
{
    struct mount_work work = {.mounter = mounter, .mountpoint = mountpoint};
    int result = co_worker_run(stat_work, &work);

    if (result < 0)
        return error_set_errno(err, result, "Failed to stat '%s'", mountpoint);
    if (result)
        log_warning("'%s' was still mounted by a process that has ended; that mount has been taken away", mountpoint);
    if (!S_ISREG(work.status.st_mode))
        return error_set(err, "'%s' is not a regular file", mountpoint);
    return !work.taken || error_set(err, "There already is a FUSE export on '%s'", mountpoint);
}

static bool check_others(struct export *export, const char *mountpoint, struct error **err)
{
    for (struct export *other = export_sibling(export, NULL); other; other = export_sibling(export, other)) {
        const struct fuse_export *its = export_state(other);

        if (!strcmp(its->mountpoint, mountpoint))
            return error_set(err, "There already is a FUSE export on '%s'", mountpoint);
    }
    return true;
}

static bool CO_FN co_try_mount(struct fuse_export *own, bool allow_other, struct error **err)
{
    g_autofree char *options = g_strdup_printf("max_read=%d,default_permissions,fsname=ashlar%s", FUSE_WRITE_BYTES_MAX,
                                               allow_other ? ",allow_other" : "");
    struct mount_work work = {.mounter = own->mounter, .mountpoint = own->mountpoint, .options = options, .fd = -1};

    if (co_worker_run(mount_work, &work))
        return error_set(err, "Failed to mount FUSE session to export");
    own->mount = work.mount;
    own->fd = work.fd;
    own->file.may_chown = allow_other;
    return true;
}

static bool CO_FN co_mount(struct fuse_export *own, enum fuse_export_allow_other others, struct error **err)
{
    if (others == FUSE_EXPORT_ALLOW_OTHER_AUTO && co_try_mount(own, true, NULL))
        return true;
    return co_try_mount(own, others == FUSE_EXPORT_ALLOW_OTHER_ON, err);
}

static void unmounted(struct fuse_file *file)
{
    log_warning("export '%s': somebody has unmounted it, so it goes", export_id(file->export));
    export_remove_soon(file->export);
}

static void set_up_file(struct export *export, const struct block_export_options *options)
{
    struct fuse_export *own = export_state(export);
    int64_t us = loop_wall_time_us();
    struct timespec time = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

    own->file.export = export;
    own->file.handle = export_handle(export);
    own->file.main = loop_current();
    own->file.writable = options->has_writable && options->writable;
    own->file.growable = own->file.writable && options->u.fuse.has_growable && options->u.fuse.growable;
    own->file.mode = S_IFREG | S_IRUSR | (own->file.writable ? S_IWUSR : 0);
    own->file.uid = getuid();
    own->file.gid = getgid();
    own->file.accessed = own->file.modified = own->file.changed = time;
    own->file.unmounted = unmounted;
}

static bool CO_FN co_start(struct export *export, const struct block_export_options *options, struct error **err)
{
    struct fuse_export *own = export_state(export);
    const struct block_export_options_fuse *from = &options->u.fuse;
    unsigned loop_count;
    struct loop *const *loops = export_loops(export, &loop_count);

    if (!check_others(export, from->mountpoint, err))
        return false;
    own->mounter = fuse_mounter_get(err);
    if (!own->mounter || !co_check_mountpoint(own->mounter, from->mountpoint, err))
        return false;
    set_up_file(export, options);
    own->mountpoint = g_strdup(from->mountpoint);
    if (!co_mount(own, from->has_allow_other ? from->allow_other : FUSE_EXPORT_ALLOW_OTHER_AUTO, err)) {
        g_free(own->mountpoint);
        return false;
    }
    co_fuse_file_open_queues(&own->file, own->fd, loops, loop_count);
    fuse_file_start(&own->file);
    TRACE(fuse_mount, "%s on %s", export_id(export), own->mountpoint);
    return true;
}

static bool in_use(struct export *export)
{
    struct fuse_export *own = export_state(export);

    return atomic_load(&own->file.opened);
}

static void CO_FN co_stop(struct export *export)
{
    struct fuse_export *own = export_state(export);
    struct mount_work work = {.mounter = own->mounter, .mount = own->mount};

    co_fuse_file_stop(&own->file);
    fuse_file_close_queues(&own->file);
    if (co_worker_run(unmount_work, &work))
        log_warning("export '%s': '%s' cannot be unmounted", export_id(export), own->mountpoint);
    fuse_file_free_queues(&own->file);
    co_mutex_done(&own->file.resizing);
    g_free(own->mountpoint);
}

const struct export_driver fuse_export_driver = {
    .type = BLOCK_EXPORT_TYPE_FUSE,
    .state_size = sizeof(struct fuse_export),
    .co_start = co_start,
    .in_use = in_use,
    .co_stop = co_stop,
};
