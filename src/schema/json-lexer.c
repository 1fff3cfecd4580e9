/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tokens of JSON in QMP's dialect: strings may stand in single quotes too. Strict otherwise: no control characters, no
 * invalid UTF-8, no NUL in strings, no comments. The state between two bytes is explicit, so input can be split
 * anywhere.
 */
#include "schema/json-lexer.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"

/* A longer text is cut in error messages. */
enum { SHOWN_MAX = 40 };

/* A token's buffer is given back when it has grown beyond this. */
enum { TEXT_KEPT = 4096 };

void json_lexer_init(struct json_lexer *lexer)
{
    *lexer =
        (struct json_lexer){.text = g_string_new(NULL), .line = 1, .column = 1, .token_line = 1, .token_column = 1};
}

void json_lexer_done(struct json_lexer *lexer)
{
    g_string_free(lexer->text, TRUE);
    lexer->text = NULL;
}

void json_lexer_reset(struct json_lexer *lexer)
{
    lexer->state = JSON_LEXER_BETWEEN;
    lexer->utf8_left = 0;
    lexer->high = 0;
    if (lexer->text->allocated_len > TEXT_KEPT) {
        g_string_free(lexer->text, TRUE);
        lexer->text = g_string_new(NULL);
    }
    g_string_truncate(lexer->text, 0);
}

char *json_lexer_take_text(struct json_lexer *lexer)
{
    size_t size = lexer->text->len + 1;
    char *text;

    if (size <= TEXT_KEPT)
        return g_memdup2(lexer->text->str, size);
    text = g_realloc(g_string_free(lexer->text, FALSE), size);
    lexer->text = g_string_new(NULL);
    return text;
}

void json_lexer_count(struct json_lexer *lexer, const char *text, size_t size)
{
    const char *end = text + size, *newline;

    while ((newline = memchr(text, '\n', (size_t)(end - text)))) {
        lexer->line++;
        lexer->column = 1;
        text = newline + 1;
    }
    lexer->column += (size_t)(end - text);
}

static bool fail_at(struct error **err, size_t line, size_t column, const char *format, va_list args)
{
    g_autofree char *text = g_strdup_vprintf(format, args);

    return error_set(err, "JSON parse error, %s (line %zu, column %zu)", text, line, column);
}

bool json_lexer_fail_token(const struct json_lexer *lexer, struct error **err, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fail_at(err, lexer->token_line, lexer->token_column, format, args);
    va_end(args);
    return false;
}

bool json_lexer_fail_byte(const struct json_lexer *lexer, struct error **err, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fail_at(err, lexer->line, lexer->column, format, args);
    va_end(args);
    return false;
}

static bool fail_stray(const struct json_lexer *lexer, struct error **err, unsigned char byte)
{
    if (byte > ' ' && byte < 0x7f)
        return json_lexer_fail_byte(lexer, err, "stray '%c'", byte);
    return json_lexer_fail_byte(lexer, err, "stray byte 0x%02x", byte);
}

static bool is_word_byte(unsigned char byte)
{
    return g_ascii_isalnum(byte) || byte == '_';
}

static bool is_number_byte(unsigned char byte)
{
    return is_word_byte(byte) || byte == '-' || byte == '+' || byte == '.';
}

/* Whether `text` is a number by RFC 8259. */
static bool is_number(const char *text)
{
    size_t digits;

    text += *text == '-';
    digits = strspn(text, "0123456789");
    if (!digits || (text[0] == '0' && digits > 1))
        return false;
    text += digits;
    if (*text == '.') {
        digits = strspn(text + 1, "0123456789");
        if (!digits)
            return false;
        text += 1 + digits;
    }
    if (*text == 'e' || *text == 'E') {
        text += text[1] == '+' || text[1] == '-' ? 2 : 1;
        digits = strspn(text, "0123456789");
        if (!digits)
            return false;
        text += digits;
    }
    return !*text;
}

/* How many bytes from `text` on are plain characters of a string. */
static size_t plain_bytes(const char *text, size_t size, char quote)
{
    size_t n = 0;

    while (n < size && (unsigned char)text[n] >= ' ' && (unsigned char)text[n] < 0x80 && text[n] != quote &&
           text[n] != '\\')
        n++;
    return n;
}

/* First byte of a character beyond ASCII; the ranges leave out overlong forms, surrogates and what is too large. */
static bool utf8_start(struct json_lexer *lexer, unsigned char byte)
{
    lexer->utf8_min = 0x80;
    lexer->utf8_max = 0xbf;
    if (byte >= 0xc2 && byte <= 0xdf) {
        lexer->utf8_left = 1;
    } else if (byte >= 0xe0 && byte <= 0xef) {
        lexer->utf8_left = 2;
        lexer->utf8_min = byte == 0xe0 ? 0xa0 : 0x80;
        lexer->utf8_max = byte == 0xed ? 0x9f : 0xbf;
    } else if (byte >= 0xf0 && byte <= 0xf4) {
        lexer->utf8_left = 3;
        lexer->utf8_min = byte == 0xf0 ? 0x90 : 0x80;
        lexer->utf8_max = byte == 0xf4 ? 0x8f : 0xbf;
    } else {
        return false;
    }
    return true;
}

static bool utf8_continue(struct json_lexer *lexer, unsigned char byte)
{
    if (byte < lexer->utf8_min || byte > lexer->utf8_max)
        return false;
    lexer->utf8_left--;
    lexer->utf8_min = 0x80;
    lexer->utf8_max = 0xbf;
    return true;
}

/* A byte of a string that is not plain. */
static bool step_string(struct json_lexer *lexer, unsigned char byte, struct error **err)
{
    if (lexer->utf8_left || byte >= 0x80) {
        if (!(lexer->utf8_left ? utf8_continue(lexer, byte) : utf8_start(lexer, byte)))
            return json_lexer_fail_byte(lexer, err, "invalid UTF-8 in string: byte 0x%02x", byte);
        g_string_append_c(lexer->text, (char)byte);
        return true;
    }
    if (byte == '\\') {
        lexer->state = JSON_LEXER_ESCAPE;
        return true;
    }
    return json_lexer_fail_byte(lexer, err, "control character 0x%02x in string", byte);
}

static bool step_escape(struct json_lexer *lexer, unsigned char byte, struct error **err)
{
    static const char letters[] = "\"'\\/bfnrt", values[] = "\"'\\/\b\f\n\r\t";
    const char *found = byte ? strchr(letters, byte) : NULL;

    if (found) {
        g_string_append_c(lexer->text, values[found - letters]);
        lexer->state = JSON_LEXER_STRING;
        return true;
    }
    if (byte != 'u')
        return json_lexer_fail_byte(lexer, err, "invalid escape sequence in string");
    lexer->state = JSON_LEXER_UNICODE;
    lexer->digits = 0;
    lexer->code = 0;
    return true;
}

/* All digits of \uXXXX are there. */
static bool finish_unicode(struct json_lexer *lexer, struct error **err)
{
    uint32_t code = lexer->code;

    if (lexer->high) {
        if (code < 0xdc00 || code > 0xdfff)
            return json_lexer_fail_byte(lexer, err, "\\u%04x is not a valid Unicode character", lexer->high);
        code = 0x10000 + ((lexer->high - 0xd800) << 10) + (code - 0xdc00);
    } else if (code >= 0xd800 && code <= 0xdbff) {
        lexer->high = code;
        lexer->state = JSON_LEXER_SURROGATE;
        return true;
    } else if (!code || (code >= 0xdc00 && code <= 0xdfff)) {
        return json_lexer_fail_byte(lexer, err, "\\u%04x is not a valid Unicode character", code);
    }
    lexer->high = 0;
    g_string_append_unichar(lexer->text, code);
    lexer->state = JSON_LEXER_STRING;
    return true;
}

static bool step_unicode(struct json_lexer *lexer, unsigned char byte, struct error **err)
{
    if (!g_ascii_isxdigit(byte))
        return json_lexer_fail_byte(lexer, err, "\\u needs four hexadecimal digits");
    lexer->code = lexer->code << 4 | (uint32_t)g_ascii_xdigit_value((char)byte);
    return ++lexer->digits < 4 || finish_unicode(lexer, err);
}

/* After the first half of a surrogate pair, "\u" must follow. */
static bool step_surrogate(struct json_lexer *lexer, unsigned char byte, struct error **err)
{
    bool first = lexer->state == JSON_LEXER_SURROGATE;

    if (byte != (first ? '\\' : 'u'))
        return json_lexer_fail_byte(lexer, err, "\\u%04x is not a valid Unicode character", lexer->high);
    lexer->state = first ? JSON_LEXER_SURROGATE_MARK : JSON_LEXER_UNICODE;
    lexer->digits = 0;
    lexer->code = 0;
    return true;
}

/* Skips white space, and begins a token. Returns it if it is complete. */
static enum json_token step_between(struct json_lexer *lexer, unsigned char byte, struct error **err)
{
    if (byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r')
        return JSON_TOKEN_NONE;
    if (lexer->restart_lines)
        lexer->line = 1;
    lexer->restart_lines = false;
    lexer->token_line = lexer->line;
    lexer->token_column = lexer->column;
    g_string_truncate(lexer->text, 0);
    if (byte && strchr("{}[]:,", byte)) {
        lexer->mark = (char)byte;
        return JSON_TOKEN_MARK;
    }
    if (byte == '"' || byte == '\'') {
        lexer->quote = (char)byte;
        lexer->state = JSON_LEXER_STRING;
        return JSON_TOKEN_NONE;
    }
    if (!g_ascii_isalnum(byte) && byte != '-') {
        fail_stray(lexer, err, byte);
        return JSON_TOKEN_ERROR;
    }
    lexer->state = g_ascii_isalpha(byte) ? JSON_LEXER_WORD : JSON_LEXER_NUMBER;
    g_string_append_c(lexer->text, (char)byte);
    return JSON_TOKEN_NONE;
}

static enum json_token finish_bare(struct json_lexer *lexer, struct error **err)
{
    bool word = lexer->state == JSON_LEXER_WORD;

    lexer->state = JSON_LEXER_BETWEEN;
    if (word || is_number(lexer->text->str))
        return word ? JSON_TOKEN_WORD : JSON_TOKEN_NUMBER;
    json_lexer_fail_token(lexer, err, "stray '%.*s'", SHOWN_MAX, lexer->text->str);
    return JSON_TOKEN_ERROR;
}

/* One byte inside a string. */
static bool step_in_string(struct json_lexer *lexer, unsigned char byte, struct error **err)
{
    switch (lexer->state) {
    case JSON_LEXER_ESCAPE:
        return step_escape(lexer, byte, err);
    case JSON_LEXER_UNICODE:
        return step_unicode(lexer, byte, err);
    case JSON_LEXER_SURROGATE:
    case JSON_LEXER_SURROGATE_MARK:
        return step_surrogate(lexer, byte, err);
    default:
        assert(lexer->state == JSON_LEXER_STRING);
        return step_string(lexer, byte, err);
    }
}

/* The bytes of a token that can be taken at once. */
static size_t take_run(struct json_lexer *lexer, const char *text, size_t size)
{
    size_t n = 0;

    if (lexer->state == JSON_LEXER_STRING && !lexer->utf8_left)
        n = plain_bytes(text, size, lexer->quote);
    while (lexer->state == JSON_LEXER_WORD && n < size && is_word_byte((unsigned char)text[n]))
        n++;
    while (lexer->state == JSON_LEXER_NUMBER && n < size && is_number_byte((unsigned char)text[n]))
        n++;
    g_string_append_len(lexer->text, text, (gssize)n);
    lexer->column += n;
    return n;
}

enum json_token json_lexer_step(struct json_lexer *lexer, const char *text, size_t size, size_t *ret_used,
                                struct error **err)
{
    enum json_token token = JSON_TOKEN_NONE;
    size_t used = 0;

    while (token == JSON_TOKEN_NONE) {
        used += take_run(lexer, text + used, size - used);
        if (used == size)
            break;
        if (lexer->state == JSON_LEXER_WORD || lexer->state == JSON_LEXER_NUMBER) {
            token = finish_bare(lexer, err);
            break;
        }
        if (lexer->state == JSON_LEXER_BETWEEN) {
            token = step_between(lexer, (unsigned char)text[used], err);
        } else if (lexer->state == JSON_LEXER_STRING && text[used] == lexer->quote && !lexer->utf8_left) {
            lexer->state = JSON_LEXER_BETWEEN;
            token = JSON_TOKEN_STRING;
        } else if (!step_in_string(lexer, (unsigned char)text[used], err)) {
            token = JSON_TOKEN_ERROR;
        }
        if (token != JSON_TOKEN_ERROR)
            json_lexer_count(lexer, text + used++, 1);
    }
    *ret_used = used;
    return token;
}
