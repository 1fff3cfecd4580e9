/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * S1: qcow2 on the simulated machine: several writers at once, and the power fails at every point of the disk's record.
 * What is left must open; what had been flushed must be there; of what had not, old or new; and a check may find leaks
 * and nothing else, before anybody has repaired anything. Only where the image has its dirty bit set (lazy reference
 * counts), that holds from when it has been opened.
 *
 * A seed says all of a run: the kind of image, what is done, in which order the loop does it, what a cut leaves.
 * QCOW2_CRASH_SEED is the first one (default 1), QCOW2_CRASH_CUTS how many cuts are made at least (default 2000);
 * QCOW2_CRASH_POSITION tries one position of the first seed's record alone.
 */
#include "driver/format/qcow2.h"

#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/error.h"
#include "block/dirty-bitmap-action.h"
#include "block/dirty-bitmap.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/image.h"
#include "block/transaction.h"
#include "driver/format/qcow2/amend.h"
#include "driver/format/qcow2/check.h"
#include "driver/format/qcow2/compress.h"
#include "driver/format/qcow2/create.h"
#include "driver/format/qcow2/qcow2.h"
#include "driver/format/qcow2/snapshot.h"
#include "driver/protocol/file.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/sim.h"
#include "object/object.h"
#include "schema/json.h"

enum { SECTOR = 512, SECTORS_MAX = 2048, BITMAPS = 8, WORKERS = 3, PHASES = 4, STEPS = 9, BACKING_VALUE = 0x7fffffff };

static const struct block_driver *const drivers[] = {&file_driver, &qcow2_driver, NULL};

/* --- what may be where --- */

/* A change of some sectors, and when it was made: by the test's own count, and by the disk's record. */
struct change {
    unsigned first;
    unsigned count;
    uint32_t value;
    uint32_t *values; /* one for each sector instead; NULL: none */
    bool vague;       /* may have been made or not, for ever: a discard */
    unsigned start, end;
    size_t record_start, record_end; /* SIZE_MAX: has not ended */
};

struct flush {
    unsigned start;
    size_t record_end;
};

struct config {
    unsigned cluster_bits;
    unsigned refcount_bits;
    unsigned version;
    bool subclusters, backing, lazy, no_unref, small_cache, compressed, data_file, raw;
    unsigned sectors;
};

struct scene {
    uint32_t seed;
    struct config config;
    struct loop *loop;
    struct sim_disk *disk;
    struct object_registry *objects;
    struct graph *graph;
    struct handle *handle;
    GRand *random;
    GPtrArray *changes; /* struct change * */
    GArray *flushes;    /* struct flush */
    unsigned clock;
    uint32_t next_value;
    size_t created;     /* the record when the image was complete */
    uint32_t *snapshot; /* contents when it was taken; NULL: there is none */
    unsigned snapshot_sectors;
    uint32_t *bitmap_bases[BITMAPS]; /* contents when each bitmap was made */
    unsigned bitmaps;                /* made so far; the last one may still be there */
    bool has_bitmap;
    unsigned shortest; /* sectors, that the disk ever had */
    unsigned running;
    struct co_group workers;
    size_t position; /* of a cut */
    void (*co_run)(struct scene *scene);
};

static struct change *change_begin(struct scene *scene, unsigned first, unsigned count, uint32_t value)
{
    struct change *change = g_new0(struct change, 1);

    *change = (struct change){
        .first = first,
        .count = count,
        .value = value,
        .start = ++scene->clock,
        .end = UINT_MAX,
        .record_start = sim_disk_recorded(scene->disk),
        .record_end = SIZE_MAX,
    };
    g_ptr_array_add(scene->changes, change);
    return change;
}

static void change_end(struct scene *scene, struct change *change)
{
    change->end = ++scene->clock;
    change->record_end = sim_disk_recorded(scene->disk);
}

static void change_free(void *opaque)
{
    struct change *change = opaque;

    g_free(change->values);
    g_free(change);
}

static bool touches(const struct change *change, unsigned sector)
{
    return sector >= change->first && sector - change->first < change->count;
}

static uint32_t value_at(const struct change *change, unsigned sector)
{
    return change->values ? change->values[sector - change->first] : change->value;
}

/* Whether the change must be there, whatever was lost, when the power fails at `position`. */
static bool is_durable(const struct scene *scene, const struct change *change, size_t position)
{
    for (unsigned i = 0; i < scene->flushes->len; i++) {
        const struct flush *flush = &g_array_index(scene->flushes, struct flush, i);

        if (flush->record_end <= position && flush->start > change->end)
            return true;
    }
    return false;
}

/* Whether `sector` may hold `value`. `now`: nothing was lost yet; else after a cut at `position`. */
static bool may_hold(const struct scene *scene, unsigned sector, uint32_t value, bool now, unsigned asked,
                     size_t position)
{
    for (unsigned i = 0; i < scene->changes->len; i++) {
        const struct change *change = g_ptr_array_index(scene->changes, i);
        bool replaced = false;

        if (!touches(change, sector) || value_at(change, sector) != value)
            continue;
        if (!now && change->record_start > position)
            continue;
        for (unsigned j = 0; j < scene->changes->len && !replaced; j++) {
            const struct change *later = g_ptr_array_index(scene->changes, j);

            if (!touches(later, sector) || later->vague || later->start < change->end)
                continue;
            replaced = now ? later->end < asked : is_durable(scene, later, position);
        }
        if (!replaced)
            return true;
    }
    return false;
}

static void fill(uint8_t *data, unsigned count, uint32_t value)
{
    for (unsigned i = 0; i < count * SECTOR / 4; i++)
        memcpy(data + i * 4, &value, 4);
}

static void check_sectors(const struct scene *scene, const uint8_t *data, unsigned first, unsigned count, bool now,
                          unsigned asked)
{
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *sector = data + i * SECTOR;
        uint32_t value;

        memcpy(&value, sector, 4);
        for (unsigned at = 4; at < SECTOR; at += 4) {
            if (memcmp(sector, sector + at, 4))
                g_error("seed %u, position %zu: sector %u is mixed", scene->seed, scene->position, first + i);
        }
        if (!may_hold(scene, first + i, value, now, asked, scene->position))
            g_error("seed %u, position %zu: sector %u holds %#x", scene->seed, scene->position, first + i, value);
    }
}

/* --- opening --- */

static bool CO_FN co_open(struct scene *scene, struct error **err)
{
    const struct config *config = &scene->config;
    struct handle_options handle = {.name = "test", .perm = PERM_ALL, .shared = PERM_ALL};
    g_autofree char *text = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'q', 'discard': 'unmap', 'cache-clean-interval': %d, "
        "'file': {'driver': 'file', 'node-name': 'f', 'filename': 'image', 'discard': 'unmap'}"
        "%s%s%s%s%s}",
        scene->seed % 2 ? 0 : 1,
        config->backing ? ", 'backing': {'driver': 'file', 'filename': 'base'}" : ", 'backing': null",
        config->data_file ? ", 'data-file': {'driver': 'file', 'filename': 'data', 'discard': 'unmap'}" : "",
        config->lazy ? ", 'lazy-refcounts': true" : "", config->no_unref ? ", 'discard-no-unref': true" : "",
        config->small_cache ? ", 'l2-cache-size': 2048, 'l2-cache-entry-size': 512, 'refcount-cache-size': 2048" : "");
    AUTO(json) json = json_parse(text, strlen(text), err);
    AUTO(blockdev_options) options = json ? blockdev_options_parse(json, err) : NULL;

    if (!options || !co_graph_add(scene->graph, options, err))
        return false;
    scene->handle = co_handle_new(graph_find(scene->graph, "q", NULL), &handle, err);
    return scene->handle;
}

static void CO_FN co_close(struct scene *scene)
{
    co_handle_free(scene->handle);
    scene->handle = NULL;
    g_assert_true(co_graph_delete(scene->graph, "q", NULL));
}

static void CO_FN co_must_open(struct scene *scene)
{
    AUTO(error) error = NULL;

    if (!co_open(scene, &error))
        g_error("seed %u, position %zu: cannot open: %s", scene->seed, scene->position, error_message(error));
}

static struct qcow2_image *image_of(const struct scene *scene)
{
    return qcow2_image_of(handle_node(scene->handle));
}

static void print_line(struct image_report *report, const char *text)
{
    g_test_message("%s", text);
}

static struct qcow2_check_result CO_FN co_check(struct scene *scene, unsigned repair)
{
    struct image_report report = {.line = print_line};
    struct qcow2_check_result result;
    AUTO(error) error = NULL;

    if (!co_qcow2_check(image_of(scene)->file, repair, &report, &result, &error))
        g_error("seed %u, position %zu: cannot check: %s", scene->seed, scene->position, error_message(error));
    return result;
}

static void CO_FN co_check_image(struct scene *scene)
{
    struct qcow2_check_result result = co_check(scene, 0);

    if (result.corruptions || result.check_errors)
        g_error("seed %u, position %zu: %" PRIu64 " corruptions, %" PRIu64 " errors", scene->seed, scene->position,
                result.corruptions, result.check_errors);
    if (scene->position == SIZE_MAX && result.leaks)
        g_error("seed %u: %" PRIu64 " leaks after closing", scene->seed, result.leaks);
}

/* The image as the cut has left it. */
static void CO_FN co_check_file(struct scene *scene)
{
    static const char definition[] = "{'driver': 'file', 'node-name': 'f', 'filename': 'image', 'read-only': true}";
    struct handle_options options = {.name = "check", .perm = PERM_CONSISTENT_READ, .shared = PERM_ALL};
    struct image_report report = {.line = print_line};
    AUTO(error) error = NULL;
    AUTO(image_check) check = g_new0(struct image_check, 1);
    AUTO(qcow2_header) header = NULL;
    AUTO(json) json = json_parse(definition, strlen(definition), &error);
    AUTO(blockdev_options) file = json ? blockdev_options_parse(json, &error) : NULL;
    struct handle *handle = NULL;

    if (file && co_graph_add(scene->graph, file, &error))
        handle = co_handle_new(graph_find(scene->graph, "f", NULL), &options, &error);
    if (handle)
        header = co_qcow2_header_load(handle_edge(handle), &error);
    if (!header || !co_qcow2_check_file(handle, 0, &report, check, &error))
        g_error("seed %u, position %zu: cannot check: %s", scene->seed, scene->position, error_message(error));
    if (!(header->incompatible_features & QCOW2_DIRTY) && (check->corruptions || check->check_errors))
        g_error("seed %u, position %zu: %" PRId64 " corruptions, %" PRId64 " errors before it is opened", scene->seed,
                scene->position, check->corruptions, check->check_errors);
    co_handle_free(handle);
    g_assert_true(co_graph_delete(scene->graph, "f", NULL));
}

static void CO_FN co_create(struct scene *scene)
{
    const struct config *config = &scene->config;
    g_autofree uint8_t *base = g_malloc(SECTORS_MAX * SECTOR);
    unsigned base_sectors = config->sectors * 2 / 3;
    g_autofree char *text = g_strdup_printf(
        "{'driver': 'qcow2', 'file': {'driver': 'file', 'filename': 'image'}, 'size': %u, 'cluster-size': %u, "
        "'version': 'v%u', 'refcount-bits': %u%s%s%s}",
        config->sectors * SECTOR, 1u << config->cluster_bits, config->version, config->refcount_bits,
        config->subclusters ? ", 'extended-l2': true" : "",
        config->data_file ? ", 'data-file': {'driver': 'file', 'filename': 'data'}" : "",
        config->raw ? ", 'data-file-raw': true" : "");
    AUTO(error) error = NULL;
    AUTO(json) json = json_parse(text, strlen(text), &error);
    AUTO(blockdev_create_options) options = json ? blockdev_create_options_parse(json, &error) : NULL;

    sim_disk_put(scene->disk, "image", "", 0);
    sim_disk_put(scene->disk, "data", "", 0);
    fill(base, base_sectors, BACKING_VALUE);
    sim_disk_put(scene->disk, "base", base, base_sectors * SECTOR);
    if (!options || !qcow2_co_create(scene->graph, options, &error))
        g_error("seed %u: cannot create: %s", scene->seed, error_message(error));
}

/* --- what the workers do --- */

static void pick_range(struct scene *scene, unsigned *ret_first, unsigned *ret_count)
{
    unsigned sectors = (unsigned)(handle_length(scene->handle) / SECTOR);

    *ret_first = (unsigned)g_rand_int_range(scene->random, 0, (int)sectors);
    *ret_count = (unsigned)g_rand_int_range(scene->random, 1, 1 + (int)MIN(sectors - *ret_first, 40));
}

static void CO_FN co_write(struct scene *scene, unsigned flags)
{
    g_autofree uint8_t *data = g_malloc(SECTORS_MAX * SECTOR);
    unsigned first, count;
    struct change *change;

    pick_range(scene, &first, &count);
    change = change_begin(scene, first, count, ++scene->next_value);
    fill(data, count, change->value);
    g_assert_cmpint(co_handle_pwrite(scene->handle, (uint64_t)first * SECTOR, count * SECTOR, data, flags), ==, 0);
    change_end(scene, change);
}

/* Whole clusters. */
static void CO_FN co_write_compressed(struct scene *scene)
{
    unsigned per_cluster = (1u << scene->config.cluster_bits) / SECTOR;
    unsigned sectors = (unsigned)(handle_length(scene->handle) / SECTOR);
    g_autofree uint8_t *data = g_malloc(SECTORS_MAX * SECTOR);
    unsigned first = (unsigned)g_rand_int_range(scene->random, 0, (int)sectors) / per_cluster * per_cluster;
    unsigned count = MIN(per_cluster, sectors - first);
    struct change *change = change_begin(scene, first, count, ++scene->next_value);

    fill(data, count, change->value);
    g_assert_cmpint(co_handle_pwrite(scene->handle, (uint64_t)first * SECTOR, count * SECTOR, data, IO_COMPRESSED), ==,
                    0);
    change_end(scene, change);
}

static void CO_FN co_zero(struct scene *scene, bool unmap)
{
    unsigned first, count;
    struct change *change;

    pick_range(scene, &first, &count);
    change = change_begin(scene, first, count, 0);
    g_assert_cmpint(
        co_handle_pwrite_zeroes(scene->handle, (uint64_t)first * SECTOR, count * SECTOR, unmap ? IO_MAY_UNMAP : 0), ==,
        0);
    change_end(scene, change);
}

static void CO_FN co_discard(struct scene *scene)
{
    unsigned first, count;
    struct change *change;

    pick_range(scene, &first, &count);
    change = change_begin(scene, first, count, 0);
    change->vague = true;
    g_assert_cmpint(co_handle_pdiscard(scene->handle, (uint64_t)first * SECTOR, count * SECTOR), ==, 0);
    change_end(scene, change);
}

static void CO_FN co_flush(struct scene *scene)
{
    struct flush flush = {.start = ++scene->clock};

    g_assert_cmpint(co_handle_flush(scene->handle), ==, 0);
    flush.record_end = sim_disk_recorded(scene->disk);
    g_array_append_val(scene->flushes, flush);
}

static void CO_FN co_read(struct scene *scene)
{
    g_autofree uint8_t *data = g_malloc(SECTORS_MAX * SECTOR);
    unsigned first, count, asked;

    pick_range(scene, &first, &count);
    asked = ++scene->clock;
    g_assert_cmpint(co_handle_pread(scene->handle, (uint64_t)first * SECTOR, count * SECTOR, data, 0), ==, 0);
    check_sectors(scene, data, first, count, true, asked);
}

static void CO_FN co_status(struct scene *scene)
{
    struct block_extent extent;
    unsigned first, count;

    pick_range(scene, &first, &count);
    g_assert_cmpint(co_handle_block_status(scene->handle, (uint64_t)first * SECTOR, count * SECTOR, &extent), ==, 0);
    g_assert_cmpuint(extent.bytes, >, 0);
}

static void CO_FN co_step(struct scene *scene)
{
    switch (g_rand_int_range(scene->random, 0, 14)) {
    case 0:
        co_zero(scene, false);
        break;
    case 1:
        co_zero(scene, true);
        break;
    case 2:
        co_discard(scene);
        break;
    case 3:
    case 4:
        co_flush(scene);
        break;
    case 5:
    case 6:
        co_read(scene);
        break;
    case 7:
        co_status(scene);
        break;
    case 8:
        co_write(scene, IO_FUA);
        break;
    case 9:
        if (scene->config.compressed)
            co_write_compressed(scene);
        break;
    default:
        co_write(scene, 0);
        break;
    }
}

static void CO_FN co_worker(void *opaque)
{
    struct scene *scene = opaque;

    for (int i = 0; i < STEPS; i++)
        co_step(scene);
    co_group_done(&scene->workers);
}

/* --- what happens between, alone --- */

static uint8_t *CO_FN co_read_disk(struct scene *scene, unsigned *ret_sectors)
{
    g_autofree uint8_t *data = g_malloc0(SECTORS_MAX * SECTOR);
    unsigned asked = ++scene->clock;
    int ret;

    *ret_sectors = (unsigned)(handle_length(scene->handle) / SECTOR);
    g_assert_cmpuint(*ret_sectors, <=, SECTORS_MAX);
    ret = co_handle_pread(scene->handle, 0, (uint64_t)*ret_sectors * SECTOR, data, 0);
    if (ret)
        g_error("seed %u, position %zu: cannot read: %s", scene->seed, scene->position, g_strerror(-ret));
    (void)asked;
    return TAKE(data);
}

static void CO_FN co_resize(struct scene *scene)
{
    unsigned before = (unsigned)(handle_length(scene->handle) / SECTOR);
    unsigned after = (unsigned)g_rand_int_range(scene->random, 8, (int)MIN(before + 200, SECTORS_MAX));
    unsigned from = MIN(before, after), to = MAX(before, after);
    struct change *change;
    AUTO(error) error = NULL;

    if (from == to)
        return;
    scene->shortest = MIN(scene->shortest, from);
    change = change_begin(scene, from, to - from, 0);
    /* What is cut off may be there yet, or not. */
    change->vague = after < before;
    if (co_handle_truncate(scene->handle, (uint64_t)after * SECTOR, &error))
        g_error("seed %u: cannot resize: %s", scene->seed, error_message(error));
    change_end(scene, change);
}

static void CO_FN co_snapshot_take(struct scene *scene)
{
    struct snapshot_info info = {.name = (char *)(uintptr_t) "s"};
    unsigned sectors;
    g_autofree uint8_t *data = co_read_disk(scene, &sectors);
    AUTO(error) error = NULL;

    if (!co_qcow2_snapshot_create(handle_node(scene->handle), &info, &error))
        g_error("seed %u: cannot take a snapshot: %s", scene->seed, error_message(error));
    g_free(info.id);
    scene->snapshot = g_new0(uint32_t, SECTORS_MAX);
    scene->snapshot_sectors = sectors;
    for (unsigned i = 0; i < sectors; i++)
        memcpy(&scene->snapshot[i], data + i * SECTOR, 4);
}

static void CO_FN co_snapshot_drop(struct scene *scene)
{
    AUTO(error) error = NULL;
    AUTO(snapshot_info) info = co_qcow2_snapshot_delete(handle_node(scene->handle), NULL, "s", &error);

    if (!info)
        g_error("seed %u: cannot delete the snapshot: %s", scene->seed, error_message(error));
    g_free(TAKE(scene->snapshot));
}

static void CO_FN co_snapshot_return(struct scene *scene)
{
    unsigned before = (unsigned)(handle_length(scene->handle) / SECTOR);
    struct change *change = change_begin(scene, 0, scene->snapshot_sectors, 0), *rest = NULL;
    AUTO(error) error = NULL;

    change->values = g_memdup2(scene->snapshot, SECTORS_MAX * sizeof(uint32_t));
    if (before > scene->snapshot_sectors) {
        rest = change_begin(scene, scene->snapshot_sectors, before - scene->snapshot_sectors, 0);
        rest->vague = true;
    }
    if (!co_qcow2_snapshot_apply(handle_node(scene->handle), "s", &error))
        g_error("seed %u: cannot apply the snapshot: %s", scene->seed, error_message(error));
    change_end(scene, change);
    if (rest)
        change_end(scene, rest);
}

/* Adds a persistent bitmap, or removes the one that is there. */
static void CO_FN co_change_bitmaps(struct scene *scene)
{
    struct transaction *transaction = transaction_new();
    g_autofree char *name = g_strdup_printf("%u", scene->has_bitmap ? scene->bitmaps - 1 : scene->bitmaps);
    AUTO(error) error = NULL;
    bool ok;

    if (scene->has_bitmap) {
        struct block_dirty_bitmap what = {.node = (char *)(uintptr_t) "q", .name = name};

        ok = co_dirty_bitmap_do_remove(transaction, scene->graph, &what, &error);
    } else {
        struct block_dirty_bitmap_add what = {.node = (char *)(uintptr_t) "q", .name = name};
        unsigned sectors;
        g_autofree uint8_t *data = co_read_disk(scene, &sectors);

        what.has_granularity = what.has_persistent = what.persistent = true;
        what.granularity = (uint32_t)SECTOR << g_rand_int_range(scene->random, 0, 6);
        scene->bitmap_bases[scene->bitmaps] = g_new0(uint32_t, SECTORS_MAX);
        for (unsigned i = 0; i < sectors; i++)
            memcpy(&scene->bitmap_bases[scene->bitmaps][i], data + i * SECTOR, 4);
        scene->bitmaps++;
        ok = co_dirty_bitmap_do_add(transaction, scene->graph, &what, &error);
    }
    if (!co_transaction_end(transaction, ok))
        g_error("seed %u: cannot change bitmap %s: %s", scene->seed, name, error_message(error));
    scene->has_bitmap = !scene->has_bitmap;
}

/* What a bitmap that can be used shows as clean is as it was when the bitmap was made. What was cut off, and came
 * again, is not looked at. */
static void CO_FN co_check_bitmaps(struct scene *scene)
{
    unsigned sectors;
    g_autofree uint8_t *data = co_read_disk(scene, &sectors);

    for (struct dirty_bitmap *at = NULL; (at = dirty_bitmap_next(handle_node(scene->handle), at));) {
        const uint32_t *base = scene->bitmap_bases[atoi(dirty_bitmap_name(at))];

        for (unsigned i = 0; i < sectors && !dirty_bitmap_inconsistent(at); i++) {
            uint32_t value;

            memcpy(&value, data + i * SECTOR, 4);
            if ((value || i < scene->shortest) && value != base[i] && !dirty_bitmap_get(at, (uint64_t)i * SECTOR))
                g_error("seed %u, position %zu: sector %u holds %#x and held %#x, and bitmap %s shows it as clean",
                        scene->seed, scene->position, i, value, base[i], dirty_bitmap_name(at));
        }
    }
}

/* Closes and opens the image: its bitmap is as it was. */
static void CO_FN co_reopen(struct scene *scene)
{
    struct dirty_bitmap *before = dirty_bitmap_ref(dirty_bitmap_next(handle_node(scene->handle), NULL)), *after;
    AUTO(bitmap) bits = NULL;
    AUTO(bitmap) stored = NULL;

    co_close(scene);
    co_must_open(scene);
    after = dirty_bitmap_next(handle_node(scene->handle), NULL);
    g_assert_true(!before == !after);
    if (!before)
        return;
    bits = dirty_bitmap_copy_bits(before);
    stored = dirty_bitmap_copy_bits(after);
    g_assert_false(dirty_bitmap_inconsistent(after));
    g_assert_true(bitmap_equal(bits, stored));
    dirty_bitmap_unref(before);
}

/* Changes what the image was made with. */
static void CO_FN co_amend(struct scene *scene)
{
    static const unsigned widths[] = {8, 16, 32, 64};
    struct config *config = &scene->config;
    unsigned width = widths[g_rand_int_range(scene->random, 0, G_N_ELEMENTS(widths))];
    g_autofree char *text = NULL;
    AUTO(json) json = NULL;
    AUTO(error) error = NULL;

    switch (g_rand_int_range(scene->random, 0, 3)) {
    case 0:
        if (config->version < 3)
            return;
        text = g_strdup_printf("{'refcount-bits': %u}", width);
        config->refcount_bits = width;
        break;
    case 1:
        /* What only version 3 has must not be there. */
        if (config->lazy || config->no_unref || config->data_file || config->subclusters || scene->has_bitmap)
            return;
        config->version = config->version == 2 ? 3 : 2;
        text = g_strdup_printf("{'version': 'v%u', 'refcount-bits': 16, 'lazy-refcounts': false}", config->version);
        config->refcount_bits = 16;
        break;
    default:
        if (config->version < 3)
            return;
        text = g_strdup_printf("{'lazy-refcounts': %s}", g_rand_boolean(scene->random) ? "true" : "false");
        break;
    }
    json = json_parse(text, strlen(text), &error);
    if (!json || !qcow2_co_amend_image(handle_node(scene->handle), json, false, NULL, &error))
        g_error("seed %u: cannot amend by %s: %s", scene->seed, text, error_message(error));
}

static void CO_FN co_between(struct scene *scene)
{
    if (scene->config.version > 2 && scene->bitmaps < BITMAPS && g_rand_boolean(scene->random))
        co_change_bitmaps(scene);
    switch (g_rand_int_range(scene->random, 0, 8)) {
    case 0:
        /* Version 2 does not say how large a snapshot's disk was. */
        if (scene->config.version > 2 || !scene->snapshot)
            co_resize(scene);
        break;
    case 1:
    case 2:
        if (scene->config.refcount_bits <= 2 || scene->config.data_file)
            break;
        if (!scene->snapshot)
            co_snapshot_take(scene);
        else
            co_snapshot_return(scene);
        break;
    case 3:
        if (scene->snapshot)
            co_snapshot_drop(scene);
        break;
    case 4:
        co_reopen(scene);
        break;
    case 5:
    case 6:
        co_amend(scene);
        break;
    default:
        break;
    }
}

static void CO_FN co_verify(struct scene *scene, bool now)
{
    unsigned sectors, asked = ++scene->clock;
    g_autofree uint8_t *data = co_read_disk(scene, &sectors);

    check_sectors(scene, data, 0, sectors, now, asked);
}

static void CO_FN co_workload(struct scene *scene)
{
    struct change *initial;

    scene->position = SIZE_MAX;
    co_create(scene);
    /* What was there before everything else. */
    initial = change_begin(scene, 0, SECTORS_MAX, 0);
    initial->values = g_new0(uint32_t, SECTORS_MAX);
    for (unsigned i = 0; scene->config.backing && i < scene->config.sectors * 2 / 3; i++)
        initial->values[i] = BACKING_VALUE;
    change_end(scene, initial);
    initial->record_start = 0;
    sim_disk_record(scene->disk);
    co_must_open(scene);
    co_flush(scene);
    for (int phase = 0; phase < PHASES; phase++) {
        co_group_add(&scene->workers, WORKERS);
        for (int i = 0; i < WORKERS; i++)
            co_spawn(scene->loop, co_worker, scene);
        co_group_wait(&scene->workers);
        co_verify(scene, true);
        co_between(scene);
        co_verify(scene, true);
        co_check_bitmaps(scene);
    }
    co_close(scene);
    /* Nothing is lost where nothing fails, and nothing leaks. */
    co_must_open(scene);
    co_check_image(scene);
    co_verify(scene, true);
    co_close(scene);
}

/* --- after a cut --- */

static void CO_FN co_after_cut(struct scene *scene)
{
    co_check_file(scene);
    co_must_open(scene);
    co_check_image(scene);
    co_verify(scene, false);
    co_check_bitmaps(scene);
    co_close(scene);
}

static void co_scene(void *opaque)
{
    struct scene *scene = opaque;

    scene->objects = object_registry_new();
    scene->graph = graph_new(scene->objects, NULL);
    graph_set_drivers(scene->graph, drivers);
    scene->co_run(scene);
    co_graph_free(scene->graph);
    co_object_registry_free(scene->objects);
}

/* On a loop of its own, with the scene's disk. */
static void scene_run(struct scene *scene)
{
    scene->loop = loop_new(&(struct loop_options){.backend = LOOP_SIM, .sim_seed = scene->seed}, NULL);
    g_assert_nonnull(scene->loop);
    sim_loop_set_disk(scene->loop, scene->disk);
    co_run(scene->loop, co_scene, scene);
    loop_free(TAKE(scene->loop));
}

static void try_cut(const struct scene *recorded, const struct sim_replay *replay)
{
    struct scene scene = *recorded;
    AUTO(sim_disk) disk = sim_replay_cut(replay, recorded->seed + sim_replay_position(replay));

    scene.disk = disk;
    scene.position = sim_replay_position(replay);
    scene.co_run = co_after_cut;
    scene_run(&scene);
}

/* --- runs --- */

static struct config config_of(GRand *random)
{
    static const unsigned cluster_bits[] = {9, 9, 10, 12, 12, 14, 16};
    static const unsigned refcount_bits[] = {16, 16, 16, 64, 8, 2, 1};
    struct config config = {.cluster_bits = cluster_bits[g_rand_int_range(random, 0, G_N_ELEMENTS(cluster_bits))]};

    config.version = g_rand_int_range(random, 0, 5) ? 3 : 2;
    config.refcount_bits = config.version == 2 ? 16 : refcount_bits[g_rand_int_range(random, 0, 7)];
    config.subclusters = config.version == 3 && config.cluster_bits >= 14 && g_rand_boolean(random);
    config.backing = g_rand_boolean(random);
    config.lazy = config.version == 3 && !g_rand_int_range(random, 0, 4);
    config.no_unref = config.version == 3 && !g_rand_int_range(random, 0, 4);
    config.small_cache = g_rand_boolean(random);
    config.compressed = g_rand_boolean(random);
    config.data_file = config.version == 3 && !g_rand_int_range(random, 0, 4);
    config.raw = config.data_file && g_rand_boolean(random);
    config.backing &= !config.raw;
    config.compressed &= !config.data_file && qcow2_compression_available(QCOW2_COMPRESSION_ZLIB, NULL);
    config.sectors = (unsigned)g_rand_int_range(random, 100, 700);
    return config;
}

static void scene_begin(struct scene *scene, uint32_t seed)
{
    *scene = (struct scene){
        .seed = seed,
        .random = g_rand_new_with_seed(seed),
        .changes = g_ptr_array_new_with_free_func(change_free),
        .flushes = g_array_new(false, false, sizeof(struct flush)),
        .co_run = co_workload,
    };
    scene->config = config_of(scene->random);
    scene->shortest = scene->config.sectors;
    g_test_message("seed %u: v%u, clusters of %u, refcounts of %u bits%s%s%s%s%s%s%s%s, %u sectors", seed,
                   scene->config.version, 1u << scene->config.cluster_bits, scene->config.refcount_bits,
                   scene->config.subclusters ? ", subclusters" : "", scene->config.backing ? ", backing" : "",
                   scene->config.lazy ? ", lazy" : "", scene->config.no_unref ? ", no-unref" : "",
                   scene->config.small_cache ? ", small caches" : "", scene->config.compressed ? ", compressed" : "",
                   scene->config.data_file ? ", data file" : "", scene->config.raw ? ", raw" : "",
                   scene->config.sectors);
    scene->disk = sim_disk_new();
    scene_run(scene);
}

static void scene_end(struct scene *scene)
{
    g_free(scene->snapshot);
    for (unsigned i = 0; i < scene->bitmaps; i++)
        g_free(scene->bitmap_bases[i]);
    g_ptr_array_free(scene->changes, true);
    g_array_free(scene->flushes, true);
    g_rand_free(scene->random);
    sim_disk_free(scene->disk);
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = g_getenv(name);

    return text ? g_ascii_strtoull(text, NULL, 10) : otherwise;
}

/* A run, and cuts in it: at one position, or every `step`. Returns how many. */
static uint64_t run_seed(uint32_t seed, uint64_t only)
{
    uint64_t cuts = 0;
    struct scene scene;

    scene_begin(&scene, seed);
    AUTO(sim_replay) replay = sim_replay_new(scene.disk);
    do {
        if (only != UINT64_MAX && only != sim_replay_position(replay))
            continue;
        try_cut(&scene, replay);
        cuts++;
    } while (sim_replay_step(replay));
    sim_replay_free(TAKE(replay));
    scene_end(&scene);
    return cuts;
}

static void test_power_cuts(void)
{
    uint64_t wanted = setting("QCOW2_CRASH_CUTS", 2000), only = setting("QCOW2_CRASH_POSITION", UINT64_MAX);
    uint32_t seed = (uint32_t)setting("QCOW2_CRASH_SEED", 1);

    for (uint64_t cuts = 0; cuts < wanted; seed++) {
        cuts += run_seed(seed, only);
        if (only != UINT64_MAX)
            break;
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-crash/power-cuts", test_power_cuts);
    return g_test_run();
}
