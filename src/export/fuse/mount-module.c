/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The module: libfuse mounts and unmounts; it never sees a request. */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <glib.h>
#include <sys/mount.h>
#include <unistd.h>

#include "export/fuse/mount.h"

struct fuse_mount {
    struct fuse_session *session;
};

static struct fuse_mount *mount_file(const char *mountpoint, const char *options, int *ret_fd)
{
    struct fuse_args arguments = FUSE_ARGS_INIT(0, NULL);
    struct fuse_lowlevel_ops none = {0};
    struct fuse_session *session = NULL;
    struct fuse_mount *mount;

    if (!fuse_opt_add_arg(&arguments, "ashlar") && !fuse_opt_add_arg(&arguments, "-o") &&
        !fuse_opt_add_arg(&arguments, options))
        session = fuse_session_new(&arguments, &none, sizeof(none), NULL);
    fuse_opt_free_args(&arguments);
    if (!session)
        return NULL;
    if (fuse_session_mount(session, mountpoint)) {
        fuse_session_destroy(session);
        return NULL;
    }
    mount = g_new0(struct fuse_mount, 1);
    mount->session = session;
    *ret_fd = fuse_session_fd(session);
    /* So that a request that is there is taken at once, and who waits can be woken. */
    (void)fcntl(*ret_fd, F_SETFL, fcntl(*ret_fd, F_GETFL) | O_NONBLOCK);
    return mount;
}

static void unmount_file(struct fuse_mount *mount)
{
    fuse_session_unmount(mount->session);
    fuse_session_destroy(mount->session);
    g_free(mount);
}

static bool clean(const char *mountpoint)
{
    const char *words[] = {"fusermount3", "-u", "-z", "--", mountpoint, NULL};
    int status = 0;

    if (!umount2(mountpoint, MNT_DETACH))
        return true;
    return g_spawn_sync(NULL, (char **)(uintptr_t)words, NULL,
                        G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, NULL,
                        NULL, &status, NULL) &&
           !status;
}

extern const struct fuse_mounter ashlar_fuse;
const struct fuse_mounter ashlar_fuse = {
    .head = {.version = ASHLAR_VERSION},
    .mount = mount_file,
    .unmount = unmount_file,
    .clean = clean,
};
