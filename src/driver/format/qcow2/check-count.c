/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counting references, for a window of clusters. A count goes up to what a refcount of the image can say; one more is
 * an error, and not counted.
 */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "driver/format/qcow2/check-internal.h"

void qcow2_check_window(struct qcow2_check *check, uint64_t first)
{
    size_t size;

    if (!check->window) {
        check->wide = check->header->refcount_order > QCOW2_REFCOUNT_ORDER_V2;
        check->window_max = MAX(check->window_bytes / (check->wide ? sizeof(uint32_t) : sizeof(uint16_t)),
                                UINT64_C(1) << qcow2_refcount_block_bits(check->header));
        check->window_count = MIN(check->window_max, check->cluster_count);
        size = (size_t)check->window_count * (check->wide ? sizeof(uint32_t) : sizeof(uint16_t));
        check->window = g_malloc(size);
    }
    size = (size_t)check->window_count * (check->wide ? sizeof(uint32_t) : sizeof(uint16_t));
    memset(check->window, 0, size);
    check->window_first = first;
    check->next_reference = UINT64_MAX;
}

void qcow2_check_window_done(struct qcow2_check *check)
{
    g_free(TAKE(check->window));
}

static void mark_block(struct qcow2_check *check, uint64_t cluster)
{
    uint64_t block = cluster >> qcow2_refcount_block_bits(check->header);

    if (check->block_used && block < check->block_used_max) {
        check->block_used[block / 8] |= (uint8_t)(1u << block % 8);
        check->block_used_end = MAX(check->block_used_end, block + 1);
    }
}

/* False: the count is at its end. */
static bool refer_cluster(struct qcow2_check *check, uint64_t index)
{
    uint16_t *narrow = check->window;
    uint32_t *wide = check->window;

    if (check->wide) {
        if (wide[index] >= MIN(check->refcount_max, UINT32_MAX))
            return false;
        wide[index]++;
        return true;
    }
    if (narrow[index] >= check->refcount_max)
        return false;
    narrow[index]++;
    return true;
}

void qcow2_check_refer(struct qcow2_check *check, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset >> check->header->cluster_bits;
    uint64_t last;
    bool added = false;

    if (!bytes)
        return;
    for (unsigned i = 0; i < G_N_ELEMENTS(check->additions); i++)
        added |= first - check->additions[i].first < check->additions[i].count;
    /* The last cluster of a file need not be whole. */
    if (!added && (offset > UINT64_MAX - bytes || (offset + bytes > check->file_length &&
                                                   offset + bytes - check->file_length >= check->cluster_size))) {
        qcow2_check_corruption(check,
                               "ERROR: counting reference for region exceeding the end of the file by one cluster or "
                               "more: offset 0x%" PRIx64 " size 0x%" PRIx64,
                               offset, bytes);
        return;
    }
    last = (offset + bytes - 1) >> check->header->cluster_bits;
    for (uint64_t cluster = first; cluster <= last; cluster++) {
        mark_block(check, cluster);
        if (cluster >= check->window_first + check->window_count)
            check->next_reference = MIN(check->next_reference, cluster);
        else if (cluster >= check->window_first && !refer_cluster(check, cluster - check->window_first)) {
            qcow2_check_corruption_here(check, "ERROR: overflow cluster offset=0x%" PRIx64,
                                        cluster << check->header->cluster_bits);
        }
    }
}

uint64_t qcow2_check_references(const struct qcow2_check *check, uint64_t cluster)
{
    uint64_t index = cluster - check->window_first;

    assert(cluster >= check->window_first);
    if (index >= check->window_count)
        return 0;
    return check->wide ? ((const uint32_t *)check->window)[index] : ((const uint16_t *)check->window)[index];
}
