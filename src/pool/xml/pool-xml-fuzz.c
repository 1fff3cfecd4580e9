/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any text as the XML of a pool: what is accepted comes out as something that means the same. */
#include <assert.h>
#include <glib.h>
#include <stdint.h>
#include <string.h>

#include "pool/pool-def.h"
#include "pool/pool-error.h"
#include "pool/xml/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    AUTO(pool_error) error = NULL;
    AUTO(pool_def) def = pool_def_parse(text, true, &error);
    AUTO(pool_def) again = NULL;
    g_autofree char *first = NULL;
    g_autofree char *second = NULL;

    (void)!xml_check_pool(text, NULL);
    if (!def)
        return 0;
    first = pool_def_format(def);
    again = pool_def_parse(first, false, NULL);
    assert(again);
    second = pool_def_format(again);
    assert(!strcmp(first, second));
    return 0;
}
