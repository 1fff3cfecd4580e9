/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-img bench: how long requests of one kind take. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/units.h"
#include "bin/img.h"
#include "block/handle.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"

enum {
    BENCH_COUNT = IMG_OWN,
    BENCH_DEPTH,
    BENCH_FLUSH_INTERVAL,
    BENCH_AIO,
    BENCH_NATIVE,
    BENCH_NO_DRAIN,
    BENCH_OFFSET,
    BENCH_PATTERN,
    BENCH_SIZE,
    BENCH_STEP,
    BENCH_WRITE,
};
enum { COUNT_DEFAULT = 75000, DEPTH_DEFAULT = 64, SIZE_DEFAULT = 4096, DEPTH_MAX = 65536 };

static const struct option options[] = {
    IMG_OPTION_OBJECT,
    IMG_OPTION_IMAGE_OPTS,
    {"", 'c', "COUNT", "number of requests (default: 75000)", BENCH_COUNT},
    {"", 'd', "DEPTH", "so many at the same time (default: 64)", BENCH_DEPTH},
    IMG_OPTION_FORMAT,
    {"flush-interval", 0, "FLUSH_INTERVAL", "flush after so many writes", BENCH_FLUSH_INTERVAL},
    {"", 'i', "AIO", "how the file does I/O: threads, native, io_uring", BENCH_AIO},
    {"native", 'n', NULL, "the same as -i native", BENCH_NATIVE},
    {"no-drain", 0, NULL, "let writes go on while a flush does", BENCH_NO_DRAIN},
    {"", 'o', "OFFSET", "where to begin (default: 0)", BENCH_OFFSET},
    {"pattern", 0, "PATTERN", "the byte to write (default: 0)", BENCH_PATTERN},
    IMG_OPTION_QUIET,
    {"buffer-size", 's', "BUFFER_SIZE", "bytes of a request (default: 4k)", BENCH_SIZE},
    {"step-size", 'S', "STEP_SIZE", "from one request to the next (default: their size)", BENCH_STEP},
    IMG_OPTION_CACHE("writeback"),
    {"", 'w', NULL, "write", BENCH_WRITE},
    IMG_OPTION_FORCE_SHARE,
    {0},
};

struct bench {
    struct img *img;
    uint64_t count;
    uint64_t depth;
    uint64_t offset;
    uint64_t size;
    uint64_t step;
    uint64_t flush_interval; /* 0: none */
    uint64_t pattern;
    const char *aio;
    bool write;
    bool no_drain;

    struct handle *handle;
    uint64_t length;
    uint8_t *buffer; /* `depth` times `size` bytes */
    uint64_t left;
    uint64_t active;
    bool flushing; /* writes wait for a flush */
    struct co_condition changed;
    int result;
};

static bool take_number(const char *text, const char *what, uint64_t max, uint64_t *ret)
{
    uint64_t value;

    if (uint64_parse(text, &value) && value <= max) {
        *ret = value;
        return true;
    }
    log_error("Invalid %s specified", what);
    return false;
}

static bool take_aio(struct bench *bench, const char *text)
{
    bench->aio = text;
    if (!strcmp(text, "threads") || !strcmp(text, "native") || !strcmp(text, "io_uring"))
        return true;
    log_error("Invalid aio option: %s", text);
    return false;
}

static bool take_option(struct bench *bench, const struct option_use *use)
{
    switch (use->option ? use->option->id : -1) {
    case BENCH_COUNT:
        return take_number(use->value, "request count", INT32_MAX, &bench->count);
    case BENCH_DEPTH:
        return take_number(use->value, "queue depth", DEPTH_MAX, &bench->depth);
    case BENCH_FLUSH_INTERVAL:
        return take_number(use->value, "flush interval", INT32_MAX, &bench->flush_interval);
    case BENCH_AIO:
        return take_aio(bench, use->value);
    case BENCH_NATIVE:
        bench->aio = "native";
        return true;
    case BENCH_NO_DRAIN:
        bench->no_drain = true;
        return true;
    case BENCH_OFFSET:
        return img_parse_size("offset", use->value, &bench->offset);
    case BENCH_PATTERN:
        return take_number(use->value, "pattern byte", UINT8_MAX, &bench->pattern);
    case BENCH_SIZE:
        return img_parse_size("buffer size", use->value, &bench->size);
    case BENCH_STEP:
        return img_parse_size("step_size", use->value, &bench->step);
    case BENCH_WRITE:
        bench->write = true;
        return true;
    }
    return true;
}

/* --- running --- */

static void fail(struct bench *bench, int result)
{
    if (!bench->result)
        bench->result = result;
    co_condition_broadcast(&bench->changed);
}

/* One flush, before which the others have ended unless they need not. */
static void CO_FN co_flush(struct bench *bench)
{
    int result;

    if (!bench->no_drain) {
        bench->flushing = true;
        while (bench->active > 1)
            co_condition_wait_always(&bench->changed, NULL);
    }
    result = co_handle_flush(bench->handle);
    bench->flushing = false;
    co_condition_broadcast(&bench->changed);
    if (result < 0)
        fail(bench, result);
}

static uint64_t next_offset(struct bench *bench)
{
    uint64_t offset = bench->offset;

    bench->offset += bench->step;
    if (bench->offset >= bench->length || bench->size > bench->length - bench->offset)
        bench->offset = 0;
    return offset;
}

static void CO_FN co_request(struct bench *bench, uint8_t *buffer)
{
    uint64_t offset = next_offset(bench);
    bool flush;
    int result;

    bench->left--;
    bench->active++;
    flush = bench->flush_interval && bench->left % bench->flush_interval == 0;
    result = bench->write ? co_handle_pwrite(bench->handle, offset, bench->size, buffer, 0)
                          : co_handle_pread(bench->handle, offset, bench->size, buffer, 0);
    if (result < 0)
        fail(bench, result);
    else if (flush)
        co_flush(bench);
    bench->active--;
    co_condition_broadcast(&bench->changed);
}

struct worker {
    struct bench *bench;
    uint8_t *buffer;
};

static void CO_FN co_work(void *opaque)
{
    struct worker *worker = opaque;
    struct bench *bench = worker->bench;

    while (bench->left && !bench->result) {
        if (bench->flushing)
            co_condition_wait_always(&bench->changed, NULL);
        else
            co_request(bench, worker->buffer);
    }
}

static void CO_FN co_run_workers(struct bench *bench)
{
    g_autofree struct worker *workers = g_new0(struct worker, bench->depth);
    g_autofree struct co_task **tasks = g_new0(struct co_task *, bench->depth);

    for (uint64_t i = 0; i < bench->depth; i++) {
        workers[i] = (struct worker){.bench = bench, .buffer = bench->buffer + i * bench->size};
        tasks[i] = co_task_start(loop_current(), co_work, &workers[i]);
    }
    for (uint64_t i = 0; i < bench->depth; i++)
        co_task_join(tasks[i]);
}

static void print_plan(const struct bench *bench)
{
    printf("Sending %" PRIu64 " %s requests, %" PRIu64 " bytes each, %" PRIu64
           " in parallel (starting at offset %" PRIu64 ", step size %" PRIu64 ")\n",
           bench->count, bench->write ? "write" : "read", bench->size, bench->depth, bench->offset, bench->step);
    if (bench->flush_interval)
        printf("Sending flush every %" PRIu64 " requests\n", bench->flush_interval);
    (void)fflush(stdout);
}

static bool CO_FN co_bench(struct bench *bench, struct error **err)
{
    size_t bytes = MAX(bench->size * bench->depth, 1);
    int64_t started_ns;

    bench->length = handle_length(bench->handle);
    if (bench->size > bench->length)
        return error_set(err, "Failed to run requests: the image has %" PRIu64 " bytes, a request %" PRIu64,
                         bench->length, bench->size);
    bench->buffer = loop_buffer_get(bytes);
    if (!bench->buffer)
        return error_set(err, "Failed to allocate I/O buffer: %zu bytes", bytes);
    memset(bench->buffer, (int)(bench->write ? bench->pattern : 0), bytes);
    if (!bench->img->quiet)
        print_plan(bench);
    bench->left = bench->count;
    started_ns = loop_now_ns();
    co_run_workers(bench);
    if (!bench->result && !bench->img->quiet)
        printf("Run completed in %3.3f seconds.\n", (double)(loop_now_ns() - started_ns) / 1e9);
    loop_buffer_put(bench->buffer, bytes);
    co_condition_done(&bench->changed);
    return !bench->result || error_set_errno(err, bench->result, "Failed request");
}

static const char *find_contradiction(const struct bench *bench)
{
    if (!bench->write && bench->flush_interval)
        return "--flush-interval is only available in write tests";
    if (bench->flush_interval && bench->flush_interval < bench->depth)
        return "Flush interval can't be smaller than depth";
    if (!bench->depth)
        return "Invalid queue depth specified";
    if (bench->size > INT32_MAX || bench->size * bench->depth > (UINT64_C(4) << 30))
        return "The buffers of all requests together are larger than 4 GiB";
    return NULL;
}

static int CO_FN co_open_and_bench(struct bench *bench, const char *filename)
{
    struct image_open open = img_open_options(bench->img, filename);
    struct error *error = NULL;
    struct image *image;

    open.writable = bench->write;
    open.cache = bench->img->cache;
    open.aio = bench->aio;
    image = co_image_open(bench->img->tool, &open, &error);
    if (!image)
        return img_fail(error);
    bench->handle = image->handle;
    (void)co_bench(bench, &error);
    co_image_close(bench->img->tool, image);
    return error ? img_fail(error) : EXIT_SUCCESS;
}

static int CO_FN co_run_command(struct img *img)
{
    struct bench bench = {
        .img = img, .count = COUNT_DEFAULT, .depth = DEPTH_DEFAULT, .size = SIZE_DEFAULT, .step = UINT64_MAX};
    const char *contradiction;
    const char *filename;

    for (size_t i = 0; i < img->options->count; i++) {
        if (!take_option(&bench, &img->options->items[i]))
            return EXIT_FAILURE;
    }
    filename = img_one_filename(img);
    if (!filename)
        return EXIT_FAILURE;
    if (bench.step == UINT64_MAX)
        bench.step = bench.size;
    contradiction = find_contradiction(&bench);
    if (!contradiction)
        return co_open_and_bench(&bench, filename);
    log_error("%s", contradiction);
    return EXIT_FAILURE;
}

const struct img_command img_bench = {
    .name = "bench",
    .about = "Measures how long requests take.",
    .arguments = "FILENAME",
    .options = options,
    .co_run = co_run_command,
};
