/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changing what an image was made with: slots of driver->image, and the larger parts of the work. Main loop. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct blockdev_amend_options;
struct error;
struct image_progress;
struct json;
struct node;
struct qcow2_image;

bool CO_FN qcow2_co_amend(struct node *node, const struct blockdev_amend_options *options, bool force,
                          struct error **err);
bool CO_FN qcow2_co_amend_image(struct node *node, const struct json *options, bool force,
                                struct image_progress *progress, struct error **err);

/* How far one of several steps is. */
struct qcow2_amend_progress {
    struct image_progress *progress; /* NULL: nobody listens */
    unsigned step;
    unsigned steps;
};
void qcow2_amend_report(const struct qcow2_amend_progress *progress, uint64_t done, uint64_t total);

/*
 * Each does its whole work or leaves the image as it was, but for leaked clusters, also where the power fails. Nobody
 * else uses the image.
 */

/* amend-refcount.c: counts of 2 to the `order` bits. */
bool CO_FN co_qcow2_amend_refcount_order(struct qcow2_image *image, unsigned order,
                                         const struct qcow2_amend_progress *progress, struct error **err) MUST_CHECK;

/* amend-version.c */
bool CO_FN co_qcow2_amend_upgrade(struct qcow2_image *image, struct error **err) MUST_CHECK;
/* Whether nothing that version 2 does not know is in the way; `refcount_order`: as it will be by then. */
bool qcow2_amend_downgrade_check(const struct qcow2_image *image, unsigned refcount_order,
                                 struct error **err) MUST_CHECK;
bool CO_FN co_qcow2_amend_downgrade(struct qcow2_image *image, const struct qcow2_amend_progress *progress,
                                    struct error **err) MUST_CHECK;
