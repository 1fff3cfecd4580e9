/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Comparing the refcounts in the file with the references that were counted, and setting them right. A refcount block
 * is only written if it is referred to once, and no refcount block is ever missing for what is repaired here: both
 * would have led to a rebuild.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/error.h"
#include "block/node.h"
#include "driver/format/qcow2/check-internal.h"
#include "driver/format/qcow2/refcount-block.h"

int CO_FN co_qcow2_check_block_offset(struct qcow2_check *check, uint64_t cluster, uint64_t *ret_offset)
{
    const struct qcow2_header *header = check->header;
    uint64_t index = cluster >> qcow2_refcount_block_bits(header);
    uint64_t entry;
    int ret;

    if (index >= (uint64_t)header->refcount_table_clusters << (header->cluster_bits - 3))
        return 0;
    ret = co_qcow2_check_load64(check, header->refcount_table_offset + index * 8, &entry);
    if (ret < 0)
        return ret;
    *ret_offset = entry & QCOW2_REFCOUNT_OFFSET_MASK;
    if (!is_aligned(*ret_offset, check->cluster_size))
        return -EIO;
    return *ret_offset > 0;
}

int CO_FN co_qcow2_check_refcount(struct qcow2_check *check, uint64_t cluster, uint64_t *ret)
{
    unsigned order = check->header->refcount_order;
    uint64_t index = cluster & ((UINT64_C(1) << qcow2_refcount_block_bits(check->header)) - 1);
    uint64_t block;
    const uint8_t *data;
    int result = co_qcow2_check_block_offset(check, cluster, &block);

    *ret = 0;
    if (result <= 0)
        return result;
    /* From an entry of eight bytes on, so that no entry is cut. */
    result = co_qcow2_check_piece(check, block + (index << order) / 64 * 8, &data);
    if (result == 0)
        *ret = qcow2_refcount_load(data, order, index & ((64u >> order) - 1));
    return result;
}

/* --- comparing --- */

/* Part of a refcount block, which covers `count` clusters from `first` on. */
struct part {
    uint64_t first;
    uint64_t count;
    uint64_t offset; /* in the file; has_block */
    bool has_block;
    bool changed;
    int error; /* -errno: it cannot be read */
    uint8_t data[QCOW2_CHECK_PIECE_BYTES];
};

/* The part that begins with cluster `first`, a multiple of what parts cover. */
static void CO_FN co_part_load(struct qcow2_check *check, uint64_t first, struct part *part)
{
    uint64_t bytes = MIN(check->cluster_size, QCOW2_CHECK_PIECE_BYTES);
    unsigned order = check->header->refcount_order;
    uint64_t index = first & ((UINT64_C(1) << qcow2_refcount_block_bits(check->header)) - 1);
    uint64_t block;
    const uint8_t *data;
    int ret = co_qcow2_check_block_offset(check, first, &block);

    part->first = first;
    part->count = bytes * 8 >> order;
    part->has_block = ret > 0;
    part->changed = false;
    part->error = ret;
    memset(part->data, 0, bytes);
    if (ret <= 0)
        return;
    part->offset = block + (index << order) / 8;
    part->error = co_qcow2_check_piece(check, part->offset, &data);
    if (part->error == 0)
        memcpy(part->data, data, bytes);
}

static int CO_FN co_part_store(struct qcow2_check *check, struct part *part)
{
    int ret;

    if (!part->changed)
        return 0;
    co_edge_event(check->file, BLKDEBUG_EVENT_REFBLOCK_UPDATE);
    ret = co_qcow2_check_write(check, part->offset, part->data, MIN(check->cluster_size, QCOW2_CHECK_PIECE_BYTES));
    if (ret < 0)
        error_set_errno(&check->error, ret, "Could not write the refcount block at offset %" PRIu64, part->offset);
    return ret;
}

/* Looks at one cluster. With `fix`, it is set right if the repair that was asked for says so. */
static void compare_cluster(struct qcow2_check *check, struct part *part, uint64_t cluster, bool fix)
{
    unsigned order = check->header->refcount_order;
    uint64_t refcount = qcow2_refcount_load(part->data, order, cluster - part->first);
    uint64_t references = qcow2_check_references(check, cluster);
    bool leak = refcount > references;
    bool repaired = fix && check->repair & (leak ? IMAGE_REPAIR_LEAKS : IMAGE_REPAIR_ERRORS);

    /* What the file does not have is in use only if something refers to it. */
    if (!references && cluster << check->header->cluster_bits >= check->file_length)
        return;
    if (references || refcount)
        check->used_end = MAX(check->used_end, cluster + 1);
    if (refcount == references)
        return;
    qcow2_check_say(check, "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
                    repaired ? "Repairing" : (leak ? "Leaked" : "ERROR"), cluster, refcount, references);
    if (repaired) {
        assert(part->has_block);
        qcow2_refcount_store(part->data, order, cluster - part->first, references);
        part->changed = true;
        if (leak) {
            check->result.leaks--;
            check->result.leaks_fixed++;
        } else {
            check->result.corruptions--;
            check->refcount_corruptions--;
            check->result.corruptions_fixed++;
        }
    } else if (!fix && leak) {
        check->result.leaks++;
    } else if (!fix) {
        check->result.corruptions++;
        check->refcount_corruptions++;
        /* Nothing that is in use may look free to those who allocate, and repairing needs to allocate. */
        check->rebuild |= refcount == 0;
    }
}

static bool is_zero(const uint8_t *data, size_t bytes)
{
    return !bytes || (!data[0] && !memcmp(data, data + 1, bytes - 1));
}

/* Whether the part's clusters have neither refcounts nor references: most of a file that is mostly holes. */
static bool part_is_free(const struct qcow2_check *check, const struct part *part)
{
    size_t width = check->wide ? sizeof(uint32_t) : sizeof(uint16_t);
    uint64_t index = part->first - check->window_first;
    uint64_t count = MIN(part->count, check->window_count - index);

    return is_zero((const uint8_t *)check->window + index * width, count * width) &&
           (!part->has_block || is_zero(part->data, MIN(check->cluster_size, QCOW2_CHECK_PIECE_BYTES)));
}

static int CO_FN co_compare_window(struct qcow2_check *check, bool fix)
{
    g_autofree struct part *part = g_new(struct part, 1);
    uint64_t end = MIN(check->window_first + check->window_count, check->cluster_count);

    for (uint64_t first = check->window_first; first < end; first += part->count) {
        int ret = qcow2_check_tick_window(check, QCOW2_CHECK_WALK_SHARE + (1 - QCOW2_CHECK_WALK_SHARE) *
                                                                              (double)(first - check->window_first) /
                                                                              (double)check->window_count);

        if (ret < 0)
            return ret;
        co_part_load(check, first, part);
        if (part->error == -ECANCELED)
            return part->error;
        if (part->error == 0 && part_is_free(check, part))
            continue;
        for (uint64_t cluster = first; cluster < MIN(end, first + part->count); cluster++) {
            if (part->error < 0 && cluster << check->header->cluster_bits < check->file_length) {
                qcow2_check_say(check, "Can't get refcount for cluster %" PRIu64 ": %s", cluster,
                                g_strerror(-part->error));
                check->result.check_errors++;
                check->rebuild = true;
            } else if (part->error == 0) {
                compare_cluster(check, part, cluster, fix);
            }
        }
        ret = fix ? co_part_store(check, part) : 0;
        if (ret < 0)
            return ret;
    }
    return 0;
}

/*
 * Where the next window begins: at the next cluster beyond this one that something refers to, or whose refcount block
 * there is. UINT64_MAX: nowhere.
 */
static int CO_FN co_next_window(struct qcow2_check *check, uint64_t *ret)
{
    unsigned block_bits = qcow2_refcount_block_bits(check->header);
    uint64_t end = check->window_first + check->window_count;
    uint64_t next = MIN(check->next_reference, check->cluster_count);

    for (uint64_t at = end; at < next; at = ((at >> block_bits) + 1) << block_bits) {
        uint64_t block;
        uint64_t entries = (uint64_t)check->header->refcount_table_clusters << (check->header->cluster_bits - 3);
        int result;

        if (at >> block_bits >= entries)
            break;
        result = co_qcow2_check_block_offset(check, at, &block);
        if (result == -ECANCELED)
            return result;
        if (result != 0)
            next = at;
    }
    /* Aligned to what all refcount blocks and their parts cover. */
    *ret = next < check->cluster_count ? align_down(next, check->window_max) : UINT64_MAX;
    return 0;
}

/* Goes through all windows: counts, compares, and with `fix` repairs. */
static int CO_FN co_compare_all(struct qcow2_check *check, bool fix)
{
    bool reuse = fix && check->cluster_count <= check->window_count;
    uint64_t first = 0;
    int ret = 0;

    while (ret == 0 && first != UINT64_MAX) {
        /* The only window there is still stands. */
        if (!reuse) {
            qcow2_check_window(check, first);
            check->recount = fix;
            check->quiet = first > 0 || fix;
            ret = co_qcow2_check_walk(check, first == 0 && !fix);
            check->quiet = false;
        }
        if (ret == 0)
            ret = co_compare_window(check, fix);
        if (ret == 0)
            ret = co_next_window(check, &first);
    }
    return ret;
}

int CO_FN co_qcow2_check_refcounts(struct qcow2_check *check)
{
    double from = check->part_from, to = check->part_to;
    double middle = check->repair ? (from + to) / 2 : to;
    int ret;

    check->old_refcount = true;
    qcow2_check_part(check, from, middle);
    ret = co_compare_all(check, false);
    qcow2_check_part(check, middle, to);
    if (ret == 0 && check->repair && check->result.check_errors == 0 && !check->rebuild &&
        (check->result.leaks || check->refcount_corruptions)) {
        ret = co_compare_all(check, true);
        if (ret == 0)
            ret = co_edge_flush(check->file);
    }
    return ret;
}
