/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * JSON to values of the schema, strictly: what is unknown, missing, of the wrong type or out of range is refused, with
 * the path of the member. From a command line all scalars come as strings.
 */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/units.h"
#include "schema/json.h"
#include "schema/schema.h"
#include "schema/type.h"

enum { DEPTH_MAX = 128 }; /* of nested structs: this recurses, on a coroutine's stack */

/* Where we are, from the inside out. */
struct place {
    const struct place *outer;
    const char *member; /* NULL: an item of an array */
    size_t index;
    unsigned depth;
    bool keyval; /* scalars are strings, and items are shown as keys */
};

/* The path of the place, such as "a.b[2].c"; owned. */
static char *place_path(const struct place *place)
{
    g_autofree char *outer = place->outer ? place_path(place->outer) : g_strdup("");
    const char *dot = *outer ? "." : "";

    if (!place->outer)
        return TAKE(outer);
    if (place->member)
        return g_strconcat(outer, dot, place->member, NULL);
    return g_strdup_printf(place->keyval ? "%s%s%zu" : "%s%.0s[%zu]", outer, dot, place->index);
}

static struct place place_member(const struct place *outer, const char *name)
{
    return (struct place){.outer = outer, .member = name, .depth = outer->depth + 1, .keyval = outer->keyval};
}

static bool wrong_type(const struct place *place, const char *expected, struct error **err)
{
    g_autofree char *path = place_path(place);

    if (!place->outer)
        return error_set(err, "Invalid type of the whole value, expected: %s", expected);
    return error_set(err, "Invalid parameter type for '%s', expected: %s", path, expected);
}

static bool out_of_range(const struct place *place, const struct schema_type *type, const char *value,
                         struct error **err)
{
    g_autofree char *path = place_path(place);
    unsigned bits = type->size * 8;

    if (type->kind == SCHEMA_SIGNED)
        return error_set(err, "Parameter '%s' expects int%u_t: %s is out of range", path, bits, value);
    return error_set(err, "Parameter '%s' expects uint%u_t: %s is out of range", path, bits, value);
}

static void store_integer(const struct schema_type *type, void *slot, uint64_t bits)
{
    uint8_t byte = (uint8_t)bits;
    uint16_t half = (uint16_t)bits;
    uint32_t word = (uint32_t)bits;
    const void *from = type->size == 1   ? (void *)&byte
                       : type->size == 2 ? (void *)&half
                       : type->size == 4 ? (void *)&word
                                         : &bits;

    memcpy(slot, from, type->size);
}

static bool parse_signed(const struct place *place, const struct schema_type *type, int64_t value, void *slot,
                         struct error **err)
{
    int64_t limit = type->size == 8 ? INT64_MAX : (INT64_C(1) << (type->size * 8 - 1)) - 1;

    if (value > limit || value < -limit - 1) {
        g_autofree char *text = g_strdup_printf("%" PRId64, value);
        return out_of_range(place, type, text, err);
    }
    store_integer(type, slot, (uint64_t)value);
    return true;
}

static bool parse_unsigned(const struct place *place, const struct schema_type *type, uint64_t value, void *slot,
                           struct error **err)
{
    uint64_t limit = type->size == 8 ? UINT64_MAX : (UINT64_C(1) << (type->size * 8)) - 1;

    if (value > limit) {
        g_autofree char *text = g_strdup_printf("%" PRIu64, value);
        return out_of_range(place, type, text, err);
    }
    store_integer(type, slot, value);
    return true;
}

static bool parse_integer(const struct place *place, const struct schema_type *type, const struct json *value,
                          void *slot, struct error **err)
{
    enum json_kind kind = json_get_kind(value);

    if (kind == JSON_INT && type->kind == SCHEMA_SIGNED)
        return parse_signed(place, type, json_get_int(value), slot, err);
    if (kind == JSON_INT && json_get_int(value) < 0) {
        g_autofree char *text = json_format(value, false);
        return out_of_range(place, type, text, err);
    }
    if ((kind == JSON_INT || kind == JSON_UINT) && type->kind != SCHEMA_SIGNED)
        return parse_unsigned(place, type, json_get_uint(value), slot, err);
    return wrong_type(place, "integer", err);
}

/* Scalars as the command line writes them. */
static bool parse_text_integer(const struct place *place, const struct schema_type *type, const char *text, void *slot,
                               struct error **err)
{
    g_autofree char *path = place_path(place);
    uint64_t number;
    int64_t signed_number;

    if (type->kind == SCHEMA_SIZE) {
        if (!size_parse(text, &number)) {
            error_set(err, "Parameter '%s' expects a non-negative number below 2^64, not '%s'", path, text);
            error_hint(err, "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta- and exabytes, "
                            "respectively.");
            return false;
        }
        return parse_unsigned(place, type, number, slot, err);
    }
    if (type->kind == SCHEMA_SIGNED) {
        if (!int64_parse(text, &signed_number))
            return error_set(err, "Parameter '%s' expects integer, not '%s'", path, text);
        return parse_signed(place, type, signed_number, slot, err);
    }
    if (!uint64_parse(text, &number))
        return error_set(err, "Parameter '%s' expects integer, not '%s'", path, text);
    return parse_unsigned(place, type, number, slot, err);
}

static int text_to_bool(const char *text)
{
    if (!strcmp(text, "on") || !strcmp(text, "yes") || !strcmp(text, "true") || !strcmp(text, "y"))
        return 1;
    if (!strcmp(text, "off") || !strcmp(text, "no") || !strcmp(text, "false") || !strcmp(text, "n"))
        return 0;
    return -1;
}

static bool parse_text_scalar(const struct place *place, const struct schema_type *type, const char *text, void *slot,
                              struct error **err)
{
    g_autofree char *path = place_path(place);
    char *end;

    switch (type->kind) {
    case SCHEMA_BOOL:
        if (text_to_bool(text) < 0)
            return error_set(err, "Parameter '%s' expects 'on' or 'off', not '%s'", path, text);
        *(bool *)slot = text_to_bool(text) == 1;
        return true;
    case SCHEMA_NUMBER:
        *(double *)slot = g_ascii_strtod(text, &end);
        return (*text && !*end) || error_set(err, "Parameter '%s' expects a number, not '%s'", path, text);
    case SCHEMA_NULL:
        return !*text || error_set(err, "Parameter '%s' expects null: an empty value, not '%s'", path, text);
    default:
        return parse_text_integer(place, type, text, slot, err);
    }
}

static bool parse_enum(const struct place *place, const struct schema_type *type, const struct json *value, void *slot,
                       struct error **err)
{
    if (json_get_kind(value) != JSON_STRING)
        return wrong_type(place, "string", err);
    int found = schema_enum_value(type, json_get_string(value));
    if (found < 0) {
        g_autofree char *path = place_path(place);
        return error_set(err, "Parameter '%s' does not accept value '%s'", path, json_get_string(value));
    }
    memcpy(slot, &found, sizeof(found));
    return true;
}

static bool parse_slot(const struct place *place, const struct schema_type *type, const struct json *value, void *slot,
                       struct error **err);
static void *parse_value(const struct place *place, const struct schema_type *type, const struct json *value,
                         struct error **err);

/* Parses those of the members that are there; `seen` counts them. */
static bool parse_members(const struct place *place, const struct schema_type *type, const struct json *object,
                          char *holder, size_t *seen, struct error **err)
{
    for (uint32_t i = 0; i < type->count; i++) {
        const struct schema_member *member = &type->members[i];
        const struct json *value = json_get(object, member->name);
        struct place inner = place_member(place, member->name);

        if (!value && !member->optional) {
            g_autofree char *path = place_path(&inner);
            return error_set(err, "Parameter '%s' is missing", path);
        }
        if (!value)
            continue;
        (*seen)++;
        if (!parse_slot(&inner, member->type, value, holder + member->offset, err))
            return false;
        if (member->has_offset >= 0)
            *(bool *)(holder + member->has_offset) = true;
    }
    const struct schema_variant *variant = schema_variant_of(type, holder);
    return !variant || parse_members(place, variant->type, object, holder + variant->offset, seen, err);
}

static bool has_member(const struct schema_type *type, const void *holder, const char *name)
{
    for (uint32_t i = 0; i < type->count; i++) {
        if (!strcmp(type->members[i].name, name))
            return true;
    }
    const struct schema_variant *variant = schema_variant_of(type, holder);
    return variant && has_member(variant->type, (const char *)holder + variant->offset, name);
}

static bool parse_struct(const struct place *place, const struct schema_type *type, const struct json *value,
                         void *holder, struct error **err)
{
    size_t seen = 0;

    if (json_get_kind(value) != JSON_OBJECT)
        return wrong_type(place, "object", err);
    if (!parse_members(place, type, value, holder, &seen, err))
        return false;
    if (seen == json_count(value))
        return true;
    for (size_t i = 0; i < json_count(value); i++) {
        const char *key;

        (void)json_member(value, i, &key);
        if (!has_member(type, holder, key)) {
            struct place inner = place_member(place, key);
            g_autofree char *path = place_path(&inner);

            return error_set(err, "Parameter '%s' is unexpected", path);
        }
    }
    return true;
}

/* Whether a JSON value of that kind selects the branch. */
static bool branch_accepts(const struct schema_type *type, const struct json *value, bool keyval)
{
    enum json_kind kind = json_get_kind(value);
    bool text = keyval && kind == JSON_STRING;

    switch (type->kind) {
    case SCHEMA_BOOL:
        return kind == JSON_BOOL || (text && text_to_bool(json_get_string(value)) >= 0);
    case SCHEMA_SIGNED:
    case SCHEMA_UNSIGNED:
    case SCHEMA_SIZE:
        return kind == JSON_INT || kind == JSON_UINT || (text && g_ascii_isdigit(json_get_string(value)[0]));
    case SCHEMA_NUMBER:
        return kind == JSON_INT || kind == JSON_UINT || kind == JSON_DOUBLE;
    case SCHEMA_STRING:
        return kind == JSON_STRING;
    case SCHEMA_ENUM:
        return kind == JSON_STRING && (!keyval || schema_enum_value(type, json_get_string(value)) >= 0);
    case SCHEMA_NULL:
        return kind == JSON_NULL;
    case SCHEMA_ARRAY:
        return kind == JSON_ARRAY;
    default:
        return kind == JSON_OBJECT;
    }
}

static bool parse_alternate(const struct place *place, const struct schema_type *type, const struct json *value,
                            char *holder, struct error **err)
{
    for (uint32_t i = 0; i < type->count; i++) {
        const struct schema_member *branch = &type->members[i];
        int kind = (int)i;

        if (!branch_accepts(branch->type, value, place->keyval))
            continue;
        memcpy(holder, &kind, sizeof(kind));
        return parse_slot(place, branch->type, value, holder + branch->offset, err);
    }
    return wrong_type(place, type->name, err);
}

static bool parse_array(const struct place *place, const struct schema_type *type, const struct json *value,
                        struct schema_array *array, struct error **err)
{
    size_t size = schema_type_slot_size(type->element);

    if (json_get_kind(value) != JSON_ARRAY)
        return wrong_type(place, "array", err);
    array->items = g_malloc0_n(MAX(json_count(value), 1), MAX(size, 1));
    for (size_t i = 0; i < json_count(value); i++) {
        struct place inner = {.outer = place, .index = i, .depth = place->depth + 1, .keyval = place->keyval};

        array->count = i + 1;
        if (!parse_slot(&inner, type->element, json_at(value, i), (char *)array->items + i * size, err))
            return false;
    }
    return true;
}

static bool parse_scalar(const struct place *place, const struct schema_type *type, const struct json *value,
                         void *slot, struct error **err)
{
    enum json_kind kind = json_get_kind(value);

    if (place->keyval && kind == JSON_STRING)
        return parse_text_scalar(place, type, json_get_string(value), slot, err);
    switch (type->kind) {
    case SCHEMA_BOOL:
        if (kind != JSON_BOOL)
            return wrong_type(place, "boolean", err);
        *(bool *)slot = json_get_bool(value);
        return true;
    case SCHEMA_NUMBER:
        if (kind != JSON_INT && kind != JSON_UINT && kind != JSON_DOUBLE)
            return wrong_type(place, "number", err);
        *(double *)slot = json_get_double(value);
        return true;
    case SCHEMA_NULL:
        return kind == JSON_NULL || wrong_type(place, "null", err);
    default:
        return parse_integer(place, type, value, slot, err);
    }
}

/* Into the slot of a member or item, which is zero-filled. */
static bool parse_slot(const struct place *place, const struct schema_type *type, const struct json *value, void *slot,
                       struct error **err)
{
    void *pointer;

    if (type->kind == SCHEMA_ENUM)
        return parse_enum(place, type, value, slot, err);
    if (!schema_type_is_pointer(type))
        return parse_scalar(place, type, value, slot, err);
    pointer = parse_value(place, type, value, err);
    memcpy(slot, &pointer, sizeof(pointer));
    return pointer != NULL;
}

/* A new value of a type that is handled by pointer. */
static void *parse_value(const struct place *place, const struct schema_type *type, const struct json *value,
                         struct error **err)
{
    bool ok;

    if (type->kind == SCHEMA_ANY)
        return json_clone(value);
    if (type->kind == SCHEMA_STRING) {
        if (json_get_kind(value) == JSON_STRING)
            return g_strdup(json_get_string(value));
        wrong_type(place, "string", err);
        return NULL;
    }
    if (place->depth > DEPTH_MAX) {
        error_set(err, "The value is nested more than %d levels deep", DEPTH_MAX);
        return NULL;
    }
    void *result = g_malloc0(type->size);
    if (type->kind == SCHEMA_STRUCT)
        ok = parse_struct(place, type, value, result, err);
    else if (type->kind == SCHEMA_ALTERNATE)
        ok = parse_alternate(place, type, value, result, err);
    else
        ok = parse_array(place, type, value, result, err);
    if (ok)
        return result;
    schema_free(type, result);
    return NULL;
}

void *schema_parse(const struct schema_type *type, const struct json *value, struct error **err)
{
    struct place root = {.keyval = false};

    return parse_value(&root, type, value, err);
}

void *schema_parse_keyval(const struct schema_type *type, const struct json *value, struct error **err)
{
    struct place root = {.keyval = true};

    return parse_value(&root, type, value, err);
}
