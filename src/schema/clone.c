/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Copying values of the schema's types, with all that they own. */
#include <assert.h>
#include <string.h>

#include "schema/schema-internal.h"

static void *clone_value(const struct schema_tables *tables, const struct schema_node *node, const void *value);

/* Makes the slot, a copy of another's bytes, own what it points to. */
static void clone_slot(const struct schema_tables *tables, const struct schema_node *node, void *slot)
{
    switch ((enum schema_kind)node->kind) {
    case SCHEMA_STRING:
        *(char **)slot = g_strdup(*(char **)slot);
        break;
    case SCHEMA_ANY:
        if (*(struct json **)slot)
            *(struct json **)slot = json_clone(*(struct json **)slot);
        break;
    case SCHEMA_STRUCT:
    case SCHEMA_ALTERNATE:
    case SCHEMA_ARRAY:
        *(void **)slot = clone_value(tables, node, *(void **)slot);
        break;
    default:
        break;
    }
}

static void clone_members(const struct schema_tables *tables, const struct schema_node *node, void *copy)
{
    const struct schema_node *selected = schema_union_case(tables, node, copy);

    for (unsigned i = 0; i < node->count; i++) {
        const struct schema_member *member = &tables->members[node->first + i];

        clone_slot(tables, schema_node_at(tables, member->type), (char *)copy + member->offset);
    }
    if (selected)
        clone_members(tables, selected, (char *)copy + node->u_offset);
}

static void *clone_elements(const struct schema_tables *tables, const struct schema_node *node,
                            const struct schema_array *array)
{
    struct schema_array *copy = g_new(struct schema_array, 1);

    copy->count = array->count;
    copy->items = g_memdup2(array->items, array->count * node->size);
    for (size_t i = 0; i < copy->count; i++)
        clone_slot(tables, schema_node_at(tables, node->first), (char *)copy->items + i * node->size);
    return copy;
}

static void *clone_value(const struct schema_tables *tables, const struct schema_node *node, const void *value)
{
    void *copy;

    if (!value)
        return NULL;
    if (node->kind == SCHEMA_ARRAY)
        return clone_elements(tables, node, value);
    copy = g_memdup2(value, node->size);
    if (node->kind == SCHEMA_STRUCT)
        clone_members(tables, node, copy);
    else
        clone_slot(tables, schema_node_at(tables, schema_alternate_branch(tables, node, copy)->type),
                   (char *)copy + node->u_offset);
    return copy;
}

void *schema_clone(const struct schema_type *type, const void *value)
{
    assert(value);
    return clone_value(type->tables, schema_type_node(type), value);
}
