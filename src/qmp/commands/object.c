/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * object-add, object-del, and the qom-* commands.
 *
 * Paths: "/" is the root, which holds the containers "/objects" and "/chardevs". A path that does not start with "/" is
 * sought from each of the three, and must be found once.
 */
#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "chardev/chardev.h"
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

/* What a path names. */
enum place_kind { PLACE_NONE, PLACE_ROOT, PLACE_OBJECTS, PLACE_CHARDEVS, PLACE_OBJECT, PLACE_CHARDEV };

struct place {
    enum place_kind kind;
    struct object *object;  /* of PLACE_OBJECT */
    const char *chardev_id; /* of PLACE_CHARDEV; borrowed from the path */
};

/* The member `name` of `place`; of kind PLACE_NONE where there is none. */
static struct place place_child(struct daemon *daemon, struct place place, const char *name)
{
    struct object *object = place.kind == PLACE_OBJECTS ? object_find(daemon->objects, name) : NULL;

    if (place.kind == PLACE_ROOT && !strcmp(name, "objects"))
        return (struct place){.kind = PLACE_OBJECTS};
    if (place.kind == PLACE_ROOT && !strcmp(name, "chardevs"))
        return (struct place){.kind = PLACE_CHARDEVS};
    if (object)
        return (struct place){.kind = PLACE_OBJECT, .object = object};
    if (place.kind == PLACE_CHARDEVS && chardev_backend_of(daemon->chardevs, name))
        return (struct place){.kind = PLACE_CHARDEV, .chardev_id = name};
    return (struct place){0};
}

static struct place place_descend(struct daemon *daemon, struct place place, const GStrv parts)
{
    for (char **part = parts; *part && place.kind != PLACE_NONE; part++) {
        if (**part)
            place = place_child(daemon, place, *part);
    }
    return place;
}

/* `parts` is the path, split at "/"; the place may borrow from it. */
static bool find_place(struct daemon *daemon, const char *path, const GStrv parts, struct place *ret,
                       struct error **err)
{
    static const enum place_kind starts[] = {PLACE_ROOT, PLACE_OBJECTS, PLACE_CHARDEVS};
    unsigned tries = path[0] == '/' ? 1 : G_N_ELEMENTS(starts);
    unsigned found = 0;

    for (unsigned i = 0; i < tries; i++) {
        struct place place = place_descend(daemon, (struct place){.kind = starts[i]}, parts);

        if (place.kind == PLACE_NONE)
            continue;
        *ret = place;
        found++;
    }
    if (found > 1)
        return error_set(err, "Path '%s' is ambiguous", path);
    return found || error_set_class(err, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", path);
}

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

static void append_child(struct object_property_info_array *array, const char *name, const char *prefix,
                         const char *type)
{
    g_autofree char *child = g_strdup_printf("child<%s%s>", prefix, type);

    append_property(array, name, child, NULL);
}

static void append_objects(struct object_property_info_array *array, struct daemon *daemon)
{
    for (size_t i = 0; i < object_count(daemon->objects); i++) {
        struct object *object = object_at(daemon->objects, i);

        append_child(array, object_id(object), "", object_type_name(object_get_class(object)->type));
    }
}

static void append_chardevs(struct object_property_info_array *array, struct daemon *daemon)
{
    AUTO(chardev_info_array) chardevs = chardev_query(daemon->chardevs);

    for (size_t i = 0; i < chardevs->count; i++) {
        const char *id = chardevs->items[i]->label;

        append_child(array, id, "chardev-", chardev_backend_of(daemon->chardevs, id));
    }
}

static struct object_property_info_array *place_properties(struct daemon *daemon, const struct place *place)
{
    struct object_property_info_array *array = g_new0(struct object_property_info_array, 1);

    assert(place->kind != PLACE_NONE);
    if (place->kind == PLACE_OBJECT) {
        append_class_properties(array, object_get_class(place->object));
        return array;
    }
    append_property(array, "type", "string", NULL);
    if (place->kind == PLACE_ROOT) {
        append_property(array, "objects", "child<container>", NULL);
        append_property(array, "chardevs", "child<container>", NULL);
    } else if (place->kind == PLACE_OBJECTS) {
        append_objects(array, daemon);
    } else if (place->kind == PLACE_CHARDEVS) {
        append_chardevs(array, daemon);
    }
    return array;
}

/* The type of what is not an object of the registry, owned. */
static char *place_type(struct daemon *daemon, const struct place *place)
{
    if (place->kind != PLACE_CHARDEV)
        return g_strdup("container");
    return g_strdup_printf("chardev-%s", chardev_backend_of(daemon->chardevs, place->chardev_id));
}

/* A property, owned; the value of a container's child is its path. NULL and the error. */
static struct json *place_get(struct daemon *daemon, const struct place *place, const char *name, struct error **err)
{
    if (place->kind == PLACE_OBJECT)
        return object_property_get(place->object, name, err);
    g_autofree char *type = place_type(daemon, place);
    if (!strcmp(name, "type"))
        return json_string(type);
    if (*name && !strchr(name, '/') && place_child(daemon, *place, name).kind != PLACE_NONE) {
        static const char *const prefix[] = {
            [PLACE_ROOT] = "", [PLACE_OBJECTS] = "/objects", [PLACE_CHARDEVS] = "/chardevs"};
        g_autofree char *path = g_strdup_printf("%s/%s", prefix[place->kind], name);

        return json_string(path);
    }
    error_set(err, "Property '%s.%s' not found", type, name);
    return NULL;
}

bool CO_FN co_qmp_qom_list(struct daemon *daemon, const struct qom_list_arg *arg,
                           struct object_property_info_array **ret, struct error **err)
{
    g_auto(GStrv) parts = g_strsplit(arg->path, "/", -1);
    struct place place;

    if (!find_place(daemon, arg->path, parts, &place, err))
        return false;
    *ret = place_properties(daemon, &place);
    return true;
}

bool CO_FN co_qmp_qom_get(struct daemon *daemon, const struct qom_get_arg *arg, struct json **ret, struct error **err)
{
    g_auto(GStrv) parts = g_strsplit(arg->path, "/", -1);
    struct place place;

    if (!find_place(daemon, arg->path, parts, &place, err))
        return false;
    *ret = place_get(daemon, &place, arg->property, err);
    return *ret != NULL;
}

bool CO_FN co_qmp_qom_set(struct daemon *daemon, const struct qom_set_arg *arg, struct error **err)
{
    g_auto(GStrv) parts = g_strsplit(arg->path, "/", -1);
    struct place place;

    if (!find_place(daemon, arg->path, parts, &place, err))
        return false;
    if (place.kind == PLACE_OBJECT)
        return co_object_property_set(place.object, arg->property, arg->value, err);
    AUTO(json) value = place_get(daemon, &place, arg->property, err);
    g_autofree char *type = place_type(daemon, &place);
    return value && error_set(err, "Property '%s.%s' is not writable", type, arg->property);
}

/* The properties of a place with those of their values that can be read. */
static struct object_properties_values *properties_with_values(struct daemon *daemon, const struct place *place)
{
    struct object_properties_values *result = g_new0(struct object_properties_values, 1);
    AUTO(object_property_info_array) infos = place_properties(daemon, place);

    result->properties = g_new0(struct object_property_value_array, 1);
    result->properties->count = infos->count;
    result->properties->items = g_new0(struct object_property_value *, infos->count);
    for (size_t i = 0; i < infos->count; i++) {
        struct object_property_value *value = g_new0(struct object_property_value, 1);

        value->name = g_strdup(infos->items[i]->name);
        value->type = g_strdup(infos->items[i]->type);
        value->value = place_get(daemon, place, value->name, NULL);
        result->properties->items[i] = value;
    }
    return result;
}

bool CO_FN co_qmp_qom_list_get(struct daemon *daemon, const struct qom_list_get_arg *arg,
                               struct object_properties_values_array **ret, struct error **err)
{
    size_t count = arg->paths->count;
    AUTO(object_properties_values_array) array = g_new0(struct object_properties_values_array, 1);

    array->items = g_new0(struct object_properties_values *, count);
    for (size_t i = 0; i < count; i++) {
        g_auto(GStrv) parts = g_strsplit(arg->paths->items[i], "/", -1);
        struct place place;

        if (!find_place(daemon, arg->paths->items[i], parts, &place, err))
            return false;
        array->items[array->count++] = properties_with_values(daemon, &place);
    }
    *ret = TAKE(array);
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
    {"chardev", "object"},
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

static bool abstract_implements(size_t index, const char *type)
{
    const char *name = abstract_types[index].name;
    const char *parent = abstract_types[index].parent;
    bool is_interface = !strcmp(name, "interface") || (parent && !strcmp(parent, "interface"));

    if (!strcmp(type, name) || (parent && !strcmp(type, parent)))
        return true;
    if (!is_interface)
        return strcmp(name, "object") && strcmp(name, "chardev") &&
               (!strcmp(type, "user-creatable") || !strcmp(type, "interface"));
    return !strcmp(type, "object");
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

static void append_chardev_types(struct object_type_info_array *array, const char *wanted)
{
    AUTO(chardev_backend_info_array) backends = chardev_query_backends();

    for (size_t i = 0; i < backends->count; i++) {
        g_autofree char *name = g_strdup_printf("chardev-%s", backends->items[i]->name);

        if (!strcmp(wanted, name) || !strchr(wanted, '-'))
            append_type(array, name, "chardev", false);
    }
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
    if (!strcmp(wanted, "object") || g_str_has_prefix(wanted, "chardev"))
        append_chardev_types(array, wanted);
    for (size_t i = 0; arg->has_abstract && arg->abstract && i < G_N_ELEMENTS(abstract_types); i++) {
        if (abstract_implements(i, wanted))
            append_type(array, abstract_types[i].name, abstract_types[i].parent, true);
    }
    *ret = array;
    return true;
}

/* Whether `name` is a type of ours that is no class of its own; *ret_is_interface. */
static bool is_other_type(const char *name, bool *ret_is_interface)
{
    *ret_is_interface = false;
    if (!strcmp(name, "container") || (g_str_has_prefix(name, "chardev-") && chardev_backend_kind_value(name + 8) >= 0))
        return true;
    for (size_t i = 0; i < G_N_ELEMENTS(abstract_types); i++) {
        if (strcmp(abstract_types[i].name, name))
            continue;
        *ret_is_interface = !strcmp(name, "interface") || !strcmp(name, "user-creatable");
        return true;
    }
    return false;
}

/* The properties that all classes below the type `name` have in common. */
static void append_shared_properties(struct object_property_info_array *array, const char *name)
{
    const struct object_class *first = NULL;

    append_property(array, "type", "string", NULL);
    for (size_t i = 0; object_classes[i] && !first; i++)
        first = !strcmp(class_parent(object_classes[i]), name) ? object_classes[i] : NULL;
    for (const struct object_property *property = first ? first->properties : NULL; property && property->name;
         property++) {
        bool shared = strcmp(name, "object") != 0;

        for (size_t i = 0; object_classes[i] && shared; i++)
            shared = strcmp(class_parent(object_classes[i]), name) ||
                     object_class_property(object_classes[i], property->name);
        if (shared)
            append_property(array, property->name, property->type, property->description);
    }
}

bool CO_FN co_qmp_qom_list_properties(struct daemon *daemon, const struct qom_list_properties_arg *arg,
                                      struct object_property_info_array **ret, struct error **err)
{
    const struct object_class *class = object_class_find(arg->typename);
    bool is_interface;

    if (!class && !is_other_type(arg->typename, &is_interface))
        return error_set_class(err, ERROR_DEVICE_NOT_FOUND, "Class '%s' not found", arg->typename);
    if (!class && is_interface)
        return error_set(err, "Parameter 'typename' expects a QOM type");
    *ret = g_new0(struct object_property_info_array, 1);
    if (class)
        append_class_properties(*ret, class);
    else
        append_shared_properties(*ret, arg->typename);
    return true;
}
