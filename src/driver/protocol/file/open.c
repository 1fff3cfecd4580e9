/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening and closing: from the options to the descriptors. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>

#include "base/error.h"
#include "driver/protocol/file/file.h"
#include "object/object.h"

/* A path as messages show it: on one line, whatever characters it is made of. */
static char *path_for_messages(const char *path)
{
    GString *text = g_string_new(NULL);

    for (const char *c = path; *c; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            g_string_append_printf(text, "\\x%02x", (unsigned char)*c);
        else
            g_string_append_c(text, *c);
    }
    return g_string_free(text, FALSE);
}

/*
 * A descriptor, or -errno. A FIFO or a terminal line must not hold us up before we can see what it is; afterwards,
 * requests shall wait as usual.
 */
static int CO_FN co_open_path(const struct file_node *file, const char *path, bool writable)
{
    int flags = (writable ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_NOCTTY | (file->direct ? O_DIRECT : 0);
    int fd = co_file_open(path, flags, 0);
    int result = fd < 0 ? fd : fd_set_blocking(fd);

    if (result >= 0)
        return fd;
    if (fd >= 0)
        fd_close(fd);
    return result;
}

static int open_failed(const struct file_node *file, int result, struct error **err)
{
    if (result == -EINVAL && file->direct)
        error_set(err, "Could not open '%s': filesystem does not support O_DIRECT", file->shown_path);
    else
        error_set_errno(err, result, "Could not open '%s'", file->shown_path);
    return -1;
}

/* Whether the two are one file, and not another that has got its name. */
static bool CO_FN co_is_same_file(int a, int b)
{
    struct stat stat_a;
    struct stat stat_b;

    return co_file_stat(a, &stat_a) == 0 && co_file_stat(b, &stat_b) == 0 && stat_a.st_dev == stat_b.st_dev &&
           stat_a.st_ino == stat_b.st_ino && stat_a.st_rdev == stat_b.st_rdev;
}

int CO_FN file_co_open_writable(struct file_node *file, struct error **err)
{
    g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", file->lock_fd);
    int fd = co_open_path(file, link, true);

    if (fd == -ENOENT)
        fd = co_open_path(file, file->path, true);
    if (fd < 0)
        return open_failed(file, fd, err);
    if (!co_is_same_file(fd, file->lock_fd)) {
        fd_close(fd);
        error_set(err, "Could not open '%s' for writing: it is not the file any more that was opened before",
                  file->shown_path);
        return -1;
    }
    return fd;
}

static bool CO_FN co_check_kind(struct node *node, bool device, struct error **err)
{
    struct file_node *file = node_state(node);
    struct stat stat;
    int result = co_file_stat(file->lock_fd, &stat);

    if (result < 0)
        return error_set_errno(err, result, "Could not stat '%s'", file->shown_path);
    if (S_ISREG(stat.st_mode))
        file->kind = FILE_REGULAR;
    else if (S_ISBLK(stat.st_mode))
        file->kind = FILE_BLOCK_DEVICE;
    else
        file->kind = FILE_CHARACTER_DEVICE;
    if (!device && file->kind != FILE_REGULAR)
        return error_set(err, "'%s' driver requires '%s' to be a regular file", node_driver_name(node),
                         file->shown_path);
    if (device && !S_ISBLK(stat.st_mode) && !S_ISCHR(stat.st_mode))
        return error_set(err, "'%s' driver requires '%s' to be either a character or block device",
                         node_driver_name(node), file->shown_path);
    return true;
}

static bool take_engine(struct file_node *file, const struct blockdev_options_file *options, struct error **err)
{
    static const enum file_engine engines[] = {
        [BLOCKDEV_AIO_OPTIONS_THREADS] = FILE_ENGINE_THREADS,
        [BLOCKDEV_AIO_OPTIONS_NATIVE] = FILE_ENGINE_NATIVE,
        [BLOCKDEV_AIO_OPTIONS_IO_URING] = FILE_ENGINE_IO_URING,
    };

    if (!options->has_aio)
        return true;
    assert((size_t)options->aio < G_N_ELEMENTS(engines));
    file->engine = engines[options->aio];
    if (file->engine == FILE_ENGINE_NATIVE && !file->direct)
        return error_set(err, "aio=native was specified, but it requires cache.direct=on, which was not specified.");
    return file_engine_available(file->engine, err);
}

static bool take_pr_manager(struct node *node, const char *id, struct error **err)
{
    struct file_node *file = node_state(node);
    struct object *object = object_find(node_objects(node), id);

    if (!object || object_get_class(object)->type != OBJECT_TYPE_PR_MANAGER_HELPER)
        return error_set(err, "No persistent reservation manager with id '%s'", id);
    file->pr_manager = object_hold(object);
    return true;
}

static bool take_options(struct node *node, const struct blockdev_options_file *options, struct error **err)
{
    struct file_node *file = node_state(node);

    file->path = g_strdup(options->filename);
    file->shown_path = path_for_messages(options->filename);
    if (!*file->path)
        return error_set(err, "The '%s' block driver requires a file name", node_driver_name(node));
    if (g_str_has_prefix(file->path, "/dev/fdset/"))
        return error_set(err, "Could not open '%s': sets of file descriptors are not supported", file->shown_path);
    if (options->has_aio_max_batch && (options->aio_max_batch < 0 || options->aio_max_batch > UINT32_MAX))
        return error_set(err, "aio-max-batch must be between 0 and %" PRIu32 ", and is %" PRId64, UINT32_MAX,
                         options->aio_max_batch);
    file->direct = node_cache_direct(node);
    file->no_flush = node_cache_no_flush(node);
    file->dynamic = !node_read_only(node) && node_auto_read_only(node);
    file->batch_max = (uint32_t)options->aio_max_batch;
    file->drop_cache = !options->has_drop_cache || options->drop_cache;
    file->check_cache_dropped = options->has_x_check_cache_dropped && options->x_check_cache_dropped;
    return take_engine(file, options, err) && (!options->pr_manager || take_pr_manager(node, options->pr_manager, err));
}

static bool CO_FN co_open_with(struct node *node, const struct blockdev_options_file *options, bool device,
                               struct error **err)
{
    struct file_node *file = node_state(node);
    int fd, traits;

    if (!take_options(node, options, err))
        return false;
    fd = co_open_path(file, file->path, !node_read_only(node) && !file->dynamic);
    if (fd < 0) {
        open_failed(file, fd, err);
        return false;
    }
    file->lock_fd = fd;
    file->fd = fd;
    if (!co_check_kind(node, device, err))
        return false;
    traits = file->kind == FILE_REGULAR ? co_file_traits(fd) : 0;
    file->is_shared = traits > 0 && traits & FILE_IS_SHARED;
    file->is_near = file->kind == FILE_REGULAR && traits >= 0 && !file->is_shared;
    file->allocates_cheaply = traits > 0 && traits & FILE_ALLOCATES_CHEAPLY;
    if (!options->has_locking || options->locking != ON_OFF_AUTO_OFF)
        return file_co_locks_open(file, options->has_locking && options->locking == ON_OFF_AUTO_ON, err);
    return true;
}

bool CO_FN file_co_open(struct node *node, const struct blockdev_options_file *options, bool device, struct error **err)
{
    struct file_node *file = node_state(node);

    file->fd = -1;
    file->lock_fd = -1;
    file->next.fd = -1;
    file->reopen.fd = -1;
    file->request_alignment = 1;
    if (!co_open_with(node, options, device, err)) {
        file_co_close(node);
        return false;
    }
    node_set_read_flags(node, IO_PREFETCH);
    node_set_flags(node, IO_FUA | IO_UNCHANGED, IO_MAY_UNMAP | IO_NO_FALLBACK | IO_UNCHANGED);
    return true;
}

void CO_FN file_co_close(struct node *node)
{
    struct file_node *file = node_state(node);

    assert(file->next.fd == -1);
    file_co_release_reserved(file);
    if (file->fd != file->lock_fd)
        fd_close(file->fd);
    fd_close(file->lock_fd);
    file->fd = -1;
    file->lock_fd = -1;
    object_release(file->pr_manager);
    file->pr_manager = NULL;
    g_clear_pointer(&file->path, g_free);
    g_clear_pointer(&file->shown_path, g_free);
    co_rwlock_done(&file->growth);
    co_mutex_done(&file->copying);
}
