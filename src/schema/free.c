/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Freeing values of the schema's types; half-built ones too, whose unset parts are zero. */
#include <assert.h>
#include <string.h>

#include "schema/schema-internal.h"

static void free_value(const struct schema_tables *tables, const struct schema_node *node, void *value);

static void free_members(const struct schema_tables *tables, const struct schema_node *node, void *value)
{
    const struct schema_node *selected = schema_union_case(tables, node, value);

    for (unsigned i = 0; i < node->count; i++) {
        const struct schema_member *member = &tables->members[node->first + i];

        schema_free_slot(tables, schema_node_at(tables, member->type), (char *)value + member->offset);
    }
    if (selected)
        free_members(tables, selected, (char *)value + node->u_offset);
}

static void free_elements(const struct schema_tables *tables, const struct schema_node *node,
                          const struct schema_array *array)
{
    const struct schema_node *element = schema_node_at(tables, node->first);

    for (size_t i = 0; i < array->count; i++)
        schema_free_slot(tables, element, (char *)array->items + i * node->size);
    g_free(array->items);
}

void schema_free_slot(const struct schema_tables *tables, const struct schema_node *node, void *slot)
{
    switch ((enum schema_kind)node->kind) {
    case SCHEMA_STRING:
        g_free(*(char **)slot);
        break;
    case SCHEMA_ANY:
        json_free(*(struct json **)slot);
        break;
    case SCHEMA_STRUCT:
    case SCHEMA_ALTERNATE:
    case SCHEMA_ARRAY:
        free_value(tables, node, *(void **)slot);
        break;
    default:
        break;
    }
}

static void free_value(const struct schema_tables *tables, const struct schema_node *node, void *value)
{
    if (!value)
        return;
    switch ((enum schema_kind)node->kind) {
    case SCHEMA_STRUCT:
        free_members(tables, node, value);
        break;
    case SCHEMA_ARRAY:
        free_elements(tables, node, value);
        break;
    default:
        assert(node->kind == SCHEMA_ALTERNATE);
        schema_free_slot(tables, schema_node_at(tables, schema_alternate_branch(tables, node, value)->type),
                         (char *)value + node->u_offset);
    }
    g_free(value);
}

void schema_free(const struct schema_type *type, void *value)
{
    free_value(type->tables, schema_type_node(type), value);
}
