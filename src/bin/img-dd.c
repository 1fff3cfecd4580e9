/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-img dd: copies a part of an image to a new one. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "bin/img-key-values.h"
#include "bin/img-new.h"
#include "bin/img.h"
#include "block/handle.h"
#include "loop/loop.h"

enum { DD_FORMAT = IMG_OWN };
enum { PIECE_BYTES = 256 << 10, RESERVE_BYTES = 64 << 20, BLOCK_DEFAULT = 512 };

static const struct option options[] = {
    IMG_OPTION_OBJECT,
    IMG_OPTION_IMAGE_OPTS,
    IMG_OPTION_FORCE_SHARE,
    {"", 'f', "FMT", "format of the input (default: found out)", IMG_FORMAT},
    {"", 'O', "OUTPUT_FMT", "format of the output (default: raw)", DD_FORMAT},
    {0},
};

struct dd {
    struct img *img;
    const char *format;
    const char *input;
    const char *output;
    uint64_t block; /* bytes */
    uint64_t count; /* blocks */
    uint64_t skip;  /* blocks */
};

static bool take_block(struct dd *dd, const char *value)
{
    if (!img_parse_size("bs", value, &dd->block))
        return false;
    if (dd->block > 0 && dd->block <= INT32_MAX)
        return true;
    log_error("Invalid bs specified. Must be between 1 and %d.", INT32_MAX);
    return false;
}

static bool take_word(struct dd *dd, const char *word)
{
    const char *equals = strchr(word, '=');
    g_autofree char *name = equals ? g_strndup(word, (gsize)(equals - word)) : g_strdup(word);
    const char *value = equals ? equals + 1 : "";

    if (equals && !strcmp(name, "bs"))
        return take_block(dd, value);
    if (equals && !strcmp(name, "count"))
        return img_parse_size("count", value, &dd->count);
    if (equals && !strcmp(name, "skip"))
        return img_parse_size("skip", value, &dd->skip);
    if (equals && !strcmp(name, "if")) {
        dd->input = value;
        return true;
    }
    if (equals && !strcmp(name, "of")) {
        dd->output = value;
        return true;
    }
    log_error("unrecognized operand %s", name);
    return false;
}

/* `a` * `b`, at most INT64_MAX. */
static uint64_t multiply(uint64_t a, uint64_t b)
{
    return a && b > INT64_MAX / a ? INT64_MAX : a * b;
}

/* Everything is written, to an image that is new: room for much of it at a time. */
static bool CO_FN co_copy(struct handle *from, uint64_t offset, struct handle *to, uint64_t bytes, struct error **err)
{
    uint8_t *buffer = loop_buffer_get(PIECE_BYTES);
    uint64_t done = 0;
    int result = 0;

    if (!buffer)
        return error_set(err, "Out of memory");
    while (done < bytes) {
        uint64_t size = MIN(PIECE_BYTES, bytes - done);

        if (done % RESERVE_BYTES == 0)
            (void)co_handle_reserve(to, done, MIN(RESERVE_BYTES, bytes - done));
        result = co_handle_pread(from, offset + done, size, buffer, 0);
        if (result < 0) {
            error_set_errno(err, result, "error while reading from input image file");
            break;
        }
        result = co_handle_pwrite(to, done, size, buffer, 0);
        if (result < 0) {
            error_set_errno(err, result, "error while writing to output image file");
            break;
        }
        done += size;
    }
    loop_buffer_put(buffer, PIECE_BYTES);
    return !result;
}

static bool CO_FN co_write_output(const struct dd *dd, struct handle *from, uint64_t offset, uint64_t bytes,
                                  struct error **err)
{
    AUTO(key_values) values = g_new0(struct key_values, 1);
    struct img_new wanted = {.filename = dd->output, .format = dd->format, .values = values};
    struct image_open open = {.filename = dd->output, .format = dd->format, .writable = true, .resizable = true};
    g_autofree char *size = g_strdup_printf("%" PRIu64, bytes);
    struct image *image;
    bool ok;

    key_values_set(values, "size", size);
    if (!co_img_new(dd->img, &wanted, NULL, err))
        return error_prefix(err, "%s: error while creating output image of type '%s': ", dd->output, dd->format);
    image = co_image_open(dd->img->tool, &open, err);
    if (!image)
        return false;
    ok = co_copy(from, offset, image->handle, bytes, err);
    co_image_close(dd->img->tool, image);
    return ok;
}

static bool CO_FN co_dd(const struct dd *dd, struct error **err)
{
    struct image_open open = img_open_options(dd->img, dd->input);
    struct image *image = co_image_open(dd->img->tool, &open, err);
    uint64_t length;
    uint64_t skip = multiply(dd->skip, dd->block);
    uint64_t bytes;
    bool ok;

    if (!image)
        return false;
    length = handle_length(image->handle);
    if (skip > length)
        log_error("%s: cannot skip to specified offset", dd->input);
    skip = MIN(skip, length);
    bytes = MIN(length - skip, multiply(dd->count, dd->block));
    ok = co_write_output(dd, image->handle, skip, bytes, err);
    co_image_close(dd->img->tool, image);
    return ok;
}

static int CO_FN co_run_command(struct img *img)
{
    struct dd dd = {.img = img, .format = "raw", .block = BLOCK_DEFAULT, .count = INT64_MAX};
    struct error *error = NULL;

    for (size_t i = 0; i < img->options->count; i++) {
        const struct option_use *use = &img->options->items[i];

        if (use->option && use->option->id == DD_FORMAT)
            dd.format = use->value;
    }
    for (size_t i = 0; i < img->argument_count; i++) {
        if (!take_word(&dd, img->arguments[i]))
            return EXIT_FAILURE;
    }
    if (!dd.input || !dd.output) {
        log_error("Must specify both input and output files");
        return EXIT_FAILURE;
    }
    return co_dd(&dd, &error) ? EXIT_SUCCESS : img_fail(error);
}

const struct img_command img_dd = {
    .name = "dd",
    .about = "Copies a part of an image to a new one.",
    .arguments = "[bs=BLOCK_SIZE] [count=BLOCKS] [skip=BLOCKS] if=INPUT of=OUTPUT",
    .options = options,
    .co_run = co_run_command,
};
