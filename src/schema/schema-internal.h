/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What parse.c, write.c, clone.c and free.c share: walking the tables. */
#pragma once

#include "schema/table.h"

/* Levels of typed values in each other. JSON may nest deeper, inside values of any type. */
enum { SCHEMA_DEPTH_MAX = 256 };

static inline const struct schema_node *schema_node_at(const struct schema_tables *tables, unsigned index)
{
    return &tables->nodes[index];
}

static inline const struct schema_node *schema_type_node(const struct schema_type *type)
{
    return schema_node_at(type->tables, type->node);
}

static inline const char *schema_string(const struct schema_tables *tables, uint32_t offset)
{
    return tables->strings + offset;
}

/* The layout that all array types have. */
struct schema_array {
    size_t count;
    void *items;
};

/* The integer of kind `kind` at `slot`; the unsigned kinds as their bits. */
int64_t schema_load_int(enum schema_kind kind, const void *slot);
void schema_store_int(enum schema_kind kind, void *slot, uint64_t value);
bool schema_kind_is_int(enum schema_kind kind);
bool schema_kind_is_unsigned(enum schema_kind kind);

/* The node of the struct that the tag of the union `value` selects; NULL: none, or no union. */
const struct schema_node *schema_union_case(const struct schema_tables *tables, const struct schema_node *node,
                                            const void *value);

/* The branch that the alternate `value` holds. */
const struct schema_member *schema_alternate_branch(const struct schema_tables *tables, const struct schema_node *node,
                                                    const void *value);

/* Whether an optional member is there. */
bool schema_member_present(const struct schema_tables *tables, const struct schema_member *member, const void *value);

/* Releases what the slot of a member or an element owns. */
void schema_free_slot(const struct schema_tables *tables, const struct schema_node *node, void *slot);

/* Index of the enum value of that name, or -1. */
int schema_node_enum_value(const struct schema_tables *tables, const struct schema_node *node, const char *name);
