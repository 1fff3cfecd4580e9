/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * object-add, object-del, and the qom-* commands.
 *
 * Paths: "/" is the root, which holds the containers "/objects" and "/chardevs"; an object is "/objects/ID", or just
 * "ID".
 */
#include <string.h>

#include "base/error.h"
#include "gen/commands.h"
#include "object/object.h"
#include "qmp/daemon.h"
#include "schema/json.h"

bool CO_FN co_qmp_object_add(struct daemon *daemon, const struct object_options *arg, struct error **err)
{
    return co_object_add(daemon->objects, arg, err);
}

bool CO_FN co_qmp_object_del(struct daemon *daemon, const struct object_del_arg *arg, struct error **err)
{
    return co_object_delete(daemon->objects, arg->id, err);
}

/* What a path names: an object, or one of the containers. */
enum place_kind { PLACE_ROOT, PLACE_OBJECTS, PLACE_CHARDEVS, PLACE_OBJECT };

struct place {
    enum place_kind kind;
    struct object *object; /* of PLACE_OBJECT */
};

static bool find_place(struct daemon *daemon, const char *path, struct place *ret, struct error **err)
{
    const char *id = path;

    *ret = (struct place){0};
    if (!strcmp(path, "/"))
        return true;
    if (!strcmp(path, "/objects") || !strcmp(path, "objects")) {
        ret->kind = PLACE_OBJECTS;
        return true;
    }
    if (!strcmp(path, "/chardevs") || !strcmp(path, "chardevs")) {
        ret->kind = PLACE_CHARDEVS;
        return true;
    }
    if (g_str_has_prefix(path, "/objects/"))
        id = path + strlen("/objects/");
    else if (g_str_has_prefix(path, "objects/"))
        id = path + strlen("objects/");
    ret->kind = PLACE_OBJECT;
    ret->object = *id == '/' ? NULL : object_find(daemon->objects, id);
    return ret->object || error_set_class(err, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", path);
}

/* Arrays that grow. */
static void append_property(struct object_property_info_array *array, const char *name, const char *type,
                            const char *about)
{
    struct object_property_info *info = g_new0(struct object_property_info, 1);

    info->name = g_strdup(name);
    info->type = g_strdup(type);
    info->description = g_strdup(about);
    array->items = g_renew(struct object_property_info *, array->items, array->count + 1);
    array->items[array->count++] = info;
}

static void append_class_properties(struct object_property_info_array *array, const struct object_class *class)
{
    append_property(array, "type", "string", NULL);
    for (const struct object_property *property = class->properties; property && property->name; property++)
        append_property(array, property->name, property->type, property->description);
}

static void append_objects(struct object_property_info_array *array, struct daemon *daemon)
{
    for (size_t i = 0; i < object_count(daemon->objects); i++) {
        struct object *object = object_at(daemon->objects, i);
        g_autofree char *type = g_strdup_printf("child<%s>", object_type_name(object_get_class(object)->type));

        append_property(array, object_id(object), type, NULL);
    }
}

bool CO_FN co_qmp_qom_list(struct daemon *daemon, const struct qom_list_arg *arg,
                           struct object_property_info_array **ret, struct error **err)
{
    struct place place;

    if (!find_place(daemon, arg->path, &place, err))
        return false;
    struct object_property_info_array *array = g_new0(struct object_property_info_array, 1);
    if (place.kind == PLACE_OBJECT) {
        append_class_properties(array, object_get_class(place.object));
    } else {
        append_property(array, "type", "string", NULL);
        if (place.kind == PLACE_ROOT) {
            append_property(array, "objects", "child<container>", NULL);
            append_property(array, "chardevs", "child<container>", NULL);
        } else if (place.kind == PLACE_OBJECTS) {
            append_objects(array, daemon);
        }
    }
    *ret = array;
    return true;
}

bool CO_FN co_qmp_qom_get(struct daemon *daemon, const struct qom_get_arg *arg, struct json **ret, struct error **err)
{
    struct place place;

    if (!find_place(daemon, arg->path, &place, err))
        return false;
    if (place.kind == PLACE_OBJECT)
        *ret = object_property_get(place.object, arg->property, err);
    else if (!strcmp(arg->property, "type"))
        *ret = json_string("container");
    else
        return error_set(err, "Property 'container.%s' not found", arg->property);
    return *ret != NULL;
}

bool CO_FN co_qmp_qom_set(struct daemon *daemon, const struct qom_set_arg *arg, struct error **err)
{
    struct place place;

    if (!find_place(daemon, arg->path, &place, err))
        return false;
    if (place.kind == PLACE_OBJECT)
        return object_property_set(place.object, arg->property, arg->value, err);
    return error_set(err, "Property 'container.%s' is not writable", arg->property);
}

/* The properties of an object with those of their values that can be read. */
static struct object_properties_values *properties_with_values(struct object *object)
{
    struct object_properties_values *result = g_new0(struct object_properties_values, 1);
    g_autoptr(GPtrArray) found = g_ptr_array_new();
    struct object_property_info_array *infos = g_new0(struct object_property_info_array, 1);

    append_class_properties(infos, object_get_class(object));
    for (size_t i = 0; i < infos->count; i++) {
        struct object_property_value *value = g_new0(struct object_property_value, 1);

        value->name = g_strdup(infos->items[i]->name);
        value->type = g_strdup(infos->items[i]->type);
        value->value = object_property_get(object, value->name, NULL);
        g_ptr_array_add(found, value);
    }
    object_property_info_array_free(infos);
    result->properties = g_new0(struct object_property_value_array, 1);
    result->properties->count = found->len;
    result->properties->items = g_memdup2(found->pdata, found->len * sizeof(*found->pdata));
    return result;
}

bool CO_FN co_qmp_qom_list_get(struct daemon *daemon, const struct qom_list_get_arg *arg,
                               struct object_properties_values_array **ret, struct error **err)
{
    size_t count = arg->paths->count;
    g_autofree struct object **objects = g_new0(struct object *, count + 1);

    for (size_t i = 0; i < count; i++) {
        struct place place;

        if (!find_place(daemon, arg->paths->items[i], &place, err))
            return false;
        if (place.kind != PLACE_OBJECT)
            return error_set(err, "'%s' is a container, which has no values", arg->paths->items[i]);
        objects[i] = place.object;
    }
    struct object_properties_values_array *array = g_new0(struct object_properties_values_array, 1);
    array->items = g_new0(struct object_properties_values *, count);
    for (size_t i = 0; i < count; i++)
        array->items[array->count++] = properties_with_values(objects[i]);
    *ret = array;
    return true;
}

/* The types that others build on, each with its own; "object" is the root of all. */
static const struct {
    const char *name;
    const char *parent; /* NULL: none */
} abstract_types[] = {
    {"object", NULL},
    {"interface", NULL},
    {"user-creatable", "interface"},
    {"event-loop-base", "object"},
    {"secret_common", "object"},
    {"authz", "object"},
    {"tls-creds", "object"},
    {"pr-manager", "object"},
};

/* The type that `class` builds on. */
static const char *class_parent(const struct object_class *class)
{
    const char *name = object_type_name(class->type);

    if (g_str_has_prefix(name, "secret"))
        return "secret_common";
    if (g_str_has_prefix(name, "authz-"))
        return "authz";
    if (g_str_has_prefix(name, "tls-c"))
        return "tls-creds";
    if (g_str_has_prefix(name, "pr-manager-"))
        return "pr-manager";
    return !strcmp(name, "iothread") || !strcmp(name, "main-loop") ? "event-loop-base" : "object";
}

static bool implements(const struct object_class *class, const char *type)
{
    return !strcmp(type, "object") || !strcmp(type, "user-creatable") || !strcmp(type, "interface") ||
           !strcmp(type, class_parent(class)) || !strcmp(type, object_type_name(class->type));
}

static void append_type(struct object_type_info_array *array, const char *name, const char *parent, bool abstract)
{
    struct object_type_info *info = g_new0(struct object_type_info, 1);

    info->name = g_strdup(name);
    info->parent = g_strdup(parent);
    info->has_abstract = info->abstract = abstract;
    array->items = g_renew(struct object_type_info *, array->items, array->count + 1);
    array->items[array->count++] = info;
}

bool CO_FN co_qmp_qom_list_types(struct daemon *daemon, const struct qom_list_types_arg *arg,
                                 struct object_type_info_array **ret, struct error **err)
{
    const char *wanted = arg->implements ? arg->implements : "object";
    struct object_type_info_array *array = g_new0(struct object_type_info_array, 1);

    for (size_t i = 0; object_classes[i]; i++) {
        if (implements(object_classes[i], wanted))
            append_type(array, object_type_name(object_classes[i]->type), class_parent(object_classes[i]), false);
    }
    if (!strcmp(wanted, "object") || !strcmp(wanted, "container"))
        append_type(array, "container", "object", false);
    for (size_t i = 0; arg->has_abstract && arg->abstract && i < G_N_ELEMENTS(abstract_types); i++) {
        if (!strcmp(wanted, "object") || !strcmp(wanted, abstract_types[i].name))
            append_type(array, abstract_types[i].name, abstract_types[i].parent, true);
    }
    *ret = array;
    return true;
}

bool CO_FN co_qmp_qom_list_properties(struct daemon *daemon, const struct qom_list_properties_arg *arg,
                                      struct object_property_info_array **ret, struct error **err)
{
    const struct object_class *class = object_class_find(arg->typename);

    if (!class && strcmp(arg->typename, "container"))
        return error_set_class(err, ERROR_DEVICE_NOT_FOUND, "Class '%s' not found", arg->typename);
    *ret = g_new0(struct object_property_info_array, 1);
    if (class)
        append_class_properties(*ret, class);
    else
        append_property(*ret, "type", "string", NULL);
    return true;
}
