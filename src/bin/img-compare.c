/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-img compare: whether two images show the same. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/io-vector.h"
#include "base/log.h"
#include "bin/img.h"
#include "block/handle.h"
#include "cli/progress.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

enum { COMPARE_FORMAT2 = IMG_OWN, COMPARE_STRICT };
enum { COMPARE_SAME, COMPARE_DIFFERENT, COMPARE_NO_OPEN, COMPARE_NO_STATUS, COMPARE_NO_READ };
enum { PIECE_BYTES = 1024 * 1024, SECTOR = 512 };
/* Below this, another thread costs more than it brings. */
#define SECOND_LOOP_BYTES (UINT64_C(16) << 20)

static const struct option options[] = {
    IMG_OPTION_OBJECT,
    IMG_OPTION_IMAGE_OPTS,
    {"", 'f', "FMT", "format of the first image (default: found out)", IMG_FORMAT},
    {"", 'F', "FMT", "format of the second image (default: found out)", COMPARE_FORMAT2},
    IMG_OPTION_SOURCE_CACHE,
    IMG_OPTION_PROGRESS,
    IMG_OPTION_QUIET,
    {"", 's', NULL, "strict: sizes and what is allocated must be the same, too", COMPARE_STRICT},
    IMG_OPTION_FORCE_SHARE,
    {0},
};

struct compare {
    struct img *img;
    const char *format2;
    bool strict;
    struct image *images[2];
    uint8_t *buffers[2];
    struct loop_thread *thread; /* which reads one image while we read the other; NULL: none */
    struct progress progress;
};

/* Says it, unless quiet; `complete`: all has been compared. */
static void say(struct compare *compare, bool complete, const char *text)
{
    if (compare->img->quiet)
        return;
    progress_make_way(&compare->progress, complete);
    printf("%s\n", text);
}

static int differ_at(struct compare *compare, const char *what, uint64_t offset, const char *how)
{
    g_autofree char *text = g_strdup_printf("%s %" PRIu64 "%s", what, offset, how);

    say(compare, false, text);
    return COMPARE_DIFFERENT;
}

static int CO_FN co_status(struct compare *compare, unsigned which, uint64_t offset, uint64_t bytes,
                           struct block_extent *ret)
{
    int result = co_handle_block_status(compare->images[which]->handle, offset, bytes, ret);

    if (!result)
        return COMPARE_SAME;
    progress_make_way(&compare->progress, false);
    log_error("Sector allocation test failed for %s", compare->images[which]->filename);
    return COMPARE_NO_STATUS;
}

/* A piece of one of the images, into its buffer. */
struct reading {
    struct compare *compare;
    unsigned which;
    uint64_t offset;
    uint64_t bytes;
    int result;
};

static void CO_FN co_read(void *opaque)
{
    struct reading *reading = opaque;
    const struct compare *compare = reading->compare;

    reading->result = co_handle_pread(compare->images[reading->which]->handle, reading->offset, reading->bytes,
                                      compare->buffers[reading->which], 0);
}

/* What has become of it. */
static int judge(const struct reading *reading)
{
    if (!reading->result)
        return COMPARE_SAME;
    progress_make_way(&reading->compare->progress, false);
    log_error("Error while reading offset %" PRIu64 " of %s: %s", reading->offset,
              reading->compare->images[reading->which]->filename, g_strerror(-reading->result));
    return COMPARE_NO_READ;
}

/* The same piece of `which` and, if `both`, of the other; these at the same time where there is a thread for it. */
static int CO_FN co_read_piece(struct compare *compare, uint64_t offset, uint64_t bytes, bool both, unsigned which)
{
    struct reading one = {.compare = compare, .which = which, .offset = offset, .bytes = bytes};
    struct reading other = {.compare = compare, .which = !which, .offset = offset, .bytes = bytes};
    struct co_task *task = NULL;
    int status;

    if (both && compare->thread)
        task = co_task_start(loop_thread_loop(compare->thread), co_read, &other);
    co_read(&one);
    if (task)
        co_task_join(task);
    status = judge(&one);
    if (status != COMPARE_SAME || !both)
        return status;
    if (!task)
        co_read(&other);
    return judge(&other);
}

/* The first sector in which the buffers (the second NULL: zeroes) differ; `bytes` where they do not. */
static uint64_t find_difference(const uint8_t *a, const uint8_t *b, uint64_t bytes)
{
    if (b ? !memcmp(a, b, bytes) : memory_is_zero(a, bytes))
        return bytes;
    for (uint64_t at = 0; at < bytes; at += SECTOR) {
        uint64_t size = MIN(SECTOR, bytes - at);

        if (b ? memcmp(a + at, b + at, size) != 0 : !memory_is_zero(a + at, size))
            return at;
    }
    return bytes;
}

/* Piece by piece: both have data, or only `which` has, and the other zeroes. */
static int CO_FN co_compare_data(struct compare *compare, uint64_t offset, uint64_t bytes, bool both, unsigned which)
{
    for (uint64_t done = 0; done < bytes;) {
        uint64_t size = MIN(PIECE_BYTES, bytes - done);
        int status = co_read_piece(compare, offset + done, size, both, which);
        uint64_t at;

        if (status != COMPARE_SAME)
            return status;
        at = find_difference(compare->buffers[which], both ? compare->buffers[!which] : NULL, size);
        if (at < size)
            return differ_at(compare, "Content mismatch at offset", offset + done + at, "!");
        done += size;
        progress_add(&compare->progress, size);
    }
    return COMPARE_SAME;
}

static int CO_FN co_compare_common(struct compare *compare, uint64_t length)
{
    const unsigned strict_flags = BLOCK_DATA | BLOCK_ZERO | BLOCK_ALLOCATED | BLOCK_OFFSET_VALID | BLOCK_COMPRESSED;

    for (uint64_t offset = 0; offset < length;) {
        struct block_extent extents[2];
        uint64_t bytes = length - offset;
        bool zero[2];
        int status = COMPARE_SAME;

        for (unsigned i = 0; i < 2 && status == COMPARE_SAME; i++) {
            status = co_status(compare, i, offset, bytes, &extents[i]);
            if (status == COMPARE_SAME)
                bytes = MIN(bytes, extents[i].bytes);
            zero[i] = extents[i].flags & BLOCK_ZERO;
        }
        if (status != COMPARE_SAME)
            return status;
        if (compare->strict && (extents[0].flags & strict_flags) != (extents[1].flags & strict_flags))
            return differ_at(compare, "Strict mode: Offset", offset, " block status mismatch!");
        if (zero[0] && zero[1])
            progress_add(&compare->progress, bytes);
        else
            status = co_compare_data(compare, offset, bytes, !zero[0] && !zero[1], zero[0]);
        if (status != COMPARE_SAME)
            return status;
        offset += bytes;
    }
    return COMPARE_SAME;
}

/* What the longer one has more must be zeroes. */
static int CO_FN co_compare_rest(struct compare *compare, unsigned which, uint64_t offset, uint64_t length)
{
    while (offset < length) {
        struct block_extent extent;
        int status = co_status(compare, which, offset, length - offset, &extent);

        if (status == COMPARE_SAME && extent.flags & BLOCK_ZERO)
            progress_add(&compare->progress, extent.bytes);
        else if (status == COMPARE_SAME)
            status = co_compare_data(compare, offset, extent.bytes, false, which);
        if (status != COMPARE_SAME)
            return status;
        offset += extent.bytes;
    }
    return COMPARE_SAME;
}

static int CO_FN co_compare_lengths(struct compare *compare, uint64_t first, uint64_t second)
{
    int status;

    if (compare->strict && first != second) {
        say(compare, false, "Strict mode: Image size mismatch!");
        return COMPARE_DIFFERENT;
    }
    status = co_compare_common(compare, MIN(first, second));
    if (status != COMPARE_SAME || first == second)
        return status;
    say(compare, false, "Warning: Image size mismatch!");
    return co_compare_rest(compare, first < second, MIN(first, second), MAX(first, second));
}

static int CO_FN co_compare(struct compare *compare)
{
    uint64_t first = handle_length(compare->images[0]->handle);
    uint64_t second = handle_length(compare->images[1]->handle);
    struct loop_options of_thread = {.name = "compare"};
    int status;

    if (MIN(first, second) >= SECOND_LOOP_BYTES && sysconf(_SC_NPROCESSORS_ONLN) > 1)
        compare->thread = loop_thread_new(&of_thread, NULL);
    for (unsigned i = 0; i < 2; i++)
        compare->buffers[i] = loop_buffer_get(PIECE_BYTES);
    if (!compare->buffers[0] || !compare->buffers[1]) {
        log_error("Out of memory");
        status = COMPARE_NO_READ;
    } else {
        progress_begin(&compare->progress, compare->img->progress, MAX(first, second));
        status = co_compare_lengths(compare, first, second);
        if (status == COMPARE_SAME)
            say(compare, true, "Images are identical.");
        co_progress_end(&compare->progress, false);
    }
    for (unsigned i = 0; i < 2; i++) {
        if (compare->buffers[i])
            loop_buffer_put(compare->buffers[i], PIECE_BYTES);
    }
    if (compare->thread)
        co_loop_thread_free(compare->thread);
    return status;
}

static int CO_FN co_run_command(struct img *img)
{
    struct compare compare = {.img = img};
    int status = COMPARE_SAME;

    for (size_t i = 0; i < img->options->count; i++) {
        const struct option_use *use = &img->options->items[i];

        if (use->option && use->option->id == COMPARE_FORMAT2)
            compare.format2 = use->value;
        compare.strict |= use->option && use->option->id == COMPARE_STRICT;
    }
    if (img->argument_count != 2)
        return img_misuse(img, "Expecting two image file names");
    if (img->image_opts && compare.format2)
        return img_misuse(img, "--image-opts and --format are mutually exclusive");
    for (unsigned i = 0; i < 2 && status == COMPARE_SAME; i++) {
        struct image_open open = img_open_options(img, img->arguments[i]);
        struct error *error = NULL;

        open.cache = img->source_cache;
        open.format = i ? compare.format2 : img->format;
        compare.images[i] = co_image_open(img->tool, &open, &error);
        if (!compare.images[i]) {
            img_fail(error);
            status = COMPARE_NO_OPEN;
        }
    }
    if (status == COMPARE_SAME)
        status = co_compare(&compare);
    co_image_close(img->tool, compare.images[1]);
    co_image_close(img->tool, compare.images[0]);
    return status;
}

const struct img_command img_compare = {
    .name = "compare",
    .about = "Says whether two images show the same: ends with 0 if they do, 1 if not, 2 and more for errors.",
    .arguments = "FILENAME1 FILENAME2",
    .options = options,
    .failed = COMPARE_NO_OPEN,
    .co_run = co_run_command,
};
