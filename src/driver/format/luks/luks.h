/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A LUKS node from inside. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "block/image.h"
#include "crypto/luks.h"
#include "loop/lock.h"

struct block_crypt;
struct edge;
struct luks_node {
    struct edge *file;         /* const: the data, and the header unless there is ... */
    struct edge *header_file;  /* const: NULL: none */
    struct block_crypt *crypt; /* const; NULL: opened for its metadata only */
    uint64_t payload;          /* const: where in `file` the data begins, bytes */
    struct co_mutex amending;  /* of changes to the header */
    struct luks_header header; /* main */
};

/* Where the header lies; reading and writing goes through the node's edge. */
struct luks_io luks_node_io(struct luks_node *luks);

/* create.c and amend.c: parts of driver->image */
bool CO_FN luks_co_create(struct graph *graph, const struct blockdev_create_options *all, struct error **err);
bool luks_translate(struct json *object, const char *name, const char *value, struct error **err);
struct block_measure_info *CO_FN luks_co_measure(const struct blockdev_create_options *all, struct handle *source,
                                                 uint64_t size, struct error **err);
bool CO_FN luks_co_amend(struct node *node, const struct blockdev_amend_options *all, bool force, struct error **err);
bool CO_FN luks_co_amend_image(struct node *node, const struct json *options, bool force,
                               struct image_progress *progress, struct error **err);
extern const struct image_option luks_image_options[];
