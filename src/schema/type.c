/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Looking things up in the tables of types. */
#include <assert.h>
#include <string.h>

#include "schema/schema-internal.h"

bool schema_kind_is_int(enum schema_kind kind)
{
    return kind >= SCHEMA_INT8 && kind <= SCHEMA_SIZE;
}

bool schema_kind_is_unsigned(enum schema_kind kind)
{
    return kind >= SCHEMA_UINT8 && kind <= SCHEMA_SIZE;
}

int64_t schema_load_int(enum schema_kind kind, const void *slot)
{
    switch (kind) {
    case SCHEMA_INT8:
        return *(const int8_t *)slot;
    case SCHEMA_UINT8:
        return *(const uint8_t *)slot;
    case SCHEMA_INT16:
        return *(const int16_t *)slot;
    case SCHEMA_UINT16:
        return *(const uint16_t *)slot;
    case SCHEMA_INT32:
        return *(const int32_t *)slot;
    case SCHEMA_UINT32:
        return *(const uint32_t *)slot;
    default:
        assert(schema_kind_is_int(kind));
        return *(const int64_t *)slot;
    }
}

void schema_store_int(enum schema_kind kind, void *slot, uint64_t value)
{
    switch (kind) {
    case SCHEMA_INT8:
    case SCHEMA_UINT8:
        *(uint8_t *)slot = (uint8_t)value;
        break;
    case SCHEMA_INT16:
    case SCHEMA_UINT16:
        *(uint16_t *)slot = (uint16_t)value;
        break;
    case SCHEMA_INT32:
    case SCHEMA_UINT32:
        *(uint32_t *)slot = (uint32_t)value;
        break;
    default:
        assert(schema_kind_is_int(kind));
        *(uint64_t *)slot = value;
    }
}

static_assert(sizeof(enum schema_kind) == 4 && sizeof(void *) == 8 && sizeof(double) == 8, "sizes of slots");

const struct schema_node *schema_union_case(const struct schema_tables *tables, const struct schema_node *node,
                                            const void *value)
{
    uint32_t tag;

    if (node->tag == SCHEMA_NONE)
        return NULL;
    memcpy(&tag, (const char *)value + tables->members[node->first + node->tag].offset, sizeof(tag));
    for (unsigned i = 0; i < node->case_count; i++) {
        if (tables->cases[node->first_case + i].value == tag)
            return schema_node_at(tables, tables->cases[node->first_case + i].type);
    }
    return NULL;
}

const struct schema_member *schema_alternate_branch(const struct schema_tables *tables, const struct schema_node *node,
                                                    const void *value)
{
    uint32_t kind;

    memcpy(&kind, value, sizeof(kind));
    assert(kind < node->count);
    return &tables->members[node->first + kind];
}

bool schema_member_present(const struct schema_tables *tables, const struct schema_member *member, const void *value)
{
    void *pointer;

    if (!(member->flags & SCHEMA_OPTIONAL))
        return true;
    if (member->has_offset != SCHEMA_NONE)
        return *((const bool *)value + member->has_offset);
    memcpy(&pointer, (const char *)value + member->offset, sizeof(pointer));
    return pointer != NULL;
}

int schema_node_enum_value(const struct schema_tables *tables, const struct schema_node *node, const char *name)
{
    assert(node->kind == SCHEMA_ENUM);
    for (unsigned i = 0; i < node->count; i++) {
        if (!strcmp(schema_string(tables, tables->members[node->first + i].name), name))
            return (int)i;
    }
    return -1;
}

const char *schema_enum_name(const struct schema_type *type, int value)
{
    const struct schema_node *node = schema_type_node(type);

    assert(node->kind == SCHEMA_ENUM);
    if (value < 0 || value >= node->count)
        return NULL;
    return schema_string(type->tables, type->tables->members[node->first + value].name);
}

int schema_enum_value(const struct schema_type *type, const char *name)
{
    return schema_node_enum_value(type->tables, schema_type_node(type), name);
}
