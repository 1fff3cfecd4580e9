/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/error.h"
#include "schema/test-types.h"

static void test_parse(void)
{
    static const struct {
        const char *text;
        const char *json;
    } cases[] = {
        {"", "{}"},
        {"file", "{\"driver\": \"file\"}"},
        {"file,a=1", "{\"driver\": \"file\", \"a\": \"1\"}"},
        {"file,,x,a=1", "{\"driver\": \"file,x\", \"a\": \"1\"}"},
        {"a=1,", "{\"a\": \"1\"}"},
        {"a=", "{\"a\": \"\"}"},
        {"a=b=c", "{\"a\": \"b=c\"}"},
        {"a=x,,y,b=,,", "{\"a\": \"x,y\", \"b\": \",\"}"},
        {"a=1,a=2", "{\"a\": \"2\"}"},
        {"a=1,,,b=2", "{\"a\": \"1,\", \"b\": \"2\"}"},
        {"a.b.c=1,a.b.d=2,a.e=3", "{\"a\": {\"b\": {\"c\": \"1\", \"d\": \"2\"}, \"e\": \"3\"}}"},
        {"a.1=y,a.0=x", "{\"a\": [\"x\", \"y\"]}"},
        {"a.0.b=1,a.1.b=2,a.0.c=3", "{\"a\": [{\"b\": \"1\", \"c\": \"3\"}, {\"b\": \"2\"}]}"},
        {"a.0.0=1,a.0.1=2", "{\"a\": [[\"1\", \"2\"]]}"},
        {"a.00=x,a.001=y", "{\"a\": [\"x\", \"y\"]}"},
        {"a-b_c9=1", "{\"a-b_c9\": \"1\"}"},
        {"help=1,a=help", "{\"help\": \"1\", \"a\": \"help\"}"},
        {"{'a': 1, 'b': [true]}", "{\"a\": 1, \"b\": [true]}"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        AUTO(error) err = NULL;
        AUTO(json) value = keyval_parse(cases[i].text, "driver", NULL, &err);
        g_autofree char *text = NULL;

        g_assert_cmpstr(err ? error_message(err) : "", ==, "");
        text = json_format(value, false);
        g_assert_cmpstr(text, ==, cases[i].json);
    }
}

static void test_refused(void)
{
    g_autofree char *key = g_strnfill(128, 'k');
    g_autofree char *long_key = g_strconcat(key, "=1", NULL);
    const struct {
        const char *text;
        const char *error;
    } cases[] = {
        {"=5", "Invalid parameter ''"},
        {",a=1", "Invalid parameter ''"},
        {"a=1,b", "Expected '=' after parameter 'b'"},
        {"a..b=1", "Invalid parameter 'a..b'"},
        {".a=1", "Invalid parameter '.a'"},
        {"a.=1", "Invalid parameter 'a.'"},
        {"1=2", "Invalid parameter '1'"},
        {"a b=c", "Invalid parameter 'a b'"},
        {"-a=1", "Invalid parameter '-a'"},
        {"a.-1=1", "Invalid parameter 'a.-1'"},
        {"a.0b=1", "Invalid parameter 'a.0b'"},
        {"\xc3\xa9=1", "Invalid parameter '\xc3\xa9'"},
        {"a.0=1,a.2=2", "Parameter 'a.1' missing"},
        {"a.b.1=1", "Parameter 'a.b.0' missing"},
        {"a.99999999999999999999=1", "Parameter 'a.0' missing"},
        {"a.0=1,a.b=2", "Parameters 'a.*' used inconsistently"},
        {"a=1,a.b=2", "Parameters 'a.*' used inconsistently"},
        {"a.b=1,a=2", "Parameters 'a.*' used inconsistently"},
        {"a.b.c=1,a.b=2", "Parameters 'a.b.*' used inconsistently"},
        {long_key, "Invalid parameter 'kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk...': longer than 127 bytes"},
        {"a,help", "Help is not available for this option"},
        {"{'a'}", "JSON parse error, missing : in object pair (line 1, column 5)"},
        {"{} x", "Expecting at most one JSON value"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        AUTO(error) err = NULL;

        g_assert_null(keyval_parse(cases[i].text, "driver", NULL, &err));
        g_assert_cmpstr(error_message(err), ==, cases[i].error);
    }
}

static void test_no_implied_key(void)
{
    AUTO(error) err = NULL;

    g_assert_null(keyval_parse("file", NULL, NULL, &err));
    g_assert_cmpstr(error_message(err), ==, "Expected '=' after parameter 'file'");
}

static void test_help(void)
{
    static const struct {
        const char *text;
        bool help;
    } cases[] = {
        {"help", true},   {"?", true},          {"secret,help", true}, {"help,secret", true}, {"type=nbd,?", true},
        {"helpx", false}, {"type=help", false}, {"help=1", false},     {"help,,x", false},    {"{}", false},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        bool help = !cases[i].help;
        AUTO(json) value = keyval_parse(cases[i].text, "type", &help, NULL);

        g_assert_nonnull(value);
        g_assert_true(help == cases[i].help);
    }
}

/* Scalars are found in strings. */
static void test_typed(void)
{
    static const struct {
        const char *text;
        const char *json;
    } cases[] = {
        {"scalars.bool=on", "{\"scalars\": {\"bool\": true}}"},
        {"scalars.bool=y", "{\"scalars\": {\"bool\": true}}"},
        {"scalars.bool=false", "{\"scalars\": {\"bool\": false}}"},
        {"scalars.i8=-128,scalars.u8=0xff", "{\"scalars\": {\"i8\": -128, \"u8\": 255}}"},
        {"scalars.u64=18446744073709551615", "{\"scalars\": {\"u64\": 18446744073709551615}}"},
        {"scalars.size=1.5k", "{\"scalars\": {\"size\": 1536}}"},
        {"scalars.size=4G", "{\"scalars\": {\"size\": 4294967296}}"},
        {"scalars.number=-1.5e3", "{\"scalars\": {\"number\": -1500}}"},
        {"scalars.str=1,scalars.any=on", "{\"scalars\": {\"str\": \"1\", \"any\": \"on\"}}"},
        {"scalars.color=red", "{\"scalars\": {\"color\": \"red\"}}"},
        {"ref=5", "{\"ref\": \"5\"}"},
        {"ref.0=on,ref.1.kind=empty", "{\"ref\": [\"on\", {\"kind\": \"empty\"}]}"},
        {"loose=off", "{\"loose\": false}"},
        {"bytes.0=1,bytes.1=2", "{\"bytes\": [1, 2]}"},
        {"{'scalars': {'int': 5, 'bool': true}}", "{\"scalars\": {\"int\": 5, \"bool\": true}}"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        AUTO(json) value = keyval_parse(cases[i].text, NULL, NULL, NULL);
        AUTO(error) err = NULL;
        AUTO(tree) tree = tree_parse_keyval(value, &err);
        AUTO(json) written = NULL;
        g_autofree char *text = NULL;

        g_assert_cmpstr(err ? error_message(err) : "", ==, "");
        written = tree_write(tree);
        text = json_format(written, false);
        g_assert_cmpstr(text, ==, cases[i].json);
    }
}

static void test_typed_refused(void)
{
    static const struct {
        const char *text;
        const char *error;
    } cases[] = {
        {"scalars.bool=maybe", "Parameter 'scalars.bool' expects 'on' or 'off', not 'maybe'"},
        {"scalars.bool=On", "Parameter 'scalars.bool' expects 'on' or 'off', not 'On'"},
        {"scalars.int=1k", "Parameter 'scalars.int' expects integer, not '1k'"},
        {"scalars.int=", "Parameter 'scalars.int' expects integer, not ''"},
        {"scalars.i8=128", "Parameter 'scalars.i8' expects int8_t, not '128'"},
        {"scalars.u64=-1", "Parameter 'scalars.u64' expects uint64_t, not '-1'"},
        {"scalars.u64=18446744073709551616", "Parameter 'scalars.u64' expects integer, not '18446744073709551616'"},
        {"scalars.number=inf", "Parameter 'scalars.number' expects number, not 'inf'"},
        {"scalars.size=-1", "Parameter 'scalars.size' expects size (a number below 2^64, with an optional suffix k, M, "
                            "G, T, P or E), not '-1'"},
        {"scalars=1", "Invalid parameter type for 'scalars', expected: object"},
        {"shapes.0.kind=circle", "Parameter 'shapes.0.radius' is missing"},
        {"shapes.0.kind=polygon,shapes.0.points.0.x=1", "Parameter 'shapes.0.points.0.y' is missing"},
        {"x.y=1", "Parameter 'x' is unexpected"},
        {"{'scalars': {'int': '5'}}", "Invalid parameter type for 'scalars.int', expected: integer"},
        {"{'names': [1]}", "Invalid parameter type for 'names[0]', expected: string"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        AUTO(json) value = keyval_parse(cases[i].text, NULL, NULL, NULL);
        AUTO(error) err = NULL;

        g_assert_nonnull(value);
        g_assert_null(tree_parse_keyval(value, &err));
        g_assert_cmpstr(error_message(err), ==, cases[i].error);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/keyval/parse", test_parse);
    g_test_add_func("/keyval/refused", test_refused);
    g_test_add_func("/keyval/no-implied-key", test_no_implied_key);
    g_test_add_func("/keyval/help", test_help);
    g_test_add_func("/keyval/typed", test_typed);
    g_test_add_func("/keyval/typed-refused", test_typed_refused);
    return g_test_run();
}
