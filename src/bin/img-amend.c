/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-img amend: changes what an image was made with. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "bin/img-key-values.h"
#include "bin/img-new.h"
#include "bin/img.h"
#include "block/driver.h"
#include "block/image.h"
#include "block/node.h"
#include "cli/progress.h"
#include "schema/json.h"

enum { AMEND_FORCE = IMG_OWN };

static const struct option options[] = {
    IMG_OPTION_OBJECT,
    IMG_OPTION_IMAGE_OPTS,
    IMG_OPTION_PROGRESS,
    IMG_OPTION_QUIET,
    IMG_OPTION_FORMAT,
    IMG_OPTION_CACHE("writeback"),
    {"force", 0, NULL, "allow what may make the image unreadable", AMEND_FORCE},
    IMG_OPTION_OPTIONS,
    {0},
};

static bool check_driver(const struct block_driver *driver, struct error **err)
{
    if (driver->image && driver->image->co_amend_image)
        return true;
    return error_set(err, "Format driver '%s' does not support option amendment", driver->name);
}

static bool check_values(const struct key_values *values, const struct block_driver *driver, struct error **err)
{
    for (size_t i = 0; i < values->count; i++) {
        const char *name = values->items[i].name;
        const struct image_option *option = image_option_find(driver->image->options, name);

        if (option && option->amendable)
            continue;
        error_set(err, "Invalid parameter '%s'", name);
        if (option)
            error_hint(err, "This option is only supported for image creation");
        return false;
    }
    return true;
}

static bool CO_FN co_amend(const struct img *img, struct image *image, bool force, struct error **err)
{
    const struct block_driver *driver = node_driver(image->node);
    AUTO(key_values) values = key_values_parse(img->key_values, err);
    AUTO(json) object = json_object();
    struct progress progress;
    bool ok;

    if (!values || !check_driver(driver, err) || !check_values(values, driver, err) ||
        !key_values_apply(values, driver, object, err))
        return false;
    progress_begin(&progress, img->progress, 1);
    ok = driver->image->co_amend_image(image->node, object, force, &progress.image, err);
    co_progress_end(&progress, ok);
    return ok;
}

static int print_options(const struct block_driver *driver)
{
    struct error *error = NULL;

    if (!check_driver(driver, &error))
        return img_fail(error);
    printf("Amend options for '%s':\n", driver->name);
    image_options_print(driver->image->options, NULL, true);
    return EXIT_SUCCESS;
}

static int CO_FN co_open_and_amend(const struct img *img, const char *filename, bool force)
{
    struct image_open open = img_open_options(img, filename);
    bool help = key_values_ask_help(img->key_values);
    struct error *error = NULL;
    struct image *image;
    int status = EXIT_SUCCESS;

    open.writable = !help;
    open.resizable = !help;
    open.cache = img->cache;
    image = co_image_open(img->tool, &open, &error);
    if (!image)
        return img_fail(error);
    if (help)
        status = print_options(node_driver(image->node));
    else if (!co_amend(img, image, force, &error))
        status = EXIT_FAILURE;
    co_image_close(img->tool, image);
    return error ? img_fail(error) : status;
}

static int CO_FN co_run_command(struct img *img)
{
    struct error *error = NULL;
    const char *filename;
    bool force = false;

    for (size_t i = 0; i < img->options->count; i++) {
        const struct option *option = img->options->items[i].option;

        force |= option && option->id == AMEND_FORCE;
    }
    if (!img->key_values)
        return img_misuse(img, "Must specify options (-o)");
    if (!img->argument_count && img->format && key_values_ask_help(img->key_values)) {
        const struct block_driver *driver = img_format_driver(img->format, &error);

        return driver ? print_options(driver) : img_fail(error);
    }
    filename = img_one_filename(img);
    return filename ? co_open_and_amend(img, filename, force) : EXIT_FAILURE;
}

const struct img_command img_amend = {
    .name = "amend",
    .about = "Changes what an image was made with.",
    .arguments = "FILENAME",
    .options = options,
    .co_run = co_run_command,
};
