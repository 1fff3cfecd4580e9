/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/object-option.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "gen/types.h"
#include "object/object.h"
#include "schema/json.h"
#include "schema/schema.h"

static bool is_offered(void *opaque, const char *value)
{
    for (const struct object_class *const *class = object_classes; *class; class ++) {
        if (!strcmp(object_type_name((*class)->type), value))
            return true;
    }
    return false;
}

bool CO_FN co_object_option_apply(struct object_registry *objects, const char *text, bool *ret_help, struct error **err)
{
    AUTO(json) json = keyval_parse(text, "qom-type", ret_help, err);
    AUTO(object_options) options = NULL;

    if (!json)
        return false;
    if (*ret_help) {
        g_autofree char *explained = schema_help_text(&object_options_type, json, is_offered, NULL, err);

        if (explained)
            printf("%s", explained);
        return explained;
    }
    options = text[0] == '{' ? object_options_parse(json, err) : object_options_parse_keyval(json, err);
    return options && co_object_add(objects, options, err);
}
