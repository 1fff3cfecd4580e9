/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blkdebug over a file: its limits, errors, breakpoints and permissions, and the steps of the core that it hears of. */
#include "driver/filter/blkdebug.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "block/describe.h"
#include "block/node.h"
#include "driver/format/raw.h"
#include "driver/image-test-run.h"
#include "driver/protocol/file.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "schema/json.h"

static const struct block_driver *const drivers[] = {&blkdebug_driver, &file_driver, &raw_driver, NULL};

enum { FILE_BYTES = 256 * 1024 + 512, PATTERN = 0x5a };

static void make_file(struct image_scene *scene)
{
    g_autofree char *path = image_scene_path(scene, "i");
    g_autofree char *data = g_malloc(FILE_BYTES);

    memset(data, PATTERN, FILE_BYTES);
    g_assert_true(g_file_set_contents(path, data, FILE_BYTES, NULL));
}

/* raw over blkdebug with the options over the file. */
static struct handle *CO_FN co_open(struct image_scene *scene, const char *options)
{
    g_autofree char *text = g_strdup_printf(
        "{'driver': 'raw', 'node-name': 'top', 'discard': 'unmap', 'file': {'driver': 'blkdebug', 'node-name': 'debug',"
        " 'discard': 'unmap', 'image': {'driver': 'file', 'filename': '@/i', 'discard': 'unmap'}%s}}",
        options);

    make_file(scene);
    return co_image_scene_open(scene, text, PERM_CONSISTENT_READ | PERM_WRITE);
}

/* What is said against the options. */
static char *CO_FN co_refusal(struct image_scene *scene, const char *options)
{
    g_autofree char *text = g_strdup_printf("{'driver': 'blkdebug', 'node-name': 'debug', 'image': {'driver': 'file',"
                                            " 'filename': '%s/i'}%s}",
                                            scene->folder, options);
    AUTO(error) err = NULL;
    AUTO(json) json = json_parse(text, strlen(text), NULL);
    AUTO(blockdev_options) parsed = blockdev_options_parse(json, &err);
    bool ok;

    g_assert_nonnull(parsed);
    make_file(scene);
    ok = co_graph_add(scene->graph, parsed, &err);
    g_assert_false(ok);
    return g_strdup(error_message(err));
}

/* --- limits --- */

/* Writes and zeroes of all sizes at all places come out right, whatever the limits; blkdebug asserts that they hold. */
static void CO_FN co_try_limits(struct image_scene *scene, const char *options)
{
    static const uint32_t sizes[] = {1, 100, 511, 512, 513, 4096, 5000, 15360, 30720, 70000};
    struct handle *handle = co_open(scene, options);
    g_autofree uint8_t *model = g_malloc(FILE_BYTES);
    g_autofree uint8_t *data = g_malloc(FILE_BYTES);
    g_autofree uint8_t *file = NULL;
    size_t size;

    memset(model, PATTERN, FILE_BYTES);
    for (unsigned i = 0; i < 60; i++) {
        uint32_t bytes = sizes[i % G_N_ELEMENTS(sizes)];
        uint64_t offset = (i * 7919u) % (FILE_BYTES - bytes);

        if (i % 5 == 4)
            offset = FILE_BYTES - bytes;
        memset(data, (int)i, bytes);
        if (i % 3) {
            memset(model + offset, (int)i, bytes);
            g_assert_cmpint(co_handle_pwrite(handle, offset, bytes, data, 0), ==, 0);
        } else {
            memset(model + offset, 0, bytes);
            g_assert_cmpint(co_handle_pwrite_zeroes(handle, offset, bytes, i % 2 ? IO_MAY_UNMAP : 0), ==, 0);
        }
    }
    g_assert_cmpint(co_handle_pread(handle, 0, FILE_BYTES, data, 0), ==, 0);
    g_assert_true(!memcmp(data, model, FILE_BYTES));
    /* Only whole units are discarded. */
    g_assert_cmpint(co_handle_pdiscard(handle, 1000, 100000), ==, 0);
    g_assert_cmpint(co_handle_flush(handle), ==, 0);
    co_handle_free(handle);
    file = image_scene_read(scene, "i", &size);
    g_assert_cmpuint(size, ==, FILE_BYTES);
    g_assert_true(!memcmp(file, model, 1000));
    g_assert_true(!memcmp(file + 101000, model + 101000, FILE_BYTES - 101000));
}

static void CO_FN co_limits(struct image_scene *scene)
{
    co_try_limits(scene, "");
    co_try_limits(scene, ", 'align': 512");
    co_try_limits(scene, ", 'align': 4096");
    co_try_limits(scene, ", 'align': 512, 'max-transfer': 1536");
    co_try_limits(scene, ", 'align': 512, 'opt-write-zero': 15360, 'max-write-zero': 15360");
    co_try_limits(scene, ", 'align': 1024, 'opt-write-zero': 3072, 'max-write-zero': 9216, 'opt-discard': 15360, "
                         "'max-discard': 30720");
}

static void CO_FN co_bad_limits(struct image_scene *scene)
{
    static const struct {
        const char *options;
        const char *message;
    } cases[] = {
        {", 'align': 3", "Cannot meet constraints with align 3:*"},
        {", 'align': 4294967296", "Cannot meet constraints with align 4294967296:*"},
        {", 'align': -1", "Cannot meet constraints with align -1:*"},
        {", 'align': 512, 'max-transfer': 100", "Cannot meet constraints with max-transfer 100:*512"},
        {", 'max-transfer': -512", "Cannot meet constraints with max-transfer -512:*"},
        {", 'align': 512, 'opt-write-zero': 100", "Cannot meet constraints with opt-write-zero 100:*"},
        {", 'opt-write-zero': 1024, 'max-write-zero': 1536", "Cannot meet constraints with max-write-zero 1536:*1024"},
        {", 'align': 512, 'opt-discard': 513", "Cannot meet constraints with opt-discard 513:*"},
        {", 'opt-discard': 1024, 'max-discard': 512", "Cannot meet constraints with max-discard 512:*"},
        {", 'config': '/nowhere/at/all'",
         "Could not read blkdebug config file '/nowhere/at/all': No such file or directory"},
        {", 'inject-error': [{'event': 'none', 'errno': 5000}]", "Parameter 'errno' expects*5000"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *message = co_refusal(scene, cases[i].options);

        if (!g_pattern_match_simple(cases[i].message, message))
            g_error("'%s' instead of '%s'", message, cases[i].message);
    }
}

/* --- errors --- */

static void CO_FN co_kinds(struct image_scene *scene)
{
    static const char *const names[] = {"read", "write", "write-zeroes", "discard", "flush", "block-status"};
    static char block[4096];

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *options =
            g_strdup_printf(", 'inject-error': [{'event': 'none', 'iotype': '%s', 'errno': 28, 'immediately': %s}]",
                            names[i], i % 2 ? "true" : "false");
        struct handle *handle = co_open(scene, options);
        struct block_extent extent;
        int results[G_N_ELEMENTS(names)];

        results[0] = co_handle_pread(handle, 0, sizeof(block), block, 0);
        results[1] = co_handle_pwrite(handle, 0, sizeof(block), block, 0);
        results[2] = co_handle_pwrite_zeroes(handle, 0, sizeof(block), 0);
        results[3] = co_handle_pdiscard(handle, 0, sizeof(block));
        results[4] = co_handle_flush(handle);
        results[5] = co_handle_block_status(handle, 0, sizeof(block), &extent);
        for (unsigned j = 0; j < G_N_ELEMENTS(names); j++)
            g_assert_cmpint(results[j], ==, i == j ? -ENOSPC : 0);
        co_handle_free(handle);
    }
}

/* The steps of a write that is not aligned, each made to fail, and of one that is. */
static void CO_FN co_core_steps(struct image_scene *scene)
{
    static const struct {
        const char *event;
        const char *type;
        uint32_t offset, bytes;
        bool zeroes;
    } cases[] = {
        {"pwritev_rmw_head", "read", 100, 4000, false},
        {"pwritev_rmw_after_head", "write", 100, 4000, false},
        {"pwritev_rmw_tail", "read", 4096, 5000, false},
        {"pwritev_rmw_after_tail", "write", 4096, 5000, false},
        {"pwritev", "write", 0, 4096, false},
        {"pwritev", "write", 10, 10, false},
        {"pwritev_zero", "write-zeroes", 4096, 4096, true},
        {"write_aio", "write", 0, 4096, false},
    };
    static char block[8192];

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *options = g_strdup_printf(", 'align': 4096, 'inject-error': [{'event': '%s', 'iotype': '%s', "
                                                   "'once': true}]",
                                                   cases[i].event, cases[i].type);
        struct handle *handle = co_open(scene, options);

        for (int turn = 0; turn < 2; turn++) {
            int ret = cases[i].zeroes ? co_handle_pwrite_zeroes(handle, cases[i].offset, cases[i].bytes, 0)
                                      : co_handle_pwrite(handle, cases[i].offset, cases[i].bytes, block, 0);

            if (ret != (turn ? 0 : -EIO))
                g_error("%s, turn %d: %d", cases[i].event, turn, ret);
        }
        co_handle_free(handle);
    }
}

/* What follows a write is armed by it. */
static void CO_FN co_after_write(struct image_scene *scene)
{
    struct handle *handle = co_open(scene, ", 'inject-error': [{'event': 'pwritev_done', 'errno': 28, 'iotype': 'read',"
                                           " 'once': true}, {'event': 'flush_to_disk', 'iotype': 'flush'}]");
    char byte = 0;

    g_assert_cmpint(co_handle_pread(handle, 0, 1, &byte, 0), ==, 0);
    g_assert_cmpint(co_handle_pwrite(handle, 0, 1, &byte, 0), ==, 0);
    g_assert_cmpint(co_handle_pread(handle, 0, 1, &byte, 0), ==, -ENOSPC);
    g_assert_cmpint(co_handle_pread(handle, 0, 1, &byte, 0), ==, 0);
    g_assert_cmpint(co_handle_flush(handle), ==, -EIO);
    co_handle_free(handle);
}

/* --- breakpoints --- */

struct writer {
    struct handle *handle;
    struct co_group group;
    unsigned done; /* writes that have ended */
};

static void CO_FN co_write_one(void *opaque)
{
    struct writer *writer = opaque;
    char block[512] = {0};

    g_assert_cmpint(co_handle_pwrite(writer->handle, 0, sizeof(block), block, 0), ==, 0);
    writer->done++;
    co_group_done(&writer->group);
}

static void CO_FN co_start(struct writer *writer)
{
    co_group_add(&writer->group, 1);
    co_spawn(loop_current(), co_write_one, writer);
}

static unsigned held_count;

static void count_held(const char *tag)
{
    g_assert_cmpstr(tag, ==, "A");
    held_count++;
}

static void CO_FN co_breakpoints(struct image_scene *scene)
{
    struct writer writer = {.handle = co_open(scene, "")};
    struct node *top = handle_node(writer.handle), *file = edge_child(node_primary(edge_child(node_primary(top))));

    g_assert_cmpint(blkdebug_break(file, "write_aio", "A", NULL), ==, -ENOTSUP);
    g_assert_cmpint(blkdebug_break(top, "no_such_event", "A", NULL), ==, -ENOENT);
    g_assert_cmpint(blkdebug_resume(top, "A", false), ==, -ENOENT);
    g_assert_cmpint(blkdebug_remove_break(top, "A"), ==, -ENOENT);
    g_assert_cmpint(blkdebug_break(top, "write_aio", "A", count_held), ==, 0);
    co_start(&writer);
    g_assert_cmpint(co_blkdebug_wait_break(top, "A"), ==, 0);
    g_assert_cmpint(blkdebug_is_held(top, "A"), ==, 1);
    g_assert_cmpint(blkdebug_is_held(top, "B"), ==, 0);
    g_assert_cmpuint(held_count, ==, 1);
    /* Only the first one is stopped. */
    co_group_add(&writer.group, 1);
    co_write_one(&writer);
    g_assert_cmpuint(writer.done, ==, 1);
    g_assert_cmpint(blkdebug_resume(top, "A", false), ==, 0);
    co_group_wait(&writer.group);
    g_assert_cmpuint(writer.done, ==, 2);
    /* Taking the breakpoint away lets go. */
    g_assert_cmpint(blkdebug_break(top, "write_aio", "A", NULL), ==, 0);
    co_start(&writer);
    g_assert_cmpint(co_blkdebug_wait_break(top, "A"), ==, 0);
    g_assert_cmpint(blkdebug_remove_break(top, "A"), ==, -ENOENT);
    co_group_wait(&writer.group);
    /* So does a drain, here because the handle goes. */
    g_assert_cmpint(blkdebug_break(top, "write_aio", "A", NULL), ==, 0);
    g_assert_cmpint(blkdebug_break(top, "write_aio", "never", NULL), ==, 0);
    co_start(&writer);
    g_assert_cmpint(co_blkdebug_wait_break(top, "A"), ==, 0);
    g_assert_cmpint(blkdebug_resume(top, NULL, true), ==, 0);
    co_group_wait(&writer.group);
    g_assert_cmpuint(writer.done, ==, 4);
    co_handle_free(writer.handle);
}

/* --- names, permissions --- */

static void CO_FN co_names(struct image_scene *scene)
{
    struct handle *handle = co_open(scene, "");
    g_autofree char *expected = g_strdup_printf("blkdebug::%s/i", scene->folder);
    g_autofree char *name = node_filename(graph_find(scene->graph, "debug", NULL));
    g_autofree char *top = node_filename(graph_find(scene->graph, "top", NULL));

    g_assert_cmpstr(name, ==, expected);
    g_assert_cmpstr(top, ==, expected);
    co_handle_free(handle);
    handle = co_open(scene, ", 'align': 512");
    g_free(name);
    name = node_filename(graph_find(scene->graph, "debug", NULL));
    g_assert_true(g_str_has_prefix(name, "json:{\"driver\": \"blkdebug\", \"align\": 512, \"image\": {"));
    co_handle_free(handle);
}

static void CO_FN co_permissions(struct image_scene *scene)
{
    struct handle_options read = {.name = "reader", .perm = PERM_CONSISTENT_READ, .shared = PERM_ALL};
    struct handle *handle, *other;
    AUTO(error) err = NULL;
    struct node *file;

    make_file(scene);
    co_image_scene_add(scene, "{'driver': 'file', 'node-name': 'f', 'filename': '@/i'}");
    handle = co_image_scene_open(scene,
                                 "{'driver': 'blkdebug', 'image': 'f', 'take-child-perms': ['write', 'resize'], "
                                 "'unshare-child-perms': ['consistent-read']}",
                                 PERM_CONSISTENT_READ);
    file = graph_find(scene->graph, "f", NULL);
    g_assert_cmpuint(node_used_permissions(file), ==, PERM_CONSISTENT_READ | PERM_WRITE | PERM_RESIZE);
    other = co_handle_new(file, &read, &err);
    g_assert_null(other);
    g_assert_nonnull(strstr(error_message(err), "consistent read"));
    co_handle_free(handle);
    other = co_handle_new(file, &read, NULL);
    g_assert_nonnull(other);
    co_handle_free(other);
}

#define CASE(name)                                                                                                     \
    static void test_##name(void)                                                                                      \
    {                                                                                                                  \
        image_test_run(co_##name, drivers);                                                                            \
    }
CASE(limits)
CASE(bad_limits)
CASE(kinds)
CASE(core_steps)
CASE(after_write)
CASE(breakpoints)
CASE(names)
CASE(permissions)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/blkdebug/limits", test_limits);
    g_test_add_func("/blkdebug/bad-limits", test_bad_limits);
    g_test_add_func("/blkdebug/kinds", test_kinds);
    g_test_add_func("/blkdebug/core-steps", test_core_steps);
    g_test_add_func("/blkdebug/after-write", test_after_write);
    g_test_add_func("/blkdebug/breakpoints", test_breakpoints);
    g_test_add_func("/blkdebug/names", test_names);
    g_test_add_func("/blkdebug/permissions", test_permissions);
    return g_test_run();
}
