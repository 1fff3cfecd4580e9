/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "object/cpu-list.h"

#include <glib.h>

static void check(const char *text, int expected_count, unsigned member)
{
    struct cpu_list list = {0};

    g_assert_true(cpu_list_parse(&list, text));
    g_assert_cmpint(CPU_COUNT(&list.set), ==, expected_count);
    if (expected_count)
        g_assert_true(CPU_ISSET(member, &list.set));
}

static void test_good(void)
{
    check("", 0, 0);
    check("\n", 0, 0);
    check("0\n", 1, 0);
    check("0-3,8,10-11\n", 7, 11);
    check("5-5", 1, 5);
    check("1,1,1", 1, 1);
    check("1023", 1, 1023);
}

static void test_bad(void)
{
    static const char *const texts[] = {"a",     ",", "1,", "-", "1-", "3-1", "1 2", "1024", "99999999999999999999",
                                        "0-1024"};

    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++) {
        struct cpu_list list = {0};

        g_assert_false(cpu_list_parse(&list, texts[i]));
    }
    g_assert_false(cpu_list_add(&(struct cpu_list){0}, CPU_SETSIZE));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/cpu-list/good", test_good);
    g_test_add_func("/cpu-list/bad", test_bad);
    return g_test_run();
}
