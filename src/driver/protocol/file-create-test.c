/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Making files: their size, their space, and what is refused. */
#include <sys/stat.h>

#include "block/driver.h"
#include "driver/image-test-run.h"
#include "driver/protocol/file.h"

static const struct block_driver *const drivers[] = {&file_driver, NULL};

static char *CO_FN co_create(struct image_scene *scene, const char *text)
{
    return co_image_scene_create(scene, file_driver.image->co_create, text);
}

static void CO_FN co_expect_file(struct image_scene *scene, const char *text, uint64_t size, bool has_space)
{
    g_autofree char *path = image_scene_path(scene, "f");
    g_autofree char *said = co_create(scene, text);
    struct stat status;

    g_assert_cmpstr(said, ==, NULL);
    g_assert_cmpint(stat(path, &status), ==, 0);
    g_assert_cmpuint((uint64_t)status.st_size, ==, size);
    if (has_space)
        g_assert_cmpuint((uint64_t)status.st_blocks * 512, >=, size);
    else
        g_assert_cmpuint((uint64_t)status.st_blocks * 512, <, MAX(size, 1));
}

static void CO_FN co_sizes(struct image_scene *scene)
{
    co_expect_file(scene, "{'driver': 'file', 'filename': '@/f', 'size': 0}", 0, false);
    co_expect_file(scene, "{'driver': 'file', 'filename': '@/f', 'size': 1000001}", 1000001, false);
    co_expect_file(scene, "{'driver': 'file', 'filename': '@/f', 'size': 200000, 'preallocation': 'falloc'}", 200000,
                   true);
    co_expect_file(scene, "{'driver': 'file', 'filename': '@/f', 'size': 200000, 'preallocation': 'full'}", 200000,
                   true);
    /* What was there before is gone. */
    co_expect_file(scene, "{'driver': 'file', 'filename': '@/f', 'size': 300000, 'nocow': true}", 300000, false);
    co_expect_file(scene, "{'driver': 'file', 'filename': '@/f', 'size': 100000, 'extent-size-hint': 0}", 100000,
                   false);
}

static void CO_FN co_refusals(struct image_scene *scene)
{
    static const char *const cases[][2] = {
        {"{'driver': 'file', 'filename': '@/no/f', 'size': 0}", "Could not create '*/no/f': No such file or directory"},
        {"{'driver': 'file', 'filename': '@/', 'size': 0}", "Could not create '*': Is a directory"},
        {"{'driver': 'file', 'filename': '@/f', 'size': 0, 'preallocation': 'metadata'}",
         "Unsupported preallocation mode: metadata"},
        {"{'driver': 'file', 'filename': '@/f', 'size': 0, 'extent-size-hint': 5368709120}",
         "Extent size hint is too large*5368709120*"},
        {"{'driver': 'file', 'filename': '@/f', 'size': 18446744073709551615}",
         "Could not resize file to 18446744073709551615 bytes: File too large"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *said = co_create(scene, cases[i][0]);

        g_assert_nonnull(said);
        if (!g_pattern_match_simple(cases[i][1], said))
            g_error("\"%s\" is not like \"%s\"", said, cases[i][1]);
    }
}

/* Who uses the file keeps it. */
static void CO_FN co_in_use(struct image_scene *scene)
{
    static const char text[] = "{'driver': 'file', 'filename': '@/f', 'size': 4096}";
    struct handle *user;
    g_autofree char *said = NULL;

    co_expect_file(scene, text, 4096, false);
    user = co_image_scene_open(scene, "{'driver': 'file', 'filename': '@/f'}", PERM_CONSISTENT_READ | PERM_WRITE);
    said = co_create(scene, text);
    g_assert_nonnull(said);
    g_assert_nonnull(strstr(said, "Failed to get"));
    co_handle_free(user);
    co_expect_file(scene, text, 4096, false);
}

static void test_sizes(void)
{
    image_test_run(co_sizes, drivers);
}

static void test_refusals(void)
{
    image_test_run(co_refusals, drivers);
}

static void test_in_use(void)
{
    image_test_run(co_in_use, drivers);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/file-create/sizes", test_sizes);
    g_test_add_func("/file-create/refusals", test_refusals);
    g_test_add_func("/file-create/in-use", test_in_use);
    return g_test_run();
}
