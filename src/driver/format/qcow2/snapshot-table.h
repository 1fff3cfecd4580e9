/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table of an image's internal snapshots, as it stands in the file. Decoding is pure; what a table says of places
 * in the file is not checked here, since a snapshot may be broken while the image is fine.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct edge;
struct error;
struct qcow2_header;

enum {
    QCOW2_SNAPSHOT_ENTRY_BYTES = 40,      /* before extra data, id and name */
    QCOW2_SNAPSHOT_EXTRA_BYTES_V3 = 16,   /* extra data that version 3 demands */
    QCOW2_SNAPSHOT_EXTRA_BYTES = 24,      /* extra data that we know */
    QCOW2_SNAPSHOT_EXTRA_BYTES_MAX = 1024 /* what we take at most; unknown fields are kept */
};
#define QCOW2_SNAPSHOT_NO_ICOUNT UINT64_MAX

struct qcow2_snapshot {
    uint64_t l1_table_offset;
    uint32_t l1_size; /* entries */
    uint32_t date_sec;
    uint32_t date_nsec;
    uint64_t vm_clock_nsec;
    uint64_t vm_state_size; /* bytes */
    uint64_t disk_size;     /* bytes; has_disk_size */
    uint64_t icount;        /* QCOW2_SNAPSHOT_NO_ICOUNT: none */
    uint32_t extra_bytes;   /* as found; at most QCOW2_SNAPSHOT_EXTRA_BYTES_MAX */
    bool has_disk_size;
    char *id;   /* owned */
    char *name; /* owned */
    uint8_t *unknown_extra;
    size_t unknown_extra_bytes;
};

struct qcow2_snapshot_table {
    struct qcow2_snapshot *items;
    size_t count;
    uint64_t bytes; /* that the table has in the file */
};

void qcow2_snapshot_table_done(struct qcow2_snapshot_table *table);
void qcow2_snapshot_clear(struct qcow2_snapshot *snapshot);

/*
 * Decodes the entry at the start of `data`. The bytes that it takes, padding included; 0: `size` is not enough;
 * *ret_need then says at least how many there must be. `ret` is owned by the caller, also with too much extra data:
 * then `extra_bytes` is beyond QCOW2_SNAPSHOT_EXTRA_BYTES_MAX and none of what is unknown is kept.
 */
uint64_t qcow2_snapshot_decode(const uint8_t *data, size_t size, struct qcow2_snapshot *ret,
                               uint64_t *ret_need) MUST_CHECK;

/* The bytes of a table of these; owned. NULL and the error: too large. Extra data is at least what version 3 wants. */
uint8_t *qcow2_snapshot_table_encode(const struct qcow2_snapshot *snapshots, size_t count, uint64_t disk_size,
                                     size_t *ret_bytes, struct error **err) MUST_CHECK;

/*
 * Reads the table that `header` names. With `drop_extra`, extra data that is too long is left out rather than the table
 * refused; `extra_bytes` tells. False and the error, which names the entry: it cannot be read, or is too large.
 */
bool CO_FN co_qcow2_snapshot_table_load(struct edge *file, const struct qcow2_header *header, bool drop_extra,
                                        struct qcow2_snapshot_table *ret, struct error **err) MUST_CHECK;
