/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where everything goes in a new image, in this order: header, refcount table, refcount blocks, L1 table, encryption
 * header, L2 tables, data. All that is counted is cluster after cluster, without gaps.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct error;

struct qcow2_layout_request {
    uint64_t size; /* bytes, of the virtual disk */
    unsigned cluster_bits;
    unsigned refcount_order;
    bool subclusters;
    uint64_t crypto_bytes; /* of the encryption header; 0: none */
    bool tables;           /* L2 tables for the whole disk */
    uint64_t data_bytes;   /* of data in the image itself */
};

/* Offsets in bytes. */
struct qcow2_layout {
    uint64_t refcount_table_offset;
    uint64_t refcount_table_clusters;
    uint64_t refcount_blocks_offset;
    uint64_t refcount_blocks;
    uint64_t l1_offset; /* 0: there is no table, as the disk has no size */
    uint64_t l1_entries;
    uint64_t l1_clusters;
    uint64_t crypto_offset;
    uint64_t crypto_clusters;
    uint64_t l2_offset;
    uint64_t l2_tables;
    uint64_t data_offset;
    uint64_t data_clusters;
    uint64_t clusters; /* of all of it */
};

/* False and the error: such an image would be larger than the format can tell, or than we take. */
bool qcow2_layout_make(const struct qcow2_layout_request *request, struct qcow2_layout *ret,
                       struct error **err) MUST_CHECK;
