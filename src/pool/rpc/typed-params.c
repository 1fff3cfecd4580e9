/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/rpc/typed-params.h"

#include <assert.h>
#include <string.h>

#include "pool/pool-error.h"
#include "pool/rpc/xdr.h"

static const char *const type_names[] = {
    [TYPED_PARAM_INT] = "int",       [TYPED_PARAM_UINT] = "uint",     [TYPED_PARAM_LLONG] = "llong",
    [TYPED_PARAM_ULLONG] = "ullong", [TYPED_PARAM_DOUBLE] = "double", [TYPED_PARAM_BOOLEAN] = "boolean",
    [TYPED_PARAM_STRING] = "string",
};

struct typed_params *typed_params_new(void)
{
    return g_new0(struct typed_params, 1);
}

void typed_params_free(struct typed_params *params)
{
    if (!params)
        return;
    for (size_t i = 0; i < params->count; i++) {
        g_free(params->items[i].name);
        g_free(params->items[i].string);
    }
    g_free(params);
}

static struct typed_param *add(struct typed_params *params, const char *name, enum typed_param_type type)
{
    assert(params->count < TYPED_PARAMS_MAX);

    struct typed_param *param = &params->items[params->count++];
    param->name = g_strdup(name);
    param->type = type;
    return param;
}

void typed_params_add_uint(struct typed_params *params, const char *name, uint32_t value)
{
    add(params, name, TYPED_PARAM_UINT)->number = value;
}

void typed_params_add_int(struct typed_params *params, const char *name, int32_t value)
{
    add(params, name, TYPED_PARAM_INT)->number = (uint32_t)value;
}

void typed_params_add_boolean(struct typed_params *params, const char *name, bool value)
{
    add(params, name, TYPED_PARAM_BOOLEAN)->number = value;
}

void typed_params_add_llong(struct typed_params *params, const char *name, int64_t value)
{
    add(params, name, TYPED_PARAM_LLONG)->number = (uint64_t)value;
}

void typed_params_add_ullong(struct typed_params *params, const char *name, uint64_t value)
{
    add(params, name, TYPED_PARAM_ULLONG)->number = value;
}

void typed_params_add_string(struct typed_params *params, const char *name, const char *value)
{
    add(params, name, TYPED_PARAM_STRING)->string = g_strdup(value);
}

const struct typed_param *typed_params_find(const struct typed_params *params, const char *name)
{
    for (size_t i = 0; i < params->count; i++) {
        if (!strcmp(params->items[i].name, name))
            return &params->items[i];
    }
    return NULL;
}

static const struct typed_param_rule *find_rule(const struct typed_param_rule *rules, const char *name)
{
    while (rules->name && strcmp(rules->name, name) != 0)
        rules++;
    return rules->name ? rules : NULL;
}

bool typed_params_check(const struct typed_params *params, const struct typed_param_rule *rules,
                        struct pool_error **err)
{
    for (size_t i = 0; i < params->count; i++) {
        const struct typed_param *param = &params->items[i];
        const struct typed_param_rule *rule = find_rule(rules, param->name);

        if (!rule)
            return pool_error_set_domain(err, POOL_DOMAIN_NONE, POOL_ERROR_ARGUMENT_UNSUPPORTED,
                                         "parameter '%s' not supported", param->name);
        if (param->type != rule->type)
            return pool_error_set_domain(err, POOL_DOMAIN_NONE, POOL_ERROR_INVALID_ARG,
                                         "invalid type '%s' for parameter '%s', expected '%s'", type_names[param->type],
                                         param->name, type_names[rule->type]);
        if (typed_params_find(params, param->name) != param)
            return pool_error_set_domain(err, POOL_DOMAIN_NONE, POOL_ERROR_INVALID_ARG,
                                         "parameter '%s' occurs multiple times", param->name);
    }
    return true;
}

static bool decode_number(struct xdr_reader *reader, struct typed_param *param)
{
    uint32_t word;

    switch (param->type) {
    case TYPED_PARAM_INT:
    case TYPED_PARAM_UINT:
    case TYPED_PARAM_BOOLEAN:
        if (!xdr_get_u32(reader, &word))
            return false;
        param->number = word;
        return true;
    case TYPED_PARAM_LLONG:
    case TYPED_PARAM_ULLONG:
    case TYPED_PARAM_DOUBLE:
        return xdr_get_u64(reader, &param->number);
    case TYPED_PARAM_STRING:
        break;
    }
    return xdr_get_string(reader, &param->string);
}

static bool decode_one(struct xdr_reader *reader, struct typed_param *param)
{
    uint32_t type;

    if (!xdr_get_string(reader, &param->name) || !xdr_get_u32(reader, &type))
        return false;
    if (type < TYPED_PARAM_INT || type > TYPED_PARAM_STRING)
        return false;
    param->type = (enum typed_param_type)type;
    return decode_number(reader, param);
}

bool typed_params_decode(struct xdr_reader *reader, struct typed_params **ret)
{
    AUTO(typed_params) params = typed_params_new();
    size_t count;

    if (!xdr_get_count(reader, TYPED_PARAMS_MAX, &count))
        return false;
    while (params->count < count) {
        if (!decode_one(reader, &params->items[params->count++]))
            return false;
    }
    *ret = TAKE(params);
    return true;
}

void typed_params_encode(const struct typed_params *params, GByteArray *to)
{
    xdr_put_u32(to, (uint32_t)params->count);
    for (size_t i = 0; i < params->count; i++) {
        const struct typed_param *param = &params->items[i];

        xdr_put_string(to, param->name);
        xdr_put_u32(to, param->type);
        if (param->type == TYPED_PARAM_STRING)
            xdr_put_string(to, param->string);
        else if (param->type == TYPED_PARAM_INT || param->type == TYPED_PARAM_UINT ||
                 param->type == TYPED_PARAM_BOOLEAN)
            xdr_put_u32(to, (uint32_t)param->number);
        else
            xdr_put_u64(to, param->number);
    }
}
