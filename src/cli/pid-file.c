/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/pid-file.h"

#include <assert.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "loop/coroutine.h"
#include "loop/file.h"

struct pid_file {
    char *path; /* absolute: the working directory may change */
    int fd;     /* open as long as the lock is to hold */
};

/* Whether `path` names the file that is open as `fd`: 1 or 0, or -errno. */
static int CO_FN co_is_at(int fd, const char *path)
{
    AUTO(fd) other = co_file_open(path, O_PATH | O_CLOEXEC, 0);
    struct stat ours;
    struct stat theirs;
    int result;

    if (other == -ENOENT)
        return 0;
    if (other < 0)
        return other;
    result = co_file_stat(fd, &ours);
    if (result)
        return result;
    result = co_file_stat(other, &theirs);
    if (result)
        return result;
    return ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

static bool CO_FN co_lock(int fd, const char *path, struct error **err)
{
    struct stat status;
    int result = co_file_stat(fd, &status);

    if (result)
        return error_set_errno(err, result, "Could not look at '%s'", path);
    if (!S_ISREG(status.st_mode))
        return error_set(err, "'%s' is not a regular file", path);

    result = file_lock_set(fd, 0, 0, FILE_LOCK_EXCLUSIVE);
    if (result == -EAGAIN)
        return error_set_errno(err, result, "Cannot lock pid file '%s', another process holds it", path);
    if (result)
        return error_set_errno(err, result, "Cannot lock pid file '%s'", path);
    return true;
}

/* A descriptor of `path`, locked; -1 and the error. */
static int CO_FN co_open_locked(const char *path, mode_t mode, struct error **err)
{
    for (;;) {
        AUTO(fd) fd = co_file_open(path, O_CREAT | O_RDWR | O_CLOEXEC | O_NONBLOCK, mode);

        if (fd < 0) {
            error_set_errno(err, fd, "Could not create '%s'", path);
            return -1;
        }
        if (!co_lock(fd, path, err))
            return -1;

        /* Between opening and locking, its former owner may have removed it. */
        int same = co_is_at(fd, path);
        if (same == 1)
            return TAKE_FD(fd);
        if (same < 0) {
            error_set_errno(err, same, "Could not look at '%s'", path);
            return -1;
        }
    }
}

struct pid_file *co_pid_file_new(const char *path, mode_t mode, struct error **err)
{
    g_autofree char *text = g_strdup_printf("%ld\n", (long)getpid());

    assert(co_active());
    AUTO(fd) fd = co_open_locked(path, mode, err);
    if (fd < 0)
        return NULL;

    int result = co_file_truncate(fd, 0);
    if (!result)
        result = co_file_write_exact(fd, text, strlen(text), 0);
    if (result) {
        error_set_errno(err, result, "Failed to write pid file '%s'", path);
        return NULL;
    }

    struct pid_file *file = g_new0(struct pid_file, 1);
    file->path = g_canonicalize_filename(path, NULL);
    file->fd = TAKE_FD(fd);
    return file;
}

void co_pid_file_free(struct pid_file *file)
{
    if (!file)
        return;
    if (co_is_at(file->fd, file->path) == 1)
        (void)co_file_unlink(file->path);
    fd_close(file->fd);
    g_free(file->path);
    g_free(file);
}
