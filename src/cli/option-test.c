/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/option.h"

#include <string.h>

#include "base/error.h"

enum { HELP, TRACE, BLOCKDEV, BLOCK, DAEMONIZE, LISTEN };

static const struct option table[] = {
    {.name = "help", .letter = 'h', .help = "display this help and exit", .id = HELP},
    {.name = "trace", .letter = 'T', .argument = "PATTERN", .help = "trace", .id = TRACE},
    {.name = "blockdev", .argument = "DEFINITION,WITH,A,LONG,FORM", .help = "add a node\nto the graph", .id = BLOCKDEV},
    {.name = "block", .argument = "X", .help = "exact name that begins another", .id = BLOCK},
    {.name = "daemonize", .help = "into the background", .id = DAEMONIZE},
    {.name = "listen", .argument = "ADDRESS", .optional = true, .help = "serve", .id = LISTEN},
    {.name = NULL},
};

/* Parses `line`, split at spaces ("_" stands for an empty word). */
static struct option_list *parse(const char *line, bool by_word, char ***ret_words, struct error **err)
{
    g_autofree char *whole = g_strdup_printf("program%s%s", *line ? " " : "", line);
    char **words = g_strsplit(whole, " ", -1);

    for (char **word = words; *word; word++) {
        if (!strcmp(*word, "_"))
            **word = '\0';
    }
    *ret_words = words;
    return (by_word ? option_list_parse_by_word : option_list_parse)(table, (int)g_strv_length(words), words, err);
}

/* What was parsed, as text: "id:value(shown) ...", or the error's message. */
static char *outcome(const char *line, bool by_word)
{
    AUTO(error) err = NULL;
    g_auto(GStrv) words = NULL;
    AUTO(option_list) list = parse(line, by_word, &words, &err);
    g_autoptr(GString) text = g_string_new(NULL);

    if (!list)
        return g_strdup(error_message(err));
    for (size_t i = 0; i < list->count; i++) {
        const struct option_use *use = &list->items[i];

        g_string_append_printf(text, "%s%d:%s(%s)", i ? " " : "", use->option ? use->option->id : -1,
                               use->value ? use->value : "", use->shown);
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}

static void accepted_and_refused(void)
{
    static const struct {
        const char *line;
        const char *outcome;
    } cases[] = {
        {"", ""},
        {"--help", "0:(--help)"},
        {"-h", "0:(-h)"},
        {"--he", "0:(--he)"},
        {"-hT x", "0:(-hT) 1:x(-hT x)"},
        {"-Tfoo", "1:foo(-Tfoo)"},
        {"--trace=foo=bar", "1:foo=bar(--trace=foo=bar)"},
        {"--trace --help", "1:--help(--trace --help)"},
        {"--trace= --h", "1:(--trace=) 0:(--h)"},
        {"--trace _", "1:(--trace )"},
        {"--block x", "3:x(--block x)"},
        {"--blockd x", "2:x(--blockd x)"},
        {"stray --help -", "-1:stray(stray) 0:(--help) -1:-(-)"},
        {"-- --help", "-1:--help(--help)"},
        {"--trace \n\x01", "1:\n\x01(--trace \\x0a\\x01)"},
        {"--bloc x", "option '--bloc' is ambiguous; possibilities: '--blockdev' '--block'"},
        {"--foo", "unrecognized option '--foo'"},
        {"--foo\n=x", "unrecognized option '--foo\\x0a'"},
        {"--daemonize=1", "option '--daemonize' doesn't allow an argument"},
        {"--listen x", "5:(--listen) -1:x(x)"},
        {"--listen=x", "5:x(--listen=x)"},
        {"--listen=", "5:(--listen=)"},
        {"--blockdev", "option '--blockdev' requires an argument"},
        {"-T", "option requires an argument -- 'T'"},
        {"-hx", "invalid option -- 'x'"},
        {"-blockdev x", "invalid option -- 'b'"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *got = outcome(cases[i].line, false);

        g_assert_cmpstr(got, ==, cases[i].outcome);
    }
}

static void refused_by_word(void)
{
    static const struct {
        const char *line;
        const char *outcome;
    } cases[] = {
        {"-hT x --he", "0:(-hT) 1:x(-hT x) 0:(--he)"},
        {"-hx", "unrecognized option '-hx'"},
        {"--foo\n=x", "unrecognized option '--foo\\x0a=x'"},
        {"--bloc x", "unrecognized option '--bloc'"},
        {"--daemonize=1", "unrecognized option '--daemonize=1'"},
        {"-hT", "missing argument for option '-hT'"},
        {"--blockd", "missing argument for option '--blockd'"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *got = outcome(cases[i].line, true);

        g_assert_cmpstr(got, ==, cases[i].outcome);
    }
}

static void help_text(void)
{
    g_autofree char *help = option_table_help(table);

    g_assert_cmpstr(help, ==,
                    "  -h, --help             display this help and exit\n"
                    "  -T, --trace PATTERN    trace\n"
                    "  --blockdev DEFINITION,WITH,A,LONG,FORM\n"
                    "                         add a node\n"
                    "                         to the graph\n"
                    "  --block X              exact name that begins another\n"
                    "  --daemonize            into the background\n"
                    "  --listen[=ADDRESS]     serve\n");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/option/accepted-and-refused", accepted_and_refused);
    g_test_add_func("/option/refused-by-word", refused_by_word);
    g_test_add_func("/option/help-text", help_text);
    return g_test_run();
}
