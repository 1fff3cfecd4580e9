/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Deep copies of values of the schema. */
#include <assert.h>
#include <string.h>

#include "base/cleanup.h"
#include "schema/json.h"
#include "schema/schema.h"
#include "schema/type.h"

/* Replaces the pointer in `slot`, which came with a flat copy, by one to a copy of what it points to. */
static void clone_slot(const struct schema_type *type, void *slot)
{
    void *pointer;

    if (!schema_type_is_pointer(type))
        return;
    memcpy(&pointer, slot, sizeof(pointer));
    if (!pointer)
        return;
    if (type->kind == SCHEMA_STRING)
        pointer = g_strdup(pointer);
    else if (type->kind == SCHEMA_ANY)
        pointer = json_clone(pointer);
    else
        pointer = schema_clone(type, pointer);
    memcpy(slot, &pointer, sizeof(pointer));
}

static void clone_members(const struct schema_type *type, char *holder)
{
    for (uint32_t i = 0; i < type->count; i++)
        clone_slot(type->members[i].type, holder + type->members[i].offset);
    const struct schema_variant *variant = schema_variant_of(type, holder);
    if (variant)
        clone_members(variant->type, holder + variant->offset);
}

void *schema_clone(const struct schema_type *type, const void *value)
{
    if (!value)
        return NULL;
    char *copy = g_memdup2(value, type->size);
    if (type->kind == SCHEMA_STRUCT) {
        clone_members(type, copy);
    } else if (type->kind == SCHEMA_ALTERNATE) {
        const struct schema_member *branch = &type->members[schema_load_enum(copy)];

        clone_slot(branch->type, copy + branch->offset);
    } else {
        struct schema_array *array = (struct schema_array *)copy;
        size_t size = schema_type_slot_size(type->element);

        assert(type->kind == SCHEMA_ARRAY);
        array->items = g_memdup2(array->items, array->count * size);
        for (size_t i = 0; i < array->count; i++)
            clone_slot(type->element, (char *)array->items + i * size);
    }
    return copy;
}
