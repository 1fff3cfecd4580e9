/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/backend/report.h"

#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "schema/json.h"

static struct json *parse(const char *text)
{
    struct json *value = json_parse(text, strlen(text), NULL);

    g_assert_nonnull(value);
    return value;
}

static void test_rows(void)
{
    AUTO(json)
    report = parse("{\"report\": [{\"lv\": [{\"lv_name\": \"a\", \"lv_size\": \"4194304\"}, {\"lv_name\": \"b\"}]}]}");

    g_assert_cmpuint(report_count(report, "lv"), ==, 2);
    g_assert_cmpuint(report_count(report, "vg"), ==, 0);
    g_assert_cmpstr(report_text(report_row(report, "lv", 0), "lv_name"), ==, "a");
    g_assert_cmpuint(report_number(report_row(report, "lv", 0), "lv_size"), ==, 4194304);
    g_assert_cmpstr(report_text(report_row(report, "lv", 1), "lv_size"), ==, "");
    g_assert_cmpuint(report_number(report_row(report, "lv", 1), "lv_size"), ==, 0);
}

/* What is no report has no rows, and what is no row has no columns. */
static void test_others(void)
{
    static const char *const texts[] = {"[]",
                                        "{}",
                                        "{\"report\": []}",
                                        "{\"report\": [1]}",
                                        "{\"report\": {\"lv\": []}}",
                                        "{\"report\": [{\"lv\": {}}]}"};
    AUTO(json) odd = parse("{\"report\": [{\"lv\": [7, {\"lv_name\": 7}]}]}");

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        AUTO(json) value = parse(texts[i]);

        g_assert_cmpuint(report_count(value, "lv"), ==, 0);
    }
    g_assert_cmpuint(report_count(odd, "lv"), ==, 2);
    g_assert_cmpstr(report_text(report_row(odd, "lv", 0), "lv_name"), ==, "");
    g_assert_cmpstr(report_text(report_row(odd, "lv", 1), "lv_name"), ==, "");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pool/report/rows", test_rows);
    g_test_add_func("/pool/report/others", test_others);
    return g_test_run();
}
