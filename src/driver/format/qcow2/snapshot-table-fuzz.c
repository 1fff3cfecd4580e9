/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any bytes as a snapshot table: entries end inside it, and what was decoded means the same once it has been encoded.
 */
#include <assert.h>
#include <string.h>

#include "driver/format/qcow2/snapshot-table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(const struct qcow2_snapshot *snapshot)
{
    struct qcow2_snapshot again;
    size_t bytes;
    uint64_t need;
    uint8_t *table = qcow2_snapshot_table_encode(snapshot, 1, 0, &bytes, NULL);

    assert(table);
    assert(qcow2_snapshot_decode(table, bytes, &again, &need) == bytes);
    assert(again.l1_table_offset == snapshot->l1_table_offset);
    assert(again.l1_size == snapshot->l1_size);
    assert(again.vm_clock_nsec == snapshot->vm_clock_nsec);
    assert(again.vm_state_size == snapshot->vm_state_size);
    assert(!strcmp(again.id, snapshot->id));
    assert(!strcmp(again.name, snapshot->name));
    assert(again.unknown_extra_bytes == snapshot->unknown_extra_bytes);
    qcow2_snapshot_clear(&again);
    g_free(table);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct qcow2_snapshot snapshot;
    uint64_t need, bytes;

    for (size_t at = 0; at <= size; at += bytes) {
        bytes = qcow2_snapshot_decode(data + at, size - at, &snapshot, &need);
        assert(need >= QCOW2_SNAPSHOT_ENTRY_BYTES);
        if (!bytes) {
            assert(need > size - at);
            break;
        }
        assert(bytes <= size - at);
        check_again(&snapshot);
        qcow2_snapshot_clear(&snapshot);
    }
    return 0;
}
