/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-img check: whether an image is consistent, and repairs. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "bin/img.h"
#include "block/driver.h"
#include "block/image.h"
#include "block/node.h"
#include "block/probe.h"
#include "cli/progress.h"
#include "gen/types.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "schema/json.h"

enum { CHECK_REPAIR = IMG_OWN };
enum { CHECK_CLEAN, CHECK_FAILED, CHECK_CORRUPT, CHECK_LEAKS, CHECK_UNSUPPORTED = 63 };

static const struct option options[] = {
    IMG_OPTION_OBJECT,
    IMG_OPTION_IMAGE_OPTS,
    IMG_OPTION_PROGRESS,
    IMG_OPTION_QUIET,
    IMG_OPTION_FORMAT,
    IMG_OPTION_OUTPUT,
    {"repair", 'r', "leaks|all", "repair what wastes space, or all that is wrong", CHECK_REPAIR},
    IMG_OPTION_SOURCE_CACHE,
    IMG_OPTION_FORCE_SHARE,
    {0},
};

/* One who waits for a check: hears of it, and may end it. */
struct listener {
    struct image_report report;
    struct progress progress;
    bool cancelled;
};

/* Parts of the whole that the progress counts. */
enum { PROGRESS_UNITS = 1 << 20 };

static void report_line(struct image_report *report, const char *text)
{
    (void)fprintf(stderr, "%s\n", text);
}

static bool report_done(struct image_report *report, double done)
{
    struct listener *listener = container_of(report, struct listener, report);
    struct image_progress *progress = &listener->progress.image;

    progress->report(progress, (uint64_t)(done * PROGRESS_UNITS), PROGRESS_UNITS);
    return !listener->cancelled;
}

/* Who is asked to end does so between two steps, so that no repair is left half done. */
static void CO_FN co_await_end(void *opaque)
{
    struct listener *listener = opaque;
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    if (co_signal_wait(&set) >= 0)
        listener->cancelled = true;
}

static void print_faults(const struct image_check *check)
{
    if (check->corruptions)
        printf("\n%" PRId64 " errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may corrupt it.\n",
               check->corruptions);
    if (check->leaks)
        printf("\n%" PRId64 " leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n",
               check->leaks);
    if (check->check_errors)
        printf("\n%" PRId64 " internal errors have occurred during the check.\n", check->check_errors);
}

static void print_human(const struct image_check *check)
{
    if (!check->corruptions && !check->leaks && !check->check_errors)
        printf("No errors were found on the image.\n");
    else
        print_faults(check);
    if (check->total_clusters && check->allocated_clusters)
        printf("%" PRId64 "/%" PRId64 " = %0.2f%% allocated, %0.2f%% fragmented, %0.2f%% compressed clusters\n",
               check->allocated_clusters, check->total_clusters,
               (double)check->allocated_clusters * 100.0 / (double)check->total_clusters,
               (double)check->fragmented_clusters * 100.0 / (double)check->allocated_clusters,
               (double)check->compressed_clusters * 100.0 / (double)check->allocated_clusters);
    if (check->image_end_offset > 0)
        printf("Image end offset: %" PRId64 "\n", check->image_end_offset);
}

/* What there is none of is left out. */
static void print_json(struct image_check *check)
{
    AUTO(json) json = NULL;

    check->has_image_end_offset = check->image_end_offset > 0;
    check->has_corruptions = check->corruptions > 0;
    check->has_leaks = check->leaks > 0;
    check->has_corruptions_fixed = check->corruptions_fixed > 0;
    check->has_leaks_fixed = check->leaks_fixed > 0;
    check->has_total_clusters = check->total_clusters > 0;
    check->has_allocated_clusters = check->allocated_clusters > 0;
    check->has_fragmented_clusters = check->fragmented_clusters > 0;
    check->has_compressed_clusters = check->compressed_clusters > 0;
    json = image_check_write(check);
    img_print_json(json);
}

static void print_repairs(const struct image_check *check)
{
    printf("The following inconsistencies were found and repaired:\n\n"
           "    %" PRId64 " leaked clusters\n"
           "    %" PRId64 " corruptions\n\n"
           "Double checking the fixed image now...\n",
           check->leaks_fixed, check->corruptions_fixed);
    (void)fflush(stdout);
}

/* What is checked: an open image, or a file with one in it. */
struct subject {
    struct image *image;
    const struct block_driver *driver; /* of the image's format */
    bool unopened;                     /* `image` is the raw file: the driver reads it by itself */
};

static struct image_check *CO_FN co_check_once(const struct img *img, const struct subject *subject, unsigned repair,
                                               struct error **err)
{
    const struct block_driver_image *driver = subject->driver->image;
    struct listener listener = {.report = {.line = report_line, .go_on = report_done}};
    struct co_task *signals = co_task_start(loop_current(), co_await_end, &listener);
    struct image_check *check = g_new0(struct image_check, 1);
    bool ok;

    check->filename = g_strdup(subject->image->filename);
    check->format = g_strdup(subject->driver->name);
    progress_begin(&listener.progress, img->progress && !img->json, PROGRESS_UNITS);
    listener.progress.own_units = true;
    if (subject->unopened)
        ok = driver->co_check_file(subject->image->handle, repair, &listener.report, check, err);
    else
        ok = driver->co_check(subject->image->node, repair, &listener.report, check, err);
    co_progress_end(&listener.progress, ok);
    co_task_cancel(signals);
    co_task_join(signals);
    if (ok)
        return check;
    image_check_free(check);
    return NULL;
}

/* The counts of faults after a repair are those that were left. */
static struct image_check *CO_FN co_check_all(const struct img *img, const struct subject *subject, unsigned repair,
                                              struct error **err)
{
    struct image_check *first = co_check_once(img, subject, repair, err);
    struct image_check *second;

    if (!first || (!first->corruptions_fixed && !first->leaks_fixed))
        return first;
    if (!img->quiet && !img->json)
        print_repairs(first);
    second = co_check_once(img, subject, 0, err);
    if (second) {
        second->leaks_fixed = first->leaks_fixed;
        second->corruptions_fixed = first->corruptions_fixed;
    }
    image_check_free(first);
    return second;
}

static int status_of(const struct image_check *check)
{
    if (check->corruptions)
        return CHECK_CORRUPT;
    if (check->leaks)
        return CHECK_LEAKS;
    return check->check_errors ? CHECK_FAILED : CHECK_CLEAN;
}

static int CO_FN co_check(struct img *img, const struct subject *subject, unsigned repair)
{
    const struct block_driver_image *driver = subject->driver->image;
    AUTO(image_check) check = NULL;
    struct error *error = NULL;

    if (!driver || (!subject->unopened && !driver->co_check)) {
        log_error("This image format does not support checks");
        return CHECK_UNSUPPORTED;
    }
    check = co_check_all(img, subject, repair, &error);
    if (!check) {
        error_prefix(&error, "Check failed: ");
        img_fail(error);
        return CHECK_FAILED;
    }
    if (img->quiet)
        return status_of(check);
    if (img->json)
        print_json(check);
    else
        print_human(check);
    return status_of(check);
}

static const struct block_driver *driver_find(const char *name)
{
    const struct block_driver *const *driver = block_drivers;

    while (*driver && strcmp((*driver)->name, name))
        driver++;
    return *driver;
}

/*
 * An image is not opened for its check where the driver can do without: what is broken often cannot be, and opening one
 * for writing may already repair it, silently.
 */
static bool CO_FN co_subject_open(struct img *img, const struct image_open *open, struct subject *subject,
                                  struct error **err)
{
    struct image_open raw = *open;
    const char *format = open->format;
    bool has_options = open->image_opts || g_str_has_prefix(open->filename, "json:");

    if (!has_options) {
        raw.format = "raw";
        raw.resizable = raw.writable;
        subject->image = co_image_open(img->tool, &raw, err);
        if (!subject->image)
            return false;
        if (!format)
            format = co_probe_handle(subject->image->handle, open->filename, NULL);
        subject->driver = format ? driver_find(format) : NULL;
        subject->unopened = subject->driver && subject->driver->image && subject->driver->image->co_check_file;
        if (subject->unopened)
            return true;
        co_image_close(img->tool, subject->image);
    }
    subject->image = co_image_open(img->tool, open, err);
    if (!subject->image)
        return false;
    subject->driver = node_driver(subject->image->node);
    return true;
}

static int CO_FN co_run_command(struct img *img)
{
    struct image_open open = {0};
    struct error *error = NULL;
    struct subject subject = {0};
    const char *filename;
    unsigned repair = 0;
    int status;

    for (size_t i = 0; i < img->options->count; i++) {
        const struct option_use *use = &img->options->items[i];

        if (!use->option || use->option->id != CHECK_REPAIR)
            continue;
        if (strcmp(use->value, "leaks") && strcmp(use->value, "all"))
            return img_misuse(img, "Unknown option value for -r (expecting 'leaks' or 'all'): %s", use->value);
        repair = IMAGE_REPAIR_LEAKS | (strcmp(use->value, "all") ? 0 : IMAGE_REPAIR_ERRORS);
    }
    filename = img_one_filename(img);
    if (!filename)
        return CHECK_FAILED;
    open = img_open_options(img, filename);
    open.cache = img->source_cache;
    open.writable = repair;
    open.no_backing = true;
    if (!co_subject_open(img, &open, &subject, &error))
        return img_fail(error);
    status = co_check(img, &subject, repair);
    co_image_close(img->tool, subject.image);
    return status;
}

const struct img_command img_check = {
    .name = "check",
    .about = "Checks whether an image is consistent: ends with 0 if it is, 1 where it could not be told,\n"
             "2 where it is damaged, 3 where space is wasted, 63 for formats that cannot be checked.",
    .arguments = "FILENAME",
    .options = options,
    .handles_signals = true,
    .co_run = co_run_command,
};
