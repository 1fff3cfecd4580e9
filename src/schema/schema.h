/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Types of the schema at run time: the generator describes each with a table, and the functions here parse, write, copy
 * and free any value by it. Callers use the typed forms in gen/types.h: NAME_parse(), NAME_write(), NAME_clone(),
 * NAME_free().
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct error;
struct json;
struct schema_type;

/*
 * A new value of `type` from JSON; NULL and the error, which names the path of the member ("Parameter 'cache.direct'
 * expects boolean"). Unknown members, wrong types, missing members and numbers out of range are refused.
 */
void *schema_parse(const struct schema_type *type, const struct json *value, struct error **err) MUST_CHECK;

/*
 * As schema_parse(), for what came from a command line through keyval_parse(): scalars may be strings ("on", "4k" where
 * the type is size), unless it was JSON there.
 */
void *schema_parse_keyval(const struct schema_type *type, const struct json *value, struct error **err) MUST_CHECK;

struct json *schema_write(const struct schema_type *type, const void *value) MUST_CHECK;
void *schema_clone(const struct schema_type *type, const void *value) MUST_CHECK;
void schema_free(const struct schema_type *type, void *value);

/* Names of an enum type's values: NULL past the end; -1 where no value has that name. */
const char *schema_enum_name(const struct schema_type *type, int value);
int schema_enum_value(const struct schema_type *type, const char *name);

/*
 * What a person may write for a value of `type`, owned: members with their types and what they mean. `chosen`
 * (borrowed; NULL: nothing) is what was given beside "help"; for a union without its tag in it, the values of the tag
 * are listed, those that `is_offered` (NULL: all) admits. NULL and the error for a tag's value that there is not.
 */
char *schema_help_text(const struct schema_type *type, const struct json *chosen,
                       bool (*is_offered)(void *opaque, const char *value), void *opaque,
                       struct error **err) MUST_CHECK;

/* Prints schema_help_text() with all values on standard output. */
bool schema_help(const struct schema_type *type, const struct json *chosen, struct error **err) MUST_CHECK;

/*
 * "driver=file,node-name=x,cache.direct=on" or JSON, as command-line options take it, to JSON. `implied_key` (NULL:
 * none) is the key of a first word without "=". `ret_help` (NULL: not wanted) says that a word "help" or "?" was there.
 */
struct json *keyval_parse(const char *text, const char *implied_key, bool *ret_help, struct error **err) MUST_CHECK;
