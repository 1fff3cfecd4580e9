/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/command.h"

#include "base/error.h"
#include "schema/json.h"

bool qmp_command_takes_none(const struct json *arguments, struct error **err)
{
    const char *key;

    if (!json_count(arguments))
        return true;
    (void)json_member(arguments, 0, &key);
    return error_set(err, "Parameter '%s' is unexpected", key);
}
