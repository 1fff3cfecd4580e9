/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "schema/type.h"

#include <assert.h>
#include <string.h>

#include "schema/schema.h"

#define BUILTIN(variable, type_kind, type_size, type_name)                                                             \
    const struct schema_type variable = {.kind = type_kind, .size = type_size, .name = type_name, .tag = -1}

BUILTIN(schema_bool, SCHEMA_BOOL, sizeof(bool), "bool");
BUILTIN(schema_number, SCHEMA_NUMBER, sizeof(double), "number");
BUILTIN(schema_size, SCHEMA_SIZE, sizeof(uint64_t), "size");
BUILTIN(schema_string, SCHEMA_STRING, sizeof(char *), "str");
BUILTIN(schema_any, SCHEMA_ANY, sizeof(struct json *), "any");
BUILTIN(schema_null_type, SCHEMA_NULL, 0, "null");
BUILTIN(schema_int64, SCHEMA_SIGNED, 8, "int64");
BUILTIN(schema_int32, SCHEMA_SIGNED, 4, "int32");
BUILTIN(schema_int16, SCHEMA_SIGNED, 2, "int16");
BUILTIN(schema_int8, SCHEMA_SIGNED, 1, "int8");
BUILTIN(schema_uint64, SCHEMA_UNSIGNED, 8, "uint64");
BUILTIN(schema_uint32, SCHEMA_UNSIGNED, 4, "uint32");
BUILTIN(schema_uint16, SCHEMA_UNSIGNED, 2, "uint16");
BUILTIN(schema_uint8, SCHEMA_UNSIGNED, 1, "uint8");

bool schema_type_is_pointer(const struct schema_type *type)
{
    switch (type->kind) {
    case SCHEMA_STRING:
    case SCHEMA_ANY:
    case SCHEMA_STRUCT:
    case SCHEMA_ALTERNATE:
    case SCHEMA_ARRAY:
        return true;
    default:
        return false;
    }
}

size_t schema_type_slot_size(const struct schema_type *type)
{
    return schema_type_is_pointer(type) ? sizeof(void *) : type->size;
}

int schema_load_enum(const void *from)
{
    int value;

    memcpy(&value, from, sizeof(value));
    return value;
}

const struct schema_variant *schema_variant_of(const struct schema_type *type, const void *value)
{
    assert(type->kind == SCHEMA_STRUCT);
    if (type->tag < 0)
        return NULL;
    int tag = schema_load_enum((const char *)value + type->members[type->tag].offset);
    for (uint32_t i = 0; i < type->variant_count; i++) {
        if (type->variants[i].value == tag)
            return &type->variants[i];
    }
    return NULL;
}

bool schema_member_present(const struct schema_member *member, const void *holder)
{
    const char *base = holder;

    if (!member->optional)
        return true;
    if (member->has_offset >= 0)
        return *(const bool *)(base + member->has_offset);
    assert(schema_type_is_pointer(member->type));
    void *pointer;
    memcpy(&pointer, base + member->offset, sizeof(pointer));
    return pointer != NULL;
}

const char *schema_enum_name(const struct schema_type *type, int value)
{
    assert(type->kind == SCHEMA_ENUM);
    return value >= 0 && (uint32_t)value < type->count ? type->names[value] : NULL;
}

int schema_enum_value(const struct schema_type *type, const char *name)
{
    assert(type->kind == SCHEMA_ENUM);
    for (uint32_t i = 0; i < type->count; i++) {
        if (!strcmp(type->names[i], name))
            return (int)i;
    }
    return -1;
}
