/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crypto/secure-memory.h"

#include <glib.h>
#include <string.h>

static void test_zero_and_usable(void)
{
    static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 1 << 20};

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        char *memory = secure_memory_new(sizes[i]);

        g_assert_nonnull(memory);
        for (size_t at = 0; at < sizes[i]; at++)
            g_assert_cmpint(memory[at], ==, 0);
        memset(memory, 'x', sizes[i]);
        secure_memory_free(memory, sizes[i]);
    }
    secure_memory_free(NULL, 5);
}

static void test_not_dumped(void)
{
    char *memory = secure_memory_new(1);
    g_autofree char *start = g_strdup_printf("%lx-", (unsigned long)memory);
    g_autofree char *smaps = NULL;

    g_assert_true(g_file_get_contents("/proc/self/smaps", &smaps, NULL, NULL));
    char *mapping = strstr(smaps, start);
    g_assert_nonnull(mapping);
    char *flags = strstr(mapping, "VmFlags:");
    g_assert_nonnull(flags);
    *strchr(flags, '\n') = '\0';
    g_assert_nonnull(strstr(flags, " dd"));
    secure_memory_free(memory, 1);
}

static void test_wipe(void)
{
    char text[] = "secret";

    secure_memory_wipe(text, sizeof(text));
    for (size_t i = 0; i < sizeof(text); i++)
        g_assert_cmpint(text[i], ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/secure-memory/usable", test_zero_and_usable);
    g_test_add_func("/secure-memory/not-dumped", test_not_dumped);
    g_test_add_func("/secure-memory/wipe", test_wipe);
    return g_test_run();
}
