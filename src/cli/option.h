/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Command lines: a table says which options a program has; option_list_parse() takes the words apart in the GNU manner
 * (long options may be abbreviated as long as they stay unambiguous, short ones may be joined) and keeps the order.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct error;

/* One option; a table of them ends with a NULL name. */
struct option {
    const char *name;     /* without the dashes; empty: it has a letter only */
    char letter;          /* of the short form; 0: none */
    const char *argument; /* how the help calls the argument; NULL: the option takes none */
    const char *help;     /* what it does; lines are broken at '\n' */
    int id;               /* the caller's */
    bool optional;        /* the argument may be left out; else it follows "=". Of options without a letter */
};

/* An option as somebody used it. */
struct option_use {
    const struct option *option; /* borrowed from the table; NULL: a word that is no option */
    const char *value;           /* borrowed from argv; NULL where there is none */
    char *shown;                 /* as it stood on the command line, for messages; on one line */
};

struct option_list {
    size_t count;
    struct option_use *items;
};

/* The words argv[1] to argv[argc - 1]; NULL and the error for what is not in the table. `table` and `argv` must stay.
 */
struct option_list *option_list_parse(const struct option *table, int argc, char *const *argv,
                                      struct error **err) MUST_CHECK;

/*
 * The same for programs whose complaints quote the whole word, "unrecognized option '-Z'", where the other one's are
 * those of the C library's getopt_long(), "invalid option -- 'Z'".
 */
struct option_list *option_list_parse_by_word(const struct option *table, int argc, char *const *argv,
                                              struct error **err) MUST_CHECK;
void option_list_free(struct option_list *list); /* NULL is allowed */
AUTO_DEFINE(option_list, struct option_list *, option_list_free)

/* The help of all options: for each a line with its forms, and its text indented; owned. */
char *option_table_help(const struct option *table);

/* What a synopsis says of the options, in one line: "[-f FMT] [--object OBJECTDEF]"; owned. */
char *option_table_synopsis(const struct option *table);

/* `text` with what would break the line or the terminal as \xNN; owned. */
char *option_escape(const char *text);
