/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options that change while the file is open: how it is cached, whether it can be written to. The descriptor that the
 * locks hang on stays.
 */
#include <assert.h>
#include <errno.h>

#include "base/error.h"
#include "driver/protocol/file/file.h"

static const char *const file_reopen_options[] = {"drop-cache", "x-check-cache-dropped", NULL};

static bool set_direct(struct file_node *file, bool direct, struct error **err)
{
    int result = fd_set_direct(file->fd, direct);

    if (!result && file->lock_fd != file->fd)
        result = fd_set_direct(file->lock_fd, direct);
    if (!result)
        return true;
    return error_set_errno(err, result, "Could not turn direct I/O %s for '%s'", direct ? "on" : "off",
                           file->shown_path);
}

static bool CO_FN file_co_reopen_prepare(struct node *node, const struct blockdev_options *options, struct error **err)
{
    struct file_node *file = node_state(node);
    bool direct = node_cache_direct(node);

    assert(file->reopen.fd == -1);
    file->reopen.direct = file->direct;
    file->reopen.dynamic = file->dynamic;
    if (!direct && file->engine == FILE_ENGINE_NATIVE)
        return error_set(err, "aio=native was specified, but it requires cache.direct=on, which was not specified.");
    file->dynamic = !node_read_only(node) && node_auto_read_only(node);
    if (!node_read_only(node) && !file->dynamic && !fd_is_writable(file->fd)) {
        file->reopen.fd = file_co_open_writable(file, err);
        if (file->reopen.fd < 0)
            goto fail;
    }
    if (direct == file->direct || set_direct(file, direct, err)) {
        file->direct = direct;
        return true;
    }
    if (set_direct(file, file->direct, NULL))
        fd_close(file->reopen.fd);
    file->reopen.fd = -1;
fail:
    file->dynamic = file->reopen.dynamic;
    return false;
}

static void CO_FN file_co_reopen_commit(struct node *node)
{
    struct file_node *file = node_state(node);
    const struct blockdev_options *all = node_options(node);
    const struct blockdev_options_file *options = all->driver == BLOCKDEV_DRIVER_FILE          ? &all->u.file
                                                  : all->driver == BLOCKDEV_DRIVER_HOST_DEVICE ? &all->u.host_device
                                                                                               : &all->u.host_cdrom;

    if (file->reopen.fd >= 0) {
        if (file->fd != file->lock_fd)
            fd_close(file->fd);
        file->fd = file->reopen.fd;
        file->reopen.fd = -1;
    }
    file->no_flush = node_cache_no_flush(node);
    file->drop_cache = !options->has_drop_cache || options->drop_cache;
    file->check_cache_dropped = options->has_x_check_cache_dropped && options->x_check_cache_dropped;
}

static void CO_FN file_co_reopen_abort(struct node *node)
{
    struct file_node *file = node_state(node);

    if (file->direct != file->reopen.direct && set_direct(file, file->reopen.direct, NULL))
        file->direct = file->reopen.direct;
    file->dynamic = file->reopen.dynamic;
    fd_close(file->reopen.fd);
    file->reopen.fd = -1;
}

const struct block_driver_reopen file_reopen = {
    .options = file_reopen_options,
    .co_prepare = file_co_reopen_prepare,
    .co_commit = file_co_reopen_commit,
    .co_abort = file_co_reopen_abort,
};
