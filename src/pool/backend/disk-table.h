/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Partition tables, by libfdisk. All of it blocks, and is for worker threads; 0 or -errno. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

/* Partitions begin at multiples of this, as everybody's do; the first megabyte is the table's. Bytes. */
#define DISK_GRAIN (UINT64_C(1) << 20)

enum disk_region_kind { DISK_DATA, DISK_LOGICAL, DISK_EXTENDED, DISK_FREE };

/* A part of a disk: bytes, the end not included. */
struct disk_region {
    enum disk_region_kind kind;
    unsigned number; /* of a partition, from 1 */
    uint64_t start, end;
};

/* What a disk's table says, in the order of places. Zero-filled at first; disk_table_clear(). */
struct disk_table {
    struct disk_region *regions;
    size_t count;
    unsigned sector_size; /* bytes */
    bool is_dos;
};
void disk_table_clear(struct disk_table *table);

/* -EINVAL: there is no table, or none that is known. */
int disk_table_read(const char *device, struct disk_table *ret);

/* A new empty table: `label` is libfdisk's word ("dos", "gpt", "sun", "sgi"). -ENOTSUP: it has no such. */
int disk_table_make(const char *device, const char *label);

/* Adds the partition `region`, whose number is a wish for primary ones; a kind of content (a hexadecimal code of DOS
 * tables) or NULL. The number that it got is in *ret. The kernel knows of it afterwards. */
int disk_table_add(const char *device, const struct disk_region *region, const char *type, unsigned *ret);

int disk_table_remove(const char *device, unsigned number);

/* What a new partition of `size` bytes would be: the smallest free place that holds it. */
enum disk_place {
    DISK_PLACE_FOUND,
    DISK_PLACE_NO_ROOM,      /* no free place is large enough */
    DISK_PLACE_NO_NUMBER,    /* all four primary ones are taken, and none is extended */
    DISK_PLACE_HAS_EXTENDED, /* there is an extended partition already */
};
enum disk_place disk_table_place(const struct disk_table *table, uint64_t size, bool extended, struct disk_region *ret);

/* Name of the node of partition `number` of `device`; owned. `separator`: a "p" in between wherever. */
char *disk_partition_node(const char *device, unsigned number, bool separator);
