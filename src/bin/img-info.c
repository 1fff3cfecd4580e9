/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-img info: what an image is, and with --backing-chain what its backing images are. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "bin/img-chain.h"
#include "bin/img-text.h"
#include "bin/img.h"
#include "cli/size-text.h"
#include "gen/types.h"
#include "schema/json.h"

enum { INFO_BACKING_CHAIN = IMG_OWN, INFO_LIMITS };

static const struct option options[] = {
    IMG_OPTION_OBJECT,
    IMG_OPTION_IMAGE_OPTS,
    IMG_OPTION_FORMAT,
    IMG_OPTION_OUTPUT,
    {"backing-chain", 0, NULL, "the backing images too, from the top down", INFO_BACKING_CHAIN},
    {"limits", 0, NULL, "the limits of requests to it too", INFO_LIMITS},
    IMG_OPTION_FORCE_SHARE,
    {0},
};

/* --- for people --- */

static void print_limits(const struct block_limits_info *limits)
{
    AUTO(json) json = block_limits_info_write(limits);

    printf("Block limits:\n");
    img_print_members(json, 1);
}

static void print_backing(const struct image_info *info)
{
    if (!info->backing_filename)
        return;
    printf("backing file: %s", info->backing_filename);
    if (!info->full_backing_filename)
        printf(" (cannot determine actual path)");
    else if (strcmp(info->backing_filename, info->full_backing_filename) != 0)
        printf(" (actual path: %s)", info->full_backing_filename);
    printf("\n");
    if (info->backing_filename_format)
        printf("backing file format: %s\n", info->backing_filename_format);
}

static void print_snapshots(const struct image_info *info)
{
    if (!info->snapshots || !info->snapshots->count)
        return;
    printf("Snapshot list:\n");
    img_print_snapshots(info->snapshots);
}

static void print_specific(const struct image_info *info)
{
    AUTO(json) json = info->format_specific ? image_info_specific_write(info->format_specific) : NULL;
    const struct json *data = json ? json_get(json, "data") : NULL;

    if (!data || !json_count(data))
        return;
    printf("Format specific information:\n");
    img_print_members(data, 1);
}

static void print_human(const struct image_info *info)
{
    g_autofree char *size = size_text((uint64_t)info->virtual_size);
    g_autofree char *disk = info->has_actual_size ? size_text((uint64_t)info->actual_size) : g_strdup("unavailable");

    printf("image: %s\n"
           "file format: %s\n"
           "virtual size: %s (%" PRId64 " bytes)\n"
           "disk size: %s\n",
           info->filename, info->format, size, info->virtual_size, disk);
    if (info->has_encrypted && info->encrypted)
        printf("encrypted: yes\n");
    if (info->has_cluster_size)
        printf("cluster_size: %" PRId64 "\n", info->cluster_size);
    if (info->has_dirty_flag && info->dirty_flag)
        printf("cleanly shut down: no\n");
    print_backing(info);
    print_snapshots(info);
    print_specific(info);
    if (info->limits)
        print_limits(info->limits);
}

/* --- all --- */

static void drop_limits(struct image_info *info)
{
    block_limits_info_free(info->limits);
    info->limits = NULL;
}

static void print_as_json(const GPtrArray *array, bool chain)
{
    AUTO(json) json = json_array();

    for (unsigned i = 0; i < array->len; i++)
        json_append(json, image_info_write(g_ptr_array_index(array, i)));
    img_print_json(chain ? json : json_at(json, 0));
}

static void print(const GPtrArray *array)
{
    for (unsigned i = 0; i < array->len; i++) {
        if (i)
            printf("\n");
        print_human(g_ptr_array_index(array, i));
    }
}

static int CO_FN co_run_command(struct img *img)
{
    const char *filename = img_one_filename(img);
    g_autoptr(GPtrArray) array = NULL;
    struct error *error = NULL;
    struct image_open open;
    bool chain = false;
    bool limits = false;

    if (!filename)
        return EXIT_FAILURE;
    for (size_t i = 0; i < img->options->count; i++) {
        const struct option *option = img->options->items[i].option;

        chain |= option && option->id == INFO_BACKING_CHAIN;
        limits |= option && option->id == INFO_LIMITS;
    }
    open = img_open_options(img, filename);
    array = co_img_chain(img->tool, &open, chain, &error);
    if (!array)
        return img_fail(error);
    for (unsigned i = 0; i < array->len && !limits; i++)
        drop_limits(g_ptr_array_index(array, i));
    if (img->json)
        print_as_json(array, chain);
    else
        print(array);
    return EXIT_SUCCESS;
}

const struct img_command img_info = {
    .name = "info",
    .about = "Shows what an image is.",
    .arguments = "FILENAME",
    .options = options,
    .co_run = co_run_command,
};
