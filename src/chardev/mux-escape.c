/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a person types at a mux. */
#include "chardev/mux-escape.h"

#include <assert.h>
#include <string.h>

enum { CTRL_A = '\x01' };

void mux_escape_begin(struct mux_escape *escape)
{
    *escape = (struct mux_escape){.escaped = false};
}

/* Letters that mean nothing are dropped. */
static enum mux_action letter_action(char letter)
{
    switch (letter) {
    case 'h':
    case '?':
        return MUX_HELP;
    case 'c':
        return MUX_NEXT;
    case 'b':
        return MUX_BREAK;
    case 't':
        return MUX_TIMESTAMPS;
    case 'x':
        return MUX_QUIT;
    default:
        return MUX_INPUT;
    }
}

size_t mux_escape_decode(struct mux_escape *escape, const char *from, size_t size, struct mux_escape_found *found)
{
    const char *next;

    assert(size > 0);
    *found = (struct mux_escape_found){.action = MUX_INPUT};
    if (escape->escaped) {
        escape->escaped = false;
        found->action = letter_action(*from);
        if (*from == CTRL_A) {
            found->input = from;
            found->input_size = 1;
        }
        return 1;
    }
    if (*from == CTRL_A) {
        escape->escaped = true;
        return 1;
    }
    next = memchr(from, CTRL_A, size);
    found->input = from;
    found->input_size = next ? (size_t)(next - from) : size;
    return found->input_size;
}

const char *mux_escape_help(void)
{
    return "\n\r"
           "C-a h    print this help\n\r"
           "C-a x    end the program\n\r"
           "C-a t    switch time stamps on or off\n\r"
           "C-a b    send a break\n\r"
           "C-a c    hand the input to the next front end\n\r"
           "C-a C-a  send C-a\n\r";
}
