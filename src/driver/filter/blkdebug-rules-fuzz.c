/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any text as a file of rules, and then the rules in use. */
#include <assert.h>
#include <glib.h>

#include "base/error.h"
#include "driver/filter/blkdebug-rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    struct blkdebug_rules rules;
    AUTO(error) error = NULL;
    bool immediately;

    blkdebug_rules_init(&rules);
    if (!blkdebug_rules_add_text(&rules, text, &error))
        assert(error_message(error)[0]);
    for (unsigned event = 0; event < BLKDEBUG_EVENT__MAX; event++) {
        blkdebug_rules_event(&rules, (enum blkdebug_event)event);
        for (unsigned type = 0; type < BLKDEBUG_IO_TYPE__MAX; type++)
            assert(blkdebug_rules_check(&rules, (enum blkdebug_io_type)type, 512 * type, 1024, &immediately) <= 0);
    }
    blkdebug_rules_done(&rules);
    return 0;
}
