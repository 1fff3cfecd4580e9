/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any text as the XML of a volume, for each type of pool: what is accepted comes out as something that means the same.
 */
#include <assert.h>
#include <glib.h>
#include <stdint.h>
#include <string.h>

#include "pool/pool-error.h"
#include "pool/volume.h"
#include "pool/xml/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    enum pool_type type = (enum pool_type)(size % POOL_TYPE__MAX);
    AUTO(volume) volume = volume_parse(text, type, true, NULL);
    AUTO(volume) again = NULL;
    g_autofree char *first = NULL;
    g_autofree char *second = NULL;

    (void)!xml_check_volume(text, POOL_DIR, true, NULL);
    if (!volume)
        return 0;
    first = volume_format_xml(volume, type);
    again = volume_parse(first, type, true, NULL);
    assert(again);
    second = volume_format_xml(again, type);
    assert(!strcmp(first, second));
    return 0;
}
