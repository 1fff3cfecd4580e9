/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * "driver=file,node-name=x,cache.direct=on" to JSON: a dot goes one level deeper, keys that are numbers make an array,
 * ",," stands for a comma in a value. All scalars are strings; what they mean, the schema knows.
 */
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/units.h"
#include "schema/json.h"
#include "schema/schema.h"

enum { KEY_DEPTH_MAX = 64, KEY_BYTES_MAX = 255, ITEMS_MAX = 1 << 16 };

static bool is_number(const char *fragment)
{
    return *fragment && strspn(fragment, "0123456789") == strlen(fragment);
}

static bool valid_fragment(const char *fragment)
{
    if (is_number(fragment))
        return true;
    if (!g_ascii_isalpha(fragment[0]) && fragment[0] != '_')
        return false;
    for (const char *at = fragment; *at; at++) {
        if (!g_ascii_isalnum(*at) && *at != '-' && *at != '_')
            return false;
    }
    return true;
}

/* The object under `key` in `object`, made where there is none; NULL where a scalar is in the way. */
static struct json *descend(struct json *object, const char *key)
{
    const struct json *there = json_get(object, key);

    if (!there) {
        json_set(object, key, json_object());
        there = json_get(object, key);
    }
    return json_get_kind(there) == JSON_OBJECT ? (struct json *)(uintptr_t)there : NULL;
}

/* Puts `value` under the dotted `key`. */
static bool put(struct json *root, const char *key, const char *value, struct error **err)
{
    g_auto(GStrv) fragments = g_strsplit(key, ".", KEY_DEPTH_MAX + 1);
    guint count = g_strv_length(fragments);
    struct json *object = root;

    if (!count || count > KEY_DEPTH_MAX || is_number(fragments[0]))
        return error_set(err, "Invalid parameter '%s'", key);
    for (guint i = 0; i < count; i++) {
        if (strlen(fragments[i]) > KEY_BYTES_MAX || !valid_fragment(fragments[i]))
            return error_set(err, "Invalid parameter '%s'", key);
    }
    for (guint i = 0; i + 1 < count; i++) {
        object = descend(object, fragments[i]);
        if (!object)
            return error_set(err, "Parameters '%s.*' used inconsistently", fragments[i]);
    }
    const struct json *there = json_get(object, fragments[count - 1]);
    if (there && json_get_kind(there) == JSON_OBJECT)
        return error_set(err, "Parameters '%s.*' used inconsistently", key);
    /* As people rely on it: the last one counts. */
    json_set(object, fragments[count - 1], json_string(value));
    return true;
}

/* The value at *at, up to a single comma or the end; ",," is a comma. Owned. */
static char *take_value(const char **at)
{
    GString *value = g_string_new(NULL);

    while (**at) {
        if (**at == ',' && *++*at != ',')
            break;
        g_string_append_c(value, *(*at)++);
    }
    return g_string_free(value, FALSE);
}

static bool is_help(const char *word)
{
    return !strcmp(word, "help") || !strcmp(word, "?");
}

/* One "key=value", or a word alone. */
static bool take_parameter(struct json *root, const char **at, const char *implied_key, bool *help, struct error **err)
{
    size_t size = strcspn(*at, "=,");
    bool assigned = (*at)[size] == '=';
    g_autofree char *key = NULL;
    g_autofree char *value = NULL;

    if (assigned) {
        key = g_strndup(*at, size);
        *at += size + 1;
        value = take_value(at);
        return put(root, key, value, err);
    }
    value = take_value(at);
    if (help && is_help(value)) {
        *help = true;
        return true;
    }
    if (implied_key)
        return put(root, implied_key, value, err);
    if (!*value)
        return error_set(err, "Expected '=' after parameter ''");
    return error_set(err, "Expected '=' after parameter '%s'", value);
}

/* `object` whose keys are 0, 1, ... becomes an array; others stay. Owned; NULL and the error. Takes `object`. */
static struct json *to_array(struct json *object, const char *path, struct error **err)
{
    size_t count = json_count(object);
    size_t numbers = 0;

    for (size_t i = 0; i < count; i++) {
        const char *key;

        (void)json_member(object, i, &key);
        numbers += is_number(key);
    }
    if (!numbers)
        return object;
    if (numbers < count || count > ITEMS_MAX) {
        error_set(err, "Parameters '%s.*' used inconsistently", path);
        json_free(object);
        return NULL;
    }
    AUTO(json) array = json_array();
    for (size_t i = 0; i < count; i++) {
        g_autofree char *key = g_strdup_printf("%zu", i);
        struct json *item = json_take(object, key);

        if (!item) {
            error_set(err, "Parameter '%s.%zu' missing", path, i);
            json_free(object);
            return NULL;
        }
        json_append(array, item);
    }
    json_free(object);
    return TAKE(array);
}

/* Makes arrays in `value` (taken), from the inside out; the depth is that of the keys, which is limited. */
static struct json *make_arrays(struct json *value, const char *path, struct error **err)
{
    if (json_get_kind(value) != JSON_OBJECT)
        return value;
    for (size_t i = 0; i < json_count(value); i++) {
        const char *key;
        const struct json *member = json_member(value, i, &key);

        if (json_get_kind(member) != JSON_OBJECT)
            continue;
        g_autofree char *inner_path = *path ? g_strconcat(path, ".", key, NULL) : g_strdup(key);
        g_autofree char *own_key = g_strdup(key);
        struct json *made = make_arrays(json_clone(member), inner_path, err);
        if (!made) {
            json_free(value);
            return NULL;
        }
        json_set(value, own_key, made);
    }
    return *path ? to_array(value, path, err) : value;
}

struct json *keyval_parse(const char *text, const char *implied_key, bool *ret_help, struct error **err)
{
    AUTO(json) root = NULL;
    const char *at = text;
    bool help = false;

    if (*text == '{') {
        root = json_parse(text, strlen(text), err);
    } else {
        root = json_object();
        while (*at) {
            if (!take_parameter(root, &at, implied_key, ret_help ? &help : NULL, err))
                return NULL;
            implied_key = NULL;
        }
        root = make_arrays(TAKE(root), "", err);
    }
    if (root && ret_help)
        *ret_help = help;
    return TAKE(root);
}
