/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-img bitmap: the dirty bitmaps that are stored in an image. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "bin/img.h"
#include "block/dirty-bitmap-action.h"
#include "block/node.h"
#include "block/transaction.h"
#include "cli/tool.h"
#include "gen/types.h"

enum {
    BITMAP_MERGE = IMG_OWN,
    BITMAP_ADD,
    BITMAP_REMOVE,
    BITMAP_CLEAR,
    BITMAP_ENABLE,
    BITMAP_DISABLE,
    BITMAP_SOURCE_FILE,
    BITMAP_SOURCE_FORMAT,
    BITMAP_GRANULARITY,
};

static const struct option options[] = {
    {"merge", 0, "SOURCE", "add what is dirty in the bitmap SOURCE", BITMAP_MERGE},
    {"add", 0, NULL, "make it", BITMAP_ADD},
    {"remove", 0, NULL, "remove it", BITMAP_REMOVE},
    {"clear", 0, NULL, "make all of it clean", BITMAP_CLEAR},
    {"enable", 0, NULL, "let it record changes", BITMAP_ENABLE},
    {"disable", 0, NULL, "let it record no changes", BITMAP_DISABLE},
    {"source-file", 'b', "SOURCE_FILE", "the image that has SOURCE (default: the same)", BITMAP_SOURCE_FILE},
    {"source-format", 'F', "SOURCE_FMT", "its format", BITMAP_SOURCE_FORMAT},
    {"granularity", 'g', "GRANULARITY", "bytes that a bit of the new bitmap stands for", BITMAP_GRANULARITY},
    IMG_OPTION_OBJECT,
    IMG_OPTION_IMAGE_OPTS,
    IMG_OPTION_FORMAT,
    {0},
};

struct bitmap_run {
    struct img *img;
    const char *source_file;
    const char *source_format;
    uint64_t granularity; /* 0: the default */
    const char *name;
    struct image *image;
    struct image *source; /* NULL: the same */
};

static bool is_action(int id)
{
    return id >= BITMAP_MERGE && id <= BITMAP_DISABLE;
}

static bool CO_FN co_add(const struct bitmap_run *run, struct transaction *transaction, struct error **err)
{
    struct block_dirty_bitmap_add what = {
        .node = run->image->name,
        .name = (char *)(uintptr_t)run->name,
        .has_granularity = run->granularity > 0,
        .granularity = (uint32_t)run->granularity,
        .has_persistent = true,
        .persistent = true,
    };

    return co_dirty_bitmap_do_add(transaction, run->img->tool->graph, &what, err);
}

static bool merge(const struct bitmap_run *run, struct transaction *transaction, const char *source, struct error **err)
{
    struct block_dirty_bitmap_or_str from = {
        .kind = BLOCK_DIRTY_BITMAP_OR_STR_KIND_EXTERNAL,
        .u.external =
            &(struct block_dirty_bitmap){
                .node = run->source ? run->source->name : run->image->name,
                .name = (char *)(uintptr_t)source,
            },
    };
    struct block_dirty_bitmap_or_str *items[] = {&from};
    struct block_dirty_bitmap_or_str_array sources = {.count = 1, .items = items};
    struct block_dirty_bitmap_merge what = {
        .node = run->image->name,
        .target = (char *)(uintptr_t)run->name,
        .bitmaps = &sources,
    };

    return dirty_bitmap_do_merge(transaction, run->img->tool->graph, &what, err);
}

static bool CO_FN co_do(const struct bitmap_run *run, struct transaction *transaction, const struct option_use *use,
                        struct error **err)
{
    struct block_dirty_bitmap what = {.node = run->image->name, .name = (char *)(uintptr_t)run->name};
    struct graph *graph = run->img->tool->graph;

    switch (use->option->id) {
    case BITMAP_ADD:
        return co_add(run, transaction, err);
    case BITMAP_REMOVE:
        return co_dirty_bitmap_do_remove(transaction, graph, &what, err);
    case BITMAP_CLEAR:
        return dirty_bitmap_do_clear(transaction, graph, &what, err);
    case BITMAP_ENABLE:
        return dirty_bitmap_do_enable(transaction, graph, &what, err);
    case BITMAP_DISABLE:
        return dirty_bitmap_do_disable(transaction, graph, &what, err);
    default:
        return merge(run, transaction, use->value, err);
    }
}

/* In the order of the command line, until one fails. */
static bool CO_FN co_act(const struct bitmap_run *run, struct error **err)
{
    for (size_t i = 0; i < run->img->options->count; i++) {
        const struct option_use *use = &run->img->options->items[i];
        struct transaction *transaction;

        if (!use->option || !is_action(use->option->id))
            continue;
        transaction = transaction_new();
        if (!co_transaction_end(transaction, co_do(run, transaction, use, err)))
            return error_prefix(err, "Operation %s on bitmap %s failed: ", use->option->name, run->name);
    }
    return true;
}

static bool CO_FN co_open_images(struct bitmap_run *run, const char *filename, struct error **err)
{
    struct image_open open = img_open_options(run->img, filename);
    struct image_open source = {.filename = run->source_file, .format = run->source_format, .no_backing = true};

    open.writable = true;
    open.no_backing = true;
    run->image = co_image_open(run->img->tool, &open, err);
    if (!run->image)
        return false;
    if (!run->source_file)
        return true;
    run->source = co_image_open(run->img->tool, &source, err);
    return run->source;
}

/* False: reported. */
static bool take_options(struct bitmap_run *run, const char **ret_problem)
{
    bool add = false;
    bool merges = false;
    bool any = false;

    for (size_t i = 0; i < run->img->options->count; i++) {
        const struct option_use *use = &run->img->options->items[i];
        int id = use->option ? use->option->id : -1;

        any |= is_action(id);
        add |= id == BITMAP_ADD;
        merges |= id == BITMAP_MERGE;
        if (id == BITMAP_SOURCE_FILE)
            run->source_file = use->value;
        else if (id == BITMAP_SOURCE_FORMAT)
            run->source_format = use->value;
        else if (id == BITMAP_GRANULARITY && !img_parse_size("granularity", use->value, &run->granularity))
            return false;
    }
    if (!any)
        *ret_problem = "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge";
    else if (run->granularity && !add)
        *ret_problem = "granularity only supported with --add";
    else if (run->granularity > UINT32_MAX)
        *ret_problem = "granularity must be at most 2 GiB";
    else if (run->source_format && !run->source_file)
        *ret_problem = "-F only supported with -b";
    else if (run->source_file && !merges)
        *ret_problem = "Merge bitmap source file only supported with --merge";
    else if (run->img->argument_count != 2)
        *ret_problem = "Expecting filename and bitmap name";
    return true;
}

static int CO_FN co_run_command(struct img *img)
{
    struct bitmap_run run = {.img = img};
    const char *problem = NULL;
    struct error *error = NULL;

    if (!take_options(&run, &problem))
        return EXIT_FAILURE;
    if (problem) {
        log_error("%s", problem);
        return EXIT_FAILURE;
    }
    run.name = img->arguments[1];
    if (co_open_images(&run, img->arguments[0], &error))
        (void)co_act(&run, &error);
    co_image_close(img->tool, run.source);
    co_image_close(img->tool, run.image);
    return error ? img_fail(error) : EXIT_SUCCESS;
}

const struct img_command img_bitmap = {
    .name = "bitmap",
    .about = "Changes a dirty bitmap that is stored in an image.",
    .arguments = "FILENAME BITMAP",
    .options = options,
    .co_run = co_run_command,
};
