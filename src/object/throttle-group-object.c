/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The object type throttle-group: a group by its name. All limits are properties on their own (x-...), which only
 * creation sets, and one property `limits` together, which can be set at any time.
 */
#include <inttypes.h>

#include "base/error.h"
#include "object/object.h"
#include "object/throttle-group.h"
#include "schema/json.h"

/* Each limit: member in C, name, kind. */
#define EACH_RATE(X)                                                                                                   \
    X(iops_total, "iops-total", THROTTLE_IOPS_TOTAL)                                                                   \
    X(iops_read, "iops-read", THROTTLE_IOPS_READ)                                                                      \
    X(iops_write, "iops-write", THROTTLE_IOPS_WRITE)                                                                   \
    X(bps_total, "bps-total", THROTTLE_BPS_TOTAL)                                                                      \
    X(bps_read, "bps-read", THROTTLE_BPS_READ)                                                                         \
    X(bps_write, "bps-write", THROTTLE_BPS_WRITE)

static bool check_length(const char *prefix, const char *name, int64_t value, struct error **err)
{
    if (value >= 0 && value <= UINT32_MAX)
        return true;
    return error_set(err, "%s%s-max-length value must be in the range [0, %" PRIu32 "]", prefix, name, UINT32_MAX);
}

#define CHECK_LENGTH(member, name, kind)                                                                               \
    if (limits->has_##member##_max_length && !check_length("", name, limits->member##_max_length, err))                \
        return false;
#define TAKE_RATE(member, name, kind)                                                                                  \
    if (limits->has_##member)                                                                                          \
        config->rates[kind].average = limits->member;                                                                  \
    if (limits->has_##member##_max)                                                                                    \
        config->rates[kind].max = limits->member##_max;                                                                \
    if (limits->has_##member##_max_length)                                                                             \
        config->rates[kind].max_length_s = limits->member##_max_length;

/* What `limits` sets; what it does not mention stays. */
static bool config_take_limits(struct throttle_config *config, const struct throttle_limits *limits, struct error **err)
{
    EACH_RATE(CHECK_LENGTH)
    EACH_RATE(TAKE_RATE)
    if (limits->has_iops_size)
        config->iops_size = limits->iops_size;
    return true;
}

static bool check_not_negative(const char *name, const char *suffix, bool given, int64_t value, struct error **err)
{
    if (given && value < 0)
        return error_set(err, "Property values cannot be negative: 'x-%s%s' is %" PRId64, name, suffix, value);
    return true;
}

#define CHECK_X_RATE(member, name, kind)                                                                               \
    if (!check_not_negative(name, "", options->has_x_##member, options->x_##member, err) ||                            \
        !check_not_negative(name, "-max", options->has_x_##member##_max, options->x_##member##_max, err) ||            \
        !check_not_negative(name, "-max-length", options->has_x_##member##_max_length,                                 \
                            options->x_##member##_max_length, err))                                                    \
        return false;                                                                                                  \
    if (options->has_x_##member##_max_length && !check_length("x-", name, options->x_##member##_max_length, err))      \
        return false;
#define TAKE_X_RATE(member, name, kind)                                                                                \
    if (options->has_x_##member)                                                                                       \
        config->rates[kind].average = options->x_##member;                                                             \
    if (options->has_x_##member##_max)                                                                                 \
        config->rates[kind].max = options->x_##member##_max;                                                           \
    if (options->has_x_##member##_max_length)                                                                          \
        config->rates[kind].max_length_s = options->x_##member##_max_length;

static bool config_take_options(struct throttle_config *config, const struct throttle_group_properties *options,
                                struct error **err)
{
    if (options->limits && !config_take_limits(config, options->limits, err))
        return false;
    EACH_RATE(CHECK_X_RATE)
    if (!check_not_negative("iops-size", "", options->has_x_iops_size, options->x_iops_size, err))
        return false;
    EACH_RATE(TAKE_X_RATE)
    if (options->has_x_iops_size)
        config->iops_size = options->x_iops_size;
    return true;
}

static bool throttle_group_co_create(struct object *object, const struct object_options *options, struct error **err)
{
    struct throttle_group *group = object_state(object);
    struct throttle_config config;

    throttle_config_init(&config);
    if (!config_take_options(&config, &options->u.throttle_group, err) || !throttle_config_check(&config, err))
        return false;
    throttle_group_configure(group, &config);
    return true;
}

static void throttle_group_co_destroy(struct object *object)
{
    throttle_group_done(object_state(object));
}

#define WRITE_RATE(member, name, kind)                                                                                 \
    json_set(limits, name, json_int(config.rates[kind].average));                                                      \
    json_set(limits, name "-max", json_int(config.rates[kind].max));                                                   \
    json_set(limits, name "-max-length", json_int(config.rates[kind].max_length_s));

static struct json *get_limits(struct object *object, const struct object_property *property)
{
    struct json *limits = json_object();
    struct throttle_config config;

    throttle_group_get_config(object_state(object), &config);
    EACH_RATE(WRITE_RATE)
    json_set(limits, "iops-size", json_int(config.iops_size));
    return limits;
}

static bool set_limits(struct object *object, const struct object_property *property, const struct json *value,
                       struct error **err)
{
    struct throttle_group *group = object_state(object);
    struct throttle_config config;
    struct throttle_limits *limits = throttle_limits_parse(value, err);
    bool ok;

    if (!limits)
        return false;
    throttle_group_get_config(group, &config);
    ok = config_take_limits(&config, limits, err) && throttle_config_check(&config, err);
    throttle_limits_free(limits);
    if (ok)
        throttle_group_configure(group, &config);
    return ok;
}

static bool set_nothing(struct object *object, const struct object_property *property, const struct json *value,
                        struct error **err)
{
    return error_set(err, "Property cannot be set after initialization");
}

/* What a property x-... shows: which part of the limit of a kind. */
enum rate_part { RATE_AVERAGE, RATE_MAX, RATE_MAX_LENGTH, RATE_PARTS };

static struct json *get_rate(struct object *object, const struct object_property *property)
{
    struct throttle_config config;
    const struct throttle_rate *rate = &config.rates[property->index / RATE_PARTS];

    throttle_group_get_config(object_state(object), &config);
    switch (property->index % RATE_PARTS) {
    case RATE_AVERAGE:
        return json_int(rate->average);
    case RATE_MAX:
        return json_int(rate->max);
    default:
        return json_int(rate->max_length_s);
    }
}

static struct json *get_iops_size(struct object *object, const struct object_property *property)
{
    struct throttle_config config;

    throttle_group_get_config(object_state(object), &config);
    return json_int(config.iops_size);
}

#define RATE_PROPERTY(property_name, kind, part)                                                                       \
    {                                                                                                                  \
        .name = "x-" property_name,                                                                                    \
        .type = "int",                                                                                                 \
        .description = "as " property_name " of limits",                                                               \
        .index = (kind)*RATE_PARTS + (part),                                                                           \
        .get = get_rate,                                                                                               \
        .co_set = set_nothing,                                                                                         \
    },
#define RATE_PROPERTIES(member, name, kind)                                                                            \
    RATE_PROPERTY(name, kind, RATE_AVERAGE)                                                                            \
    RATE_PROPERTY(name "-max", kind, RATE_MAX)                                                                         \
    RATE_PROPERTY(name "-max-length", kind, RATE_MAX_LENGTH)

static const struct object_property throttle_group_properties[] = {
    {
        .name = "limits",
        .type = "ThrottleLimits",
        .description = "what all members together may do in a second",
        .get = get_limits,
        .co_set = set_limits,
    },
    {
        .name = "x-iops-size",
        .type = "int",
        .description = "as iops-size of limits",
        .get = get_iops_size,
        .co_set = set_nothing,
    },
    EACH_RATE(RATE_PROPERTIES){NULL},
};

const struct object_class throttle_group_class = {
    .type = OBJECT_TYPE_THROTTLE_GROUP,
    .state_size = sizeof(struct throttle_group),
    .properties = throttle_group_properties,
    .co_create = throttle_group_co_create,
    .co_destroy = throttle_group_co_destroy,
};

struct throttle_group *throttle_group_hold(struct object_registry *registry, const char *id, struct object **ret_object,
                                           struct error **err)
{
    struct object *object = object_find(registry, id);

    if (!object || object_get_class(object) != &throttle_group_class) {
        error_set(err, "Throttle group '%s' does not exist", id);
        return NULL;
    }
    *ret_object = object_hold(object);
    return object_state(object);
}
