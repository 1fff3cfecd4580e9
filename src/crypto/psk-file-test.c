/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crypto/psk-file.h"

#include <glib.h>
#include <string.h>

static void check(const char *text, const char *username, const char *expected)
{
    g_autofree char *key = psk_file_find(text, strlen(text), username);

    g_assert_cmpstr(key, ==, expected);
}

static void test_found(void)
{
    check("alice:00ff\nbob:1234\n", "alice", "00ff");
    check("alice:00ff\nbob:1234\n", "bob", "1234");
    check("alice:00ff\r\nbob:1234", "bob", "1234");
    check("alice:00ff \r\n", "alice", "00ff");
    check("\n\nalice:00ff\nalice:11\n", "alice", "00ff");
    check("alice:\n", "alice", "");
    check("a:b:c\n", "a:b", "c");
}

static void test_not_found(void)
{
    check("", "alice", NULL);
    check("alice\nbob:12\n", "alice", NULL);
    check("alice2:00\nxalice:11\n", "alice", NULL);
    check("alice", "alice:", NULL);
    check("bob:12\n", "", NULL);
    g_assert_null(psk_file_find("bob:1\0002\n", 8, "bob"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/psk-file/found", test_found);
    g_test_add_func("/psk-file/not-found", test_not_found);
    return g_test_run();
}
