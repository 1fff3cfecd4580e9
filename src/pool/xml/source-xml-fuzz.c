/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any text as what is given to find sources by, for each type of pool. */
#include <glib.h>
#include <stdint.h>

#include "pool/pool-def.h"
#include "pool/pool-error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    enum pool_type type = (enum pool_type)(size % POOL_TYPE__MAX);
    AUTO(pool_error) error = NULL;
    struct pool_source source;

    if (pool_source_parse(text, type, &source, &error))
        pool_source_clear(&source);
    else
        g_assert_nonnull(error);
    return 0;
}
