/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "loop/shared-memory.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
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

/* How many mappings this process has whose line says `what`. */
static unsigned count_mappings(const char *what)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    unsigned count = 0;

    g_assert_true(g_file_get_contents("/proc/self/maps", &text, NULL, NULL));
    lines = g_strsplit(text, "\n", -1);
    for (unsigned i = 0; lines[i]; i++)
        count += !!strstr(lines[i], what);
    return count;
}

/* A system gives a process so many mappings and no more: who cuts a file can use up few of them. */
static void test_cut_to_pieces(void)
{
    enum { PIECES = 4096, MAPPINGS_MORE = 100 };
    int fd = shared_memory_file("test", 2 * PIECES * PAGE);
    AUTO(shared_memory) memory = shared_memory_map(fd, 0, 2 * PIECES * PAGE, NULL);
    unsigned before = count_mappings("");

    g_assert_cmpint(ftruncate(fd, 0), ==, 0);
    for (unsigned i = PIECES; i--;)
        shared_memory_base(memory)[(size_t)2 * i * PAGE] = 1;
    for (unsigned i = 0; i < PIECES; i++)
        g_assert_cmpint(shared_memory_base(memory)[(size_t)(2 * i + 1) * PAGE], ==, 0);
    g_assert_cmpuint(count_mappings(""), <, before + MAPPINGS_MORE);
    close(fd);
}

/* Huge pages, of which there are none, or not any more; not on their bounds. */
static void test_huge(void)
{
    int fd = memfd_create("huge", MFD_HUGETLB);
    struct shared_memory *memory;
    struct stat status;
    size_t page;

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(fstat(fd, &status), ==, 0);
    page = (size_t)status.st_blksize;
    g_assert_cmpint(ftruncate(fd, (off_t)(3 * page)), ==, 0);
    memory = shared_memory_map(fd, page + PAGE, page + 1, NULL);
    g_assert_nonnull(memory);
    g_assert_cmpuint(count_mappings("memfd:huge"), ==, 1);
    shared_memory_unref(memory);
    g_assert_cmpuint(count_mappings("memfd:huge"), ==, 0);
    memory = shared_memory_map(fd, page + PAGE, page + 1, NULL);
    g_assert_cmpint(ftruncate(fd, (off_t)page), ==, 0);
    g_assert_cmpint(shared_memory_base(memory)[page], ==, 0);
    memset(shared_memory_base(memory), 1, page + 1);
    g_assert_true(shared_memory_damaged(memory));
    shared_memory_unref(memory);
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
    g_test_add_func("/shared-memory/cut-to-pieces", test_cut_to_pieces);
    g_test_add_func("/shared-memory/huge", test_huge);
    g_test_add_func("/shared-memory/refused", test_refused);
    return g_test_run();
}
