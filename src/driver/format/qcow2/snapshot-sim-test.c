/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internal snapshots on the simulated machine: the power fails at every point of a run that writes, takes, applies and
 * deletes snapshots and resizes; each operation fails once; the disk is full at each point. A model of the disk and of
 * each snapshot, a value for each sector, says what must be there afterwards. A check of the file that a cut has left
 * finds leaks and nothing else, in both versions; only where the dirty bit is set (lazy reference counts), after
 * opening.
 *
 * QCOW2_SNAPSHOT_SEED is the first seed (default 1), QCOW2_SNAPSHOT_CUTS how many cuts are made at least (default
 * 2000).
 */
#include "driver/format/qcow2/snapshot.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/image.h"
#include "block/node.h"
#include "driver/format/qcow2.h"
#include "driver/format/qcow2/check.h"
#include "driver/format/qcow2/create.h"
#include "driver/format/qcow2/header.h"
#include "driver/protocol/file.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/sim.h"
#include "object/object.h"
#include "schema/json.h"

enum { SECTOR = 512, SECTORS = 128, UNKNOWN = -1, GONE = -2, STEPS = 24, SNAPSHOTS = 3, CUTS_A_RUN = 130 };

static const struct block_driver *const drivers[] = {&file_driver, &qcow2_driver, NULL};
static const char path[] = "image";

/* What a disk holds: a value for each sector, GONE beyond its end. */
struct content {
    int sectors[SECTORS];
};

enum step_kind {
    STEP_WRITE,
    STEP_ZERO,
    STEP_DISCARD,
    STEP_FLUSH,
    STEP_READ,
    STEP_CREATE,
    STEP_APPLY,
    STEP_DELETE,
    STEP_RESIZE,
    STEP_KINDS
};

struct step {
    enum step_kind kind;
    unsigned first;
    unsigned count;
    unsigned snapshot;
    int byte;
    int result; /* 0: acknowledged */
    size_t record_before;
    size_t record_after;
};

/* The disk and its snapshots; a snapshot that does not exist is GONE everywhere. */
struct model {
    struct content disk;
    struct content snapshots[SNAPSHOTS];
};

struct scene {
    struct loop *loop;
    struct sim_disk *disk;
    struct object_registry *objects;
    struct graph *graph;
    struct handle *handle;
    struct node *node;
    GRand *random;
    const char *create; /* options of the image */
    bool version_2;
    struct model model;
    struct step steps[STEPS];
    unsigned step_count;
    const struct model *expected[2]; /* of a cut: before and after the operation that it hit */
    const struct sim_fault *fault;
    void (*co_test)(struct scene *scene);
};

/* --- the model --- */

static void content_fill(struct content *content, unsigned first, unsigned count, int value)
{
    for (unsigned i = 0; i < count; i++) {
        if (content->sectors[first + i] != GONE)
            content->sectors[first + i] = value;
    }
}

static bool exists(const struct content *content)
{
    return content->sectors[0] != GONE;
}

static bool any_snapshot(const struct model *model)
{
    bool any = false;

    for (unsigned i = 0; i < SNAPSHOTS; i++)
        any |= exists(&model->snapshots[i]);
    return any;
}

static void model_resize(struct content *disk, unsigned sectors)
{
    for (unsigned i = 0; i < SECTORS; i++) {
        if (i >= sectors)
            disk->sectors[i] = GONE;
        else if (disk->sectors[i] == GONE)
            disk->sectors[i] = 0;
    }
}

/* `certain`: it has taken place as a whole. */
static void model_step(struct model *model, const struct step *step, bool certain)
{
    switch (step->kind) {
    case STEP_WRITE:
    case STEP_ZERO:
        content_fill(&model->disk, step->first, step->count, certain ? step->byte : UNKNOWN);
        break;
    case STEP_DISCARD:
        content_fill(&model->disk, step->first, step->count, UNKNOWN);
        break;
    case STEP_CREATE:
        model->snapshots[step->snapshot] = model->disk;
        break;
    case STEP_APPLY:
        model->disk = model->snapshots[step->snapshot];
        break;
    case STEP_DELETE:
        content_fill(&model->snapshots[step->snapshot], 0, SECTORS, GONE);
        break;
    case STEP_RESIZE:
        model_resize(&model->disk, step->count);
        break;
    default:
        break;
    }
}

/* Whether a step makes durable all that was before it. */
static bool step_flushes(const struct step *step)
{
    return step->kind == STEP_FLUSH || (step->kind >= STEP_CREATE && step->kind <= STEP_DELETE);
}

/* --- the image --- */

static struct json *to_json(const char *text)
{
    AUTO(error) err = NULL;
    struct json *json = json_parse(text, strlen(text), &err);

    if (!json)
        g_error("%s: %s", text, error_message(err));
    return json;
}

static void CO_FN co_make(struct scene *scene)
{
    g_autofree char *text = g_strdup_printf("{'driver': 'qcow2', 'file': {'driver': 'file', 'filename': '%s'}, "
                                            "'size': %d, 'cluster-size': 512, %s}",
                                            path, SECTORS / 2 * SECTOR, scene->create);
    AUTO(json) json = to_json(text);
    AUTO(error) err = NULL;
    AUTO(blockdev_create_options) options = blockdev_create_options_parse(json, &err);

    sim_disk_put(scene->disk, path, "", 0);
    if (!options || !qcow2_co_create(scene->graph, options, &err))
        g_error("%s", error_message(err));
    for (unsigned i = 0; i < SECTORS; i++)
        scene->model.disk.sectors[i] = i < SECTORS / 2 ? 0 : GONE;
    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        for (unsigned k = 0; k < SECTORS; k++)
            scene->model.snapshots[i].sectors[k] = GONE;
    }
}

static bool CO_FN co_open(struct scene *scene, struct error **err)
{
    struct handle_options handle = {
        .name = "test", .perm = PERM_ALL, .shared = PERM_ALL & ~PERM_WRITE, .follows_length = true};
    g_autofree char *text = g_strdup_printf("{'driver': 'qcow2', 'node-name': 'n', 'discard': 'unmap', "
                                            "'overlap-check': 'all', 'file': {'driver': 'file', 'filename': '%s', "
                                            "'node-name': 'f'}}",
                                            path);
    AUTO(json) json = to_json(text);
    AUTO(blockdev_options) options = blockdev_options_parse(json, err);

    if (!options || !co_graph_add(scene->graph, options, err))
        return false;
    scene->node = graph_find(scene->graph, "n", NULL);
    scene->handle = co_handle_new(scene->node, &handle, err);
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

/* --- steps --- */

static int CO_FN co_snapshot_step(struct scene *scene, const struct step *step)
{
    g_autofree char *name = g_strdup_printf("s%u", step->snapshot);
    AUTO(error) err = NULL;
    bool ok;

    if (step->kind == STEP_CREATE) {
        AUTO(snapshot_info) info = g_new0(struct snapshot_info, 1);

        info->name = g_strdup(name);
        ok = co_qcow2_snapshot_create(scene->node, info, &err);
    } else if (step->kind == STEP_APPLY) {
        ok = co_qcow2_snapshot_apply(scene->node, name, &err);
    } else {
        AUTO(snapshot_info) info = co_qcow2_snapshot_delete(scene->node, NULL, name, &err);

        ok = info;
    }
    g_assert_true(ok == !err);
    return ok ? 0 : -EIO;
}

static int CO_FN co_step_run(struct scene *scene, const struct step *step, char *data)
{
    uint64_t offset = (uint64_t)step->first * SECTOR;
    uint64_t bytes = (uint64_t)step->count * SECTOR;
    AUTO(error) err = NULL;

    switch (step->kind) {
    case STEP_WRITE:
        memset(data, step->byte, bytes);
        return co_handle_pwrite(scene->handle, offset, bytes, data, 0);
    case STEP_ZERO:
        return co_handle_pwrite_zeroes(scene->handle, offset, bytes, IO_MAY_UNMAP);
    case STEP_DISCARD:
        return co_handle_pdiscard(scene->handle, offset, bytes);
    case STEP_FLUSH:
        return co_handle_flush(scene->handle);
    case STEP_READ:
        return co_handle_pread(scene->handle, offset, bytes, data, 0);
    case STEP_RESIZE:
        return co_handle_truncate(scene->handle, bytes, &err);
    default:
        return co_snapshot_step(scene, step);
    }
}

static void step_choose(struct scene *scene, struct step *step)
{
    unsigned sectors = (unsigned)(handle_length(scene->handle) / SECTOR);
    const struct content *snapshot;

    step->kind = (enum step_kind)g_rand_int_range(scene->random, 0, STEP_KINDS);
    step->first = (unsigned)g_rand_int_range(scene->random, 0, (int)sectors);
    step->count = (unsigned)g_rand_int_range(scene->random, 1, 1 + (int)MIN(sectors - step->first, 30));
    step->snapshot = (unsigned)g_rand_int_range(scene->random, 0, SNAPSHOTS);
    step->byte = step->kind == STEP_WRITE ? g_rand_int_range(scene->random, 1, 256) : 0;
    snapshot = &scene->model.snapshots[step->snapshot];
    /* Version 2 does not say how large a snapshot's disk was. */
    if (step->kind == STEP_RESIZE && scene->version_2 && any_snapshot(&scene->model)) {
        step->kind = STEP_ZERO;
    } else if (step->kind == STEP_RESIZE) {
        step->first = 0;
        step->count = (unsigned)g_rand_int_range(scene->random, SECTORS / 4, SECTORS + 1);
    } else if (step->kind >= STEP_CREATE && step->kind <= STEP_DELETE) {
        step->kind = !exists(snapshot) ? STEP_CREATE : step->kind == STEP_CREATE ? STEP_APPLY : step->kind;
    }
}

static void check_content(const struct content *expected, const char *data, unsigned first, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        int value = expected->sectors[first + i];

        for (unsigned at = i * SECTOR; value >= 0 && at < (i + 1) * SECTOR; at++)
            g_assert_cmpint((unsigned char)data[at], ==, value);
    }
}

static void CO_FN co_step(struct scene *scene)
{
    g_autofree char *data = g_malloc(SECTORS * SECTOR);
    struct step *step = &scene->steps[scene->step_count++];

    step_choose(scene, step);
    step->record_before = sim_disk_recorded(scene->disk);
    step->result = co_step_run(scene, step, data);
    step->record_after = sim_disk_recorded(scene->disk);
    g_test_message("step %u: kind %d, sectors %u + %u, snapshot %u, byte %d, record %zu to %zu: %d",
                   scene->step_count - 1, (int)step->kind, step->first, step->count, step->snapshot, step->byte,
                   step->record_before, step->record_after, step->result);
    if (step->kind == STEP_READ && step->result == 0)
        check_content(&scene->model.disk, data, step->first, step->count);
    if (step->result == 0 || step->kind < STEP_FLUSH)
        model_step(&scene->model, step, step->result == 0);
}

/* --- looking at it --- */

static bool content_matches(const struct content *expected, const char *data, uint64_t length)
{
    unsigned sectors = (unsigned)(length / SECTOR);

    for (unsigned i = 0; i < SECTORS; i++) {
        int value = expected->sectors[i];

        if ((value == GONE) != (i >= sectors)) {
            g_test_message("length is %u sectors", sectors);
            return false;
        }
        for (unsigned at = i * SECTOR; value >= 0 && at < (i + 1) * SECTOR; at++) {
            if ((unsigned char)data[at] == value)
                continue;
            g_test_message("sector %u has %d instead of %d", i, (unsigned char)data[at], value);
            return false;
        }
    }
    return true;
}

/* The disk as it is now is what one of the models says. */
static void CO_FN co_check_disk(struct scene *scene, const struct content *a, const struct content *b)
{
    uint64_t length = handle_length(scene->handle);
    g_autofree char *data = g_malloc0(SECTORS * SECTOR);

    g_assert_cmpuint(length, <=, SECTORS * SECTOR);
    g_assert_cmpint(co_handle_pread(scene->handle, 0, length, data, 0), ==, 0);
    g_assert_true(content_matches(a, data, length) || content_matches(b, data, length));
}

static bool CO_FN co_has_snapshot(struct scene *scene, unsigned number)
{
    g_autofree char *name = g_strdup_printf("s%u", number);
    AUTO(snapshot_info_array) list = co_qcow2_snapshot_list(scene->node, NULL);

    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->items[i]->name, name) == 0)
            return true;
    }
    return false;
}

static void tell(struct image_report *report, const char *text)
{
    g_test_message("%s", text);
}

static void CO_FN co_check_file(struct scene *scene, bool may_leak)
{
    struct image_report report = {.line = tell};
    AUTO(error) err = NULL;
    AUTO(image_check) check = g_new0(struct image_check, 1);

    if (!co_qcow2_check_node(scene->node, 0, &report, check, &err))
        g_error("%s", error_message(err));
    g_assert_cmpint(check->corruptions, ==, 0);
    g_assert_cmpint(check->check_errors, ==, 0);
    g_assert_true(may_leak || check->leaks == 0);
}

/* The disk, and each snapshot by applying it, are as the one or the other model says. */
static void CO_FN co_check_all(struct scene *scene, const struct model *a, const struct model *b, bool may_leak)
{
    co_check_file(scene, may_leak);
    co_check_disk(scene, &a->disk, &b->disk);
    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        struct step apply = {.kind = STEP_APPLY, .snapshot = i};
        bool there = co_has_snapshot(scene, i);

        g_assert_true(there == exists(&a->snapshots[i]) || there == exists(&b->snapshots[i]));
        if (!there)
            continue;
        g_assert_cmpint(co_snapshot_step(scene, &apply), ==, 0);
        co_check_disk(scene, exists(&a->snapshots[i]) ? &a->snapshots[i] : &b->snapshots[i],
                      exists(&b->snapshots[i]) ? &b->snapshots[i] : &a->snapshots[i]);
        co_check_file(scene, may_leak);
    }
}

/* --- running --- */

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

/* On the disk, which is borrowed. */
static void scene_begin(struct scene *scene, struct sim_disk *disk, uint32_t seed, const char *create)
{
    *scene = (struct scene){.disk = disk, .create = create, .random = g_rand_new_with_seed(seed)};
    scene->version_2 = strstr(create, "v2");
    scene->loop = loop_new(&(struct loop_options){.backend = LOOP_SIM, .sim_seed = seed}, NULL);
    g_assert_nonnull(scene->loop);
    sim_loop_set_disk(scene->loop, disk);
}

static void scene_run(struct scene *scene, void (*co_test)(struct scene *scene))
{
    scene->co_test = co_test;
    co_run(scene->loop, co_scene, scene);
}

static void scene_end(struct scene *scene)
{
    g_rand_free(TAKE(scene->random));
    loop_free(TAKE(scene->loop));
}

static const char *const creates[] = {
    "'version': 'v3'", "'version': 'v3', 'lazy-refcounts': true",
    "'version': 'v2'", "'version': 'v3', 'refcount-bits': 64",
    "'version': 'v2'",
};

/* --- power cuts --- */

static void CO_FN co_recorded(struct scene *scene)
{
    AUTO(error) err = NULL;

    co_make(scene);
    sim_disk_record(scene->disk);
    if (!co_open(scene, &err))
        g_error("%s", error_message(err));
    for (unsigned i = 0; i < STEPS; i++) {
        co_step(scene);
        g_assert_cmpint(scene->steps[i].result, ==, 0);
    }
    co_check_file(scene, false);
    co_close(scene);
}

/* What must be there when the power fails at `position`: all that is certain, before and after what was under way. */
static void models_at_cut(const struct scene *scene, const struct model *first, size_t position, struct model *before,
                          struct model *after)
{
    /* `before` has UNKNOWN where something has changed since the last flush. */
    *before = *after = *first;
    for (unsigned i = 0; i < scene->step_count; i++) {
        const struct step *step = &scene->steps[i];
        bool done = step->record_after <= position;

        if (step->record_before > position)
            return;
        model_step(after, step, done);
        if (done && step_flushes(step)) {
            *before = *after;
        } else if (step->kind == STEP_RESIZE && done) {
            /* Durable by itself, as everything before it. */
            *before = *after;
        } else if (step->kind < STEP_FLUSH) {
            model_step(before, step, false);
            model_step(after, step, false);
        }
    }
}

/* Before anybody opens it. */
static void CO_FN co_check_closed(struct scene *scene)
{
    static const char definition[] = "{'driver': 'file', 'node-name': 'f', 'filename': 'image', 'read-only': true}";
    struct handle_options options = {.name = "check", .perm = PERM_CONSISTENT_READ, .shared = PERM_ALL};
    struct image_report report = {.line = tell};
    AUTO(error) err = NULL;
    AUTO(image_check) check = g_new0(struct image_check, 1);
    AUTO(json) json = to_json(definition);
    AUTO(blockdev_options) file = blockdev_options_parse(json, &err);
    struct handle *handle = NULL;
    AUTO(qcow2_header) header = NULL;

    if (file && co_graph_add(scene->graph, file, &err))
        handle = co_handle_new(graph_find(scene->graph, "f", NULL), &options, &err);
    if (handle)
        header = co_qcow2_header_load(handle_edge(handle), &err);
    if (!header || !co_qcow2_check_file(handle, 0, &report, check, &err))
        g_error("%s", error_message(err));
    if (!(header->incompatible_features & QCOW2_DIRTY)) {
        g_assert_cmpint(check->corruptions, ==, 0);
        g_assert_cmpint(check->check_errors, ==, 0);
    }
    co_handle_free(handle);
    g_assert_true(co_graph_delete(scene->graph, "f", NULL));
}

static void CO_FN co_after_cut(struct scene *scene)
{
    AUTO(error) err = NULL;

    co_check_closed(scene);
    if (!co_open(scene, &err))
        g_error("%s", error_message(err));
    co_check_all(scene, scene->expected[0], scene->expected[1], true);
    co_close(scene);
}

static void check_cut(const struct scene *scene, const struct model *first, const struct sim_disk *disk,
                      size_t position)
{
    struct model before, after;
    struct scene look;
    AUTO(sim_disk) copy = sim_disk_clone(disk);

    models_at_cut(scene, first, position, &before, &after);
    scene_begin(&look, copy, 1, scene->create);
    look.expected[0] = &before;
    look.expected[1] = &after;
    scene_run(&look, co_after_cut);
    scene_end(&look);
}

/* Some of the points of a run; which ones differs by the seed. Returns how many. */
static uint64_t try_cuts(struct scene *scene, const struct model *first, uint32_t seed)
{
    size_t total = sim_disk_recorded(scene->disk);
    AUTO(sim_replay) replay = sim_replay_new(scene->disk);
    g_autoptr(GRand) random = g_rand_new_with_seed(seed);
    uint64_t cuts = 0;

    do {
        size_t position = sim_replay_position(replay);

        if (g_rand_int_range(random, 0, (int)total) < CUTS_A_RUN) {
            AUTO(sim_disk) cut = sim_replay_cut(replay, (uint64_t)seed * 1000003 + position);

            g_test_message("seed %u, position %zu of %zu", seed, position, total);
            check_cut(scene, first, cut, position);
            cuts++;
        }
    } while (sim_replay_step(replay));
    return cuts;
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = g_getenv(name);

    return text ? g_ascii_strtoull(text, NULL, 10) : otherwise;
}

static void test_power_cuts(void)
{
    uint64_t wanted = setting("QCOW2_SNAPSHOT_CUTS", 2000);
    uint32_t seed = (uint32_t)setting("QCOW2_SNAPSHOT_SEED", 1);

    for (uint64_t cuts = 0; cuts < wanted; seed++) {
        const char *create = creates[seed % G_N_ELEMENTS(creates)];
        AUTO(sim_disk) disk = sim_disk_new();
        struct scene scene;
        struct model first;

        scene_begin(&scene, disk, seed, create);
        scene_run(&scene, co_make);
        first = scene.model;
        scene_end(&scene);
        scene_begin(&scene, disk, seed, create);
        scene_run(&scene, co_recorded);
        scene_end(&scene);
        cuts += try_cuts(&scene, &first, seed);
    }
}

/* --- faults --- */

/*
 * One operation of the snapshot in `co_faulty` fails: what was before is there afterwards, or what was to be, and
 * whoever opens the image again can go on.
 */
static void CO_FN co_faulty(struct scene *scene)
{
    static const enum step_kind kinds[] = {STEP_CREATE, STEP_APPLY, STEP_DELETE};
    struct step write = {.kind = STEP_WRITE, .count = 20, .byte = 7};
    g_autofree char *data = g_malloc(SECTORS * SECTOR);
    struct model before;
    AUTO(error) err = NULL;

    co_make(scene);
    g_assert_true(co_open(scene, NULL));
    g_assert_cmpint(co_step_run(scene, &write, data), ==, 0);
    g_assert_cmpint(co_handle_flush(scene->handle), ==, 0);
    model_step(&scene->model, &write, true);
    sim_set_fault(scene->loop, scene->fault);
    before = scene->model;
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        struct step step = {.kind = kinds[i]};

        step.result = co_step_run(scene, &step, data);
        before = scene->model;
        model_step(&scene->model, &step, true);
        if (step.result != 0)
            break;
        before = scene->model;
        write.byte++;
        if (co_step_run(scene, &write, data) != 0 || co_handle_flush(scene->handle) != 0) {
            model_step(&scene->model, &write, false);
            before = scene->model;
            break;
        }
        model_step(&scene->model, &write, true);
        before = scene->model;
    }
    sim_set_fault(scene->loop, &(struct sim_fault){0});
    co_close(scene);
    if (!co_open(scene, &err))
        g_error("%s", error_message(err));
    co_check_all(scene, &before, &scene->model, true);
    co_close(scene);
}

/* Q26: with the disk full at each step, too. */
static void test_faults(void)
{
    static const int errors[] = {EIO, ENOSPC};

    for (uint64_t nth = 1;; nth++) {
        struct sim_fault fault = {.ops = SIM_OP_BIT(SIM_OP_WRITE) | SIM_OP_BIT(SIM_OP_READ) | SIM_OP_BIT(SIM_OP_SYNC),
                                  .nth = nth,
                                  .errno_value = errors[nth % G_N_ELEMENTS(errors)],
                                  .lasting = nth % 3 == 0,
                                  .torn = nth % 2};
        AUTO(sim_disk) disk = sim_disk_new();
        struct scene scene;
        uint64_t count;

        scene_begin(&scene, disk, 1, creates[nth % G_N_ELEMENTS(creates)]);
        scene.fault = &fault;
        g_test_message("operation %" G_GUINT64_FORMAT, nth);
        scene_run(&scene, co_faulty);
        count = sim_op_count(scene.loop, fault.ops);
        scene_end(&scene);
        if (nth > count)
            break;
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-snapshot/power-cuts", test_power_cuts);
    g_test_add_func("/qcow2-snapshot/faults", test_faults);
    return g_test_run();
}
