/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tokens of JSON to values, one after another from a stream.
 *
 * After an error the rest of the bad value is skipped: to where its brackets are closed, or where a line begins with
 * '{' (inside a value only an indented one would), or after a byte 0xff, which never is in UTF-8. Outside of brackets
 * everything is skipped up to the end of the line or an opening bracket. What was inside a bad value is therefore never
 * taken for a value of its own.
 *
 * Keeps: (1) the open containers are a chain, each but the first the last member of the one before; (2) `root` owns all
 * of them; (3) text that is skipped is not kept.
 */
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "schema/json-internal.h"
#include "schema/json-lexer.h"

/* What may come next inside a value. */
enum expected { EXPECT_VALUE, EXPECT_VALUE_OR_END, EXPECT_KEY, EXPECT_KEY_OR_END, EXPECT_COLON, EXPECT_COMMA_OR_END };

/* An input buffer that has grown beyond this is given back when it is empty. */
enum { INPUT_KEPT = 65536 };

struct json_reader {
    struct json_limits limits;
    struct json_lexer lexer;
    bool stream;     /* of many values; positions count from the start of each */
    GByteArray *own; /* input that was copied */
    const char *input;
    size_t input_size;

    struct json *root; /* NULL between values */
    GPtrArray *open;
    enum expected expected;
    char *key;
    size_t bytes, tokens; /* of this value */

    bool skipping;
    size_t skip_depth;
    char skip_quote; /* inside a string in such quotes; 0: outside */
    bool skip_escape;
    bool skip_line_start;
};

/* As the reference's. */
static const struct json_limits default_limits = {.bytes = 64 << 20, .depth = 1024, .tokens = 2 << 20};

struct json_reader *json_reader_new(const struct json_limits *limits)
{
    struct json_reader *reader = g_new0(struct json_reader, 1);

    reader->limits = limits ? *limits : default_limits;
    assert(reader->limits.bytes && reader->limits.depth && reader->limits.tokens);
    reader->stream = true;
    json_lexer_init(&reader->lexer);
    reader->lexer.restart_lines = true;
    reader->own = g_byte_array_new();
    reader->open = g_ptr_array_new();
    return reader;
}

void json_reader_free(struct json_reader *reader)
{
    if (!reader)
        return;
    json_lexer_done(&reader->lexer);
    g_byte_array_unref(reader->own);
    g_ptr_array_unref(reader->open);
    json_free(reader->root);
    g_free(reader->key);
    g_free(reader);
}

void json_reader_feed(struct json_reader *reader, const char *text, size_t size)
{
    if (!reader->input_size) {
        if (reader->own->len > INPUT_KEPT) {
            g_byte_array_unref(reader->own);
            reader->own = g_byte_array_new();
        }
        g_byte_array_set_size(reader->own, 0);
    } else if (reader->own->len > reader->input_size) {
        g_byte_array_remove_range(reader->own, 0, (guint)(reader->own->len - reader->input_size));
    }
    g_byte_array_append(reader->own, (const guint8 *)text, (guint)size);
    reader->input = (const char *)reader->own->data;
    reader->input_size = reader->own->len;
}

static void consume(struct json_reader *reader, size_t size)
{
    assert(size <= reader->input_size);
    reader->input += size;
    reader->input_size -= size;
}

/* Forgets the value that was begun. */
static void reset(struct json_reader *reader)
{
    json_free(TAKE(reader->root));
    g_free(TAKE(reader->key));
    g_ptr_array_set_size(reader->open, 0);
    reader->expected = EXPECT_VALUE;
    reader->bytes = 0;
    reader->tokens = 0;
    reader->lexer.restart_lines = reader->stream;
}

/* Skipping. */

static bool is_in_string(const struct json_lexer *lexer)
{
    return lexer->state >= JSON_LEXER_STRING && lexer->state <= JSON_LEXER_SURROGATE_MARK;
}

static void start_skipping(struct json_reader *reader)
{
    reader->skipping = true;
    reader->skip_depth = reader->open->len;
    reader->skip_quote = is_in_string(&reader->lexer) ? reader->lexer.quote : 0;
    reader->skip_escape = false;
    reader->skip_line_start = reader->lexer.column == 1;
    json_lexer_reset(&reader->lexer);
    reset(reader);
}

/* A byte of a string, or one that starts a string. */
static bool skip_string(struct json_reader *reader, char byte)
{
    if (!reader->skip_quote) {
        if (byte != '"' && byte != '\'')
            return false;
        reader->skip_quote = byte;
    } else if (reader->skip_escape) {
        reader->skip_escape = false;
    } else if (byte == '\\') {
        reader->skip_escape = true;
    } else if (byte == reader->skip_quote) {
        reader->skip_quote = 0;
    }
    return true;
}

enum skip { SKIP_GO_ON, SKIP_END_BEFORE, SKIP_END_AFTER };

static enum skip skip_byte(struct json_reader *reader, char byte)
{
    bool line_start = reader->skip_line_start;

    reader->skip_line_start = byte == '\n';
    if (byte == '\n') {
        reader->skip_quote = 0;
        return reader->skip_depth ? SKIP_GO_ON : SKIP_END_AFTER;
    }
    if (byte == '\xff') {
        reader->skip_quote = 0;
        reader->skip_depth = 0;
        return SKIP_GO_ON;
    }
    if (byte == '{' && line_start)
        return SKIP_END_BEFORE;
    if (!reader->skip_depth)
        return byte == '{' || byte == '[' ? SKIP_END_BEFORE : SKIP_GO_ON;
    if (skip_string(reader, byte))
        return SKIP_GO_ON;
    if (byte == '{' || byte == '[')
        reader->skip_depth++;
    else if ((byte == '}' || byte == ']') && !--reader->skip_depth)
        return SKIP_END_AFTER;
    return SKIP_GO_ON;
}

static void skip(struct json_reader *reader)
{
    size_t used = 0;
    enum skip result = SKIP_GO_ON;

    while (result == SKIP_GO_ON && used < reader->input_size) {
        result = skip_byte(reader, reader->input[used]);
        used += result != SKIP_END_BEFORE;
    }
    json_lexer_count(&reader->lexer, reader->input, used);
    consume(reader, used);
    reader->skipping = result == SKIP_GO_ON;
}

/* Building values. */

static struct json *innermost(const struct json_reader *reader)
{
    return reader->open->len ? g_ptr_array_index(reader->open, reader->open->len - 1) : NULL;
}

/* Puts a complete or an empty value (taken) where it belongs. */
static bool put_value(struct json_reader *reader, struct json *value, struct error **err)
{
    struct json *container = innermost(reader);

    reader->expected = EXPECT_COMMA_OR_END;
    if (!container) {
        reader->root = value;
    } else if (container->kind == JSON_ARRAY) {
        json_append(container, value);
    } else {
        if (!json_object_add(container, reader->key, value)) {
            json_free(value);
            return json_lexer_fail_token(&reader->lexer, err, "duplicate key '%.40s'", reader->key);
        }
        reader->key = NULL;
    }
    return true;
}

static bool open_container(struct json_reader *reader, struct error **err)
{
    bool array = reader->lexer.mark == '[';
    struct json *value;

    if (reader->open->len == reader->limits.depth)
        return error_set(err, "JSON nesting depth limit exceeded (%zu levels)", reader->limits.depth);
    value = array ? json_array() : json_object();
    if (!put_value(reader, value, err))
        return false;
    g_ptr_array_add(reader->open, value);
    reader->expected = array ? EXPECT_VALUE_OR_END : EXPECT_KEY_OR_END;
    return true;
}

static bool close_container(struct json_reader *reader, struct error **err)
{
    struct json *container = innermost(reader);
    const char *duplicate;

    g_ptr_array_set_size(reader->open, (int)reader->open->len - 1);
    reader->expected = EXPECT_COMMA_OR_END;
    duplicate = container->kind == JSON_OBJECT ? json_object_finish(container) : NULL;
    return !duplicate || json_lexer_fail_token(&reader->lexer, err, "duplicate key '%.40s'", duplicate);
}

static struct json *number_of(const struct json_lexer *lexer, struct error **err)
{
    const char *text = lexer->text->str;
    double number;

    if (!strpbrk(text, ".eE")) {
        uint64_t natural;
        int64_t integer;

        errno = 0;
        integer = strtoll(text, NULL, 10);
        if (!errno)
            return json_int(integer);
        errno = 0;
        natural = strtoull(text, NULL, 10);
        if (!errno && *text != '-')
            return json_uint(natural);
    }
    number = g_ascii_strtod(text, NULL);
    if (isfinite(number))
        return json_double(number);
    json_lexer_fail_token(lexer, err, "number %.40s is out of range", text);
    return NULL;
}

static struct json *word_of(const struct json_lexer *lexer, struct error **err)
{
    const char *text = lexer->text->str;

    if (!strcmp(text, "true") || !strcmp(text, "false"))
        return json_bool(*text == 't');
    if (!strcmp(text, "null"))
        return json_null();
    json_lexer_fail_token(lexer, err, "invalid keyword '%.40s'", text);
    return NULL;
}

static bool fail_expected(const struct json_reader *reader, struct error **err)
{
    const struct json *container = innermost(reader);

    switch (reader->expected) {
    case EXPECT_COLON:
        return json_lexer_fail_token(&reader->lexer, err, "missing : in object pair");
    case EXPECT_COMMA_OR_END:
        return json_lexer_fail_token(&reader->lexer, err, "expected separator in %s",
                                     container->kind == JSON_ARRAY ? "list" : "dict");
    default:
        return json_lexer_fail_token(&reader->lexer, err, "expecting value");
    }
}

static bool take_mark(struct json_reader *reader, struct error **err)
{
    const struct json *container = innermost(reader);
    enum expected expected = reader->expected;
    char mark = reader->lexer.mark;

    if ((mark == '{' || mark == '[') && (expected == EXPECT_VALUE || expected == EXPECT_VALUE_OR_END))
        return open_container(reader, err);
    if ((mark == '{' || mark == '[') && (expected == EXPECT_KEY || expected == EXPECT_KEY_OR_END))
        return json_lexer_fail_token(&reader->lexer, err, "key is not a string in object");
    if (mark == ':' && expected == EXPECT_COLON) {
        reader->expected = EXPECT_VALUE;
        return true;
    }
    if (container && expected == EXPECT_COMMA_OR_END && mark == ',') {
        reader->expected = container->kind == JSON_ARRAY ? EXPECT_VALUE : EXPECT_KEY;
        return true;
    }
    if (container && mark == (container->kind == JSON_ARRAY ? ']' : '}') &&
        (expected == EXPECT_COMMA_OR_END || expected == EXPECT_VALUE_OR_END || expected == EXPECT_KEY_OR_END))
        return close_container(reader, err);
    return fail_expected(reader, err);
}

static bool take_scalar(struct json_reader *reader, enum json_token token, struct error **err)
{
    struct json *value;

    if (reader->expected == EXPECT_KEY || reader->expected == EXPECT_KEY_OR_END) {
        if (token == JSON_TOKEN_WORD) {
            value = word_of(&reader->lexer, err);
            if (!value)
                return false;
            json_free(value);
        }
        if (token != JSON_TOKEN_STRING)
            return json_lexer_fail_token(&reader->lexer, err, "key is not a string in object");
        reader->key = json_lexer_take_text(&reader->lexer);
        reader->expected = EXPECT_COLON;
        return true;
    }
    if (reader->expected != EXPECT_VALUE && reader->expected != EXPECT_VALUE_OR_END)
        return fail_expected(reader, err);
    if (token == JSON_TOKEN_STRING)
        value = json_string_take(json_lexer_take_text(&reader->lexer));
    else
        value = token == JSON_TOKEN_NUMBER ? number_of(&reader->lexer, err) : word_of(&reader->lexer, err);
    return value && put_value(reader, value, err);
}

static bool take_token(struct json_reader *reader, enum json_token token, struct error **err)
{
    if (++reader->tokens > reader->limits.tokens)
        return error_set(err, "JSON token count limit exceeded (%zu tokens)", reader->limits.tokens);
    return token == JSON_TOKEN_MARK ? take_mark(reader, err) : take_scalar(reader, token, err);
}

/* Gives the mark at which an error was found back, so that skipping sees it. */
static void give_back(struct json_reader *reader, enum json_token token)
{
    if (token != JSON_TOKEN_MARK)
        return;
    reader->input--;
    reader->input_size++;
    reader->lexer.column--;
}

/* Whether a value or a token has been begun. */
static bool is_between_values(const struct json_reader *reader)
{
    return !reader->root && reader->lexer.state == JSON_LEXER_BETWEEN;
}

/* White space before a value does not count as its text. */
static void skip_space(struct json_reader *reader)
{
    size_t size = 0;

    if (!is_between_values(reader))
        return;
    while (size < reader->input_size && reader->input[size] && strchr(" \t\r\n", reader->input[size]))
        size++;
    json_lexer_count(&reader->lexer, reader->input, size);
    consume(reader, size);
}

/* How much of the input to look at, so that the limit of a value's size holds; 0: it is reached. */
static size_t input_in_limit(const struct json_reader *reader)
{
    size_t left = reader->limits.bytes - reader->bytes;

    return reader->input_size < left ? reader->input_size : left;
}

/* After an error at `token`: is the value over, or what of it has to be skipped? `depth`: brackets open before it. */
static void recover(struct json_reader *reader, enum json_token token, size_t depth)
{
    bool closed = reader->open->len < depth;

    if (!closed)
        give_back(reader, token);
    if (closed && !reader->open->len)
        reset(reader);
    else
        start_skipping(reader);
}

/* Goes on by a token at most. Returns whether there is an outcome. */
static bool advance(struct json_reader *reader, struct json **ret, struct error **err)
{
    size_t used, depth = reader->open->len, size = input_in_limit(reader);
    enum json_token token;

    if (!size) {
        error_set(err, "JSON token size limit exceeded (%zu bytes)", reader->limits.bytes);
        start_skipping(reader);
        return true;
    }
    token = json_lexer_step(&reader->lexer, reader->input, size, &used, err);
    consume(reader, used);
    reader->bytes += used;
    if (token == JSON_TOKEN_NONE)
        return false;
    if (token == JSON_TOKEN_ERROR || !take_token(reader, token, err)) {
        recover(reader, token, depth);
        return true;
    }
    if (!reader->root || reader->open->len)
        return false;
    *ret = TAKE(reader->root);
    reset(reader);
    return true;
}

bool json_reader_next(struct json_reader *reader, struct json **ret, struct error **err)
{
    *ret = NULL;
    while (reader->input_size) {
        if (reader->skipping) {
            skip(reader);
            continue;
        }
        skip_space(reader);
        if (reader->input_size && advance(reader, ret, err))
            return true;
    }
    return false;
}

/* The value that only the end of the text completes: a number or a word outside of brackets. */
static bool finish(struct json_reader *reader, struct json **ret, struct error **err)
{
    if (is_between_values(reader))
        return error_set(err, "Expecting a JSON value");
    if (!reader->root && (reader->lexer.state == JSON_LEXER_NUMBER || reader->lexer.state == JSON_LEXER_WORD)) {
        reader->input = "\n";
        reader->input_size = 1;
        return json_reader_next(reader, ret, err) && *ret;
    }
    return json_lexer_fail_byte(&reader->lexer, err, "premature EOI");
}

struct json *json_parse(const char *text, size_t size, struct error **err)
{
    AUTO(json_reader) reader = json_reader_new(NULL);
    AUTO(json) value = NULL;
    AUTO(json) more = NULL;
    AUTO(error) stray = NULL;

    reader->stream = false;
    reader->lexer.restart_lines = false;
    reader->input = text;
    reader->input_size = size;
    if (!json_reader_next(reader, &value, err) && !finish(reader, &value, err))
        return NULL;
    if (!value)
        return NULL;
    if (json_reader_next(reader, &more, &stray) || !is_between_values(reader)) {
        error_set(err, "Expecting at most one JSON value");
        return NULL;
    }
    return TAKE(value);
}
