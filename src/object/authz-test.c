/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>

#include "base/error.h"
#include "loop/loop.h"
#include "object/object-test-run.h"
#include "object/tls-creds.h"

/* What is said against `identity`, owned; NULL: it is let in. */
static char *CO_FN co_ask(struct object_registry *registry, const char *id, const char *identity)
{
    AUTO(error) error = NULL;

    return co_authz_check(registry, id, identity, &error) ? NULL : g_strdup(error_message(error));
}

static void CO_FN co_expect_in(struct object_registry *registry, const char *id, const char *identity)
{
    g_autofree char *complaint = co_ask(registry, id, identity);

    g_assert_cmpstr(complaint, ==, NULL);
}

static void CO_FN co_expect_out(struct object_registry *registry, const char *id, const char *identity)
{
    g_autofree char *complaint = co_ask(registry, id, identity);
    g_autofree char *expected = g_strdup_printf("authz check for %s is denied by '%s'", identity, id);

    g_assert_cmpstr(complaint, ==, expected);
}

static void CO_FN co_test_simple(struct object_registry *registry)
{
    co_object_test_expect(registry, "'qom-type': 'authz-simple', 'id': 'a', 'identity': 'alice'", NULL);
    co_expect_in(registry, "a", "alice");
    co_expect_out(registry, "a", "alice2");
    co_expect_out(registry, "a", "");
    g_assert_null(co_object_test_set(registry, "a", "identity", "'bob'"));
    co_expect_in(registry, "a", "bob");
    co_expect_out(registry, "a", "alice");
    g_autofree char *complaint = co_object_test_set(registry, "a", "identity", "5");
    g_assert_cmpstr(complaint, ==, "Invalid parameter type for 'identity', expected: string");
}

static void CO_FN co_test_list(struct object_registry *registry)
{
    co_object_test_expect(
        registry,
        "'qom-type': 'authz-list', 'id': 'a', 'policy': 'allow', 'rules': ["
        "{'match': 'CN=bad', 'policy': 'deny'}, {'match': 'CN=b*', 'policy': 'allow', 'format': 'glob'},"
        "{'match': 'CN=*', 'policy': 'deny', 'format': 'glob'},"
        "{'match': 'O=*', 'policy': 'deny', 'format': 'exact'}]",
        NULL);
    co_expect_out(registry, "a", "CN=bad");
    co_expect_in(registry, "a", "CN=badly");
    co_expect_out(registry, "a", "CN=alice");
    co_expect_in(registry, "a", "O=Masons");
    co_expect_out(registry, "a", "O=*");
    g_autofree char *rules = object_test_get(registry, "a", "rules");
    g_assert_nonnull(strstr(rules, "\"CN=bad\""));

    g_assert_null(co_object_test_set(registry, "a", "rules", "[{'match': 'x', 'policy': 'deny'}]"));
    co_expect_in(registry, "a", "CN=bad");
    g_assert_null(co_object_test_set(registry, "a", "policy", "'deny'"));
    co_expect_out(registry, "a", "CN=bad");
    g_autofree char *complaint = co_object_test_set(registry, "a", "policy", "'maybe'");
    g_assert_cmpstr(complaint, ==, "Parameter 'policy' does not accept value 'maybe'");
    g_autofree char *no_rules = co_object_test_set(registry, "a", "rules", "5");
    g_assert_nonnull(no_rules);
}

/* Nothing said means nobody. */
static void CO_FN co_test_empty_list(struct object_registry *registry)
{
    co_object_test_expect(registry, "'qom-type': 'authz-list', 'id': 'a'", NULL);
    co_expect_out(registry, "a", "alice");
}

static void CO_FN co_test_file(struct object_registry *registry)
{
    g_autofree char *folder = g_dir_make_tmp("ashlar-authz-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(folder, "list", NULL);
    g_autofree char *fresh = g_strdup_printf("'qom-type': 'authz-listfile', 'id': 'fresh', 'filename': '%s'", path);
    g_autofree char *fixed =
        g_strdup_printf("'qom-type': 'authz-listfile', 'id': 'fixed', 'filename': '%s', 'refresh': false", path);
    g_autofree char *missing = g_strdup_printf("Failed to open '%s': No such file", path);
    g_autofree char *invalid = g_strdup_printf("Authorization list '%s': ", path);

    co_object_test_expect(registry, fresh, missing);
    g_assert_true(g_file_set_contents(path, "{\"rules\": 5}", -1, NULL));
    co_object_test_expect(registry, fresh, invalid);

    g_assert_true(g_file_set_contents(path, "{\"rules\": [{\"match\": \"a\", \"policy\": \"allow\"}]}", -1, NULL));
    co_object_test_expect(registry, fresh, NULL);
    co_object_test_expect(registry, fixed, NULL);
    co_expect_in(registry, "fresh", "a");
    co_expect_in(registry, "fixed", "a");

    g_assert_true(g_file_set_contents(path, "{\"rules\": [{\"match\": \"b\", \"policy\": \"allow\"}]}", -1, NULL));
    co_expect_out(registry, "fresh", "a");
    co_expect_in(registry, "fresh", "b");
    co_expect_in(registry, "fixed", "a");

    g_assert_true(g_file_set_contents(path, "{\"policy\": \"allow\"", -1, NULL));
    g_autofree char *complaint = co_ask(registry, "fresh", "b");
    g_assert_true(g_str_has_prefix(complaint, invalid));
    g_assert_cmpint(g_unlink(path), ==, 0);
    g_autofree char *gone = co_ask(registry, "fresh", "b");
    g_assert_true(g_str_has_prefix(gone, missing));
    g_assert_cmpint(g_rmdir(folder), ==, 0);
}

static void CO_FN co_test_unknown(struct object_registry *registry)
{
    co_object_test_expect(registry, "'qom-type': 'secret', 'id': 's', 'data': 'x'", NULL);
    g_autofree char *complaint = co_ask(registry, "nobody", "a");
    g_assert_cmpstr(complaint, ==, "Cannot find QAuthZ object ID nobody");
    g_autofree char *other = co_ask(registry, "s", "a");
    g_assert_cmpstr(other, ==, "Object 's' is not a QAuthZ subclass");
}

/* Asked on another loop, it answers there. */
static void CO_FN co_test_other_loop(struct object_registry *registry)
{
    struct loop *home = loop_current();
    struct loop_thread *thread = loop_thread_new(&(struct loop_options){0}, NULL);

    co_object_test_expect(registry, "'qom-type': 'authz-simple', 'id': 'a', 'identity': 'alice'", NULL);
    co_move_to(loop_thread_loop(thread));
    co_expect_in(registry, "a", "alice");
    g_assert_true(loop_current() == loop_thread_loop(thread));
    co_move_to(home);
    co_loop_thread_free(thread);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    object_test_add("/authz/simple", co_test_simple);
    object_test_add("/authz/list", co_test_list);
    object_test_add("/authz/empty-list", co_test_empty_list);
    object_test_add("/authz/file", co_test_file);
    object_test_add("/authz/unknown", co_test_unknown);
    object_test_add("/authz/other-loop", co_test_other_loop);
    return g_test_run();
}
