/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a person types at a mux: input, and commands that begin with Ctrl-A. Pure functions. Private to this folder. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct mux_escape {
    bool escaped; /* Ctrl-A has come, and its letter has not */
};

enum mux_action {
    MUX_INPUT, /* also: nothing */
    MUX_HELP,
    MUX_NEXT,
    MUX_BREAK,
    MUX_TIMESTAMPS,
    MUX_QUIT,
};

struct mux_escape_found {
    enum mux_action action;
    const char *input; /* in what was decoded */
    size_t input_size;
};

void mux_escape_begin(struct mux_escape *escape);

/* Finds the next piece of input or the next command; how many bytes, at least one, that was. `size` is not 0. */
size_t mux_escape_decode(struct mux_escape *escape, const char *from, size_t size, struct mux_escape_found *found);

const char *mux_escape_help(void);
