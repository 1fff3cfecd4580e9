/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-img create: makes an image. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "bin/img-key-values.h"
#include "bin/img-new.h"
#include "bin/img.h"

enum { CREATE_BACKING_FILE = IMG_OWN, CREATE_BACKING_FORMAT, CREATE_UNSAFE };

static const struct option options[] = {
    IMG_OPTION_OBJECT,
    IMG_OPTION_QUIET,
    {"", 'f', "FMT", "format of the image (default: raw)", IMG_FORMAT},
    {"", 'b', "BACKING_FILE", "the image below, of which this one holds the differences", CREATE_BACKING_FILE},
    {"", 'F', "BACKING_FMT", "format of the image below", CREATE_BACKING_FORMAT},
    {"", 'u', NULL, "the image below need not be there", CREATE_UNSAFE},
    IMG_OPTION_OPTIONS,
    {0},
};

struct create {
    const char *backing_file;
    const char *backing_format;
    bool unsafe;
};

static int CO_FN co_help(const char *format, const char *filename)
{
    struct error *error = NULL;
    const struct block_driver *driver = img_format_driver(format, &error);
    const struct block_driver *protocol = NULL;

    if (!driver || !img_driver_creates(driver, &error))
        return img_fail(error);
    if (filename) {
        protocol = co_img_protocol_driver(filename, &error);
        if (!protocol)
            return img_fail(error);
    }
    img_print_options(driver, protocol);
    return EXIT_SUCCESS;
}

/* What has a letter of its own may stand among the values of -o, too, but not twice. */
static bool add_values(const struct img *img, const struct create *create, struct key_values *values,
                       struct error **err)
{
    const char *size_given = img->argument_count > 1 ? img->arguments[1] : NULL;

    if (size_given && key_values_get(values, "size"))
        return error_set(err, "%s: The image size must be specified only once", img->arguments[0]);
    if (size_given)
        key_values_set(values, "size", size_given);
    if (create->backing_file)
        key_values_set(values, "backing_file", create->backing_file);
    if (create->backing_format)
        key_values_set(values, "backing_fmt", create->backing_format);
    return true;
}

static int CO_FN co_create(struct img *img, const struct create *create)
{
    struct error *error = NULL;
    AUTO(key_values) values = key_values_parse(img->key_values, &error);
    struct img_new wanted = {
        .filename = img->arguments[0],
        .format = img->format ? img->format : "raw",
        .values = values,
        .unsafe_backing = create->unsafe,
        .announce = !img->quiet,
    };

    if (!values || !add_values(img, create, values, &error))
        return img_fail(error);
    if (co_img_new(img, &wanted, NULL, &error))
        return EXIT_SUCCESS;
    error_prefix(&error, "%s: ", wanted.filename);
    return img_fail(error);
}

static int CO_FN co_run_command(struct img *img)
{
    struct create create = {0};
    uint64_t size;

    for (size_t i = 0; i < img->options->count; i++) {
        const struct option_use *use = &img->options->items[i];

        switch (use->option ? use->option->id : -1) {
        case CREATE_BACKING_FILE:
            create.backing_file = use->value;
            break;
        case CREATE_BACKING_FORMAT:
            create.backing_format = use->value;
            break;
        case CREATE_UNSAFE:
            create.unsafe = true;
            break;
        }
    }
    if (key_values_ask_help(img->key_values))
        return co_help(img->format ? img->format : "raw", img->argument_count ? img->arguments[0] : NULL);
    if (!img->argument_count)
        return img_misuse(img, "Expecting image file name");
    if (img->argument_count > 2)
        return img_misuse(img, "Unexpected argument: %s", img->arguments[2]);
    if (img->argument_count > 1 && !img_parse_size("image size", img->arguments[1], &size))
        return EXIT_FAILURE;
    return co_create(img, &create);
}

const struct img_command img_create = {
    .name = "create",
    .about = "Makes an image.",
    .arguments = "FILENAME [SIZE]",
    .options = options,
    .co_run = co_run_command,
};
