/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "base/error.h"
#include "schema/test-types.h"

static void assert_help(const struct schema_type *type, const char *words, const char *expected)
{
    bool help;
    AUTO(json) chosen = keyval_parse(words, "kind", &help, NULL);
    AUTO(error) err = NULL;
    g_autofree char *text = schema_help_text(type, chosen, NULL, NULL, &err);

    g_assert_true(help);
    g_assert_cmpstr(err ? error_message(err) : "", ==, "");
    g_assert_cmpstr(text, ==, expected);
}

static void test_union(void)
{
    assert_help(&shape_type, "help",
                "A shape.\n"
                "\n"
                "Values of 'kind':\n"
                "  circle                  A circle.\n"
                "  polygon                 A polygon.\n"
                "  unix                    A union in a union.\n"
                "  empty                   Listed with nothing.\n"
                "  other                   Not listed.\n"
                "\n"
                "For the options of one: kind=NAME,help\n");
}

static bool is_round(void *opaque, const char *value)
{
    return strcmp(value, opaque) == 0;
}

static void test_offered(void)
{
    static char circle[] = "circle";
    g_autofree char *text = schema_help_text(&shape_type, NULL, is_round, circle, NULL);

    g_assert_nonnull(strstr(text, "  circle "));
    g_assert_null(strstr(text, "  polygon "));
}

static void test_branch(void)
{
    assert_help(&shape_type, "circle,help",
                "circle options:\n"
                "A circle.\n"
                "\n"
                "  id=<string>\n"
                "      Identifier.\n"
                "  kind=circle (required)\n"
                "      Which sort.\n"
                "  radius=<uint32> (required)\n"
                "      Its radius.\n"
                "  color=<red|dark-green|default>\n"
                "      Its color.\n");
    assert_help(&shape_type, "other,help",
                "other options:\n"
                "A shape.\n"
                "\n"
                "  id=<string>\n"
                "      Identifier.\n"
                "  kind=other (required)\n"
                "      Which sort.\n");
}

static void test_nested(void)
{
    assert_help(&shape_type, "?,id=x,kind=unix",
                "unix options:\n"
                "A union inside a union.\n"
                "\n"
                "  id=<string>\n"
                "      Identifier.\n"
                "  kind=unix (required)\n"
                "      Which sort.\n"
                "  inner=<a|b> (required)\n"
                "      Its kind.\n"
                "  with inner=a:\n"
                "    radius=<uint32> (required)\n"
                "        Its radius.\n"
                "    color=<red|dark-green|default>\n"
                "        Its color.\n");
}

static void test_arrays(void)
{
    assert_help(&polygon_type, "help",
                "A polygon.\n"
                "\n"
                "  points.0.* (required)\n"
                "      Its corners.\n"
                "  points.0.x=<int> (required)\n"
                "      To the right.\n"
                "  points.0.y=<int> (required)\n"
                "      Up.\n"
                "  weights.0=<number>\n"
                "      A weight each.\n"
                "  colors.0=<red|dark-green|default>\n"
                "      A color each.\n");
}

/* A type inside itself is not opened again and again. */
static void test_recursive(void)
{
    g_autofree char *text = schema_help_text(&tree_type, NULL, NULL, NULL, NULL);

    g_assert_nonnull(strstr(text, "\n  child.*\n      Another tree.\n"));
    g_assert_null(strstr(text, "child.child"));
    g_assert_nonnull(strstr(text, "\n  ref=<Shape|string|int|on|off|null|"));
}

static void test_unknown(void)
{
    AUTO(json) chosen = keyval_parse("kind=square", NULL, NULL, NULL);
    AUTO(error) err = NULL;

    g_assert_null(schema_help_text(&shape_type, chosen, NULL, NULL, &err));
    g_assert_cmpstr(error_message(err), ==, "Parameter 'kind' does not accept value 'square'");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/help/union", test_union);
    g_test_add_func("/help/offered", test_offered);
    g_test_add_func("/help/branch", test_branch);
    g_test_add_func("/help/nested", test_nested);
    g_test_add_func("/help/arrays", test_arrays);
    g_test_add_func("/help/recursive", test_recursive);
    g_test_add_func("/help/unknown", test_unknown);
    return g_test_run();
}
