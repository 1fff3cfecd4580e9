/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* authz-simple: one identity is let in. */
#include <string.h>

#include "base/error.h"
#include "object/authz-internal.h"
#include "schema/json.h"

struct authz_simple {
    char *identity;
};

static bool CO_FN simple_co_create(struct object *object, const struct object_options *options, struct error **err)
{
    struct authz_simple *simple = object_state(object);

    simple->identity = g_strdup(options->u.authz_simple.identity);
    return true;
}

static void CO_FN simple_co_destroy(struct object *object)
{
    struct authz_simple *simple = object_state(object);

    g_free(simple->identity);
}

bool co_authz_simple_decide(struct object *object, const char *identity, bool *ret, struct error **err)
{
    const struct authz_simple *simple = object_state(object);

    *ret = !strcmp(simple->identity, identity);
    return true;
}

static struct json *get_identity(struct object *object, const struct object_property *property)
{
    const struct authz_simple *simple = object_state(object);

    return json_string(simple->identity);
}

static bool set_identity(struct object *object, const struct object_property *property, const struct json *value,
                         struct error **err)
{
    struct authz_simple *simple = object_state(object);

    if (json_get_kind(value) != JSON_STRING)
        return error_set(err, "Invalid parameter type for 'identity', expected: string");
    g_free(simple->identity);
    simple->identity = g_strdup(json_get_string(value));
    return true;
}

static const struct object_property properties[] = {
    {.name = "identity", .type = "string", .description = "who is let in", .get = get_identity, .co_set = set_identity},
    {.name = NULL},
};

const struct object_class authz_simple_class = {
    .type = OBJECT_TYPE_AUTHZ_SIMPLE,
    .state_size = sizeof(struct authz_simple),
    .properties = properties,
    .may_outlive_name = true,
    .co_create = simple_co_create,
    .co_destroy = simple_co_destroy,
};
