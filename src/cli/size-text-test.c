/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/size-text.h"

#include <glib.h>

static void test_texts(void)
{
    static const struct {
        uint64_t bytes;
        const char *want;
    } cases[] = {
        {0, "0 B"},
        {999, "999 B"},
        {1000, "0.977 KiB"},
        {1023487, "999 KiB"},
        {1023488, "0.976 MiB"},
        {1536, "1.5 KiB"},
        {102400, "100 KiB"},
        {1048575, "1 MiB"},
        {123457024, "118 MiB"},
        {UINT64_C(5) << 40, "5 TiB"},
        {UINT64_MAX, "16 EiB"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *text = size_text(cases[i].bytes);

        g_assert_cmpstr(text, ==, cases[i].want);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/size/texts", test_texts);
    return g_test_run();
}
