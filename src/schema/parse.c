/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * JSON to values of the schema's types. What came from a command line has only strings for scalars; `keyval` says so.
 * The recursion is bounded by SCHEMA_DEPTH_MAX, whatever the input.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/units.h"
#include "schema/json-internal.h"
#include "schema/schema-internal.h"

struct parser {
    const struct schema_tables *tables;
    bool keyval;
    unsigned depth;
    struct error **err;
};

/* Where in the input a value stands: a member `key` or an element `index` of the parent; the root has no parent. */
struct place {
    const struct place *parent;
    const char *key;
    size_t index;
};

static bool parse_slot(struct parser *parser, const struct schema_node *node, const struct json *value,
                       const struct place *place, void *slot);
static void *parse_value(struct parser *parser, const struct schema_node *node, const struct json *value,
                         const struct place *place);

/* The path of `place`: "cache.direct", "children[0].file"; from a command line "children.0.file". */
static char *place_path(const struct parser *parser, const struct place *place)
{
    GString *path = g_string_new(NULL);

    for (; place && (place->key || place->parent); place = place->parent) {
        g_autofree char *part = NULL;

        if (place->key)
            part = g_strdup(place->key);
        else
            part = g_strdup_printf(parser->keyval ? "%zu" : "[%zu]", place->index);
        if (path->len && (path->str[0] != '['))
            g_string_prepend_c(path, '.');
        g_string_prepend(path, part);
    }
    if (!path->len)
        g_string_append(path, "value");
    return g_string_free(path, FALSE);
}

static bool fail_type(const struct parser *parser, const struct place *place, const char *expected)
{
    g_autofree char *path = place_path(parser, place);

    return error_set(parser->err, "Invalid parameter type for '%s', expected: %s", path, expected);
}

/* "Parameter 'x' expects WHAT", then the value that is there. */
static bool fail_expects(const struct parser *parser, const struct place *place, const char *expected,
                         const struct json *value)
{
    g_autofree char *path = place_path(parser, place);
    g_autofree char *text = json_format(value, false);

    if (json_get_kind(value) == JSON_STRING)
        return error_set(parser->err, "Parameter '%s' expects %s, not '%.60s'", path, expected, json_get_string(value));
    return error_set(parser->err, "Parameter '%s' expects %s, not %.60s", path, expected, text);
}

static bool fail_missing(const struct parser *parser, const struct place *place, const char *key)
{
    struct place member = {.parent = place, .key = key};
    g_autofree char *path = place_path(parser, &member);

    return error_set(parser->err, "Parameter '%s' is missing", path);
}

/* Booleans as command lines have them. */
static bool text_to_bool(const char *text, bool *ret)
{
    static const struct {
        const char *word;
        bool value;
    } words[] = {{"on", true},   {"yes", true}, {"true", true},   {"y", true},
                 {"off", false}, {"no", false}, {"false", false}, {"n", false}};

    for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
        if (!strcmp(text, words[i].word)) {
            *ret = words[i].value;
            return true;
        }
    }
    return false;
}

static bool parse_bool(struct parser *parser, const struct json *value, const struct place *place, bool *ret)
{
    if (parser->keyval && json_get_kind(value) == JSON_STRING)
        return text_to_bool(json_get_string(value), ret) || fail_expects(parser, place, "'on' or 'off'", value);
    if (json_get_kind(value) != JSON_BOOL)
        return fail_type(parser, place, "boolean");
    *ret = json_get_bool(value);
    return true;
}

static bool text_to_number(const char *text, double *ret)
{
    char *end;
    double number = g_ascii_strtod(text, &end);

    if (end == text || *end || !isfinite(number))
        return false;
    *ret = number;
    return true;
}

static bool parse_number(struct parser *parser, const struct json *value, const struct place *place, double *ret)
{
    enum json_kind kind = json_get_kind(value);

    if (parser->keyval && kind == JSON_STRING)
        return text_to_number(json_get_string(value), ret) || fail_expects(parser, place, "number", value);
    if (kind != JSON_INT && kind != JSON_UINT && kind != JSON_DOUBLE)
        return fail_type(parser, place, "number");
    *ret = json_get_double(value);
    return true;
}

/* The name of a sized type in errors; the reference uses the same. */
static const char *int_range_name(enum schema_kind kind)
{
    static const char *const names[] = {
        [SCHEMA_INT8] = "int8_t",     [SCHEMA_INT16] = "int16_t",   [SCHEMA_INT32] = "int32_t",
        [SCHEMA_INT64] = "int64_t",   [SCHEMA_UINT8] = "uint8_t",   [SCHEMA_UINT16] = "uint16_t",
        [SCHEMA_UINT32] = "uint32_t", [SCHEMA_UINT64] = "uint64_t", [SCHEMA_SIZE] = "uint64_t",
    };

    assert(schema_kind_is_int(kind));
    return names[kind];
}

/* Whether the integer, `negative` or not, with the bits `bits`, is in the range of `kind`. */
static bool int_fits(enum schema_kind kind, bool negative, uint64_t bits)
{
    unsigned width = 8 * (unsigned)(kind == SCHEMA_SIZE ? 8 : 1u << ((kind - SCHEMA_INT8) % 4));

    if (schema_kind_is_unsigned(kind))
        return !negative && (width == 64 || bits >> width == 0);
    if (negative)
        return (int64_t)bits >= INT64_MIN >> (64 - width);
    return bits <= (uint64_t)(INT64_MAX >> (64 - width));
}

/* An integer as a command line has it: its bits, and whether it is negative. */
static bool text_to_int(enum schema_kind kind, const char *text, bool *ret_negative, uint64_t *ret_bits)
{
    int64_t integer;

    *ret_negative = false;
    if (kind == SCHEMA_SIZE)
        return size_parse(text, ret_bits);
    if (uint64_parse(text, ret_bits))
        return true;
    if (!int64_parse(text, &integer))
        return false;
    *ret_negative = integer < 0;
    *ret_bits = (uint64_t)integer;
    return true;
}

static bool parse_int(struct parser *parser, enum schema_kind kind, const struct json *value, const struct place *place,
                      void *slot)
{
    static const char size_text[] = "size (a number below 2^64, with an optional suffix k, M, G, T, P or E)";
    enum json_kind json_kind = json_get_kind(value);
    bool negative = false;
    uint64_t bits;

    if (parser->keyval && json_kind == JSON_STRING) {
        if (!text_to_int(kind, json_get_string(value), &negative, &bits))
            return fail_expects(parser, place, kind == SCHEMA_SIZE ? size_text : "integer", value);
    } else if (json_kind == JSON_INT) {
        negative = json_get_int(value) < 0;
        bits = (uint64_t)json_get_int(value);
    } else if (json_kind == JSON_UINT) {
        bits = json_get_uint(value);
    } else {
        return fail_type(parser, place, "integer");
    }
    if (!int_fits(kind, negative, bits))
        return fail_expects(parser, place, int_range_name(kind), value);
    schema_store_int(kind, slot, bits);
    return true;
}

static bool parse_enum(struct parser *parser, const struct schema_node *node, const struct json *value,
                       const struct place *place, void *slot)
{
    int index;

    if (json_get_kind(value) != JSON_STRING)
        return fail_type(parser, place, "string");
    index = schema_node_enum_value(parser->tables, node, json_get_string(value));
    if (index < 0) {
        g_autofree char *path = place_path(parser, place);

        return error_set(parser->err, "Parameter '%s' does not accept value '%s'", path, json_get_string(value));
    }
    memcpy(slot, &index, sizeof(index));
    return true;
}

static bool parse_string(struct parser *parser, const struct json *value, const struct place *place, char **slot)
{
    if (json_get_kind(value) != JSON_STRING)
        return fail_type(parser, place, "string");
    *slot = g_strdup(json_get_string(value));
    return true;
}

static bool parse_members(struct parser *parser, const struct schema_node *node, const struct json *object,
                          const struct place *place, void *to, size_t *used)
{
    const struct schema_node *selected;

    for (unsigned i = 0; i < node->count; i++) {
        const struct schema_member *member = &parser->tables->members[node->first + i];
        struct place here = {.parent = place, .key = schema_string(parser->tables, member->name)};
        const struct json *value = json_get(object, here.key);

        if (!value) {
            if (member->flags & SCHEMA_OPTIONAL)
                continue;
            return fail_missing(parser, place, here.key);
        }
        (*used)++;
        if (!parse_slot(parser, schema_node_at(parser->tables, member->type), value, &here,
                        (char *)to + member->offset))
            return false;
        if (member->has_offset != SCHEMA_NONE)
            *((bool *)to + member->has_offset) = true;
    }
    selected = schema_union_case(parser->tables, node, to);
    return !selected || parse_members(parser, selected, object, place, (char *)to + node->u_offset, used);
}

static bool is_member(const struct schema_tables *tables, const struct schema_node *node, const void *value,
                      const char *key)
{
    const struct schema_node *selected = schema_union_case(tables, node, value);

    for (unsigned i = 0; i < node->count; i++) {
        if (!strcmp(schema_string(tables, tables->members[node->first + i].name), key))
            return true;
    }
    return selected && is_member(tables, selected, (const char *)value + node->u_offset, key);
}

static bool fail_unexpected(struct parser *parser, const struct schema_node *node, const struct json *object,
                            const struct place *place, const void *value)
{
    for (size_t i = 0; i < json_count(object); i++) {
        struct place here = {.parent = place};

        json_member(object, i, &here.key);
        if (!is_member(parser->tables, node, value, here.key)) {
            g_autofree char *path = place_path(parser, &here);

            return error_set(parser->err, "Parameter '%s' is unexpected", path);
        }
    }
    g_assert_not_reached();
}

static bool parse_struct(struct parser *parser, const struct schema_node *node, const struct json *value,
                         const struct place *place, void *to)
{
    size_t used = 0;

    if (json_get_kind(value) != JSON_OBJECT)
        return fail_type(parser, place, "object");
    if (!parse_members(parser, node, value, place, to, &used))
        return false;
    return used == json_count(value) || fail_unexpected(parser, node, value, place, to);
}

/* Whether a branch of that kind takes JSON of that kind. */
static bool branch_takes(enum schema_kind kind, enum json_kind json_kind)
{
    switch (kind) {
    case SCHEMA_STRING:
    case SCHEMA_ENUM:
        return json_kind == JSON_STRING;
    case SCHEMA_BOOL:
        return json_kind == JSON_BOOL;
    case SCHEMA_NULL:
        return json_kind == JSON_NULL;
    case SCHEMA_STRUCT:
        return json_kind == JSON_OBJECT;
    case SCHEMA_ARRAY:
        return json_kind == JSON_ARRAY;
    case SCHEMA_NUMBER:
        return json_kind == JSON_INT || json_kind == JSON_UINT || json_kind == JSON_DOUBLE;
    default:
        return schema_kind_is_int(kind) && (json_kind == JSON_INT || json_kind == JSON_UINT);
    }
}

/* On a command line a number or a boolean is a string too, and null cannot be said. */
static bool branch_takes_keyval(enum schema_kind kind, enum json_kind json_kind)
{
    return json_kind == JSON_STRING && (kind == SCHEMA_BOOL || kind == SCHEMA_NUMBER || schema_kind_is_int(kind));
}

/* The number of the branch that takes JSON of that kind; one for strings goes before those for what looks like them. */
static int find_branch(const struct parser *parser, const struct schema_node *node, enum json_kind kind)
{
    const struct schema_member *branches = &parser->tables->members[node->first];

    for (int i = 0; i < node->count; i++) {
        if (branch_takes(schema_node_at(parser->tables, branches[i].type)->kind, kind))
            return i;
    }
    for (int i = 0; parser->keyval && i < node->count; i++) {
        if (branch_takes_keyval(schema_node_at(parser->tables, branches[i].type)->kind, kind))
            return i;
    }
    return -1;
}

static bool parse_alternate(struct parser *parser, const struct schema_node *node, const struct json *value,
                            const struct place *place, void *to)
{
    int index = find_branch(parser, node, json_get_kind(value));
    const struct schema_member *branch;

    if (index < 0)
        return fail_type(parser, place, schema_string(parser->tables, node->name));
    branch = &parser->tables->members[node->first + index];
    memcpy(to, &index, sizeof(index));
    return parse_slot(parser, schema_node_at(parser->tables, branch->type), value, place, (char *)to + node->u_offset);
}

static bool parse_array(struct parser *parser, const struct schema_node *node, const struct json *value,
                        const struct place *place, struct schema_array *to)
{
    const struct schema_node *element = schema_node_at(parser->tables, node->first);
    size_t count;

    if (json_get_kind(value) != JSON_ARRAY)
        return fail_type(parser, place, "array");
    count = json_count(value);
    to->items = g_malloc0_n(count, node->size);
    for (; to->count < count; to->count++) {
        struct place here = {.parent = place, .index = to->count};

        if (!parse_slot(parser, element, json_at(value, to->count), &here, (char *)to->items + to->count * node->size))
            return false;
    }
    return true;
}

static void *parse_value(struct parser *parser, const struct schema_node *node, const struct json *value,
                         const struct place *place)
{
    struct schema_tables const *tables = parser->tables;
    void *to;
    bool ok;

    if (parser->depth == SCHEMA_DEPTH_MAX) {
        g_autofree char *path = place_path(parser, place);

        error_set(parser->err, "Parameter '%.100s...' is nested more than %d levels deep", path, SCHEMA_DEPTH_MAX);
        return NULL;
    }
    parser->depth++;
    to = g_malloc0(node->kind == SCHEMA_ARRAY ? sizeof(struct schema_array) : node->size);
    if (node->kind == SCHEMA_STRUCT)
        ok = parse_struct(parser, node, value, place, to);
    else if (node->kind == SCHEMA_ALTERNATE)
        ok = parse_alternate(parser, node, value, place, to);
    else
        ok = parse_array(parser, node, value, place, to);
    parser->depth--;
    if (!ok)
        schema_free_slot(tables, node, &to);
    return ok ? to : NULL;
}

static bool parse_slot(struct parser *parser, const struct schema_node *node, const struct json *value,
                       const struct place *place, void *slot)
{
    switch ((enum schema_kind)node->kind) {
    case SCHEMA_STRING:
        return parse_string(parser, value, place, slot);
    case SCHEMA_BOOL:
        return parse_bool(parser, value, place, slot);
    case SCHEMA_NUMBER:
        return parse_number(parser, value, place, slot);
    case SCHEMA_ANY:
        *(struct json **)slot = json_clone(value);
        return true;
    case SCHEMA_NULL:
        return json_get_kind(value) == JSON_NULL || fail_type(parser, place, "null");
    case SCHEMA_ENUM:
        return parse_enum(parser, node, value, place, slot);
    case SCHEMA_STRUCT:
    case SCHEMA_ALTERNATE:
    case SCHEMA_ARRAY:
        *(void **)slot = parse_value(parser, node, value, place);
        return *(void **)slot != NULL;
    default:
        return parse_int(parser, node->kind, value, place, slot);
    }
}

static void *parse_root(const struct schema_type *type, const struct json *value, bool keyval, struct error **err)
{
    struct parser parser = {.tables = type->tables, .keyval = keyval, .err = err};
    struct place root = {.parent = NULL};

    return parse_value(&parser, schema_type_node(type), value, &root);
}

void *schema_parse(const struct schema_type *type, const struct json *value, struct error **err)
{
    return parse_root(type, value, false, err);
}

void *schema_parse_keyval(const struct schema_type *type, const struct json *value, struct error **err)
{
    return parse_root(type, value, !value->typed, err);
}
