/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Making images, for the commands of ashlar-img that make one. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct block_driver;
struct error;
struct img;
struct key_values;

struct img_new {
    const char *filename;
    const char *format;
    struct key_values *values; /* borrowed, and completed; "size" among them where the caller knows it */
    bool unsafe_backing;       /* a backing image that cannot be opened is none the worse */
    bool announce;             /* print "Formatting ..." */
};

/* In *ret_is_zero (NULL: not wanted) whether the new image surely reads as zeroes, as far as no backing image shows. */
bool CO_FN co_img_new(struct img *img, const struct img_new *wanted, bool *ret_is_zero, struct error **err) MUST_CHECK;

/* The driver by that name; NULL and "Unknown file format 'x'". */
const struct block_driver *img_format_driver(const char *name, struct error **err) MUST_CHECK;

/* Whether the driver makes images: "... driver 'x' does not support image creation". */
bool img_driver_creates(const struct block_driver *driver, struct error **err) MUST_CHECK;

/* The protocol's driver for `filename`, "file" for a path; NULL and the error. */
const struct block_driver *CO_FN co_img_protocol_driver(const char *filename, struct error **err) MUST_CHECK;

/* What "-o help" prints for the two (`protocol` NULL: the file is not known). */
void img_print_options(const struct block_driver *format, const struct block_driver *protocol);
