/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-img snapshot: internal snapshots of an image. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "bin/img-text.h"
#include "bin/img.h"
#include "block/driver.h"
#include "block/image.h"
#include "block/node.h"
#include "gen/types.h"
#include "loop/loop.h"

enum { SNAPSHOT_LIST = IMG_OWN, SNAPSHOT_APPLY, SNAPSHOT_CREATE, SNAPSHOT_DELETE };

static const struct option options[] = {
    IMG_OPTION_OBJECT,
    IMG_OPTION_IMAGE_OPTS,
    IMG_OPTION_FORCE_SHARE,
    IMG_OPTION_QUIET,
    IMG_OPTION_FORMAT,
    {"", 'l', NULL, "list all (the default)", SNAPSHOT_LIST},
    {"", 'a', "SNAPSHOT", "make the image what it was then", SNAPSHOT_APPLY},
    {"", 'c', "SNAPSHOT", "take one of this name", SNAPSHOT_CREATE},
    {"", 'd', "SNAPSHOT", "delete it: by name or else by id", SNAPSHOT_DELETE},
    {0},
};

static const struct block_driver_image no_image = {0};

static const struct block_driver_image *driver_of(const struct image *image)
{
    const struct block_driver_image *driver = node_driver(image->node)->image;

    return driver ? driver : &no_image;
}

static bool CO_FN co_list(struct image *image, struct error **err)
{
    const struct block_driver_image *driver = driver_of(image);
    AUTO(snapshot_info_array) snapshots = NULL;

    if (!driver->co_snapshot_list)
        return true;
    snapshots = driver->co_snapshot_list(image->node, err);
    if (snapshots && snapshots->count) {
        printf("Snapshot list:\n");
        img_print_snapshots(snapshots);
    }
    return snapshots;
}

static bool CO_FN co_create(struct image *image, const char *name, struct error **err)
{
    const struct block_driver_image *driver = driver_of(image);
    AUTO(snapshot_info) info = g_new0(struct snapshot_info, 1);
    int64_t now_us = loop_wall_time_us();

    if (!driver->co_snapshot_create)
        return error_set(err, "Could not create snapshot '%s': -95 (Operation not supported)", name);
    info->name = g_strdup(name);
    info->date_sec = now_us / 1000000;
    info->date_nsec = now_us % 1000000 * 1000;
    info->has_icount = true;
    return driver->co_snapshot_create(image->node, info, err) ||
           error_prefix(err, "Could not create snapshot '%s': ", name);
}

static bool CO_FN co_apply(struct image *image, const char *name, struct error **err)
{
    const struct block_driver_image *driver = driver_of(image);

    if (!driver->co_snapshot_apply)
        return error_set(err, "Could not apply snapshot '%s': Block driver does not support snapshots", name);
    return driver->co_snapshot_apply(image->node, name, err) ||
           error_prefix(err, "Could not apply snapshot '%s': ", name);
}

/* By name, or else by id; NULL: there is none. */
static const struct snapshot_info *find(const struct snapshot_info_array *snapshots, const char *selector)
{
    for (size_t i = 0; i < snapshots->count; i++) {
        if (!strcmp(snapshots->items[i]->name, selector))
            return snapshots->items[i];
    }
    for (size_t i = 0; i < snapshots->count; i++) {
        if (!strcmp(snapshots->items[i]->id, selector))
            return snapshots->items[i];
    }
    return NULL;
}

static bool CO_FN co_delete(struct image *image, const char *selector, struct error **err)
{
    const struct block_driver_image *driver = driver_of(image);
    AUTO(snapshot_info_array) snapshots = NULL;
    AUTO(snapshot_info) deleted = NULL;
    const struct snapshot_info *found;

    if (!driver->co_snapshot_list || !driver->co_snapshot_delete)
        return error_set(err, "Could not delete snapshot '%s': snapshot not found", selector);
    snapshots = driver->co_snapshot_list(image->node, err);
    if (!snapshots)
        return false;
    found = find(snapshots, selector);
    if (!found)
        return error_set(err, "Could not delete snapshot '%s': snapshot not found", selector);
    deleted = driver->co_snapshot_delete(image->node, found->id, found->name, err);
    return deleted || error_prefix(err, "Could not delete snapshot '%s': ", selector);
}

static bool CO_FN co_act(struct image *image, int action, const char *name, struct error **err)
{
    switch (action) {
    case SNAPSHOT_CREATE:
        return co_create(image, name, err);
    case SNAPSHOT_APPLY:
        return co_apply(image, name, err);
    case SNAPSHOT_DELETE:
        return co_delete(image, name, err);
    default:
        return co_list(image, err);
    }
}

static int CO_FN co_run_command(struct img *img)
{
    struct image_open open;
    struct error *error = NULL;
    const char *filename;
    const char *name = NULL;
    struct image *image;
    int action = 0;

    for (size_t i = 0; i < img->options->count; i++) {
        const struct option_use *use = &img->options->items[i];

        if (!use->option || use->option->id < SNAPSHOT_LIST)
            continue;
        if (action)
            return img_misuse(img, "Cannot mix '-l', '-a', '-c', '-d'");
        action = use->option->id;
        name = use->value;
    }
    filename = img_one_filename(img);
    if (!filename)
        return EXIT_FAILURE;
    open = img_open_options(img, filename);
    open.writable = action && action != SNAPSHOT_LIST;
    open.resizable = action == SNAPSHOT_APPLY;
    open.unmap = true;
    open.no_backing = true;
    image = co_image_open(img->tool, &open, &error);
    if (!image)
        return img_fail(error);
    (void)co_act(image, action, name, &error);
    co_image_close(img->tool, image);
    return error ? img_fail(error) : EXIT_SUCCESS;
}

const struct img_command img_snapshot = {
    .name = "snapshot",
    .about = "Lists, takes, applies and deletes internal snapshots.",
    .arguments = "FILENAME",
    .options = options,
    .co_run = co_run_command,
};
