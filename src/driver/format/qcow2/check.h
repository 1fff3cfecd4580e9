/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Checking and repairing a qcow2 file. It works on the file alone, reads all tables by itself and believes nothing but
 * the header's fixed fields, so images can be checked that are too broken to be used. What is being checked must rest:
 * nobody else writes to the file, and whoever has caches of it has written them back before and drops them after.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct edge;
struct error;
struct handle;
struct image_check;
struct image_report;
struct node;
struct qcow2_image;

struct qcow2_check_result {
    uint64_t check_errors; /* places that could not be checked */
    uint64_t corruptions;  /* as found; with a repair: those that are left */
    uint64_t leaks;
    uint64_t corruptions_fixed;
    uint64_t leaks_fixed;
    uint64_t image_end_offset; /* bytes; behind the last cluster in use */
    uint64_t total_clusters;   /* of the disk */
    uint64_t allocated_clusters;
    uint64_t fragmented_clusters;
    uint64_t compressed_clusters;
};

/*
 * Checks the image in `file`. `repair`: enum image_repair bits; leaks alone does not touch an image whose refcounts
 * cannot be trusted, and fails. `report` may be NULL. False and the error: the check could not be carried through.
 *
 * What a repair does: broken refcounts are set right, or all refcount structures made anew elsewhere where they cannot
 * be trusted; COPIED flags follow the refcounts; snapshot table entries get what they lack; zero clusters lose a host
 * offset that cannot be. At the end, if nothing is left that is wrong, the dirty and the corrupt bit are cleared. Each
 * step is durable before the next, and none makes a state that the one before was not in already.
 */
bool CO_FN co_qcow2_check(struct edge *file, unsigned repair, struct image_report *report,
                          struct qcow2_check_result *ret, struct error **err) MUST_CHECK;

/* Slots of struct block_driver_image, image.h. */
bool CO_FN co_qcow2_check_file(struct handle *file, unsigned repair, struct image_report *report,
                               struct image_check *ret, struct error **err);
bool CO_FN co_qcow2_check_node(struct node *node, unsigned repair, struct image_report *report, struct image_check *ret,
                               struct error **err);

/*
 * After a change of an open image's tables has failed half-way: makes them consistent as the file has them, and reads
 * them again. In a drain, after co_qcow2_settle(). 0, or -errno where the image remains as it is.
 */
int CO_FN co_qcow2_recover(struct qcow2_image *image) MUST_CHECK;
