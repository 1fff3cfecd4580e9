/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Making a file. It is opened through a node that shares nothing, so that one in use by somebody else is refused as
 * ever. What it held before is gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>

#include "base/error.h"
#include "block/graph.h"
#include "block/image.h"
#include "driver/protocol/file/file.h"

enum { EXTENT_SIZE_HINT = 1024 * 1024 };

static bool check_options(const struct blockdev_create_options_file *options, struct error **err)
{
    enum prealloc_mode mode = options->has_preallocation ? options->preallocation : PREALLOC_MODE_OFF;

    if (mode == PREALLOC_MODE_METADATA)
        return error_set(err, "Unsupported preallocation mode: %s", prealloc_mode_name(mode));
    if (options->has_extent_size_hint && options->extent_size_hint > UINT32_MAX)
        return error_set(err, "Extent size hint is too large: %" PRIu64 " bytes, at most %" PRIu32,
                         options->extent_size_hint, UINT32_MAX);
    if (options->size > NODE_LENGTH_MAX)
        return error_set_errno(err, EFBIG, "Could not resize file to %" PRIu64 " bytes", options->size);
    return true;
}

/* Where the file system knows neither, there is nothing to be gained; a hint that the user has asked for must take. */
static bool CO_FN co_set_attributes(int fd, const struct blockdev_create_options_file *options, struct error **err)
{
    uint64_t hint = options->has_extent_size_hint ? options->extent_size_hint : EXTENT_SIZE_HINT;
    struct fsxattr attributes;
    long flags;
    int result;

    if (options->has_nocow && options->nocow && co_file_ioctl(fd, FS_IOC_GETFLAGS, &flags) >= 0) {
        flags |= FS_NOCOW_FL;
        (void)co_file_ioctl(fd, FS_IOC_SETFLAGS, &flags);
    }
    if (!hint || co_file_ioctl(fd, FS_IOC_FSGETXATTR, &attributes) < 0)
        return true;
    attributes.fsx_xflags |= FS_XFLAG_EXTSIZE;
    attributes.fsx_extsize = (uint32_t)hint;
    result = co_file_ioctl(fd, FS_IOC_FSSETXATTR, &attributes);
    if (result < 0 && result != -EOPNOTSUPP && result != -ENOTTY && options->has_extent_size_hint)
        return error_set_errno(err, result, "Could not set an extent size hint of %" PRIu64 " bytes", hint);
    return true;
}

static struct handle *CO_FN co_open_node(struct graph *graph, const char *filename, struct error **err)
{
    struct blockdev_options definition = {
        .driver = BLOCKDEV_DRIVER_FILE,
        .u.file = {.filename = (char *)(uintptr_t)filename},
    };
    struct blockdev_ref ref = {.kind = BLOCKDEV_REF_KIND_DEFINITION, .u.definition = &definition};
    struct handle_options options = {.name = "blockdev-create", .perm = PERM_WRITE | PERM_RESIZE};

    return co_graph_open(graph, &ref, &options, err);
}

/* Empties the file first: what it holds is nobody's any more, and attributes take on empty files only. */
static bool CO_FN co_make(struct handle *handle, int fd, const struct blockdev_create_options_file *options,
                          struct error **err)
{
    struct truncate_request request = {
        .length = options->size,
        .exact = true,
        .preallocation = options->has_preallocation ? options->preallocation : PREALLOC_MODE_OFF,
    };

    return !co_handle_truncate(handle, 0, err) && co_set_attributes(fd, options, err) &&
           !co_handle_truncate_as(handle, &request, err);
}

bool CO_FN file_co_create(struct graph *graph, const struct blockdev_create_options *all, struct error **err)
{
    const struct blockdev_create_options_file *options = &all->u.file;
    struct handle *handle;
    AUTO(fd) fd = -1;
    bool ok;

    if (!check_options(options, err))
        return false;
    fd = co_file_open(options->filename, O_RDWR | O_CREAT | O_NOCTTY | O_NONBLOCK, 0644);
    if (fd < 0)
        return error_set_errno(err, fd, "Could not create '%s'", options->filename);
    handle = co_open_node(graph, options->filename, err);
    if (!handle)
        return false;
    ok = co_make(handle, fd, options, err);
    co_handle_free(handle);
    return ok;
}

static const struct image_option file_image_options[] = {
    {"size", IMAGE_OPTION_SIZE, "Virtual disk size", "size"},
    {"nocow", IMAGE_OPTION_BOOL, "Turn off copy-on-write (valid only on btrfs)", "nocow"},
    {"preallocation", IMAGE_OPTION_STRING, "Preallocation mode (allowed values: off, falloc, full)", "preallocation"},
    {"extent_size_hint", IMAGE_OPTION_SIZE, "Extent size hint for the image file, 0 to disable", "extent-size-hint"},
    {NULL},
};

const struct block_driver_image file_image = {
    .co_create = file_co_create,
    .options = file_image_options,
};
