/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The active L2 tables with other COPIED flags. A table whose flags change is written to a new place, since the old one
 * is what the file names until the header is switched; the others stay where they are.
 */
#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "driver/format/qcow2/qcow2.h"
#include "driver/format/qcow2/snapshot.h"
#include "loop/loop.h"

/* Sets the flag of an entry as it is to be. 1: it has changed. */
static int CO_FN co_flag(struct qcow2_image *image, uint8_t *at, bool own_nothing)
{
    uint64_t entry = load_be64(at), offset = entry & QCOW2_L2_OFFSET_MASK, count = 0;
    int ret;

    if (entry & QCOW2_COMPRESSED || !offset)
        return 0;
    if (!is_aligned(offset, image->cluster_size))
        return co_qcow2_corrupt(image, 0, 0, "Data cluster offset %#" PRIx64 " unaligned", offset);
    ret = own_nothing ? 0 : co_qcow2_refcount_get(image, offset, &count);
    if (ret || !!(entry & QCOW2_COPIED) == (count == 1))
        return ret;
    store_be64(at, entry ^ QCOW2_COPIED);
    return 1;
}

/* 1: some flag in `table` has changed. */
static int CO_FN co_flags(struct qcow2_image *image, uint8_t *table, bool own_nothing)
{
    int changed = 0;

    /* In a data file the flag says nothing. */
    for (uint64_t i = 0; i < UINT64_C(1) << image->l2_bits && !image->has_data_file; i++) {
        int ret = co_flag(image, table + (i << image->l2_entry_bits), own_nothing);

        if (ret < 0)
            return ret;
        changed |= ret;
    }
    return changed;
}

static int CO_FN co_copy(struct qcow2_image *image, const uint8_t *table, uint64_t *ret_entry)
{
    uint64_t offset;
    int ret = co_qcow2_alloc_clusters(image, image->cluster_size, &offset);

    if (!ret)
        ret = co_qcow2_overlap_check(image, offset, image->cluster_size, 0);
    if (ret)
        return ret;
    qcow2_overlap_add(&image->overlap, offset, image->cluster_size);
    *ret_entry = offset | QCOW2_COPIED;
    return co_edge_pwrite(image->file, offset, image->cluster_size, table, 0);
}

static int CO_FN co_l1_entry(struct qcow2_image *image, uint64_t entry, bool own_nothing, uint8_t *table,
                             uint64_t *ret_entry)
{
    uint64_t offset = entry & QCOW2_L1_OFFSET_MASK, count = 0;
    int ret = co_qcow2_l2_check(image, entry);

    if (!ret)
        ret = co_edge_pread(image->file, offset, image->cluster_size, table, 0);
    if (!ret)
        ret = co_flags(image, table, own_nothing);
    if (ret)
        return ret < 0 ? ret : co_copy(image, table, ret_entry);
    ret = own_nothing ? 0 : co_qcow2_refcount_get(image, offset, &count);
    *ret_entry = offset | (count == 1 ? QCOW2_COPIED : 0);
    return ret;
}

int CO_FN co_qcow2_flags_copy(struct qcow2_image *image, bool own_nothing, uint64_t *l1)
{
    uint8_t *table = loop_buffer_get(image->cluster_size);
    int ret = table ? 0 : -ENOMEM;

    for (uint32_t i = 0; i < image->header->l1_size && !ret; i++) {
        uint64_t entry = image->l1[i] & ~QCOW2_L1_UNWRITTEN;

        l1[i] = entry;
        if (entry & QCOW2_L1_OFFSET_MASK)
            ret = co_l1_entry(image, entry, own_nothing, table, &l1[i]);
    }
    if (table)
        loop_buffer_put(table, image->cluster_size);
    return ret;
}
