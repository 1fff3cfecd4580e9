/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * JSON values. Small objects are searched in a row; large ones get an index of their keys, so that an object of a
 * million members costs no more than its size.
 */
#include "schema/json.h"

#include <assert.h>
#include <string.h>

enum { INDEX_FROM = 32 }; /* members from which a key index pays */

struct member {
    char *key; /* NULL in arrays */
    struct json *value;
};

struct json {
    enum json_kind kind;
    union {
        bool boolean;
        int64_t integer;
        uint64_t big;
        double real;
        char *string;
        struct {
            struct member *members;
            GHashTable *index; /* key to its number + 1; NULL below INDEX_FROM members */
            size_t count;
            size_t room;
        } container;
    } u;
};

static struct json *json_new(enum json_kind kind)
{
    struct json *value = g_new0(struct json, 1);

    value->kind = kind;
    return value;
}

struct json *json_null(void)
{
    return json_new(JSON_NULL);
}

struct json *json_bool(bool boolean)
{
    struct json *value = json_new(JSON_BOOL);

    value->u.boolean = boolean;
    return value;
}

struct json *json_int(int64_t integer)
{
    struct json *value = json_new(JSON_INT);

    value->u.integer = integer;
    return value;
}

struct json *json_uint(uint64_t big)
{
    if (big <= INT64_MAX)
        return json_int((int64_t)big);
    struct json *value = json_new(JSON_UINT);
    value->u.big = big;
    return value;
}

struct json *json_double(double real)
{
    struct json *value = json_new(JSON_DOUBLE);

    value->u.real = real;
    return value;
}

struct json *json_string(const char *string)
{
    struct json *value = json_new(JSON_STRING);

    value->u.string = g_strdup(string);
    return value;
}

struct json *json_array(void)
{
    return json_new(JSON_ARRAY);
}

struct json *json_object(void)
{
    return json_new(JSON_OBJECT);
}

enum json_kind json_get_kind(const struct json *value)
{
    return value->kind;
}

const char *json_kind_name(enum json_kind kind)
{
    static const char *const names[] = {
        [JSON_NULL] = "null",     [JSON_BOOL] = "boolean",  [JSON_INT] = "integer", [JSON_UINT] = "integer",
        [JSON_DOUBLE] = "number", [JSON_STRING] = "string", [JSON_ARRAY] = "array", [JSON_OBJECT] = "object",
    };

    assert((size_t)kind < G_N_ELEMENTS(names));
    return names[kind];
}

bool json_get_bool(const struct json *value)
{
    assert(value->kind == JSON_BOOL);
    return value->u.boolean;
}

int64_t json_get_int(const struct json *value)
{
    assert(value->kind == JSON_INT);
    return value->u.integer;
}

uint64_t json_get_uint(const struct json *value)
{
    if (value->kind == JSON_UINT)
        return value->u.big;
    assert(value->kind == JSON_INT);
    assert(value->u.integer >= 0);
    return (uint64_t)value->u.integer;
}

double json_get_double(const struct json *value)
{
    switch (value->kind) {
    case JSON_INT:
        return (double)value->u.integer;
    case JSON_UINT:
        return (double)value->u.big;
    default:
        assert(value->kind == JSON_DOUBLE);
        return value->u.real;
    }
}

const char *json_get_string(const struct json *value)
{
    assert(value->kind == JSON_STRING);
    return value->u.string;
}

static bool is_container(const struct json *value)
{
    return value->kind == JSON_ARRAY || value->kind == JSON_OBJECT;
}

size_t json_count(const struct json *container)
{
    assert(is_container(container));
    return container->u.container.count;
}

const struct json *json_at(const struct json *array, size_t index)
{
    assert(array->kind == JSON_ARRAY);
    assert(index < array->u.container.count);
    return array->u.container.members[index].value;
}

static void add_member(struct json *container, char *key, struct json *value)
{
    size_t count = container->u.container.count;

    if (count == container->u.container.room) {
        container->u.container.room = count ? count * 2 : 4;
        container->u.container.members =
            g_renew(struct member, container->u.container.members, container->u.container.room);
    }
    container->u.container.members[count] = (struct member){key, value};
    container->u.container.count = count + 1;
}

void json_append(struct json *array, struct json *value)
{
    assert(array->kind == JSON_ARRAY);
    add_member(array, NULL, value);
}

/* The number of the member `key`, or the count of members. */
static size_t find(const struct json *object, const char *key)
{
    size_t count = object->u.container.count;

    assert(object->kind == JSON_OBJECT);
    if (object->u.container.index) {
        size_t number = GPOINTER_TO_SIZE(g_hash_table_lookup(object->u.container.index, key));

        return number ? number - 1 : count;
    }
    for (size_t i = 0; i < count; i++) {
        if (!strcmp(object->u.container.members[i].key, key))
            return i;
    }
    return count;
}

static void make_index(struct json *object)
{
    GHashTable *index = g_hash_table_new(g_str_hash, g_str_equal);

    for (size_t i = 0; i < object->u.container.count; i++)
        g_hash_table_insert(index, object->u.container.members[i].key, GSIZE_TO_POINTER(i + 1));
    object->u.container.index = index;
}

const struct json *json_get(const struct json *object, const char *key)
{
    size_t index = find(object, key);

    return index < object->u.container.count ? object->u.container.members[index].value : NULL;
}

const struct json *json_member(const struct json *object, size_t index, const char **ret_key)
{
    assert(object->kind == JSON_OBJECT);
    assert(index < object->u.container.count);
    *ret_key = object->u.container.members[index].key;
    return object->u.container.members[index].value;
}

void json_set(struct json *object, const char *key, struct json *value)
{
    size_t index = find(object, key);
    size_t count = object->u.container.count;

    if (index < count) {
        json_free(object->u.container.members[index].value);
        object->u.container.members[index].value = value;
        return;
    }
    char *copy = g_strdup(key);
    add_member(object, copy, value);
    if (object->u.container.index)
        g_hash_table_insert(object->u.container.index, copy, GSIZE_TO_POINTER(count + 1));
    else if (count + 1 >= INDEX_FROM)
        make_index(object);
}

struct json *json_take(struct json *object, const char *key)
{
    size_t index = find(object, key);
    size_t count = object->u.container.count;

    if (index == count)
        return NULL;
    struct member *members = object->u.container.members;
    struct json *value = members[index].value;
    char *old_key = members[index].key;
    g_clear_pointer(&object->u.container.index, g_hash_table_unref);
    memmove(members + index, members + index + 1, (count - index - 1) * sizeof(*members));
    object->u.container.count = count - 1;
    g_free(old_key);
    if (count - 1 >= INDEX_FROM)
        make_index(object);
    return value;
}

/* Moves the members of `value` to the end of `pile`, so that depth does not become recursion. */
static void pile_members(GPtrArray *pile, struct json *value)
{
    for (size_t i = 0; i < value->u.container.count; i++) {
        g_free(value->u.container.members[i].key);
        g_ptr_array_add(pile, value->u.container.members[i].value);
    }
    g_free(value->u.container.members);
    if (value->u.container.index)
        g_hash_table_unref(value->u.container.index);
}

void json_free(struct json *value)
{
    g_autoptr(GPtrArray) pile = NULL;

    while (value) {
        if (value->kind == JSON_STRING) {
            g_free(value->u.string);
        } else if (is_container(value)) {
            if (!pile)
                pile = g_ptr_array_new();
            pile_members(pile, value);
        }
        g_free(value);
        value = pile && pile->len ? g_ptr_array_remove_index(pile, pile->len - 1) : NULL;
    }
}

/* Depth of values is bounded by the reader and by our own types, so that recursion is harmless here. */
struct json *json_clone(const struct json *value)
{
    struct json *copy = json_new(value->kind);

    if (value->kind == JSON_STRING) {
        copy->u.string = g_strdup(value->u.string);
    } else if (is_container(value)) {
        for (size_t i = 0; i < value->u.container.count; i++) {
            const struct member *member = &value->u.container.members[i];

            if (value->kind == JSON_ARRAY)
                json_append(copy, json_clone(member->value));
            else
                json_set(copy, member->key, json_clone(member->value));
        }
    } else {
        copy->u = value->u;
    }
    return copy;
}

static bool containers_equal(const struct json *a, const struct json *b)
{
    if (a->u.container.count != b->u.container.count)
        return false;
    for (size_t i = 0; i < a->u.container.count; i++) {
        const struct member *member = &a->u.container.members[i];
        const struct json *other = a->kind == JSON_ARRAY ? b->u.container.members[i].value : json_get(b, member->key);

        if (!other || !json_equal(member->value, other))
            return false;
    }
    return true;
}

bool json_equal(const struct json *a, const struct json *b)
{
    if (a->kind != b->kind)
        return false;
    switch (a->kind) {
    case JSON_NULL:
        return true;
    case JSON_BOOL:
        return a->u.boolean == b->u.boolean;
    case JSON_INT:
        return a->u.integer == b->u.integer;
    case JSON_UINT:
        return a->u.big == b->u.big;
    case JSON_DOUBLE:
        return a->u.real == b->u.real;
    case JSON_STRING:
        return !strcmp(a->u.string, b->u.string);
    default:
        return containers_equal(a, b);
    }
}
