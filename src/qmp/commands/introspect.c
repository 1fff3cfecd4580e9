/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The description of the interface for programs. */
#include <assert.h>

#include "gen/commands.h"
#include "gen/introspect.h"
#include "schema/json.h"

bool co_qmp_query_qmp_schema(struct daemon *daemon, struct json **ret, struct error **err)
{
    struct json *schema = json_parse(introspection, introspection_size, err);

    assert(schema);
    *ret = schema;
    return true;
}
