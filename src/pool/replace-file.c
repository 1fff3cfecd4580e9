/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/replace-file.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>

#include "loop/coroutine.h"
#include "loop/file.h"
#include "pool/pool-error.h"

static bool failed(struct pool_error **err, int result, const char *what, const char *path)
{
    pool_error_set_errno(err, result, "cannot %s '%s'", what, path);
    if (err)
        (*err)->domain = POOL_DOMAIN_NONE;
    return false;
}

/* One that is there is of somebody who came to an end in between, and others may be able to read it, or it is a link.
 */
static int CO_FN co_open_new(const char *path)
{
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
    int fd = co_file_open(path, flags, 0600);

    if (fd != -EEXIST)
        return fd;
    (void)co_file_unlink(path); /* if that fails, so does what follows */
    return co_file_open(path, flags, 0600);
}

static int CO_FN co_write_new(const char *path, const void *data, size_t size)
{
    AUTO(fd) fd = co_open_new(path);
    int result;

    if (fd < 0)
        return fd;
    result = size ? co_file_write_exact(fd, data, size, 0) : 0;
    return result ? result : co_file_sync(fd, false);
}

int co_sync_name(const char *path)
{
    g_autofree char *folder = g_path_get_dirname(path);
    AUTO(fd) fd = co_file_open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    int result = fd < 0 ? fd : co_file_sync(fd, false);

    /* Some file systems cannot sync a directory; there the move is as lasting as it gets. */
    return result == -EINVAL || result == -EROFS ? 0 : result;
}

bool co_replace_file(const char *path, const void *data, size_t size, struct pool_error **err)
{
    g_autofree char *temporary = g_strconcat(path, ".new", NULL);
    int result = co_write_new(temporary, data, size);

    if (result) {
        (void)co_file_unlink(temporary); /* it is of no use to anybody */
        return failed(err, result, "write", temporary);
    }
    result = co_file_rename(temporary, path);
    if (result) {
        (void)co_file_unlink(temporary);
        return failed(err, result, "replace", path);
    }
    result = co_sync_name(path);
    return result ? failed(err, result, "make sure of", path) : true;
}
