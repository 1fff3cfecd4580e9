/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-img measure: how large an image would be. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "bin/img-key-values.h"
#include "bin/img-new.h"
#include "bin/img.h"
#include "block/driver.h"
#include "block/handle.h"
#include "block/image.h"
#include "block/node.h"
#include "gen/types.h"
#include "schema/json.h"

enum { MEASURE_FORMAT = IMG_OWN, MEASURE_SIZE, MEASURE_SNAPSHOT };

static const struct option options[] = {
    IMG_OPTION_OUTPUT,      {"", 'O', "OUTPUT_FMT", "format of the new image (default: raw)", MEASURE_FORMAT},
    IMG_OPTION_OPTIONS,     {"size", 0, "N", "an empty image of this size", MEASURE_SIZE},
    IMG_OPTION_OBJECT,      IMG_OPTION_IMAGE_OPTS,
    IMG_OPTION_FORMAT,      {"", 'l', "SNAPSHOT_PARAM", "an internal snapshot: its id or name", MEASURE_SNAPSHOT},
    IMG_OPTION_FORCE_SHARE, {0},
};

struct measure {
    struct img *img;
    const char *format;
    const char *size;
    const char *snapshot;
};

/* Of what the driver makes from these options; NULL and the error. */
static struct block_measure_info *CO_FN co_measure_driver(const struct block_driver *driver,
                                                          const struct key_values *values, uint64_t size,
                                                          struct handle *source, struct error **err)
{
    AUTO(json) object = json_object();
    AUTO(blockdev_create_options) parsed = NULL;

    if (!key_values_apply(values, driver, object, err))
        return NULL;
    json_set(object, "driver", json_string(driver->name));
    json_set(object, "size", json_uint(0));
    /* Nothing will be written; but a format must have a file. */
    json_set(object, "file", json_string(""));
    parsed = blockdev_create_options_parse_keyval(object, err);
    return parsed ? driver->image->co_measure(parsed, source, size, err) : NULL;
}

static struct block_measure_info *CO_FN co_measure(const struct measure *measure, uint64_t size, struct handle *source,
                                                   struct error **err)
{
    const struct block_driver *driver = img_format_driver(measure->format, err);
    AUTO(key_values) values = driver ? key_values_parse(measure->img->key_values, err) : NULL;
    struct block_measure_info *info;

    if (!values || !img_driver_creates(driver, err))
        return NULL;
    for (size_t i = 0; i < values->count; i++) {
        if (image_option_find(driver->image ? driver->image->options : NULL, values->items[i].name))
            continue;
        log_error("Invalid parameter '%s'", values->items[i].name);
        error_set(err, "Invalid options for file format '%s'", driver->name);
        return NULL;
    }
    if (driver->image && driver->image->co_measure)
        return co_measure_driver(driver, values, size, source, err);
    if (strcmp(driver->name, "raw")) {
        error_set(err, "Block driver '%s' does not support size measurement", driver->name);
        return NULL;
    }
    info = g_new0(struct block_measure_info, 1);
    info->required = info->fully_allocated = (int64_t)align_up(size, NODE_LENGTH_ALIGNMENT);
    return info;
}

static void print(const struct block_measure_info *info, bool as_json)
{
    AUTO(json) json = NULL;

    if (as_json) {
        json = block_measure_info_write(info);
        img_print_json(json);
        return;
    }
    printf("required size: %" PRId64 "\n"
           "fully allocated size: %" PRId64 "\n",
           info->required, info->fully_allocated);
    if (info->has_bitmaps)
        printf("bitmaps size: %" PRId64 "\n", info->bitmaps);
}

static const char *find_contradiction(const struct measure *measure)
{
    const struct img *img = measure->img;

    if (img->argument_count > 1)
        return "At most one filename argument is allowed.";
    if (!img->argument_count && (img->image_opts || img->format || measure->snapshot))
        return "--image-opts, -f, and -l require a filename argument.";
    if (!img->argument_count && !measure->size)
        return "Either --size N or one filename must be specified.";
    if (img->argument_count && measure->size)
        return "--size N cannot be used together with a filename.";
    return NULL;
}

static int CO_FN co_measure_image(const struct measure *measure, uint64_t size)
{
    struct img *img = measure->img;
    AUTO(block_measure_info) info = NULL;
    struct image *image = NULL;
    struct error *error = NULL;

    if (img->argument_count) {
        struct image_open open = img_open_options(img, img->arguments[0]);

        open.snapshot = measure->snapshot;
        image = co_image_open(img->tool, &open, &error);
        if (!image)
            return img_fail(error);
        size = handle_length(image->handle);
    }
    info = co_measure(measure, size, image ? image->handle : NULL, &error);
    co_image_close(img->tool, image);
    if (!info)
        return img_fail(error);
    print(info, img->json);
    return EXIT_SUCCESS;
}

static int CO_FN co_run_command(struct img *img)
{
    struct measure measure = {.img = img, .format = "raw"};
    const char *contradiction;
    uint64_t size = 0;

    for (size_t i = 0; i < img->options->count; i++) {
        const struct option_use *use = &img->options->items[i];
        int id = use->option ? use->option->id : -1;

        if (id == MEASURE_FORMAT)
            measure.format = use->value;
        else if (id == MEASURE_SNAPSHOT)
            measure.snapshot = use->value;
        else if (id == MEASURE_SIZE)
            measure.size = use->value;
    }
    if (measure.size && !img_parse_size("image size", measure.size, &size))
        return EXIT_FAILURE;
    contradiction = find_contradiction(&measure);
    if (!contradiction)
        return co_measure_image(&measure, size);
    log_error("%s", contradiction);
    return EXIT_FAILURE;
}

const struct img_command img_measure = {
    .name = "measure",
    .about = "Says how large an image would be.",
    .arguments = "[FILENAME]",
    .options = options,
    .co_run = co_run_command,
};
