/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* logical: the logical volumes of an LVM volume group, by LVM's own commands and their JSON reports. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "loop/coroutine.h"
#include "pool/backend.h"
#include "pool/backend/command.h"
#include "pool/backend/device-ends.h"
#include "pool/backend/probe-device.h"
#include "pool/backend/report.h"
#include "pool/backend/types.h"
#include "pool/pool-error.h"
#include "schema/json.h"

/* Positions in the word of a volume's attributes. */
enum { ATTRIBUTE_TYPE = 0, ATTRIBUTE_STATE = 4, ATTRIBUTE_COUNT = 10 };

enum { LUKS_HEADER_BYTES = 2 << 20, KIB = 1024 };

/* A snapshot keeps in its own room which chunks it has: 16 bytes for each of 4 KiB, in chunks, and one chunk of its
 * own. Without that it would be lost when the last ones are written. */
enum { SNAPSHOT_CHUNKS_A_LIST = 256, SNAPSHOT_EXTRA_KIB = 64 };

/* A volume may have its extents in hidden ones, which may have theirs in others: caches over RAID over integrity. */
enum { PARTS_DEPTH_MAX = 8 };

#define NAME_CHARACTERS G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "+_.-"

/* What lvm.conf may have made different, and changes reports in JSON too. */
#define REPORT_CONFIG "report{compact_output=0 list_item_separator=\",\" mark_hidden_devices=1}"

static const char *group_of(const struct pool *pool)
{
    return pool->def->source.name;
}

/* --- the group --- */

static bool is_name(const char *name)
{
    return *name && *name != '-' && !name[strspn(name, NAME_CHARACTERS)] && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

/* What goes onto command lines: LVM's own rule for names, and absolute paths. */
static bool check_names(const struct pool *pool, struct pool_error **err)
{
    const struct pool_source *source = &pool->def->source;

    if (!is_name(group_of(pool)))
        return pool_error_set(err, POOL_ERROR_INVALID_ARG, "'%s' is no name of a volume group", group_of(pool));
    for (size_t i = 0; i < source->device_count; i++) {
        if (*source->devices[i].path != '/')
            return pool_error_set(err, POOL_ERROR_INVALID_ARG, "device path '%s' is not absolute",
                                  source->devices[i].path);
    }
    return true;
}

/* Whether the XML names no devices, or one that the group has. */
static bool device_matches(const struct pool *pool, const char *device)
{
    const struct pool_source *source = &pool->def->source;
    char *real = realpath(device, NULL);
    bool matches = !source->device_count;

    for (size_t i = 0; !matches && i < source->device_count; i++) {
        char *wanted = realpath(source->devices[i].path, NULL);

        matches = !strcmp(source->devices[i].path, device) || (real && wanted && !strcmp(real, wanted));
        free(wanted);
    }
    free(real);
    return matches;
}

static struct json *CO_FN co_list_devices(struct pool_error **err)
{
    const char *argv[] = {"pvs", "--config", REPORT_CONFIG, "--reportformat", "json", "-o", "pv_name,vg_name", NULL};

    return co_command_json(argv, err);
}

/* Whether the group is there, and has one of the devices that the XML names. */
static bool CO_FN co_find_group(const struct pool *pool, bool *ret_there, bool *ret_matches, struct pool_error **err)
{
    AUTO(json) report = co_list_devices(err);

    if (!report)
        return false;
    *ret_there = *ret_matches = false;
    for (size_t i = 0; i < report_count(report, "pv"); i++) {
        const struct json *row = report_row(report, "pv", i);

        if (strcmp(report_text(row, "vg_name"), group_of(pool)) != 0)
            continue;
        *ret_there = true;
        *ret_matches |= device_matches(pool, report_text(row, "pv_name"));
    }
    return true;
}

static bool CO_FN co_check_group(struct pool *pool, struct pool_error **err)
{
    bool is_there;
    bool matches;

    if (!check_names(pool, err) || !co_find_group(pool, &is_there, &matches, err))
        return false;
    if (!is_there)
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "cannot find logical volume group name '%s'",
                              group_of(pool));
    return matches ||
           pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED,
                          "cannot find any matching source devices for logical volume group '%s'", group_of(pool));
}

static bool CO_FN logical_co_check(struct pool *pool, bool *ret_active, struct pool_error **err)
{
    *ret_active = co_check_group(pool, NULL);
    return true;
}

static bool CO_FN co_activate(struct pool *pool, const char *how, struct pool_error **err)
{
    const char *argv[] = {"vgchange", how, group_of(pool), NULL};

    return co_command_run(argv, NULL, err);
}

static bool CO_FN logical_co_start(struct pool *pool, struct pool_error **err)
{
    return co_check_group(pool, err) && co_activate(pool, "-aly", err);
}

/* Of a group that has gone nothing is active, so its pool can be stopped. */
static bool CO_FN logical_co_stop(struct pool *pool, struct pool_error **err)
{
    AUTO(pool_error) error = NULL;
    bool is_there;
    bool matches;

    if (co_activate(pool, "-aln", &error))
        return true;
    return (co_find_group(pool, &is_there, &matches, NULL) && !is_there) || pool_error_move(err, TAKE(error));
}

/* --- building --- */

static void CO_FN co_give_up_devices(const struct pool *pool, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const char *argv[] = {"pvremove", pool->def->source.devices[i].path, NULL};

        (void)co_command_run(argv, NULL, NULL);
    }
}

static bool CO_FN co_make_device(const char *device, struct pool_error **err)
{
    const char *argv[] = {"pvcreate", device, NULL};

    return co_device_clear_ends(device, err) && co_command_run(argv, NULL, err);
}

static bool CO_FN co_make_group(struct pool *pool, struct pool_error **err)
{
    const struct pool_source *source = &pool->def->source;
    g_autoptr(GPtrArray) argv = g_ptr_array_new();

    g_ptr_array_add(argv, (void *)(uintptr_t) "vgcreate");
    g_ptr_array_add(argv, (void *)(uintptr_t)group_of(pool));
    for (size_t i = 0; i < source->device_count; i++)
        g_ptr_array_add(argv, source->devices[i].path);
    g_ptr_array_add(argv, NULL);
    return co_command_run((const char *const *)argv->pdata, NULL, err);
}

static bool CO_FN logical_co_build(struct pool *pool, unsigned flags, struct pool_error **err)
{
    const struct pool_source *source = &pool->def->source;
    size_t made = 0;
    bool ok = check_build_flags(flags, "virStorageBackendLogicalBuildPool", err) && check_names(pool, err);

    for (size_t i = 0; ok && !(flags & POOL_BUILD_OVERWRITE) && i < source->device_count; i++)
        ok = co_device_check_unused(source->devices[i].path, "lvm2", "LVM2_member", err);
    if (!ok)
        return false;
    if (!source->device_count)
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "no source devices for volume group '%s'",
                              group_of(pool));
    while (ok && made < source->device_count) {
        ok = co_make_device(source->devices[made].path, err);
        made += ok;
    }
    ok = ok && co_make_group(pool, err);
    if (!ok)
        co_give_up_devices(pool, made);
    return ok;
}

static bool CO_FN logical_co_delete(struct pool *pool, unsigned flags, struct pool_error **err)
{
    const char *argv[] = {"vgremove", "-f", group_of(pool), NULL};

    if (!pool_error_check_flags(err, flags, 0, "virStorageBackendLogicalDeletePool") || !check_names(pool, err) ||
        !co_command_run(argv, NULL, err))
        return false;
    co_give_up_devices(pool, pool->def->source.device_count);
    return true;
}

/* --- volumes --- */

/* LVM's report on the volumes of a group, hidden ones included: a row a segment. */
struct volume_report {
    struct json *json;
    GHashTable *first; /* name of a volume, without the brackets of hidden ones: its first row's place, from 1 */
};

static size_t row_count(const struct volume_report *report)
{
    return report_count(report->json, "lv");
}

static const struct json *row_at(const struct volume_report *report, size_t index)
{
    return report_row(report->json, "lv", index);
}

static void volume_report_clear(struct volume_report *report)
{
    json_free(report->json);
    g_clear_pointer(&report->first, g_hash_table_unref);
}

static char *bare_name(const struct json *row)
{
    const char *name = report_text(row, "lv_name");
    size_t length = strlen(name);

    return *name == '[' && length > 1 ? g_strndup(name + 1, length - 2) : g_strdup(name);
}

static void index_rows(struct volume_report *report)
{
    report->first = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (size_t i = 0; i < row_count(report); i++) {
        g_autofree char *name = bare_name(row_at(report, i));

        if (!g_hash_table_contains(report->first, name))
            g_hash_table_insert(report->first, TAKE(name), GSIZE_TO_POINTER(i + 1));
    }
}

/* Rows of one volume follow each other, in the order of its segments. */
static bool CO_FN co_list_volumes(const struct pool *pool, struct volume_report *ret, struct pool_error **err)
{
    const char *argv[] = {"lvs",
                          "-a",
                          "--config",
                          REPORT_CONFIG,
                          "--reportformat",
                          "json",
                          "--units",
                          "b",
                          "--nosuffix",
                          "-O",
                          "lv_name,seg_start",
                          "-o",
                          "lv_name,origin,lv_uuid,devices,segtype,stripes,seg_size,vg_extent_size,lv_size,lv_attr,"
                          "vg_size,vg_free",
                          group_of(pool),
                          NULL};

    *ret = (struct volume_report){.json = co_command_json(argv, err)};
    if (!ret->json)
        return false;
    index_rows(ret);
    return true;
}

static void take_volume_part(struct volume *volume, const struct volume_report *report, const char *name,
                             unsigned depth);

/* "/dev/sda(3),/dev/sdb(9)": in each device the segment has the same number of bytes, from that extent on. Of mirrors,
 * RAID and caches they are hidden volumes: "m_rimage_0(0),m_rimage_1(0)". */
static void take_segment(struct volume *volume, const struct volume_report *report, const struct json *row,
                         unsigned depth)
{
    g_auto(GStrv) places = g_strsplit(report_text(row, "devices"), ",", -1);
    uint64_t extent_bytes = report_number(row, "vg_extent_size");
    uint64_t stripes = MAX(report_number(row, "stripes"), 1);
    uint64_t bytes = report_number(row, "seg_size") / stripes;

    for (char **place = places; *place; place++) {
        char *bracket = strrchr(*place, '(');
        uint64_t start;

        if (!bracket)
            continue;
        *bracket = 0;
        if (**place != '/')
            take_volume_part(volume, report, *place, depth + 1);
        else if (!__builtin_mul_overflow(g_ascii_strtoull(bracket + 1, NULL, 10), extent_bytes, &start) &&
                 start <= UINT64_MAX - bytes)
            volume_add_extent(volume, *place, start, start + bytes);
    }
}

/* The extents of the volume `name`, which `volume` is made of. A device that is missing is none. */
static void take_volume_part(struct volume *volume, const struct volume_report *report, const char *name,
                             unsigned depth)
{
    size_t first = GPOINTER_TO_SIZE(g_hash_table_lookup(report->first, name));

    for (size_t i = first; depth <= PARTS_DEPTH_MAX && i && i <= row_count(report); i++) {
        const struct json *row = row_at(report, i - 1);
        g_autofree char *own = bare_name(row);

        if (strcmp(own, name) != 0)
            break;
        take_segment(volume, report, row, depth);
    }
}

static struct volume *new_volume(const struct pool *pool, const struct json *row)
{
    const char *origin = report_text(row, "origin");
    struct volume *volume = volume_new();

    volume->name = g_strdup(report_text(row, "lv_name"));
    volume->key = g_strdup(report_text(row, "lv_uuid"));
    volume->type = VOLUME_BLOCK;
    volume->target.path = g_build_filename(pool->def->target_path, volume->name, NULL);
    volume->capacity = volume->allocation = report_number(row, "lv_size");
    volume->sparse = report_text(row, "lv_attr")[ATTRIBUTE_TYPE] == 's';
    if (*origin && *origin != '[') {
        volume->backing = volume_target_new();
        volume->backing->path = g_build_filename(pool->def->target_path, origin, NULL);
        volume->backing->format = LOGICAL_LVM2;
    }
    return volume;
}

/* Thin pools, what LVM hides and what is not active are no volumes. */
static bool is_volume(const struct json *row)
{
    const char *attributes = report_text(row, "lv_attr");
    const char *name = report_text(row, "lv_name");

    return strlen(attributes) >= ATTRIBUTE_COUNT && attributes[ATTRIBUTE_STATE] == 'a' &&
           attributes[ATTRIBUTE_TYPE] != 't' && *name && *name != '[';
}

/* The volumes that are shown, by their names. */
static GHashTable *take_volumes(const struct pool *pool, const struct volume_report *report)
{
    GHashTable *volumes = g_hash_table_new(g_str_hash, g_str_equal);

    for (size_t i = 0; i < row_count(report); i++) {
        const struct json *row = row_at(report, i);
        struct volume *volume = g_hash_table_lookup(volumes, report_text(row, "lv_name"));

        if (!is_volume(row))
            continue;
        if (!volume) {
            volume = new_volume(pool, row);
            g_hash_table_insert(volumes, volume->name, volume);
        }
        take_segment(volume, report, row, 0);
    }
    return volumes;
}

/* The allocation is what LVM says, which for a sparse volume is less than the device has. */
static bool CO_FN logical_co_volume_refresh(struct pool *pool, struct volume *volume, struct pool_error **err)
{
    uint64_t allocation = volume->allocation;

    if (!co_device_volume_refresh(pool, volume, err))
        return false;
    if (volume->sparse)
        volume->allocation = allocation;
    return true;
}

static void take_numbers(const struct json *row, struct pool_scan *scan)
{
    scan->capacity = report_number(row, "vg_size");
    scan->available = MIN(report_number(row, "vg_free"), scan->capacity);
    scan->allocation = scan->capacity - scan->available;
}

/* A report on volumes, if there are any, has the group's numbers as well. */
static bool CO_FN co_count_group(const struct pool *pool, const struct volume_report *volumes, struct pool_scan *scan,
                                 struct pool_error **err)
{
    const char *argv[] = {"vgs", "--config",   REPORT_CONFIG, "--reportformat",  "json",         "--units",
                          "b",   "--nosuffix", "-o",          "vg_size,vg_free", group_of(pool), NULL};
    AUTO(json) report = NULL;

    if (volumes && row_count(volumes) && *report_text(row_at(volumes, 0), "vg_size")) {
        take_numbers(row_at(volumes, 0), scan);
        return true;
    }
    report = co_command_json(argv, err);
    if (!report)
        return false;
    if (!report_count(report, "vg"))
        return pool_error_set(err, POOL_ERROR_INTERNAL, "'vgs' says nothing of volume group '%s'", group_of(pool));
    take_numbers(report_row(report, "vg", 0), scan);
    return true;
}

/* The pool's numbers after a volume has come or gone: a mirror takes up more than its size, a thin volume nothing, and
 * with an origin its snapshots go. What the pool had stands where LVM does not say. */
static void CO_FN co_count_anew(struct pool *pool, const struct volume_report *volumes)
{
    AUTO(pool_error) error = NULL;
    struct pool_scan scan;

    pool_scan_init(&scan);
    if (co_count_group(pool, volumes, &scan, &error)) {
        pool->def->capacity = scan.capacity;
        pool->def->available = scan.available;
        pool->def->allocation = scan.allocation;
    } else {
        log_warning("pool '%s': %s", pool->def->name, error->message);
    }
    pool_scan_done(&scan);
}

static bool CO_FN logical_co_refresh(struct pool *pool, struct pool_scan *scan, struct pool_error **err)
{
    g_autoptr(GHashTable) volumes = NULL;
    g_autoptr(GList) list = NULL;
    struct volume_report report;

    co_command_settle();
    if (!co_list_volumes(pool, &report, err))
        return false;
    if (!co_count_group(pool, &report, scan, err)) {
        volume_report_clear(&report);
        return false;
    }
    volumes = take_volumes(pool, &report);
    volume_report_clear(&report);
    list = g_hash_table_get_values(volumes);
    for (GList *item = list; item; item = item->next) {
        /* One that vanishes meanwhile keeps the sizes that LVM said. */
        (void)logical_co_volume_refresh(pool, item->data, NULL);
        pool_scan_add(scan, item->data);
    }
    return true;
}

/* --- making volumes --- */

/* Less room than capacity, and nothing to be a snapshot of. */
static bool is_to_be_sparse(const struct volume *volume)
{
    return volume->capacity != volume->allocation && !volume->backing;
}

static uint64_t to_kib(uint64_t bytes)
{
    return bytes / KIB + (bytes % KIB != 0);
}

/* Of the group. */
static uint64_t wanted_room_kib(const struct volume *volume, uint64_t header)
{
    uint64_t capacity = to_kib(volume->capacity + header);

    if (volume->backing)
        return capacity + capacity / SNAPSHOT_CHUNKS_A_LIST + SNAPSHOT_EXTRA_KIB;
    return is_to_be_sparse(volume) ? MAX(to_kib(volume->allocation + header), 1) : capacity;
}

static bool CO_FN co_run_create(struct pool *pool, const struct volume *volume, struct pool_error **err)
{
    uint64_t header = volume->target.encryption ? LUKS_HEADER_BYTES : 0;
    g_autofree char *size = g_strdup_printf("%" PRIu64 "K", wanted_room_kib(volume, header));
    g_autofree char *capacity = g_strdup_printf("%" PRIu64 "K", to_kib(volume->capacity + header));
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    const char *head[] = {"lvcreate", "--name", volume->name, "-L", size};
    const char *tail[] = {"--type", "snapshot", "--virtualsize", capacity, group_of(pool)};

    for (size_t i = 0; i < G_N_ELEMENTS(head); i++)
        g_ptr_array_add(argv, (void *)(uintptr_t)head[i]);
    if (is_to_be_sparse(volume)) {
        for (size_t i = 0; i < G_N_ELEMENTS(tail); i++)
            g_ptr_array_add(argv, (void *)(uintptr_t)tail[i]);
    } else if (volume->backing) {
        g_ptr_array_add(argv, (void *)(uintptr_t) "-s");
        g_ptr_array_add(argv, volume->backing->path);
    } else {
        g_ptr_array_add(argv, (void *)(uintptr_t)group_of(pool));
    }
    g_ptr_array_add(argv, (void *)(uintptr_t) "--yes");
    g_ptr_array_add(argv, NULL);
    return co_command_run((const char *const *)argv->pdata, NULL, err);
}

/* LVM gave it a uuid, which is its key; and the pool's numbers are others now. */
static bool CO_FN co_find_made(struct pool *pool, struct volume *volume, struct pool_error **err)
{
    struct volume_report report;

    g_clear_pointer(&volume->key, g_free);
    if (!co_list_volumes(pool, &report, err))
        return false;
    for (size_t i = 0; i < row_count(&report); i++) {
        const struct json *row = row_at(&report, i);

        if (strcmp(report_text(row, "lv_name"), volume->name) != 0)
            continue;
        g_free(volume->key);
        volume->key = g_strdup(report_text(row, "lv_uuid"));
        volume->sparse = report_text(row, "lv_attr")[ATTRIBUTE_TYPE] == 's';
        volume->allocation = report_number(row, "lv_size");
        take_segment(volume, &report, row, 0);
    }
    if (volume->key)
        co_count_anew(pool, &report);
    volume_report_clear(&report);
    return volume->key ||
           pool_error_set(err, POOL_ERROR_INTERNAL, "LVM does not know the new volume '%s'", volume->name);
}

static bool is_made_of(const struct volume *volume, const struct volume *origin)
{
    return volume != origin && volume->backing && !strcmp(volume->backing->path, origin->target.path);
}

/* LVM removes the snapshots of a volume with it. */
static bool check_snapshots_free(const struct pool *pool, const struct volume *origin, struct pool_error **err)
{
    for (size_t i = 0; i < pool_volume_count(pool); i++) {
        const struct volume *volume = pool_volume_at(pool, i);

        if (is_made_of(volume, origin) && (volume->in_use || volume->building))
            return pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "volume '%s' is still in use.", volume->name);
    }
    return true;
}

/* Thin ones stay, with all that they have of it. */
static void forget_snapshots(struct pool *pool, const struct volume *origin)
{
    for (size_t i = pool_volume_count(pool); i-- > 0;) {
        struct volume *volume = pool_volume_at(pool, i);

        if (!is_made_of(volume, origin))
            continue;
        if (volume->sparse)
            pool_remove_volume(pool, volume);
        else
            g_clear_pointer(&volume->backing, volume_target_free);
    }
}

static bool CO_FN logical_co_volume_delete(struct pool *pool, struct volume *volume, unsigned flags,
                                           struct pool_error **err)
{
    const char *remove[] = {"lvremove", "-f", volume->target.path, NULL};
    const char *deactivate[] = {"lvchange", "-aln", volume->target.path, NULL};
    AUTO(pool_error) error = NULL;

    if (!pool_error_check_flags(err, flags, 0, "virStorageBackendLogicalDeleteVol"))
        return false;
    if (!check_snapshots_free(pool, volume, err))
        return false;
    co_command_settle();
    if (!co_command_run(remove, NULL, &error) &&
        (!co_command_run(deactivate, NULL, err) || !co_command_run(remove, NULL, err)))
        return false;
    forget_snapshots(pool, volume);
    co_count_anew(pool, NULL);
    return true;
}

/* What a snapshot is made of is a volume of the same group: of another one neither this pool nor its clients may know,
 * and on a command line nothing else may stand there. */
static bool check_origin(const struct pool *pool, const struct volume *volume, struct pool_error **err)
{
    const char *path = volume->backing->path;
    g_autofree char *prefix = g_strconcat(pool->def->target_path, "/", NULL);

    return (g_str_has_prefix(path, prefix) && is_name(path + strlen(prefix))) ||
           pool_error_set(err, POOL_ERROR_INVALID_ARG, "backing store '%s' is no volume of the group '%s'", path,
                          group_of(pool));
}

static bool CO_FN logical_co_volume_create(struct pool *pool, struct volume *volume, struct pool_error **err)
{
    if (!is_name(volume->name))
        return pool_error_set(err, POOL_ERROR_INVALID_ARG, "'%s' is no name of a logical volume", volume->name);
    if (volume->backing && !check_origin(pool, volume, err))
        return false;
    volume->type = VOLUME_BLOCK;
    g_free(volume->target.path);
    volume->target.path = g_build_filename(pool->def->target_path, volume->name, NULL);
    if (!co_run_create(pool, volume, err))
        return false;
    co_command_settle();
    if (co_find_made(pool, volume, err))
        return true;
    (void)logical_co_volume_delete(pool, volume, 0, NULL);
    return false;
}

static bool CO_FN logical_co_volume_build(struct pool *pool, struct volume *volume, unsigned flags,
                                          struct pool_error **err)
{
    return co_device_volume_build(pool, volume, NULL, NULL, flags, err);
}

static bool CO_FN logical_co_volume_wipe(struct pool *pool, struct volume *volume, enum volume_wipe_algorithm algorithm,
                                         struct pool_error **err)
{
    if (volume->sparse)
        return pool_error_set(err, POOL_ERROR_NO_SUPPORT, "logical volume '%s' is sparse, volume wipe not supported",
                              volume->target.path);
    return co_device_volume_wipe(pool, volume, algorithm, err);
}

/* --- finding --- */

static struct pool_source *find_source(GPtrArray *sources, const char *group)
{
    struct pool_source *source;

    for (guint i = 0; i < sources->len; i++) {
        source = g_ptr_array_index(sources, i);
        if (!strcmp(source->name, group))
            return source;
    }
    source = pool_sources_add(sources, POOL_LOGICAL);
    source->name = g_strdup(group);
    source->format = LOGICAL_LVM2;
    return source;
}

static bool CO_FN logical_co_find_sources(struct storage *storage, const struct pool_source *wanted, GPtrArray *sources,
                                          struct pool_error **err)
{
    AUTO(json) report = co_list_devices(err);

    if (!report)
        return false;
    for (size_t i = 0; i < report_count(report, "pv"); i++) {
        const struct json *row = report_row(report, "pv", i);
        struct pool_source *source;

        /* A device that is missing has a word in the place of its name. */
        if (!*report_text(row, "vg_name") || *report_text(row, "pv_name") != '/')
            continue;
        source = find_source(sources, report_text(row, "vg_name"));
        source->devices = g_renew(struct pool_device, source->devices, source->device_count + 1);
        source->devices[source->device_count++] = (struct pool_device){.path = g_strdup(report_text(row, "pv_name"))};
    }
    return true;
}

static const struct pool_backend_volume logical_volume_operations = {
    .co_create = logical_co_volume_create,
    .co_build = logical_co_volume_build,
    .co_build_from = co_device_volume_build,
    .co_refresh = logical_co_volume_refresh,
    .co_delete = logical_co_volume_delete,
    .co_wipe = logical_co_volume_wipe,
};

const struct pool_backend logical_backend = {
    .type = POOL_LOGICAL,
    .flags = BACKEND_COUNTS_ITSELF | BACKEND_TRANSFERS,
    .co_check = logical_co_check,
    .co_start = logical_co_start,
    .co_stop = logical_co_stop,
    .co_build = logical_co_build,
    .co_delete = logical_co_delete,
    .co_refresh = logical_co_refresh,
    .co_find_sources = logical_co_find_sources,
    .volume = &logical_volume_operations,
};
