/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Several loops on one image: workers on each write, zero and discard their own parts of clusters that they share with
 * the others, so allocations, in-place writes and evictions meet all the time. Each knows what its parts must hold.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "block/driver.h"
#include "driver/format/qcow2.h"
#include "driver/format/qcow2/check.h"
#include "driver/format/qcow2/create.h"
#include "driver/format/qcow2/qcow2.h"
#include "driver/image-test-run.h"
#include "driver/protocol/file.h"
#include "loop/loop.h"

static const struct block_driver *const drivers[] = {&file_driver, &qcow2_driver, NULL};

enum {
    LOOPS = 3,
    WORKERS_PER_LOOP = 4,
    WORKERS = LOOPS * WORKERS_PER_LOOP,
    SECTOR = 512,
    STRIPE = 4, /* sectors that belong to one worker, in turn */
    STRIPES = 256,
    SHARED_SECTORS = STRIPE * STRIPES,
    OWN_SECTORS = 256, /* behind those: a part for each worker alone */
    SECTORS = SHARED_SECTORS + WORKERS * OWN_SECTORS,
    STEPS = 300,
};

struct stage {
    struct handle *handle;
    struct co_group workers;
    uint8_t model[SECTORS]; /* of each sector: the byte that fills it; its owner's alone */
};

struct worker {
    struct stage *stage;
    struct loop *loop;
    GRand *random;
    unsigned index;
    uint8_t next;
    uint8_t data[OWN_SECTORS * SECTOR];
};

/* --- what a worker does to a range that is its own --- */

static void CO_FN co_read_check(struct worker *worker, unsigned first, unsigned count)
{
    struct stage *stage = worker->stage;

    g_assert_cmpint(co_handle_pread(stage->handle, (uint64_t)first * SECTOR, (uint64_t)count * SECTOR, worker->data, 0),
                    ==, 0);
    for (unsigned i = 0; i < count * SECTOR; i++)
        g_assert_cmpuint(worker->data[i], ==, stage->model[first + i / SECTOR]);
}

static void CO_FN co_change(struct worker *worker, unsigned first, unsigned count)
{
    struct stage *stage = worker->stage;
    uint64_t offset = (uint64_t)first * SECTOR, bytes = (uint64_t)count * SECTOR;
    int kind = g_rand_int_range(worker->random, 0, 8);
    uint8_t value = 0;

    if (kind < 6) {
        value = worker->next = worker->next == 255 ? 1 : worker->next + 1;
        memset(worker->data, value, bytes);
        g_assert_cmpint(co_handle_pwrite(stage->handle, offset, bytes, worker->data, 0), ==, 0);
    } else {
        g_assert_cmpint(co_handle_pwrite_zeroes(stage->handle, offset, bytes, kind == 6 ? IO_MAY_UNMAP : 0), ==, 0);
    }
    memset(stage->model + first, value, count);
}

static void CO_FN co_step(struct worker *worker)
{
    unsigned stripe = (unsigned)g_rand_int_range(worker->random, 0, STRIPES / WORKERS) * WORKERS + worker->index;
    unsigned own = SHARED_SECTORS + worker->index * OWN_SECTORS;
    unsigned skip, count;

    switch (g_rand_int_range(worker->random, 0, 10)) {
    case 0:
        g_assert_cmpint(co_handle_flush(worker->stage->handle), ==, 0);
        break;
    case 1:
        co_read_check(worker, own, OWN_SECTORS);
        break;
    case 2:
        skip = (unsigned)g_rand_int_range(worker->random, 0, OWN_SECTORS);
        count = (unsigned)g_rand_int_range(worker->random, 1, 1 + (int)(OWN_SECTORS - skip));
        co_change(worker, own + skip, count);
        break;
    case 3:
        /* Of whole clusters; read back as zeroes, since there is no backing image. */
        co_change(worker, own, OWN_SECTORS / 2);
        g_assert_cmpint(co_handle_pdiscard(worker->stage->handle, (uint64_t)own * SECTOR, OWN_SECTORS / 2 * SECTOR), ==,
                        0);
        memset(worker->stage->model + own, 0, OWN_SECTORS / 2);
        break;
    case 4:
        co_read_check(worker, stripe * STRIPE, STRIPE);
        break;
    default:
        skip = (unsigned)g_rand_int_range(worker->random, 0, STRIPE);
        co_change(worker, stripe * STRIPE + skip,
                  (unsigned)g_rand_int_range(worker->random, 1, 1 + STRIPE - (int)skip));
        break;
    }
}

static void co_work(void *opaque)
{
    struct worker *worker = opaque;

    for (int i = 0; i < STEPS; i++)
        co_step(worker);
    co_group_done(&worker->stage->workers);
}

/* --- a case --- */

static void CO_FN co_run_workers(struct stage *stage)
{
    struct loop_thread *threads[LOOPS];
    struct worker *workers[WORKERS];

    for (int i = 0; i < LOOPS; i++) {
        threads[i] = loop_thread_new(&(struct loop_options){.name = "test"}, NULL);
        g_assert_nonnull(threads[i]);
    }
    co_group_add(&stage->workers, WORKERS);
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = g_new0(struct worker, 1);
        *workers[i] = (struct worker){
            .stage = stage,
            .loop = loop_thread_loop(threads[i % LOOPS]),
            .random = g_rand_new_with_seed(i + 1),
            .index = i,
        };
        co_spawn(workers[i]->loop, co_work, workers[i]);
    }
    co_group_wait(&stage->workers);
    for (unsigned i = 0; i < WORKERS; i++) {
        g_rand_free(workers[i]->random);
        g_free(workers[i]);
    }
    for (int i = 0; i < LOOPS; i++)
        co_loop_thread_free(threads[i]);
}

static void CO_FN co_verify(struct stage *stage)
{
    g_autofree uint8_t *data = g_malloc(SECTORS * SECTOR);

    g_assert_cmpint(co_handle_pread(stage->handle, 0, SECTORS * SECTOR, data, 0), ==, 0);
    for (unsigned i = 0; i < SECTORS * SECTOR; i++)
        g_assert_cmpuint(data[i], ==, stage->model[i / SECTOR]);
}

static void CO_FN co_check_image(struct stage *stage)
{
    struct qcow2_image *image = qcow2_image_of(handle_node(stage->handle));
    struct qcow2_check_result result;

    g_assert_true(co_qcow2_check(image->file, 0, NULL, &result, NULL));
    g_assert_cmpuint(result.corruptions, ==, 0);
    g_assert_cmpuint(result.check_errors, ==, 0);
    g_assert_cmpuint(result.leaks, ==, 0);
}

static void CO_FN co_concurrent(struct image_scene *scene, const char *create, const char *options)
{
    g_autofree char *made = g_strdup_printf("{'driver': 'qcow2', 'file': {'driver': 'file', 'filename': '@/i'}, "
                                            "'size': %d%s}",
                                            SECTORS * SECTOR, create);
    g_autofree char *opened = g_strdup_printf("{'driver': 'qcow2', 'node-name': 'q', 'discard': 'unmap', 'file': "
                                              "{'driver': 'file', 'filename': '@/i', 'discard': 'unmap'}%s}",
                                              options);
    g_autofree struct stage *stage = g_new0(struct stage, 1);
    g_autofree char *path = image_scene_path(scene, "i");
    g_autofree char *failed = NULL;

    g_assert_true(g_file_set_contents(path, "", 0, NULL));
    failed = co_image_scene_create(scene, qcow2_co_create, made);
    g_assert_null(failed);
    stage->handle = co_image_scene_open(scene, opened, PERM_ALL);
    co_run_workers(stage);
    co_verify(stage);
    co_handle_free(stage->handle);

    stage->handle = co_image_scene_open(scene, opened, PERM_ALL);
    co_verify(stage);
    co_check_image(stage);
    co_handle_free(stage->handle);
}

static void CO_FN co_default(struct image_scene *scene)
{
    co_concurrent(scene, "", "");
}

/* Tables come and go all the time. */
static void CO_FN co_small(struct image_scene *scene)
{
    co_concurrent(scene, ", 'cluster-size': 1024, 'refcount-bits': 64",
                  ", 'l2-cache-size': 2048, 'l2-cache-entry-size': 512, 'refcount-cache-size': 4096");
}

static void CO_FN co_subclusters(struct image_scene *scene)
{
    co_concurrent(scene, ", 'cluster-size': 16384, 'extended-l2': true", ", 'cache-clean-interval': 1");
}

static void CO_FN co_lazy(struct image_scene *scene)
{
    co_concurrent(scene, ", 'cluster-size': 4096, 'lazy-refcounts': true", ", 'discard-no-unref': true");
}

static void test_default(void)
{
    image_test_run(co_default, drivers);
}

static void test_small(void)
{
    image_test_run(co_small, drivers);
}

static void test_subclusters(void)
{
    image_test_run(co_subclusters, drivers);
}

static void test_lazy(void)
{
    image_test_run(co_lazy, drivers);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-concurrent/default", test_default);
    g_test_add_func("/qcow2-concurrent/small-caches", test_small);
    g_test_add_func("/qcow2-concurrent/subclusters", test_subclusters);
    g_test_add_func("/qcow2-concurrent/lazy", test_lazy);
    return g_test_run();
}
