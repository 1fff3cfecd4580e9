/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "gen/types.h"
#include "schema/json.h"
#include "schema/schema.h"

/* A command line goes to a struct, and from there to the JSON that QMP would have brought. */
static void test_keyval_to_struct(void)
{
    AUTO(error) err = NULL;
    AUTO(json)
    given = keyval_parse("driver=raw,node-name=r,cache.direct=on,offset=512,file.driver=file,file.filename=a,,b", NULL,
                         NULL, &err);
    g_assert_nonnull(given);
    AUTO(blockdev_options) options = blockdev_options_parse_keyval(given, &err);

    g_assert_null(err);
    g_assert_cmpint(options->driver, ==, BLOCKDEV_DRIVER_RAW);
    g_assert_cmpstr(options->node_name, ==, "r");
    g_assert_true(options->cache->direct);
    g_assert_true(options->u.raw.has_offset);
    g_assert_cmpint(options->u.raw.offset, ==, 512);
    g_assert_cmpint(options->u.raw.file->kind, ==, BLOCKDEV_REF_KIND_DEFINITION);
    g_assert_cmpstr(options->u.raw.file->u.definition->u.file.filename, ==, "a,b");

    AUTO(blockdev_options) copy = blockdev_options_clone(options);
    AUTO(json) written = blockdev_options_write(copy);
    g_autofree char *text = json_format(written, false);
    g_assert_cmpstr(text, ==,
                    "{\"driver\": \"raw\", \"node-name\": \"r\", \"cache\": {\"direct\": true}, \"file\": "
                    "{\"driver\": \"file\", \"filename\": \"a,b\"}, \"offset\": 512}");
    AUTO(blockdev_options) again = blockdev_options_parse(written, &err);
    g_assert_nonnull(again);
}

static void test_refused(void)
{
    static const struct {
        const char *text;
        const char *message;
    } table[] = {
        {"{}", "Parameter 'driver' is missing"},
        {"[]", "Invalid type of the whole value, expected: object"},
        {"{'driver': 'nope'}", "Parameter 'driver' does not accept value 'nope'"},
        {"{'driver': 'file'}", "Parameter 'filename' is missing"},
        {"{'driver': 'null-co', 'filename': 'x'}", "Parameter 'filename' is unexpected"},
        {"{'driver': 'null-co', 'cache': {'direct': 1}}",
         "Invalid parameter type for 'cache.direct', expected: boolean"},
        {"{'driver': 'null-co', 'cache': {'dir': true}}", "Parameter 'cache.dir' is unexpected"},
        {"{'driver': 'null-co', 'size': '1'}", "Invalid parameter type for 'size', expected: integer"},
        {"{'driver': 'null-co', 'size': 9223372036854775808}", "Invalid parameter type for 'size', expected: integer"},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        AUTO(error) err = NULL;
        AUTO(json) value = json_parse(table[i].text, strlen(table[i].text), &err);

        g_assert_nonnull(value);
        g_assert_null(blockdev_options_parse(value, &err));
        g_assert_cmpstr(error_message(err), ==, table[i].message);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/parse/keyval", test_keyval_to_struct);
    g_test_add_func("/parse/refused", test_refused);
    return g_test_run();
}
