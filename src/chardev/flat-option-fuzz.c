/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any text as the value of --chardev: it is refused with a reason, or becomes a backend that the schema can check. */
#include <assert.h>
#include <glib.h>

#include "base/error.h"
#include "chardev/flat-option.h"
#include "gen/types.h"
#include "schema/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_backend(const struct json *json)
{
    AUTO(error) err = NULL;
    AUTO(chardev_backend) backend = chardev_backend_parse(json, &err);
    AUTO(json) again = NULL;

    assert(!backend == !!err);
    if (!backend)
        return;
    again = chardev_backend_write(backend);
    assert(json_equal(json, again));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    struct flat_option option = {0};
    AUTO(error) err = NULL;
    g_autofree char *help = NULL;

    if (!flat_option_parse(text, &option, &err)) {
        assert(err);
        return 0;
    }
    assert(!err);
    if (option.help) {
        help = flat_option_help(option.type);
    } else {
        assert(option.id && *option.id);
        check_backend(option.backend);
    }
    flat_option_done(&option);
    return 0;
}
