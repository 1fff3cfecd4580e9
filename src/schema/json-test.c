/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "schema/json.h"

#include <string.h>

#include "base/error.h"

static struct json *parsed(const char *text)
{
    struct json *value = json_parse(text, strlen(text), NULL);

    g_assert_nonnull(value);
    return value;
}

static void assert_format(const char *text, const char *expected)
{
    AUTO(json) value = parsed(text);
    g_autofree char *out = json_format(value, false);

    g_assert_cmpstr(out, ==, expected);
}

static void assert_error(const char *text, size_t size, const char *expected)
{
    AUTO(error) err = NULL;

    g_assert_null(json_parse(text, size, &err));
    g_assert_cmpstr(error_message(err), ==, expected);
}

static void test_format(void)
{
    assert_format("{\"a\":1,'b':[true,false,null],\"c\":{},\"d\":[]}",
                  "{\"a\": 1, \"b\": [true, false, null], \"c\": {}, \"d\": []}");
    assert_format("\"\\u00e9 \\ud83d\\ude00 \\u007f \\\" \\/ \\\\ \\b\\f\\n\\r\\t \\u001f <>&'\"",
                  "\"\\u00E9 \\uD83D\\uDE00 \\u007F \\\" / \\\\ \\b\\f\\n\\r\\t \\u001F <>&'\"");
    assert_format("'\xc3\xa9\xf0\x9f\x98\x80'", "\"\\u00E9\\uD83D\\uDE00\"");
    assert_format(" 12 ", "12");
    assert_format("true", "true");
}

static void test_pretty(void)
{
    AUTO(json) value = parsed("{'a':{'b':[1,{}]},'c':[]}");
    g_autofree char *text = json_format(value, true);

    g_assert_cmpstr(text, ==,
                    "{\n"
                    "    \"a\": {\n"
                    "        \"b\": [\n"
                    "            1,\n"
                    "            {}\n"
                    "        ]\n"
                    "    },\n"
                    "    \"c\": []\n"
                    "}");
}

static void test_numbers(void)
{
    assert_format("[0, -0, 9223372036854775807, -9223372036854775808]",
                  "[0, 0, 9223372036854775807, -9223372036854775808]");
    assert_format("[9223372036854775808, 18446744073709551615]", "[9223372036854775808, 18446744073709551615]");
    assert_format("[18446744073709551616, -9223372036854775809]", "[1.8446744073709552e+19, -9.223372036854776e+18]");
    assert_format("[0.1, 1.5, 1e3, 1E-7, 1.0, 0.30000000000000004]", "[0.1, 1.5, 1000, 1e-07, 1, 0.30000000000000004]");
}

static void test_bad_text(void)
{
    static const struct {
        const char *text;
        const char *error;
    } cases[] = {
        {"", "Expecting a JSON value"},
        {" \n", "Expecting a JSON value"},
        {"{", "JSON parse error, premature EOI (line 1, column 2)"},
        {"'abc", "JSON parse error, premature EOI (line 1, column 5)"},
        {"[1,\n 2", "JSON parse error, premature EOI (line 2, column 3)"},
        {"1 2", "Expecting at most one JSON value"},
        {"{} x", "Expecting at most one JSON value"},
        {"{} '", "Expecting at most one JSON value"},
        {"garbage", "JSON parse error, invalid keyword 'garbage' (line 1, column 1)"},
        {"{\"a\": nul}", "JSON parse error, invalid keyword 'nul' (line 1, column 7)"},
        {"{a: 1}", "JSON parse error, invalid keyword 'a' (line 1, column 2)"},
        {"{1: 1}", "JSON parse error, key is not a string in object (line 1, column 2)"},
        {"{\"a\" 1}", "JSON parse error, missing : in object pair (line 1, column 6)"},
        {"{\"a\"}", "JSON parse error, missing : in object pair (line 1, column 5)"},
        {"{\"a\":}", "JSON parse error, expecting value (line 1, column 6)"},
        {"{\"a\":1,}", "JSON parse error, expecting value (line 1, column 8)"},
        {"{,}", "JSON parse error, expecting value (line 1, column 2)"},
        {"[1,]", "JSON parse error, expecting value (line 1, column 4)"},
        {"[1 2]", "JSON parse error, expected separator in list (line 1, column 4)"},
        {"{\"a\":1 \"b\":2}", "JSON parse error, expected separator in dict (line 1, column 8)"},
        {"{\"a\":1]", "JSON parse error, expected separator in dict (line 1, column 7)"},
        {"}", "JSON parse error, expecting value (line 1, column 1)"},
        {":", "JSON parse error, expecting value (line 1, column 1)"},
        {"#", "JSON parse error, stray '#' (line 1, column 1)"},
        {"\xc3\xa9", "JSON parse error, stray byte 0xc3 (line 1, column 1)"},
        {"01", "JSON parse error, stray '01' (line 1, column 1)"},
        {"-", "JSON parse error, stray '-' (line 1, column 1)"},
        {"1.", "JSON parse error, stray '1.' (line 1, column 1)"},
        {"1e", "JSON parse error, stray '1e' (line 1, column 1)"},
        {"1e+", "JSON parse error, stray '1e+' (line 1, column 1)"},
        {"0x10", "JSON parse error, stray '0x10' (line 1, column 1)"},
        {"+1", "JSON parse error, stray '+' (line 1, column 1)"},
        {"1e999", "JSON parse error, number 1e999 is out of range (line 1, column 1)"},
        {"'\\q'", "JSON parse error, invalid escape sequence in string (line 1, column 3)"},
        {"'\\u12'", "JSON parse error, \\u needs four hexadecimal digits (line 1, column 6)"},
        {"'\\u0000'", "JSON parse error, \\u0000 is not a valid Unicode character (line 1, column 7)"},
        {"'\\ud800'", "JSON parse error, \\ud800 is not a valid Unicode character (line 1, column 8)"},
        {"'\\ud800x'", "JSON parse error, \\ud800 is not a valid Unicode character (line 1, column 8)"},
        {"'\\ud800\\n'", "JSON parse error, \\ud800 is not a valid Unicode character (line 1, column 9)"},
        {"'\\ud800\\u0041'", "JSON parse error, \\ud800 is not a valid Unicode character (line 1, column 13)"},
        {"'\\udc00'", "JSON parse error, \\udc00 is not a valid Unicode character (line 1, column 7)"},
        {"'\x01'", "JSON parse error, control character 0x01 in string (line 1, column 2)"},
        {"'a\nb'", "JSON parse error, control character 0x0a in string (line 1, column 3)"},
        {"'\xff'", "JSON parse error, invalid UTF-8 in string: byte 0xff (line 1, column 2)"},
        {"'\xc0\x80'", "JSON parse error, invalid UTF-8 in string: byte 0xc0 (line 1, column 2)"},
        {"'\xc3'", "JSON parse error, invalid UTF-8 in string: byte 0x27 (line 1, column 3)"},
        {"'\xe0\x80\x80'", "JSON parse error, invalid UTF-8 in string: byte 0x80 (line 1, column 3)"},
        {"'\xed\xa0\x80'", "JSON parse error, invalid UTF-8 in string: byte 0xa0 (line 1, column 3)"},
        {"'\xf4\x90\x80\x80'", "JSON parse error, invalid UTF-8 in string: byte 0x90 (line 1, column 3)"},
        {"'\xf5\x80\x80\x80'", "JSON parse error, invalid UTF-8 in string: byte 0xf5 (line 1, column 2)"},
        {"{'a':1,'b':2,'a':3}", "JSON parse error, duplicate key 'a' (line 1, column 18)"},
        {"{'a':1,'a':{}}", "JSON parse error, duplicate key 'a' (line 1, column 12)"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
        assert_error(cases[i].text, strlen(cases[i].text), cases[i].error);
    assert_error("'a\0b'", 5, "JSON parse error, control character 0x00 in string (line 1, column 3)");
    assert_error("\0", 1, "JSON parse error, stray byte 0x00 (line 1, column 1)");
}

static void test_object(void)
{
    AUTO(json) object = json_object();
    const char *key;

    json_set(object, "a", json_int(1));
    json_set(object, "b", json_int(2));
    json_set(object, "a", json_string("x"));
    g_assert_cmpuint(json_count(object), ==, 2);
    g_assert_cmpstr(json_get_string(json_get(object, "a")), ==, "x");
    g_assert_null(json_get(object, "c"));
    g_assert_cmpint(json_get_int(json_member(object, 1, &key)), ==, 2);
    g_assert_cmpstr(key, ==, "b");
    {
        AUTO(json) taken = json_take(object, "a");

        g_assert_cmpstr(json_get_string(taken), ==, "x");
        g_assert_null(json_take(object, "a"));
    }
    g_assert_cmpuint(json_count(object), ==, 1);
}

/* Objects with many members keep an index; it must follow every change. */
static void test_big_object(void)
{
    AUTO(json) object = json_object();
    AUTO(json) copy = NULL;

    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 1000; i++) {
            g_autofree char *key = g_strdup_printf("%d", i * 7919 % 1000);

            json_set(object, key, json_int(i));
        }
    }
    g_assert_cmpuint(json_count(object), ==, 1000);
    copy = json_clone(object);
    for (int i = 0; i < 1000; i += 2) {
        g_autofree char *key = g_strdup_printf("%d", i * 7919 % 1000);
        AUTO(json) taken = json_take(object, key);

        g_assert_cmpint(json_get_int(taken), ==, i);
    }
    g_assert_cmpuint(json_count(object), ==, 500);
    g_assert_cmpuint(json_count(copy), ==, 1000);
    for (int i = 0; i < 1000; i++) {
        g_autofree char *key = g_strdup_printf("%d", i * 7919 % 1000);

        g_assert_true(!json_get(object, key) == (i % 2 == 0));
        g_assert_cmpint(json_get_int(json_get(copy, key)), ==, i);
    }
}

/* A duplicate among many members is found too, wherever it stands. */
static void test_big_duplicate(void)
{
    for (int twice = 0; twice < 40; twice++) {
        g_autoptr(GString) text = g_string_new("{");
        AUTO(error) err = NULL;

        for (int i = 0; i < 40; i++)
            g_string_append_printf(text, "'%d':%d,", i, i);
        g_string_append_printf(text, "'%d':1}", twice);
        g_assert_null(json_parse(text->str, text->len, &err));
        g_assert_nonnull(strstr(error_message(err), "duplicate key"));
    }
}

static void test_clone_and_equal(void)
{
    AUTO(json) value = parsed("{'a':[1,2.5,{'b':null}],'c':'x','d':{'e':[],'f':{}}}");
    AUTO(json) same = parsed("{'d':{'f':{},'e':[]},'c':'x','a':[1,2.5,{'b':null}]}");
    AUTO(json) copy = json_clone(value);
    static const char *const others[] = {
        "{'a':[1,2.5,{'b':null}],'c':'x','d':{'e':[],'f':[]}}",
        "{'a':[1,2.5,{'c':null}],'c':'x','d':{'e':[],'f':{}}}",
        "{'a':[1,2.5],'c':'x','d':{'e':[],'f':{}}}",
        "{'a':[1,2.5,{'b':null}],'c':'y','d':{'e':[],'f':{}}}",
        "{'a':[1,2.5,{'b':null}],'c':'x'}",
        "[]",
    };

    g_assert_true(json_equal(value, copy));
    g_assert_true(json_equal(value, same));
    for (size_t i = 0; i < G_N_ELEMENTS(others); i++) {
        AUTO(json) other = parsed(others[i]);

        g_assert_false(json_equal(value, other));
        g_assert_false(json_equal(other, value));
    }
}

static void test_equal_numbers(void)
{
    AUTO(json) value = parsed("[1, 0, 1000, 18446744073709551615, 1.5, 9223372036854775807]");
    AUTO(json) same = parsed("[1.0, -0.0, 1e3, 18446744073709551615, 15e-1, 9223372036854775807]");
    static const char *const others[] = {
        "[1.5, 0, 1000, 18446744073709551615, 1.5, 9223372036854775807]",
        "[1, 0, 1000, 18446744073709551616, 1.5, 9223372036854775807]",
        "[1, 0, 1000, 18446744073709551615, 1.5, 9223372036854775808.0]",
        "[1, 0, 1000, -1, 1.5, 9223372036854775807]",
    };

    g_assert_true(json_equal(value, same));
    g_assert_true(json_equal(same, value));
    for (size_t i = 0; i < G_N_ELEMENTS(others); i++) {
        AUTO(json) other = parsed(others[i]);

        g_assert_false(json_equal(value, other));
        g_assert_false(json_equal(other, value));
    }
}

/* As deep as the limit allows, nothing recurses; one deeper is refused. */
static void test_depth(void)
{
    g_autofree char *text = g_strnfill(2050, '[');
    AUTO(json) value = NULL;
    AUTO(json) copy = NULL;
    g_autofree char *out = NULL;

    memset(text + 1024, ']', 1024);
    value = json_parse(text, 2048, NULL);
    g_assert_nonnull(value);
    copy = json_clone(value);
    g_assert_true(json_equal(value, copy));
    out = json_format(copy, false);
    g_assert_cmpuint(strlen(out), ==, 2048);

    memset(text, '[', 1025);
    memset(text + 1025, ']', 1025);
    assert_error(text, 2050, "JSON nesting depth limit exceeded (1024 levels)");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/json/format", test_format);
    g_test_add_func("/json/pretty", test_pretty);
    g_test_add_func("/json/numbers", test_numbers);
    g_test_add_func("/json/bad-text", test_bad_text);
    g_test_add_func("/json/object", test_object);
    g_test_add_func("/json/big-object", test_big_object);
    g_test_add_func("/json/big-duplicate", test_big_duplicate);
    g_test_add_func("/json/clone-and-equal", test_clone_and_equal);
    g_test_add_func("/json/equal-numbers", test_equal_numbers);
    g_test_add_func("/json/depth", test_depth);
    return g_test_run();
}
