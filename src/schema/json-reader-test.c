/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "schema/json.h"

#include <string.h>

#include "base/error.h"

/* What comes out of a reader: values as text, errors as "!" and the text up to the place; one a line. */
static char *outcomes(const char *text, size_t size, size_t piece, const struct json_limits *limits)
{
    AUTO(json_reader) reader = json_reader_new(limits);
    GString *out = g_string_new(NULL);

    for (size_t done = 0; done < size; done += piece) {
        struct json *value;
        struct error *err = NULL;

        json_reader_feed(reader, text + done, MIN(piece, size - done));
        while (json_reader_next(reader, &value, &err)) {
            g_assert_true(!value != !err);
            if (value)
                json_format_append(out, value, false);
            else
                g_string_append_printf(out, "!%s", error_message(err));
            g_string_append_c(out, '\n');
            json_free(value);
            error_free(TAKE(err));
        }
    }
    return g_string_free(out, FALSE);
}

static void assert_outcomes_sized(const char *text, size_t size, const char *expected)
{
    static const size_t pieces[] = {1, 2, 3, 7, 100000};

    for (size_t i = 0; i < G_N_ELEMENTS(pieces); i++) {
        g_autofree char *out = outcomes(text, size, pieces[i], NULL);

        g_assert_cmpstr(out, ==, expected);
    }
}

static void assert_outcomes(const char *text, const char *expected)
{
    assert_outcomes_sized(text, strlen(text), expected);
}

static void test_stream(void)
{
    assert_outcomes("{'a':1}{\"b\":\"\\ud83d\\ude00\"}\n\n[1,2.5e3] 'x'12 true\n",
                    "{\"a\": 1}\n{\"b\": \"\\uD83D\\uDE00\"}\n[1, 2500]\n\"x\"\n12\ntrue\n");
    assert_outcomes("{'a':\n", "");
}

/* One bad input gives one error, and what follows is read. */
static void test_one_error(void)
{
    assert_outcomes("garbage and more\n{'a':1}\n",
                    "!JSON parse error, invalid keyword 'garbage' (line 1, column 1)\n{\"a\": 1}\n");
    assert_outcomes("garbage{'a':1}", "!JSON parse error, invalid keyword 'garbage' (line 1, column 1)\n{\"a\": 1}\n");
    assert_outcomes("}}]{'a':1}", "!JSON parse error, expecting value (line 1, column 1)\n{\"a\": 1}\n");
    assert_outcomes("{'x': bad, 'y': {'z': [1, 2]}, 'w': '}'} {'a':1}",
                    "!JSON parse error, invalid keyword 'bad' (line 1, column 7)\n{\"a\": 1}\n");
    assert_outcomes("{\n  'x': bad,\n  'y': {\n    'z': 1\n  }\n}\n{'a':1}",
                    "!JSON parse error, invalid keyword 'bad' (line 2, column 8)\n{\"a\": 1}\n");
    assert_outcomes("{'x':'\\q','y':'\"}'}{'a':1}",
                    "!JSON parse error, invalid escape sequence in string (line 1, column 8)\n{\"a\": 1}\n");
    assert_outcomes("[1}{'a':1}", "!JSON parse error, expected separator in list (line 1, column 3)\n{\"a\": 1}\n");
    assert_outcomes("[[1}]{'a':1}", "!JSON parse error, expected separator in list (line 1, column 4)\n{\"a\": 1}\n");
    assert_outcomes("{'x':1e999}{'a':1}",
                    "!JSON parse error, number 1e999 is out of range (line 1, column 6)\n{\"a\": 1}\n");
    assert_outcomes("{'x':1,'x':2}{'a':1}", "!JSON parse error, duplicate key 'x' (line 1, column 12)\n{\"a\": 1}\n");
    assert_outcomes("[{'x':1,'x':2}]{'a':1}", "!JSON parse error, duplicate key 'x' (line 1, column 13)\n{\"a\": 1}\n");
}

/* What is inside a bad value is not taken for a value. */
static void test_nothing_from_inside(void)
{
    assert_outcomes("{'x' {'execute':'quit'}, '{': {'execute':'quit'} }{'a':1}",
                    "!JSON parse error, missing : in object pair (line 1, column 6)\n{\"a\": 1}\n");
    assert_outcomes("[[\n bad,\n  {'execute':'quit'}]]\n{'a':1}",
                    "!JSON parse error, invalid keyword 'bad' (line 2, column 2)\n{\"a\": 1}\n");
    assert_outcomes("{'x':'\\x {', 'y':{'execute':'quit'}}",
                    "!JSON parse error, invalid escape sequence in string (line 1, column 8)\n");
}

/* A command that was cut off ends where a line begins with a new one. */
static void test_cut_off(void)
{
    assert_outcomes("{'execute':'fo\n{'a':1}\n",
                    "!JSON parse error, control character 0x0a in string (line 1, column 15)\n{\"a\": 1}\n");
    assert_outcomes("{'execute':'foo'\n{'a':1}\n",
                    "!JSON parse error, expected separator in dict (line 2, column 1)\n{\"a\": 1}\n");
    assert_outcomes("{'execute':\n{'a':1}}\n", "{\"execute\": {\"a\": 1}}\n");
    assert_outcomes("[[[[[ # \n{'a':1}\n", "!JSON parse error, stray '#' (line 1, column 7)\n{\"a\": 1}\n");
    assert_outcomes("{'x':['y\xff{'a':1}\n",
                    "!JSON parse error, invalid UTF-8 in string: byte 0xff (line 1, column 9)\n{\"a\": 1}\n");
    assert_outcomes_sized("{'x':'a\0b'}{'a':1}", 18,
                          "!JSON parse error, control character 0x00 in string (line 1, column 8)\n{\"a\": 1}\n");
}

static void test_depth_limit(void)
{
    static const size_t depths[] = {1025, 10000};

    for (size_t i = 0; i < G_N_ELEMENTS(depths); i++) {
        g_autofree char *opening = g_strnfill(depths[i], '[');
        g_autofree char *closing = g_strnfill(depths[i], ']');
        g_autofree char *closed = g_strconcat(opening, closing, "{'a':1}", NULL);
        g_autofree char *left_open = g_strconcat(opening, "\n{'a':1}", NULL);

        assert_outcomes(closed, "!JSON nesting depth limit exceeded (1024 levels)\n{\"a\": 1}\n");
        assert_outcomes(left_open, "!JSON nesting depth limit exceeded (1024 levels)\n{\"a\": 1}\n");
    }
}

static void test_size_limit(void)
{
    static const struct json_limits limits = {.bytes = 10, .depth = 2, .tokens = 7};
    static const struct {
        const char *text;
        const char *expected;
    } cases[] = {
        {"          '12345678'", "\"12345678\"\n"},
        {"'123456789'\n1\n", "!JSON token size limit exceeded (10 bytes)\n1\n"},
        {"['123456789']1\n", "!JSON token size limit exceeded (10 bytes)\n1\n"},
        {"[          ]1\n", "!JSON token size limit exceeded (10 bytes)\n1\n"},
        {"12345678901 2\n3\n", "!JSON token size limit exceeded (10 bytes)\n3\n"},
        {"[1,2,3]", "[1, 2, 3]\n"},
        {"[1,2,3,4][1]", "!JSON token count limit exceeded (7 tokens)\n[1]\n"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        for (size_t piece = 1; piece < 30; piece++) {
            g_autofree char *out = outcomes(cases[i].text, strlen(cases[i].text), piece, &limits);

            g_assert_cmpstr(out, ==, cases[i].expected);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/json-reader/stream", test_stream);
    g_test_add_func("/json-reader/one-error", test_one_error);
    g_test_add_func("/json-reader/nothing-from-inside", test_nothing_from_inside);
    g_test_add_func("/json-reader/cut-off", test_cut_off);
    g_test_add_func("/json-reader/depth-limit", test_depth_limit);
    g_test_add_func("/json-reader/size-limit", test_size_limit);
    return g_test_run();
}
