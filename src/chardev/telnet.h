/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The telnet protocol (RFC 854, 855, 856, 857, 858; RFC 885 and 1576 for tn3270) as pure functions on bytes: commands
 * are taken out of what comes in, and what goes out is quoted. Private to this folder.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct telnet_role {
    bool server;
    bool tn3270; /* input keeps its end-of-record marks and its quoting; output is not quoted */
};

/*
 * An option on one side. What the other end has switched off stays so: two ends that only answer could go on switching
 * it for ever otherwise, once they disagree.
 */
enum telnet_state { TELNET_OFF, TELNET_ASKED, TELNET_ON, TELNET_GIVEN_UP };

enum { TELNET_OPTIONS = 26 }; /* numbers below this can be on */

struct telnet {
    struct telnet_role role;
    enum { TELNET_DATA, TELNET_AFTER_CR, TELNET_COMMAND, TELNET_OPTION, TELNET_SUB, TELNET_SUB_COMMAND } at;
    uint8_t verb;                   /* of the option that follows */
    uint8_t ours[TELNET_OPTIONS];   /* enum telnet_state: what we do */
    uint8_t theirs[TELNET_OPTIONS]; /* what the other end does */
};

enum {
    TELNET_GREETING_MAX = 32,
    TELNET_BREAK_SIZE = 2,
};

/* The most that telnet_decode() makes of `size` bytes: of data, and of answers. */
static inline size_t telnet_decode_bound(size_t size)
{
    return size + 2;
}

/* Begins, and writes what is to be said first; its size (0: nothing). */
size_t telnet_begin(struct telnet *telnet, const struct telnet_role *role, uint8_t greeting[TELNET_GREETING_MAX]);

/* What telnet_decode() has found; the buffers are the caller's, of telnet_decode_bound() bytes each. */
struct telnet_found {
    uint8_t *data;
    size_t data_size;
    uint8_t *answer; /* to be sent back */
    size_t answer_size;
    unsigned breaks;
};

/* Any bytes at all, cut anywhere. Appends to `found`, whose sizes are zero before. */
void telnet_decode(struct telnet *telnet, const uint8_t *from, size_t size, struct telnet_found *found);

/* Quotes into `to`, which has room for twice `size`; the size there. */
size_t telnet_encode(const struct telnet *telnet, const uint8_t *from, size_t size, uint8_t *to);

void telnet_encode_break(uint8_t to[TELNET_BREAK_SIZE]);
