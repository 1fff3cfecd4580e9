/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Loaded before the C library: as soon as something of FUSE has been mounted, the kernel's switch for requests over
 * io_uring is turned off. Its offer stands in the first request by then, which nobody has read yet.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

static void turn_off(void)
{
    int fd = open("/sys/module/fuse/parameters/enable_uring", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    (void)!write(fd, "N", 1);
    close(fd);
}

int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data)
{
    int (*real)(const char *, const char *, const char *, unsigned long, const void *) =
        (int (*)(const char *, const char *, const char *, unsigned long, const void *))dlsym(RTLD_NEXT, "mount");
    int result = real(source, target, type, flags, data);

    if (!result && type && !strncmp(type, "fuse", strlen("fuse")))
        turn_off();
    return result;
}
