/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file driver on the simulated machine: every operation fails once, transfers come short, the disk is full, and the
 * power fails at every point. A model of the image, a value for each sector, says what must be there.
 */
#include "driver/protocol/file.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/handle.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/sim.h"
#include "object/object.h"
#include "schema/json.h"

enum { SECTOR = 512, SECTORS = 96, UNKNOWN = -1, STEPS = 60 };

static const struct block_driver *const drivers[] = {&file_driver, NULL};
static const char path[] = "image";

/* What a step did, and between which entries of the disk's record. */
struct step {
    enum step_kind {
        STEP_WRITE,
        STEP_WRITE_DURABLE,
        STEP_ZERO,
        STEP_ZERO_UNMAP,
        STEP_DISCARD,
        STEP_FLUSH,
        STEP_READ,
        STEP_STATUS,
        STEP_COPY,
        STEP_KINDS
    } kind;
    unsigned first;
    unsigned count;
    unsigned source; /* STEP_COPY: where from */
    int byte;
    int result;
    size_t record_before;
    size_t record_after;
};

struct scene {
    struct loop *loop;
    struct sim_disk *disk;
    struct object_registry *objects;
    struct graph *graph;
    struct handle *handle;
    GRand *random;
    const char *options;
    int model[SECTORS];
    struct step steps[STEPS];
    unsigned step_count;
    void (*co_test)(struct scene *scene);
};

/* --- one step --- */

static int CO_FN co_step_run(struct scene *scene, const struct step *step, char *data)
{
    uint64_t offset = (uint64_t)step->first * SECTOR;
    uint64_t bytes = (uint64_t)step->count * SECTOR;
    struct block_extent extent;
    int result;

    switch (step->kind) {
    case STEP_WRITE:
    case STEP_WRITE_DURABLE:
        memset(data, step->byte, bytes);
        return co_handle_pwrite(scene->handle, offset, bytes, data, step->kind == STEP_WRITE_DURABLE ? IO_FUA : 0);
    case STEP_ZERO:
    case STEP_ZERO_UNMAP:
        return co_handle_pwrite_zeroes(scene->handle, offset, bytes, step->kind == STEP_ZERO_UNMAP ? IO_MAY_UNMAP : 0);
    case STEP_DISCARD:
        return co_handle_pdiscard(scene->handle, offset, bytes);
    case STEP_FLUSH:
        return co_handle_flush(scene->handle);
    case STEP_READ:
        return co_handle_pread(scene->handle, offset, bytes, data, 0);
    case STEP_COPY:
        return co_handle_copy_range(scene->handle, (uint64_t)step->source * SECTOR, scene->handle, offset, bytes, 0);
    default:
        result = co_handle_block_status(scene->handle, offset, bytes, &extent);
        if (result == 0 && extent.flags & BLOCK_ZERO) {
            for (unsigned i = 0; i < extent.bytes / SECTOR; i++)
                g_assert_true(scene->model[step->first + i] <= 0);
        }
        return result;
    }
}

/* What the image holds after a step: what it wrote, or after a failure, nobody knows. */
static void step_apply(const struct step *step, int *model, bool certain)
{
    static const int changes[STEP_KINDS] = {[STEP_WRITE] = 1,      [STEP_WRITE_DURABLE] = 1, [STEP_ZERO] = 1,
                                            [STEP_ZERO_UNMAP] = 1, [STEP_DISCARD] = 1,       [STEP_COPY] = 1};

    for (unsigned i = 0; changes[step->kind] && i < step->count; i++) {
        int now = step->kind == STEP_COPY ? model[step->source + i] : step->byte;

        model[step->first + i] = certain && step->kind != STEP_DISCARD ? now : UNKNOWN;
    }
}

static void check_sectors(const struct scene *scene, const char *data, unsigned first, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        int expected = scene->model[first + i];

        for (unsigned at = i * SECTOR; expected != UNKNOWN && at < (i + 1) * SECTOR; at++)
            g_assert_cmpint((unsigned char)data[at], ==, expected);
    }
}

static void CO_FN co_step(struct scene *scene)
{
    g_autofree char *data = g_malloc(SECTORS * SECTOR);
    struct step *step = &scene->steps[scene->step_count++];

    step->kind = (enum step_kind)g_rand_int_range(scene->random, 0, STEP_KINDS);
    step->first = (unsigned)g_rand_int_range(scene->random, 0, SECTORS);
    step->count = (unsigned)g_rand_int_range(scene->random, 1, 1 + (int)MIN(SECTORS - step->first, 24));
    /* The other half, so that the two do not overlap. */
    step->source = (step->first + SECTORS / 2) % SECTORS;
    if (step->kind == STEP_COPY)
        step->count = MIN(step->count, SECTORS / 2 - step->source % (SECTORS / 2));
    step->byte = step->kind <= STEP_WRITE_DURABLE ? g_rand_int_range(scene->random, 1, 256) : 0;
    step->record_before = sim_disk_recorded(scene->disk);
    step->result = co_step_run(scene, step, data);
    step->record_after = sim_disk_recorded(scene->disk);
    if (step->kind == STEP_READ && step->result == 0)
        check_sectors(scene, data, step->first, step->count);
    step_apply(step, scene->model, step->result == 0);
}

/* --- a whole run --- */

static bool CO_FN co_open(struct scene *scene, struct error **err)
{
    struct handle_options handle = {.name = "test", .perm = PERM_ALL, .shared = PERM_ALL & ~PERM_WRITE};
    g_autofree char *text = g_strdup_printf("{'driver': 'file', 'node-name': 'n', 'filename': '%s', 'discard': "
                                            "'unmap'%s}",
                                            path, scene->options);
    AUTO(json) json = json_parse(text, strlen(text), err);
    AUTO(blockdev_options) options = json ? blockdev_options_parse(json, err) : NULL;

    if (!options || !co_graph_add(scene->graph, options, err))
        return false;
    scene->handle = co_handle_new(graph_find(scene->graph, "n", NULL), &handle, err);
    if (!scene->handle)
        g_assert_true(co_graph_delete(scene->graph, "n", NULL));
    return scene->handle;
}

static void CO_FN co_close(struct scene *scene)
{
    co_handle_free(scene->handle);
    scene->handle = NULL;
    g_assert_true(co_graph_delete(scene->graph, "n", NULL));
}

/* Opens, makes steps, closes. Whatever goes wrong is an error of a step, or of opening. */
static void CO_FN co_episode(struct scene *scene, unsigned steps)
{
    AUTO(error) error = NULL;

    if (!co_open(scene, &error)) {
        g_assert_nonnull(error);
        return;
    }
    for (unsigned i = 0; i < steps; i++)
        co_step(scene);
    co_close(scene);
}

static void CO_FN co_scene(void *opaque)
{
    struct scene *scene = opaque;

    scene->objects = object_registry_new();
    scene->graph = graph_new(scene->objects, NULL);
    graph_set_drivers(scene->graph, drivers);
    scene->co_test(scene);
    co_graph_free(scene->graph);
    co_object_registry_free(scene->objects);
}

static void scene_begin(struct scene *scene, uint32_t seed, const char *options)
{
    g_autofree char *zeroes = g_malloc0(SECTORS * SECTOR);

    *scene = (struct scene){.options = options, .random = g_rand_new_with_seed(seed)};
    scene->loop = loop_new(&(struct loop_options){.backend = LOOP_SIM, .sim_seed = seed}, NULL);
    g_assert_nonnull(scene->loop);
    scene->disk = sim_loop_disk(scene->loop);
    sim_disk_put(scene->disk, path, zeroes, SECTORS * SECTOR);
}

static void scene_run(struct scene *scene, void (*co_test)(struct scene *scene))
{
    scene->co_test = co_test;
    co_run(scene->loop, co_scene, scene);
}

static void scene_end(struct scene *scene)
{
    g_rand_free(scene->random);
    loop_free(scene->loop);
}

static const char *const all_options[] = {
    "",
    ", 'cache': {'direct': true}",
    ", 'auto-read-only': true",
    ", 'locking': 'off'",
};

/* --- short transfers --- */

static void CO_FN co_short_transfers(struct scene *scene)
{
    sim_set_short_transfers(scene->loop, true);
    co_episode(scene, STEPS);
    for (unsigned i = 0; i < scene->step_count; i++)
        g_assert_cmpint(scene->steps[i].result, ==, 0);
}

static void test_short_transfers(void)
{
    for (uint32_t seed = 1; seed <= 40; seed++) {
        struct scene scene;

        scene_begin(&scene, seed, all_options[seed % G_N_ELEMENTS(all_options)]);
        scene_run(&scene, co_short_transfers);
        scene_end(&scene);
    }
}

/* --- faults --- */

static void CO_FN co_with_fault(struct scene *scene)
{
    co_episode(scene, STEPS / 2);
    /* The fault has passed: the node can be opened again, and holds what it must. */
    sim_set_fault(scene->loop, &(struct sim_fault){0});
    co_episode(scene, 0);
    g_assert_true(co_open(scene, NULL));
    scene->step_count = 0;
    for (unsigned i = 0; i < STEPS / 2; i++) {
        co_step(scene);
        g_assert_cmpint(scene->steps[i].result, ==, 0);
    }
    co_close(scene);
}

/* How many operations a run without faults takes. */
static uint64_t count_operations(uint32_t seed, const char *options)
{
    struct scene scene;
    uint64_t count;

    scene_begin(&scene, seed, options);
    scene_run(&scene, co_with_fault);
    count = sim_op_count(scene.loop, SIM_OPS_FILE | SIM_OP_BIT(SIM_OP_BUFFER));
    scene_end(&scene);
    return count;
}

static void test_each_operation_fails_once(void)
{
    static const int errors[] = {EIO, ENOSPC, EOPNOTSUPP};

    for (size_t i = 0; i < G_N_ELEMENTS(all_options); i++) {
        uint32_t seed = (uint32_t)i + 1;
        uint64_t operations = count_operations(seed, all_options[i]);

        g_assert_cmpuint(operations, >, STEPS / 2);
        for (uint64_t nth = 1; nth <= operations; nth++) {
            struct sim_fault fault = {
                .ops = SIM_OPS_FILE | SIM_OP_BIT(SIM_OP_BUFFER),
                .nth = nth,
                .errno_value = errors[nth % G_N_ELEMENTS(errors)],
                .torn = nth % 2,
            };
            struct scene scene;

            scene_begin(&scene, seed, all_options[i]);
            sim_set_fault(scene.loop, &fault);
            scene_run(&scene, co_with_fault);
            scene_end(&scene);
        }
    }
}

/* --- a file system without locks --- */

static bool CO_FN co_open_without_locks(struct scene *scene, const char *options, struct error **err)
{
    bool ok;

    scene->options = options;
    sim_set_fault(scene->loop, &(struct sim_fault){
                                   .ops = SIM_OP_BIT(SIM_OP_LOCK), .nth = 1, .errno_value = EINVAL, .lasting = true});
    ok = co_open(scene, err);
    sim_set_fault(scene->loop, &(struct sim_fault){0});
    return ok;
}

static void CO_FN co_no_locks(struct scene *scene)
{
    AUTO(error) error = NULL;

    g_assert_true(co_open_without_locks(scene, "", NULL));
    co_close(scene);
    g_assert_true(co_open_without_locks(scene, ", 'locking': 'auto'", NULL));
    co_close(scene);
    g_assert_true(co_open_without_locks(scene, ", 'locking': 'off'", NULL));
    co_close(scene);
    g_assert_false(co_open_without_locks(scene, ", 'locking': 'on'", &error));
    g_assert_true(g_str_has_prefix(error_message(error), "Could not lock 'image': locking=on"));
}

static void test_no_locks(void)
{
    struct scene scene;

    scene_begin(&scene, 1, "");
    scene_run(&scene, co_no_locks);
    scene_end(&scene);
}

/* --- a full disk --- */

/* A sparse file on a disk that has no room for all of it. */
static void CO_FN co_full_disk(struct scene *scene)
{
    bool refused = false;

    sim_disk_put(scene->disk, path, "", 0);
    g_assert_true(co_open(scene, NULL));
    g_assert_cmpint(co_handle_truncate(scene->handle, SECTORS * SECTOR, NULL), ==, 0);
    sim_disk_set_capacity(scene->disk, SECTORS * SECTOR / 4);
    for (unsigned i = 0; i < STEPS; i++) {
        co_step(scene);
        g_assert_true(scene->steps[i].result == 0 || scene->steps[i].result == -ENOSPC);
        refused |= scene->steps[i].result != 0;
    }
    g_assert_true(refused);
    co_close(scene);
}

static void test_full_disk(void)
{
    for (uint32_t seed = 1; seed <= 10; seed++) {
        struct scene scene;

        scene_begin(&scene, seed, "");
        scene_run(&scene, co_full_disk);
        scene_end(&scene);
    }
}

/* --- power cuts --- */

/* What must be on the medium when the power fails after `position` entries of the record. */
static void model_after_cut(const struct scene *scene, size_t position, int *model)
{
    int volatile_model[SECTORS] = {0};

    memset(model, 0, sizeof(volatile_model));
    for (unsigned i = 0; i < scene->step_count; i++) {
        const struct step *step = &scene->steps[i];
        bool acknowledged = step->record_after <= position;

        if (step->record_before > position)
            return;
        step_apply(step, volatile_model, acknowledged);
        /* Since the last flush, the old or the new may be there. */
        step_apply(step, model, acknowledged && step->kind == STEP_WRITE_DURABLE);
        if (step->kind == STEP_FLUSH && acknowledged)
            memcpy(model, volatile_model, sizeof(volatile_model));
    }
}

static void check_cut(const struct scene *scene, const struct sim_disk *after, size_t position)
{
    int model[SECTORS];
    size_t size;
    g_autofree char *data = sim_disk_get(after, path, &size);

    g_assert_cmpuint(size, ==, SECTORS * SECTOR);
    model_after_cut(scene, position, model);
    for (unsigned i = 0; i < SECTORS * SECTOR; i++) {
        if (model[i / SECTOR] != UNKNOWN)
            g_assert_cmpint((unsigned char)data[i], ==, model[i / SECTOR]);
    }
}

static void CO_FN co_recorded(struct scene *scene)
{
    sim_disk_record(scene->disk);
    co_episode(scene, STEPS);
}

static void test_power_cuts(void)
{
    for (uint32_t seed = 1; seed <= 8; seed++) {
        struct scene scene;

        scene_begin(&scene, seed, all_options[seed % G_N_ELEMENTS(all_options)]);
        scene_run(&scene, co_recorded);
        AUTO(sim_replay) replay = sim_replay_new(scene.disk);
        do {
            AUTO(sim_disk) after = sim_replay_cut(replay, seed);

            check_cut(&scene, after, sim_replay_position(replay));
        } while (sim_replay_step(replay));
        sim_replay_free(TAKE(replay));
        scene_end(&scene);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/file-sim/short-transfers", test_short_transfers);
    g_test_add_func("/file-sim/each-operation-fails-once", test_each_operation_fails_once);
    g_test_add_func("/file-sim/no-locks", test_no_locks);
    g_test_add_func("/file-sim/full-disk", test_full_disk);
    g_test_add_func("/file-sim/power-cuts", test_power_cuts);
    return g_test_run();
}
