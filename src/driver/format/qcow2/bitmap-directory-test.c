/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "driver/format/qcow2/bitmap-directory.h"

#include <string.h>

#include "base/bytes.h"
#include "base/error.h"

static struct qcow2_bitmap_directory *sample_new(void)
{
    struct qcow2_bitmap_directory *directory = qcow2_bitmap_directory_new();
    struct qcow2_bitmap_entry *a = qcow2_bitmap_entry_new("a", 16), *b = qcow2_bitmap_entry_new("bitmap b", 9);

    a->table_offset = 0x50000;
    a->table_size = 1;
    a->flags = QCOW2_BITMAP_AUTO;
    b->table_offset = 0x60000;
    b->table_size = 77;
    g_ptr_array_add(directory->entries, a);
    g_ptr_array_add(directory->entries, b);
    return directory;
}

static void test_round_trip(void)
{
    AUTO(qcow2_bitmap_directory) directory = sample_new();
    AUTO(qcow2_bitmap_directory) parsed = NULL;
    size_t size;
    g_autofree uint8_t *bytes = qcow2_bitmap_directory_serialise(directory, &size);
    const struct qcow2_bitmap_entry *entry;

    g_assert_cmpuint(size, ==, 64);
    parsed = qcow2_bitmap_directory_parse(bytes, size, 2, NULL);
    g_assert_nonnull(parsed);
    entry = qcow2_bitmap_directory_find(parsed, "bitmap b");
    g_assert_cmpuint(entry->table_offset, ==, 0x60000);
    g_assert_cmpuint(entry->table_size, ==, 77);
    g_assert_cmpuint(entry->flags, ==, 0);
    g_assert_cmpuint(entry->granularity_bits, ==, 9);
    g_assert_null(entry->problem);
    g_assert_null(qcow2_bitmap_directory_find(parsed, "c"));
    g_assert_cmpuint(qcow2_bitmap_directory_find(parsed, "a")->flags, ==, QCOW2_BITMAP_AUTO);
}

static void expect_error(size_t size, uint32_t count, const char *message)
{
    AUTO(qcow2_bitmap_directory) directory = sample_new();
    AUTO(error) err = NULL;
    size_t all;
    g_autofree uint8_t *bytes = qcow2_bitmap_directory_serialise(directory, &all);

    g_assert_null(qcow2_bitmap_directory_parse(bytes, MIN(size, all), count, &err));
    g_assert_cmpstr(error_message(err), ==, message);
}

static void test_unreadable(void)
{
    expect_error(64, 0, "nb_bitmaps is 0, and may be 1 to 65535");
    expect_error(64, 65536, "nb_bitmaps is 65536, and may be 1 to 65535");
    expect_error(0, 1, "entry 0 of 1 at byte 0: it has 0 bytes left of the directory, and needs 24");
    expect_error(64, 3, "entry 2 of 3 at byte 64: it has 0 bytes left of the directory, and needs 24");
    expect_error(64, 1, "bitmap_directory_size is 64, and its 1 entries have 32 bytes");
    expect_error(63, 2,
                 "entry 1 of 2 at byte 32: with extra_data_size 0 and name_size 8 it needs 32 bytes, and has 31 left "
                 "of the directory");
}

/* Parses the sample with `value` of `bytes` bytes at `at` in its first entry; that entry's problem. */
static void expect_problem(size_t at, unsigned bytes, uint32_t value, const char *problem)
{
    AUTO(qcow2_bitmap_directory) directory = sample_new();
    AUTO(qcow2_bitmap_directory) parsed = NULL;
    size_t size;
    g_autofree uint8_t *sample = qcow2_bitmap_directory_serialise(directory, &size);

    if (bytes == 1)
        sample[at] = (uint8_t)value;
    else if (bytes == 2)
        store_be16(sample + at, (uint16_t)value);
    else
        store_be32(sample + at, value);
    parsed = qcow2_bitmap_directory_parse(sample, size, 2, NULL);
    g_assert_nonnull(parsed);
    g_assert_cmpstr(((struct qcow2_bitmap_entry *)g_ptr_array_index(parsed->entries, 0))->problem, ==, problem);
    g_assert_null(((struct qcow2_bitmap_entry *)g_ptr_array_index(parsed->entries, 1))->problem);
}

static void test_problems(void)
{
    expect_problem(12, 4, QCOW2_BITMAP_IN_USE, "it was not kept up to date");
    expect_problem(12, 4, 8, "its flags 0x00000008 are unknown");
    expect_problem(16, 1, 0, "its type 0 is unknown");
    expect_problem(16, 1, 2, "its type 2 is unknown");
    expect_problem(17, 1, 8, "its granularity_bits are 8, and may be 9 to 31");
    expect_problem(17, 1, 63, "its granularity_bits are 63, and may be 9 to 31");
    expect_problem(20, 4, 4, "it has 4 bytes of unknown extra data");
    expect_problem(24, 1, 0xff, "its name is no valid text");
    expect_problem(24, 1, 0, "its name is no valid text");
}

static void test_no_name(void)
{
    AUTO(qcow2_bitmap_directory) directory = sample_new();
    AUTO(qcow2_bitmap_directory) parsed = NULL;
    size_t size;
    g_autofree uint8_t *bytes = NULL;

    ((struct qcow2_bitmap_entry *)g_ptr_array_index(directory->entries, 0))->name_bytes = 0;
    bytes = qcow2_bitmap_directory_serialise(directory, &size);
    parsed = qcow2_bitmap_directory_parse(bytes, size, 2, NULL);
    g_assert_cmpstr(qcow2_bitmap_directory_find(parsed, "")->problem, ==, "it has no name");
}

static void test_equal_names(void)
{
    AUTO(qcow2_bitmap_directory) directory = sample_new();
    AUTO(qcow2_bitmap_directory) parsed = NULL;
    size_t size;
    g_autofree uint8_t *bytes = NULL;

    g_ptr_array_add(directory->entries, qcow2_bitmap_entry_new("a", 12));
    bytes = qcow2_bitmap_directory_serialise(directory, &size);
    parsed = qcow2_bitmap_directory_parse(bytes, size, 3, NULL);
    for (unsigned i = 0; i < 3; i++)
        g_assert_cmpstr(((struct qcow2_bitmap_entry *)g_ptr_array_index(parsed->entries, i))->problem, ==,
                        i == 1 ? NULL : "another one has the same name");
}

/* Extra data that says it is compatible is kept. */
static void test_extra_data(void)
{
    AUTO(qcow2_bitmap_directory) directory = qcow2_bitmap_directory_new();
    AUTO(qcow2_bitmap_directory) parsed = NULL;
    struct qcow2_bitmap_entry *entry = qcow2_bitmap_entry_new("n", 16), *copy;
    g_autofree uint8_t *bytes = NULL, *again = NULL;
    size_t size, again_size;

    g_free(entry->tail);
    entry->tail = g_memdup2("extran", 6);
    entry->extra_bytes = 5;
    entry->flags = QCOW2_BITMAP_EXTRA_COMPATIBLE;
    g_ptr_array_add(directory->entries, entry);
    bytes = qcow2_bitmap_directory_serialise(directory, &size);
    parsed = qcow2_bitmap_directory_parse(bytes, size, 1, NULL);
    copy = qcow2_bitmap_entry_copy(qcow2_bitmap_directory_find(parsed, "n"));
    g_assert_null(copy->problem);
    g_ptr_array_set_size(parsed->entries, 0);
    g_ptr_array_add(parsed->entries, copy);
    again = qcow2_bitmap_directory_serialise(parsed, &again_size);
    g_assert_cmpmem(again, again_size, bytes, size);
}

static void test_sizes(void)
{
    g_assert_cmpuint(qcow2_bitmap_data_bytes(0, 16), ==, 0);
    g_assert_cmpuint(qcow2_bitmap_data_bytes(1, 16), ==, 1);
    g_assert_cmpuint(qcow2_bitmap_data_bytes(8 << 16, 16), ==, 1);
    g_assert_cmpuint(qcow2_bitmap_data_bytes((8 << 16) + 1, 16), ==, 2);
    g_assert_cmpuint(qcow2_bitmap_table_entries(0, 16, 16), ==, 0);
    g_assert_cmpuint(qcow2_bitmap_table_entries(1 << 20, 9, 9), ==, 1);
    g_assert_cmpuint(qcow2_bitmap_table_entries((2 << 20) + 1, 9, 9), ==, 2);
    g_assert_cmpuint(qcow2_bitmap_table_entries(UINT64_MAX, 9, 9), ==, UINT64_C(1) << 43);
    g_assert_true(qcow2_bitmap_table_entry_ok(0, 16));
    g_assert_true(qcow2_bitmap_table_entry_ok(1, 16));
    g_assert_true(qcow2_bitmap_table_entry_ok(0x70000, 16));
    g_assert_false(qcow2_bitmap_table_entry_ok(0x70001, 16));
    g_assert_false(qcow2_bitmap_table_entry_ok(2, 16));
    g_assert_false(qcow2_bitmap_table_entry_ok(0x70200, 16));
    g_assert_false(qcow2_bitmap_table_entry_ok(UINT64_C(1) << 56 | 0x70000, 16));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-bitmap-directory/round-trip", test_round_trip);
    g_test_add_func("/qcow2-bitmap-directory/unreadable", test_unreadable);
    g_test_add_func("/qcow2-bitmap-directory/problems", test_problems);
    g_test_add_func("/qcow2-bitmap-directory/no-name", test_no_name);
    g_test_add_func("/qcow2-bitmap-directory/equal-names", test_equal_names);
    g_test_add_func("/qcow2-bitmap-directory/extra-data", test_extra_data);
    g_test_add_func("/qcow2-bitmap-directory/sizes", test_sizes);
    return g_test_run();
}
