/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * F19: key slots on the simulated machine: the power fails at every point of a run that adds, overwrites and erases
 * them, in a volume, in one with a detached header and in a qcow2 image, while data is written. At each point, whoever
 * could open it before the change and can after it, can; and somebody can always. What was flushed is there.
 */
#include "driver/format/luks.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/image.h"
#include "block/node.h"
#include "driver/format/qcow2.h"
#include "driver/protocol/file.h"
#include "gen/types.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/sim.h"
#include "object/object.h"
#include "schema/json.h"

enum { DATA_BYTES = 65536, PASSPHRASES = 4, OLD = 7, NEW = 8 };

static const struct block_driver *const drivers[] = {&file_driver, &luks_driver, &qcow2_driver, NULL};

/* --- what is tried --- */

struct kind {
    const char *name;
    const struct block_driver *driver;
    const char *create; /* `blockdev-create` */
    const char *open;   /* with the id of a secret to be filled in */
    const char *amend;  /* with the members of a change to be filled in */
};

#define FILE_NAMED(name) "{'driver': 'file', 'filename': '" name "'}"
#define CREATE_LUKS "'driver': 'luks', 'size': 65536, 'key-secret': 's0', 'iter-time': 0"
#define OPEN_LUKS "'driver': 'luks', 'node-name': 'n', 'key-secret': '%s'"

static const struct kind kinds[] = {
    {"luks", &luks_driver, "{" CREATE_LUKS ", 'file': " FILE_NAMED("image") "}",
     "{" OPEN_LUKS ", 'file': " FILE_NAMED("image") "}", "{%s}"},
    {"detached", &luks_driver, "{" CREATE_LUKS ", 'file': " FILE_NAMED("image") ", 'header': " FILE_NAMED("header") "}",
     "{" OPEN_LUKS ", 'file': " FILE_NAMED("image") ", 'header': " FILE_NAMED("header") "}", "{%s}"},
    {"qcow2", &qcow2_driver,
     "{'driver': 'qcow2', 'size': 65536, 'encrypt': {'format': 'luks', 'key-secret': 's0', 'iter-time': 0}, "
     "'file': " FILE_NAMED("image") "}",
     "{'driver': 'qcow2', 'node-name': 'n', 'encrypt': {'format': 'luks', 'key-secret': '%s'}, "
     "'file': " FILE_NAMED("image") "}",
     "{'encrypt': {%s}}"},
};

struct step {
    const char *change;
    unsigned opens; /* bits of the passphrases that open the volume afterwards */
    bool force;
};

#define ADD(id, with) "'state': 'active', 'new-secret': '" id "', 'secret': '" with "', 'iter-time': '0'"
static const struct step steps[] = {
    {.change = ADD("s1", "s0"), .opens = 0x3},
    {.change = "'state': 'inactive', 'old-secret': 's0'", .opens = 0x2},
    {.change = ADD("s2", "s1") ", 'keyslot': '1'", .opens = 0x4, .force = true}, /* the only one */
    {.change = ADD("s3", "s2") ", 'keyslot': '6'", .opens = 0xc},
    {.change = ADD("s0", "s3") ", 'keyslot': '6'", .opens = 0x5, .force = true},
    {.change = "'state': 'inactive', 'keyslot': '1'", .opens = 0x1},
    {.change = ADD("s1", "s0") ", 'keyslot': '6'", .opens = 0x2, .force = true}, /* the only one, across two sectors */
};

struct scene {
    const struct kind *kind;
    struct sim_disk *disk;
    struct object_registry *objects;
    struct graph *graph;
    struct handle *handle;
    size_t begin[G_N_ELEMENTS(steps)]; /* of the disk's record: before a step, */
    size_t end[G_N_ELEMENTS(steps)];   /* and after it */
    bool amending;
    unsigned may_open, must_open; /* bits of passphrases */
    void (*co_test)(struct scene *scene);
};

/* --- volumes --- */

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
    AUTO(json) json = to_json(scene->kind->create);
    AUTO(error) err = NULL;
    AUTO(blockdev_create_options) options = blockdev_create_options_parse(json, &err);

    sim_disk_put(scene->disk, "image", "", 0);
    sim_disk_put(scene->disk, "header", "", 0);
    if (!options || !scene->kind->driver->image->co_create(scene->graph, options, &err))
        g_error("%s", error_message(err));
}

/* False: the passphrase is another one's. */
static bool CO_FN co_open(struct scene *scene, unsigned passphrase)
{
    struct handle_options handle = {
        .name = "test", .perm = PERM_CONSISTENT_READ | PERM_WRITE, .shared = PERM_ALL, .follows_length = true};
    char id[] = {'s', (char)('0' + passphrase), '\0'};
    g_autoptr(GString) text = g_string_new(scene->kind->open);
    AUTO(error) err = NULL;

    g_string_replace(text, "%s", id, 1);
    AUTO(json) json = to_json(text->str);
    AUTO(blockdev_options) options = blockdev_options_parse(json, &err);
    if (!options || !co_graph_add(scene->graph, options, &err)) {
        g_assert_cmpstr(error_message(err), ==, "Invalid password, cannot unlock any keyslot");
        return false;
    }
    scene->handle = co_handle_new(graph_find(scene->graph, "n", NULL), &handle, &err);
    if (!scene->handle)
        g_error("%s", error_message(err));
    return true;
}

static void CO_FN co_close(struct scene *scene)
{
    co_handle_free(TAKE(scene->handle));
    g_assert_true(co_graph_delete(scene->graph, "n", NULL));
}

/* Bytes from `first` to the end. */
static void CO_FN co_fill(struct scene *scene, unsigned first, int value)
{
    g_autofree uint8_t *data = g_malloc(DATA_BYTES);

    memset(data, value, DATA_BYTES);
    g_assert_cmpint(co_handle_pwrite(scene->handle, first, DATA_BYTES - first, data, 0), ==, 0);
    g_assert_cmpint(co_handle_flush(scene->handle), ==, 0);
}

/* The first half is OLD, the second is that or NEW. */
static void CO_FN co_check_data(struct scene *scene)
{
    g_autofree uint8_t *data = g_malloc(DATA_BYTES);

    g_assert_cmpint(co_handle_pread(scene->handle, 0, DATA_BYTES, data, 0), ==, 0);
    for (unsigned i = 0; i < DATA_BYTES; i++) {
        if (data[i] != OLD && (data[i] != NEW || i < DATA_BYTES / 2))
            g_error("byte %u is %d", i, data[i]);
    }
}

/* --- the run --- */

static void CO_FN co_keep_writing(void *opaque)
{
    struct scene *scene = opaque;

    while (scene->amending)
        co_fill(scene, DATA_BYTES / 2, NEW);
}

static void CO_FN co_amend(struct scene *scene, const struct step *step)
{
    g_autoptr(GString) text = g_string_new(scene->kind->amend);
    AUTO(error) err = NULL;

    g_string_replace(text, "%s", step->change, 1);
    AUTO(json) json = to_json(text->str);
    if (!scene->kind->driver->image->co_amend_image(handle_node(scene->handle), json, step->force, NULL, &err))
        g_error("%s: %s", text->str, error_message(err));
}

static void CO_FN co_recorded(struct scene *scene)
{
    co_make(scene);
    g_assert_true(co_open(scene, 0));
    co_fill(scene, 0, OLD);
    sim_disk_record(scene->disk);
    scene->amending = true;
    struct co_task *writer = co_task_start(loop_current(), co_keep_writing, scene);
    for (unsigned i = 0; i < G_N_ELEMENTS(steps); i++) {
        scene->begin[i] = sim_disk_recorded(scene->disk);
        co_amend(scene, &steps[i]);
        scene->end[i] = sim_disk_recorded(scene->disk);
    }
    scene->amending = false;
    co_task_join(writer);
    co_close(scene);
}

static void CO_FN co_after_cut(struct scene *scene)
{
    unsigned opens = 0;

    for (unsigned i = 0; i < PASSPHRASES; i++) {
        if (!co_open(scene, i))
            continue;
        opens |= 1u << i;
        co_check_data(scene);
        co_close(scene);
    }
    g_assert_cmphex(opens, !=, 0);
    g_assert_cmphex(opens & scene->must_open, ==, scene->must_open);
    g_assert_cmphex(opens & ~scene->may_open, ==, 0);
}

static void CO_FN co_add_secrets(struct scene *scene)
{
    for (unsigned i = 0; i < PASSPHRASES; i++) {
        g_autofree char *text = g_strdup_printf("{'qom-type': 'secret', 'id': 's%u', 'data': 'passphrase %u'}", i, i);
        AUTO(json) json = to_json(text);
        AUTO(object_options) options = object_options_parse(json, NULL);

        g_assert_nonnull(options);
        g_assert_true(co_object_add(scene->objects, options, NULL));
    }
}

static void CO_FN co_scene(void *opaque)
{
    struct scene *scene = opaque;

    scene->objects = object_registry_new();
    co_add_secrets(scene);
    scene->graph = graph_new(scene->objects, NULL);
    graph_set_drivers(scene->graph, drivers);
    scene->co_test(scene);
    co_graph_free(scene->graph);
    co_object_registry_free(scene->objects);
}

static void scene_run(struct scene *scene, struct sim_disk *disk, uint64_t seed, void (*co_test)(struct scene *scene))
{
    struct loop *loop = loop_new(&(struct loop_options){.backend = LOOP_SIM, .sim_seed = seed}, NULL);

    g_assert_nonnull(loop);
    sim_loop_set_disk(loop, disk);
    scene->disk = disk;
    scene->co_test = co_test;
    co_run(loop, co_scene, scene);
    loop_free(loop);
}

/* Who can open the volume at this point of the record. A step may have writes under way from its very beginning on. */
static void expect_at(struct scene *scene, size_t position)
{
    unsigned before = 0x1;

    scene->must_open = scene->may_open = before;
    for (unsigned i = 0; i < G_N_ELEMENTS(steps) && scene->begin[i] <= position; i++) {
        bool done = scene->end[i] <= position;

        scene->must_open = done ? steps[i].opens : before & steps[i].opens;
        scene->may_open = done ? steps[i].opens : before | steps[i].opens;
        before = steps[i].opens;
    }
}

static void test_power_cuts(const void *opaque)
{
    const struct kind *kind = opaque;

    AUTO(sim_disk) disk = sim_disk_new();
    struct scene scene = {.kind = kind};

    scene_run(&scene, disk, 1, co_recorded);
    AUTO(sim_replay) replay = sim_replay_new(disk);
    do {
        size_t position = sim_replay_position(replay);
        AUTO(sim_disk) cut = sim_replay_cut(replay, position);
        struct scene look = scene;

        expect_at(&look, position);
        g_test_message("position %zu of %zu", position, sim_disk_recorded(disk));
        scene_run(&look, cut, position + 2, co_after_cut);
    } while (sim_replay_step(replay));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autofree char *path = g_strdup_printf("/luks-crash/%s", kinds[i].name);

        g_test_add_data_func(path, &kinds[i], test_power_cuts);
    }
    return g_test_run();
}
