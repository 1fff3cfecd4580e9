/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Images that commands make and open by file name: targets of jobs, overlays. Main loop. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct error;
struct graph;
struct node;

struct new_image {
    const char *filename;
    const char *format;         /* NULL: opened by looking at it */
    uint64_t size;              /* bytes */
    const char *backing_file;   /* NULL: none */
    const char *backing_format; /* of that */
};

/* Makes it: the file, and the format in it. What was there is gone. */
bool CO_FN co_new_image_create(struct graph *graph, const struct new_image *image, struct error **err) MUST_CHECK;

/*
 * Opens it for reading and writing, cached as `like` is, without its backing image where the format has one and
 * `no_backing`. `node_name` NULL: made up. A node without a parent and without the monitor.
 */
struct node *CO_FN co_new_image_open(struct graph *graph, const struct new_image *image, const char *node_name,
                                     const struct node *like, bool no_backing, struct error **err) MUST_CHECK;
