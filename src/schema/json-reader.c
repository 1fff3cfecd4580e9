/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Cuts a stream into the texts of values: brackets are balanced outside of strings, and the parser gets what lies
 * between.
 *
 * After an error the reader discards until it is likely to be at the start of a value again: the end of the line, or an
 * opening brace followed by a quote. So one bad input gives one error, and a client that sends no line ends is heard
 * again.
 */
#include "schema/json.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "schema/json-parse.h"

enum state {
    BETWEEN,       /* values */
    IN_WORD,       /* a scalar outside of containers, or garbage */
    IN_VALUE,      /* inside brackets */
    DISCARD_VALUE, /* inside brackets of a value that has been refused already */
    DISCARD_LINE,  /* behind an error */
    DISCARD_BRACE, /* behind an error and a brace: does a quote follow? */
};

struct json_reader {
    struct json_limits limits;
    enum state state;
    GString *input; /* text that has not been looked at, from `looked` on */
    size_t looked;
    GString *value;      /* the text of the value so far */
    size_t depth;        /* open brackets */
    char quote;          /* inside a string: how it ends; or '\0' */
    bool escaped;        /* the byte before was a backslash in a string */
    struct error *error; /* found, to be handed out */
    struct json *ready;
};

struct json_reader *json_reader_new(const struct json_limits *limits)
{
    struct json_reader *reader = g_new0(struct json_reader, 1);

    reader->limits = limits ? *limits : json_limits_default;
    reader->input = g_string_new(NULL);
    reader->value = g_string_new(NULL);
    return reader;
}

void json_reader_free(struct json_reader *reader)
{
    if (!reader)
        return;
    g_string_free(reader->input, TRUE);
    g_string_free(reader->value, TRUE);
    error_free(reader->error);
    json_free(reader->ready);
    g_free(reader);
}

void json_reader_feed(struct json_reader *reader, const char *text, size_t size)
{
    g_string_erase(reader->input, 0, (gssize)reader->looked);
    reader->looked = 0;
    g_string_append_len(reader->input, text, (gssize)size);
}

/* Forgets the value's text; gives the memory of a large one back. */
static void drop_text(struct json_reader *reader)
{
    enum { KEEP = 64 << 10 };

    if (reader->value->allocated_len > KEEP) {
        g_string_free(reader->value, TRUE);
        reader->value = g_string_new(NULL);
    }
    g_string_truncate(reader->value, 0);
}

static void refuse(struct json_reader *reader, enum state next)
{
    assert(reader->error);
    drop_text(reader);
    reader->state = next;
}

/* The value's text is whole. */
static void finish_value(struct json_reader *reader)
{
    reader->ready = json_parse_limited(reader->value->str, reader->value->len, &reader->limits, &reader->error);
    if (!reader->ready) {
        refuse(reader, DISCARD_LINE);
        return;
    }
    drop_text(reader);
    reader->state = BETWEEN;
}

/* Follows brackets and strings. */
static void follow(struct json_reader *reader, char byte)
{
    if (reader->quote) {
        if (reader->escaped)
            reader->escaped = false;
        else if (byte == '\\')
            reader->escaped = true;
        else if (byte == reader->quote)
            reader->quote = '\0';
    } else if (byte == '"' || byte == '\'') {
        reader->quote = byte;
    } else if (byte == '{' || byte == '[') {
        reader->depth++;
    } else if (byte == '}' || byte == ']') {
        reader->depth--;
    }
}

static void start_value(struct json_reader *reader, char byte)
{
    reader->depth = 0;
    reader->quote = '\0';
    reader->escaped = false;
    g_string_append_c(reader->value, byte);
    if (byte == '{' || byte == '[') {
        reader->state = IN_VALUE;
        follow(reader, byte);
    } else {
        reader->state = IN_WORD;
        if (byte == '"' || byte == '\'')
            reader->quote = byte;
    }
}

static void take_in_value(struct json_reader *reader, char byte)
{
    g_string_append_c(reader->value, byte);
    if (reader->quote && byte == '\n') {
        error_set(&reader->error, "JSON parse error, line end in a string");
        refuse(reader, BETWEEN);
        return;
    }
    follow(reader, byte);
    if (!reader->depth) {
        finish_value(reader);
    } else if (reader->depth > reader->limits.depth) {
        error_set(&reader->error, "JSON nesting depth limit of %zu exceeded", reader->limits.depth);
        refuse(reader, DISCARD_VALUE);
    } else if (reader->value->len > reader->limits.bytes) {
        error_set(&reader->error, "JSON text is longer than %zu bytes", reader->limits.bytes);
        refuse(reader, DISCARD_VALUE);
    }
}

/* A word ends before white space and brackets; `byte` is then looked at again. False: look again. */
static bool take_in_word(struct json_reader *reader, char byte)
{
    bool string = reader->quote != '\0';
    bool ends = string ? byte == '\n' : strchr(" \t\r\n{}[],", byte) != NULL;

    if (ends) {
        finish_value(reader);
        return false;
    }
    g_string_append_c(reader->value, byte);
    follow(reader, byte);
    if (string && !reader->quote) {
        finish_value(reader);
    } else if (reader->value->len > reader->limits.bytes) {
        error_set(&reader->error, "JSON text is longer than %zu bytes", reader->limits.bytes);
        refuse(reader, DISCARD_LINE);
    }
    return true;
}

/* Returns whether `byte` has been dealt with. */
static bool take(struct json_reader *reader, char byte)
{
    switch (reader->state) {
    case BETWEEN:
        if (!strchr(" \t\r\n", byte) || !byte)
            start_value(reader, byte);
        return true;
    case IN_WORD:
        return take_in_word(reader, byte);
    case IN_VALUE:
        take_in_value(reader, byte);
        return true;
    case DISCARD_VALUE:
        follow(reader, byte);
        if (!reader->depth)
            reader->state = DISCARD_LINE;
        else if (reader->quote && byte == '\n')
            reader->state = BETWEEN;
        return true;
    case DISCARD_LINE:
        if (byte == '\n')
            reader->state = BETWEEN;
        else if (byte == '{')
            reader->state = DISCARD_BRACE;
        return true;
    case DISCARD_BRACE:
        if (byte == '"' || byte == '\'') {
            start_value(reader, '{');
            return false;
        }
        if (!strchr(" \t\r{", byte) || !byte)
            reader->state = DISCARD_LINE;
        return byte != '\n';
    }
    g_assert_not_reached();
}

bool json_reader_next(struct json_reader *reader, struct json **ret, struct error **err)
{
    while (!reader->ready && !reader->error && reader->looked < reader->input->len) {
        if (take(reader, reader->input->str[reader->looked]))
            reader->looked++;
    }
    if (reader->ready) {
        *ret = TAKE(reader->ready);
        return true;
    }
    if (reader->error) {
        *ret = NULL;
        (void)error_move(err, TAKE(reader->error));
        return true;
    }
    return false;
}
