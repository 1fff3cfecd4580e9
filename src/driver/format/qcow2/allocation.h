/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guest clusters that are getting another place or state. As long as one is registered in the shard of its slice,
 * nobody else changes those clusters or their L2 entries. It lies on the stack of the request.
 */
#pragma once

#include "driver/format/qcow2/qcow2.h"

struct qcow2_allocation {
    struct qcow2_allocation *next; /* the shard's lock, as are the next two */
    uint64_t guest;                /* of the first cluster */
    uint64_t clusters;             /* inside one slice */
    uint64_t host;                 /* of the first cluster */
    bool keep;                     /* the clusters are there already, and are the image's own; or in the data file */
    bool fresh;                    /* they read as zeroes */
    bool whole;                    /* all of each cluster needs data, where subclusters would do otherwise */
    struct qcow2_l2_entry first;   /* old entry of the first cluster */
};

/* What a write has to do at its beginning. */
struct qcow2_write_plan {
    uint64_t bytes; /* of the request; > 0 */
    bool in_place;
    uint64_t host;          /* in_place */
    struct qcow2_hold hold; /* in_place: to be ended */
    struct qcow2_allocation allocation;
};

/* Finds out; waits for allocations in the way. With an allocation: it is registered and has its clusters. */
int CO_FN co_qcow2_write_plan(struct qcow2_image *image, uint64_t guest, uint64_t bytes,
                              struct qcow2_write_plan *ret) MUST_CHECK;

/*
 * The data of [guest, guest + bytes), and what has to be around it, is in the new place: the table names it. Ends the
 * allocation, also on failure.
 */
int CO_FN co_qcow2_allocation_link(struct qcow2_image *image, struct qcow2_allocation *allocation, uint64_t guest,
                                   uint64_t bytes) MUST_CHECK;
/* Ends it without a change; what was taken is free again. */
void qcow2_allocation_abort(struct qcow2_image *image, struct qcow2_allocation *allocation);

/*
 * Registers [allocation->guest, + clusters) as soon as nobody else has any of it; for who changes entries alone. The
 * range must lie in one slice.
 */
void CO_FN co_qcow2_allocation_claim(struct qcow2_image *image, struct qcow2_allocation *allocation);
void qcow2_allocation_end(struct qcow2_image *image, struct qcow2_allocation *allocation);

/* Bytes that have to be copied together. */
uint64_t qcow2_copy_unit(const struct qcow2_image *image, const struct qcow2_allocation *allocation);
/* Takes off [*from, guest) and [guest + bytes, *to) what subclusters that are there already have. */
void qcow2_trim_copy(const struct qcow2_allocation *allocation, const struct qcow2_image *image, uint64_t guest,
                     uint64_t bytes, uint64_t *from, uint64_t *to);

/* Whether something of the backing image is behind `guest`. */
static inline bool qcow2_backing_reaches(const struct qcow2_image *image, uint64_t guest)
{
    struct edge *backing = node_backing(image->node);

    return backing && guest < node_length(edge_child(backing));
}

/* That the L2 table for `guest` be the image's own: made, or copied from one that is shared. */
int CO_FN co_qcow2_l2_own(struct qcow2_image *image, uint64_t guest) MUST_CHECK;

/* What an entry that is no longer there named is freed. Any loop, also under a shard's lock. */
void qcow2_entry_free(struct qcow2_image *image, uint64_t entry, enum qcow2_free_reason reason);

/* Sets the entry of the cluster at `guest`, which the caller has claimed; frees what the old one named. */
int CO_FN co_qcow2_entry_replace(struct qcow2_image *image, uint64_t guest, uint64_t entry) MUST_CHECK;
