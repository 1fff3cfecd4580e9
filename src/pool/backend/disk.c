/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* disk: the partitions of a disk. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/units.h"
#include "loop/coroutine.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "pool/backend.h"
#include "pool/backend/command.h"
#include "pool/backend/device-ends.h"
#include "pool/backend/disk-table.h"
#include "pool/backend/probe-device.h"
#include "pool/backend/types.h"
#include "pool/pool-error.h"

enum { NODE_WAIT_MS = 10000, NODE_STEP_MS = 20, LINK_WAIT_MS = 0 };

/* A label by the words of pools, of libfdisk and of libblkid; libfdisk has none where it is NULL. */
static const struct disk_label {
    const char *fdisk, *blkid;
} labels[] = {
    [DISK_UNKNOWN] = {"dos", "dos"}, [DISK_DOS] = {"dos", "dos"}, [DISK_DVH] = {"sgi", "sgi"},
    [DISK_GPT] = {"gpt", "gpt"},     [DISK_MAC] = {NULL, "mac"},  [DISK_BSD] = {"bsd", "bsd"},
    [DISK_PC98] = {NULL, "pc98"},    [DISK_SUN] = {"sun", "sun"}, [DISK_LVM2] = {NULL, "LVM2_member"},
};

/* What a DOS table calls the content of a partition. */
static const char *const content_types[] = {
    [PARTITION_LINUX] = "83",      [PARTITION_FAT16] = "06",     [PARTITION_FAT32] = "0c",
    [PARTITION_LINUX_SWAP] = "82", [PARTITION_LINUX_LVM] = "8e", [PARTITION_LINUX_RAID] = "fd",
};

static const char *device_of(const struct pool *pool)
{
    return pool->def->source.devices[0].path;
}

static const struct disk_label *label_of(const struct pool *pool)
{
    return &labels[pool->def->source.format];
}

static const char *format_of(const struct pool *pool)
{
    return pool_type_info(POOL_DISK)->source_formats[pool->def->source.format];
}

/* One device; and a disk without a word about its label has the usual one. */
static bool prepare(struct pool *pool, struct pool_error **err)
{
    if (pool->def->source.device_count != 1)
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "expected exactly 1 device for the storage pool");
    if (pool->def->source.format == DISK_UNKNOWN)
        pool->def->source.format = DISK_DOS;
    return true;
}

static bool CO_FN disk_co_start(struct pool *pool, struct pool_error **err)
{
    if (!prepare(pool, err))
        return false;
    if (!co_device_exists(device_of(pool)))
        return pool_error_set(err, POOL_ERROR_INVALID_ARG, "device path '%s' doesn't exist", device_of(pool));
    return co_device_check_format(device_of(pool), format_of(pool), label_of(pool)->blkid, err);
}

static bool CO_FN disk_co_check(struct pool *pool, bool *ret_active, struct pool_error **err)
{
    *ret_active = disk_co_start(pool, NULL);
    return true;
}

/* --- the table --- */

struct reading {
    char *device;
    struct disk_table table;
    char *real_device; /* links resolved: nodes of partitions are called by it */
};

static int read_table(void *opaque)
{
    struct reading *reading = opaque;
    char *path = realpath(reading->device, NULL);

    if (!path)
        return -errno;
    reading->real_device = g_strdup(path);
    free(path);
    return disk_table_read(reading->device, &reading->table);
}

static void reading_clear(struct reading *reading)
{
    disk_table_clear(&reading->table);
    g_clear_pointer(&reading->device, g_free);
    g_clear_pointer(&reading->real_device, g_free);
}

static bool CO_FN co_read_device(const char *device, struct reading *reading, struct pool_error **err)
{
    int ret;

    *reading = (struct reading){.device = g_strdup(device)};
    ret = co_worker_run(read_table, reading);
    if (!ret)
        return true;
    if (ret == -EINVAL)
        pool_error_set(err, POOL_ERROR_OPERATION_FAILED, "device '%s' has no partition table that is known",
                       reading->device);
    else
        pool_error_set_errno(err, ret, "cannot read the partition table of '%s'", reading->device);
    reading_clear(reading);
    return false;
}

static bool CO_FN co_read(struct pool *pool, struct reading *reading, struct pool_error **err)
{
    return co_read_device(device_of(pool), reading, err);
}

static void count_regions(const struct disk_table *table, struct pool_scan *scan)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct disk_region *region = &table->regions[i];
        uint64_t size = region->end - region->start;

        scan->capacity = MAX(scan->capacity, region->end);
        if (region->kind == DISK_FREE) {
            scan->free_extents[scan->free_extent_count++] = (struct pool_extent){region->start, region->end};
            scan->available += size;
        } else if (region->kind != DISK_EXTENDED) {
            scan->allocation += size;
        }
    }
}

/* The pool's numbers and free places after a change. */
static bool CO_FN co_count_anew(struct pool *pool, struct pool_error **err)
{
    struct pool_device *device = &pool->def->source.devices[0];
    struct reading reading;
    struct pool_scan scan;

    if (!co_read(pool, &reading, err))
        return false;
    pool_scan_init(&scan);
    scan.free_extents = g_new0(struct pool_extent, reading.table.count + 1);
    count_regions(&reading.table, &scan);
    pool->def->capacity = scan.capacity;
    pool->def->allocation = scan.allocation;
    pool->def->available = scan.available;
    g_free(device->free_extents);
    device->free_extents = TAKE(scan.free_extents);
    device->free_extent_count = scan.free_extent_count;
    pool_scan_done(&scan);
    reading_clear(&reading);
    return true;
}

/* --- volumes --- */

static bool has_separator(const struct pool *pool)
{
    return pool->def->source.devices[0].part_separator == TRISTATE_YES;
}

/* Bytes of the logical partitions in an extended one. */
static uint64_t logical_bytes(const struct disk_table *table)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < table->count; i++) {
        if (table->regions[i].kind == DISK_LOGICAL)
            sum += table->regions[i].end - table->regions[i].start;
    }
    return sum;
}

static enum partition_kind kind_of(const struct disk_region *region)
{
    if (region->kind == DISK_EXTENDED)
        return PARTITION_IS_EXTENDED;
    return region->kind == DISK_LOGICAL ? PARTITION_LOGICAL : PARTITION_PRIMARY;
}

/* Name, key and path of a partition. */
static void CO_FN co_name_volume(struct pool *pool, struct volume *volume, const char *node, unsigned number)
{
    /* While it is looked for, others may be asking for the volume as it has been. */
    char *path = co_device_stable_path(pool, node, LINK_WAIT_MS, NULL);

    g_free(volume->name);
    g_free(volume->target.path);
    g_free(volume->key);
    volume->name = g_path_get_basename(node);
    volume->target.path = path;
    volume->key = g_strdup(path);
    volume->partition_number = number;
}

static void CO_FN co_describe(struct pool *pool, struct volume *volume, const struct reading *reading,
                              const struct disk_region *region)
{
    g_autofree char *node = disk_partition_node(reading->real_device, region->number, has_separator(pool));

    co_name_volume(pool, volume, node, region->number);
    volume->type = VOLUME_BLOCK;
    volume->partition_kind = kind_of(region);
    volume_add_extent(volume, device_of(pool), region->start, region->end);
}

/* An extended partition's node is as large as its first record. Without the lock: the pool may stop meanwhile, and go
 * on with another definition. */
static bool CO_FN disk_co_volume_refresh(struct pool *pool, struct volume *volume, struct pool_error **err)
{
    g_autofree char *device = g_strdup(device_of(pool));
    struct reading reading;

    if (!co_device_volume_refresh(pool, volume, err))
        return false;
    if (volume->partition_kind != PARTITION_IS_EXTENDED)
        return true;
    if (!co_read_device(device, &reading, err))
        return false;
    assert(volume->extent_count);
    volume->capacity = volume->extents[0].end - volume->extents[0].start;
    volume->allocation = logical_bytes(&reading.table);
    volume->target.format = PARTITION_EXTENDED;
    reading_clear(&reading);
    return true;
}

static bool CO_FN disk_co_refresh(struct pool *pool, struct pool_scan *scan, struct pool_error **err)
{
    struct reading reading;

    if (!prepare(pool, err))
        return false;
    co_command_settle();
    if (!co_read(pool, &reading, err))
        return false;
    scan->free_extents = g_new0(struct pool_extent, reading.table.count + 1);
    count_regions(&reading.table, scan);
    for (size_t i = 0; i < reading.table.count; i++) {
        const struct disk_region *region = &reading.table.regions[i];
        AUTO(pool_error) error = NULL;
        struct volume *volume;

        if (region->kind == DISK_FREE || !region->number)
            continue;
        volume = volume_new();
        co_describe(pool, volume, &reading, region);
        volume->capacity = volume->allocation = region->end - region->start;
        if (!disk_co_volume_refresh(pool, volume, &error))
            log_warning("pool '%s': volume '%s': %s", pool->def->name, volume->name, error->message);
        pool_scan_add(scan, volume);
    }
    reading_clear(&reading);
    return true;
}

/* --- making partitions --- */

struct change {
    const char *device;
    const struct disk_region *region;
    const char *type;
    unsigned number;
};

static int add(void *opaque)
{
    struct change *change = opaque;

    return disk_table_add(change->device, change->region, change->type, &change->number);
}

static int take_away(void *opaque)
{
    const struct change *change = opaque;

    return disk_table_remove(change->device, change->number);
}

static bool CO_FN co_remove(struct pool *pool, unsigned number, struct pool_error **err)
{
    struct change change = {.device = device_of(pool), .number = number};
    int ret = co_worker_run(take_away, &change);

    return !ret || pool_error_set_errno(err, ret, "cannot remove partition %u of '%s'", number, device_of(pool));
}

static bool find_place(const struct disk_table *table, const struct volume *volume, struct disk_region *ret,
                       struct pool_error **err)
{
    switch (disk_table_place(table, volume->capacity, volume->target.format == PARTITION_EXTENDED, ret)) {
    case DISK_PLACE_FOUND:
        return true;
    case DISK_PLACE_NO_NUMBER:
        return pool_error_set(err, POOL_ERROR_INTERNAL,
                              "no extended partition found and no primary partition available");
    case DISK_PLACE_HAS_EXTENDED:
        return pool_error_set(err, POOL_ERROR_INTERNAL, "extended partition already exists");
    case DISK_PLACE_NO_ROOM:
    default:
        return pool_error_set(err, POOL_ERROR_INTERNAL, "no large enough free extent");
    }
}

/* Udev, or the kernel itself, makes the node some time after the partition. */
static bool CO_FN co_wait_for_node(const char *node, struct pool_error **err)
{
    co_command_settle();
    for (unsigned waited = 0; waited < NODE_WAIT_MS; waited += NODE_STEP_MS) {
        if (co_device_exists(node))
            return true;
        if (co_sleep_ns(NODE_STEP_MS * NS_PER_MS))
            break;
    }
    return pool_error_set_errno(err, ENOENT, "node '%s' of the new partition", node);
}

static bool CO_FN co_create_at(struct pool *pool, struct volume *volume, const struct reading *reading,
                               struct disk_region *region, struct pool_error **err)
{
    g_autofree char *node = disk_partition_node(reading->real_device, region->number, has_separator(pool));
    g_autofree char *name = g_path_get_basename(node);
    struct change change = {.device = device_of(pool), .region = region, .type = content_types[0]};
    int ret;

    if (strcmp(volume->name, name) != 0)
        return pool_error_set(err, POOL_ERROR_INVALID_ARG, "invalid partition name '%s', expected '%s'", volume->name,
                              name);
    if (volume->target.format != PARTITION_EXTENDED)
        change.type = content_types[volume->target.format];
    ret = co_worker_run(add, &change);
    if (ret)
        return pool_error_set_errno(err, ret, "cannot add a partition to '%s'", device_of(pool));
    region->number = change.number;
    if (!co_wait_for_node(node, err)) {
        (void)co_remove(pool, change.number, NULL);
        return false;
    }
    co_describe(pool, volume, reading, region);
    if (co_count_anew(pool, err))
        return true;
    (void)co_remove(pool, change.number, NULL);
    return false;
}

static bool CO_FN disk_co_volume_create(struct pool *pool, struct volume *volume, struct pool_error **err)
{
    struct reading reading;
    struct disk_region region;
    bool ok;

    if (!co_read(pool, &reading, err))
        return false;
    ok = find_place(&reading.table, volume, &region, err) && co_create_at(pool, volume, &reading, &region, err);
    reading_clear(&reading);
    return ok;
}

static bool CO_FN disk_co_volume_build(struct pool *pool, struct volume *volume, unsigned flags,
                                       struct pool_error **err)
{
    return volume->partition_kind == PARTITION_IS_EXTENDED ||
           co_device_volume_build(pool, volume, NULL, NULL, flags, err);
}

static bool CO_FN disk_co_volume_wipe(struct pool *pool, struct volume *volume, enum volume_wipe_algorithm algorithm,
                                      struct pool_error **err)
{
    /* It would end all partitions in it. */
    if (volume->partition_kind == PARTITION_IS_EXTENDED)
        return pool_error_set(err, POOL_ERROR_NO_SUPPORT, "storage pool doesn't support volume wiping");
    return co_device_volume_wipe(pool, volume, algorithm, err);
}

/* --- removing them --- */

/* A logical partition that goes gives its number to the next one, and so on: none of them may be in use; an extended
 * one has to be empty. */
static bool check_removal(const struct pool *pool, const struct volume *volume, struct pool_error **err)
{
    for (size_t i = 0; i < pool_volume_count(pool); i++) {
        const struct volume *other = pool_volume_at(pool, i);

        if (other == volume || other->partition_kind != PARTITION_LOGICAL)
            continue;
        if (volume->partition_kind == PARTITION_IS_EXTENDED)
            return pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "volume '%s' still holds volume '%s'",
                                  volume->name, other->name);
        if (volume->partition_kind == PARTITION_LOGICAL && other->partition_number > volume->partition_number &&
            (other->in_use || other->building))
            return pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "volume '%s' is still in use.", other->name);
    }
    return true;
}

struct node_question {
    GPtrArray *paths;
    const char *busy; /* one of them; NULL: none */
};

static int look_for_busy(void *opaque)
{
    struct node_question *question = opaque;

    for (guint i = 0; !question->busy && i < question->paths->len; i++) {
        AUTO(fd) fd = open(question->paths->pdata[i], O_RDONLY | O_EXCL | O_NONBLOCK | O_CLOEXEC);

        if (fd < 0 && errno == EBUSY)
            question->busy = question->paths->pdata[i];
    }
    return 0;
}

/* The kernel takes no partition away that is mounted or part of something, and by then the table would be without it.
 * Logical ones behind it get another number, which is the same to the kernel. */
static bool CO_FN co_check_unused(const struct pool *pool, const struct volume *volume, struct pool_error **err)
{
    g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free);
    struct node_question question = {.paths = paths};

    g_ptr_array_add(paths, g_strdup(volume->target.path));
    for (size_t i = 0; volume->partition_kind == PARTITION_LOGICAL && i < pool_volume_count(pool); i++) {
        const struct volume *other = pool_volume_at(pool, i);

        if (other->partition_kind == PARTITION_LOGICAL && other->partition_number > volume->partition_number)
            g_ptr_array_add(paths, g_strdup(other->target.path));
    }
    (void)co_worker_run(look_for_busy, &question);
    return !question.busy || pool_error_set(err, POOL_ERROR_OPERATION_INVALID,
                                            "partition '%s' is mounted or otherwise in use", question.busy);
}

static void CO_FN co_renumber(struct pool *pool, unsigned removed)
{
    g_autoptr(GPtrArray) moved = g_ptr_array_new();
    struct reading reading = {.device = g_strdup(device_of(pool))};

    for (size_t i = 0; i < pool_volume_count(pool); i++) {
        struct volume *volume = pool_volume_at(pool, i);

        if (volume->partition_kind == PARTITION_LOGICAL && volume->partition_number > removed)
            g_ptr_array_add(moved, volume_ref(volume));
    }
    (void)co_worker_run(read_table, &reading);
    for (size_t i = 0; reading.real_device && i < moved->len; i++)
        pool_remove_volume(pool, moved->pdata[i]);
    for (size_t i = 0; i < moved->len; i++) {
        struct volume *volume = moved->pdata[i];
        unsigned number = volume->partition_number - 1;
        g_autofree char *node = NULL;

        if (reading.real_device) {
            node = disk_partition_node(reading.real_device, number, has_separator(pool));
            co_name_volume(pool, volume, node, number);
            (void)!pool_add_volume(pool, volume_ref(volume), NULL);
        }
        volume_unref(volume);
    }
    reading_clear(&reading);
}

static bool CO_FN disk_co_volume_delete(struct pool *pool, struct volume *volume, unsigned flags,
                                        struct pool_error **err)
{
    if (!pool_error_check_flags(err, flags, 0, "virStorageBackendDiskDeleteVol") || !check_removal(pool, volume, err) ||
        !co_check_unused(pool, volume, err) || !co_remove(pool, volume->partition_number, err))
        return false;
    if (pool_find_volume(pool, volume->name) == volume)
        pool_remove_volume(pool, volume);
    /* The links to those that get other numbers lead elsewhere only then. */
    co_command_settle();
    if (volume->partition_kind == PARTITION_LOGICAL)
        co_renumber(pool, volume->partition_number);
    return co_count_anew(pool, err);
}

/* --- building --- */

struct labelling {
    const char *device;
    const char *label;
};

static int make_label(void *opaque)
{
    const struct labelling *labelling = opaque;

    return disk_table_make(labelling->device, labelling->label);
}

static bool CO_FN disk_co_build(struct pool *pool, unsigned flags, struct pool_error **err)
{
    struct labelling labelling;
    int ret;

    if (!check_build_flags(flags, "virStorageBackendDiskBuildPool", err) || !prepare(pool, err))
        return false;
    labelling = (struct labelling){.device = device_of(pool), .label = label_of(pool)->fdisk};
    if (!labelling.label)
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "disk labels of type '%s' cannot be made",
                              format_of(pool));
    if (!(flags & POOL_BUILD_OVERWRITE) &&
        !co_device_check_unused(device_of(pool), format_of(pool), label_of(pool)->blkid, err))
        return false;
    if (!co_device_clear_ends(device_of(pool), err))
        return false;
    ret = co_worker_run(make_label, &labelling);
    return !ret || pool_error_set_errno(err, ret, "cannot make a '%s' label on '%s'", format_of(pool), device_of(pool));
}

static bool CO_FN disk_co_delete(struct pool *pool, unsigned flags, struct pool_error **err)
{
    return pool_error_check_flags(err, flags, 0, "virStorageBackendDiskDeletePool") && prepare(pool, err) &&
           co_device_clear_ends(device_of(pool), err);
}

static const struct pool_backend_volume disk_volume_operations = {
    .co_create = disk_co_volume_create,
    .co_build = disk_co_volume_build,
    .co_build_from = co_device_volume_build,
    .co_refresh = disk_co_volume_refresh,
    .co_delete = disk_co_volume_delete,
    .co_wipe = disk_co_volume_wipe,
};

const struct pool_backend disk_backend = {
    .type = POOL_DISK,
    .flags = BACKEND_STABLE_PATHS | BACKEND_COUNTS_ITSELF | BACKEND_TRANSFERS,
    .co_check = disk_co_check,
    .co_start = disk_co_start,
    .co_build = disk_co_build,
    .co_delete = disk_co_delete,
    .co_refresh = disk_co_refresh,
    .volume = &disk_volume_operations,
};
