/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any text as the XML of a secret: what is accepted comes out as something that means the same. */
#include <assert.h>
#include <glib.h>
#include <stdint.h>
#include <string.h>

#include "pool/pool-error.h"
#include "pool/secret-def.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    AUTO(pool_error) error = NULL;
    AUTO(secret_def) def = secret_def_parse(text, &error);
    AUTO(secret_def) again = NULL;
    g_autofree char *first = NULL;
    g_autofree char *second = NULL;

    if (!def) {
        g_assert_nonnull(error);
        return 0;
    }
    first = secret_def_format(def);
    again = secret_def_parse(first, NULL);
    assert(again);
    second = secret_def_format(again);
    assert(!strcmp(first, second));
    return 0;
}
