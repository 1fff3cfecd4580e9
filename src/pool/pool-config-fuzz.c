/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The configuration file. */
#include <glib.h>

#include "base/error.h"
#include "pool/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    AUTO(pool_config) config = pool_config_new();
    AUTO(error) error = NULL;

    g_assert_true(pool_config_parse(config, text, "f", &error) == !error);
    return 0;
}
