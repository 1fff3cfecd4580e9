/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of internal snapshots: a sequence of entries of different lengths, each padded to eight bytes. */
#include "driver/format/qcow2/snapshot-table.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/error.h"
#include "block/node.h"
#include "driver/format/qcow2/header.h"

/* Where an entry's fields are. */
enum {
    AT_L1_TABLE_OFFSET = 0,
    AT_L1_SIZE = 8,
    AT_ID_SIZE = 12,
    AT_NAME_SIZE = 14,
    AT_DATE_SEC = 16,
    AT_DATE_NSEC = 20,
    AT_VM_CLOCK_NSEC = 24,
    AT_VM_STATE_SIZE = 32,
    AT_EXTRA_SIZE = 36,
    /* Of the extra data. */
    AT_EXTRA_VM_STATE_SIZE = 0,
    AT_EXTRA_DISK_SIZE = 8,
    AT_EXTRA_ICOUNT = 16,
};

/* How much is read at once. */
enum { READ_BYTES = 64 * 1024 };

void qcow2_snapshot_clear(struct qcow2_snapshot *snapshot)
{
    g_free(snapshot->id);
    g_free(snapshot->name);
    g_free(snapshot->unknown_extra);
    *snapshot = (struct qcow2_snapshot){0};
}

void qcow2_snapshot_table_done(struct qcow2_snapshot_table *table)
{
    for (size_t i = 0; i < table->count; i++)
        qcow2_snapshot_clear(&table->items[i]);
    g_free(table->items);
    *table = (struct qcow2_snapshot_table){0};
}

static void decode_extra(const uint8_t *extra, struct qcow2_snapshot *snapshot)
{
    uint32_t bytes = snapshot->extra_bytes;

    snapshot->icount = QCOW2_SNAPSHOT_NO_ICOUNT;
    if (bytes >= AT_EXTRA_VM_STATE_SIZE + 8)
        snapshot->vm_state_size = load_be64(extra + AT_EXTRA_VM_STATE_SIZE);
    if (bytes >= AT_EXTRA_DISK_SIZE + 8) {
        snapshot->disk_size = load_be64(extra + AT_EXTRA_DISK_SIZE);
        snapshot->has_disk_size = true;
    }
    if (bytes >= AT_EXTRA_ICOUNT + 8)
        snapshot->icount = load_be64(extra + AT_EXTRA_ICOUNT);
    if (bytes > QCOW2_SNAPSHOT_EXTRA_BYTES && bytes <= QCOW2_SNAPSHOT_EXTRA_BYTES_MAX) {
        snapshot->unknown_extra_bytes = bytes - QCOW2_SNAPSHOT_EXTRA_BYTES;
        snapshot->unknown_extra = g_memdup2(extra + QCOW2_SNAPSHOT_EXTRA_BYTES, snapshot->unknown_extra_bytes);
    }
}

uint64_t qcow2_snapshot_decode(const uint8_t *data, size_t size, struct qcow2_snapshot *ret, uint64_t *ret_need)
{
    uint64_t id_bytes, name_bytes, extra_bytes, bytes;

    *ret_need = QCOW2_SNAPSHOT_ENTRY_BYTES;
    if (size < QCOW2_SNAPSHOT_ENTRY_BYTES)
        return 0;
    id_bytes = load_be16(data + AT_ID_SIZE);
    name_bytes = load_be16(data + AT_NAME_SIZE);
    extra_bytes = load_be32(data + AT_EXTRA_SIZE);
    bytes = align_up(QCOW2_SNAPSHOT_ENTRY_BYTES + extra_bytes + id_bytes + name_bytes, 8);
    *ret_need = bytes;
    if (size < bytes)
        return 0;

    *ret = (struct qcow2_snapshot){
        .l1_table_offset = load_be64(data + AT_L1_TABLE_OFFSET),
        .l1_size = load_be32(data + AT_L1_SIZE),
        .date_sec = load_be32(data + AT_DATE_SEC),
        .date_nsec = load_be32(data + AT_DATE_NSEC),
        .vm_clock_nsec = load_be64(data + AT_VM_CLOCK_NSEC),
        .vm_state_size = load_be32(data + AT_VM_STATE_SIZE),
        .extra_bytes = (uint32_t)extra_bytes,
    };
    decode_extra(data + QCOW2_SNAPSHOT_ENTRY_BYTES, ret);
    /* A name ends at its first NUL, if it has one. */
    ret->id = g_strndup((const char *)data + QCOW2_SNAPSHOT_ENTRY_BYTES + extra_bytes, id_bytes);
    ret->name = g_strndup((const char *)data + QCOW2_SNAPSHOT_ENTRY_BYTES + extra_bytes + id_bytes, name_bytes);
    return bytes;
}

static size_t encoded_extra_bytes(const struct qcow2_snapshot *snapshot)
{
    if (snapshot->unknown_extra_bytes)
        return QCOW2_SNAPSHOT_EXTRA_BYTES + snapshot->unknown_extra_bytes;
    return MIN(MAX(snapshot->extra_bytes, QCOW2_SNAPSHOT_EXTRA_BYTES_V3), QCOW2_SNAPSHOT_EXTRA_BYTES);
}

static size_t encoded_bytes(const struct qcow2_snapshot *snapshot)
{
    return align_up(
        QCOW2_SNAPSHOT_ENTRY_BYTES + encoded_extra_bytes(snapshot) + strlen(snapshot->id) + strlen(snapshot->name), 8);
}

static void encode(const struct qcow2_snapshot *snapshot, uint64_t disk_size, uint8_t *to)
{
    size_t extra_bytes = encoded_extra_bytes(snapshot);
    size_t id_bytes = strlen(snapshot->id);
    size_t name_bytes = strlen(snapshot->name);
    uint8_t extra[QCOW2_SNAPSHOT_EXTRA_BYTES];
    uint8_t *variable = to + QCOW2_SNAPSHOT_ENTRY_BYTES;

    store_be64(to + AT_L1_TABLE_OFFSET, snapshot->l1_table_offset);
    store_be32(to + AT_L1_SIZE, snapshot->l1_size);
    store_be16(to + AT_ID_SIZE, (uint16_t)id_bytes);
    store_be16(to + AT_NAME_SIZE, (uint16_t)name_bytes);
    store_be32(to + AT_DATE_SEC, snapshot->date_sec);
    store_be32(to + AT_DATE_NSEC, snapshot->date_nsec);
    store_be64(to + AT_VM_CLOCK_NSEC, snapshot->vm_clock_nsec);
    /* What is too large for the old field stands in the extra data alone. */
    store_be32(to + AT_VM_STATE_SIZE, snapshot->vm_state_size > UINT32_MAX ? 0 : (uint32_t)snapshot->vm_state_size);
    store_be32(to + AT_EXTRA_SIZE, (uint32_t)extra_bytes);

    store_be64(extra + AT_EXTRA_VM_STATE_SIZE, snapshot->vm_state_size);
    store_be64(extra + AT_EXTRA_DISK_SIZE, snapshot->has_disk_size ? snapshot->disk_size : disk_size);
    store_be64(extra + AT_EXTRA_ICOUNT, snapshot->icount);
    memcpy(variable, extra, MIN(extra_bytes, sizeof(extra)));
    if (snapshot->unknown_extra_bytes)
        memcpy(variable + sizeof(extra), snapshot->unknown_extra, snapshot->unknown_extra_bytes);
    memcpy(variable + extra_bytes, snapshot->id, id_bytes);
    memcpy(variable + extra_bytes + id_bytes, snapshot->name, name_bytes);
}

uint8_t *qcow2_snapshot_table_encode(const struct qcow2_snapshot *snapshots, size_t count, uint64_t disk_size,
                                     size_t *ret_bytes, struct error **err)
{
    uint64_t bytes = 0;
    uint8_t *table, *to;

    for (size_t i = 0; i < count; i++) {
        if (strlen(snapshots[i].id) > UINT16_MAX || strlen(snapshots[i].name) > UINT16_MAX) {
            error_set(err, "Snapshot '%.64s...' has a name of %zu bytes; the limit is %d", snapshots[i].id,
                      strlen(snapshots[i].name), UINT16_MAX);
            return NULL;
        }
        bytes += encoded_bytes(&snapshots[i]);
    }
    if (bytes > QCOW2_SNAPSHOT_TABLE_BYTES_MAX) {
        error_set(err, "Snapshot table of %" PRIu64 " bytes is too large; the limit is %d", bytes,
                  QCOW2_SNAPSHOT_TABLE_BYTES_MAX);
        return NULL;
    }
    table = to = g_malloc0(MAX(bytes, 1));
    for (size_t i = 0; i < count; i++) {
        encode(&snapshots[i], disk_size, to);
        to += encoded_bytes(&snapshots[i]);
    }
    *ret_bytes = bytes;
    return table;
}

/* A stretch of the file that follows the reading of the table. */
struct table_window {
    struct edge *file;
    uint64_t end;    /* of the file's last cluster */
    uint64_t offset; /* of data[0] in the file */
    uint8_t *data;
    size_t size;
};

/* Makes `bytes` at `offset` available in the window. */
static int CO_FN co_window_move(struct table_window *window, uint64_t offset, uint64_t bytes)
{
    int ret;

    if (offset >= window->offset && range_fits(offset - window->offset, bytes, window->size))
        return 0;
    if (bytes > window->size || !window->data) {
        g_free(window->data);
        window->size = MAX(bytes, READ_BYTES);
        window->data = g_malloc(window->size);
    }
    window->offset = offset;
    ret = co_edge_pread(window->file, offset, window->size, window->data, 0);
    if (ret < 0) {
        g_free(TAKE(window->data));
        window->size = 0;
    }
    return ret;
}

/* One entry at `offset`, at most `bytes_max` long. Its length, or 0 and the error. */
static uint64_t CO_FN co_entry_load(struct table_window *window, uint64_t offset, uint64_t bytes_max, size_t index,
                                    struct qcow2_snapshot *ret, bool drop_extra, struct error **err)
{
    uint64_t need = QCOW2_SNAPSHOT_ENTRY_BYTES, bytes = 0;
    uint32_t extra_bytes;

    while (!bytes) {
        int result;

        if (need > bytes_max) {
            error_set(err, "Snapshot table too large: entry %zu ends beyond %d bytes", index,
                      QCOW2_SNAPSHOT_TABLE_BYTES_MAX);
            return 0;
        }
        /* Who repairs takes what there is, and zeroes behind it. */
        if (need > QCOW2_SNAPSHOT_ENTRY_BYTES && !drop_extra && !range_fits(offset, need, window->end)) {
            error_set(err,
                      "Snapshot table entry %zu of %" PRIu64 " bytes at offset %" PRIu64
                      " ends beyond the file of %" PRIu64 " bytes",
                      index, need, offset, node_length(edge_child(window->file)));
            return 0;
        }
        result = co_window_move(window, offset, need);
        if (result < 0) {
            error_set_errno(err, result, "Could not read snapshot table entry %zu at offset %" PRIu64, index, offset);
            return 0;
        }
        /* The extra data is judged before room is made for it. */
        extra_bytes = load_be32(window->data + (offset - window->offset) + AT_EXTRA_SIZE);
        if (extra_bytes > QCOW2_SNAPSHOT_EXTRA_BYTES_MAX && !drop_extra) {
            error_set(err, "Too much extra metadata in snapshot table entry %zu: %" PRIu32 " bytes, the limit is %d",
                      index, extra_bytes, QCOW2_SNAPSHOT_EXTRA_BYTES_MAX);
            error_hint(err, "You can force-remove this extra metadata with a check that repairs all errors");
            return 0;
        }
        bytes = qcow2_snapshot_decode(window->data + (offset - window->offset),
                                      window->size - (size_t)(offset - window->offset), ret, &need);
    }
    return bytes;
}

bool CO_FN co_qcow2_snapshot_table_load(struct edge *file, const struct qcow2_header *header, bool drop_extra,
                                        struct qcow2_snapshot_table *ret, struct error **err)
{
    struct table_window window = {.file = file,
                                  .end = align_up(node_length(edge_child(file)), qcow2_cluster_size(header))};
    struct qcow2_snapshot_table table = {0};
    uint64_t bytes = 1;
    size_t room = 0;

    if (header->snapshot_count > QCOW2_SNAPSHOTS_MAX)
        return error_set(err, "Snapshot table too large: it has %" PRIu32 " entries, the limit is %d",
                         header->snapshot_count, QCOW2_SNAPSHOTS_MAX);
    if (header->snapshot_count && (!is_aligned(header->snapshots_offset, qcow2_cluster_size(header)) ||
                                   header->snapshots_offset > INT64_MAX - 2 * QCOW2_SNAPSHOT_TABLE_BYTES_MAX))
        return error_set(err, "Snapshot table offset invalid: %" PRIu64, header->snapshots_offset);

    while (bytes && table.count < header->snapshot_count) {
        if (table.count == room) {
            /* By what has been read, not by what the header claims. */
            room = room ? 2 * room : 16;
            table.items = g_renew(struct qcow2_snapshot, table.items, room);
        }
        bytes =
            co_entry_load(&window, header->snapshots_offset + table.bytes, QCOW2_SNAPSHOT_TABLE_BYTES_MAX - table.bytes,
                          table.count, &table.items[table.count], drop_extra, err);
        table.count += bytes > 0;
        table.bytes += bytes;
    }
    g_free(window.data);
    if (!bytes) {
        qcow2_snapshot_table_done(&table);
        return false;
    }
    *ret = table;
    return true;
}
