/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-img convert: copies images to a new one of any format, or to one that is there. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "bin/img-bitmaps.h"
#include "bin/img-copy.h"
#include "bin/img-key-values.h"
#include "bin/img-new.h"
#include "bin/img.h"
#include "block/describe.h"
#include "block/driver.h"
#include "block/handle.h"
#include "block/image.h"
#include "block/node.h"
#include "cli/progress.h"
#include "gen/types.h"
#include "schema/json.h"

enum {
    CONVERT_TARGET_IMAGE_OPTS = IMG_OWN,
    CONVERT_TARGET_IS_ZERO,
    CONVERT_OFFLOAD,
    CONVERT_COMPRESS,
    CONVERT_NO_CREATE,
    CONVERT_FORMAT,
    CONVERT_BACKING_FILE,
    CONVERT_BACKING_FORMAT,
    CONVERT_SPARSE,
    CONVERT_RATE,
    CONVERT_COROUTINES,
    CONVERT_ANY_ORDER,
    CONVERT_SALVAGE,
    CONVERT_SNAPSHOT,
    CONVERT_BITMAPS,
    CONVERT_SKIP_BROKEN_BITMAPS,
};
enum { SPARSE_DEFAULT = 4096, SPARSE_MAX = 16 << 20, SECTOR = 512, COROUTINES_MAX = 16 };

static const struct option options[] = {
    IMG_OPTION_OBJECT,
    IMG_OPTION_IMAGE_OPTS,
    {"target-image-opts", 0, NULL, "OUTPUT_FILENAME is options, too; needs -n", CONVERT_TARGET_IMAGE_OPTS},
    {"target-is-zero", 0, NULL, "the image that is there reads as zeroes; needs -n", CONVERT_TARGET_IS_ZERO},
    IMG_OPTION_FORCE_SHARE,
    {"", 'C', NULL, "let the storage copy by itself where it can", CONVERT_OFFLOAD},
    {"", 'c', NULL, "compress", CONVERT_COMPRESS},
    IMG_OPTION_PROGRESS,
    IMG_OPTION_QUIET,
    {"", 'n', NULL, "do not make the target: it is there", CONVERT_NO_CREATE},
    IMG_OPTION_FORMAT,
    IMG_OPTION_CACHE("unsafe"),
    IMG_OPTION_SOURCE_CACHE,
    {"", 'O', "OUTPUT_FMT", "format of the target (default: raw)", CONVERT_FORMAT},
    {"", 'B', "BACKING_FILE", "the target holds the differences to this image", CONVERT_BACKING_FILE},
    {"", 'F', "BACKING_FMT", "the format of that", CONVERT_BACKING_FORMAT},
    IMG_OPTION_OPTIONS,
    {"", 'S', "SPARSE_SIZE", "so many zero bytes become a hole (default: 4k); 0: none do", CONVERT_SPARSE},
    {"", 'r', "RATE_LIMIT", "bytes a second at most", CONVERT_RATE},
    {"", 'm', "NUM_COROUTINES", "pieces that are copied at the same time, 1 to 16 (default: 8)", CONVERT_COROUTINES},
    {"", 'W', NULL, "write in any order", CONVERT_ANY_ORDER},
    {"", 'l', "SNAPSHOT_PARAM", "copy an internal snapshot: snapshot.id=ID,snapshot.name=NAME\nor ID_OR_NAME",
     CONVERT_SNAPSHOT},
    {"bitmaps", 0, NULL, "copy the dirty bitmaps, too, that are stored in the image", CONVERT_BITMAPS},
    {"skip-broken-bitmaps", 0, NULL, "but not those that are inconsistent", CONVERT_SKIP_BROKEN_BITMAPS},
    {"salvage", 0, NULL, "what cannot be read becomes zeroes", CONVERT_SALVAGE},
    {0},
};

struct convert {
    struct img *img;
    bool target_image_opts;
    bool target_is_zero;
    bool no_create;
    bool bitmaps;
    bool skip_broken_bitmaps;
    const char *snapshot;
    bool sparse_given;
    const char *format; /* of the target */
    const char *backing_file;
    const char *backing_format;
    const char *target_name;
    struct img_copy copy;

    struct image **sources;
    struct handle **handles;
    unsigned source_count;
    uint64_t length;
    struct image *target;
    struct key_values *values;
};

/* --- the command line --- */

static bool take_sparse(struct convert *convert, const char *text)
{
    convert->sparse_given = true;
    if (!img_parse_size("buffer size for sparse output", text, &convert->copy.sparse))
        return false;
    if (convert->copy.sparse <= SPARSE_MAX && convert->copy.sparse % SECTOR == 0)
        return true;
    log_error("Invalid buffer size for sparse output specified. Valid sizes are multiples of %d up to %d. Select 0 to "
              "disable sparse detection (fully allocates output).",
              SECTOR, SPARSE_MAX);
    return false;
}

static bool take_coroutines(struct convert *convert, const char *text)
{
    char *end;
    long count = strtol(text, &end, 10);

    if (end == text || *end || count < 1 || count > COROUTINES_MAX) {
        log_error("Invalid number of coroutines. Allowed number of coroutines is between 1 and %d", COROUTINES_MAX);
        return false;
    }
    convert->copy.coroutines = (unsigned)count;
    return true;
}

static bool take_option(struct convert *convert, const struct option_use *use)
{
    switch (use->option ? use->option->id : -1) {
    case CONVERT_TARGET_IMAGE_OPTS:
        convert->target_image_opts = true;
        break;
    case CONVERT_TARGET_IS_ZERO:
        convert->target_is_zero = true;
        break;
    case CONVERT_OFFLOAD:
        convert->copy.offload = true;
        break;
    case CONVERT_COMPRESS:
        convert->copy.compressed = true;
        break;
    case CONVERT_NO_CREATE:
        convert->no_create = true;
        break;
    case CONVERT_FORMAT:
        convert->format = use->value;
        break;
    case CONVERT_BACKING_FILE:
        convert->backing_file = use->value;
        break;
    case CONVERT_BACKING_FORMAT:
        convert->backing_format = use->value;
        break;
    case CONVERT_SPARSE:
        return take_sparse(convert, use->value);
    case CONVERT_RATE:
        return img_parse_size("rate limit", use->value, &convert->copy.rate);
    case CONVERT_COROUTINES:
        return take_coroutines(convert, use->value);
    case CONVERT_ANY_ORDER:
        convert->copy.any_order = true;
        break;
    case CONVERT_SNAPSHOT:
        convert->snapshot = use->value;
        break;
    case CONVERT_BITMAPS:
        convert->bitmaps = true;
        break;
    case CONVERT_SKIP_BROKEN_BITMAPS:
        convert->skip_broken_bitmaps = true;
        break;
    case CONVERT_SALVAGE:
        convert->copy.salvage = true;
        break;
    }
    return true;
}

/* What excludes each other; NULL: nothing does. */
static const char *find_contradiction(const struct convert *convert)
{
    if (convert->img->argument_count < 2)
        return "Must specify image file name";
    if (convert->target_image_opts && !convert->no_create)
        return "--target-image-opts requires use of -n flag";
    if (convert->target_image_opts && convert->format)
        return "--image-opts and --format are mutually exclusive";
    if (convert->target_is_zero && !convert->no_create)
        return "--target-is-zero requires use of -n flag";
    if (convert->no_create && convert->img->key_values)
        return "-o has no effect when skipping image creation";
    if (convert->copy.offload && convert->sparse_given)
        return "Cannot enable copy offloading when -S is used";
    if (convert->copy.offload && convert->copy.compressed)
        return "Cannot enable copy offloading when -c is used";
    if (convert->copy.offload && convert->copy.salvage)
        return "Cannot use copy offloading in salvaging mode";
    if (convert->target_is_zero && convert->backing_file)
        return "Cannot use --target-is-zero when the destination image has a backing file";
    if (convert->skip_broken_bitmaps && !convert->bitmaps)
        return "Use of --skip-broken-bitmaps requires --bitmaps";
    if (convert->source_count > 1 && convert->bitmaps)
        return "Copying bitmaps only possible with single source";
    if (convert->source_count > 1 && convert->snapshot)
        return "No support for concatenating multiple snapshot";
    if (convert->source_count > 1 && convert->backing_file)
        return "Having a backing file for the target makes no sense when concatenating multiple input images";
    return NULL;
}

/* --- sources --- */

static bool CO_FN co_open_sources(struct convert *convert, struct error **err)
{
    struct img *img = convert->img;

    convert->sources = g_new0(struct image *, convert->source_count);
    convert->handles = g_new0(struct handle *, convert->source_count);
    for (unsigned i = 0; i < convert->source_count; i++) {
        struct image_open open = img_open_options(img, img->arguments[i]);
        uint64_t length;

        open.cache = img->source_cache;
        open.snapshot = convert->snapshot;
        convert->sources[i] = co_image_open(img->tool, &open, err);
        if (!convert->sources[i])
            return false;
        convert->handles[i] = convert->sources[i]->handle;
        length = handle_length(convert->handles[i]);
        if (!range_fits(convert->length, length, INT64_MAX))
            return error_set(err, "The images are together larger than %" PRId64 " bytes", INT64_MAX);
        convert->length += length;
    }
    return true;
}

/* --- the target --- */

static bool prepare_values(struct convert *convert, struct error **err)
{
    g_autofree char *size = g_strdup_printf("%" PRIu64, convert->length);

    convert->values = key_values_parse(convert->img->key_values, err);
    if (!convert->values)
        return false;
    if (convert->backing_file)
        key_values_set(convert->values, "backing_file", convert->backing_file);
    if (convert->backing_format)
        key_values_set(convert->values, "backing_fmt", convert->backing_format);
    if (!key_values_get(convert->values, "size"))
        key_values_set(convert->values, "size", size);
    return true;
}

static bool check_compression(const struct convert *convert, const struct block_driver *driver, struct error **err)
{
    const char *encryption = key_values_get(convert->values, "encryption");
    const char *preallocation = key_values_get(convert->values, "preallocation");

    if (!driver->image || !driver->image->compresses)
        return error_set(err, "Compression not supported for this file format");
    if (key_values_get(convert->values, "encrypt.format") || (encryption && !strcmp(encryption, "on")))
        return error_set(err, "Compression and encryption not supported at the same time");
    if (preallocation && strcmp(preallocation, "off") != 0)
        return error_set(err, "Compression and preallocation not supported at the same time");
    return true;
}

static bool check_target(const struct convert *convert, struct error **err)
{
    const struct block_driver *driver = img_format_driver(convert->format, err);
    const char *backing = key_values_get(convert->values, "backing_file");

    if (!driver || !img_driver_creates(driver, err))
        return false;
    if (backing && !image_option_find(driver->image ? driver->image->options : NULL, "backing_file"))
        return error_set(err, "Backing file not supported for file format '%s'", driver->name);
    if (backing && !key_values_get(convert->values, "backing_fmt"))
        return error_set(err, "Use of backing file requires explicit backing format");
    if (convert->bitmaps && !driver->bitmaps)
        return error_set(err, "Format driver '%s' does not support bitmaps", driver->name);
    return !convert->copy.compressed || check_compression(convert, driver, err);
}

static bool CO_FN co_make_target(struct convert *convert, struct error **err)
{
    struct img_new wanted = {.filename = convert->target_name, .format = convert->format, .values = convert->values};

    if (!check_target(convert, err))
        return false;
    if (co_img_new(convert->img, &wanted, &convert->copy.target_is_zero, err))
        return true;
    return error_prefix(err, "%s: error while converting %s: ", convert->target_name, convert->format);
}

/* How the new image is opened that was encrypted with secrets among -o's options: by these. NULL: there are none. */
static struct json *key_secrets(const struct key_values *values)
{
    struct json *secrets = NULL;

    for (size_t i = 0; i < values->count; i++) {
        const struct key_value *item = &values->items[i];

        if (strcmp(item->name, "key-secret") != 0 && !g_str_has_suffix(item->name, ".key-secret"))
            continue;
        secrets = secrets ? secrets : json_object();
        img_set_path(secrets, item->name, json_string(item->value));
    }
    return secrets;
}

static bool CO_FN co_is_encrypted(const struct image *image)
{
    AUTO(image_info) info = co_node_describe_image(image->node, false);

    return info->has_encrypted && info->encrypted;
}

static bool CO_FN co_open_target(struct convert *convert, struct error **err)
{
    struct image_open open = {
        .filename = convert->target_name,
        .image_opts = convert->target_image_opts,
        .format = convert->target_image_opts ? NULL : convert->format,
        .cache = convert->img->has_cache ? convert->img->cache : (struct cache_mode){.no_flush = true},
        .writable = true,
        .unmap = true,
    };
    AUTO(json) secrets = NULL;

    secrets = convert->no_create ? NULL : key_secrets(convert->values);
    open.options = secrets;
    convert->target = co_image_open(convert->img->tool, &open, err);
    if (!convert->target)
        return false;
    if (convert->copy.compressed && co_is_encrypted(convert->target))
        return error_set(err, "Compression and encryption not supported at the same time");
    if (handle_length(convert->target->handle) < convert->length)
        return error_set(err, "output file is smaller than input file");
    return true;
}

/* Whether formats allocate there: what raw does with order and units is none of ours. */
static void CO_FN co_fit_copy(struct convert *convert)
{
    struct node *node = convert->target->node;
    AUTO(image_info) info = co_node_describe_image(node, false);
    struct edge *backing = node_backing(node);
    struct img_copy *copy = &convert->copy;

    copy->unit = info->has_cluster_size ? (uint64_t)info->cluster_size : 0;
    if (!is_power_of_two(copy->unit))
        copy->unit = 0;
    copy->any_order |= !info->has_cluster_size;
    copy->backing_length = backing ? node_length(edge_child(backing)) : 0;
    copy->layers = backing && convert->source_count == 1 && node_backing(convert->sources[0]->node) ? 1 : 0;
    copy->target_is_zero |= convert->target_is_zero;
}

/* --- the whole --- */

static bool CO_FN co_copy(struct convert *convert, struct error **err)
{
    struct progress progress;
    struct error *problem = NULL;
    int result;
    bool ok;

    co_fit_copy(convert);
    convert->copy.sources = convert->handles;
    convert->copy.source_count = convert->source_count;
    convert->copy.target = convert->target->handle;
    convert->copy.length = convert->length;
    convert->copy.quiet = convert->img->quiet;
    convert->copy.progress = &progress;
    progress_begin(&progress, convert->img->progress, convert->length);
    ok = co_img_copy(&convert->copy, &problem);
    result = ok ? co_handle_flush(convert->target->handle) : 0;
    if (result < 0)
        ok = error_set_errno(&problem, result, "error while writing the target's metadata");
    co_progress_end(&progress, ok);
    return ok || error_move(err, problem);
}

static bool CO_FN co_convert(struct convert *convert, struct error **err)
{
    if (!co_open_sources(convert, err) || !prepare_values(convert, err))
        return false;
    if (convert->bitmaps && !img_bitmaps_check(convert->sources[0]->node, convert->skip_broken_bitmaps, err))
        return false;
    if (!convert->no_create && !co_make_target(convert, err))
        return false;
    if (!co_open_target(convert, err) || !co_copy(convert, err))
        return false;
    return !convert->bitmaps || co_img_bitmaps_copy(convert->img->tool->graph, convert->sources[0], convert->target,
                                                    convert->skip_broken_bitmaps, err);
}

static void CO_FN co_done(struct convert *convert)
{
    co_image_close(convert->img->tool, convert->target);
    for (unsigned i = 0; convert->sources && i < convert->source_count; i++)
        co_image_close(convert->img->tool, convert->sources[i]);
    g_free(convert->sources);
    g_free(convert->handles);
    key_values_free(convert->values);
}

static int CO_FN co_help(const struct convert *convert)
{
    const struct img *img = convert->img;
    struct error *error = NULL;
    const struct block_driver *driver = img_format_driver(convert->format, &error);
    const struct block_driver *protocol = NULL;

    if (driver && img->argument_count > 1)
        protocol = co_img_protocol_driver(img->arguments[img->argument_count - 1], &error);
    if (error)
        return img_fail(error);
    img_print_options(driver, protocol);
    return EXIT_SUCCESS;
}

static int CO_FN co_run_command(struct img *img)
{
    struct convert convert = {.img = img, .copy.sparse = SPARSE_DEFAULT};
    struct error *error = NULL;
    const char *contradiction;

    for (size_t i = 0; i < img->options->count; i++) {
        if (!take_option(&convert, &img->options->items[i]))
            return EXIT_FAILURE;
    }
    convert.source_count = img->argument_count ? (unsigned)img->argument_count - 1 : 0;
    contradiction = find_contradiction(&convert);
    if (!convert.format)
        convert.format = "raw";
    if (key_values_ask_help(img->key_values))
        return co_help(&convert);
    if (contradiction) {
        log_error("%s", contradiction);
        return EXIT_FAILURE;
    }
    convert.target_name = img->arguments[convert.source_count];
    (void)co_convert(&convert, &error);
    co_done(&convert);
    return error ? img_fail(error) : EXIT_SUCCESS;
}

const struct img_command img_convert = {
    .name = "convert",
    .about = "Copies images, one behind the other, to another image.",
    .arguments = "FILENAME [FILENAME2 [...]] OUTPUT_FILENAME",
    .options = options,
    .co_run = co_run_command,
};
