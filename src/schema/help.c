/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Types explained to a person at a command line: keys in their dotted form, what they take, and what they mean. The
 * texts are those of the schema.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "schema/schema-internal.h"

/* Columns of a line; how far texts stand in from keys; a list of values in place of a type's name is at most that long.
 */
enum { LINE_WIDTH = 79, TEXT_INDENT = 4, NAMES_WIDTH = 26, CHOICE_MAX = 60 };

/* A union inside another type is shown with its branches if it has no more than these. */
enum { BRANCHES_SHOWN = 6 };

struct help {
    const struct schema_tables *tables;
    GString *text;
};

/* The key of what encloses a member, and the types that enclose it; the root has no parent. */
struct scope {
    const struct scope *parent;
    const char *prefix; /* "" or "addr." */
    const struct schema_node *node;
    const char *tag; /* the value that the union's tag has; NULL: open */
    unsigned indent; /* columns before keys */
};

static const char *node_doc(const struct help *help, const struct schema_node *node)
{
    return help->tables->docs + help->tables->node_docs[node - help->tables->nodes];
}

static const char *member_doc(const struct help *help, const struct schema_member *member)
{
    return help->tables->docs + help->tables->member_docs[member - help->tables->members];
}

/* Breaks one paragraph into lines; the first goes on at column `column`. */
static void append_wrapped(GString *to, const char *text, const char *end, size_t column, size_t indent)
{
    bool first = true;

    while (text < end) {
        const char *space = memchr(text, ' ', (size_t)(end - text));
        size_t length = (size_t)((space ? space : end) - text);

        if (column < indent || (!first && column + 1 + length > LINE_WIDTH)) {
            if (column)
                g_string_append_c(to, '\n');
            g_string_append_printf(to, "%*s", (int)indent, "");
            column = indent;
        } else if (!first) {
            g_string_append_c(to, ' ');
            column++;
        }
        g_string_append_len(to, text, (gssize)length);
        column += length;
        text += length + (space != NULL);
        first = false;
    }
    g_string_append_c(to, '\n');
}

static void append_text(struct help *help, const char *text, size_t indent)
{
    while (*text) {
        const char *end = strchrnul(text, '\n');

        append_wrapped(help->text, text, end, 0, indent);
        text = end + (*end == '\n');
    }
}

static void append_title(struct help *help, const char *title)
{
    append_text(help, title, 0);
}

/* "red|green" where that is short, else the name of the type. */
static char *enum_name(const struct help *help, const struct schema_node *node)
{
    GString *names = g_string_new(NULL);

    for (unsigned i = 0; i < node->count; i++)
        g_string_append_printf(names, "%s%s", i ? "|" : "",
                               schema_string(help->tables, help->tables->members[node->first + i].name));
    if (names->len > CHOICE_MAX)
        g_string_assign(names, schema_string(help->tables, node->name));
    return g_string_free(names, FALSE);
}

/* What a value is, for "key=<...>". */
static char *type_name(const struct help *help, const struct schema_node *node)
{
    GString *names;

    switch ((enum schema_kind)node->kind) {
    case SCHEMA_STRING:
        return g_strdup("string");
    case SCHEMA_BOOL:
        return g_strdup("on|off");
    case SCHEMA_ENUM:
        return enum_name(help, node);
    case SCHEMA_ALTERNATE:
        names = g_string_new(NULL);
        for (unsigned i = 0; i < node->count; i++) {
            const struct schema_member *branch = &help->tables->members[node->first + i];
            g_autofree char *name = type_name(help, schema_node_at(help->tables, branch->type));

            g_string_append_printf(names, "%s%s", i ? "|" : "", name);
        }
        return g_string_free(names, FALSE);
    default:
        return g_strdup(schema_string(help->tables, node->name));
    }
}

static void append_members(struct help *help, const struct scope *scope);

/* Whether the type encloses the place already: then it is not opened once more. */
static bool is_inside(const struct scope *scope, const struct schema_node *node)
{
    for (; scope; scope = scope->parent) {
        if (scope->node == node)
            return true;
    }
    return false;
}

/* The members of a branch of a union, under its condition. */
static void append_branch(struct help *help, const struct scope *scope, const struct schema_case *branch)
{
    const struct schema_member *tag = &help->tables->members[scope->node->first + scope->node->tag];
    const struct schema_node *values = schema_node_at(help->tables, tag->type);
    struct scope inner = {.parent = scope->parent, .prefix = scope->prefix, .indent = scope->indent + 2};

    inner.node = schema_node_at(help->tables, branch->type);
    g_string_append_printf(help->text, "%*swith %s%s=%s:\n", (int)scope->indent, "", scope->prefix,
                           schema_string(help->tables, tag->name),
                           schema_string(help->tables, help->tables->members[values->first + branch->value].name));
    append_members(help, &inner);
}

static void append_branches(struct help *help, const struct scope *scope)
{
    const struct schema_node *node = scope->node;

    if (!node->case_count)
        return;
    if (node->case_count > BRANCHES_SHOWN) {
        g_string_append_printf(help->text, "%*s%s*\n", (int)scope->indent, "", scope->prefix);
        append_text(help, "Further keys, which depend on that.", scope->indent + TEXT_INDENT);
        return;
    }
    for (unsigned i = 0; i < node->case_count; i++)
        append_branch(help, scope, &help->tables->cases[node->first_case + i]);
}

/* "key=<what it takes>" */
static void append_key(struct help *help, const struct scope *scope, const char *key,
                       const struct schema_member *member, const struct schema_node *node)
{
    bool is_tag = scope->tag && member == &help->tables->members[scope->node->first + scope->node->tag];
    g_autofree char *name = type_name(help, node);

    g_string_append_printf(help->text, "%*s%s", (int)scope->indent, "", key);
    if (node->kind == SCHEMA_STRUCT)
        g_string_append(help->text, ".*");
    else if (is_tag)
        g_string_append_printf(help->text, "=%s", scope->tag);
    else
        g_string_append_printf(help->text, "=<%s>", name);
    g_string_append(help->text, member->flags & SCHEMA_OPTIONAL ? "\n" : " (required)\n");
}

static void append_member(struct help *help, const struct scope *scope, const struct schema_member *member)
{
    const struct schema_node *node = schema_node_at(help->tables, member->type);
    g_autofree char *key = g_strconcat(scope->prefix, schema_string(help->tables, member->name), NULL);
    g_autofree char *prefix = NULL;

    while (node->kind == SCHEMA_ARRAY) {
        char *element = g_strconcat(key, ".0", NULL);

        g_free(key);
        key = element;
        node = schema_node_at(help->tables, node->first);
    }
    append_key(help, scope, key, member, node);
    append_text(help, member_doc(help, member), scope->indent + TEXT_INDENT);
    if (node->kind == SCHEMA_STRUCT && !is_inside(scope, node)) {
        struct scope inner = {.parent = scope, .node = node, .indent = scope->indent};

        prefix = g_strconcat(key, ".", NULL);
        inner.prefix = prefix;
        append_members(help, &inner);
        append_branches(help, &inner);
    }
}

static void append_members(struct help *help, const struct scope *scope)
{
    for (unsigned i = 0; i < scope->node->count; i++)
        append_member(help, scope, &help->tables->members[scope->node->first + i]);
}

/* The values of a tag, a line each with the first sentence of its text. */
static void append_values(struct help *help, const struct schema_node *node,
                          bool (*is_offered)(void *opaque, const char *value), void *opaque)
{
    const struct schema_member *tag = &help->tables->members[node->first + node->tag];
    const struct schema_node *values = schema_node_at(help->tables, tag->type);

    append_title(help, node_doc(help, node));
    g_string_append_printf(help->text, "\nValues of '%s':\n", schema_string(help->tables, tag->name));
    for (unsigned i = 0; i < values->count; i++) {
        const struct schema_member *value = &help->tables->members[values->first + i];
        const char *name = schema_string(help->tables, value->name), *doc = member_doc(help, value);
        const char *end = strstr(doc, ". ");
        bool fits = strlen(name) + 4 <= NAMES_WIDTH;

        if (is_offered && !is_offered(opaque, name))
            continue;
        g_string_append_printf(help->text, "  %-*s%s", fits ? NAMES_WIDTH - 2 : 0, name, fits ? "" : "\n");
        append_wrapped(help->text, doc, end ? end + 1 : strchrnul(doc, '\n'), fits ? NAMES_WIDTH : 0, NAMES_WIDTH);
    }
    g_string_append_printf(help->text, "\nFor the options of one: %s=NAME,help\n",
                           schema_string(help->tables, tag->name));
}

/* The branch of a union that `value` selects, NULL: one without members; false for a value that there is not. */
static bool choose_branch(const struct schema_tables *tables, const struct schema_node *node, const char *value,
                          const struct schema_node **ret, struct error **err)
{
    const struct schema_member *tag = &tables->members[node->first + node->tag];
    int index = schema_node_enum_value(tables, schema_node_at(tables, tag->type), value);

    if (index < 0)
        return error_set(err, "Parameter '%s' does not accept value '%s'", schema_string(tables, tag->name), value);
    *ret = NULL;
    for (unsigned i = 0; i < node->case_count; i++) {
        if (tables->cases[node->first_case + i].value == index)
            *ret = schema_node_at(tables, tables->cases[node->first_case + i].type);
    }
    return true;
}

/* The value of the union's tag in `chosen`; NULL: it is not there. */
static const char *chosen_tag(const struct schema_tables *tables, const struct schema_node *node,
                              const struct json *chosen)
{
    const struct schema_member *tag = &tables->members[node->first + node->tag];
    const struct json *value = chosen ? json_get(chosen, schema_string(tables, tag->name)) : NULL;

    return value && json_get_kind(value) == JSON_STRING ? json_get_string(value) : NULL;
}

char *schema_help_text(const struct schema_type *type, const struct json *chosen,
                       bool (*is_offered)(void *opaque, const char *value), void *opaque, struct error **err)
{
    const struct schema_node *node = schema_type_node(type), *branch = NULL;
    g_autoptr(GString) text = g_string_new(NULL);
    struct help help = {.tables = type->tables, .text = text};
    struct scope scope = {.prefix = "", .node = node, .indent = 2};
    const char *value = NULL;

    assert(node->kind == SCHEMA_STRUCT);
    if (node->tag != SCHEMA_NONE) {
        value = chosen_tag(type->tables, node, chosen);
        if (!value) {
            append_values(&help, node, is_offered, opaque);
            return g_string_free(g_steal_pointer(&text), FALSE);
        }
        if (!choose_branch(type->tables, node, value, &branch, err))
            return NULL;
        g_string_append_printf(text, "%s options:\n", value);
    }
    append_title(&help, node_doc(&help, branch ? branch : node));
    g_string_append_c(text, '\n');
    scope.tag = value;
    append_members(&help, &scope);
    if (branch) {
        struct scope inner = {.parent = &scope, .prefix = "", .node = branch, .indent = 2};

        append_members(&help, &inner);
        append_branches(&help, &inner);
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}

bool schema_help(const struct schema_type *type, const struct json *chosen, struct error **err)
{
    g_autofree char *text = schema_help_text(type, chosen, NULL, NULL, err);

    if (text)
        fputs(text, stdout);
    return text != NULL;
}
