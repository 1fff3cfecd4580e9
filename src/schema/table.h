/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The tables that describe types to the functions of schema.h. The generator writes them; nobody else looks inside.
 * They refer to each other by index, so that they need no relocation and stay in pages that all processes share.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"
#include "schema/json.h"
#include "schema/schema.h"

enum schema_kind {
    SCHEMA_STRING,
    SCHEMA_BOOL,
    SCHEMA_NUMBER,
    SCHEMA_ANY,
    SCHEMA_NULL,
    SCHEMA_INT8,
    SCHEMA_INT16,
    SCHEMA_INT32,
    SCHEMA_INT64,
    SCHEMA_UINT8,
    SCHEMA_UINT16,
    SCHEMA_UINT32,
    SCHEMA_UINT64,
    SCHEMA_SIZE,
    SCHEMA_ENUM,
    SCHEMA_STRUCT,
    SCHEMA_ALTERNATE,
    SCHEMA_ARRAY,
};

enum { SCHEMA_OPTIONAL = 1, SCHEMA_DEPRECATED = 2, SCHEMA_UNSTABLE = 4 };

/* No such node, member or offset. */
enum { SCHEMA_NONE = 0xffff };

/* A member of a struct, a branch of an alternate, or a value of an enum (`name` and `flags` only). */
struct schema_member {
    uint32_t name;       /* in the strings */
    uint16_t type;       /* node */
    uint16_t offset;     /* of the value in the C struct */
    uint16_t has_offset; /* of its has_ flag */
    uint16_t flags;
};

/* The struct whose members a union has besides when its tag has this value. */
struct schema_case {
    uint16_t value;
    uint16_t type;
};

struct schema_node {
    uint32_t name;  /* of the type; in the strings */
    uint16_t kind;  /* enum schema_kind */
    uint16_t size;  /* of the C struct; arrays: of an element */
    uint16_t first; /* members, branches or values; arrays: the node of an element */
    uint16_t count;
    uint16_t tag;      /* member whose value selects the case */
    uint16_t u_offset; /* of the union that holds the cases, or an alternate's branches */
    uint16_t first_case;
    uint16_t case_count;
};

struct schema_tables {
    const struct schema_node *nodes;
    unsigned node_count;
    const struct schema_member *members;
    const struct schema_case *cases;
    const char *strings;

    /* Explanations, for help.c alone: for each node and each member the place of a text in `docs`. */
    const char *docs;
    const uint32_t *node_docs;
    const uint32_t *member_docs;
};

struct schema_type {
    const struct schema_tables *tables;
    unsigned node;
};

/* The typed forms of the functions of schema.h. */
#define SCHEMA_DECLARE(name)                                                                                           \
    extern const struct schema_type name##_type;                                                                       \
    MUST_CHECK static inline struct name *name##_parse(const struct json *value, struct error **err)                   \
    {                                                                                                                  \
        return schema_parse(&name##_type, value, err);                                                                 \
    }                                                                                                                  \
    MUST_CHECK static inline struct name *name##_parse_keyval(const struct json *value, struct error **err)            \
    {                                                                                                                  \
        return schema_parse_keyval(&name##_type, value, err);                                                          \
    }                                                                                                                  \
    MUST_CHECK static inline struct json *name##_write(const struct name *value)                                       \
    {                                                                                                                  \
        return schema_write(&name##_type, value);                                                                      \
    }                                                                                                                  \
    MUST_CHECK static inline struct name *name##_clone(const struct name *value)                                       \
    {                                                                                                                  \
        return schema_clone(&name##_type, value);                                                                      \
    }                                                                                                                  \
    static inline void name##_free(struct name *value)                                                                 \
    {                                                                                                                  \
        schema_free(&name##_type, value);                                                                              \
    }                                                                                                                  \
    AUTO_DEFINE(name, struct name *, name##_free)

#define SCHEMA_DECLARE_ENUM(type_name)                                                                                 \
    extern const struct schema_type type_name##_type;                                                                  \
    static inline const char *type_name##_name(enum type_name value)                                                   \
    {                                                                                                                  \
        return schema_enum_name(&type_name##_type, (int)value);                                                        \
    }                                                                                                                  \
    static inline int type_name##_value(const char *name)                                                              \
    {                                                                                                                  \
        return schema_enum_value(&type_name##_type, name);                                                             \
    }
