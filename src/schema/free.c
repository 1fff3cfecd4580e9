/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Freeing values of the schema, half-built ones too: zero-filled memory is a value without members. */
#include <string.h>

#include "base/cleanup.h"
#include "schema/json.h"
#include "schema/schema.h"
#include "schema/type.h"

static void free_slot(const struct schema_type *type, void *slot)
{
    void *pointer;

    if (!schema_type_is_pointer(type))
        return;
    memcpy(&pointer, slot, sizeof(pointer));
    if (type->kind == SCHEMA_STRING)
        g_free(pointer);
    else if (type->kind == SCHEMA_ANY)
        json_free(pointer);
    else
        schema_free(type, pointer);
}

static void free_members(const struct schema_type *type, char *holder)
{
    for (uint32_t i = 0; i < type->count; i++)
        free_slot(type->members[i].type, holder + type->members[i].offset);
    const struct schema_variant *variant = schema_variant_of(type, holder);
    if (variant)
        free_members(variant->type, holder + variant->offset);
}

void schema_free(const struct schema_type *type, void *value)
{
    if (!value)
        return;
    if (type->kind == SCHEMA_STRUCT) {
        free_members(type, value);
    } else if (type->kind == SCHEMA_ALTERNATE) {
        const struct schema_member *branch = &type->members[schema_load_enum(value)];

        free_slot(branch->type, (char *)value + branch->offset);
    } else if (type->kind == SCHEMA_ARRAY) {
        struct schema_array *array = value;
        size_t size = schema_type_slot_size(type->element);

        for (size_t i = 0; i < array->count; i++)
            free_slot(type->element, (char *)array->items + i * size);
        g_free(array->items);
    }
    g_free(value);
}
