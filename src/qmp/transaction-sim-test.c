/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Transactions on the simulated machine (M7): two actions of each kind after each other, and each file operation of the
 * two fails once, the first, the second, and so on; or an 'abort' follows as the third. Nodes, their chains, bitmaps,
 * snapshots, jobs and what guests read are then as they were before, or, where the failure did no harm, as they are
 * without one.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "block/graph.h"
#include "block/handle.h"
#include "driver/format/qcow2/create.h"
#include "gen/types.h"
#include "job/job.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/sim.h"
#include "qmp/daemon.h"
#include "qmp/dispatch.h"
#include "schema/json.h"

enum { DISK_BYTES = 256 * 1024 };

/* All that there are; each works alone, and after each other one unless both touch the same thing. */
static const char *const actions[] = {
    "{'type': 'block-dirty-bitmap-add', 'data': {'node': 'a', 'name': 'new'}}",
    "{'type': 'block-dirty-bitmap-add', 'data': {'node': 'b', 'name': 'stored', 'persistent': true}}",
    "{'type': 'block-dirty-bitmap-remove', 'data': {'node': 'a', 'name': 'spare'}}",
    "{'type': 'block-dirty-bitmap-remove', 'data': {'node': 'b', 'name': 'kept'}}",
    "{'type': 'block-dirty-bitmap-clear', 'data': {'node': 'a', 'name': 'used'}}",
    "{'type': 'block-dirty-bitmap-disable', 'data': {'node': 'a', 'name': 'used'}}",
    "{'type': 'block-dirty-bitmap-enable', 'data': {'node': 'a', 'name': 'off'}}",
    "{'type': 'block-dirty-bitmap-merge', 'data': {'node': 'a', 'target': 'off', 'bitmaps': ['used']}}",
    "{'type': 'blockdev-snapshot', 'data': {'node': 'b', 'overlay': 'over'}}",
    "{'type': 'blockdev-snapshot-sync', 'data': {'node-name': 'a', 'snapshot-file': 'sync', "
    "'snapshot-node-name': 'sync'}}",
    "{'type': 'blockdev-snapshot-internal-sync', 'data': {'device': 'a', 'name': 'inner'}}",
    "{'type': 'blockdev-backup', 'data': {'job-id': 'j', 'device': 'a', 'target': 'target', 'sync': 'none', "
    "'bitmap-mode': 'never'}}",
    "{'type': 'blockdev-backup', 'data': {'job-id': 'k', 'device': 'a', 'target': 'target', 'sync': 'none'}}",
    "{'type': 'drive-backup', 'data': {'job-id': 'd', 'device': 'b', 'target': 'drive', 'sync': 'none'}}",
};

struct world {
    struct sim_disk *disk;
    struct loop *loop;
    struct daemon *daemon;
    struct qmp_client client;
    struct handle *guests[2];
    const char *request; /* the transaction */
    uint64_t fail;       /* which of its file operations; 0: none */
    uint64_t operations; /* that it made */
    bool ok;
    char *before, *after; /* all that can be seen */
};

static struct json *CO_FN co_ask(struct world *world, const char *text)
{
    AUTO(error) error = NULL;
    struct json *request = json_parse(text, strlen(text), &error);

    if (!request)
        g_error("%s: %s", text, error_message(error));
    return co_qmp_dispatch(&world->client, request);
}

static void CO_FN co_must(struct world *world, const char *text)
{
    AUTO(json) reply = co_ask(world, text);
    const struct json *error = json_get(reply, "error");

    if (error)
        g_error("%s: %s", text, json_get_string(json_get(error, "desc")));
}

static void CO_FN co_add(struct world *world, const char *name)
{
    g_autofree char *create = g_strdup_printf("{'driver': 'qcow2', 'file': {'driver': 'file', 'filename': '%s'}, "
                                              "'size': %u}",
                                              name, DISK_BYTES);
    g_autofree char *add = g_strdup_printf("{'execute': 'blockdev-add', 'arguments': {'driver': 'qcow2', 'node-name': "
                                           "'%s', 'backing': null, 'file': {'driver': 'file', 'filename': '%s'}}}",
                                           name, name);
    AUTO(json) json = json_parse(create, strlen(create), NULL);
    AUTO(blockdev_create_options) options = blockdev_create_options_parse(json, NULL);

    sim_disk_put(world->disk, name, "", 0);
    g_assert_true(qcow2_co_create(world->daemon->graph, options, NULL));
    co_must(world, add);
}

static struct handle *CO_FN co_guest(struct world *world, const char *name)
{
    struct handle_options options = {
        .name = "guest", .perm = PERM_CONSISTENT_READ | PERM_WRITE, .shared = PERM_ALL, .follows_length = true};
    struct handle *handle = co_handle_new(graph_find(world->daemon->graph, name, NULL), &options, NULL);

    g_assert_nonnull(handle);
    return handle;
}

static void CO_FN co_fill(struct world *world, unsigned guest, uint8_t value)
{
    g_autofree uint8_t *data = g_malloc(DISK_BYTES);

    memset(data, value, DISK_BYTES);
    g_assert_cmpint(co_handle_pwrite(world->guests[guest], 0, DISK_BYTES / 2, data, 0), ==, 0);
}

/* --- what can be seen --- */

static void describe_node(GString *text, const struct json *node)
{
    const struct json *image = json_get(node, "image");
    const char *const members[] = {"dirty-bitmaps", "backing_file"};

    /* Names that are made up differ from run to run. */
    if (json_get_string(json_get(node, "node-name"))[0] != '#')
        g_string_append_printf(text, "node %s", json_get_string(json_get(node, "node-name")));
    for (unsigned i = 0; i < G_N_ELEMENTS(members); i++) {
        if (json_get(node, members[i])) {
            g_string_append_c(text, ' ');
            json_format_append(text, json_get(node, members[i]), false);
        }
    }
    if (json_get(image, "snapshots"))
        g_string_append_printf(text, " %zu snapshots", json_count(json_get(image, "snapshots")));
    g_string_append_c(text, '\n');
}

static char *CO_FN co_describe(struct world *world)
{
    AUTO(json) reply = co_ask(world, "{'execute': 'query-named-block-nodes', 'arguments': {'flat': true}}");
    const struct json *nodes = json_get(reply, "return");
    AUTO(job_info_array) jobs = job_query(world->daemon->jobs);
    GString *text = g_string_new(NULL);
    g_autofree uint8_t *data = g_malloc(DISK_BYTES);

    for (size_t i = json_count(nodes); i--;)
        describe_node(text, json_at(nodes, i));
    for (size_t i = 0; i < jobs->count; i++)
        g_string_append_printf(text, "job %s\n", jobs->items[i]->id);
    for (unsigned i = 0; i < G_N_ELEMENTS(world->guests); i++) {
        g_autofree char *sum = NULL;

        g_assert_cmpint(co_handle_pread(world->guests[i], 0, DISK_BYTES, data, 0), ==, 0);
        sum = g_compute_checksum_for_data(G_CHECKSUM_SHA256, data, DISK_BYTES);
        g_string_append_printf(text, "guest %u reads %s\n", i, sum);
    }
    return g_string_free(text, false);
}

/* --- a run --- */

static void CO_FN co_prepare(struct world *world)
{
    static const char *const names[] = {"a", "b", "over", "target"};
    static const char *const bitmaps[] = {
        "{'execute': 'block-dirty-bitmap-add', 'arguments': {'node': 'a', 'name': 'used'}}",
        "{'execute': 'block-dirty-bitmap-add', 'arguments': {'node': 'a', 'name': 'spare'}}",
        "{'execute': 'block-dirty-bitmap-add', 'arguments': {'node': 'a', 'name': 'off', 'disabled': true}}",
        "{'execute': 'block-dirty-bitmap-add', 'arguments': {'node': 'b', 'name': 'kept', 'persistent': true}}",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
        co_add(world, names[i]);
    for (unsigned i = 0; i < G_N_ELEMENTS(bitmaps); i++)
        co_must(world, bitmaps[i]);
    for (unsigned i = 0; i < G_N_ELEMENTS(world->guests); i++) {
        world->guests[i] = co_guest(world, names[i]);
        co_fill(world, i, (uint8_t)(i + 1));
    }
}

/* The transaction, with its failure; and after it guests write as ever. */
static void co_world(void *opaque)
{
    struct world *world = opaque;
    /* A flush that failed stays failed, and a snapshot inside an image cannot be undone without one. */
    unsigned ops = strstr(world->request, "internal") ? SIM_OPS_FILE & ~SIM_OP_BIT(SIM_OP_SYNC) : SIM_OPS_FILE;
    struct sim_fault fault = {.ops = ops, .nth = world->fail, .errno_value = EIO};
    uint64_t begin;

    world->daemon = daemon_new();
    world->client =
        (struct qmp_client){.daemon = world->daemon, .commands = world->daemon->commands, .negotiated = true};
    daemon_started(world->daemon);
    co_prepare(world);
    world->before = co_describe(world);
    begin = sim_op_count(world->loop, ops);
    sim_set_fault(world->loop, &fault);

    AUTO(json) reply = co_ask(world, world->request);

    world->operations = sim_op_count(world->loop, ops) - begin;
    sim_set_fault(world->loop, &(struct sim_fault){0});
    world->ok = !json_get(reply, "error");
    world->after = co_describe(world);
    for (unsigned i = 0; i < G_N_ELEMENTS(world->guests); i++) {
        co_fill(world, i, 77);
        co_handle_free(world->guests[i]);
    }
    co_daemon_free(world->daemon);
}

static struct world run(const char *request, uint64_t fail)
{
    struct world world = {.disk = sim_disk_new(), .request = request, .fail = fail};

    world.loop = loop_new(&(struct loop_options){.backend = LOOP_SIM, .sim_seed = 1}, NULL);
    g_assert_nonnull(world.loop);
    sim_loop_set_disk(world.loop, world.disk);
    co_run(world.loop, co_world, &world);
    loop_free(world.loop);
    sim_disk_free(world.disk);
    return world;
}

static void run_free(struct world *world)
{
    g_free(world->before);
    g_free(world->after);
}

static void expect(const struct world *world, const char *state)
{
    if (strcmp(world->after, state) != 0)
        g_error("%s\nwith failure %" G_GUINT64_FORMAT ", %s:\nexpected\n%s\nfound\n%s", world->request, world->fail,
                world->ok ? "succeeded" : "failed", state, world->after);
}

/* Each operation fails once. */
static void try_failures(const char *request, uint64_t step)
{
    struct world whole = run(request, 0);

    if (!whole.ok)
        expect(&whole, whole.before);
    for (uint64_t fail = 1; whole.ok && fail <= whole.operations; fail += step) {
        struct world world = run(request, fail);

        expect(&world, world.ok ? whole.after : world.before);
        run_free(&world);
    }
    run_free(&whole);
}

static void test_each_operation(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(actions); i++) {
        g_autofree char *alone =
            g_strdup_printf("{'execute': 'transaction', 'arguments': {'actions': [%s]}}", actions[i]);

        try_failures(alone, 1);
        for (unsigned j = 0; j < G_N_ELEMENTS(actions); j++) {
            g_autofree char *two = g_strdup_printf("{'execute': 'transaction', 'arguments': {'actions': [%s, %s]}}",
                                                   actions[i], actions[j]);

            try_failures(two, 9);
        }
    }
}

static void test_abort_follows(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(actions); i++) {
        for (unsigned j = 0; j < G_N_ELEMENTS(actions); j++) {
            g_autofree char *request = g_strdup_printf("{'execute': 'transaction', 'arguments': {'actions': [%s, %s, "
                                                       "{'type': 'abort', 'data': {}}]}}",
                                                       actions[i], actions[j]);
            struct world world = run(request, 0);

            g_assert_false(world.ok);
            expect(&world, world.before);
            run_free(&world);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/transaction-sim/each-operation", test_each_operation);
    g_test_add_func("/transaction-sim/abort-follows", test_abort_follows);
    return g_test_run();
}
