/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sizes before and after: what is measured must be what an image then has. */
#include <string.h>

#include "base/error.h"
#include "block/driver.h"
#include "driver/format/qcow2/create.h"
#include "driver/image-test-run.h"
#include "driver/protocol/file.h"

static const struct block_driver *const drivers[] = {&file_driver, NULL};

struct expectation {
    const char *members;
    uint64_t size;
    uint64_t required;
    uint64_t fully_allocated;
};

/* As other programs measure them. */
static const struct expectation expectations[] = {
    {"", 0, 196608, 196608},
    {"", 512, 327680, 393216},
    {"", 1000, 327680, 393216},
    {"", 1 << 20, 327680, 1376256},
    {"", 1 << 30, 393216, 1074135040},
    {"", UINT64_C(10) << 30, 1900544, 10739318784},
    {"", UINT64_C(1) << 40, 168034304, 1099679662080},
    {", 'cluster-size': 512, 'refcount-bits': 1", 1 << 30, 17311232, 1091053056},
    {", 'cluster-size': 512, 'refcount-bits': 16", 1 << 30, 21385216, 1095127040},
    {", 'cluster-size': 512, 'refcount-bits': 64", 1 << 30, 34629120, 1108370944},
    {", 'cluster-size': 4096, 'refcount-bits': 64", 1 << 30, 4222976, 1077964800},
    {", 'cluster-size': 2097152", 1 << 30, 10485760, 1084227584},
    {", 'extended-l2': true", 1 << 30, 524288, 1074266112},
    {", 'extended-l2': true, 'cluster-size': 16384", UINT64_C(10) << 30, 11862016, 10749280256},
    {", 'preallocation': 'metadata'", 1 << 30, 393216, 1074135040},
    {", 'preallocation': 'falloc'", 1 << 30, 1074135040, 1074135040},
    {", 'preallocation': 'full'", 1 << 30, 1074135040, 1074135040},
    {", 'backing-file': 'b', 'backing-fmt': 'raw'", 1 << 30, 393216, 1074135040},
};

static struct block_measure_info *CO_FN co_measure(struct image_scene *scene, const char *members,
                                                   struct handle *source, uint64_t size, struct error **err)
{
    g_autofree char *text = g_strdup_printf("{'driver': 'qcow2', 'file': '', 'size': 0%s}", members);
    AUTO(blockdev_create_options) options = image_scene_options(scene, text);

    return qcow2_co_measure(options, source, size, err);
}

static void CO_FN co_empty(struct image_scene *scene)
{
    for (size_t i = 0; i < G_N_ELEMENTS(expectations); i++) {
        AUTO(block_measure_info) info = co_measure(scene, expectations[i].members, NULL, expectations[i].size, NULL);

        g_assert_nonnull(info);
        g_assert_cmpint(info->required, ==, expectations[i].required);
        g_assert_cmpint(info->fully_allocated, ==, expectations[i].fully_allocated);
        g_assert_false(info->has_bitmaps);
    }
}

static void CO_FN co_too_large(struct image_scene *scene)
{
    static const uint64_t sizes[] = {UINT64_C(7) << 60, UINT64_MAX};

    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        AUTO(error) err = NULL;

        g_assert_null(co_measure(scene, "", NULL, sizes[i], &err));
        g_assert_true(
            g_str_has_prefix(error_message(err), "The image size is too large (try using a larger cluster size)"));
    }
}

/* A file with data here and there: clusters that it touches count, holes don't. */
static void CO_FN co_source(struct image_scene *scene)
{
    static const char data[4096] = "data";
    struct handle *source;
    AUTO(block_measure_info) info = NULL;
    AUTO(block_measure_info) with_backing = NULL;
    g_autofree char *said = co_image_scene_create(scene, file_driver.image->co_create,
                                                  "{'driver': 'file', 'filename': '@/s', 'size': 104857600}");

    g_assert_null(said);
    source = co_image_scene_open(scene, "{'driver': 'file', 'filename': '@/s'}", PERM_CONSISTENT_READ | PERM_WRITE);
    g_assert_cmpint(co_handle_pwrite(source, 0, sizeof(data), data, 0), ==, 0);
    g_assert_cmpint(co_handle_pwrite(source, 32768, sizeof(data), data, 0), ==, 0);
    g_assert_cmpint(co_handle_pwrite(source, 5 * 65536 - 4096, sizeof(data), data, 0), ==, 0);
    g_assert_cmpint(co_handle_pwrite(source, 5 * 65536, sizeof(data), data, 0), ==, 0);
    info = co_measure(scene, "", source, 0, NULL);
    g_assert_cmpint(info->required, ==, 327680 + 3 * 65536);
    g_assert_cmpint(info->fully_allocated, ==, 105185280);
    with_backing = co_measure(scene, ", 'backing-file': 'b', 'backing-fmt': 'raw'", source, 0, NULL);
    g_assert_cmpint(with_backing->required, ==, 105185280);
    co_handle_free(source);
}

static void test_empty(void)
{
    image_test_run(co_empty, drivers);
}

static void test_too_large(void)
{
    image_test_run(co_too_large, drivers);
}

static void test_source(void)
{
    image_test_run(co_source, drivers);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2/measure/empty", test_empty);
    g_test_add_func("/qcow2/measure/too-large", test_too_large);
    g_test_add_func("/qcow2/measure/source", test_source);
    return g_test_run();
}
