/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib.h>

#include "base/error.h"
#include "loop/loop.h"
#include "object/object.h"
#include "object/throttle-group.h"
#include "schema/json.h"

static void CO_FN co_free_registry(void *opaque)
{
    co_object_registry_free(opaque);
}

static void in_loop(co_entry *entry)
{
    AUTO(error) error = NULL;
    struct object_registry *registry;
    struct loop *loop = loop_new(&(struct loop_options){0}, &error);

    g_assert_nonnull(loop);
    registry = object_registry_new();
    co_run(loop, entry, registry);
    co_run(loop, co_free_registry, registry);
    loop_free(loop);
}

/* Adds the object "t" with these members; returns the complaint (owned), or NULL. */
static char *CO_FN co_add(struct object_registry *registry, const char *members)
{
    g_autofree char *text = g_strdup_printf("{'qom-type': 'throttle-group', 'id': 't', %s}", members);
    AUTO(error) error = NULL;
    AUTO(json) json = json_parse(text, strlen(text), &error);
    AUTO(object_options) options = json ? object_options_parse(json, &error) : NULL;

    if (options && co_object_add(registry, options, &error))
        return NULL;
    return g_strdup(error_message(error));
}

static const struct object_property *property_find(const char *name)
{
    const struct object_property *property = throttle_group_class.properties;

    while (g_strcmp0(property->name, name))
        property++;
    return property;
}

static int64_t get_int(struct object *object, const char *name)
{
    const struct object_property *property = property_find(name);
    AUTO(json) value = property->get(object, property);

    return json_get_int(value);
}

static int64_t get_limit(struct object *object, const char *name)
{
    const struct object_property *property = property_find("limits");
    AUTO(json) value = property->get(object, property);

    return json_get_int(json_get(value, name));
}

/* Sets a property; the complaint (owned), or NULL. */
static char *set(struct object *object, const char *name, const char *text)
{
    const struct object_property *property = property_find(name);
    AUTO(error) error = NULL;
    AUTO(json) value = json_parse(text, strlen(text), &error);

    g_assert_nonnull(value);
    return property->co_set(object, property, value, &error) ? NULL : g_strdup(error_message(error));
}

static void CO_FN co_limits(void *opaque)
{
    struct object_registry *registry = opaque;
    struct object *object;

    g_assert_null(co_add(registry, "'x-bps-total': 1000, 'limits': {'bps-total': 3000, 'bps-total-max': 5000,"
                                   "'bps-total-max-length': 7, 'iops-read': 10, 'iops-size': 4096}"));
    object = object_find(registry, "t");
    g_assert_nonnull(object);
    g_assert_cmpint(get_limit(object, "bps-total"), ==, 1000);
    g_assert_cmpint(get_int(object, "x-bps-total"), ==, 1000);
    g_assert_cmpint(get_int(object, "x-bps-total-max"), ==, 5000);
    g_assert_cmpint(get_int(object, "x-bps-total-max-length"), ==, 7);
    g_assert_cmpint(get_int(object, "x-iops-read"), ==, 10);
    g_assert_cmpint(get_int(object, "x-iops-read-max-length"), ==, 1);
    g_assert_cmpint(get_int(object, "x-iops-size"), ==, 4096);
    g_assert_cmpint(get_limit(object, "iops-write-max-length"), ==, 1);

    /* What is not mentioned stays. */
    g_assert_null(set(object, "limits", "{'bps-total': 50}"));
    g_assert_cmpint(get_limit(object, "bps-total"), ==, 50);
    g_assert_cmpint(get_limit(object, "bps-total-max"), ==, 5000);
}

static void CO_FN co_refused_settings(void *opaque)
{
    static const struct {
        const char *name;
        const char *value;
        const char *complaint;
    } bad[] = {
        {"limits", "{'bps-read': 5}",
         "bps/iops/max total values and read/write values cannot be used at the same time"},
        {"limits", "{'bps-total': 60}", "bps_max/iops_max cannot be lower than bps/iops"},
        {"limits", "{'bps-total-max-length': 0}", "the burst length cannot be 0"},
        {"limits", "{'bps-total-max-length': 4294967296}",
         "bps-total-max-length value must be in the range [0, 4294967295]"},
        {"x-bps-total", "5", "Property cannot be set after initialization"},
    };
    struct object_registry *registry = opaque;
    struct object *object;

    g_assert_null(co_add(registry, "'limits': {'bps-total': 10, 'bps-total-max': 50}"));
    object = object_find(registry, "t");
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autofree char *complaint = set(object, bad[i].name, bad[i].value);

        g_assert_cmpstr(complaint, ==, bad[i].complaint);
        g_assert_cmpint(get_limit(object, "bps-total"), ==, 10);
        g_assert_cmpint(get_limit(object, "bps-total-max-length"), ==, 1);
    }
    g_autofree char *unknown = set(object, "limits", "{'foo': 1}");
    g_autofree char *wrong = set(object, "limits", "3");

    g_assert_nonnull(unknown);
    g_assert_nonnull(wrong);
}

static void CO_FN co_refused_at_creation(void *opaque)
{
    static const struct {
        const char *members;
        const char *complaint;
    } bad[] = {
        {"'x-bps-total': -1", "Property values cannot be negative: 'x-bps-total' is -1"},
        {"'x-iops-size': -5", "Property values cannot be negative: 'x-iops-size' is -5"},
        {"'x-iops-total': 5, 'x-iops-total-max': 9, 'x-iops-total-max-length': -1",
         "Property values cannot be negative: 'x-iops-total-max-length' is -1"},
        {"'x-bps-total': 1000000000000001", "bps/iops/max values must be within [0, 1000000000000000]"},
        {"'limits': {'bps-total': -5}", "bps/iops/max values must be within [0, 1000000000000000]"},
        {"'x-bps-total': 1000, 'limits': {'bps-read': 3000}",
         "bps/iops/max total values and read/write values cannot be used at the same time"},
        {"'x-bps-total': 1000, 'x-bps-total-max': 2000, 'x-bps-total-max-length': 99999999999",
         "x-bps-total-max-length value must be in the range [0, 4294967295]"},
        {"'x-iops-size': 5", "iops size requires an iops value to be set"},
    };
    struct object_registry *registry = opaque;

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autofree char *complaint = co_add(registry, bad[i].members);

        g_assert_cmpstr(complaint, ==, bad[i].complaint);
        g_assert_null(object_find(registry, "t"));
    }
}

static void CO_FN co_held_group_stays(void *opaque)
{
    struct object_registry *registry = opaque;
    AUTO(error) error = NULL;
    AUTO(error) missing = NULL;
    struct object *object = NULL;

    g_assert_null(co_add(registry, "'x-bps-total': 1000"));
    g_assert_nonnull(throttle_group_hold(registry, "t", &object, &error));
    g_assert_false(co_object_delete(registry, "t", &error));
    object_release(object);
    g_assert_true(co_object_delete(registry, "t", NULL));
    g_assert_null(throttle_group_hold(registry, "t", &object, &missing));
    g_assert_cmpstr(error_message(missing), ==, "Throttle group 't' does not exist");
}

#define TEST(name)                                                                                                     \
    static void test_##name(void)                                                                                      \
    {                                                                                                                  \
        in_loop(co_##name);                                                                                            \
    }
TEST(limits)
TEST(refused_settings)
TEST(refused_at_creation)
TEST(held_group_stays)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/throttle-group-object/limits", test_limits);
    g_test_add_func("/throttle-group-object/refused-settings", test_refused_settings);
    g_test_add_func("/throttle-group-object/refused-at-creation", test_refused_at_creation);
    g_test_add_func("/throttle-group-object/held-group-stays", test_held_group_stays);
    return g_test_run();
}
