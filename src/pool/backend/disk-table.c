/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/backend/disk-table.h"

#include <assert.h>
#include <errno.h>
#include <libfdisk.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

enum { DOS_PRIMARY_MAX = 4, DOS_EXTENDED_TYPE = 0x05 };

void disk_table_clear(struct disk_table *table)
{
    g_free(table->regions);
    *table = (struct disk_table){0};
}

char *disk_partition_node(const char *device, unsigned number, bool separator)
{
    size_t length = strlen(device);
    bool digit = length && g_ascii_isdigit(device[length - 1]);

    return g_strdup_printf("%s%s%u", device, digit || separator ? "p" : "", number);
}

/* --- an open disk --- */

struct disk {
    struct fdisk_context *context;
    struct fdisk_table *before; /* what the kernel knows; of disks open for writing */
};

static void disk_close(struct disk *disk)
{
    if (disk->before)
        fdisk_unref_table(disk->before);
    (void)fdisk_deassign_device(disk->context, 0);
    fdisk_unref_context(disk->context);
}

static int disk_open(struct disk *disk, const char *device, bool writable)
{
    int ret;

    *disk = (struct disk){.context = fdisk_new_context()};
    if (!disk->context)
        return -ENOMEM;
    fdisk_disable_dialogs(disk->context, 1);
    ret = fdisk_assign_device(disk->context, device, !writable);
    if (ret) {
        fdisk_unref_context(disk->context);
        return ret;
    }
    if (writable && fdisk_has_label(disk->context))
        ret = fdisk_get_partitions(disk->context, &disk->before);
    if (ret)
        disk_close(disk);
    return ret;
}

static int disk_write(struct disk *disk)
{
    int ret = fdisk_write_disklabel(disk->context);

    if (ret)
        return ret;
    return disk->before ? fdisk_reread_changes(disk->context, disk->before)
                        : fdisk_reread_partition_table(disk->context);
}

/* --- reading --- */

/* What lies on the disk, of `sectors` sectors, of a partition; false: nothing does. Tables may say anything. */
static bool take_region(struct fdisk_partition *partition, unsigned sector_size, uint64_t sectors,
                        struct disk_region *ret)
{
    uint64_t start = fdisk_partition_get_start(partition);
    uint64_t size = fdisk_partition_get_size(partition);

    if (start >= sectors)
        return false;
    *ret =
        (struct disk_region){.start = start * sector_size, .end = (start + MIN(size, sectors - start)) * sector_size};
    if (fdisk_partition_is_freespace(partition))
        ret->kind = DISK_FREE;
    else if (fdisk_partition_is_container(partition))
        ret->kind = DISK_EXTENDED;
    else if (fdisk_partition_is_nested(partition))
        ret->kind = DISK_LOGICAL;
    else
        ret->kind = DISK_DATA;
    if (ret->kind != DISK_FREE && fdisk_partition_has_partno(partition))
        ret->number = (unsigned)fdisk_partition_get_partno(partition) + 1;
    assert(ret->start <= ret->end);
    return true;
}

static void take_regions(struct fdisk_table *from, struct disk_table *to, uint64_t sectors, size_t room)
{
    struct fdisk_iter *walk = fdisk_new_iter(FDISK_ITER_FORWARD);
    struct fdisk_partition *partition;

    while (to->count < room && !fdisk_table_next_partition(from, walk, &partition)) {
        if (fdisk_partition_has_start(partition) && fdisk_partition_has_size(partition) &&
            !fdisk_partition_is_wholedisk(partition))
            to->count += take_region(partition, to->sector_size, sectors, &to->regions[to->count]);
    }
    fdisk_free_iter(walk);
}

static int compare_regions(const void *left, const void *right)
{
    const struct disk_region *a = left, *b = right;

    if (a->start != b->start)
        return a->start < b->start ? -1 : 1;
    return (a->kind != DISK_EXTENDED) - (b->kind != DISK_EXTENDED);
}

static int read_table(struct disk *disk, struct disk_table *ret)
{
    struct fdisk_table *used = NULL, *free_places = NULL;
    uint64_t sectors = fdisk_get_nsectors(disk->context);
    size_t room;
    int failed = fdisk_get_partitions(disk->context, &used);

    if (!failed)
        failed = fdisk_get_freespaces(disk->context, &free_places);
    if (!failed) {
        ret->sector_size = (unsigned)fdisk_get_sector_size(disk->context);
        ret->is_dos = fdisk_is_label(disk->context, DOS);
        room = fdisk_table_get_nents(used) + fdisk_table_get_nents(free_places);
        ret->regions = g_new0(struct disk_region, room ? room : 1);
        take_regions(used, ret, sectors, room);
        take_regions(free_places, ret, sectors, room);
        qsort(ret->regions, ret->count, sizeof(*ret->regions), compare_regions);
    }
    if (used)
        fdisk_unref_table(used);
    if (free_places)
        fdisk_unref_table(free_places);
    return failed;
}

int disk_table_read(const char *device, struct disk_table *ret)
{
    struct disk disk;
    int failed = disk_open(&disk, device, false);

    *ret = (struct disk_table){0};
    if (failed)
        return failed;
    failed = fdisk_has_label(disk.context) ? read_table(&disk, ret) : -EINVAL;
    disk_close(&disk);
    return failed;
}

/* --- changing --- */

int disk_table_make(const char *device, const char *label)
{
    struct disk disk;
    int ret = disk_open(&disk, device, true);

    if (ret)
        return ret;
    if (!fdisk_get_label(disk.context, label)) {
        ret = -ENOTSUP;
    } else {
        ret = fdisk_create_disklabel(disk.context, label);
        if (!ret)
            ret = fdisk_write_disklabel(disk.context);
        /* Of a table without partitions the kernel need not know. */
        if (!ret)
            (void)fdisk_reread_partition_table(disk.context);
    }
    disk_close(&disk);
    return ret;
}

static void set_type(struct disk *disk, struct fdisk_partition *partition, enum disk_region_kind kind, const char *type)
{
    const struct fdisk_label *label = fdisk_get_label(disk->context, NULL);
    struct fdisk_parttype *found = NULL;

    if (kind == DISK_EXTENDED)
        found = fdisk_label_get_parttype_from_code(label, DOS_EXTENDED_TYPE);
    else if (type && fdisk_is_label(disk->context, DOS))
        found = fdisk_label_parse_parttype(label, type);
    if (found)
        fdisk_partition_set_type(partition, found);
    if (found && kind != DISK_EXTENDED)
        fdisk_unref_parttype(found);
}

int disk_table_add(const char *device, const struct disk_region *region, const char *type, unsigned *ret)
{
    struct disk disk;
    struct fdisk_partition *partition;
    size_t number = 0;
    int failed = disk_open(&disk, device, true);
    unsigned long sector;

    assert(region->start < region->end);
    if (failed)
        return failed;
    sector = fdisk_get_sector_size(disk.context);
    partition = fdisk_new_partition();
    fdisk_partition_set_start(partition, region->start / sector);
    fdisk_partition_set_size(partition, (region->end - region->start) / sector);
    fdisk_partition_size_explicit(partition, 1);
    if (region->number && region->kind != DISK_LOGICAL)
        fdisk_partition_set_partno(partition, region->number - 1);
    else
        fdisk_partition_partno_follow_default(partition, 1);
    set_type(&disk, partition, region->kind, type);
    failed = fdisk_add_partition(disk.context, partition, &number);
    if (!failed)
        failed = disk_write(&disk);
    *ret = (unsigned)number + 1;
    fdisk_unref_partition(partition);
    disk_close(&disk);
    return failed;
}

int disk_table_remove(const char *device, unsigned number)
{
    struct disk disk;
    int ret = disk_open(&disk, device, true);

    assert(number);
    if (ret)
        return ret;
    ret = fdisk_delete_partition(disk.context, number - 1);
    if (!ret)
        ret = disk_write(&disk);
    disk_close(&disk);
    return ret;
}

/* --- where a new partition goes --- */

static const struct disk_region *find_extended(const struct disk_table *table)
{
    for (size_t i = 0; i < table->count; i++) {
        if (table->regions[i].kind == DISK_EXTENDED)
            return &table->regions[i];
    }
    return NULL;
}

/* The lowest number that no partition has; of primary ones in a DOS table 0: none is left. */
static unsigned next_number(const struct disk_table *table, bool logical)
{
    for (unsigned number = logical ? DOS_PRIMARY_MAX + 1 : 1;; number++) {
        bool taken = false;

        for (size_t i = 0; i < table->count; i++)
            taken |= table->regions[i].kind != DISK_FREE && table->regions[i].number == number;
        if (!taken)
            return table->is_dos && !logical && number > DOS_PRIMARY_MAX ? 0 : number;
    }
}

/* The smallest free place, inside of `extended` or outside, that holds `size` bytes from an even place on. A logical
 * partition has a megabyte before it, in which its own record lies. */
static bool find_place(const struct disk_table *table, const struct disk_region *extended, bool inside, uint64_t size,
                       struct disk_region *ret)
{
    uint64_t best = UINT64_MAX;

    for (size_t i = 0; i < table->count; i++) {
        const struct disk_region *place = &table->regions[i];
        bool is_inside = extended && place->start >= extended->start && place->end <= extended->end;
        uint64_t start = align_up(place->start, DISK_GRAIN) + (inside ? DISK_GRAIN : 0);

        if (place->kind != DISK_FREE || is_inside != inside || start >= place->end || place->end - start < size ||
            place->end - start >= best)
            continue;
        best = place->end - start;
        ret->start = start;
        ret->end = start + size;
    }
    return best != UINT64_MAX;
}

enum disk_place disk_table_place(const struct disk_table *table, uint64_t size, bool extended, struct disk_region *ret)
{
    const struct disk_region *container = find_extended(table);
    unsigned primary = next_number(table, false);
    uint64_t sectors;

    assert(table->sector_size);
    if (!size || __builtin_add_overflow(size, table->sector_size - 1, &sectors))
        return DISK_PLACE_NO_ROOM;
    size = sectors / table->sector_size * table->sector_size;
    if (extended && container)
        return DISK_PLACE_HAS_EXTENDED;
    if (!primary && (!container || extended))
        return DISK_PLACE_NO_NUMBER;
    *ret = (struct disk_region){.kind = extended ? DISK_EXTENDED : DISK_DATA, .number = primary};
    if (primary && find_place(table, container, false, size, ret))
        return DISK_PLACE_FOUND;
    if (!container || extended)
        return DISK_PLACE_NO_ROOM;
    *ret = (struct disk_region){.kind = DISK_LOGICAL, .number = next_number(table, true)};
    return find_place(table, container, true, size, ret) ? DISK_PLACE_FOUND : DISK_PLACE_NO_ROOM;
}
