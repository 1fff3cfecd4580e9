/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Parsing, writing, copying and freeing, on a schema that has types of every sort. */
#include <string.h>

#include "base/error.h"
#include "loop/loop.h"
#include "schema/test-types.h"

static struct json *parsed(const char *text)
{
    AUTO(error) err = NULL;
    struct json *value = json_parse(text, strlen(text), &err);

    if (!value)
        g_error("%s: %s", text, error_message(err));
    return value;
}

/* What is parsed, and copied, is written as it was. */
static void test_round_trip(void)
{
    static const char *const texts[] = {
        "{}",
        "{'scalars': {}}",
        "{'scalars': {'i8': -128, 'i16': -32768, 'i32': -2147483648, 'i64': -9223372036854775808}}",
        "{'scalars': {'i8': 127, 'i16': 32767, 'i32': 2147483647, 'i64': 9223372036854775807, 'int': -1}}",
        "{'scalars': {'u8': 255, 'u16': 65535, 'u32': 4294967295, 'u64': 18446744073709551615}}",
        "{'scalars': {'u8': 0, 'u16': 0, 'u32': 0, 'u64': 0, 'size': 18446744073709551615, 'number': 1.5}}",
        "{'scalars': {'bool': false, 'str': '', 'any': null, 'color': 'red'}}",
        "{'scalars': {'bool': true, 'str': 'x', 'any': {'a': [1, {}]}, 'color': 'dark-green'}}",
        "{'shapes': []}",
        "{'shapes': [{'id': 'a', 'kind': 'circle', 'radius': 7}, {'kind': 'other'}, {'kind': 'empty'}]}",
        "{'shapes': [{'kind': 'polygon', 'points': [{'x': 1, 'y': 2}, {'x': -1, 'y': 0}], 'weights': [0.5]}]}",
        "{'shapes': [{'kind': 'polygon', 'points': [], 'colors': ['red', 'default']}]}",
        "{'shapes': [{'kind': 'unix', 'inner': 'a', 'radius': 1, 'color': 'default'}]}",
        "{'shapes': [{'kind': 'unix', 'inner': 'b'}]}",
        "{'ref': {'kind': 'circle', 'radius': 0}}",
        "{'ref': 'name'}",
        "{'ref': 12}",
        "{'ref': true}",
        "{'ref': null}",
        "{'ref': ['a', [null, [{'kind': 'empty'}]], 5]}",
        "{'loose': false}",
        "{'loose': 2.5}",
        "{'color': 'red'}",
        "{'color': {'x': 1, 'y': 2}}",
        "{'child': {'child': {'names': ['a', 'b', '']}}}",
        "{'names': [], 'bytes': [0, 255], 'anything': [1, null, 'x', [{}]]}",
        "{'sub': {'kind': 'circle', 'extra': true, 'radius': 3}}",
        "{'sub': {'id': 'x', 'kind': 'empty', 'extra': false}}",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        AUTO(json) value = parsed(texts[i]);
        AUTO(error) err = NULL;
        AUTO(tree) tree = tree_parse(value, &err);
        AUTO(tree) copy = NULL;
        AUTO(json) written = NULL;
        g_autofree char *expected = json_format(value, false);
        g_autofree char *text = NULL;

        g_assert_cmpstr(err ? error_message(err) : "", ==, "");
        copy = tree_clone(tree);
        tree_free(TAKE(tree));
        written = tree_write(copy);
        text = json_format(written, false);
        g_assert_cmpstr(text, ==, expected);
    }
}

static void test_values(void)
{
    AUTO(json)
    value = parsed("{'scalars': {'i8': -5, 'u64': 18446744073709551615, 'color': 'dark-green'},"
                   " 'ref': 'x', 'names': ['a', 'b'],"
                   " 'shapes': [{'kind': 'unix', 'inner': 'a', 'radius': 9}]}");
    AUTO(tree) tree = tree_parse(value, NULL);

    g_assert_nonnull(tree);
    g_assert_true(tree->scalars->has_i8);
    g_assert_cmpint(tree->scalars->i8, ==, -5);
    g_assert_false(tree->scalars->has_i16);
    g_assert_cmpuint(tree->scalars->u64, ==, UINT64_MAX);
    g_assert_cmpint(tree->scalars->color, ==, COLOR_DARK_GREEN);
    g_assert_null(tree->scalars->str);
    g_assert_cmpint(tree->ref->kind, ==, SHAPE_REF_KIND_NAME);
    g_assert_cmpstr(tree->ref->u.name, ==, "x");
    g_assert_cmpuint(tree->names->count, ==, 2);
    g_assert_cmpstr(tree->names->items[1], ==, "b");
    g_assert_null(tree->child);
    g_assert_cmpint(tree->shapes->items[0]->kind, ==, SHAPE_KIND_UNIX);
    g_assert_cmpuint(tree->shapes->items[0]->u.unix_.u.a.radius, ==, 9);
}

static void test_enum(void)
{
    g_assert_cmpstr(color_name(COLOR_DARK_GREEN), ==, "dark-green");
    g_assert_null(color_name(COLOR__MAX));
    g_assert_cmpint(color_value("default"), ==, COLOR_DEFAULT);
    g_assert_cmpint(color_value("blue"), ==, -1);
}

/* A mandatory array that has been left NULL has no elements. */
static void test_write_null_array(void)
{
    struct polygon polygon = {.points = NULL};
    AUTO(json) value = polygon_write(&polygon);
    g_autofree char *text = json_format(value, false);

    g_assert_cmpstr(text, ==, "{\"points\": []}");
}

static const struct {
    const char *text;
    const char *error;
} refused[] = {
    {"[]", "Invalid parameter type for 'value', expected: object"},
    {"{'x': 1}", "Parameter 'x' is unexpected"},
    {"{'child': {'child': {'x': 1}}}", "Parameter 'child.child.x' is unexpected"},
    {"{'names': 'a'}", "Invalid parameter type for 'names', expected: array"},
    {"{'names': ['a', 1]}", "Invalid parameter type for 'names[1]', expected: string"},
    {"{'names': null}", "Invalid parameter type for 'names', expected: array"},
    {"{'scalars': 1}", "Invalid parameter type for 'scalars', expected: object"},
    {"{'scalars': {'i8': 128}}", "Parameter 'scalars.i8' expects int8_t, not 128"},
    {"{'scalars': {'i8': -129}}", "Parameter 'scalars.i8' expects int8_t, not -129"},
    {"{'scalars': {'i16': 32768}}", "Parameter 'scalars.i16' expects int16_t, not 32768"},
    {"{'scalars': {'i32': 2147483648}}", "Parameter 'scalars.i32' expects int32_t, not 2147483648"},
    {"{'scalars': {'i32': -2147483649}}", "Parameter 'scalars.i32' expects int32_t, not -2147483649"},
    {"{'scalars': {'int': 9223372036854775808}}", "Parameter 'scalars.int' expects int64_t, not 9223372036854775808"},
    {"{'scalars': {'int': 18446744073709551616}}", "Invalid parameter type for 'scalars.int', expected: integer"},
    {"{'scalars': {'u8': 256}}", "Parameter 'scalars.u8' expects uint8_t, not 256"},
    {"{'scalars': {'u8': -1}}", "Parameter 'scalars.u8' expects uint8_t, not -1"},
    {"{'scalars': {'u16': 65536}}", "Parameter 'scalars.u16' expects uint16_t, not 65536"},
    {"{'scalars': {'u32': 4294967296}}", "Parameter 'scalars.u32' expects uint32_t, not 4294967296"},
    {"{'scalars': {'u64': -1}}", "Parameter 'scalars.u64' expects uint64_t, not -1"},
    {"{'scalars': {'size': -1}}", "Parameter 'scalars.size' expects uint64_t, not -1"},
    {"{'scalars': {'int': 1.5}}", "Invalid parameter type for 'scalars.int', expected: integer"},
    {"{'scalars': {'int': '1'}}", "Invalid parameter type for 'scalars.int', expected: integer"},
    {"{'scalars': {'number': '1'}}", "Invalid parameter type for 'scalars.number', expected: number"},
    {"{'scalars': {'bool': 'on'}}", "Invalid parameter type for 'scalars.bool', expected: boolean"},
    {"{'scalars': {'str': 1}}", "Invalid parameter type for 'scalars.str', expected: string"},
    {"{'scalars': {'color': 1}}", "Invalid parameter type for 'scalars.color', expected: string"},
    {"{'scalars': {'color': 'Red'}}", "Parameter 'scalars.color' does not accept value 'Red'"},
    {"{'shapes': [{}]}", "Parameter 'shapes[0].kind' is missing"},
    {"{'shapes': [{'kind': 'circle'}]}", "Parameter 'shapes[0].radius' is missing"},
    {"{'shapes': [{'kind': 'other', 'radius': 1}]}", "Parameter 'shapes[0].radius' is unexpected"},
    {"{'shapes': [{'kind': 'empty', 'radius': 1}]}", "Parameter 'shapes[0].radius' is unexpected"},
    {"{'shapes': [{'kind': 'unix', 'inner': 'b', 'radius': 1}]}", "Parameter 'shapes[0].radius' is unexpected"},
    {"{'shapes': [{'kind': 'polygon', 'points': [{'x': 1}]}]}", "Parameter 'shapes[0].points[0].y' is missing"},
    {"{'ref': 1.5}", "Invalid parameter type for 'ref', expected: ShapeRef"},
    {"{'ref': ['a', 1.5]}", "Invalid parameter type for 'ref[1]', expected: ShapeRef"},
    {"{'loose': 'on'}", "Invalid parameter type for 'loose', expected: Loose"},
    {"{'color': 'Red'}", "Parameter 'color' does not accept value 'Red'"},
    {"{'sub': {'kind': 'circle', 'radius': 3}}", "Parameter 'sub.extra' is missing"},
};

static void test_refused(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(refused); i++) {
        AUTO(json) value = parsed(refused[i].text);
        AUTO(error) err = NULL;

        g_assert_null(tree_parse(value, &err));
        g_assert_cmpstr(error_message(err), ==, refused[i].error);
        g_assert_null(tree_parse(value, NULL));
    }
}

/* {"child": {"child": ... {} }}, with `levels` objects. */
static struct json *nested(unsigned levels)
{
    struct json *value = json_object();

    while (--levels) {
        struct json *outer = json_object();

        json_set(outer, "child", value);
        value = outer;
    }
    return value;
}

static void test_depth(void)
{
    AUTO(json) deep = nested(256);
    AUTO(json) deeper = nested(257);
    AUTO(tree) tree = tree_parse(deep, NULL);
    AUTO(tree) copy = NULL;
    AUTO(json) written = NULL;
    AUTO(error) err = NULL;

    g_assert_nonnull(tree);
    copy = tree_clone(tree);
    written = tree_write(copy);
    g_assert_true(json_equal(written, deep));
    g_assert_null(tree_parse(deeper, &err));
    g_assert_nonnull(strstr(error_message(err), "is nested more than 256 levels deep"));
}

/* [[[... 'a']]], an alternate's arrays in each other. */
static struct json *nested_list(unsigned levels)
{
    struct json *value = json_string("a"), *root = json_object();

    while (levels--) {
        struct json *outer = json_array();

        json_append(outer, value);
        value = outer;
    }
    json_set(root, "ref", value);
    return root;
}

static void CO_FN co_deepest(void *opaque)
{
    test_depth();
    for (unsigned levels = 1; levels < 200; levels++) {
        AUTO(json) value = nested_list(levels);
        AUTO(tree) tree = tree_parse(value, NULL);
        AUTO(tree) copy = tree ? tree_clone(tree) : NULL;
        AUTO(json) written = tree ? tree_write(copy) : NULL;

        /* Each level is an array and an alternate, inside the tree and the first alternate. */
        g_assert_true(!tree == (levels > 127));
        g_assert_true(!tree || json_equal(written, value));
    }
}

/* As deep as it goes on the stack of a coroutine. */
static void test_depth_in_coroutine(void)
{
    struct loop_options options = {0};
    struct loop *loop = loop_new(&options, NULL);

    g_assert_nonnull(loop);
    co_run(loop, co_deepest, NULL);
    loop_free(loop);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/parse/round-trip", test_round_trip);
    g_test_add_func("/parse/values", test_values);
    g_test_add_func("/parse/enum", test_enum);
    g_test_add_func("/parse/write-null-array", test_write_null_array);
    g_test_add_func("/parse/refused", test_refused);
    g_test_add_func("/parse/depth", test_depth);
    g_test_add_func("/parse/depth-in-coroutine", test_depth_in_coroutine);
    return g_test_run();
}
