/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * "driver=file,cache.direct=on" to JSON: dots lead into objects, numbers between dots into arrays, two commas are one
 * in a value. All scalars become strings; the types are found out by schema_parse_keyval().
 */
#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "schema/json-internal.h"
#include "schema/schema.h"

/* Bytes of a key, which bounds the depth too. */
enum { KEY_MAX = 127 };

/* A name, or a number (an element of an array), from `key` on. Returns its length; 0: neither. */
static size_t fragment_length(const char *key, bool first)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", digits[] = "0123456789";
    size_t length = first ? 0 : strspn(key, digits);

    if (length)
        return length;
    if (!*key || !strchr(letters, *key))
        return 0;
    while (key[length] && (strchr(letters, key[length]) || strchr(digits, key[length]) || strchr("_-", key[length])))
        length++;
    return length;
}

static bool is_index(const char *key)
{
    return g_ascii_isdigit(*key);
}

/* The fragment of `key` that ends at `end`; numbers without leading zeroes, so that equal ones are equal. */
static char *fragment_of(const char *start, const char *end)
{
    while (*start == '0' && start + 1 < end)
        start++;
    return g_strndup(start, (gsize)(end - start));
}

/* Puts a string under the dotted `key`; the last word for a key counts. */
static bool put(struct json *root, const char *key, const char *value, struct error **err)
{
    struct json *object = root;
    const char *start = key;

    for (;;) {
        size_t length = fragment_length(start, start == key);
        const char *end = start + length;
        g_autofree char *fragment = fragment_of(start, end);
        const struct json *member;

        if (!length || (*end && *end != '.'))
            return error_set(err, "Invalid parameter '%s'", key);
        member = json_get(object, fragment);
        if (member && (json_get_kind(member) == JSON_OBJECT) != (*end == '.'))
            return error_set(err, "Parameters '%.*s.*' used inconsistently", (int)(end - key), key);
        if (!*end) {
            json_set(object, fragment, json_string(value));
            return true;
        }
        if (!member) {
            member = json_object();
            json_set(object, fragment, (struct json *)member);
        }
        /* Owned by `root`, and so ours to change. */
        object = (struct json *)member;
        start = end + 1;
    }
}

/* The value up to a single comma, and where the next word starts. */
static char *value_of(const char *text, const char **ret_next)
{
    GString *value = g_string_new(NULL);

    for (; *text; text++) {
        if (text[0] == ',' && text[1] != ',')
            break;
        text += text[0] == ',';
        g_string_append_c(value, *text);
    }
    *ret_next = *text ? text + 1 : text;
    return g_string_free(value, FALSE);
}

/* Whether the `length` bytes at `text` ask for help, and are a whole word. */
static bool is_help(const char *text, size_t length)
{
    const char *end = text + length;

    if (*end == '=' || (end[0] == ',' && end[1] == ','))
        return false;
    return (length == 4 && !strncmp(text, "help", 4)) || (length == 1 && *text == '?');
}

/* One word of `text` into `root`. */
static bool parse_word(struct json *root, const char *text, const char *implied_key, bool *help, const char **ret_next,
                       struct error **err)
{
    size_t length = strcspn(text, "=,");
    g_autofree char *value = NULL;
    g_autofree char *key = NULL;

    if (is_help(text, length)) {
        *help = true;
        *ret_next = text + length + (text[length] == ',');
        return true;
    }
    if (implied_key && length && text[length] != '=') {
        value = value_of(text, ret_next);
        return put(root, implied_key, value, err);
    }
    if (length > KEY_MAX)
        return error_set(err, "Invalid parameter '%.40s...': longer than %d bytes", text, KEY_MAX);
    key = g_strndup(text, length);
    if (text[length] != '=')
        return length ? error_set(err, "Expected '=' after parameter '%s'", key)
                      : error_set(err, "Invalid parameter ''");
    value = value_of(text + length + 1, ret_next);
    return put(root, key, value, err);
}

/* An array of the members of `object`, whose keys are all numbers; the values move over. */
static struct json *array_of(struct json *object, const char *path, struct error **err)
{
    size_t count = json_count(object), missing = 0;
    g_autofree struct json **elements = g_new0(struct json *, count);
    struct json *array;

    for (size_t i = 0; i < count; i++) {
        guint64 index = g_ascii_strtoull(object->pairs[i].key, NULL, 10);

        if (index < count)
            elements[index] = object->pairs[i].value;
    }
    while (missing < count && elements[missing])
        missing++;
    if (missing < count) {
        error_set(err, "Parameter '%s.%zu' missing", path, missing);
        return NULL;
    }
    array = json_array();
    for (size_t i = 0; i < count; i++) {
        json_append(array, elements[i]);
        object->pairs[i].value = json_null();
    }
    return array;
}

/* Turns objects whose keys are numbers into arrays, innermost first; *slot is replaced. KEY_MAX bounds the recursion.
 */
static bool make_arrays(struct json **slot, const char *path, struct error **err)
{
    struct json *object = *slot, *array;
    size_t indices = 0;

    for (uint32_t i = 0; i < object->count; i++) {
        struct json_pair *pair = &object->pairs[i];
        g_autofree char *inner = g_strdup_printf("%s%s%s", path, *path ? "." : "", pair->key);

        indices += is_index(pair->key);
        if (pair->value->kind == JSON_OBJECT && !make_arrays(&pair->value, inner, err))
            return false;
    }
    if (!indices)
        return true;
    if (indices < object->count)
        return error_set(err, "Parameters '%s.*' used inconsistently", path);
    array = array_of(object, path, err);
    if (!array)
        return false;
    json_free(object);
    *slot = array;
    return true;
}

struct json *keyval_parse(const char *text, const char *implied_key, bool *ret_help, struct error **err)
{
    AUTO(json) root = NULL;
    bool help = false;

    assert(text);
    if (*text == '{') {
        root = json_parse(text, strlen(text), err);
        if (!root)
            return NULL;
        root->typed = true;
    } else {
        root = json_object();
        for (const char *word = text; *word;) {
            if (!parse_word(root, word, json_count(root) ? NULL : implied_key, &help, &word, err))
                return NULL;
        }
        if (!make_arrays(&root, "", err))
            return NULL;
        if (help && !ret_help) {
            error_set(err, "Help is not available for this option");
            return NULL;
        }
    }
    if (ret_help)
        *ret_help = help;
    return TAKE(root);
}
