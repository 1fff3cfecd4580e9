/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "export/nbd/zeroes.h"

#include <glib.h>
#include <string.h>

static struct nbd_part parts[NBD_PARTS_MAX];

static void check_part(unsigned index, uint64_t offset, uint32_t bytes, bool is_zero)
{
    g_assert_cmpuint(parts[index].offset, ==, offset);
    g_assert_cmpuint(parts[index].bytes, ==, bytes);
    g_assert_cmpint(parts[index].is_zero, ==, is_zero);
}

static void test_all_or_nothing(void)
{
    uint8_t data[10000] = {0};

    g_assert_cmpuint(nbd_parts_find(data, sizeof(data), 77, parts), ==, 1);
    check_part(0, 77, sizeof(data), true);
    memset(data, 1, sizeof(data));
    g_assert_cmpuint(nbd_parts_find(data, sizeof(data), 77, parts), ==, 1);
    check_part(0, 77, sizeof(data), false);
    data[0] = 0;
    g_assert_cmpuint(nbd_parts_find(data, 1, 0, parts), ==, 1);
    check_part(0, 0, 1, true);
}

static void test_boundaries(void)
{
    static uint8_t data[5 * 4096];

    /* The read starts in the middle of a block; the last byte of the second block is set. */
    memset(data, 0, sizeof(data));
    data[4096 + 2047] = 1;
    g_assert_cmpuint(nbd_parts_find(data, 4 * 4096, 10 * 4096 + 2048, parts), ==, 3);
    check_part(0, 10 * 4096 + 2048, 2048, true);
    check_part(1, 11 * 4096, 4096, false);
    check_part(2, 12 * 4096, 2 * 4096 + 2048, true);
}

/* Data and zeroes in turn, at every size: the parts cover the read and say the truth. */
static void test_alternating(void)
{
    static const uint32_t sizes[] = {1, 4095, 4097, 64 * 4096, 65 * 4096 - 1, 1 << 20, (1 << 20) + 1, 3 << 20};
    g_autofree uint8_t *data = g_malloc0(4 << 20);

    for (size_t i = 0; i < 4 << 20; i += 8192)
        memset(data + i, 1, 4096);
    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        for (uint64_t offset = 0; offset < 8192; offset += 1365) {
            const uint8_t *from = data + offset;
            unsigned count = nbd_parts_find(from, sizes[i], offset, parts);
            uint64_t at = offset;

            g_assert_cmpuint(count, <=, NBD_PARTS_MAX);
            for (unsigned part = 0; part < count; part++) {
                check_part(part, at, parts[part].bytes, part ? !parts[part - 1].is_zero : parts[part].is_zero);
                for (uint32_t byte = 0; parts[part].is_zero && byte < parts[part].bytes; byte++)
                    g_assert_cmpuint(data[at + byte], ==, 0);
                at += parts[part].bytes;
            }
            g_assert_cmpuint(at, ==, offset + sizes[i]);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/nbd-zeroes/all-or-nothing", test_all_or_nothing);
    g_test_add_func("/nbd-zeroes/boundaries", test_boundaries);
    g_test_add_func("/nbd-zeroes/alternating", test_alternating);
    return g_test_run();
}
