/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * JSON values, in QMP's dialect on reading (strings in double or single quotes), RFC 8259 on writing.
 * A value has one owner; containers own their members. Objects keep the order of insertion; keys are unique.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct error;
struct json;

/* JSON_INT: fits int64_t. JSON_UINT: does not, but fits uint64_t. */
enum json_kind { JSON_NULL, JSON_BOOL, JSON_INT, JSON_UINT, JSON_DOUBLE, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json *json_null(void);
struct json *json_bool(bool value);
struct json *json_int(int64_t value);
struct json *json_uint(uint64_t value); /* JSON_INT where it fits */
struct json *json_double(double value);
struct json *json_string(const char *value);
struct json *json_array(void);
struct json *json_object(void);
struct json *json_clone(const struct json *value);
/* Members of objects in any order; numbers by their value. */
bool json_equal(const struct json *a, const struct json *b);
void json_free(struct json *value); /* NULL is allowed */
AUTO_DEFINE(json, struct json *, json_free)

enum json_kind json_get_kind(const struct json *value);
const char *json_kind_name(enum json_kind kind); /* "null", "boolean", "integer", "integer", "number", "string", ... */

/* Each asserts the kind. */
bool json_get_bool(const struct json *value);
int64_t json_get_int(const struct json *value);
uint64_t json_get_uint(const struct json *value);      /* JSON_UINT, or a JSON_INT that is not negative */
double json_get_double(const struct json *value);      /* any number */
const char *json_get_string(const struct json *value); /* NUL-terminated UTF-8 */

/* Number of members. */
size_t json_count(const struct json *container);
const struct json *json_at(const struct json *array, size_t index);
void json_append(struct json *array, struct json *value); /* takes `value` */

/* NULL where there is none. json_member() walks in order: `index` below json_count(). */
const struct json *json_get(const struct json *object, const char *key);
const struct json *json_member(const struct json *object, size_t index, const char **ret_key);
void json_set(struct json *object, const char *key, struct json *value); /* takes `value`, replaces */
struct json *json_take(struct json *object, const char *key);            /* removes; owned; NULL: none */

/* One whole value; NULL and the error with line and column. */
struct json *json_parse(const char *text, size_t size, struct error **err) MUST_CHECK;

/* The text, owned. `pretty`: indented by four spaces. */
char *json_format(const struct json *value, bool pretty);
void json_format_append(GString *to, const struct json *value, bool pretty);

/*
 * Reading a stream of values that arrive in pieces. After an error the reader skips to where a new value can start, so
 * that one bad input gives one error.
 */
struct json_limits {
    size_t bytes; /* of one value's text */
    size_t depth;
    size_t tokens;
};
struct json_reader;
/* NULL: 64 MiB, 1024 levels, 2 Mi tokens. */
struct json_reader *json_reader_new(const struct json_limits *limits);
void json_reader_free(struct json_reader *reader); /* NULL is allowed */
AUTO_DEFINE(json_reader, struct json_reader *, json_reader_free)

/* Hands over text; it is copied as far as needed. */
void json_reader_feed(struct json_reader *reader, const char *text, size_t size);

/* The next outcome: a value (owned) in *ret, or an error in *err, and true; or false: more input is needed. */
bool json_reader_next(struct json_reader *reader, struct json **ret, struct error **err);
