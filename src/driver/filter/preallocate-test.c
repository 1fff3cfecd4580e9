/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* preallocate over a file: how long the file is, and how long the node says that it is. */
#include "driver/filter/preallocate.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "block/driver.h"
#include "block/node.h"
#include "block/reopen.h"
#include "driver/image-test-run.h"
#include "driver/protocol/file.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "schema/json.h"

enum { KIB = 1024 };

static const struct block_driver *const drivers[] = {&file_driver, &preallocate_driver, NULL};

static uint64_t file_bytes(const struct image_scene *scene)
{
    g_autofree char *path = image_scene_path(scene, "i");
    GStatBuf status;

    g_assert_cmpint(g_stat(path, &status), ==, 0);
    return (uint64_t)status.st_size;
}

static void CO_FN co_add(struct image_scene *scene, const char *options)
{
    g_autofree char *path = image_scene_path(scene, "i");
    g_autofree char *text = g_strdup_printf("{'driver': 'preallocate', 'node-name': 'p', 'prealloc-align': 65536, "
                                            "'prealloc-size': 100000, 'discard': 'unmap', 'file': {'driver': 'file', "
                                            "'filename': '@/i', 'node-name': 'f'}%s}",
                                            options);

    g_assert_true(g_file_set_contents(path, "", 0, NULL));
    co_image_scene_add(scene, text);
}

static struct handle *CO_FN co_use(struct image_scene *scene, uint32_t perm)
{
    struct handle_options options = {.name = "test", .perm = perm, .shared = PERM_ALL};
    struct handle *handle = co_handle_new(graph_find(scene->graph, "p", NULL), &options, NULL);

    g_assert_nonnull(handle);
    return handle;
}

static void CO_FN co_write(struct handle *handle, uint64_t offset, size_t bytes, char pattern)
{
    g_autofree char *data = g_malloc(bytes);

    memset(data, pattern, bytes);
    g_assert_cmpint(co_handle_pwrite(handle, offset, bytes, data, 0), ==, 0);
}

/* The file grows in steps, the node byte by byte; in the end both are the same. */
static void CO_FN co_growing(struct image_scene *scene)
{
    struct handle *handle;
    char data[64];

    co_add(scene, "");
    handle = co_use(scene, PERM_ALL);
    co_write(handle, 0, 10 * KIB, 'a');
    g_assert_cmpuint(handle_length(handle), ==, 10 * KIB);
    g_assert_cmpuint(file_bytes(scene), ==, 128 * KIB);
    co_write(handle, 10 * KIB, 20 * KIB, 'b');
    g_assert_cmpuint(handle_length(handle), ==, 30 * KIB);
    g_assert_cmpuint(file_bytes(scene), ==, 128 * KIB);
    /* A gap, in space that is there. */
    co_write(handle, 100 * KIB, 28 * KIB, 'c');
    g_assert_cmpuint(file_bytes(scene), ==, 128 * KIB);
    co_write(handle, 200 * KIB, 1, 'd');
    g_assert_cmpuint(handle_length(handle), ==, 200 * KIB + 512);
    g_assert_cmpuint(file_bytes(scene), ==, 320 * KIB);
    g_assert_cmpint(co_handle_pread(handle, 50 * KIB, sizeof(data), data, 0), ==, 0);
    g_assert_cmpint(data[0], ==, 0);
    co_handle_free(handle);
    g_assert_cmpuint(file_bytes(scene), ==, 200 * KIB + 1);
    handle = co_use(scene, PERM_CONSISTENT_READ);
    g_assert_cmpint(co_handle_pread(handle, 200 * KIB, 2, data, 0), ==, 0);
    g_assert_cmpint(data[0], ==, 'd');
    co_handle_free(handle);
}

static void CO_FN co_zeroes(struct image_scene *scene)
{
    struct handle *handle;
    char data[4] = "xxx";

    co_add(scene, "");
    handle = co_use(scene, PERM_ALL);
    co_write(handle, 0, 10 * KIB, 'a');
    g_assert_cmpint(co_handle_pwrite_zeroes(handle, 8 * KIB, 8 * KIB, 0), ==, 0);
    g_assert_cmpint(co_handle_pwrite_zeroes(handle, 16 * KIB, 4 * KIB, IO_NO_FALLBACK), ==, 0);
    g_assert_cmpuint(handle_length(handle), ==, 20 * KIB);
    g_assert_cmpint(co_handle_pread(handle, 8 * KIB - 2, sizeof(data), data, 0), ==, 0);
    g_assert_true(!memcmp(data, "aa\0\0", 4));
    g_assert_cmpint(co_handle_pwrite_zeroes(handle, 300 * KIB, KIB, IO_FUA), ==, 0);
    g_assert_cmpint(co_handle_pdiscard(handle, 0, 4 * KIB), ==, 0);
    g_assert_cmpuint(file_bytes(scene), >=, 301 * KIB);
    co_handle_free(handle);
    g_assert_cmpuint(file_bytes(scene), ==, 301 * KIB);
}

static void CO_FN co_truncating(struct image_scene *scene)
{
    struct truncate_request full = {.length = 400 * KIB, .exact = true, .preallocation = PREALLOC_MODE_FULL};
    struct handle *handle;

    co_add(scene, "");
    handle = co_use(scene, PERM_ALL);
    co_write(handle, 0, 10 * KIB, 'a');
    /* Into what is there already, and beyond. */
    g_assert_cmpint(co_handle_truncate(handle, 64 * KIB, NULL), ==, 0);
    g_assert_cmpuint(handle_length(handle), ==, 64 * KIB);
    g_assert_cmpuint(file_bytes(scene), ==, 128 * KIB);
    g_assert_cmpint(co_handle_truncate(handle, 200 * KIB, NULL), ==, 0);
    g_assert_cmpuint(file_bytes(scene), ==, 200 * KIB);
    g_assert_cmpint(co_handle_truncate(handle, 5 * KIB, NULL), ==, 0);
    g_assert_cmpuint(handle_length(handle), ==, 5 * KIB);
    co_write(handle, 5 * KIB, KIB, 'b');
    g_assert_cmpuint(file_bytes(scene), ==, 128 * KIB);
    g_assert_cmpint(co_handle_truncate_as(handle, &full, NULL), ==, 0);
    g_assert_cmpuint(file_bytes(scene), ==, 400 * KIB);
    co_handle_free(handle);
    g_assert_cmpuint(file_bytes(scene), ==, 400 * KIB);
}

struct writer {
    struct handle *handle;
    struct co_group *group;
    unsigned index;
};

static void CO_FN co_append(void *opaque)
{
    struct writer *writer = opaque;

    for (unsigned i = 0; i < 16; i++)
        co_write(writer->handle, (i * 16 + writer->index) * 8 * KIB, 8 * KIB, (char)writer->index);
    co_group_done(writer->group);
}

static void CO_FN co_together(struct image_scene *scene)
{
    struct writer writers[16];
    struct co_group group = {0};
    g_autofree char *data = g_malloc(2048 * KIB);

    co_add(scene, "");
    for (unsigned i = 0; i < 16; i++) {
        writers[i] = (struct writer){.handle = i ? writers[0].handle : co_use(scene, PERM_ALL), &group, i};
        co_group_add(&group, 1);
        co_spawn(loop_current(), co_append, &writers[i]);
    }
    co_group_wait(&group);
    g_assert_cmpint(co_handle_pread(writers[0].handle, 0, 2048 * KIB, data, 0), ==, 0);
    for (unsigned i = 0; i < 2048 * KIB; i++)
        g_assert_cmpint(data[i], ==, i / (8 * KIB) % 16);
    co_handle_free(writers[0].handle);
    g_assert_cmpuint(file_bytes(scene), ==, 2048 * KIB);
}

/* Nobody else may make the file longer or shorter meanwhile. */
static void CO_FN co_alone(struct image_scene *scene)
{
    struct handle_options options = {.name = "other", .perm = PERM_WRITE, .shared = PERM_ALL};
    struct handle *handle, *other;
    AUTO(error) err = NULL;

    co_add(scene, "");
    handle = co_use(scene, PERM_WRITE);
    other = co_handle_new(graph_find(scene->graph, "f", NULL), &options, &err);
    g_assert_null(other);
    g_assert_nonnull(err);
    co_handle_free(handle);
    other = co_handle_new(graph_find(scene->graph, "f", NULL), &options, NULL);
    g_assert_nonnull(other);
    co_handle_free(other);
}

static char *CO_FN co_reopen(struct image_scene *scene, int64_t align, int64_t size)
{
    g_autofree char *text = g_strdup_printf("[{'driver': 'preallocate', 'node-name': 'p', 'prealloc-align': %" PRId64
                                            ", 'prealloc-size': %" PRId64 ", 'discard': 'unmap', 'file': 'f'}]",
                                            align, size);
    AUTO(json) json = json_parse(text, strlen(text), NULL);
    struct blockdev_options *parsed = blockdev_options_parse(json_at(json, 0), NULL);
    struct blockdev_options_array array = {.count = 1, .items = &parsed};
    AUTO(error) err = NULL;
    bool ok = co_graph_reopen(scene->graph, &array, &err);

    blockdev_options_free(parsed);
    return ok ? NULL : g_strdup(error_message(err));
}

static void CO_FN co_reopening(struct image_scene *scene)
{
    g_autofree char *odd = NULL, *negative = NULL, *good = NULL;
    struct handle *handle;

    co_add(scene, "");
    handle = co_use(scene, PERM_ALL);
    odd = co_reopen(scene, 1000, 0);
    g_assert_cmpstr(odd, ==, "prealloc-align parameter of preallocate filter is not aligned to 512: it is 1000 bytes");
    negative = co_reopen(scene, 512, -1);
    g_assert_nonnull(negative);
    co_write(handle, 0, KIB, 'a');
    g_assert_cmpuint(file_bytes(scene), ==, 128 * KIB);
    good = co_reopen(scene, 512, 1000);
    g_assert_null(good);
    co_write(handle, 128 * KIB, KIB, 'b');
    g_assert_cmpuint(file_bytes(scene), ==, 130 * KIB);
    co_handle_free(handle);
    g_assert_cmpuint(file_bytes(scene), ==, 129 * KIB);
}

#define CASE(name)                                                                                                     \
    static void test_##name(void)                                                                                      \
    {                                                                                                                  \
        image_test_run(co_##name, drivers);                                                                            \
    }
CASE(growing)
CASE(zeroes)
CASE(truncating)
CASE(together)
CASE(alone)
CASE(reopening)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/preallocate/growing", test_growing);
    g_test_add_func("/preallocate/zeroes", test_zeroes);
    g_test_add_func("/preallocate/truncating", test_truncating);
    g_test_add_func("/preallocate/together", test_together);
    g_test_add_func("/preallocate/alone", test_alone);
    g_test_add_func("/preallocate/reopening", test_reopening);
    return g_test_run();
}
