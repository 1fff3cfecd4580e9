/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/error.h"

#include <errno.h>

static void test_set(void)
{
    AUTO(error) err = NULL;

    g_assert_false(error_set(&err, "node '%s' is missing", "a"));
    g_assert_cmpstr(error_message(err), ==, "node 'a' is missing");
    g_assert_cmpint(error_get_class(err), ==, ERROR_GENERIC);
    g_assert_cmpint(error_get_errno(err), ==, 0);
}

static void test_errno_either_sign(void)
{
    AUTO(error) err = NULL;

    g_assert_false(error_set_errno(&err, -ENOENT, "open '%s'", "/x"));
    g_assert_cmpstr(error_message(err), ==, "open '/x': No such file or directory");
    g_assert_cmpint(error_get_errno(err), ==, ENOENT);
}

static void test_not_wanted(void)
{
    g_assert_false(error_set(NULL, "nobody reads this"));
    g_assert_false(error_prefix(NULL, "nor this"));
}

static void test_prefix_and_hint(void)
{
    AUTO(error) err = NULL;

    error_set_class(&err, ERROR_DEVICE_NOT_FOUND, "no such thing");
    error_prefix(&err, "--export: ");
    error_hint(&err, "Try %s.", "another");
    g_assert_cmpstr(error_message(err), ==, "--export: no such thing");
    g_assert_cmpstr(error_hint_text(err), ==, "Try another.");
    g_assert_cmpstr(error_class_name(error_get_class(err)), ==, "DeviceNotFound");
}

static void test_move(void)
{
    struct error *local = NULL;
    AUTO(error) err = NULL;

    error_set(&local, "first");
    g_assert_false(error_move(&err, local));
    g_assert_cmpstr(error_message(err), ==, "first");

    local = NULL;
    error_set(&local, "second");
    g_assert_false(error_move(NULL, local));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/error/set", test_set);
    g_test_add_func("/error/errno", test_errno_either_sign);
    g_test_add_func("/error/not-wanted", test_not_wanted);
    g_test_add_func("/error/prefix-and-hint", test_prefix_and_hint);
    g_test_add_func("/error/move", test_move);
    return g_test_run();
}
