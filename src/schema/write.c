/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Values of the schema to JSON. */
#include <assert.h>
#include <string.h>

#include "schema/json.h"
#include "schema/schema.h"
#include "schema/type.h"

static struct json *write_signed(const struct schema_type *type, const void *slot)
{
    switch (type->size) {
    case 1:
        return json_int(*(const int8_t *)slot);
    case 2:
        return json_int(*(const int16_t *)slot);
    case 4:
        return json_int(*(const int32_t *)slot);
    default:
        assert(type->size == 8);
        return json_int(*(const int64_t *)slot);
    }
}

static struct json *write_unsigned(const struct schema_type *type, const void *slot)
{
    switch (type->size) {
    case 1:
        return json_uint(*(const uint8_t *)slot);
    case 2:
        return json_uint(*(const uint16_t *)slot);
    case 4:
        return json_uint(*(const uint32_t *)slot);
    default:
        assert(type->size == 8);
        return json_uint(*(const uint64_t *)slot);
    }
}

static struct json *write_slot(const struct schema_type *type, const void *slot)
{
    void *pointer = NULL;

    if (schema_type_is_pointer(type)) {
        memcpy(&pointer, slot, sizeof(pointer));
        assert(pointer);
    }
    switch (type->kind) {
    case SCHEMA_BOOL:
        return json_bool(*(const bool *)slot);
    case SCHEMA_SIGNED:
        return write_signed(type, slot);
    case SCHEMA_UNSIGNED:
    case SCHEMA_SIZE:
        return write_unsigned(type, slot);
    case SCHEMA_NUMBER:
        return json_double(*(const double *)slot);
    case SCHEMA_STRING:
        return json_string(pointer);
    case SCHEMA_ANY:
        return json_clone(pointer);
    case SCHEMA_NULL:
        return json_null();
    case SCHEMA_ENUM:
        return json_string(schema_enum_name(type, schema_load_enum(slot)));
    default:
        return schema_write(type, pointer);
    }
}

static void write_members(struct json *object, const struct schema_type *type, const char *holder)
{
    for (uint32_t i = 0; i < type->count; i++) {
        const struct schema_member *member = &type->members[i];

        if (schema_member_present(member, holder))
            json_set(object, member->name, write_slot(member->type, holder + member->offset));
    }
    const struct schema_variant *variant = schema_variant_of(type, holder);
    if (variant)
        write_members(object, variant->type, holder + variant->offset);
}

struct json *schema_write(const struct schema_type *type, const void *value)
{
    if (type->kind == SCHEMA_STRUCT) {
        struct json *object = json_object();

        write_members(object, type, value);
        return object;
    }
    if (type->kind == SCHEMA_ALTERNATE) {
        const struct schema_member *branch = &type->members[schema_load_enum(value)];

        return write_slot(branch->type, (const char *)value + branch->offset);
    }
    assert(type->kind == SCHEMA_ARRAY);
    const struct schema_array *array = value;
    struct json *list = json_array();
    size_t size = schema_type_slot_size(type->element);
    for (size_t i = 0; i < array->count; i++)
        json_append(list, write_slot(type->element, (const char *)array->items + i * size));
    return list;
}
