/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The COPIED flags of the active tables: they are to be set where the refcount is one, and there alone. A flag that is
 * set wrongly lets a write change what a snapshot has; the refcounts are right, and durable, before flags are.
 */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/error.h"
#include "driver/format/qcow2/check-internal.h"
#include "driver/format/qcow2/overlap.h"

/* Some entries of a table that are being looked at. */
struct entries {
    uint8_t *data;
    uint64_t offset; /* in the file, of the first */
    unsigned count;
    unsigned entry_bytes;
    unsigned first_changed;
    unsigned end_changed; /* 0: none */
};

static bool may_repair(const struct qcow2_check *check)
{
    /* Where nothing else is wrong, a flag is what a crash left, and as harmless to set right as a leak. */
    return check->repair & IMAGE_REPAIR_ERRORS ||
           (check->repair && !check->result.corruptions && !check->result.check_errors);
}

/* Sets the flag of an entry, whose refcount is `refcount`, if it is wrong. */
static void entry_repair(struct qcow2_check *check, struct entries *entries, unsigned index, bool repair)
{
    uint8_t *at = entries->data + (size_t)index * entries->entry_bytes;

    if (!repair) {
        check->result.corruptions++;
        return;
    }
    store_be64(at, load_be64(at) ^ QCOW2_COPIED);
    if (!entries->end_changed)
        entries->first_changed = index;
    entries->end_changed = index + 1;
    check->result.corruptions_fixed++;
}

static int CO_FN co_entries_store(struct qcow2_check *check, const struct entries *entries)
{
    uint64_t from = (uint64_t)entries->first_changed * entries->entry_bytes;
    int ret;

    if (!entries->end_changed)
        return 0;
    ret = co_qcow2_check_write(check, entries->offset + from, entries->data + from,
                               (size_t)entries->end_changed * entries->entry_bytes - from);
    if (ret < 0)
        error_set_errno(&check->error, ret, "Could not write the table at offset %" PRIu64, entries->offset);
    return ret;
}

/* 1: the flag is wrong; 0: right, or nobody knows. */
static int CO_FN co_flag_is_wrong(struct qcow2_check *check, uint64_t entry, uint64_t offset, uint64_t *ret_refcount)
{
    int ret = co_qcow2_check_refcount(check, offset >> check->header->cluster_bits, ret_refcount);

    return ret < 0 ? ret : !!(entry & QCOW2_COPIED) != (*ret_refcount == 1);
}

static int CO_FN co_copied_l2_part(struct qcow2_check *check, struct entries *entries, bool repair)
{
    for (unsigned i = 0; i < entries->count; i++) {
        uint64_t entry = load_be64(entries->data + (size_t)i * entries->entry_bytes);
        uint64_t offset = entry & QCOW2_L2_OFFSET_MASK;
        uint64_t refcount;
        int wrong;

        if (entry & QCOW2_COMPRESSED || !offset)
            continue;
        wrong = co_flag_is_wrong(check, entry, offset, &refcount);
        if (wrong < 0)
            return wrong;
        if (!wrong)
            continue;
        qcow2_check_say(check, "%s OFLAG_COPIED data cluster: l2_entry=%" PRIx64 " refcount=%" PRIu64,
                        repair ? "Repairing" : "ERROR", entry, refcount);
        entry_repair(check, entries, i, repair);
    }
    return co_entries_store(check, entries);
}

static int CO_FN co_copied_l2(struct qcow2_check *check, uint64_t l2_offset)
{
    unsigned count, total = 1u << qcow2_l2_bits(check->header);
    bool repair = false;
    int ret;

    if (may_repair(check)) {
        ret = co_qcow2_check_may_write(check, l2_offset, check->cluster_size, QCOW2_METADATA_ACTIVE_L2, &repair);
        if (ret < 0)
            return ret;
    }
    for (unsigned first = 0; first < total; first += count) {
        struct entries entries = {
            .data = check->l2_buffer,
            .entry_bytes = qcow2_l2_entry_bytes(check->header),
            .offset = l2_offset + (uint64_t)first * qcow2_l2_entry_bytes(check->header),
        };

        ret = co_qcow2_check_l2_part(check, l2_offset, first, &count);
        entries.count = count;
        if (ret == 0)
            ret = co_copied_l2_part(check, &entries, repair);
        if (ret < 0)
            return ret;
    }
    return 0;
}

static int CO_FN co_copied_l1_part(struct qcow2_check *check, struct entries *entries, uint32_t first, bool repair)
{
    for (unsigned i = 0; i < entries->count; i++) {
        uint64_t entry = load_be64(entries->data + (size_t)i * 8);
        uint64_t offset = entry & QCOW2_L1_OFFSET_MASK;
        uint64_t refcount;
        int ret;

        if (!offset)
            continue;
        ret = qcow2_check_tick(check, (double)(first + i) / (double)check->header->l1_size);
        if (ret < 0)
            return ret;
        ret = co_flag_is_wrong(check, entry, offset, &refcount);
        if (ret < 0)
            return ret;
        if (ret > 0) {
            qcow2_check_say(check, "%s OFLAG_COPIED L2 cluster: l1_index=%u l1_entry=%" PRIx64 " refcount=%" PRIu64,
                            repair ? "Repairing" : "ERROR", first + i, entry, refcount);
            entry_repair(check, entries, i, repair);
        }
        /* In a data file the flag says nothing. */
        if (check->header->incompatible_features & QCOW2_DATA_FILE || offset >= check->file_length)
            continue;
        ret = co_copied_l2(check, offset);
        if (ret < 0)
            return ret;
    }
    return co_entries_store(check, entries);
}

int CO_FN co_qcow2_check_copied(struct qcow2_check *check)
{
    const struct qcow2_header *header = check->header;
    uint32_t step = QCOW2_CHECK_TABLE_BYTES / 8;
    bool repair = false;
    int ret = 0;

    if (may_repair(check))
        ret = co_qcow2_check_may_write(check, header->l1_table_offset, (uint64_t)header->l1_size * 8,
                                       QCOW2_METADATA_ACTIVE_L1, &repair);
    for (uint32_t first = 0; ret == 0 && first < header->l1_size; first += step) {
        struct entries entries = {
            .data = check->l1_buffer,
            .entry_bytes = 8,
            .offset = header->l1_table_offset + (uint64_t)first * 8,
            .count = MIN(header->l1_size - first, step),
        };

        if (entries.offset >= check->file_length)
            break;
        ret = co_qcow2_check_read(check, entries.offset, entries.data, (size_t)entries.count * 8);
        if (ret == 0)
            ret = co_copied_l1_part(check, &entries, first, repair);
    }
    return ret;
}
