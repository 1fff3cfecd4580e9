/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* JSON values to text, in ASCII: other characters as escapes, which every reader understands. */
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "schema/json-internal.h"

static void append_escape(GString *to, unsigned code)
{
    static const char letters[] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};

    if (code == '"' || code == '\\')
        g_string_append_printf(to, "\\%c", (char)code);
    else if (code < sizeof(letters) && letters[code])
        g_string_append_printf(to, "\\%c", letters[code]);
    else if (code < 0x10000)
        g_string_append_printf(to, "\\u%04X", code);
    else
        g_string_append_printf(to, "\\u%04X\\u%04X", 0xd800 + ((code - 0x10000) >> 10),
                               0xdc00 + ((code - 0x10000) & 0x3ff));
}

/* Bytes that are no UTF-8 appear as replacement characters: file names may hold them. */
static void append_string(GString *to, const char *text)
{
    g_string_append_c(to, '"');
    while (*text) {
        size_t plain = 0;
        gunichar code;

        while (text[plain] >= ' ' && text[plain] < 0x7f && text[plain] != '"' && text[plain] != '\\')
            plain++;
        g_string_append_len(to, text, (gssize)plain);
        text += plain;
        if (!*text)
            break;
        code = g_utf8_get_char_validated(text, -1);
        if (code == (gunichar)-1 || code == (gunichar)-2) {
            append_escape(to, 0xfffd);
            text++;
        } else {
            append_escape(to, code);
            text = g_utf8_next_char(text);
        }
    }
    g_string_append_c(to, '"');
}

/* The shortest text that reads as the same number. */
static void append_double(GString *to, double number)
{
    char text[G_ASCII_DTOSTR_BUF_SIZE];

    assert(isfinite(number));
    for (int digits = 15; digits <= 17; digits++) {
        char format[8];

        g_snprintf(format, sizeof(format), "%%.%dg", digits);
        g_ascii_formatd(text, sizeof(text), format, number);
        if (g_ascii_strtod(text, NULL) == number)
            break;
    }
    g_string_append(to, text);
}

static void append_scalar(GString *to, const struct json *value)
{
    switch ((enum json_kind)value->kind) {
    case JSON_NULL:
        g_string_append(to, "null");
        break;
    case JSON_BOOL:
        g_string_append(to, value->boolean ? "true" : "false");
        break;
    case JSON_INT:
        g_string_append_printf(to, "%" PRId64, value->integer);
        break;
    case JSON_UINT:
        g_string_append_printf(to, "%" PRIu64, value->natural);
        break;
    case JSON_DOUBLE:
        append_double(to, value->number);
        break;
    default:
        assert(value->kind == JSON_STRING);
        append_string(to, value->string);
    }
}

/* A container that is being written, and how many of its members are. */
struct frame {
    const struct json *container;
    uint32_t done;
};

static void append_line(GString *to, unsigned depth)
{
    g_string_append_c(to, '\n');
    for (unsigned i = 0; i < depth; i++)
        g_string_append(to, "    ");
}

/* Writes a scalar, or the start of a container and pushes it. */
static void append_start(GString *to, const struct json *value, GArray *stack)
{
    struct frame frame = {.container = value};

    if (value->kind != JSON_ARRAY && value->kind != JSON_OBJECT) {
        append_scalar(to, value);
    } else if (!value->count) {
        g_string_append(to, value->kind == JSON_ARRAY ? "[]" : "{}");
    } else {
        g_string_append_c(to, value->kind == JSON_ARRAY ? '[' : '{');
        g_array_append_val(stack, frame);
    }
}

static void append_next(GString *to, GArray *stack, bool pretty)
{
    struct frame *top = &g_array_index(stack, struct frame, stack->len - 1);
    const struct json *container = top->container;
    uint32_t index = top->done++;

    if (index == container->count) {
        g_array_set_size(stack, stack->len - 1);
        if (pretty)
            append_line(to, stack->len);
        g_string_append_c(to, container->kind == JSON_ARRAY ? ']' : '}');
        return;
    }
    if (index)
        g_string_append(to, pretty ? "," : ", ");
    if (pretty)
        append_line(to, stack->len);
    if (container->kind == JSON_ARRAY) {
        append_start(to, container->items[index], stack);
    } else {
        append_string(to, container->pairs[index].key);
        g_string_append(to, ": ");
        append_start(to, container->pairs[index].value, stack);
    }
}

void json_format_append(GString *to, const struct json *value, bool pretty)
{
    g_autoptr(GArray) stack = g_array_new(FALSE, FALSE, sizeof(struct frame));

    append_start(to, value, stack);
    while (stack->len)
        append_next(to, stack, pretty);
}

char *json_format(const struct json *value, bool pretty)
{
    GString *text = g_string_new(NULL);

    json_format_append(text, value, pretty);
    return g_string_free(text, FALSE);
}
