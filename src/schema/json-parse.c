/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Parsing one JSON text (RFC 8259, strings in single quotes too). No recursion: open containers lie on a stack, and
 * their number is limited.
 */
#include "schema/json-parse.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/error.h"

struct parser {
    const char *start;
    const char *at;
    const char *end;
    struct json_limits limits;
    size_t tokens;
    GPtrArray *open; /* of struct json: containers that are not closed yet, the innermost last */
    GPtrArray *keys; /* of char *: the key under which open[i] goes into open[i - 1]; NULL in arrays */
};

/* Fails with the place: line and column, counted from 1. */
static bool fail(struct parser *parser, struct error **err, const char *what)
{
    size_t line = 1;
    const char *line_start = parser->start;

    for (const char *at = parser->start; at < parser->at; at++) {
        if (*at == '\n') {
            line++;
            line_start = at + 1;
        }
    }
    return error_set(err, "JSON parse error, %s at line %zu, column %zu", what, line,
                     (size_t)(parser->at - line_start) + 1);
}

static void skip_space(struct parser *parser)
{
    while (parser->at < parser->end && memchr(" \t\r\n", *parser->at, 4))
        parser->at++;
}

/* The next byte that is no white space, which is not consumed; '\0' at the end. */
static char peek(struct parser *parser)
{
    skip_space(parser);
    return parser->at < parser->end ? *parser->at : '\0';
}

static int hex_digits(const char *text)
{
    int value = 0;

    for (int i = 0; i < 4; i++) {
        int digit = g_ascii_xdigit_value(text[i]);

        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* A \uXXXX escape whose digits start at parser->at, or two of them that are a surrogate pair. */
static bool parse_unicode_escape(struct parser *parser, GString *to, struct error **err)
{
    int unit = parser->end - parser->at >= 4 ? hex_digits(parser->at) : -1;

    if (unit < 0)
        return fail(parser, err, "\\u is not followed by four hexadecimal digits");
    parser->at += 4;
    gunichar character = (gunichar)unit;
    if (unit >= 0xd800 && unit < 0xdc00) {
        bool pair = parser->end - parser->at >= 6 && parser->at[0] == '\\' && parser->at[1] == 'u';
        int low = pair ? hex_digits(parser->at + 2) : -1;

        if (low < 0xdc00 || low > 0xdfff)
            return fail(parser, err, "unpaired surrogate in a string");
        parser->at += 6;
        character = 0x10000 + (((gunichar)unit - 0xd800) << 10) + ((gunichar)low - 0xdc00);
    } else if (unit >= 0xdc00 && unit < 0xe000) {
        return fail(parser, err, "unpaired surrogate in a string");
    } else if (!unit) {
        return fail(parser, err, "\\u0000 in a string");
    }
    g_string_append_unichar(to, character);
    return true;
}

static bool parse_escape(struct parser *parser, GString *to, struct error **err)
{
    static const char letters[] = "\"'\\/bfnrt";
    static const char meanings[] = "\"'\\/\b\f\n\r\t";
    const char *letter = parser->at < parser->end ? memchr(letters, *parser->at, sizeof(letters) - 1) : NULL;

    if (letter) {
        g_string_append_c(to, meanings[letter - letters]);
        parser->at++;
        return true;
    }
    if (parser->at < parser->end && *parser->at == 'u') {
        parser->at++;
        return parse_unicode_escape(parser, to, err);
    }
    return fail(parser, err, "unknown escape in a string");
}

/* A string, whose quote is at parser->at; owned. */
static char *parse_string(struct parser *parser, struct error **err)
{
    char quote = *parser->at++;
    g_autoptr(GString) text = g_string_new(NULL);

    for (;;) {
        const char *run = parser->at;

        while (parser->at < parser->end && *parser->at != quote && *parser->at != '\\' &&
               (unsigned char)*parser->at >= ' ')
            parser->at++;
        if (!g_utf8_validate_len(run, (gsize)(parser->at - run), NULL)) {
            fail(parser, err, "invalid UTF-8 in the string that ends");
            return NULL;
        }
        g_string_append_len(text, run, parser->at - run);
        if (parser->at == parser->end) {
            fail(parser, err, "unterminated string");
            return NULL;
        }
        if (*parser->at == quote) {
            parser->at++;
            return g_string_free(g_steal_pointer(&text), FALSE);
        }
        if (*parser->at != '\\') {
            fail(parser, err, "control character in a string");
            return NULL;
        }
        parser->at++;
        if (!parse_escape(parser, text, err))
            return NULL;
    }
}

/* Steps over digits; their number. */
static size_t skip_digits(struct parser *parser)
{
    const char *from = parser->at;

    while (parser->at < parser->end && g_ascii_isdigit(*parser->at))
        parser->at++;
    return (size_t)(parser->at - from);
}

static bool skip_if(struct parser *parser, const char *set)
{
    if (parser->at == parser->end || !*parser->at || !strchr(set, *parser->at))
        return false;
    parser->at++;
    return true;
}

static struct json *parse_number(struct parser *parser, struct error **err)
{
    const char *from = parser->at;
    bool negative = skip_if(parser, "-");
    const char *digits = parser->at;
    size_t count = skip_digits(parser);
    bool whole = true;

    if (!count || (count > 1 && *digits == '0')) {
        fail(parser, err, "malformed number");
        return NULL;
    }
    if (skip_if(parser, ".")) {
        whole = false;
        count = skip_digits(parser);
    }
    if (count && skip_if(parser, "eE")) {
        whole = false;
        (void)skip_if(parser, "+-");
        count = skip_digits(parser);
    }
    if (!count) {
        fail(parser, err, "malformed number");
        return NULL;
    }

    g_autofree char *text = g_strndup(from, (gsize)(parser->at - from));
    errno = 0;
    if (whole && negative) {
        int64_t value = g_ascii_strtoll(text, NULL, 10);
        if (!errno)
            return json_int(value);
    } else if (whole) {
        uint64_t value = g_ascii_strtoull(text, NULL, 10);
        if (!errno)
            return json_uint(value);
    }
    double real = g_ascii_strtod(text, NULL);
    if (!isfinite(real)) {
        fail(parser, err, "number out of range");
        return NULL;
    }
    return json_double(real);
}

static struct json *parse_word(struct parser *parser, struct error **err)
{
    static const char *const words[] = {"null", "true", "false"};

    for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
        size_t size = strlen(words[i]);

        if ((size_t)(parser->end - parser->at) >= size && !memcmp(parser->at, words[i], size) &&
            (parser->at + size == parser->end || !g_ascii_isalnum(parser->at[size]))) {
            parser->at += size;
            return i ? json_bool(i == 1) : json_null();
        }
    }
    fail(parser, err, parser->at == parser->end ? "unexpected end" : "unexpected character");
    return NULL;
}

static struct json *parse_scalar(struct parser *parser, struct error **err)
{
    char first = peek(parser);

    if (first == '"' || first == '\'') {
        g_autofree char *text = parse_string(parser, err);
        return text ? json_string(text) : NULL;
    }
    if (first == '-' || g_ascii_isdigit(first))
        return parse_number(parser, err);
    return parse_word(parser, err);
}

/* The key of the next member and its colon; owned. */
static char *parse_key(struct parser *parser, const struct json *object, struct error **err)
{
    char first = peek(parser);

    if (first != '"' && first != '\'') {
        fail(parser, err, "expected a string as the key of a member");
        return NULL;
    }
    g_autofree char *key = parse_string(parser, err);
    if (!key)
        return NULL;
    if (json_get(object, key)) {
        g_autofree char *what = g_strdup_printf("duplicate key '%s'", key);
        fail(parser, err, what);
        return NULL;
    }
    if (peek(parser) != ':') {
        fail(parser, err, "expected ':' after a key");
        return NULL;
    }
    parser->at++;
    return TAKE(key);
}

/* Puts `value` (taken) into the innermost open container. */
static void add_to_innermost(struct parser *parser, const char *key, struct json *value)
{
    struct json *container = g_ptr_array_index(parser->open, parser->open->len - 1);

    if (key)
        json_set(container, key, value);
    else
        json_append(container, value);
}

static struct json *innermost(struct parser *parser)
{
    return parser->open->len ? g_ptr_array_index(parser->open, parser->open->len - 1) : NULL;
}

/*
 * Closes containers for as long as closing brackets come, and steps over the comma before the next member. True with
 * *ret_root set when the outermost has been closed.
 */
static bool close_containers(struct parser *parser, struct json **ret_root, struct error **err)
{
    for (;;) {
        struct json *container = innermost(parser);
        char bracket = json_get_kind(container) == JSON_OBJECT ? '}' : ']';
        char next = peek(parser);

        if (next != bracket) {
            if (next != ',')
                return fail(parser, err, next ? "expected ',' or the end of the container" : "unexpected end");
            parser->at++;
            return true;
        }
        parser->at++;
        g_ptr_array_set_size(parser->open, (int)parser->open->len - 1);
        g_autofree char *key = g_ptr_array_index(parser->keys, parser->keys->len - 1);
        g_ptr_array_set_size(parser->keys, (int)parser->keys->len - 1);
        if (!parser->open->len) {
            *ret_root = container;
            return true;
        }
        add_to_innermost(parser, key, container);
    }
}

/* Opens the container whose bracket is next; an empty one stays open, to be closed by close_containers(). */
static bool open_container(struct parser *parser, char *key, struct error **err)
{
    g_autofree char *owned_key = key;

    if (parser->open->len >= parser->limits.depth)
        return fail(parser, err, "too deep nesting");
    g_ptr_array_add(parser->open, *parser->at == '{' ? json_object() : json_array());
    g_ptr_array_add(parser->keys, TAKE(owned_key));
    parser->at++;
    return true;
}

/* One step: a scalar, or the opening of a container, with all that closes after it. */
static bool parse_step(struct parser *parser, struct json **ret_root, struct error **err)
{
    struct json *container = innermost(parser);
    g_autofree char *key = NULL;

    if (parser->tokens++ >= parser->limits.tokens)
        return fail(parser, err, "too many values");
    if (container && json_get_kind(container) == JSON_OBJECT) {
        key = parse_key(parser, container, err);
        if (!key)
            return false;
    }
    char first = peek(parser);
    if (first == '{' || first == '[') {
        if (!open_container(parser, TAKE(key), err))
            return false;
        bool empty = peek(parser) == (first == '{' ? '}' : ']');
        return empty ? close_containers(parser, ret_root, err) : true;
    }
    struct json *scalar = parse_scalar(parser, err);
    if (!scalar)
        return false;
    if (!container) {
        *ret_root = scalar;
        return true;
    }
    add_to_innermost(parser, key, scalar);
    return close_containers(parser, ret_root, err);
}

static void drop_open(struct parser *parser)
{
    for (unsigned i = 0; i < parser->open->len; i++) {
        json_free(g_ptr_array_index(parser->open, i));
        g_free(g_ptr_array_index(parser->keys, i));
    }
}

struct json *json_parse_limited(const char *text, size_t size, const struct json_limits *limits, struct error **err)
{
    g_autoptr(GPtrArray) open = g_ptr_array_new();
    g_autoptr(GPtrArray) keys = g_ptr_array_new();
    struct parser parser = {
        .start = text, .at = text, .end = text + size, .limits = *limits, .open = open, .keys = keys};
    struct json *root = NULL;

    if (size > limits->bytes) {
        error_set(err, "JSON text of %zu bytes is longer than %zu", size, limits->bytes);
        return NULL;
    }
    while (!root) {
        if (!parse_step(&parser, &root, err)) {
            drop_open(&parser);
            return NULL;
        }
    }
    skip_space(&parser);
    if (parser.at != parser.end) {
        fail(&parser, err, "extra text after the value");
        json_free(root);
        return NULL;
    }
    return root;
}

const struct json_limits json_limits_default = {.bytes = 64 << 20, .depth = 1024, .tokens = 2 << 20};

struct json *json_parse(const char *text, size_t size, struct error **err)
{
    return json_parse_limited(text, size, &json_limits_default, err);
}
