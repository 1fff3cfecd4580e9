/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bin/img-key-values.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/units.h"
#include "block/driver.h"
#include "block/image.h"
#include "schema/json.h"

/* --- the list --- */

static void append(struct key_values *values, char *name, char *value)
{
    values->items = g_renew(struct key_value, values->items, values->count + 1);
    values->items[values->count++] = (struct key_value){name, value};
}

/* Up to the next single comma, or '=' where `name`; moves *at behind it. */
static char *next_part(const char **at, bool name)
{
    GString *part = g_string_new(NULL);
    const char *c = *at;

    for (; *c && !(name && *c == '='); c++) {
        if (*c == ',' && (name || c[1] != ','))
            break;
        c += *c == ',';
        g_string_append_c(part, *c);
    }
    *at = c;
    return g_string_free(part, FALSE);
}

struct key_values *key_values_parse(const char *text, struct error **err)
{
    AUTO(key_values) values = g_new0(struct key_values, 1);
    const char *at = text ? text : "";

    while (*at) {
        char *name = next_part(&at, true);

        if (!*name) {
            g_free(name);
            error_set(err, "Invalid option list: %s", text);
            return NULL;
        }
        if (*at == '=') {
            at++;
            append(values, name, next_part(&at, false));
        } else {
            append(values, name, g_strdup("on"));
        }
        if (*at == ',')
            at++;
    }
    return TAKE(values);
}

void key_values_free(struct key_values *values)
{
    if (!values)
        return;
    for (size_t i = 0; i < values->count; i++) {
        g_free(values->items[i].name);
        g_free(values->items[i].value);
    }
    g_free(values->items);
    g_free(values);
}

const char *key_values_get(const struct key_values *values, const char *name)
{
    for (size_t i = values->count; i > 0; i--) {
        if (!strcmp(values->items[i - 1].name, name))
            return values->items[i - 1].value;
    }
    return NULL;
}

void key_values_remove(struct key_values *values, const char *name)
{
    size_t kept = 0;

    for (size_t i = 0; i < values->count; i++) {
        if (strcmp(values->items[i].name, name) != 0) {
            values->items[kept++] = values->items[i];
            continue;
        }
        g_free(values->items[i].name);
        g_free(values->items[i].value);
    }
    values->count = kept;
}

void key_values_set(struct key_values *values, const char *name, const char *value)
{
    char *copy = g_strdup(value);

    key_values_remove(values, name);
    append(values, g_strdup(name), copy);
}

bool key_values_ask_help(const char *text)
{
    const char *at = text ? text : "";

    while (*at) {
        g_autofree char *part = next_part(&at, false);

        if (!strcmp(part, "help") || !strcmp(part, "?"))
            return true;
        at += *at == ',';
    }
    return false;
}

/* --- against a driver's table --- */

const struct image_option *image_option_find(const struct image_option *table, const char *name)
{
    for (; table && table->name; table++) {
        if (!strcmp(table->name, name))
            return table;
    }
    return NULL;
}

static bool is_switch(const char *value)
{
    return !strcmp(value, "on") || !strcmp(value, "off") || !strcmp(value, "yes") || !strcmp(value, "no") ||
           !strcmp(value, "true") || !strcmp(value, "false") || !strcmp(value, "y") || !strcmp(value, "n");
}

bool image_option_check(const struct image_option *option, const char *value, struct error **err)
{
    uint64_t number;

    switch (option->type) {
    case IMAGE_OPTION_BOOL:
        return is_switch(value) || error_set(err, "Parameter '%s' expects 'on' or 'off'", option->name);
    case IMAGE_OPTION_NUMBER:
        return uint64_parse(value, &number) || error_set(err, "Parameter '%s' expects a number", option->name);
    case IMAGE_OPTION_SIZE:
        if (size_parse(value, &number))
            return true;
        error_set(err, "Parameter '%s' expects a non-negative number below 2^64", option->name);
        error_hint(err, "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
                        "and exabytes, respectively.");
        return false;
    case IMAGE_OPTION_STRING:
        return true;
    }
    assert(!"a type of option");
    return false;
}

/* Sizes as numbers: people may write them in more ways than the schema takes. */
static struct json *typed_value(const struct image_option *option, const char *value)
{
    uint64_t number;

    if (option->type == IMAGE_OPTION_SIZE && size_parse(value, &number))
        return json_uint(number);
    return json_string(value);
}

void img_set_path(struct json *object, const char *path, struct json *value)
{
    const char *dot = strchr(path, '.');
    g_autofree char *first = dot ? g_strndup(path, (gsize)(dot - path)) : NULL;
    struct json *inner;

    if (!dot) {
        json_set(object, path, value);
        return;
    }
    inner = json_take(object, first);
    if (!inner)
        inner = json_object();
    img_set_path(inner, dot + 1, value);
    json_set(object, first, inner);
}

bool key_values_apply(const struct key_values *values, const struct block_driver *driver, struct json *object,
                      struct error **err)
{
    const struct block_driver_image *image = driver->image;

    for (size_t i = 0; i < values->count; i++) {
        const struct key_value *item = &values->items[i];
        const struct image_option *option = image_option_find(image ? image->options : NULL, item->name);

        if (!option)
            continue;
        if (!image_option_check(option, item->value, err))
            return false;
        if (option->member)
            img_set_path(object, option->member, typed_value(option, item->value));
        else if (!image->translate || !image->translate(object, item->name, item->value, err))
            return false;
    }
    return true;
}

/* --- help --- */

static int compare_names(const void *a, const void *b)
{
    const struct image_option *const *one = a;
    const struct image_option *const *other = b;

    return strcmp((*one)->name, (*other)->name);
}

static void collect(GPtrArray *to, const struct image_option *table, const struct image_option *not_in, bool amendable)
{
    for (; table && table->name; table++) {
        if (!image_option_find(not_in, table->name) && (amendable ? table->amendable : !table->amend_only))
            g_ptr_array_add(to, (gpointer)(uintptr_t)table);
    }
}

void image_options_print(const struct image_option *first, const struct image_option *second, bool amendable)
{
    static const char *const types[] = {
        [IMAGE_OPTION_STRING] = "str",
        [IMAGE_OPTION_BOOL] = "bool (on/off)",
        [IMAGE_OPTION_NUMBER] = "num",
        [IMAGE_OPTION_SIZE] = "size",
    };
    g_autoptr(GPtrArray) all = g_ptr_array_new();

    collect(all, first, NULL, amendable);
    collect(all, second, first, amendable);
    g_ptr_array_sort(all, compare_names);
    for (unsigned i = 0; i < all->len; i++) {
        const struct image_option *option = g_ptr_array_index(all, i);
        g_autofree char *form = g_strdup_printf("%s=<%s>", option->name, types[option->type]);

        printf("  %-22s - %s\n", form, option->help);
    }
}
