/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/units.h"

#include <glib.h>

static void test_size(void)
{
    static const struct {
        const char *text;
        uint64_t value;
    } good[] = {
        {"0", 0},
        {"4096", 4096},
        {"4k", 4096},
        {"4K", 4096},
        {"1.5G", 3ull << 29},
        {"0x10", 16},
        {"1B", 1},
        {"0.5k", 512},
        {"15E", 15ull << 60},
        {"3.", 3},
        {"+1", 1},
        {"+2k", 2048},
        {"18446744073709551615", UINT64_MAX},
    };
    static const char *const bad[] = {
        "", "k", "-1", "+", "++1", "+-1", " 1", "1 ", "1kk", "1x", "16E", "18446744073709551616", "1.5", "0x", "1e3"};
    uint64_t value;

    for (unsigned i = 0; i < G_N_ELEMENTS(good); i++) {
        g_assert_true(size_parse(good[i].text, &value));
        g_assert_cmpuint(value, ==, good[i].value);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        value = 77;
        g_assert_false(size_parse(bad[i], &value));
        g_assert_cmpuint(value, ==, 77);
    }
}

static void test_int64(void)
{
    int64_t value;

    g_assert_true(int64_parse("-9223372036854775808", &value));
    g_assert_cmpint(value, ==, INT64_MIN);
    g_assert_true(int64_parse("9223372036854775807", &value));
    g_assert_cmpint(value, ==, INT64_MAX);
    g_assert_false(int64_parse("9223372036854775808", &value));
    g_assert_false(int64_parse("-9223372036854775809", &value));
    g_assert_false(int64_parse("--1", &value));
    g_assert_false(int64_parse("", &value));
    g_assert_false(int64_parse("1M", &value));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/units/size", test_size);
    g_test_add_func("/units/int64", test_int64);
    return g_test_run();
}
