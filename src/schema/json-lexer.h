/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Text of JSON, in pieces of any size, to tokens: for json-reader.c. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct error;

enum json_token {
    JSON_TOKEN_NONE,  /* more input is needed */
    JSON_TOKEN_ERROR, /* the byte in its way is not consumed */
    JSON_TOKEN_MARK,  /* one of {}[]:, in `mark` */
    JSON_TOKEN_STRING,
    JSON_TOKEN_NUMBER,
    JSON_TOKEN_WORD,
};

enum json_lexer_state {
    JSON_LEXER_BETWEEN,
    JSON_LEXER_STRING,
    JSON_LEXER_ESCAPE,
    JSON_LEXER_UNICODE,        /* in the digits after \u */
    JSON_LEXER_SURROGATE,      /* at the backslash before the second half of a character */
    JSON_LEXER_SURROGATE_MARK, /* at its u */
    JSON_LEXER_NUMBER,
    JSON_LEXER_WORD,
};

struct json_lexer {
    enum json_lexer_state state;
    GString *text; /* of the token, escapes resolved */
    char mark;
    char quote;
    unsigned digits;
    uint32_t code;
    uint32_t high;              /* first half of a surrogate pair; 0: none */
    uint8_t utf8_left;          /* bytes that the character still needs */
    uint8_t utf8_min, utf8_max; /* range of its next byte */
    size_t line, column;        /* of the next byte, from 1 */
    size_t token_line, token_column;
    bool restart_lines; /* the next token is on line 1 */
};

void json_lexer_init(struct json_lexer *lexer);
void json_lexer_done(struct json_lexer *lexer);

/* Forgets the token that was begun. */
void json_lexer_reset(struct json_lexer *lexer);

/* Consumes *ret_used bytes, up to the end of a token if there is one. */
enum json_token json_lexer_step(struct json_lexer *lexer, const char *text, size_t size, size_t *ret_used,
                                struct error **err);

/* Counts bytes that somebody else consumed. */
void json_lexer_count(struct json_lexer *lexer, const char *text, size_t size);

/* Sets the error: "JSON parse error, " and the text, and the place of the token or the byte. Returns false. */
bool json_lexer_fail_token(const struct json_lexer *lexer, struct error **err, const char *format, ...)
    G_GNUC_PRINTF(3, 4);
bool json_lexer_fail_byte(const struct json_lexer *lexer, struct error **err, const char *format, ...)
    G_GNUC_PRINTF(3, 4);

/* The text of a string token, owned; the lexer starts a new one. */
char *json_lexer_take_text(struct json_lexer *lexer);
