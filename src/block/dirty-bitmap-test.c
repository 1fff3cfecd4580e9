/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/dirty-bitmap.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/checked.h"
#include "base/error.h"
#include "block/handle.h"
#include "block/memory-disk-test.h"
#include "gen/types.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

enum { KIB = 1024, SECTOR = 512 };

static uint8_t data[64 * KIB];

static struct dirty_bitmap *add(struct node *node, const char *name, uint32_t granularity)
{
    return dirty_bitmap_new(node, &(struct dirty_bitmap_options){.name = name, .granularity = granularity});
}

static struct handle *CO_FN co_open_disk(struct graph *graph, uint64_t length)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'null-co', 'node-name': 'd', 'discard': 'unmap', 'size': %" G_GUINT64_FORMAT "}", length);
    struct node *node = co_test_add_ok(graph, json);

    return co_test_handle(node, PERM_CONSISTENT_READ | PERM_WRITE);
}

static void CO_FN co_write(struct handle *handle, uint64_t offset, uint64_t bytes)
{
    g_assert_cmpint(co_handle_pwrite(handle, offset, bytes, data, 0), ==, 0);
}

/* --- what is recorded --- */

static void CO_FN co_test_record(struct graph *graph)
{
    struct handle *handle = co_open_disk(graph, 1024 * KIB);
    struct node *node = graph_find(graph, "d", NULL);
    struct dirty_bitmap *coarse = add(node, "coarse", 64 * KIB), *fine, *off;
    uint64_t offset, bytes;

    co_write(handle, 64 * KIB - 1, 2);
    g_assert_cmpuint(dirty_bitmap_count(coarse), ==, 128 * KIB);
    fine = add(node, "fine", SECTOR);
    off =
        dirty_bitmap_new(node, &(struct dirty_bitmap_options){.name = "off", .granularity = SECTOR, .disabled = true});
    g_assert_cmpint(co_handle_pwrite_zeroes(handle, 512 * KIB, 700, 0), ==, 0);
    g_assert_cmpint(co_handle_pdiscard(handle, 1020 * KIB, 4 * KIB), ==, 0);
    g_assert_cmpuint(dirty_bitmap_count(fine), ==, 1024 + 4 * KIB);
    g_assert_cmpuint(dirty_bitmap_count(coarse), ==, 4 * 64 * KIB);
    g_assert_cmpuint(dirty_bitmap_count(off), ==, 0);
    g_assert_true(dirty_bitmap_next_area(fine, 0, 1024 * KIB, 0, &offset, &bytes));
    g_assert_cmpuint(offset, ==, 512 * KIB);
    g_assert_cmpuint(bytes, ==, 1024);
    g_assert_true(dirty_bitmap_next_area(fine, 512 * KIB + 100, 1024 * KIB, 200, &offset, &bytes));
    g_assert_cmpuint(offset, ==, 512 * KIB + 100);
    g_assert_cmpuint(bytes, ==, 200);
    g_assert_false(dirty_bitmap_next_area(fine, 513 * KIB, 1020 * KIB, 0, &offset, &bytes));
    g_assert_cmpuint(dirty_bitmap_next_dirty(fine, 513 * KIB, 1024 * KIB), ==, 1020 * KIB);
    g_assert_cmpuint(dirty_bitmap_next_dirty(fine, 513 * KIB, 1020 * KIB), ==, 1020 * KIB);
    g_assert_cmpuint(dirty_bitmap_next_clean(coarse, 10, 1024 * KIB), ==, 128 * KIB);
    g_assert_cmpuint(dirty_bitmap_next_clean(coarse, 10, 100), ==, 100);
    dirty_bitmap_disable(fine);
    co_write(handle, 0, 1);
    dirty_bitmap_enable(fine);
    g_assert_false(dirty_bitmap_get(fine, 0));
    co_write(handle, 0, 1);
    g_assert_true(dirty_bitmap_get(fine, SECTOR - 1));
    g_assert_false(dirty_bitmap_get(fine, SECTOR));
    co_handle_free(handle);
}

static void test_record(void)
{
    run_graph_test(co_test_record);
}

/* A failed write may have been done in part; what is left out has not been done at all. */
static void CO_FN co_test_failures(struct graph *graph)
{
    struct node *node = co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'd', 'size': 65536}");
    struct handle *handle = co_test_handle(node, PERM_CONSISTENT_READ | PERM_WRITE);
    struct dirty_bitmap *bitmap = add(node, "b", SECTOR);

    g_assert_cmpint(co_handle_pdiscard(handle, 0, 4096), ==, 0);
    g_assert_cmpuint(dirty_bitmap_count(bitmap), ==, 0);
    memory_disk_fail[MEMORY_DISK_WRITE] = 1;
    g_assert_cmpint(co_handle_pwrite(handle, 0, SECTOR, data, 0), ==, -EIO);
    g_assert_cmpuint(dirty_bitmap_count(bitmap), ==, SECTOR);
    g_assert_cmpint(co_handle_pwrite(handle, 65536, SECTOR, data, 0), ==, -ENOSPC);
    g_assert_cmpuint(dirty_bitmap_count(bitmap), ==, SECTOR);
    co_handle_free(handle);
}

static void test_failures(void)
{
    run_graph_test(co_test_failures);
}

/* A write that is on its way when the bitmap comes. */
static void co_late_write(void *opaque)
{
    co_write(opaque, 4096, 4096);
}

static void CO_FN co_test_in_flight(struct graph *graph)
{
    struct handle *handle;
    struct dirty_bitmap *bitmap;
    struct memory_disk *disk;

    memory_disk_options.yields = true;
    handle = co_open_disk(graph, 64 * KIB);
    disk = memory_disk_of(graph, "d");
    for (unsigned i = 0; i < 20; i++) {
        struct co_task *task = co_task_start(loop_current(), co_late_write, handle);

        while (!__atomic_load_n(&disk->active, __ATOMIC_RELAXED) && disk->calls[MEMORY_DISK_WRITE] <= i)
            co_yield ();
        bitmap = add(graph_find(graph, "d", NULL), "b", SECTOR);
        if (__atomic_load_n(&disk->active, __ATOMIC_RELAXED)) {
            co_task_join(task);
            g_assert_cmpuint(dirty_bitmap_count(bitmap), ==, 4096);
        } else {
            co_task_join(task);
        }
        dirty_bitmap_remove(bitmap);
    }
    co_handle_free(handle);
}

static void test_in_flight(void)
{
    for (uint64_t seed = 1; seed <= 5; seed++)
        run_graph_test_simulated(co_test_in_flight, seed);
}

/* --- states --- */

static void expect_check(struct dirty_bitmap *bitmap, unsigned allow, const char *message)
{
    AUTO(error) err = NULL;

    g_assert_false(dirty_bitmap_check(bitmap, allow, &err));
    g_assert_cmpstr(error_message(err), ==, message);
}

static void CO_FN co_test_states(struct graph *graph)
{
    struct node *node = co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'd', 'size': 65536}");
    struct dirty_bitmap *bitmap = add(node, "b", 4096), *anonymous = add(node, NULL, 4096), *other;
    AUTO(error) err = NULL;
    AUTO(block_dirty_info_array) infos = NULL;

    g_assert_true(dirty_bitmap_find(node, "b", NULL) == bitmap);
    g_assert_null(dirty_bitmap_find(node, "c", &err));
    g_assert_cmpstr(error_message(err), ==, "Dirty bitmap 'c' not found");
    g_assert_true(dirty_bitmap_check(bitmap, 0, NULL));
    dirty_bitmap_set_busy(bitmap, "a test");
    expect_check(bitmap, 0, "Bitmap 'b' is currently in use by another operation and cannot be used");
    dirty_bitmap_set_busy(bitmap, NULL);
    dirty_bitmap_set_read_only(bitmap, true);
    expect_check(bitmap, 0, "Bitmap 'b' is readonly and cannot be modified");
    g_assert_true(dirty_bitmap_check(bitmap, DIRTY_BITMAP_ALLOW_READ_ONLY, NULL));
    dirty_bitmap_set_read_only(bitmap, false);
    dirty_bitmap_set_persistent(bitmap, true);
    dirty_bitmap_set_inconsistent(bitmap);
    expect_check(bitmap, 0, "Bitmap 'b' is inconsistent and cannot be used");
    g_assert_true(dirty_bitmap_check(bitmap, DIRTY_BITMAP_ALLOW_INCONSISTENT, NULL));
    g_assert_false(dirty_bitmap_enabled(bitmap));
    other = add(node, "c", 4096);
    g_assert_true(dirty_bitmap_next(node, NULL) == bitmap);
    g_assert_true(dirty_bitmap_next(node, bitmap) == other);
    g_assert_null(dirty_bitmap_next(node, other));
    infos = dirty_bitmaps_describe(node);
    g_assert_cmpuint(infos->count, ==, 2);
    g_assert_cmpstr(infos->items[0]->name, ==, "c");
    g_assert_true(infos->items[1]->inconsistent);
    dirty_bitmap_remove(anonymous);
}

static void test_states(void)
{
    run_graph_test(co_test_states);
}

static void CO_FN co_test_freeze(struct graph *graph)
{
    struct handle *handle = co_open_disk(graph, 64 * KIB);
    struct dirty_bitmap *bitmap = add(graph_find(graph, "d", NULL), "b", 4096);

    co_write(handle, 0, 1);
    dirty_bitmap_freeze(bitmap);
    g_assert_true(dirty_bitmap_frozen(bitmap));
    co_write(handle, 4096, 1);
    g_assert_cmpuint(dirty_bitmap_count(bitmap), ==, 4096);
    dirty_bitmap_thaw(bitmap, DIRTY_BITMAP_KEEP);
    g_assert_cmpuint(dirty_bitmap_count(bitmap), ==, 8192);
    dirty_bitmap_freeze(bitmap);
    co_write(handle, 8192, 1);
    dirty_bitmap_thaw(bitmap, DIRTY_BITMAP_DROP);
    g_assert_cmpuint(dirty_bitmap_count(bitmap), ==, 4096);
    g_assert_true(dirty_bitmap_get(bitmap, 8192));
    g_assert_false(dirty_bitmap_frozen(bitmap));
    co_handle_free(handle);
}

static void test_freeze(void)
{
    run_graph_test(co_test_freeze);
}

/* Who holds a reference finds all that was recorded, whatever becomes of the node. */
static void CO_FN co_test_lifetime(struct graph *graph)
{
    struct handle *handle = co_open_disk(graph, 64 * KIB);
    struct dirty_bitmap *bitmap = dirty_bitmap_ref(add(graph_find(graph, "d", NULL), "b", 4096));

    co_write(handle, 4096, 1);
    co_handle_free(handle);
    g_assert_true(co_graph_delete(graph, "d", NULL));
    g_assert_null(dirty_bitmap_node(bitmap));
    g_assert_cmpuint(dirty_bitmap_count(bitmap), ==, 4096);
    g_assert_cmpuint(dirty_bitmap_length(bitmap), ==, 64 * KIB);
    dirty_bitmap_unref(bitmap);
}

static void test_lifetime(void)
{
    run_graph_test(co_test_lifetime);
}

/* --- two bitmaps --- */

static void CO_FN co_test_merge(struct graph *graph)
{
    struct handle *handle = co_open_disk(graph, 100 * KIB);
    struct node *other = co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'o', 'size': 102400}");
    struct dirty_bitmap *from = add(graph_find(graph, "d", NULL), "b", 4096);
    struct dirty_bitmap *fine = add(other, "fine", SECTOR), *coarse = add(other, "coarse", 32 * KIB);
    struct bitmap *bits;

    co_write(handle, 96 * KIB, 4 * KIB);
    co_write(handle, 5000, 1);
    dirty_bitmap_merge(fine, from);
    dirty_bitmap_merge(coarse, from);
    dirty_bitmap_merge(coarse, coarse);
    g_assert_cmpuint(dirty_bitmap_count(fine), ==, 8 * KIB);
    g_assert_cmpuint(dirty_bitmap_next_dirty(fine, 0, 100 * KIB), ==, 4096);
    g_assert_cmpuint(dirty_bitmap_count(coarse), ==, 64 * KIB);
    bits = dirty_bitmap_copy_bits(coarse);
    dirty_bitmap_clear(coarse, 0, 100 * KIB);
    g_assert_cmpuint(dirty_bitmap_count(coarse), ==, 0);
    dirty_bitmap_replace_bits(coarse, bits);
    g_assert_cmpuint(dirty_bitmap_count(coarse), ==, 64 * KIB);
    /* Only what lies wholly inside is cleared, and the end counts as one of a bit. */
    dirty_bitmap_clear(coarse, 1, 40 * KIB);
    g_assert_cmpuint(dirty_bitmap_count(coarse), ==, 64 * KIB);
    dirty_bitmap_clear(coarse, 96 * KIB, 4 * KIB);
    g_assert_cmpuint(dirty_bitmap_count(coarse), ==, 32 * KIB);
    dirty_bitmap_set(coarse, 32 * KIB - 1, 2);
    g_assert_cmpuint(dirty_bitmap_count(coarse), ==, 64 * KIB);
    co_handle_free(handle);
}

static void test_merge(void)
{
    run_graph_test(co_test_merge);
}

/* --- anything, against a model --- */

enum { MODELS = 8, DISK_BYTES_MAX = 2 * 1024 * 1024, MODEL_BITS = DISK_BYTES_MAX / SECTOR };

struct model {
    struct dirty_bitmap *bitmap; /* NULL: not there */
    uint32_t granularity;
    bool enabled;
    uint8_t bits[MODEL_BITS];
};

struct models {
    GRand *random;
    struct node *node;
    struct handle *handle;
    uint64_t length;
    struct model models[MODELS];
};

static uint64_t pick(struct models *models, uint64_t limit)
{
    return (uint64_t)g_rand_int_range(models->random, 0, (gint32)limit);
}

static uint64_t model_size(const struct models *models, const struct model *model)
{
    return (models->length + model->granularity - 1) / model->granularity;
}

static void model_check(struct models *models, struct model *model)
{
    uint64_t count = 0;

    for (uint64_t i = 0; i < model_size(models, model); i++) {
        count += model->bits[i];
        g_assert_cmpuint(dirty_bitmap_get(model->bitmap, i * model->granularity), ==, model->bits[i]);
    }
    g_assert_cmpuint(dirty_bitmap_count(model->bitmap), ==, count * model->granularity);
    g_assert_cmpuint(dirty_bitmap_length(model->bitmap), ==, models->length);
}

static void CO_FN co_models_write(struct models *models)
{
    uint64_t offset = pick(models, models->length), bytes = 1 + pick(models, sizeof(data));

    bytes = MIN(bytes, models->length - offset);
    co_write(models->handle, offset, bytes);
    for (unsigned i = 0; i < MODELS; i++) {
        struct model *model = &models->models[i];

        for (uint64_t bit = offset / model->granularity; bit <= (offset + bytes - 1) / model->granularity; bit++)
            model->bits[bit] |= model->enabled;
    }
}

static void CO_FN co_models_resize(struct models *models)
{
    models->length = SECTOR * (1 + pick(models, DISK_BYTES_MAX / SECTOR));
    g_assert_true(co_node_resize(models->node, models->length, NULL));
    for (unsigned i = 0; i < MODELS; i++) {
        struct model *model = &models->models[i];
        uint64_t size = model_size(models, model);

        memset(model->bits + size, 0, sizeof(model->bits) - size);
    }
}

static void model_add(struct models *models, struct model *model)
{
    memset(model->bits, 0, sizeof(model->bits));
    model->granularity = SECTOR << pick(models, 10);
    model->enabled = pick(models, 4);
    model->bitmap = dirty_bitmap_new(
        models->node, &(struct dirty_bitmap_options){.granularity = model->granularity, .disabled = !model->enabled});
}

static void model_clear(struct models *models, struct model *model)
{
    uint64_t first = pick(models, model_size(models, model)), size = model_size(models, model);
    uint64_t count = 1 + pick(models, size - first);

    dirty_bitmap_clear(model->bitmap, first * model->granularity, count * model->granularity);
    memset(model->bits + first, 0, count);
}

static void CO_FN co_models_step(struct models *models)
{
    struct model *model = &models->models[pick(models, MODELS)];
    uint64_t what = pick(models, 40);

    if (what == 0) {
        co_models_resize(models);
    } else if (what < 24) {
        co_models_write(models);
    } else if (!model->bitmap) {
        model_add(models, model);
    } else if (what < 28) {
        model_check(models, model);
    } else if (what < 32) {
        model_clear(models, model);
    } else if (what < 35) {
        dirty_bitmap_enable(model->bitmap);
        model->enabled = true;
    } else if (what < 38) {
        dirty_bitmap_disable(model->bitmap);
        model->enabled = false;
    } else {
        model_check(models, model);
        dirty_bitmap_remove(TAKE(model->bitmap));
        model->enabled = false;
    }
}

static void CO_FN co_test_model(struct graph *graph)
{
    g_autofree struct models *models = g_new0(struct models, 1);

    models->random = g_rand_new_with_seed(g_test_rand_int());
    models->length = DISK_BYTES_MAX;
    models->handle = co_open_disk(graph, models->length);
    models->node = graph_find(graph, "d", NULL);
    for (unsigned i = 0; i < MODELS; i++)
        models->models[i].granularity = SECTOR;
    for (unsigned i = 0; i < 4000; i++)
        co_models_step(models);
    for (unsigned i = 0; i < MODELS; i++) {
        if (models->models[i].bitmap)
            model_check(models, &models->models[i]);
    }
    co_handle_free(models->handle);
    g_rand_free(models->random);
}

static void test_model(void)
{
    run_graph_test(co_test_model);
}

/* --- several loops --- */

enum { WRITERS = 3, WRITES = 3000, BLOCKS = 1024 };

struct writer {
    struct handle *handle;
    struct co_group *group;
    uint32_t *ended; /* atomic: how many are through */
    unsigned seed;
    uint32_t *written; /* atomic: by block, how often a write of it has been acknowledged */
};

static void co_write_much(void *opaque)
{
    struct writer *writer = opaque;
    GRand *random = g_rand_new_with_seed(writer->seed);

    for (unsigned i = 0; i < WRITES; i++) {
        uint64_t block = (uint64_t)g_rand_int_range(random, 0, BLOCKS);

        co_write(writer->handle, block * SECTOR, SECTOR);
        __atomic_add_fetch(&writer->written[block], 1, __ATOMIC_ACQ_REL);
        if (i % 64 == 0)
            co_yield ();
    }
    g_rand_free(random);
    __atomic_add_fetch(writer->ended, 1, __ATOMIC_RELEASE);
    co_group_done(writer->group);
}

/* Works the bitmap off as a job does; `seen` has how often each block had been written when it was last found dirty. */
static void work_off(struct dirty_bitmap *bitmap, const uint32_t *written, uint32_t *seen)
{
    uint64_t at = 0, bytes;

    while (dirty_bitmap_next_area(bitmap, at, UINT64_MAX, 0, &at, &bytes)) {
        dirty_bitmap_clear(bitmap, at, bytes);
        for (uint64_t block = at / SECTOR; block < (at + bytes) / SECTOR; block++)
            seen[block] = __atomic_load_n(&written[block], __ATOMIC_ACQUIRE);
        at += bytes;
    }
}

/*
 * What has been acknowledged is found, or was found after that. Of a block that was written again between its mark and
 * its count, the count may be one short for each writer; so at the end all is looked at once more.
 */
static void CO_FN co_test_loops(struct graph *graph)
{
    struct handle *handle = co_open_disk(graph, BLOCKS * SECTOR);
    struct dirty_bitmap *worked = add(graph_find(graph, "d", NULL), NULL, SECTOR);
    struct dirty_bitmap *kept = add(graph_find(graph, "d", NULL), NULL, 4 * SECTOR);
    g_autofree uint32_t *written = g_new0(uint32_t, BLOCKS), *seen = g_new0(uint32_t, BLOCKS);
    struct loop_thread *threads[WRITERS];
    struct writer writers[WRITERS];
    struct co_group group = {0};
    uint32_t ended = 0;

    co_group_add(&group, WRITERS);
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] =
            (struct writer){.handle = handle, .group = &group, .ended = &ended, .seed = 7 + i, .written = written};
        threads[i] = loop_thread_new(&(struct loop_options){0}, NULL);
        co_spawn(loop_thread_loop(threads[i]), co_write_much, &writers[i]);
    }
    while (__atomic_load_n(&ended, __ATOMIC_ACQUIRE) < WRITERS) {
        work_off(worked, written, seen);
        co_yield ();
    }
    co_group_wait(&group);
    work_off(worked, written, seen);
    for (unsigned i = 0; i < BLOCKS; i++) {
        g_assert_cmpuint(seen[i] + WRITERS, >=, written[i]);
        g_assert_true(!written[i] || dirty_bitmap_get(kept, (uint64_t)i * SECTOR));
    }
    for (unsigned i = 0; i < WRITERS; i++)
        co_loop_thread_free(threads[i]);
    co_handle_free(handle);
}

static void test_loops(void)
{
    run_graph_test(co_test_loops);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/dirty-bitmap/record", test_record);
    g_test_add_func("/dirty-bitmap/failures", test_failures);
    g_test_add_func("/dirty-bitmap/in-flight", test_in_flight);
    g_test_add_func("/dirty-bitmap/states", test_states);
    g_test_add_func("/dirty-bitmap/freeze", test_freeze);
    g_test_add_func("/dirty-bitmap/lifetime", test_lifetime);
    g_test_add_func("/dirty-bitmap/merge", test_merge);
    g_test_add_func("/dirty-bitmap/model", test_model);
    g_test_add_func("/dirty-bitmap/loops", test_loops);
    return g_test_run();
}
