/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-img resize: makes an image longer or shorter. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "base/units.h"
#include "bin/img.h"
#include "block/driver.h"
#include "block/handle.h"
#include "gen/types.h"

enum { RESIZE_PREALLOCATION = IMG_OWN, RESIZE_SHRINK };

static const struct option options[] = {
    IMG_OPTION_OBJECT,
    IMG_OPTION_IMAGE_OPTS,
    IMG_OPTION_FORMAT,
    {"preallocation", 0, "PREALLOC", "how to allocate what is added: off, metadata, falloc, full",
     RESIZE_PREALLOCATION},
    IMG_OPTION_QUIET,
    {"shrink", 0, NULL, "allow that data at the end is lost", RESIZE_SHRINK},
    {0},
};

struct resize {
    struct img *img;
    char sign; /* '+', '-', or 0: the size is the new one */
    uint64_t size;
    int preallocation;
    bool shrink;
};

static bool parse_size(struct resize *resize, const char *text)
{
    if (*text == '+' || *text == '-')
        resize->sign = *text++;
    if (size_parse(text, &resize->size))
        return true;
    log_error("Parameter 'size' expects a non-negative number below 2^64");
    (void)fprintf(stderr, "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
                          "and exabytes, respectively.\n");
    return false;
}

static bool find_length(const struct resize *resize, uint64_t current, uint64_t *ret)
{
    uint64_t length = resize->size;

    if (resize->sign == '+')
        length = range_fits(current, resize->size, INT64_MAX) ? current + resize->size : 0;
    else if (resize->sign == '-')
        length = current > resize->size ? current - resize->size : 0;
    if (!length || length > INT64_MAX) {
        log_error("New image size must be positive");
        return false;
    }
    if (length < current && resize->preallocation != PREALLOC_MODE_OFF) {
        log_error("Preallocation can only be used for growing images");
        return false;
    }
    if (length < current && !resize->shrink) {
        log_error("Use the --shrink option to perform a shrink operation.");
        log_warning("Shrinking an image will delete all data beyond the shrunken image's end. Before performing such "
                    "an operation, make sure there is no important data there.");
        return false;
    }
    *ret = length;
    return true;
}

static bool CO_FN co_resize(const struct resize *resize, struct handle *handle, bool *ret_shown, struct error **err)
{
    struct truncate_request request = {
        .exact = true,
        .preallocation = (enum prealloc_mode)resize->preallocation,
    };

    if (!find_length(resize, handle_length(handle), &request.length)) {
        *ret_shown = true;
        return false;
    }
    return !co_handle_truncate_as(handle, &request, err);
}

static int CO_FN co_run_command(struct img *img)
{
    struct resize resize = {.img = img, .preallocation = PREALLOC_MODE_OFF};
    struct image_open open;
    struct error *error = NULL;
    struct image *image;
    bool shown = false;
    bool ok;

    for (size_t i = 0; i < img->options->count; i++) {
        const struct option_use *use = &img->options->items[i];
        int id = use->option ? use->option->id : -1;

        resize.shrink |= id == RESIZE_SHRINK;
        if (id == RESIZE_PREALLOCATION)
            resize.preallocation = prealloc_mode_value(use->value);
        if (resize.preallocation < 0) {
            log_error("Invalid preallocation mode '%s'", use->value);
            return EXIT_FAILURE;
        }
    }
    if (img->argument_count < 2)
        return img_misuse(img, "Not enough arguments");
    if (img->argument_count > 2)
        return img_misuse(img, "Expecting image file name and size");
    if (!parse_size(&resize, img->arguments[1]))
        return EXIT_FAILURE;
    open = img_open_options(img, img->arguments[0]);
    open.writable = true;
    open.resizable = true;
    image = co_image_open(img->tool, &open, &error);
    if (!image)
        return img_fail(error);
    ok = co_resize(&resize, image->handle, &shown, &error);
    co_image_close(img->tool, image);
    if (!ok)
        return shown ? EXIT_FAILURE : img_fail(error);
    if (!img->quiet)
        printf("Image resized.\n");
    return EXIT_SUCCESS;
}

const struct img_command img_resize = {
    .name = "resize",
    .about = "Makes an image longer or shorter.",
    .arguments = "FILENAME [+|-]SIZE",
    .options = options,
    .last_argument_is_a_word = true,
    .co_run = co_run_command,
};
