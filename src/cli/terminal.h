/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What standard output can show: how wide it is, whether in colour, and in which letters. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { TERMINAL_COLUMNS_DEFAULT = 80 };

struct terminal {
    bool there;       /* false: a file or a pipe, where lines may be of any length */
    unsigned columns; /* at least 1 */
    bool colour;      /* off where NO_COLOR is set and not empty, and for TERM=dumb */
    bool unicode;     /* the locale's letters are UTF-8 */
};

/* Of standard output, as it is now. setlocale() has been called. */
struct terminal terminal_look(void);

/* Columns of the terminal that standard output is; else the default. */
unsigned terminal_columns(void);

/* How many columns `text`, which is UTF-8, takes. */
unsigned text_columns(const char *text);

/* `text` for a terminal: what would control it, and what is no UTF-8, as \xNN; owned. */
char *text_printable(const char *text);

/* `text` cut to `columns`, with a mark where something is missing; owned. */
char *text_fit(const struct terminal *terminal, const char *text, unsigned columns);

/* A bar that many columns wide of how much is in use, in colour where there is one; owned. `total` 0: empty. */
char *usage_bar(const struct terminal *terminal, uint64_t used, uint64_t total, unsigned columns);

/* " 28%", "100%", "   -" where `total` is 0; never 100% where something is left; owned. */
char *usage_percent(uint64_t used, uint64_t total);
