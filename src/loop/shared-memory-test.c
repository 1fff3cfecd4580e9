/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "loop/shared-memory.h"

#include <string.h>
#include <unistd.h>

#include "base/error.h"

enum { PAGE = 4096, SIZE = 4 * PAGE };

static void test_shared(void)
{
    int fd = shared_memory_file("test", SIZE);
    struct shared_memory *first = shared_memory_map(fd, 0, SIZE, NULL);
    AUTO(shared_memory) second = shared_memory_map(fd, PAGE + 8, 100, NULL);

    close(fd);
    shared_memory_base(first)[PAGE + 8] = 7;
    g_assert_cmpint(shared_memory_base(second)[0], ==, 7);
    g_assert_cmpuint(shared_memory_size(second), ==, 100);
    shared_memory_unref(shared_memory_ref(first));
    g_assert_cmpint(shared_memory_base(first)[PAGE + 8], ==, 7);
    shared_memory_unref(first);
    g_assert_cmpint(shared_memory_base(second)[0], ==, 7);
}

/* What has gone reads as zeroes, can be written, and is reported; what is still there stays shared. */
static void test_cut(void)
{
    int fd = shared_memory_file("test", SIZE);
    AUTO(shared_memory) memory = shared_memory_map(fd, 0, SIZE, NULL);
    uint8_t *base = shared_memory_base(memory);
    uint8_t byte;

    memset(base, 1, SIZE);
    g_assert_cmpint(ftruncate(fd, PAGE), ==, 0);
    g_assert_false(shared_memory_damaged(memory));
    g_assert_cmpint(base[3 * PAGE + 5], ==, 0);
    g_assert_true(shared_memory_damaged(memory));
    memset(base + PAGE, 2, 3 * PAGE);
    g_assert_cmpint(base[2 * PAGE], ==, 2);
    base[0] = 9;
    g_assert_cmpint(pread(fd, &byte, 1, 0), ==, 1);
    g_assert_cmpint(byte, ==, 9);
    close(fd);
}

static void test_refused(void)
{
    static const struct {
        uint64_t offset;
        size_t size;
    } bad[] = {{SIZE, 1}, {0, SIZE + 1}, {UINT64_MAX, 1}, {PAGE, SIZE}, {0, SIZE_MAX}};
    int fd = shared_memory_file("test", SIZE);
    int pipes[2];

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        AUTO(error) why = NULL;

        g_assert_null(shared_memory_map(fd, bad[i].offset, bad[i].size, &why));
        g_assert_nonnull(why);
    }
    close(fd);
    g_assert_cmpint(pipe(pipes), ==, 0);
    g_assert_null(shared_memory_map(pipes[0], 0, 1, NULL));
    close(pipes[0]);
    close(pipes[1]);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/shared-memory/shared", test_shared);
    g_test_add_func("/shared-memory/cut", test_cut);
    g_test_add_func("/shared-memory/refused", test_refused);
    return g_test_run();
}
