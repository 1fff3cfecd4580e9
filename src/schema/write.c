/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Values of the schema's types to JSON, members in the order of the schema. */
#include <assert.h>
#include <string.h>

#include "schema/schema-internal.h"

static struct json *write_value(const struct schema_tables *tables, const struct schema_node *node, const void *value);

static struct json *write_slot(const struct schema_tables *tables, const struct schema_node *node, const void *slot)
{
    uint32_t value;

    switch ((enum schema_kind)node->kind) {
    case SCHEMA_STRING:
        return json_string(*(char *const *)slot ? *(char *const *)slot : "");
    case SCHEMA_BOOL:
        return json_bool(*(const bool *)slot);
    case SCHEMA_NUMBER:
        return json_double(*(const double *)slot);
    case SCHEMA_ANY:
        return *(struct json *const *)slot ? json_clone(*(struct json *const *)slot) : json_null();
    case SCHEMA_NULL:
        return json_null();
    case SCHEMA_ENUM:
        memcpy(&value, slot, sizeof(value));
        assert(value < node->count);
        return json_string(schema_string(tables, tables->members[node->first + value].name));
    case SCHEMA_STRUCT:
    case SCHEMA_ALTERNATE:
    case SCHEMA_ARRAY:
        return write_value(tables, node, *(void *const *)slot);
    default:
        if (schema_kind_is_unsigned(node->kind))
            return json_uint((uint64_t)schema_load_int(node->kind, slot));
        return json_int(schema_load_int(node->kind, slot));
    }
}

static void write_members(const struct schema_tables *tables, const struct schema_node *node, const void *value,
                          struct json *object)
{
    const struct schema_node *selected = schema_union_case(tables, node, value);

    for (unsigned i = 0; i < node->count; i++) {
        const struct schema_member *member = &tables->members[node->first + i];

        if (schema_member_present(tables, member, value))
            json_set(object, schema_string(tables, member->name),
                     write_slot(tables, schema_node_at(tables, member->type), (const char *)value + member->offset));
    }
    if (selected)
        write_members(tables, selected, (const char *)value + node->u_offset, object);
}

static struct json *write_elements(const struct schema_tables *tables, const struct schema_node *node,
                                   const struct schema_array *array)
{
    const struct schema_node *element = schema_node_at(tables, node->first);
    struct json *result = json_array();

    for (size_t i = 0; array && i < array->count; i++)
        json_append(result, write_slot(tables, element, (const char *)array->items + i * node->size));
    return result;
}

static struct json *write_value(const struct schema_tables *tables, const struct schema_node *node, const void *value)
{
    struct json *object;

    /* An array that has no elements may be left NULL where it is mandatory. */
    if (node->kind == SCHEMA_ARRAY)
        return write_elements(tables, node, value);
    assert(value);
    if (node->kind == SCHEMA_ALTERNATE)
        return write_slot(tables, schema_node_at(tables, schema_alternate_branch(tables, node, value)->type),
                          (const char *)value + node->u_offset);
    assert(node->kind == SCHEMA_STRUCT);
    object = json_object();
    write_members(tables, node, value, object);
    return object;
}

struct json *schema_write(const struct schema_type *type, const void *value)
{
    return write_value(type->tables, schema_type_node(type), value);
}
