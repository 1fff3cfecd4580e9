/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/io-vector.h"

#include <glib.h>
#include <string.h>

/* Three segments of 3, 0 and 5 bytes over one string. */
struct sample {
    char text[9];
    struct iovec segments[3];
    struct io_vector vector;
};

static void sample_init(struct sample *sample)
{
    memcpy(sample->text, "abcdefgh", 9);
    sample->segments[0] = (struct iovec){sample->text, 3};
    sample->segments[1] = (struct iovec){sample->text, 0};
    sample->segments[2] = (struct iovec){sample->text + 3, 5};
    sample->vector = io_vector_of(sample->segments, 3);
}

static void test_slices(void)
{
    struct sample sample;

    sample_init(&sample);
    g_assert_cmpuint(sample.vector.size, ==, 8);
    for (size_t offset = 0; offset <= 8; offset++) {
        for (size_t size = 0; size <= 8 - offset; size++) {
            struct iovec segments[3];
            char copy[8];
            struct io_vector slice = io_vector_slice(&sample.vector, offset, size, segments);

            g_assert_cmpuint(slice.count, ==, io_vector_slice_count(&sample.vector, offset, size));
            g_assert_cmpuint(io_vector_of(segments, slice.count).size, ==, size);
            io_vector_read(&slice, 0, copy, size);
            g_assert_cmpmem(copy, size, sample.text + offset, size);
        }
    }
}

static void test_write_and_fill(void)
{
    struct sample sample;

    sample_init(&sample);
    io_vector_write(&sample.vector, 2, "XYZ", 3);
    g_assert_cmpstr(sample.text, ==, "abXYZfgh");
    io_vector_fill(&sample.vector, 1, '-', 6);
    g_assert_cmpstr(sample.text, ==, "a------h");
}

static void test_zero(void)
{
    char memory[64] = {0};

    for (size_t size = 0; size <= sizeof(memory); size++) {
        struct iovec segments[2] = {{memory, size / 3}, {memory + size / 3, size - size / 3}};
        struct io_vector vector = io_vector_of(segments, 2);

        g_assert_true(io_vector_is_zero(&vector, 0, size));
        for (size_t i = 0; i < size; i++) {
            memory[i] = 1;
            g_assert_false(memory_is_zero(memory, size));
            g_assert_false(io_vector_is_zero(&vector, 0, size));
            memory[i] = 0;
        }
    }
}

/* Segments that begin and end at different places. */
static void test_difference(void)
{
    char left[] = "0123456789", right[] = "0123456789";
    struct iovec of_left[] = {{left, 3}, {left + 3, 0}, {left + 3, 7}};
    struct iovec of_right[] = {{right, 5}, {right + 5, 5}};
    struct io_vector a = io_vector_of(of_left, 3), b = io_vector_of(of_right, 2);

    g_assert_cmpuint(io_vector_difference(&a, &b), ==, 10);
    for (size_t at = 0; at < 10; at++) {
        right[at] = 'x';
        g_assert_cmpuint(io_vector_difference(&a, &b), ==, at);
        right[at] = left[at];
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/io-vector/slices", test_slices);
    g_test_add_func("/io-vector/write-and-fill", test_write_and_fill);
    g_test_add_func("/io-vector/zero", test_zero);
    g_test_add_func("/io-vector/difference", test_difference);
    return g_test_run();
}
