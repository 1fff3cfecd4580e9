/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* authz-list: rules that are tried in order. */
#include <fnmatch.h>
#include <string.h>

#include "base/error.h"
#include "object/authz-internal.h"
#include "schema/json.h"

struct authz_list {
    struct auth_z_list_properties *list; /* policy and rules always set */
};

static bool rule_matches(const struct q_auth_z_list_rule *rule, const char *identity)
{
    if (rule->has_format && rule->format == Q_AUTH_Z_LIST_FORMAT_GLOB)
        return fnmatch(rule->match, identity, 0) == 0;
    return !strcmp(rule->match, identity);
}

bool authz_list_allows(const struct auth_z_list_properties *list, const char *identity)
{
    for (size_t i = 0; list->rules && i < list->rules->count; i++) {
        const struct q_auth_z_list_rule *rule = list->rules->items[i];

        if (rule_matches(rule, identity))
            return rule->policy == Q_AUTH_Z_LIST_POLICY_ALLOW;
    }
    return list->has_policy && list->policy == Q_AUTH_Z_LIST_POLICY_ALLOW;
}

static bool CO_FN list_co_create(struct object *object, const struct object_options *options, struct error **err)
{
    struct authz_list *state = object_state(object);

    state->list = auth_z_list_properties_clone(&options->u.authz_list);
    if (!state->list->has_policy) {
        state->list->has_policy = true;
        state->list->policy = Q_AUTH_Z_LIST_POLICY_DENY;
    }
    if (!state->list->rules)
        state->list->rules = g_new0(struct q_auth_z_list_rule_array, 1);
    return true;
}

static void CO_FN list_co_destroy(struct object *object)
{
    struct authz_list *state = object_state(object);

    auth_z_list_properties_free(state->list);
}

bool co_authz_list_decide(struct object *object, const char *identity, bool *ret, struct error **err)
{
    const struct authz_list *state = object_state(object);

    *ret = authz_list_allows(state->list, identity);
    return true;
}

static struct json *get_policy(struct object *object, const struct object_property *property)
{
    const struct authz_list *state = object_state(object);

    return json_string(q_auth_z_list_policy_name(state->list->policy));
}

static bool set_policy(struct object *object, const struct object_property *property, const struct json *value,
                       struct error **err)
{
    struct authz_list *state = object_state(object);

    if (json_get_kind(value) != JSON_STRING)
        return error_set(err, "Invalid parameter type for 'policy', expected: string");
    int policy = q_auth_z_list_policy_value(json_get_string(value));
    if (policy < 0)
        return error_set(err, "Parameter 'policy' does not accept value '%s'", json_get_string(value));
    state->list->policy = (enum q_auth_z_list_policy)policy;
    return true;
}

static struct json *get_rules(struct object *object, const struct object_property *property)
{
    const struct authz_list *state = object_state(object);

    return q_auth_z_list_rule_array_write(state->list->rules);
}

static bool set_rules(struct object *object, const struct object_property *property, const struct json *value,
                      struct error **err)
{
    struct authz_list *state = object_state(object);
    AUTO(json) whole = json_object();

    json_set(whole, "rules", json_clone(value));
    AUTO(auth_z_list_properties) list = auth_z_list_properties_parse(whole, err);
    if (!list)
        return false;
    q_auth_z_list_rule_array_free(state->list->rules);
    state->list->rules = TAKE(list->rules);
    return true;
}

static const struct object_property properties[] = {
    {.name = "policy",
     .type = "QAuthZListPolicy",
     .description = "outcome when no rule matches",
     .get = get_policy,
     .co_set = set_policy},
    {.name = "rules",
     .type = "QAuthZListRule",
     .description = "the rules, in order",
     .get = get_rules,
     .co_set = set_rules},
    {.name = NULL},
};

const struct object_class authz_list_class = {
    .type = OBJECT_TYPE_AUTHZ_LIST,
    .state_size = sizeof(struct authz_list),
    .properties = properties,
    .may_outlive_name = true,
    .co_create = list_co_create,
    .co_destroy = list_co_destroy,
};
