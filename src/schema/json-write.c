/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writing JSON: ASCII only, so that any terminal and any log shows it. */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "schema/json.h"

static void indent(GString *to, unsigned depth)
{
    g_string_append_c(to, '\n');
    for (unsigned i = 0; i < depth; i++)
        g_string_append(to, "    ");
}

static void write_escaped(GString *to, gunichar character)
{
    if (character >= 0x10000) {
        unsigned rest = character - 0x10000;

        g_string_append_printf(to, "\\u%04X\\u%04X", 0xd800 + (rest >> 10), 0xdc00 + (rest & 0x3ff));
    } else {
        g_string_append_printf(to, "\\u%04X", character);
    }
}

static void write_string(GString *to, const char *text)
{
    static const char special[] = "\"\\\b\f\n\r\t";
    static const char letters[] = "\"\\bfnrt";

    g_string_append_c(to, '"');
    while (*text) {
        const char *run = text;

        while ((unsigned char)*text >= ' ' && (unsigned char)*text < 0x7f && *text != '"' && *text != '\\')
            text++;
        g_string_append_len(to, run, text - run);
        if (!*text)
            break;
        const char *found = strchr(special, *text);
        if (found) {
            g_string_append_c(to, '\\');
            g_string_append_c(to, letters[found - special]);
            text++;
        } else {
            gunichar character = g_utf8_get_char_validated(text, -1);
            bool valid = character < 0x110000;

            write_escaped(to, valid ? character : 0xfffd);
            text = valid ? g_utf8_next_char(text) : text + 1;
        }
    }
    g_string_append_c(to, '"');
}

static void write_scalar(GString *to, const struct json *value)
{
    char number[G_ASCII_DTOSTR_BUF_SIZE];

    switch (json_get_kind(value)) {
    case JSON_NULL:
        g_string_append(to, "null");
        break;
    case JSON_BOOL:
        g_string_append(to, json_get_bool(value) ? "true" : "false");
        break;
    case JSON_INT:
        g_string_append_printf(to, "%" PRId64, json_get_int(value));
        break;
    case JSON_UINT:
        g_string_append_printf(to, "%" PRIu64, json_get_uint(value));
        break;
    case JSON_DOUBLE:
        g_string_append(to, g_ascii_formatd(number, sizeof(number), "%.17g", json_get_double(value)));
        break;
    default:
        write_string(to, json_get_string(value));
        break;
    }
}

static void write_value(GString *to, const struct json *value, bool pretty, unsigned depth)
{
    enum json_kind kind = json_get_kind(value);

    if (kind != JSON_ARRAY && kind != JSON_OBJECT) {
        write_scalar(to, value);
        return;
    }
    size_t count = json_count(value);
    g_string_append_c(to, kind == JSON_OBJECT ? '{' : '[');
    for (size_t i = 0; i < count; i++) {
        const struct json *member;

        if (pretty)
            indent(to, depth + 1);
        if (kind == JSON_OBJECT) {
            const char *key;

            member = json_member(value, i, &key);
            write_string(to, key);
            g_string_append(to, ": ");
        } else {
            member = json_at(value, i);
        }
        write_value(to, member, pretty, depth + 1);
        if (i + 1 < count)
            g_string_append(to, pretty ? "," : ", ");
    }
    if (pretty && count)
        indent(to, depth);
    g_string_append_c(to, kind == JSON_OBJECT ? '}' : ']');
}

void json_format_append(GString *to, const struct json *value, bool pretty)
{
    write_value(to, value, pretty, 0);
}

char *json_format(const struct json *value, bool pretty)
{
    GString *text = g_string_new(NULL);

    json_format_append(text, value, pretty);
    return g_string_free(text, FALSE);
}
