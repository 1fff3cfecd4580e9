/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guard in front of every write to a qcow2 file: is there metadata in the place that is not what is being written?
 * A write that would hit some fails with -EIO, sets the header's corrupt bit and fences the node.
 *
 * Asking is cheap where there is nothing, which is nearly always: a few ranges are compared, and a filter is looked up
 * that has a few bits for each cluster that holds a table (no false negatives; it fills up and is never too small to be
 * right). Only where that says "maybe", the tables themselves are searched.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "loop/lock.h"

struct error;
struct qcow2_image;
struct qcow2_overlap_checks;
struct qcow2_snapshot;

/* Kinds of metadata, as bits. The first ones are single ranges. */
enum qcow2_metadata {
    QCOW2_METADATA_MAIN_HEADER = 1u << 0,
    QCOW2_METADATA_ACTIVE_L1 = 1u << 1,
    QCOW2_METADATA_REFCOUNT_TABLE = 1u << 2,
    QCOW2_METADATA_SNAPSHOT_TABLE = 1u << 3,
    QCOW2_METADATA_BITMAP_DIRECTORY = 1u << 4,
    QCOW2_METADATA_ACTIVE_L2 = 1u << 5,
    QCOW2_METADATA_REFCOUNT_BLOCK = 1u << 6,
    QCOW2_METADATA_INACTIVE_L1 = 1u << 7,
    QCOW2_METADATA_INACTIVE_L2 = 1u << 8,
};
enum { QCOW2_METADATA_RANGES = 5, QCOW2_METADATA_KINDS = 9 };

/* Part of struct qcow2_image. Zero-filled it is a valid guard that guards nothing. */
struct qcow2_overlap_range {
    uint64_t offset; /* atomic; what a reader sees half changed is looked at again under `spin` */
    uint64_t bytes;
};
struct qcow2_overlap {
    unsigned mask;         /* drain: which kinds are guarded */
    unsigned cluster_bits; /* const */
    struct spin_lock spin; /* of setting the ranges; taken last */
    struct qcow2_overlap_range ranges[QCOW2_METADATA_RANGES];
    uint64_t *filter; /* drain; its words atomic */
    uint64_t filter_mask;
};

/* The kinds that the option "overlap-check" (NULL: the default, 'cached') turns on. */
unsigned qcow2_overlap_mask(const struct qcow2_overlap_checks *options);

/*
 * Sets the guard up from what the image has in memory: header, L1 table, refcount table, snapshots; at opening, and
 * again in a drain after one of these was loaded anew or `mask` has changed. Reads the file for inactive L2 tables
 * only. 0 or -errno.
 */
int CO_FN co_qcow2_overlap_load(struct qcow2_image *image, unsigned mask) MUST_CHECK;
void qcow2_overlap_done(struct qcow2_overlap *overlap);

/* Takes what the header says of the kinds that are single ranges; where one has moved. Any loop. */
void qcow2_overlap_refresh(struct qcow2_image *image);

/* Where such a kind lies now; bytes 0: there is none. Before it is referred to there. Any loop. */
void qcow2_overlap_set_range(struct qcow2_overlap *overlap, enum qcow2_metadata kind, uint64_t offset, uint64_t bytes);

/* A snapshot has come. In a drain. */
int CO_FN co_qcow2_overlap_add_snapshot(struct qcow2_image *image, const struct qcow2_snapshot *snapshot) MUST_CHECK;

/*
 * The parts: an empty guard for about `tables` clusters that hold tables; these clusters do (before they are referred
 * to; any loop); whether the range may have guarded metadata in it (any loop, a few nanoseconds).
 */
void qcow2_overlap_init(struct qcow2_overlap *overlap, unsigned mask, unsigned cluster_bits, uint64_t tables);
void qcow2_overlap_add(struct qcow2_overlap *overlap, uint64_t offset, uint64_t bytes);
bool qcow2_overlap_maybe(struct qcow2_overlap *overlap, uint64_t offset, uint64_t bytes);

/*
 * Called before each write to the image's file. `ignore`: the kinds that the write is meant to change (0: guest data);
 * clusters written as L2 tables, refcount blocks and inactive L1 tables are added to the guard by this call.
 * 0, or -EIO after the image has been marked corrupt and the node been fenced.
 */
int CO_FN co_qcow2_overlap_check(struct qcow2_image *image, uint64_t offset, uint64_t bytes, unsigned ignore);
