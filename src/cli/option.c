/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/option.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"

enum { HELP_COLUMN = 25 };

/* The words that are still to come, and what was found so far. */
struct parser {
    const struct option *table;
    char *const *words;
    int left;
    bool by_word; /* say of the whole word what is wrong with it */
    GArray *uses; /* of struct option_use */
};

char *option_escape(const char *text)
{
    g_autoptr(GString) escaped = g_string_new(NULL);

    for (const char *c = text; *c; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            g_string_append_printf(escaped, "\\x%02x", (unsigned char)*c);
        else
            g_string_append_c(escaped, *c);
    }
    return g_string_free(g_steal_pointer(&escaped), FALSE);
}

static const char *next_word(struct parser *parser)
{
    assert(parser->left > 0);
    parser->left--;
    return *parser->words++;
}

static void add_use(struct parser *parser, const struct option *option, const char *value, const char *first,
                    const char *second)
{
    g_autofree char *words = second ? g_strdup_printf("%s %s", first, second) : g_strdup(first);
    struct option_use use = {.option = option, .value = value, .shown = option_escape(words)};

    g_array_append_val(parser->uses, use);
}

static bool fail_word(const char *what, const char *word, struct error **err)
{
    g_autofree char *shown = option_escape(word);

    return error_set(err, "%s option '%s'", what, shown);
}

static bool ambiguous(const struct option *table, const char *name, size_t length, struct error **err)
{
    g_autoptr(GString) choices = g_string_new(NULL);

    for (const struct option *option = table; option->name; option++) {
        if (*option->name && !strncmp(option->name, name, length))
            g_string_append_printf(choices, " '--%s'", option->name);
    }
    return error_set(err, "option '--%.*s' is ambiguous; possibilities:%s", (int)length, name, choices->str);
}

/* The option whose name is, or of all only begins with, the first `length` bytes of `name`. */
static const struct option *find_long(const struct option *table, const char *name, size_t length, struct error **err)
{
    const struct option *found = NULL;
    unsigned matches = 0;

    for (const struct option *option = table; option->name; option++) {
        if (!*option->name || strncmp(option->name, name, length))
            continue;
        if (strlen(option->name) == length)
            return option;
        found = option;
        matches++;
    }
    if (matches > 1) {
        ambiguous(table, name, length, err);
        return NULL;
    }
    if (!found) {
        g_autofree char *typed = g_strndup(name, length);
        g_autofree char *shown = option_escape(typed);
        error_set(err, "unrecognized option '--%s'", shown);
    }
    return found;
}

static bool parse_long(struct parser *parser, const char *word, struct error **err)
{
    const char *name = word + 2;
    const char *equals = strchr(name, '=');
    struct error **found_err = parser->by_word ? NULL : err;
    const struct option *option =
        find_long(parser->table, name, equals ? (size_t)(equals - name) : strlen(name), found_err);

    if (!option)
        return parser->by_word ? fail_word("unrecognized", word, err) : false;
    if (!option->argument) {
        if (equals && parser->by_word)
            return fail_word("unrecognized", word, err);
        if (equals)
            return error_set(err, "option '--%s' doesn't allow an argument", option->name);
        add_use(parser, option, NULL, word, NULL);
        return true;
    }
    if (equals) {
        add_use(parser, option, equals + 1, word, NULL);
        return true;
    }
    if (option->optional) {
        add_use(parser, option, NULL, word, NULL);
        return true;
    }
    if (!parser->left && parser->by_word)
        return fail_word("missing argument for", word, err);
    if (!parser->left)
        return error_set(err, "option '--%s' requires an argument", option->name);

    const char *value = next_word(parser);
    add_use(parser, option, value, word, value);
    return true;
}

static const struct option *find_letter(const struct option *table, char letter)
{
    for (const struct option *option = table; option->name; option++) {
        if (option->letter && option->letter == letter)
            return option;
    }
    return NULL;
}

/* "-h", "-Vh", "-Tvalue" or "-T value". */
static bool parse_short(struct parser *parser, const char *word, struct error **err)
{
    for (const char *letter = word + 1; *letter; letter++) {
        const struct option *option = find_letter(parser->table, *letter);

        if (!option && parser->by_word)
            return fail_word("unrecognized", word, err);
        if (!option) {
            g_autofree char *shown = option_escape((const char[]){*letter, '\0'});
            return error_set(err, "invalid option -- '%s'", shown);
        }
        if (!option->argument) {
            add_use(parser, option, NULL, word, NULL);
            continue;
        }
        if (letter[1]) {
            add_use(parser, option, letter + 1, word, NULL);
            return true;
        }
        if (!parser->left && parser->by_word)
            return fail_word("missing argument for", word, err);
        if (!parser->left)
            return error_set(err, "option requires an argument -- '%c'", *letter);

        const char *value = next_word(parser);
        add_use(parser, option, value, word, value);
        return true;
    }
    return true;
}

static bool parse_words(struct parser *parser, struct error **err)
{
    while (parser->left) {
        const char *word = next_word(parser);

        if (!strcmp(word, "--")) {
            while (parser->left) {
                word = next_word(parser);
                add_use(parser, NULL, word, word, NULL);
            }
        } else if (!strncmp(word, "--", 2)) {
            if (!parse_long(parser, word, err))
                return false;
        } else if (word[0] == '-' && word[1]) {
            if (!parse_short(parser, word, err))
                return false;
        } else {
            add_use(parser, NULL, word, word, NULL);
        }
    }
    return true;
}

static struct option_list *parse(const struct option *table, int argc, char *const *argv, bool by_word,
                                 struct error **err)
{
    struct parser parser = {
        .table = table,
        .words = argv + 1,
        .left = argc > 0 ? argc - 1 : 0,
        .by_word = by_word,
        .uses = g_array_new(FALSE, FALSE, sizeof(struct option_use)),
    };
    bool ok = parse_words(&parser, err);
    struct option_list *list = g_new0(struct option_list, 1);

    list->count = parser.uses->len;
    list->items = (struct option_use *)(void *)g_array_free(parser.uses, FALSE);
    if (ok)
        return list;
    option_list_free(list);
    return NULL;
}

struct option_list *option_list_parse(const struct option *table, int argc, char *const *argv, struct error **err)
{
    return parse(table, argc, argv, false, err);
}

struct option_list *option_list_parse_by_word(const struct option *table, int argc, char *const *argv,
                                              struct error **err)
{
    return parse(table, argc, argv, true, err);
}

void option_list_free(struct option_list *list)
{
    if (!list)
        return;
    for (size_t i = 0; i < list->count; i++)
        g_free(list->items[i].shown);
    g_free(list->items);
    g_free(list);
}

char *option_table_help(const struct option *table)
{
    g_autoptr(GString) help = g_string_new(NULL);

    for (const struct option *option = table; option->name; option++) {
        gsize start = help->len;

        g_string_append(help, "  ");
        if (option->letter)
            g_string_append_printf(help, "-%c%s", option->letter, *option->name ? ", " : "");
        if (*option->name)
            g_string_append_printf(help, "--%s", option->name);
        if (option->argument)
            g_string_append_printf(help, option->optional ? "[=%s]" : " %s", option->argument);

        g_auto(GStrv) lines = g_strsplit(option->help, "\n", -1);
        for (char **line = lines; *line; line++) {
            gsize used = help->len - start;

            /* The first line follows the forms where there is room. */
            if (line != lines || used >= HELP_COLUMN) {
                g_string_append_c(help, '\n');
                used = 0;
            }
            g_string_append_printf(help, "%*s%s", (int)(HELP_COLUMN - used), "", *line);
        }
        g_string_append_c(help, '\n');
    }
    return g_string_free(g_steal_pointer(&help), FALSE);
}

char *option_table_synopsis(const struct option *table)
{
    g_autoptr(GString) line = g_string_new(NULL);

    for (const struct option *option = table; option->name; option++) {
        g_string_append(line, line->len ? " [" : "[");
        if (option->letter)
            g_string_append_printf(line, "-%c", option->letter);
        else
            g_string_append_printf(line, "--%s", option->name);
        if (option->argument && option->optional)
            g_string_append_printf(line, "[=%s]", option->argument);
        else if (option->argument)
            g_string_append_printf(line, "%c%s", option->letter ? ' ' : '=', option->argument);
        g_string_append_c(line, ']');
    }
    return g_string_free(g_steal_pointer(&line), FALSE);
}
