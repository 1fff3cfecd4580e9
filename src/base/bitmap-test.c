/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/bitmap.h"

#include <glib.h>
#include <string.h>

enum { MODEL_BITS_MAX = 40000 };

/* What a bitmap must be like: a byte a bit. */
struct model {
    struct bitmap *bitmap;
    uint64_t size;
    uint8_t bits[MODEL_BITS_MAX];
};

static void model_check(const struct model *model)
{
    uint64_t count = 0, at = 0, first, run;
    size_t bytes = (model->size + 7) / 8;
    g_autofree uint8_t *stored = g_malloc(bytes + 1);

    stored[bytes] = 0xa5;
    bitmap_store(model->bitmap, 0, model->size, stored);
    g_assert_cmpuint(stored[bytes], ==, 0xa5);
    for (uint64_t i = 0; i < model->size; i++) {
        count += model->bits[i];
        g_assert_cmpuint(stored[i / 8] >> (i % 8) & 1, ==, model->bits[i]);
        g_assert_cmpuint(bitmap_get(model->bitmap, i), ==, model->bits[i]);
    }
    if (model->size % 8)
        g_assert_cmpuint(stored[bytes - 1] >> (model->size % 8), ==, 0);
    g_assert_cmpuint(bitmap_count(model->bitmap), ==, count);
    g_assert_cmpuint(bitmap_size(model->bitmap), ==, model->size);
    while (bitmap_next_run(model->bitmap, at, model->size, &first, &run)) {
        g_assert_cmpuint(run, >, 0);
        for (; at < first; at++)
            g_assert_false(model->bits[at]);
        for (; at < first + run; at++)
            g_assert_true(model->bits[at]);
        g_assert_true(at == model->size || !model->bits[at]);
    }
    for (; at < model->size; at++)
        g_assert_false(model->bits[at]);
}

static void model_check_search(const struct model *model, uint64_t from, uint64_t end)
{
    uint64_t set = from, clear = from;

    while (set < end && !model->bits[set])
        set++;
    while (clear < end && model->bits[clear])
        clear++;
    g_assert_cmpuint(bitmap_next_set(model->bitmap, from, end), ==, MIN(set, MAX(end, from)));
    g_assert_cmpuint(bitmap_next_clear(model->bitmap, from, end), ==, MIN(clear, MAX(end, from)));
}

static void model_load(struct model *model, GRand *random, uint64_t first, uint64_t count)
{
    size_t bytes;
    g_autofree uint8_t *from = NULL;

    first -= first % 8;
    count = MIN(count, model->size - first);
    bytes = (count + 7) / 8;
    from = g_malloc0(bytes + 1);
    for (size_t i = 0; i < bytes; i++)
        from[i] = (uint8_t)(g_rand_boolean(random) ? 0xff : g_rand_int_range(random, 0, 256));
    bitmap_load(model->bitmap, first, count, from);
    for (uint64_t i = 0; i < count; i++)
        model->bits[first + i] = from[i / 8] >> (i % 8) & 1;
}

static void model_resize(struct model *model, uint64_t size)
{
    bitmap_resize(model->bitmap, size);
    if (size < model->size)
        memset(model->bits + size, 0, model->size - size);
    model->size = size;
}

static void model_merge(struct model *model, GRand *random)
{
    AUTO(bitmap) other = bitmap_new(model->size);

    for (int i = g_rand_int_range(random, 0, 5); i > 0; i--) {
        uint64_t first = (uint64_t)g_rand_int_range(random, 0, (gint32)model->size);
        uint64_t count = (uint64_t)g_rand_int_range(random, 0, 9000);

        count = MIN(count, model->size - first);
        bitmap_set(other, first, count);
        memset(model->bits + first, 1, count);
    }
    bitmap_merge(model->bitmap, other);
}

static void model_step(struct model *model, GRand *random)
{
    uint64_t first = (uint64_t)g_rand_int_range(random, 0, (gint32)model->size);
    uint64_t most = g_rand_boolean(random) ? 3 : g_rand_boolean(random) ? 300 : MODEL_BITS_MAX;
    uint64_t count = (uint64_t)g_rand_int_range(random, 0, (gint32)most);

    count = MIN(count, model->size - first);
    switch (g_rand_int_range(random, 0, 12)) {
    case 0:
    case 1:
    case 2:
    case 3:
        bitmap_set(model->bitmap, first, count);
        memset(model->bits + first, 1, count);
        break;
    case 4:
    case 5:
    case 6:
        bitmap_clear(model->bitmap, first, count);
        memset(model->bits + first, 0, count);
        break;
    case 7:
        model_load(model, random, first, count);
        break;
    case 8:
        model_resize(model, (uint64_t)g_rand_int_range(random, 1, MODEL_BITS_MAX + 1));
        break;
    case 9:
        model_merge(model, random);
        break;
    default:
        model_check_search(model, first, first + count);
    }
}

static void test_random(void)
{
    g_autofree struct model *model = g_new0(struct model, 1);
    GRand *random = g_rand_new_with_seed(g_test_rand_int());

    model->size = MODEL_BITS_MAX;
    model->bitmap = bitmap_new(model->size);
    for (int i = 0; i < 6000; i++) {
        model_step(model, random);
        if (i % 20 == 0)
            model_check(model);
    }
    model_check(model);
    bitmap_free(model->bitmap);
    g_rand_free(random);
}

/* 16 TiB in blocks of 64 KiB; then all of what a node can be. */
static void test_large(void)
{
    static const uint64_t sizes[] = {UINT64_C(1) << 28, BITMAP_BITS_MAX};

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        uint64_t size = sizes[i];
        AUTO(bitmap) bitmap = bitmap_new(size);

        g_assert_cmpuint(bitmap_memory_bytes(bitmap), <, 100);
        g_assert_cmpuint(bitmap_next_set(bitmap, 0, size), ==, size);
        bitmap_set(bitmap, size - 1, 1);
        g_assert_cmpuint(bitmap_next_set(bitmap, 0, size), ==, size - 1);
        g_assert_cmpuint(bitmap_memory_bytes(bitmap), <, 8 * 600);
        bitmap_set(bitmap, 0, size);
        g_assert_cmpuint(bitmap_memory_bytes(bitmap), <, 8 * 600);
        g_assert_cmpuint(bitmap_count(bitmap), ==, size);
        bitmap_clear(bitmap, size / 3, 1);
        g_assert_cmpuint(bitmap_next_clear(bitmap, 0, size), ==, size / 3);
        g_assert_cmpuint(bitmap_count(bitmap), ==, size - 1);
        bitmap_resize(bitmap, 1);
        g_assert_cmpuint(bitmap_count(bitmap), ==, 1);
        bitmap_resize(bitmap, size);
        g_assert_cmpuint(bitmap_count(bitmap), ==, 1);
        g_assert_true(bitmap_get(bitmap, 0));
    }
}

static void test_empty(void)
{
    AUTO(bitmap) bitmap = bitmap_new(0);
    uint64_t first, count;

    g_assert_cmpuint(bitmap_count(bitmap), ==, 0);
    g_assert_false(bitmap_next_run(bitmap, 0, 0, &first, &count));
    bitmap_set(bitmap, 0, 0);
    bitmap_store(bitmap, 0, 0, NULL);
    bitmap_resize(bitmap, 70000);
    bitmap_set(bitmap, 69999, 1);
    bitmap_resize(bitmap, 0);
    g_assert_cmpuint(bitmap_count(bitmap), ==, 0);
}

static void test_copy(void)
{
    AUTO(bitmap) bitmap = bitmap_new(100000);
    AUTO(bitmap) copy = NULL;

    bitmap_set(bitmap, 5, 70000);
    copy = bitmap_copy(bitmap);
    g_assert_true(bitmap_equal(bitmap, copy));
    bitmap_clear(copy, 60000, 1);
    g_assert_false(bitmap_equal(bitmap, copy));
    g_assert_true(bitmap_get(bitmap, 60000));
    bitmap_merge(copy, bitmap);
    g_assert_true(bitmap_equal(bitmap, copy));
    bitmap_resize(copy, 100001);
    g_assert_false(bitmap_equal(bitmap, copy));
}

/* Every set unit of one has its bit in the other, and no other bit is set. */
static void check_scaled(GRand *random, unsigned to_shift, unsigned from_shift, uint64_t units)
{
    uint64_t to_size = ((units - 1) >> to_shift) + 1, from_size = ((units - 1) >> from_shift) + 1;
    AUTO(bitmap) from = bitmap_new(from_size);
    AUTO(bitmap) to = bitmap_new(to_size);
    AUTO(bitmap) expected = bitmap_new(to_size);

    for (int i = 0; i < 20; i++) {
        uint64_t first = (uint64_t)g_rand_int_range(random, 0, (gint32)from_size);
        uint64_t count = (uint64_t)g_rand_int_range(random, 0, 8);

        bitmap_set(from, first, MIN(count, from_size - first));
    }
    for (uint64_t unit = 0; unit < units; unit++) {
        if (bitmap_get(from, unit >> from_shift))
            bitmap_set(expected, unit >> to_shift, 1);
    }
    bitmap_merge_scaled(to, to_shift, from, from_shift);
    g_assert_true(bitmap_equal(to, expected));
}

static void test_merge_scaled(void)
{
    GRand *random = g_rand_new_with_seed(g_test_rand_int());

    for (int i = 0; i < 300; i++)
        check_scaled(random, (unsigned)g_rand_int_range(random, 0, 6), (unsigned)g_rand_int_range(random, 0, 6),
                     (uint64_t)g_rand_int_range(random, 1, 20000));
    g_rand_free(random);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/bitmap/random", test_random);
    g_test_add_func("/bitmap/large", test_large);
    g_test_add_func("/bitmap/empty", test_empty);
    g_test_add_func("/bitmap/copy", test_copy);
    g_test_add_func("/bitmap/merge-scaled", test_merge_scaled);
    return g_test_run();
}
