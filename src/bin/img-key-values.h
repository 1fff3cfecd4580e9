/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What "-o cluster_size=64k,compat=1.1" says of an image. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct block_driver;
struct error;
struct image_option;
struct json;

/* In the order in which they were given; of several for one name the last counts. Owned. */
struct key_values {
    size_t count;
    struct key_value {
        char *name;
        char *value;
    } * items;
};

/* `text` (NULL: nothing): a comma in a value is doubled, a name alone is "on". NULL and the error. */
struct key_values *key_values_parse(const char *text, struct error **err) MUST_CHECK;
void key_values_free(struct key_values *values);
AUTO_DEFINE(key_values, struct key_values *, key_values_free)

/* Borrowed until the next change; NULL: it is not there. */
const char *key_values_get(const struct key_values *values, const char *name);
void key_values_set(struct key_values *values, const char *name, const char *value);
void key_values_remove(struct key_values *values, const char *name);

/* Whether "help" or "?" is a word of `text`. */
bool key_values_ask_help(const char *text);

/* The option of that name; NULL: there is none, or `table` is NULL. */
const struct image_option *image_option_find(const struct image_option *table, const char *name);

/* Whether the value is of the option's type: "Parameter 'x' expects ...". */
bool image_option_check(const struct image_option *option, const char *value, struct error **err) MUST_CHECK;

/*
 * Sets those of `values` that `driver` has options for as members of `object`, which becomes its BlockdevCreateOptions.
 */
bool key_values_apply(const struct key_values *values, const struct block_driver *driver, struct json *object,
                      struct error **err) MUST_CHECK;

/* Sets the member of `object` at the dotted `path`; `value` is taken. */
void img_set_path(struct json *object, const char *path, struct json *value);

/* A line for each option of `first` and `second` (both may be NULL), by name. `amendable`: of those alone. */
void image_options_print(const struct image_option *first, const struct image_option *second, bool amendable);
