/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * S2: a file that fails at each step of what a qcow2 image does, once or from then on: afterwards no metadata is
 * broken, what was durable is there, and what failed has changed no more than it was meant to.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "block/driver.h"
#include "block/node.h"
#include "driver/filter/blkdebug.h"
#include "driver/format/qcow2.h"
#include "driver/format/qcow2/check.h"
#include "driver/format/qcow2/create.h"
#include "driver/format/qcow2/qcow2.h"
#include "driver/image-test-run.h"
#include "driver/protocol/file.h"

static const struct block_driver *const drivers[] = {&blkdebug_driver, &file_driver, &qcow2_driver, NULL};

enum {
    SECTOR = 512,
    SECTORS = 3072,
    GROWN_SECTORS = 8192,
    STEPS = 60,
    RUN_SECTORS_MAX = 40,
};

/* Sets of the bytes that may fill a sector. */
struct bytes {
    uint64_t bits[4];
};

struct disk {
    struct handle *handle;
    GRand *random;
    struct bytes now[GROWN_SECTORS];   /* what reading may find while the image is open */
    struct bytes since[GROWN_SECTORS]; /* and after it was closed: all since the last flush that succeeded */
    uint8_t data[RUN_SECTORS_MAX * SECTOR];
    uint8_t next;
};

static void bytes_add(struct bytes *set, uint8_t byte)
{
    set->bits[byte / 64] |= UINT64_C(1) << byte % 64;
}

static bool bytes_have(const struct bytes *set, uint8_t byte)
{
    return set->bits[byte / 64] >> byte % 64 & 1;
}

/* A change of the range to `byte` that ended with `result`; `sure`: what has succeeded leaves nothing else. */
static void note(struct disk *disk, unsigned first, unsigned count, uint8_t byte, bool sure, int result)
{
    for (unsigned i = first; i < first + count; i++) {
        if (!result && sure)
            disk->now[i] = (struct bytes){0};
        bytes_add(&disk->now[i], byte);
        bytes_add(&disk->since[i], byte);
    }
}

static void CO_FN co_flush(struct disk *disk)
{
    if (!co_handle_flush(disk->handle))
        memcpy(disk->since, disk->now, sizeof(disk->since));
}

/* What can be read is one of what may be there, the same in a whole sector. */
static void CO_FN co_read(struct disk *disk, unsigned first, unsigned count, const struct bytes *allowed, bool must)
{
    int ret = co_handle_pread(disk->handle, (uint64_t)first * SECTOR, (uint64_t)count * SECTOR, disk->data, 0);

    if (ret && !must)
        return;
    g_assert_cmpint(ret, ==, 0);
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *sector = disk->data + i * SECTOR;

        if (!bytes_have(&allowed[first + i], sector[0]))
            g_error("sector %u is filled with %u", first + i, sector[0]);
        g_assert_true(!memcmp(sector, sector + 1, SECTOR - 1));
    }
}

static void CO_FN co_step(struct disk *disk)
{
    unsigned count = (unsigned)g_rand_int_range(disk->random, 1, RUN_SECTORS_MAX + 1);
    unsigned first = (unsigned)g_rand_int_range(disk->random, 0, SECTORS - RUN_SECTORS_MAX);
    uint64_t offset = (uint64_t)first * SECTOR, bytes = (uint64_t)count * SECTOR;
    uint8_t byte = disk->next = (uint8_t)(disk->next % 250 + 1);
    int ret;

    switch (g_rand_int_range(disk->random, 0, 10)) {
    case 0:
        co_flush(disk);
        break;
    case 1:
        ret = co_handle_pwrite_zeroes(disk->handle, offset, bytes, count % 2 ? IO_MAY_UNMAP : 0);
        note(disk, first, count, 0, true, ret);
        break;
    case 2:
        ret = co_handle_pdiscard(disk->handle, offset, bytes);
        note(disk, first, count, 0, false, ret);
        break;
    case 3:
        co_read(disk, first, count, disk->now, false);
        break;
    case 4:
        /* A compressed write is of whole clusters, which are sectors or pairs of them. */
        memset(disk->data, byte, sizeof(disk->data));
        ret = co_handle_pwrite(disk->handle, align_down(offset, 8 * SECTOR), 8 * SECTOR, disk->data, IO_COMPRESSED);
        note(disk, first & ~7u, 8, byte, true, ret);
        break;
    default:
        memset(disk->data, byte, bytes);
        ret = co_handle_pwrite(disk->handle, offset, bytes, disk->data, 0);
        note(disk, first, count, byte, true, ret);
        break;
    }
}

/* Shorter, and longer than it ever was. What is cut off is gone; if that fails it may be there or not. */
static void CO_FN co_resize(struct disk *disk)
{
    static const unsigned sizes[] = {SECTORS - RUN_SECTORS_MAX, GROWN_SECTORS};

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        unsigned old = (unsigned)(handle_length(disk->handle) / SECTOR);
        int ret = co_handle_truncate(disk->handle, (uint64_t)sizes[i] * SECTOR, NULL);

        for (unsigned j = MIN(old, sizes[i]); j < MAX(old, sizes[i]); j++)
            note(disk, j, 1, 0, false, ret);
    }
}

static struct handle *CO_FN co_open(struct image_scene *scene, const char *rules)
{
    g_autofree char *text =
        g_strdup_printf("{'driver': 'qcow2', 'discard': 'unmap', 'l2-cache-size': 2048, 'l2-cache-entry-size': 512, "
                        "'refcount-cache-size': 2048, 'file': {'driver': 'blkdebug', 'image': {'driver': 'file', "
                        "'filename': '@/i'}%s}}",
                        rules);

    return co_image_scene_open(scene, text, PERM_ALL);
}

static void CO_FN co_check(struct disk *disk)
{
    struct qcow2_image *image = qcow2_image_of(handle_node(disk->handle));
    struct qcow2_check_result result;
    bool ok = co_qcow2_check(image->file, 0, NULL, &result, NULL);

    g_assert_true(ok);
    g_assert_cmpuint(result.corruptions, ==, 0);
    g_assert_cmpuint(result.check_errors, ==, 0);
}

static void CO_FN co_read_all(struct disk *disk)
{
    unsigned sectors = (unsigned)(handle_length(disk->handle) / SECTOR);

    for (unsigned i = 0; i < sectors; i += RUN_SECTORS_MAX)
        co_read(disk, i, MIN(RUN_SECTORS_MAX, sectors - i), disk->since, true);
}

/* The rules for the event: the first `skip` times nothing happens. */
static char *rules_of(const char *event, unsigned skip, bool once, int error)
{
    GString *text = g_string_new(", 'set-state': [");

    for (unsigned i = 0; i < skip; i++)
        g_string_append_printf(text, "%s{'event': '%s', 'state': %u, 'new_state': %u}", i ? ", " : "", event, i + 1,
                               i + 2);
    g_string_append_printf(text, "], 'inject-error': [{'event': '%s', 'state': %u, 'errno': %d, 'once': %s}]", event,
                           skip + 1, error, once ? "true" : "false");
    return g_string_free(text, false);
}

static void CO_FN co_try(struct image_scene *scene, const char *event, unsigned skip, bool once, uint32_t seed)
{
    g_autofree struct disk *disk = g_new0(struct disk, 1);
    g_autofree char *rules = rules_of(event, skip, once, seed % 2 ? EIO : ENOSPC);
    g_autofree char *path = image_scene_path(scene, "i");
    g_autofree char *made = g_strdup_printf("{'driver': 'qcow2', 'file': {'driver': 'file', 'filename': '@/i'}, "
                                            "'size': %d, 'cluster-size': %u, 'refcount-bits': 64}",
                                            SECTORS * SECTOR, seed % 3 ? 512 : 4096);
    g_autofree char *failed = NULL;

    g_test_message("%s after %u, %s, seed %u", event, skip, once ? "once" : "from then on", seed);
    g_assert_true(g_file_set_contents(path, "", 0, NULL));
    failed = co_image_scene_create(scene, qcow2_co_create, made);
    g_assert_null(failed);
    for (unsigned i = 0; i < GROWN_SECTORS; i++)
        note(disk, i, 1, 0, true, 0);
    disk->random = g_rand_new_with_seed(seed);
    disk->handle = co_open(scene, rules);
    for (unsigned i = 0; i < STEPS; i++)
        co_step(disk);
    co_resize(disk);
    co_flush(disk);
    co_handle_free(disk->handle);

    /* What could not be closed well is opened all the same, and can be used. */
    for (int turn = 0; turn < 2; turn++) {
        disk->handle = co_open(scene, "");
        co_check(disk);
        co_read_all(disk);
        memcpy(disk->now, disk->since, sizeof(disk->now));
        for (unsigned i = 0; i < STEPS / 4; i++)
            co_step(disk);
        co_flush(disk);
        co_handle_free(disk->handle);
    }
    g_rand_free(disk->random);
}

static const char *const events[] = {
    "l1_update",
    "l1_grow_alloc_table",
    "l1_grow_write_table",
    "l1_grow_activate_table",
    "l2_load",
    "l2_update",
    "l2_update_compressed",
    "l2_alloc_write",
    "read_aio",
    "read_compressed",
    "write_aio",
    "write_compressed",
    "cow_read",
    "cow_write",
    "reftable_grow",
    "refblock_load",
    "refblock_update_part",
    "refblock_alloc",
    "refblock_alloc_hookup",
    "refblock_alloc_write",
    "refblock_alloc_write_blocks",
    "refblock_alloc_write_table",
    "refblock_alloc_switch_table",
    "cluster_alloc",
    "cluster_alloc_bytes",
    "cluster_free",
    "cluster_alloc_space",
    "flush_to_os",
    "flush_to_disk",
    "pwritev",
    "pwritev_zero",
    "pwritev_done",
    "l1_shrink_write_table",
    "l1_shrink_free_l2_clusters",
};

static void CO_FN co_all(struct image_scene *scene, bool once)
{
    static const unsigned skips[] = {0, 1, 4, 15};
    uint32_t seed = 1;

    for (unsigned i = 0; i < G_N_ELEMENTS(events); i++) {
        for (unsigned j = 0; j < G_N_ELEMENTS(skips); j++)
            co_try(scene, events[i], skips[j], once, seed++);
    }
}

static void CO_FN co_once(struct image_scene *scene)
{
    co_all(scene, true);
}

static void CO_FN co_for_ever(struct image_scene *scene)
{
    co_all(scene, false);
}

static void test_once(void)
{
    image_test_run(co_once, drivers);
}

static void test_for_ever(void)
{
    image_test_run(co_for_ever, drivers);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-error/once", test_once);
    g_test_add_func("/qcow2-error/for-ever", test_for_ever);
    return g_test_run();
}
