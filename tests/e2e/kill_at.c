/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Loaded before the C library: ends the process, as kill -9 does, before one of the calls that change files. Which one,
 * is a number in the file that KILL_AT names: so many of them are still to come. 0: none ends it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static _Atomic int32_t *left;

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("KILL_AT");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

    if (fd < 0)
        return;
    left = mmap(NULL, sizeof(*left), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (left == MAP_FAILED)
        left = NULL;
    close(fd);
}

static void count(void)
{
    if (left && atomic_load(left) > 0 && atomic_fetch_sub(left, 1) == 1)
        kill(getpid(), SIGKILL);
}

#define COUNTED(result, name, parameters, ...)                                                                         \
    result name parameters;                                                                                            \
    result name parameters                                                                                             \
    {                                                                                                                  \
        result(*real) parameters = (result(*) parameters)dlsym(RTLD_NEXT, #name);                                      \
        count();                                                                                                       \
        return real(__VA_ARGS__);                                                                                      \
    }

COUNTED(int, rename, (const char *from, const char *to), from, to)
COUNTED(int, renameat2, (int a, const char *from, int b, const char *to, unsigned flags), a, from, b, to, flags)
COUNTED(int, unlink, (const char *path), path)
COUNTED(int, unlinkat, (int folder, const char *path, int flags), folder, path, flags)
COUNTED(int, symlink, (const char *target, const char *path), target, path)
COUNTED(int, mkdir, (const char *path, mode_t mode), path, mode)
COUNTED(int, rmdir, (const char *path), path)
COUNTED(int, fsync, (int fd), fd)
COUNTED(int, fdatasync, (int fd), fd)
COUNTED(int, ftruncate, (int fd, off_t size), fd, size)
COUNTED(int, ftruncate64, (int fd, off64_t size), fd, size)
COUNTED(int, fallocate, (int fd, int mode, off_t offset, off_t size), fd, mode, offset, size)
COUNTED(int, fallocate64, (int fd, int mode, off64_t offset, off64_t size), fd, mode, offset, size)
COUNTED(int, fchmod, (int fd, mode_t mode), fd, mode)
COUNTED(int, fchown, (int fd, uid_t user, gid_t group), fd, user, group)
COUNTED(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t offset), fd, data, size, offset)
COUNTED(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t offset), fd, data, size, offset)
COUNTED(ssize_t, pwritev, (int fd, const struct iovec *v, int n, off_t offset), fd, v, n, offset)
COUNTED(ssize_t, pwritev64, (int fd, const struct iovec *v, int n, off64_t offset), fd, v, n, offset)
COUNTED(ssize_t, pwritev2, (int fd, const struct iovec *v, int n, off_t offset, int flags), fd, v, n, offset, flags)
COUNTED(ssize_t, pwritev64v2, (int fd, const struct iovec *v, int n, off64_t offset, int flags), fd, v, n, offset,
        flags)

/* Only those that may make a file. */
#define OPENING(name, before, before_names)                                                                            \
    int name(before const char *path, int flags, ...);                                                                 \
    int name(before const char *path, int flags, ...)                                                                  \
    {                                                                                                                  \
        int (*real)(before const char *, int, ...) = (int (*)(before const char *, int, ...))dlsym(RTLD_NEXT, #name);  \
        va_list rest;                                                                                                  \
        mode_t mode;                                                                                                   \
                                                                                                                       \
        va_start(rest, flags);                                                                                         \
        mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;                                                             \
        va_end(rest);                                                                                                  \
        if (flags & O_CREAT)                                                                                           \
            count();                                                                                                   \
        return real(before_names path, flags, mode);                                                                   \
    }
#define NOTHING
#define FOLDER int folder,
#define FOLDER_NAME folder,
OPENING(open, NOTHING, NOTHING)
OPENING(open64, NOTHING, NOTHING)
OPENING(openat, FOLDER, FOLDER_NAME)
OPENING(openat64, FOLDER, FOLDER_NAME)
