/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ashlar-img: what its commands share. Each command is a file with a table of its options; those that several commands
 * have are taken from the command line by img.c, before the command runs.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "cli/image-open.h"
#include "cli/option.h"
#include "cli/tool.h"

struct error;
struct json;

/* Ids of options that several commands have; a command's own begin at IMG_OWN. */
enum img_option_id {
    IMG_HELP,
    IMG_VERSION,
    IMG_TRACE,
    IMG_OBJECT,
    IMG_IMAGE_OPTS,
    IMG_FORMAT,
    IMG_QUIET,
    IMG_PROGRESS,
    IMG_CACHE,
    IMG_SOURCE_CACHE,
    IMG_FORCE_SHARE,
    IMG_OUTPUT,
    IMG_OPTIONS,
    IMG_OWN,
};

#define IMG_OPTION_OBJECT                                                                                              \
    {                                                                                                                  \
        "object", 0, "OBJECTDEF", "make an object, such as a secret; --object help lists the types", IMG_OBJECT        \
    }
#define IMG_OPTION_IMAGE_OPTS                                                                                          \
    {                                                                                                                  \
        "image-opts", 0, NULL, "FILENAME is options: driver=qcow2,file.filename=x", IMG_IMAGE_OPTS                     \
    }
#define IMG_OPTION_FORMAT                                                                                              \
    {                                                                                                                  \
        "", 'f', "FMT", "format of the image (default: found out)", IMG_FORMAT                                         \
    }
#define IMG_OPTION_QUIET                                                                                               \
    {                                                                                                                  \
        "quiet", 'q', NULL, "print nothing but errors", IMG_QUIET                                                      \
    }
#define IMG_OPTION_PROGRESS                                                                                            \
    {                                                                                                                  \
        "", 'p', NULL, "show how far it is", IMG_PROGRESS                                                              \
    }
#define IMG_OPTION_CACHE(default_mode)                                                                                 \
    {                                                                                                                  \
        "", 't', "CACHE",                                                                                              \
            "how to write: none, writeback, writethrough, directsync\nor unsafe (default: " default_mode ")",          \
            IMG_CACHE                                                                                                  \
    }
#define IMG_OPTION_SOURCE_CACHE                                                                                        \
    {                                                                                                                  \
        "", 'T', "SRC_CACHE", "the same for images that are read", IMG_SOURCE_CACHE                                    \
    }
#define IMG_OPTION_FORCE_SHARE                                                                                         \
    {                                                                                                                  \
        "force-share", 'U', NULL, "open the image even where a process writes to it", IMG_FORCE_SHARE                  \
    }
#define IMG_OPTION_OUTPUT                                                                                              \
    {                                                                                                                  \
        "output", 0, "OFMT", "how to print: human or json (default: human)", IMG_OUTPUT                                \
    }
#define IMG_OPTION_OPTIONS                                                                                             \
    {                                                                                                                  \
        "", 'o', "OPTIONS", "key=value,... of the format; -o help lists them", IMG_OPTIONS                             \
    }

/* A run of one command. */
struct img {
    struct tool *tool;
    const struct img_command *command;
    const struct option_list *options; /* all as used, for the command's own */

    /* What the shared options say. */
    const char *format; /* NULL: not given */
    bool image_opts;
    bool quiet;
    bool progress; /* shown, as far as not quiet */
    bool force_share;
    bool json;
    bool has_cache;
    bool has_source_cache;
    struct cache_mode cache;
    struct cache_mode source_cache;
    char *key_values; /* all of -o, joined by commas; owned; NULL: none */

    /* The words that are no options. */
    size_t argument_count;
    const char **arguments; /* owned array */
};

struct img_command {
    const char *name;
    const char *about;     /* a line */
    const char *arguments; /* how the help calls what is no option */
    const struct option *options;
    bool last_argument_is_a_word; /* even where it begins with a dash */
    bool handles_signals;         /* waits itself for those that would end it */
    int failed;                   /* status where a shared option is wrong or an object cannot be made; 0: 1 */
    int (*co_run)(struct img *img);
};

extern const struct img_command img_amend, img_bench, img_bitmap, img_check, img_commit, img_compare, img_convert,
    img_create, img_dd, img_info, img_map, img_measure, img_rebase, img_resize, img_snapshot;

/* Reports `err`, taken; returns 1. */
int img_fail(struct error *err);

/* The one word that is no option; NULL: reported, "Expecting one image file name". */
const char *img_one_filename(const struct img *img);

/* Prints and returns 1: the message, and where to find help. */
int img_misuse(const struct img *img, const char *format, ...) PRINTF_LIKE(2, 3);

/* Opens as the shared options say: format, image_opts, force_share. */
struct image_open img_open_options(const struct img *img, const char *filename);

/* "1.5G" to bytes; false: reported with `what` it was. */
bool img_parse_size(const char *what, const char *text, uint64_t *ret) MUST_CHECK;
bool img_parse_number(const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *ret) MUST_CHECK;

/* Prints JSON with a newline. */
void img_print_json(const struct json *value);
