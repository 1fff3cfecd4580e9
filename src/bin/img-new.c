/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Making an image: the protocol makes the file, then the format writes to it. Where a protocol makes none (a device, a
 * server), what is there already must do. An image that failed halfway is removed.
 */
#include "bin/img-new.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/units.h"
#include "bin/img-key-values.h"
#include "bin/img.h"
#include "block/driver.h"
#include "block/filename-options.h"
#include "block/filename.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/image.h"
#include "block/node.h"
#include "gen/types.h"
#include "loop/file.h"
#include "schema/json.h"

/* An image on its way. */
struct making {
    struct img *img;
    const struct img_new *wanted;
    struct key_values *values;
    const struct block_driver *format;
    const struct block_driver *protocol;
    struct json *file; /* the protocol's options, owned */
    bool made_file;
};

/* What an image has whose driver has no options. */
static const struct image_option size_option[] = {{"size", IMAGE_OPTION_SIZE, "Virtual disk size", "size"}, {NULL}};

/* --- drivers --- */

static const struct block_driver *find_driver(const char *name)
{
    for (const struct block_driver *const *driver = block_drivers; *driver; driver++) {
        if (!strcmp((*driver)->name, name))
            return *driver;
    }
    return NULL;
}

const struct block_driver *img_format_driver(const char *name, struct error **err)
{
    const struct block_driver *driver = find_driver(name);

    if (!driver)
        error_set(err, "Unknown file format '%s'", name);
    return driver;
}

/* raw has nothing of its own to make: its file is all. */
static bool is_plain(const struct block_driver *driver)
{
    return !strcmp(driver->name, "raw") && !(driver->image && driver->image->co_create);
}

bool img_driver_creates(const struct block_driver *driver, struct error **err)
{
    if (is_plain(driver) || driver->kind == BLOCK_DRIVER_PROTOCOL || (driver->image && driver->image->co_create))
        return true;
    return error_set(err, "Format driver '%s' does not support image creation", driver->name);
}

const struct block_driver *CO_FN co_img_protocol_driver(const char *filename, struct error **err)
{
    AUTO(json) options = co_filename_protocol_options(filename, err);
    const struct block_driver *driver;

    if (!options)
        return NULL;
    driver = find_driver(json_get_string(json_get(options, "driver")));
    if (!driver)
        error_set(err, "Unknown protocol '%s'", json_get_string(json_get(options, "driver")));
    return driver;
}

static const struct image_option *options_of(const struct block_driver *driver)
{
    if (driver && is_plain(driver))
        return size_option;
    return driver && driver->image ? driver->image->options : NULL;
}

void img_print_options(const struct block_driver *format, const struct block_driver *protocol)
{
    if (protocol) {
        printf("Supported options:\n");
        image_options_print(options_of(format), options_of(protocol), false);
        return;
    }
    printf("Supported %s options:\n", format->name);
    image_options_print(options_of(format), NULL, false);
    printf("\nThe protocol level may support further options.\n"
           "Specify the target filename to include those options.\n");
}

/* --- checking what is wanted --- */

/* The option as the format or, beneath it, the protocol has it. */
static const struct image_option *find_option(const struct making *making, const char *name)
{
    const struct image_option *option = image_option_find(options_of(making->format), name);

    return option ? option : image_option_find(options_of(making->protocol), name);
}

static bool check_values(const struct making *making, struct error **err)
{
    for (size_t i = 0; i < making->values->count; i++) {
        const struct key_value *item = &making->values->items[i];
        const struct image_option *option = find_option(making, item->name);

        /* A size is what every image has. */
        if (!option && strcmp(item->name, "size") != 0)
            return error_set(err, "Invalid parameter '%s'", item->name);
        if (option && !image_option_check(option, item->value, err))
            return false;
    }
    return true;
}

static bool check_backing_options(const struct making *making, struct error **err)
{
    const char *file = key_values_get(making->values, "backing_file");
    const char *format = key_values_get(making->values, "backing_fmt");

    if (file && !image_option_find(options_of(making->format), "backing_file"))
        return error_set(err, "Backing file not supported for file format '%s'", making->format->name);
    if (format && !image_option_find(options_of(making->format), "backing_fmt"))
        return error_set(err, "Backing format not supported for file format '%s'", making->format->name);
    if (file && !strcmp(file, making->wanted->filename))
        return error_set(err, "Error: Trying to create an image with the same filename as the backing file");
    if (format && *format && blockdev_driver_value(format) < 0)
        return error_set(err, "Unknown backing file format '%s'", format);
    return true;
}

/* --- the backing image --- */

static bool CO_FN co_look_at_backing(struct making *making, const char *file, const char *format, struct error **err)
{
    g_autofree char *resolved = filename_resolve(making->wanted->filename, file, err);
    struct image_open open = {.filename = resolved, .format = format, .plain_errors = true};
    struct image *image = resolved ? co_image_open(making->img->tool, &open, err) : NULL;
    g_autofree char *size = NULL;

    if (!image) {
        error_hint(err, "Could not open backing image.");
        return false;
    }
    if (!format) {
        error_set(err, "Backing file specified without backing format");
        error_hint(err, "Detected format of %s.", node_driver_name(image->node));
        co_image_close(making->img->tool, image);
        return false;
    }
    if (!key_values_get(making->values, "size")) {
        size = g_strdup_printf("%" PRIu64, handle_length(image->handle));
        key_values_set(making->values, "size", size);
    }
    co_image_close(making->img->tool, image);
    return true;
}

static bool CO_FN co_take_backing(struct making *making, struct error **err)
{
    const char *file = key_values_get(making->values, "backing_file");
    const char *format = key_values_get(making->values, "backing_fmt");

    if (!file)
        return true;
    if (!*file)
        return error_set(err, "Expected backing file name, got empty string");
    if (making->wanted->unsafe_backing)
        return format || error_set(err, "Backing file specified without backing format");
    return co_look_at_backing(making, file, format, err);
}

/* --- telling --- */

/* Commas are doubled, as they are on the command line. */
static void print_text(const char *name, const char *value)
{
    g_auto(GStrv) parts = g_strsplit(value, ",", -1);
    g_autofree char *text = g_strjoinv(",,", parts);

    printf(" %s=%s", name, text);
}

/* As the option's type is written: sizes in bytes, words where others would be quoted. */
static void announce_value(const struct image_option *option, const char *name, const char *value)
{
    uint64_t number;

    if (option && option->type == IMAGE_OPTION_SIZE && size_parse(value, &number))
        printf(" %s=%" PRIu64, name, number);
    else if (option && option->type == IMAGE_OPTION_BOOL)
        printf(" %s=%s", name, strchr("oOyYtT", value[0]) && strcmp(value, "off") != 0 ? "on" : "off");
    else
        print_text(name, value);
}

static void announce_table(const struct making *making, const struct image_option *table,
                           const struct image_option *not_in)
{
    for (; table && table->name; table++) {
        const char *value = key_values_get(making->values, table->name);

        if (image_option_find(not_in, table->name))
            continue;
        if (value || table->shown_default)
            announce_value(table, table->name, value ? value : table->shown_default);
    }
}

static void announce(const struct making *making)
{
    printf("Formatting '%s', fmt=%s", making->wanted->filename, making->format->name);
    announce_table(making, options_of(making->format), NULL);
    announce_table(making, options_of(making->protocol), options_of(making->format));
    if (!find_option(making, "size"))
        announce_value(size_option, "size", key_values_get(making->values, "size"));
    printf("\n");
    (void)fflush(stdout);
}

/* --- making --- */

static bool CO_FN co_create(const struct making *making, const struct block_driver *driver, struct json *object,
                            struct error **err)
{
    AUTO(blockdev_create_options) options = NULL;

    json_set(object, "driver", json_string(driver->name));
    options = blockdev_create_options_parse_keyval(object, err);
    return options && driver->image->co_create(making->img->tool->graph, options, err);
}

/* What is there must be large enough. */
static bool CO_FN co_use_existing(const struct making *making, uint64_t size, struct error **err)
{
    struct image_open open = {.filename = making->wanted->filename, .format = making->protocol->name, .writable = true};
    struct image *image = co_image_open(making->img->tool, &open, err);
    uint64_t length;

    if (!image)
        return error_prefix(err, "Protocol driver '%s' does not support image creation, and opening the image failed: ",
                            making->protocol->name);
    length = handle_length(image->handle);
    co_image_close(making->img->tool, image);
    if (length >= size)
        return true;
    return error_set(err, "The image file '%s' is too small: %" PRIu64 " bytes where %" PRIu64 " are needed",
                     making->wanted->filename, length, size);
}

/* `size`: of the file; a format grows its own. */
static bool CO_FN co_make_file(struct making *making, uint64_t size, struct error **err)
{
    AUTO(json) object = json_object();
    AUTO(key_values) values = NULL;

    if (!making->protocol->image || !making->protocol->image->co_create)
        return co_use_existing(making, size, err);
    json_set(object, "filename", json_clone(json_get(making->file, "filename")));
    json_set(object, "size", json_uint(size));
    values = g_new0(struct key_values, 1);
    for (size_t i = 0; i < making->values->count; i++) {
        const struct key_value *item = &making->values->items[i];

        /* What the format has an option for is the format's business. */
        if (strcmp(item->name, "size") != 0 && !image_option_find(options_of(making->format), item->name))
            key_values_set(values, item->name, item->value);
    }
    if (!key_values_apply(values, making->protocol, object, err))
        return false;
    making->made_file = true;
    return co_create(making, making->protocol, object, err);
}

/* The data of an image may lie in a file of its own, which is made with it. */
static bool CO_FN co_make_data_file(struct making *making, struct json *object, uint64_t size, struct error **err)
{
    const char *name = key_values_get(making->values, "data_file");
    const struct block_driver *driver;
    AUTO(json) create = NULL;
    struct json *options;

    if (!name)
        return true;
    driver = co_img_protocol_driver(name, err);
    options = driver ? co_filename_protocol_options(name, err) : NULL;
    if (!options)
        return false;
    if (driver->image && driver->image->co_create) {
        create = json_object();
        json_set(create, "filename", json_clone(json_get(options, "filename")));
        json_set(create, "size", json_uint(size));
        if (!co_create(making, driver, create, err)) {
            json_free(options);
            return false;
        }
    }
    json_set(object, "data-file", options);
    return true;
}

static bool CO_FN co_make_format(struct making *making, uint64_t size, struct error **err)
{
    AUTO(json) object = json_object();

    /* Options may move it: a LUKS header can be all that is made. */
    json_set(object, "file", json_clone(making->file));
    if (!key_values_apply(making->values, making->format, object, err))
        return false;
    json_set(object, "size", json_uint(size));
    return co_make_data_file(making, object, size, err) && co_create(making, making->format, object, err);
}

static void CO_FN co_remove_file(const struct making *making)
{
    const struct json *filename = json_get(making->file, "filename");

    if (making->made_file && filename && !strcmp(making->protocol->name, "file"))
        (void)co_file_unlink(json_get_string(filename));
}

static bool CO_FN co_make(struct making *making, uint64_t size, struct error **err)
{
    if (is_plain(making->format) || making->format == making->protocol)
        return co_make_file(making, size, err);
    if (!co_make_file(making, 0, err))
        return false;
    if (co_make_format(making, size, err))
        return true;
    co_remove_file(making);
    return false;
}

static bool CO_FN co_check_and_make(struct making *making, struct error **err)
{
    uint64_t size = 0;

    if (!check_backing_options(making, err) || !check_values(making, err) || !co_take_backing(making, err))
        return false;
    if (!key_values_get(making->values, "size"))
        return error_set(err, "Image creation needs a size parameter");
    if (!size_parse(key_values_get(making->values, "size"), &size) || size > INT64_MAX)
        return error_set(err, "Image size must be less than 8 EiB!");
    if (making->wanted->announce)
        announce(making);
    if (key_values_get(making->values, "backing_fmt") && !key_values_get(making->values, "backing_file"))
        return error_set(err, "Backing format cannot be used without backing file");
    return co_make(making, align_up(size, NODE_LENGTH_ALIGNMENT), err);
}

/* What is encrypted reads as noise where nothing was written; and what was there already is anybody's guess. */
static bool reads_as_zeroes(const struct making *making)
{
    if (is_plain(making->format) || making->format == making->protocol)
        return making->made_file;
    return strcmp(making->format->name, "luks") != 0 && !key_values_get(making->values, "encrypt.format") &&
           !key_values_get(making->values, "encryption");
}

bool CO_FN co_img_new(struct img *img, const struct img_new *wanted, bool *ret_is_zero, struct error **err)
{
    struct making making = {.img = img, .wanted = wanted, .values = wanted->values};
    bool ok;

    making.format = img_format_driver(wanted->format, err);
    ok = making.format && img_driver_creates(making.format, err);
    if (ok)
        making.protocol = co_img_protocol_driver(wanted->filename, err);
    if (ok && making.protocol && making.format->kind == BLOCK_DRIVER_PROTOCOL)
        making.protocol = making.format;
    if (ok && making.protocol)
        making.file = co_filename_protocol_options(wanted->filename, err);
    ok = ok && making.file && co_check_and_make(&making, err);
    json_free(making.file);
    if (ok && ret_is_zero)
        *ret_is_zero = reads_as_zeroes(&making);
    return ok;
}
