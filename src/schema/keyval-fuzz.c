/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any option's argument: parsed into the types that options take. */
#include <assert.h>

#include "base/error.h"
#include "gen/types.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was taken from the text must be the same when it is written and parsed again. */
static void check_type(const struct schema_type *type, const struct json *value)
{
    AUTO(error) err = NULL;
    AUTO(json) written = NULL;
    AUTO(json) again = NULL;
    void *parsed = schema_parse_keyval(type, value, &err), *same;

    assert(!parsed != !err);
    if (!parsed)
        return;
    written = schema_write(type, parsed);
    schema_free(type, parsed);
    same = schema_parse(type, written, NULL);
    assert(same);
    again = schema_write(type, same);
    schema_free(type, same);
    assert(json_equal(written, again));
}

static void check_help(const struct schema_type *type, const struct json *value)
{
    AUTO(error) err = NULL;
    g_autofree char *text = schema_help_text(type, value, NULL, NULL, &err);

    assert(!text != !err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct schema_type *const types[] = {&blockdev_options_type,     &object_options_type,
                                                      &block_export_options_type, &nbd_server_options_type,
                                                      &monitor_options_type,      &chardev_backend_type};
    g_autofree char *text = g_strndup((const char *)data, size);
    bool help;
    AUTO(error) err = NULL;
    AUTO(json) value = keyval_parse(text, "driver", &help, &err);

    assert(!value != !err);
    for (size_t i = 0; value && i < G_N_ELEMENTS(types); i++) {
        check_type(types[i], value);
        if (help)
            check_help(types[i], value);
    }
    return 0;
}
