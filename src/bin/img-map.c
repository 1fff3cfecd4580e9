/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-img map: where the data of an image lies. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "bin/img.h"
#include "block/handle.h"
#include "block/node.h"

enum { MAP_START = IMG_OWN, MAP_LENGTH };

static const struct option options[] = {
    IMG_OPTION_OBJECT,
    IMG_OPTION_IMAGE_OPTS,
    IMG_OPTION_FORMAT,
    {"start-offset", 's', "OFFSET", "where to begin (default: 0)", MAP_START},
    {"max-length", 'l', "LEN", "how far to look (default: to the end)", MAP_LENGTH},
    IMG_OPTION_OUTPUT,
    IMG_OPTION_FORCE_SHARE,
    {0},
};

/* A range that is the same all over. */
struct range {
    uint64_t start;
    uint64_t bytes;
    uint64_t depth; /* 0: the top */
    bool present;
    bool zero;
    bool data;
    bool has_offset;
    uint64_t offset;
    const struct node *host;
};

struct map {
    bool json;
    bool begun; /* a range has been printed */
};

/* What lies nowhere counts as of the lowest layer that reaches there; how far that holds in *bytes. */
static uint64_t depth_of_nothing(const struct node *node, uint64_t start, uint64_t *bytes)
{
    const struct edge *backing;
    uint64_t depth = 0;

    for (; (backing = node_backing(node)); depth++) {
        uint64_t length = node_length(edge_child(backing));

        if (start >= length)
            break;
        *bytes = MIN(*bytes, length - start);
        node = edge_child(backing);
    }
    return depth;
}

static int CO_FN co_find_range(struct handle *handle, uint64_t start, uint64_t bytes, struct range *ret)
{
    struct block_extent extent;
    uint64_t same_depth;
    int depth = co_handle_allocation_depth(handle, start, bytes, &same_depth);
    int result = depth < 0 ? depth : co_handle_block_status(handle, start, MIN(bytes, same_depth), &extent);

    if (result < 0)
        return result;
    *ret = (struct range){
        .start = start,
        .bytes = extent.bytes,
        .depth = depth ? (uint64_t)depth - 1 : 0,
        .present = depth > 0,
        .zero = extent.flags & BLOCK_ZERO,
        .data = extent.flags & BLOCK_DATA,
        .has_offset = extent.flags & BLOCK_OFFSET_VALID,
    };
    if (!ret->present)
        ret->depth = depth_of_nothing(handle_node(handle), start, &ret->bytes);
    if (ret->has_offset) {
        ret->offset = extent.host_offset;
        ret->host = extent.host;
    }
    return 0;
}

/* Appends `next` to `range` where nothing changes between them. */
static bool join(struct range *range, const struct range *next)
{
    if (range->present != next->present || range->zero != next->zero || range->data != next->data ||
        range->depth != next->depth || range->has_offset != next->has_offset || range->host != next->host ||
        (range->has_offset && range->offset + range->bytes != next->offset))
        return false;
    range->bytes += next->bytes;
    return true;
}

static const char *word(bool value)
{
    return value ? "true" : "false";
}

static void print_json(struct map *map, const struct range *range)
{
    printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"depth\": %" PRIu64
           ", \"present\": %s, \"zero\": %s, \"data\": %s",
           map->begun ? ",\n" : "", range->start, range->bytes, range->depth, word(range->present), word(range->zero),
           word(range->data));
    if (range->has_offset)
        printf(", \"offset\": %" PRIu64, range->offset);
    printf("}");
    map->begun = true;
}

static bool print_human(const struct range *range)
{
    g_autofree char *filename = range->host ? node_filename(range->host) : NULL;

    if (!range->data || range->zero)
        return true;
    if (!range->has_offset || !filename) {
        log_error("File contains external, encrypted or compressed clusters.");
        return false;
    }
    printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", range->start, range->bytes, range->offset, filename);
    return true;
}

static bool print_range(struct map *map, const struct range *range)
{
    if (!map->json)
        return print_human(range);
    print_json(map, range);
    return true;
}

static bool CO_FN co_map(struct map *map, struct handle *handle, uint64_t start, uint64_t end)
{
    struct range range = {.start = start};

    while (start < end) {
        struct range next;
        int result = co_find_range(handle, start, end - start, &next);

        if (result < 0) {
            log_error("Failed to read image metadata: %s", g_strerror(-result));
            return false;
        }
        start += next.bytes;
        if (range.bytes && join(&range, &next))
            continue;
        if (range.bytes && !print_range(map, &range))
            return false;
        range = next;
    }
    return print_range(map, &range);
}

static int CO_FN co_map_image(struct img *img, const char *filename, uint64_t start, uint64_t length)
{
    struct image_open open = img_open_options(img, filename);
    struct map map = {.json = img->json};
    struct error *error = NULL;
    struct image *image = co_image_open(img->tool, &open, &error);
    uint64_t end;
    bool ok;

    if (!image)
        return img_fail(error);
    end = handle_length(image->handle);
    if (start < end && length < end - start)
        end = start + length;
    printf("%s", map.json ? "[" : "Offset          Length          Mapped to       File\n");
    ok = co_map(&map, image->handle, start, end);
    if (map.json)
        printf("]\n");
    co_image_close(img->tool, image);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int CO_FN co_run_command(struct img *img)
{
    const char *filename;
    uint64_t start = 0;
    uint64_t length = UINT64_MAX;

    for (size_t i = 0; i < img->options->count; i++) {
        const struct option_use *use = &img->options->items[i];
        int id = use->option ? use->option->id : -1;

        if (id == MAP_START && !img_parse_size("start offset", use->value, &start))
            return EXIT_FAILURE;
        if (id == MAP_LENGTH && !img_parse_size("max length", use->value, &length))
            return EXIT_FAILURE;
    }
    filename = img_one_filename(img);
    return filename ? co_map_image(img, filename, start, length) : EXIT_FAILURE;
}

const struct img_command img_map = {
    .name = "map",
    .about = "Shows where the data of an image lies.",
    .arguments = "FILENAME",
    .options = options,
    .co_run = co_run_command,
};
