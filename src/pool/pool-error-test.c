/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/pool-error.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"

static void test_template(void)
{
    AUTO(pool_error) error = NULL;

    g_assert_false(pool_error_set(&error, POOL_ERROR_NO_POOL, "no storage pool with matching name '%s'", "x"));
    g_assert_cmpstr(error->message, ==, "Storage pool not found: no storage pool with matching name 'x'");
    g_assert_cmpstr(error->str1, ==, "Storage pool not found: %1$s");
    g_assert_cmpstr(error->str2, ==, "no storage pool with matching name 'x'");
    g_assert_cmpint(error->domain, ==, POOL_DOMAIN_STORAGE);
    g_assert_cmpint(error->int1, ==, -1);
}

static void test_template_both_sides(void)
{
    AUTO(pool_error) error = NULL;

    pool_error_set(&error, POOL_ERROR_VOLUME_EXISTS, "'%s'", "v");
    g_assert_cmpstr(error->message, ==, "storage volume 'v' exists already");
    g_assert_cmpstr(error->str1, ==, "storage volume %1$s exists already");
}

/* A text without end, as a client may send it, comes back cut; not amid a character. */
static void test_long(void)
{
    g_autofree char *text = g_strnfill(1 << 20, 'x');

    for (int shift = 0; shift < 4; shift++) {
        AUTO(pool_error) error = NULL;

        for (size_t i = (size_t)shift; i < (1 << 20) - 4; i += 4)
            memcpy(text + i, "\xf0\x9f\x90\xa7", 4);
        pool_error_set(&error, POOL_ERROR_NO_POOL, "%s", text);
        g_assert_cmpuint(strlen(error->str2), >=, (64 << 10) - 3);
        g_assert_cmpuint(strlen(error->str2), <=, (64 << 10) + 3);
        g_assert_true(g_str_has_prefix(error->message, "Storage pool not found: "));
        g_assert_true(g_str_has_suffix(error->message, "..."));
        g_assert_true(g_utf8_validate(error->message + strlen("Storage pool not found: ") + (size_t)shift, -1, NULL));
    }
}

static void test_errno(void)
{
    AUTO(pool_error) error = NULL;

    pool_error_set_errno(&error, -ENOENT, "cannot open directory '%s'", "/x");
    g_assert_cmpstr(error->message, ==, "cannot open directory '/x': No such file or directory");
    g_assert_cmpstr(error->str1, ==, "%s");
    g_assert_cmpint(error->code, ==, 38);
    g_assert_cmpint(error->int1, ==, ENOENT);
}

static void test_flags(void)
{
    AUTO(pool_error) error = NULL;

    g_assert_true(pool_error_check_flags(&error, 3, 7, "storagePoolRefresh"));
    g_assert_false(pool_error_check_flags(&error, 0x13, 3, "storagePoolRefresh"));
    g_assert_cmpstr(error->message, ==, "unsupported flags (0x10) in function storagePoolRefresh");
    g_assert_cmpstr(error->str1, ==, "storagePoolRefresh");
    g_assert_cmpstr(error->str2, ==, "flags");
    g_assert_cmpint(error->int1, ==, 0);
}

static void test_from(void)
{
    AUTO(pool_error) plain = NULL;
    AUTO(pool_error) system = NULL;
    struct error *error = NULL;

    error_set(&error, "no such thing");
    g_assert_false(pool_error_from(&plain, error));
    g_assert_cmpstr(plain->message, ==, "internal error: no such thing");

    error = NULL;
    error_set_errno(&error, EACCES, "cannot open");
    pool_error_from(&system, error);
    g_assert_cmpint(system->code, ==, POOL_ERROR_SYSTEM);
    g_assert_cmpint(system->int1, ==, EACCES);
}

static void test_not_wanted(void)
{
    struct error *error = NULL;

    error_set(&error, "x");
    g_assert_false(pool_error_from(NULL, error));
    g_assert_false(pool_error_set(NULL, POOL_ERROR_INTERNAL, "x"));
    g_assert_false(pool_error_set_errno(NULL, EIO, "x"));
    g_assert_false(pool_error_check_flags(NULL, 1, 0, "f"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pool-error/template", test_template);
    g_test_add_func("/pool-error/template-both-sides", test_template_both_sides);
    g_test_add_func("/pool-error/long", test_long);
    g_test_add_func("/pool-error/errno", test_errno);
    g_test_add_func("/pool-error/flags", test_flags);
    g_test_add_func("/pool-error/from", test_from);
    g_test_add_func("/pool-error/not-wanted", test_not_wanted);
    return g_test_run();
}
