/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The tables that the generator makes of the schema: what parse, write, clone and free go by. Private to src/schema/.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum schema_kind {
    SCHEMA_BOOL,
    SCHEMA_SIGNED,   /* integers of `size` bytes */
    SCHEMA_UNSIGNED, /* the same */
    SCHEMA_SIZE,     /* uint64_t; on the command line with a suffix */
    SCHEMA_NUMBER,   /* double */
    SCHEMA_STRING,   /* char * */
    SCHEMA_ANY,      /* struct json * */
    SCHEMA_NULL,     /* takes no memory */
    SCHEMA_ENUM,     /* int-sized */
    SCHEMA_STRUCT,   /* also unions, which have a tag */
    SCHEMA_ALTERNATE,
    SCHEMA_ARRAY, /* a struct of count and items */
};

struct schema_type;

struct schema_member {
    const char *name;
    const struct schema_type *type;
    uint32_t offset;    /* in the struct that holds it */
    int32_t has_offset; /* of its has_ flag; -1: has none */
    bool optional;
};

/* A branch of a union: the members of `type` lie at `offset`, where the tag has `value`. */
struct schema_variant {
    const struct schema_type *type;
    uint32_t offset;
    int32_t value;
};

struct schema_type {
    enum schema_kind kind;
    uint32_t size;                       /* of the C value: scalars as such, others the struct behind the pointer */
    const char *name;                    /* in the schema */
    const char *const *names;            /* enum: of its values */
    const struct schema_member *members; /* struct; alternate: its branches */
    const struct schema_variant *variants;
    const struct schema_type *element; /* array */
    uint32_t count;                    /* of names or members */
    uint32_t variant_count;
    int32_t tag; /* struct: index of the discriminator among members; -1: none */
};

/* The head of every array struct; the items are values of scalars and pointers to the rest. */
struct schema_array {
    size_t count;
    void *items;
};

/* Whether values of the type are pointers where they are members or items. */
bool schema_type_is_pointer(const struct schema_type *type);

/* Size of a value of the type where it is a member or item. */
size_t schema_type_slot_size(const struct schema_type *type);

/* The branch of `value` of a union type, or NULL: its tag has none. */
const struct schema_variant *schema_variant_of(const struct schema_type *type, const void *value);

/* The tag of a union, or the kind of an alternate. */
int schema_load_enum(const void *from);

/* Whether an optional member is there. */
bool schema_member_present(const struct schema_member *member, const void *holder);

/* The types that are built in. */
extern const struct schema_type schema_bool, schema_number, schema_size, schema_string, schema_any, schema_null_type;
extern const struct schema_type schema_int64, schema_int32, schema_int16, schema_int8;
extern const struct schema_type schema_uint64, schema_uint32, schema_uint16, schema_uint8;
