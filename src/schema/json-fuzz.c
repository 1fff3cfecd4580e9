/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any text: the reader must give the same however it is cut, and what it gives must be written and read as the same. */
#include "schema/json.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_value(const struct json *value)
{
    g_autofree char *text = json_format(value, false);
    g_autofree char *pretty = json_format(value, true);
    AUTO(json) same = json_parse(text, strlen(text), NULL);
    AUTO(json) same_pretty = json_parse(pretty, strlen(pretty), NULL);
    AUTO(json) copy = json_clone(value);

    assert(same && json_equal(value, same));
    assert(same_pretty && json_equal(value, same_pretty));
    assert(json_equal(value, copy));
}

/* Everything that comes out, as text. */
static char *outcomes(const uint8_t *data, size_t size, size_t piece)
{
    static const struct json_limits limits = {.bytes = 4096, .depth = 32, .tokens = 512};
    AUTO(json_reader) reader = json_reader_new(&limits);
    GString *out = g_string_new(NULL);

    for (size_t done = 0; done < size; done += piece) {
        struct json *value;
        struct error *err = NULL;

        json_reader_feed(reader, (const char *)data + done, MIN(piece, size - done));
        while (json_reader_next(reader, &value, &err)) {
            assert(!value != !err);
            if (value) {
                check_value(value);
                json_format_append(out, value, false);
            } else {
                g_string_append(out, error_message(err));
            }
            g_string_append_c(out, '\n');
            json_free(value);
            error_free(TAKE(err));
        }
    }
    return g_string_free(out, FALSE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *whole = outcomes(data, size, MAX(size, 1));
    g_autofree char *bytes = outcomes(data, size, 1);
    g_autofree char *pieces = outcomes(data, size, 5);
    AUTO(error) err = NULL;
    AUTO(json) value = json_parse((const char *)data, size, &err);

    assert(!strcmp(whole, bytes));
    assert(!strcmp(whole, pieces));
    assert(!value != !err);
    return 0;
}
