/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The module: libfuse mounts; it never sees a request. Unmounting is done here, as it is to find the mount wherever it
 * is by then: the folder may have been moved, and the daemon have gone to another working directory.
 */
#define FUSE_USE_VERSION 314

#include <fcntl.h>
#include <fuse.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "export/fuse/mount.h"

struct fuse_mount {
    int fd;
    char *path;   /* where it was mounted */
    char *device; /* its file system's "MAJOR:MINOR"; NULL: nobody tells us */
};

/* --- what is mounted where --- */

/* A line of /proc/self/mountinfo, taken apart in place. */
struct mount_line {
    const char *device;
    const char *root; /* the part of the file system that is mounted */
    char *path;
    const char *type;
};

static bool parse_line(char *line, struct mount_line *ret)
{
    char *words[5];
    char *end = strstr(line, " - ");

    for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
        words[i] = line;
        line = line ? strchr(line, ' ') : NULL;
        if (line)
            *line++ = 0;
    }
    if (!line || !end || end < words[4])
        return false;
    *ret = (struct mount_line){.device = words[2], .root = words[3], .path = words[4], .type = end + strlen(" - ")};
    return true;
}

static void mount_line_done(struct mount_line *line)
{
    g_free(line->path);
}

/* The mount on top of what else is mounted at `path` (NULL: of that device, wherever); its path is owned. */
static bool find_mount(const char *path, const char *device, struct mount_line *ret, char **ret_text)
{
    char *next;
    bool found = false;

    *ret_text = NULL;
    if (!g_file_get_contents("/proc/self/mountinfo", ret_text, NULL, NULL))
        return false;
    for (char *line = *ret_text; line && *line; line = next) {
        struct mount_line each;
        g_autofree char *place = NULL;

        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        if (!parse_line(line, &each))
            continue;
        place = g_strcompress(each.path);
        if (path ? strcmp(place, path) != 0 : strcmp(each.device, device) != 0)
            continue;
        if (found)
            mount_line_done(ret);
        *ret = each;
        ret->path = g_steal_pointer(&place);
        found = true;
    }
    return found;
}

static char *device_at(const char *path)
{
    g_autofree char *text = NULL;
    struct mount_line line;
    char *device;

    if (!find_mount(path, NULL, &line, &text))
        return NULL;
    device = g_strdup(line.device);
    mount_line_done(&line);
    return device;
}

/* Where the mount is now, unless something else hides it; owned. NULL: nowhere. */
static char *place_of(const struct fuse_mount *mount)
{
    g_autofree char *text = NULL, *top = NULL;
    struct mount_line line;

    if (!mount->device)
        return g_strdup(mount->path);
    if (!find_mount(NULL, mount->device, &line, &text))
        return NULL;
    top = device_at(line.path);
    if (top && !strcmp(top, mount->device))
        return line.path;
    mount_line_done(&line);
    return NULL;
}

/* --- the table --- */

static bool is_taken(const char *mountpoint)
{
    g_autofree char *text = NULL;
    char *path = realpath(mountpoint, NULL);
    struct mount_line line;
    bool taken = false;

    if (path && find_mount(path, NULL, &line, &text)) {
        /* Not a file of a larger file system that is shown there. */
        taken = !strncmp(line.type, "fuse", strlen("fuse")) && !strcmp(line.root, "/");
        mount_line_done(&line);
    }
    free(path);
    return taken;
}

static bool take_away(const char *path)
{
    const char *words[] = {"fusermount3", "-u", "-z", "--", path, NULL};
    int status = 0;

    if (!umount2(path, MNT_DETACH))
        return true;
    return g_spawn_sync(NULL, (char **)(uintptr_t)words, NULL,
                        G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, NULL,
                        NULL, &status, NULL) &&
           !status;
}

static struct fuse_mount *mount_file(const char *mountpoint, const char *options, int *ret_fd)
{
    char *path = realpath(mountpoint, NULL);
    int fd = path ? fuse_open_channel(path, options) : -1;
    struct fuse_mount *mount;

    if (fd < 0) {
        free(path);
        return NULL;
    }
    mount = g_new0(struct fuse_mount, 1);
    mount->fd = fd;
    mount->path = g_strdup(path);
    mount->device = device_at(path);
    free(path);
    *ret_fd = fd;
    /* So that a request that is there is taken at once, and who waits can be woken. */
    (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return mount;
}

static bool unmount_file(struct fuse_mount *mount)
{
    g_autofree char *place = place_of(mount);
    bool done = !place || take_away(place);

    close(mount->fd);
    g_free(mount->path);
    g_free(mount->device);
    g_free(mount);
    return done;
}

extern const struct fuse_mounter ashlar_fuse;
const struct fuse_mounter ashlar_fuse = {
    .head = {.version = ASHLAR_VERSION},
    .mount = mount_file,
    .unmount = unmount_file,
    .clean = take_away,
    .is_taken = is_taken,
};
