/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Making qcow2 images: the parts of driver->image (block/image.h) that do it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "block/image.h"
#include "gen/types.h"

struct error;
struct graph;
struct handle;
struct json;

bool CO_FN qcow2_co_create(struct graph *graph, const struct blockdev_create_options *all, struct error **err);

extern const struct image_option qcow2_image_options[];
bool qcow2_translate(struct json *object, const char *name, const char *value, struct error **err);

struct block_measure_info *CO_FN qcow2_co_measure(const struct blockdev_create_options *all, struct handle *source,
                                                  uint64_t size, struct error **err);

/* What the options ask for, with defaults for what they leave out, checked one by one and together. */
struct qcow2_create_request {
    unsigned version;
    unsigned cluster_bits;
    unsigned refcount_order;
    bool subclusters;
    bool data_file;
    bool data_file_raw;
    enum prealloc_mode preallocation;
    enum qcow2_compression_type compression_type;
};
bool qcow2_create_request_check(const struct blockdev_create_options_qcow2 *options, struct qcow2_create_request *ret,
                                struct error **err) MUST_CHECK;
