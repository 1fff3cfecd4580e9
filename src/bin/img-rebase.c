/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ashlar-img rebase: puts an image on another backing image. What the old one shows and the new one does not is copied
 * into the image first; -u leaves that out.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/io-vector.h"
#include "base/log.h"
#include "bin/img.h"
#include "block/describe.h"
#include "block/driver.h"
#include "block/filename-options.h"
#include "block/handle.h"
#include "block/image.h"
#include "block/node.h"
#include "cli/progress.h"
#include "gen/types.h"
#include "loop/loop.h"

enum { REBASE_UNSAFE = IMG_OWN, REBASE_BACKING_FILE, REBASE_BACKING_FORMAT, REBASE_COMPRESS };
enum { PIECE_BYTES = 2 << 20, UNIT_DEFAULT = 65536 };

static const struct option options[] = {
    IMG_OPTION_OBJECT,
    IMG_OPTION_IMAGE_OPTS,
    IMG_OPTION_FORCE_SHARE,
    IMG_OPTION_QUIET,
    IMG_OPTION_FORMAT,
    IMG_OPTION_CACHE("writeback"),
    IMG_OPTION_SOURCE_CACHE,
    IMG_OPTION_PROGRESS,
    {"", 'u', NULL, "change the names only: the two show the same", REBASE_UNSAFE},
    {"compress", 'c', NULL, "compress what is copied", REBASE_COMPRESS},
    {"", 'b', "BACKING_FILE", "the new backing image; an empty name: none", REBASE_BACKING_FILE},
    {"", 'F', "BACKING_FMT", "its format", REBASE_BACKING_FORMAT},
    {0},
};

struct rebase {
    struct img *img;
    const char *filename;
    const char *backing_file; /* NULL or empty: none */
    const char *backing_format;
    bool unsafe;
    bool compress;

    struct image *image;
    struct image *below; /* the new backing image; NULL: none */
    uint64_t unit;       /* what is written at least */
    uint8_t *old;        /* PIECE_BYTES each */
    uint8_t *new;
    struct progress progress;
};

/* --- copying what would be missed --- */

/* What the new backing image shows there. */
static int CO_FN co_read_below(struct rebase *rebase, uint64_t offset, uint64_t bytes)
{
    uint64_t length = rebase->below ? handle_length(rebase->below->handle) : 0;
    uint64_t there = offset < length ? MIN(bytes, length - offset) : 0;

    memset(rebase->new + there, 0, bytes - there);
    return there ? co_handle_pread(rebase->below->handle, offset, there, rebase->new, 0) : 0;
}

static int CO_FN co_write(struct rebase *rebase, uint64_t offset, uint64_t bytes, const uint8_t *data)
{
    if (memory_is_zero(data, bytes))
        return co_handle_pwrite_zeroes(rebase->image->handle, offset, bytes, 0);
    return co_handle_pwrite(rebase->image->handle, offset, bytes, data, rebase->compress ? IO_COMPRESSED : 0);
}

/* Unit by unit, neighbours at once. */
static int CO_FN co_write_differences(struct rebase *rebase, uint64_t offset, uint64_t bytes)
{
    uint64_t at = 0;

    while (at < bytes) {
        uint64_t end = at;
        int result;

        while (end < bytes) {
            uint64_t size = MIN(rebase->unit - (offset + end) % rebase->unit, bytes - end);

            if (!memcmp(rebase->old + end, rebase->new + end, size))
                break;
            end += size;
            if (rebase->compress)
                break;
        }
        if (end == at) {
            at += MIN(rebase->unit - (offset + at) % rebase->unit, bytes - at);
            continue;
        }
        result = co_write(rebase, offset + at, end - at, rebase->old + at);
        if (result < 0)
            return result;
        at = end;
    }
    return 0;
}

/* Whether both show zeroes from `offset` on; how far in *bytes. */
static bool CO_FN co_both_zero(struct rebase *rebase, uint64_t offset, uint64_t *bytes)
{
    uint64_t length = rebase->below ? handle_length(rebase->below->handle) : 0;
    struct block_extent extent;

    if (co_handle_block_status(rebase->image->handle, offset, *bytes, &extent) || !(extent.flags & BLOCK_ZERO))
        return false;
    *bytes = extent.bytes;
    if (offset >= length)
        return true;
    if (co_handle_block_status(rebase->below->handle, offset, MIN(*bytes, length - offset), &extent) ||
        !(extent.flags & BLOCK_ZERO))
        return false;
    *bytes = extent.bytes;
    return true;
}

/* A range that the image itself does not have. */
static bool CO_FN co_rebase_range(struct rebase *rebase, uint64_t offset, uint64_t bytes, struct error **err)
{
    uint64_t end = offset + bytes;

    while (offset < end) {
        uint64_t size = end - offset;
        int result;

        if (!co_both_zero(rebase, offset, &size)) {
            size = MIN(end - offset, PIECE_BYTES);
            result = co_handle_pread(rebase->image->handle, offset, size, rebase->old, 0);
            if (result < 0)
                return error_set_errno(err, result, "error while reading from old backing file");
            result = co_read_below(rebase, offset, size);
            if (result < 0)
                return error_set_errno(err, result, "error while reading from new backing file");
            result = co_write_differences(rebase, offset, size);
            if (result < 0)
                return error_set_errno(err, result, "Error while writing to COW image");
        }
        offset += size;
        progress_add(&rebase->progress, size);
    }
    return true;
}

static bool CO_FN co_copy_differences(struct rebase *rebase, struct error **err)
{
    uint64_t length = handle_length(rebase->image->handle);

    for (uint64_t offset = 0; offset < length;) {
        uint64_t bytes;
        int depth = co_handle_allocation_depth(rebase->image->handle, offset, length - offset, &bytes);

        if (depth < 0)
            return error_set_errno(err, depth, "error while reading image metadata");
        if (depth == 1)
            progress_add(&rebase->progress, bytes);
        else if (!co_rebase_range(rebase, offset, bytes, err))
            return false;
        offset += bytes;
    }
    return true;
}

/* --- opening --- */

static bool CO_FN co_open_image(struct rebase *rebase, struct error **err)
{
    struct image_open open = img_open_options(rebase->img, rebase->filename);
    AUTO(image_info) info = NULL;

    open.writable = true;
    open.no_backing = rebase->unsafe;
    open.force_share = false;
    open.unmap = true;
    open.cache = rebase->img->cache;
    rebase->image = co_image_open(rebase->img->tool, &open, err);
    if (!rebase->image)
        return false;
    info = co_node_describe_image(rebase->image->node, false);
    rebase->unit = info->has_cluster_size ? (uint64_t)info->cluster_size : UNIT_DEFAULT;
    return true;
}

static bool CO_FN co_open_below(struct rebase *rebase, struct error **err)
{
    g_autofree char *base = node_base_filename(rebase->image->node);
    g_autofree char *resolved = filename_resolve(base, rebase->backing_file, err);
    struct image_open open = {
        .filename = resolved,
        .format = rebase->backing_format,
        .force_share = rebase->img->force_share,
        .cache = rebase->img->source_cache,
        .plain_errors = true,
    };

    rebase->below = resolved ? co_image_open(rebase->img->tool, &open, err) : NULL;
    return rebase->below || error_prefix(err, "Could not open new backing file '%s': ", rebase->backing_file);
}

static bool CO_FN co_change_header(struct rebase *rebase, struct error **err)
{
    const struct block_driver_image *driver = node_driver(rebase->image->node)->image;
    bool none = !rebase->backing_file || !*rebase->backing_file;
    struct error *problem = NULL;

    if (!driver || !driver->co_change_backing_file)
        error_set(&problem, "Operation not supported");
    else if (!none && !rebase->backing_format)
        error_set(&problem, "backing format must be specified");
    else
        (void)driver->co_change_backing_file(rebase->image->node, none ? NULL : rebase->backing_file,
                                             none ? NULL : rebase->backing_format, &problem);
    if (!problem)
        return true;
    error_prefix(&problem,
                 "Could not change the backing file to '%s': ", rebase->backing_file ? rebase->backing_file : "");
    return error_move(err, problem);
}

static bool CO_FN co_rebase_safely(struct rebase *rebase, struct error **err)
{
    bool ok;

    if (rebase->backing_file && *rebase->backing_file && !co_open_below(rebase, err))
        return false;
    rebase->old = loop_buffer_get(PIECE_BYTES);
    rebase->new = loop_buffer_get(PIECE_BYTES);
    if (!rebase->old || !rebase->new)
        return error_set(err, "Out of memory");
    progress_begin(&rebase->progress, rebase->img->progress, handle_length(rebase->image->handle));
    ok = co_copy_differences(rebase, err);
    co_progress_end(&rebase->progress, ok);
    return ok;
}

static bool CO_FN co_rebase(struct rebase *rebase, struct error **err)
{
    if (!co_open_image(rebase, err))
        return false;
    if (!rebase->unsafe && !co_rebase_safely(rebase, err))
        return false;
    return co_change_header(rebase, err);
}

static void CO_FN co_done(struct rebase *rebase)
{
    if (rebase->old)
        loop_buffer_put(rebase->old, PIECE_BYTES);
    if (rebase->new)
        loop_buffer_put(rebase->new, PIECE_BYTES);
    co_image_close(rebase->img->tool, rebase->image);
    co_image_close(rebase->img->tool, rebase->below);
}

static int CO_FN co_run_command(struct img *img)
{
    struct rebase rebase = {.img = img};
    struct error *error = NULL;

    for (size_t i = 0; i < img->options->count; i++) {
        const struct option_use *use = &img->options->items[i];
        int id = use->option ? use->option->id : -1;

        rebase.unsafe |= id == REBASE_UNSAFE;
        rebase.compress |= id == REBASE_COMPRESS;
        if (id == REBASE_BACKING_FILE)
            rebase.backing_file = use->value;
        else if (id == REBASE_BACKING_FORMAT)
            rebase.backing_format = use->value;
    }
    rebase.filename = img_one_filename(img);
    if (!rebase.filename)
        return EXIT_FAILURE;
    if (!rebase.unsafe && !rebase.backing_file)
        return img_misuse(img, "Must specify backing file (-b) or use unsafe mode (-u)");
    if (rebase.backing_format && blockdev_driver_value(rebase.backing_format) < 0) {
        log_error("Invalid format name: '%s'", rebase.backing_format);
        return EXIT_FAILURE;
    }
    (void)co_rebase(&rebase, &error);
    co_done(&rebase);
    return error ? img_fail(error) : EXIT_SUCCESS;
}

const struct img_command img_rebase = {
    .name = "rebase",
    .about = "Puts an image on another backing image.",
    .arguments = "FILENAME",
    .options = options,
    .co_run = co_run_command,
};
