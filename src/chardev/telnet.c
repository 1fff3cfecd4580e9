/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The telnet protocol as pure functions on bytes. */
#include "chardev/telnet.h"

#include <assert.h>
#include <string.h>

/* Commands (RFC 854), end of record (RFC 885). */
enum {
    EOR = 239,
    SE = 240,
    BRK = 243,
    SB = 250,
    WILL = 251,
    WONT = 252,
    DO = 253,
    DONT = 254,
    IAC = 255,
};

enum {
    OPTION_BINARY = 0,
    OPTION_ECHO = 1,
    OPTION_SUPPRESS_GO_AHEAD = 3,
    OPTION_TERMINAL_TYPE = 24,
    OPTION_END_OF_RECORD = 25,
};

enum { TERMINAL_TYPE_SEND = 1 };

static_assert((int)OPTION_END_OF_RECORD < (int)TELNET_OPTIONS, "options that can be on have a state");

/* Whether the one of the two ends that offers, "will", may switch `option` on. */
static bool option_wanted(const struct telnet *telnet, bool ours, uint8_t option)
{
    switch (option) {
    case OPTION_BINARY:
        return true;
    case OPTION_ECHO:
        /* A server says that it echoes so that the terminal does not, line by line. */
        return !telnet->role.tn3270 && ours == telnet->role.server;
    case OPTION_SUPPRESS_GO_AHEAD:
        return !telnet->role.tn3270;
    case OPTION_TERMINAL_TYPE:
        return telnet->role.tn3270 && telnet->role.server && !ours;
    case OPTION_END_OF_RECORD:
        return telnet->role.tn3270;
    default:
        return false;
    }
}

struct greeting {
    uint8_t *to;
    size_t size;
};

static void greeting_ask(struct telnet *telnet, struct greeting *greeting, uint8_t verb, uint8_t option)
{
    assert(greeting->size + 3 <= TELNET_GREETING_MAX);
    greeting->to[greeting->size++] = IAC;
    greeting->to[greeting->size++] = verb;
    greeting->to[greeting->size++] = option;
    if (verb == WILL)
        telnet->ours[option] = TELNET_ASKED;
    else
        telnet->theirs[option] = TELNET_ASKED;
}

size_t telnet_begin(struct telnet *telnet, const struct telnet_role *role, uint8_t greeting[TELNET_GREETING_MAX])
{
    static const uint8_t terminal_type[] = {IAC, SB, OPTION_TERMINAL_TYPE, TERMINAL_TYPE_SEND, IAC, SE};
    struct greeting out = {.to = greeting};

    *telnet = (struct telnet){.role = *role, .at = TELNET_DATA};
    if (!role->server)
        return 0;
    if (!role->tn3270) {
        greeting_ask(telnet, &out, WILL, OPTION_ECHO);
        greeting_ask(telnet, &out, WILL, OPTION_SUPPRESS_GO_AHEAD);
        greeting_ask(telnet, &out, WILL, OPTION_BINARY);
        greeting_ask(telnet, &out, DO, OPTION_BINARY);
        return out.size;
    }
    greeting_ask(telnet, &out, DO, OPTION_END_OF_RECORD);
    greeting_ask(telnet, &out, WILL, OPTION_END_OF_RECORD);
    greeting_ask(telnet, &out, DO, OPTION_BINARY);
    greeting_ask(telnet, &out, WILL, OPTION_BINARY);
    greeting_ask(telnet, &out, DO, OPTION_TERMINAL_TYPE);
    assert(out.size + sizeof(terminal_type) <= TELNET_GREETING_MAX);
    memcpy(greeting + out.size, terminal_type, sizeof(terminal_type));
    return out.size + sizeof(terminal_type);
}

static void put_data(struct telnet_found *found, uint8_t byte)
{
    found->data[found->data_size++] = byte;
}

static void put_answer(struct telnet_found *found, uint8_t verb, uint8_t option)
{
    found->answer[found->answer_size++] = IAC;
    found->answer[found->answer_size++] = verb;
    found->answer[found->answer_size++] = option;
}

/* A refusal, and the consent to what we asked for, are never answered. */
static void decode_option(struct telnet *telnet, uint8_t option, struct telnet_found *found)
{
    bool ours = telnet->verb == DO || telnet->verb == DONT;
    bool on = telnet->verb == DO || telnet->verb == WILL;
    uint8_t *states = ours ? telnet->ours : telnet->theirs;

    if (on) {
        if (!option_wanted(telnet, ours, option) || states[option] == TELNET_GIVEN_UP) {
            put_answer(found, ours ? WONT : DONT, option);
            return;
        }
        if (states[option] == TELNET_OFF)
            put_answer(found, ours ? WILL : DO, option);
        states[option] = TELNET_ON;
    } else if (option < TELNET_OPTIONS) {
        if (states[option] == TELNET_ON)
            put_answer(found, ours ? WONT : DONT, option);
        states[option] = TELNET_GIVEN_UP;
    }
}

static void decode_command(struct telnet *telnet, uint8_t byte, struct telnet_found *found)
{
    telnet->at = TELNET_DATA;
    switch (byte) {
    case IAC:
        if (telnet->role.tn3270)
            put_data(found, IAC);
        put_data(found, IAC);
        break;
    case WILL:
    case WONT:
    case DO:
    case DONT:
        telnet->verb = byte;
        telnet->at = TELNET_OPTION;
        break;
    case SB:
        telnet->at = TELNET_SUB;
        break;
    case BRK:
        found->breaks++;
        break;
    case EOR:
        if (telnet->role.tn3270) {
            put_data(found, IAC);
            put_data(found, EOR);
        }
        break;
    default:
        break;
    }
}

/* Outside of binary mode a carriage return that stands alone is followed by a NUL. */
static void decode_data(struct telnet *telnet, uint8_t byte, struct telnet_found *found)
{
    bool after_cr = telnet->at == TELNET_AFTER_CR;

    telnet->at = TELNET_DATA;
    if (byte == IAC) {
        telnet->at = TELNET_COMMAND;
        return;
    }
    if (after_cr && byte == '\0')
        return;
    if (byte == '\r' && telnet->theirs[OPTION_BINARY] != TELNET_ON)
        telnet->at = TELNET_AFTER_CR;
    put_data(found, byte);
}

void telnet_decode(struct telnet *telnet, const uint8_t *from, size_t size, struct telnet_found *found)
{
    assert(!found->data_size);
    assert(!found->answer_size);
    for (size_t i = 0; i < size; i++) {
        switch (telnet->at) {
        case TELNET_DATA:
        case TELNET_AFTER_CR:
            decode_data(telnet, from[i], found);
            break;
        case TELNET_COMMAND:
            decode_command(telnet, from[i], found);
            break;
        case TELNET_OPTION:
            telnet->at = TELNET_DATA;
            decode_option(telnet, from[i], found);
            break;
        case TELNET_SUB:
            if (from[i] == IAC)
                telnet->at = TELNET_SUB_COMMAND;
            break;
        case TELNET_SUB_COMMAND:
            telnet->at = from[i] == IAC ? TELNET_SUB : TELNET_DATA;
            break;
        }
    }
    assert(found->data_size <= telnet_decode_bound(size));
    assert(found->answer_size <= telnet_decode_bound(size));
}

size_t telnet_encode(const struct telnet *telnet, const uint8_t *from, size_t size, uint8_t *to)
{
    size_t done = 0;

    for (size_t i = 0; i < size; i++) {
        to[done++] = from[i];
        if (from[i] == IAC && !telnet->role.tn3270)
            to[done++] = IAC;
    }
    return done;
}

void telnet_encode_break(uint8_t to[TELNET_BREAK_SIZE])
{
    to[0] = IAC;
    to[1] = BRK;
}
