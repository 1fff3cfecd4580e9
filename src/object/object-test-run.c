/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "object/object-test-run.h"

#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "loop/loop.h"
#include "schema/json.h"

static void CO_FN co_run_case(void *opaque)
{
    object_test_case *co_case = *(object_test_case **)opaque;
    struct object_registry *registry = object_registry_new();

    co_case(registry);
    co_object_registry_free(registry);
}

static void run_case(const void *opaque)
{
    object_test_case *co_case = *(object_test_case *const *)opaque;
    struct loop *loop = loop_new(&(struct loop_options){0}, NULL);

    g_assert_nonnull(loop);
    co_run(loop, co_run_case, &co_case);
    loop_free(loop);
}

void object_test_add(const char *path, object_test_case *co_case)
{
    object_test_case **data = g_new(object_test_case *, 1);

    *data = co_case;
    g_test_add_data_func_full(path, data, run_case, g_free);
}

char *co_object_test_add(struct object_registry *registry, const char *members)
{
    g_autofree char *text = g_strdup_printf("{%s}", members);
    AUTO(error) error = NULL;
    AUTO(json) json = json_parse(text, strlen(text), &error);
    AUTO(object_options) options = json ? object_options_parse(json, &error) : NULL;

    if (options && co_object_add(registry, options, &error))
        return NULL;
    return g_strdup(error_message(error));
}

void co_object_test_expect(struct object_registry *registry, const char *members, const char *complaint)
{
    g_autofree char *got = co_object_test_add(registry, members);

    if (!complaint || !got || !g_str_has_prefix(got, complaint))
        g_assert_cmpstr(got, ==, complaint);
}

char *object_test_get(struct object_registry *registry, const char *id, const char *name)
{
    struct object *object = object_find(registry, id);

    g_assert_nonnull(object);
    AUTO(json) value = object_property_get(object, name, NULL);
    return value ? json_format(value, false) : NULL;
}

char *co_object_test_set(struct object_registry *registry, const char *id, const char *name, const char *json)
{
    struct object *object = object_find(registry, id);
    AUTO(error) error = NULL;
    AUTO(json) value = json_parse(json, strlen(json), NULL);

    g_assert_nonnull(object);
    g_assert_nonnull(value);
    return co_object_property_set(object, name, value, &error) ? NULL : g_strdup(error_message(error));
}
