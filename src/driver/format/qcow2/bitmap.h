/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty bitmaps that live in the image: read into memory when it is opened, written back when it is closed or becomes
 * read-only. All on the main loop.
 *
 * While the image is open for writing, the entries on disk are marked "in use", so that after a crash nobody takes
 * them for up to date. New contents go to new clusters; the header is switched to a new directory once all of that is
 * durable, with the autoclear bit off meanwhile; then the old clusters are freed. A crash in between leaves bitmaps
 * that are known to be out of date, and leaks.
 *
 * What is wrong with a bitmap never keeps the image from being opened: the bitmap is inconsistent then, and can only be
 * removed. Clusters that such a bitmap names are not freed, because they may be somebody else's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct block_driver_bitmaps;
struct error;
struct qcow2_bitmap_info_array;
struct qcow2_image;

/* At opening, once tables and caches are there and the node's length is set: makes what the image holds. */
bool CO_FN co_qcow2_bitmaps_load(struct qcow2_image *image, struct error **err) MUST_CHECK;

/* Writes all persistent bitmaps of the node to the image, before its caches are settled for the last time. */
bool CO_FN co_qcow2_bitmaps_store(struct qcow2_image *image, struct error **err) MUST_CHECK;

/* The image becomes writable, or no longer is, while it is open. Drained. The first: marks them as in use. */
bool CO_FN co_qcow2_bitmaps_begin_writing(struct qcow2_image *image, struct error **err) MUST_CHECK;
bool CO_FN co_qcow2_bitmaps_end_writing(struct qcow2_image *image, struct error **err) MUST_CHECK;

/* What is in memory beside the bitmaps themselves. */
void qcow2_bitmaps_free(struct qcow2_image *image);

/* Whether the bitmaps bear that the disk gets this length. */
bool qcow2_bitmaps_can_resize(const struct qcow2_image *image, uint64_t length, struct error **err) MUST_CHECK;

/* What the image holds, as on disk; owned, NULL: none. */
struct qcow2_bitmap_info_array *qcow2_bitmaps_describe(const struct qcow2_image *image);

extern const struct block_driver_bitmaps qcow2_bitmap_ops;
