/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-img commit: writes what an image has changed to an image below it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "bin/img-chain.h"
#include "bin/img-copy.h"
#include "bin/img.h"
#include "block/driver.h"
#include "block/filename-options.h"
#include "block/handle.h"
#include "block/image.h"
#include "block/node.h"
#include "cli/progress.h"
#include "gen/types.h"

enum { COMMIT_BASE = IMG_OWN, COMMIT_KEEP, COMMIT_RATE };

static const struct option options[] = {
    IMG_OPTION_OBJECT,
    IMG_OPTION_IMAGE_OPTS,
    IMG_OPTION_QUIET,
    IMG_OPTION_FORMAT,
    IMG_OPTION_CACHE("writeback"),
    {"", 'b', "BASE", "the image below to write to (default: the next one); implies -d", COMMIT_BASE},
    {"", 'r', "RATE_LIMIT", "bytes a second at most", COMMIT_RATE},
    {"", 'd', NULL, "leave the image as it is, rather than emptying it", COMMIT_KEEP},
    IMG_OPTION_PROGRESS,
    {0},
};

struct commit {
    struct img *img;
    const char *filename;
    const char *base;
    bool keep;
    uint64_t rate;
    GPtrArray *chain;  /* struct image_info *, the top first */
    unsigned depth;    /* of the base in it */
    GPtrArray *opened; /* struct image *, the base first, the top last */
};

/* Whether the one at `index`, below the top, is what the user calls `name`. */
static bool is_called(const struct commit *commit, unsigned index, const char *name)
{
    const struct image_info *above = g_ptr_array_index(commit->chain, index - 1);
    const struct image_info *info = g_ptr_array_index(commit->chain, index);
    g_autofree char *resolved = filename_resolve(commit->filename, name, NULL);

    return !strcmp(name, above->backing_filename) || !g_strcmp0(name, above->full_backing_filename) ||
           !strcmp(name, info->filename) || !g_strcmp0(resolved, above->full_backing_filename);
}

static bool find_base(struct commit *commit, struct error **err)
{
    if (commit->chain->len < 2)
        return error_set(err, "Image does not have a backing file");
    commit->depth = 1;
    if (!commit->base)
        return true;
    for (; commit->depth < commit->chain->len; commit->depth++) {
        if (is_called(commit, commit->depth, commit->base))
            return true;
    }
    return error_set(err, "Did not find '%s' in the backing chain of '%s'", commit->base, commit->filename);
}

/* Opens the layer `index` on top of those opened before. */
static bool CO_FN co_open_layer(struct commit *commit, unsigned index, struct error **err)
{
    const struct image_info *above = index ? g_ptr_array_index(commit->chain, index - 1) : NULL;
    struct image_open open = img_open_options(commit->img, commit->filename);
    struct image *image;

    if (above) {
        open.filename = above->full_backing_filename;
        open.format = above->backing_filename_format;
        open.image_opts = false;
    }
    if (commit->opened->len)
        open.backing_node = ((struct image *)g_ptr_array_index(commit->opened, commit->opened->len - 1))->name;
    open.writable = !index || index == commit->depth;
    open.resizable = index == commit->depth;
    open.unmap = true;
    open.cache = commit->img->cache;
    image = co_image_open(commit->img->tool, &open, err);
    if (image)
        g_ptr_array_add(commit->opened, image);
    return image;
}

static bool CO_FN co_copy_layers(struct commit *commit, struct image *top, struct image *base, struct error **err)
{
    uint64_t length = handle_length(top->handle);
    struct progress progress;
    struct img_copy copy = {
        .sources = &top->handle,
        .source_count = 1,
        .target = base->handle,
        .length = length,
        .backing_length = UINT64_MAX,
        .layers = commit->depth,
        .sparse = 4096,
        .rate = commit->rate,
        .progress = &progress,
        .any_order = true,
    };
    bool ok;

    if (handle_length(base->handle) < length && co_handle_truncate(base->handle, length, err) < 0)
        return error_prefix(err, "Could not resize '%s': ", base->filename);
    progress_begin(&progress, commit->img->progress, length);
    ok = co_img_copy(&copy, err);
    co_progress_end(&progress, ok);
    return ok;
}

static bool CO_FN co_empty(struct image *top, struct error **err)
{
    const struct block_driver_image *driver = node_driver(top->node)->image;
    int result = driver && driver->co_make_empty ? driver->co_make_empty(top->node) : -ENOTSUP;

    /* What is left there is what the base has now. */
    return result == 0 || result == -ENOTSUP || error_set_errno(err, result, "Could not empty %s", top->filename);
}

static bool CO_FN co_commit_opened(struct commit *commit, struct error **err)
{
    struct image *base = g_ptr_array_index(commit->opened, 0);
    struct image *top = g_ptr_array_index(commit->opened, commit->opened->len - 1);
    int result;

    if (!co_copy_layers(commit, top, base, err))
        return false;
    result = co_handle_flush(base->handle);
    if (result < 0)
        return error_set_errno(err, result, "Could not flush '%s'", base->filename);
    return commit->keep || commit->base || co_empty(top, err);
}

static bool CO_FN co_commit(struct commit *commit, struct error **err)
{
    struct image_open open = img_open_options(commit->img, commit->filename);

    commit->chain = co_img_chain(commit->img->tool, &open, true, err);
    if (!commit->chain || !find_base(commit, err))
        return false;
    for (unsigned index = commit->depth + 1; index > 0; index--) {
        if (!co_open_layer(commit, index - 1, err))
            return false;
    }
    return co_commit_opened(commit, err);
}

static int CO_FN co_run_command(struct img *img)
{
    struct commit commit = {.img = img};
    struct error *error = NULL;

    for (size_t i = 0; i < img->options->count; i++) {
        const struct option_use *use = &img->options->items[i];
        int id = use->option ? use->option->id : -1;

        commit.keep |= id == COMMIT_KEEP;
        if (id == COMMIT_BASE)
            commit.base = use->value;
        else if (id == COMMIT_RATE && !img_parse_size("rate limit", use->value, &commit.rate))
            return EXIT_FAILURE;
    }
    commit.filename = img_one_filename(img);
    if (!commit.filename)
        return EXIT_FAILURE;
    commit.opened = g_ptr_array_new();
    (void)co_commit(&commit, &error);
    while (commit.opened->len)
        co_image_close(img->tool, g_ptr_array_remove_index(commit.opened, commit.opened->len - 1));
    g_ptr_array_free(commit.opened, true);
    g_clear_pointer(&commit.chain, g_ptr_array_unref);
    if (error)
        return img_fail(error);
    if (!img->quiet)
        printf("Image committed.\n");
    return EXIT_SUCCESS;
}

const struct img_command img_commit = {
    .name = "commit",
    .about = "Writes what an image has changed to the image below it.",
    .arguments = "FILENAME",
    .options = options,
    .co_run = co_run_command,
};
