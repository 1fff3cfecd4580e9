/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * JSON values. Keeps: (1) each value has one owner, (2) keys of an object are unique once json_object_finish() was
 * called, (3) nothing here recurses, since values nest as deep as a client likes.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "schema/json-internal.h"

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

    value->boolean = boolean;
    return value;
}

struct json *json_int(int64_t integer)
{
    struct json *value = json_new(JSON_INT);

    value->integer = integer;
    return value;
}

struct json *json_uint(uint64_t natural)
{
    struct json *value = json_new(natural <= INT64_MAX ? JSON_INT : JSON_UINT);

    value->natural = natural;
    return value;
}

struct json *json_double(double number)
{
    struct json *value = json_new(JSON_DOUBLE);

    value->number = number;
    return value;
}

struct json *json_string(const char *string)
{
    assert(string);
    return json_string_take(g_strdup(string));
}

struct json *json_string_take(char *string)
{
    struct json *value = json_new(JSON_STRING);

    value->string = string;
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

static bool is_container(const struct json *value)
{
    return value->kind == JSON_ARRAY || value->kind == JSON_OBJECT;
}

/* Frees `value` if it is a scalar, else puts it in front of the list. */
static struct json *free_or_list(struct json *value, struct json *list)
{
    if (is_container(value)) {
        value->next = list;
        return value;
    }
    if (value->kind == JSON_STRING)
        g_free(value->string);
    g_free(value);
    return list;
}

void json_free(struct json *value)
{
    struct json *list = value ? free_or_list(value, NULL) : NULL;

    while (list) {
        struct json *container = list;

        list = container->next;
        for (uint32_t i = 0; i < container->count; i++) {
            if (container->kind == JSON_OBJECT) {
                g_free(container->pairs[i].key);
                list = free_or_list(container->pairs[i].value, list);
            } else {
                list = free_or_list(container->items[i], list);
            }
        }
        g_free(container->items);
        g_free(container);
    }
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

    assert(kind < G_N_ELEMENTS(names));
    return names[kind];
}

bool json_get_bool(const struct json *value)
{
    assert(value->kind == JSON_BOOL);
    return value->boolean;
}

int64_t json_get_int(const struct json *value)
{
    assert(value->kind == JSON_INT);
    return value->integer;
}

uint64_t json_get_uint(const struct json *value)
{
    assert(value->kind == JSON_UINT || (value->kind == JSON_INT && value->integer >= 0));
    return value->natural;
}

double json_get_double(const struct json *value)
{
    if (value->kind == JSON_INT)
        return (double)value->integer;
    if (value->kind == JSON_UINT)
        return (double)value->natural;
    assert(value->kind == JSON_DOUBLE);
    return value->number;
}

const char *json_get_string(const struct json *value)
{
    assert(value->kind == JSON_STRING);
    return value->string;
}

size_t json_count(const struct json *container)
{
    assert(is_container(container));
    return container->count;
}

const struct json *json_at(const struct json *array, size_t index)
{
    assert(array->kind == JSON_ARRAY);
    assert(index < array->count);
    return array->items[index];
}

static uint32_t next_capacity(uint32_t capacity)
{
    assert(capacity <= UINT32_MAX / 2);
    return capacity ? 2 * capacity : 4;
}

void json_append(struct json *array, struct json *value)
{
    assert(array->kind == JSON_ARRAY);
    assert(value);
    if (array->count == array->capacity) {
        array->capacity = next_capacity(array->capacity);
        array->items = g_renew(struct json *, array->items, array->capacity);
    }
    array->items[array->count++] = value;
}

/* Objects. */

static uint32_t *object_index(const struct json *object)
{
    assert(object->capacity > JSON_SMALL);
    return (uint32_t *)(void *)(object->pairs + object->capacity);
}

static size_t pairs_size(uint32_t capacity)
{
    return capacity * (sizeof(struct json_pair) + (capacity > JSON_SMALL ? sizeof(uint32_t) : 0));
}

static void object_reserve(struct json *object)
{
    uint32_t capacity = next_capacity(object->capacity);
    struct json_pair *pairs;

    if (object->count < object->capacity)
        return;
    pairs = g_malloc(pairs_size(capacity));
    if (object->count) {
        memcpy(pairs, object->pairs, object->count * sizeof(*pairs));
        if (object->capacity > JSON_SMALL)
            memcpy(pairs + capacity, object_index(object), object->count * sizeof(uint32_t));
    }
    g_free(object->pairs);
    object->pairs = pairs;
    object->capacity = capacity;
}

static int compare_keys(const void *a, const void *b, void *pairs)
{
    const struct json_pair *pair = pairs;
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    int order = strcmp(pair[left].key, pair[right].key);

    /* Equal keys in their order, so that the result does not depend on how the sort works. */
    return order ? order : (left > right) - (left < right);
}

static void object_make_index(struct json *object)
{
    uint32_t *index = object_index(object);

    for (uint32_t i = 0; i < object->count; i++)
        index[i] = i;
    qsort_r(index, object->count, sizeof(*index), compare_keys, object->pairs);
    object->unindexed = false;
}

/* Where `key` is in the index, or where it would be. */
static uint32_t index_search(const struct json *object, const char *key, bool *ret_found)
{
    const uint32_t *index = object_index(object);
    uint32_t low = 0, high = object->count;

    assert(!object->unindexed);
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = strcmp(object->pairs[index[middle]].key, key);

        if (!order) {
            *ret_found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *ret_found = false;
    return low;
}

/* The number of the member, or -1. */
static int64_t object_find(const struct json *object, const char *key)
{
    bool found;
    uint32_t position;

    assert(object->kind == JSON_OBJECT);
    if (object->count <= JSON_SMALL) {
        for (uint32_t i = 0; i < object->count; i++) {
            if (!strcmp(object->pairs[i].key, key))
                return i;
        }
        return -1;
    }
    position = index_search(object, key, &found);
    return found ? (int64_t)object_index(object)[position] : -1;
}

bool json_object_add(struct json *object, char *key, struct json *value)
{
    if (object->count <= JSON_SMALL && object_find(object, key) >= 0)
        return false;
    object_reserve(object);
    object->pairs[object->count++] = (struct json_pair){.key = key, .value = value};
    if (object->count > JSON_SMALL)
        object->unindexed = true;
    return true;
}

const char *json_object_finish(struct json *object)
{
    const uint32_t *index;

    assert(object->kind == JSON_OBJECT);
    if (!object->unindexed)
        return NULL;
    object_make_index(object);
    index = object_index(object);
    for (uint32_t i = 1; i < object->count; i++) {
        if (!strcmp(object->pairs[index[i - 1]].key, object->pairs[index[i]].key))
            return object->pairs[index[i]].key;
    }
    return NULL;
}

/* Puts the last member, whose key is new, into the index. */
static void index_last(struct json *object)
{
    uint32_t *index, position;
    bool found;

    if (object->count <= JSON_SMALL)
        return;
    if (object->count == JSON_SMALL + 1) {
        object_make_index(object);
        return;
    }
    object->count--;
    position = index_search(object, object->pairs[object->count].key, &found);
    assert(!found);
    index = object_index(object);
    memmove(index + position + 1, index + position, (object->count - position) * sizeof(*index));
    index[position] = object->count++;
}

const struct json *json_get(const struct json *object, const char *key)
{
    int64_t index = object_find(object, key);

    return index < 0 ? NULL : object->pairs[index].value;
}

const struct json *json_member(const struct json *object, size_t index, const char **ret_key)
{
    assert(object->kind == JSON_OBJECT);
    assert(index < object->count);
    *ret_key = object->pairs[index].key;
    return object->pairs[index].value;
}

void json_set(struct json *object, const char *key, struct json *value)
{
    int64_t index = object_find(object, key);

    assert(value);
    if (index >= 0) {
        json_free(object->pairs[index].value);
        object->pairs[index].value = value;
        return;
    }
    object_reserve(object);
    object->pairs[object->count++] = (struct json_pair){.key = g_strdup(key), .value = value};
    index_last(object);
}

struct json *json_take(struct json *object, const char *key)
{
    int64_t index = object_find(object, key);
    struct json *value;

    if (index < 0)
        return NULL;
    value = object->pairs[index].value;
    g_free(object->pairs[index].key);
    object->count--;
    memmove(object->pairs + index, object->pairs + index + 1, (object->count - index) * sizeof(*object->pairs));
    if (object->count > JSON_SMALL)
        object_make_index(object);
    return value;
}

/* Copies and comparisons of nested values: a stack of pairs that are still to be looked at. */

struct pair_of_values {
    const struct json *source;
    struct json *copy;
};

/* A copy of a scalar, or an empty container with room for the members. */
static struct json *clone_shallow(const struct json *source)
{
    struct json *copy = g_memdup2(source, sizeof(*source));

    if (source->kind == JSON_STRING)
        copy->string = g_strdup(source->string);
    if (!is_container(source))
        return copy;
    copy->items = NULL;
    if (source->kind == JSON_ARRAY && source->count) {
        copy->capacity = source->count;
        copy->items = g_new(struct json *, copy->capacity);
    } else if (source->kind == JSON_OBJECT && source->count) {
        copy->pairs = g_malloc(pairs_size(source->capacity));
        if (source->count > JSON_SMALL)
            memcpy(object_index(copy), object_index(source), source->count * sizeof(uint32_t));
    } else {
        copy->capacity = 0;
    }
    return copy;
}

static struct json *clone_push(const struct json *source, GArray *stack)
{
    struct pair_of_values pair = {.source = source, .copy = clone_shallow(source)};

    if (is_container(source) && source->count)
        g_array_append_val(stack, pair);
    return pair.copy;
}

struct json *json_clone(const struct json *value)
{
    g_autoptr(GArray) stack = g_array_new(FALSE, FALSE, sizeof(struct pair_of_values));
    struct json *result = clone_push(value, stack);

    while (stack->len) {
        struct pair_of_values top = g_array_index(stack, struct pair_of_values, stack->len - 1);

        g_array_set_size(stack, stack->len - 1);
        for (uint32_t i = 0; i < top.source->count; i++) {
            if (top.source->kind == JSON_ARRAY) {
                top.copy->items[i] = clone_push(top.source->items[i], stack);
            } else {
                top.copy->pairs[i].key = g_strdup(top.source->pairs[i].key);
                top.copy->pairs[i].value = clone_push(top.source->pairs[i].value, stack);
            }
        }
    }
    return result;
}

/* Whether the double is the integer's value exactly. */
static bool equal_double(const struct json *number, const struct json *integer)
{
    double value = number->number;

    if (number->kind != JSON_DOUBLE || value != trunc(value))
        return false;
    if (integer->kind == JSON_INT)
        return value >= -0x1p63 && value < 0x1p63 && (int64_t)value == integer->integer;
    return integer->kind == JSON_UINT && value >= 0 && value < 0x1p64 && (uint64_t)value == integer->natural;
}

static bool equal_shallow(const struct json *a, const struct json *b)
{
    if (a->kind != b->kind)
        return equal_double(a, b) || equal_double(b, a);
    switch ((enum json_kind)a->kind) {
    case JSON_NULL:
        return true;
    case JSON_BOOL:
        return a->boolean == b->boolean;
    case JSON_INT:
    case JSON_UINT:
        return a->natural == b->natural;
    case JSON_DOUBLE:
        return a->number == b->number;
    case JSON_STRING:
        return !strcmp(a->string, b->string);
    default:
        return a->count == b->count;
    }
}

struct pair_to_compare {
    const struct json *a;
    const struct json *b;
};

bool json_equal(const struct json *a, const struct json *b)
{
    g_autoptr(GArray) stack = g_array_new(FALSE, FALSE, sizeof(struct pair_to_compare));
    struct pair_to_compare pair = {.a = a, .b = b};

    for (;;) {
        if (!equal_shallow(pair.a, pair.b))
            return false;
        for (uint32_t i = 0; is_container(pair.a) && i < pair.a->count; i++) {
            struct pair_to_compare member;

            if (pair.a->kind == JSON_ARRAY)
                member = (struct pair_to_compare){pair.a->items[i], pair.b->items[i]};
            else
                member = (struct pair_to_compare){pair.a->pairs[i].value, json_get(pair.b, pair.a->pairs[i].key)};
            if (!member.b)
                return false;
            g_array_append_val(stack, member);
        }
        if (!stack->len)
            return true;
        pair = g_array_index(stack, struct pair_to_compare, stack->len - 1);
        g_array_set_size(stack, stack->len - 1);
    }
}
