/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The registry of user-creatable objects.
 *
 * Keeps: (1) ids are unique; (2) an object in the registry was created in full; (3) one that is held, by a user or by
 * another object, stays, or at least outlives its name; (4) objects go in the reverse order of their making. All on the
 * main loop, but for the count of holders.
 */
#include "object/object.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#include "base/error.h"
#include "base/trace.h"
#include "loop/loop.h"
#include "schema/json.h"

struct object {
    const struct object_class *class;
    struct object_registry *registry;
    char *id;
    atomic_uint holders; /* the registry is one */
    void *state;
};

struct object_registry {
    struct loop *loop;  /* NULL: none */
    GPtrArray *objects; /* of struct object, in the order of their making */
};

struct object_registry *object_registry_new(void)
{
    struct object_registry *registry = g_new0(struct object_registry, 1);

    registry->loop = loop_current();
    registry->objects = g_ptr_array_new();
    return registry;
}

struct loop *object_registry_loop(const struct object_registry *registry)
{
    return registry->loop;
}

static void object_free(struct object *object)
{
    g_free(object->state);
    g_free(object->id);
    g_free(object);
}

void object_release(struct object *object)
{
    if (!object)
        return;
    unsigned before = atomic_fetch_sub(&object->holders, 1);
    assert(before > 0);
    if (before > 1)
        return;
    if (object->class->co_destroy)
        object->class->co_destroy(object);
    object_free(object);
}

void CO_FN co_object_registry_free(struct object_registry *registry)
{
    if (!registry)
        return;
    while (registry->objects->len) {
        struct object *object = g_ptr_array_remove_index(registry->objects, registry->objects->len - 1);

        assert(object->class->may_outlive_name || atomic_load(&object->holders) == 1);
        object_release(object);
    }
    g_ptr_array_free(registry->objects, TRUE);
    g_free(registry);
}

struct object *object_find(struct object_registry *registry, const char *id)
{
    for (unsigned i = 0; i < registry->objects->len; i++) {
        struct object *object = g_ptr_array_index(registry->objects, i);

        if (!strcmp(object->id, id))
            return object;
    }
    return NULL;
}

size_t object_count(struct object_registry *registry)
{
    return registry->objects->len;
}

struct object *object_at(struct object_registry *registry, size_t index)
{
    assert(index < registry->objects->len);
    return g_ptr_array_index(registry->objects, index);
}

const struct object_class *object_class_find(const char *type_name)
{
    for (size_t i = 0; object_classes[i]; i++) {
        if (!strcmp(object_type_name(object_classes[i]->type), type_name))
            return object_classes[i];
    }
    return NULL;
}

bool object_id_well_formed(const char *id)
{
    if (!g_ascii_isalpha(id[0]))
        return false;
    for (const char *at = id; *at; at++) {
        if (!g_ascii_isalnum(*at) && !strchr("-._", *at))
            return false;
    }
    return true;
}

bool CO_FN co_object_add(struct object_registry *registry, const struct object_options *options, struct error **err)
{
    const struct object_class *class = object_class_find(object_type_name(options->qom_type));

    if (!class) {
        error_set(err, "invalid object type: %s", object_type_name(options->qom_type));
        error_hint(err, "The interface has this type, but this build does not; --object help lists those it has.");
        return false;
    }
    if (!object_id_well_formed(options->id)) {
        error_set(err, "Parameter 'id' expects an identifier");
        error_hint(err, "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.");
        return false;
    }
    if (object_find(registry, options->id))
        return error_set(err, "attempt to add duplicate property '%s' to object (type 'container')", options->id);

    struct object *object = g_new0(struct object, 1);
    object->class = class;
    object->registry = registry;
    object->id = g_strdup(options->id);
    atomic_init(&object->holders, 1);
    object->state = g_malloc0(MAX(class->state_size, 1));
    if (!class->co_create(object, options, err)) {
        object_free(object);
        return false;
    }
    g_ptr_array_add(registry->objects, object);
    TRACE(object_add, "object %s type %s", object->id, object_type_name(class->type));
    return true;
}

bool CO_FN co_object_delete(struct object_registry *registry, const char *id, struct error **err)
{
    struct object *object = object_find(registry, id);

    if (!object)
        return error_set(err, "object '%s' not found", id);
    if (!object->class->may_outlive_name && atomic_load(&object->holders) > 1)
        return error_set(err, "object '%s' is in use, can not be deleted", id);
    if (object->class->can_delete && !object->class->can_delete(object, err))
        return false;
    TRACE(object_delete, "object %s", id);
    g_ptr_array_remove(registry->objects, object);
    object_release(object);
    return true;
}

struct object *object_hold(struct object *object)
{
    atomic_fetch_add(&object->holders, 1);
    return object;
}

struct object *object_hold_typed(struct object_registry *registry, const char *id, const struct object_class *class,
                                 struct error **err)
{
    struct object *object = object_find(registry, id);

    if (!object) {
        error_set(err, "object '%s' not found", id);
        return NULL;
    }
    if (object->class != class) {
        error_set(err, "object '%s' is of type '%s', but '%s' is needed", id, object_type_name(object->class->type),
                  object_type_name(class->type));
        return NULL;
    }
    return object_hold(object);
}

const char *object_id(const struct object *object)
{
    return object->id;
}

const struct object_class *object_get_class(const struct object *object)
{
    return object->class;
}

void *object_state(struct object *object)
{
    return object->state;
}

struct object_registry *object_get_registry(struct object *object)
{
    return object->registry;
}

const struct object_property *object_class_property(const struct object_class *class, const char *name)
{
    for (const struct object_property *property = class->properties; property && property->name; property++) {
        if (!strcmp(property->name, name))
            return property;
    }
    return NULL;
}

struct json *object_property_get(struct object *object, const char *name, struct error **err)
{
    const char *type = object_type_name(object->class->type);
    const struct object_property *property = object_class_property(object->class, name);

    if (!strcmp(name, "type"))
        return json_string(type);
    if (!property) {
        error_set(err, "Property '%s.%s' not found", type, name);
        return NULL;
    }
    struct json *value = property->get ? property->get(object, property) : NULL;
    if (!value)
        error_set(err, "Property '%s.%s' is not readable", type, name);
    return value;
}

bool CO_FN co_object_property_set(struct object *object, const char *name, const struct json *value, struct error **err)
{
    const char *type = object_type_name(object->class->type);
    const struct object_property *property = object_class_property(object->class, name);

    if (!property && strcmp(name, "type"))
        return error_set(err, "Property '%s.%s' not found", type, name);
    if (!property || !property->co_set)
        return error_set(err, "Property '%s.%s' is not writable", type, name);
    return property->co_set(object, property, value, err);
}
