/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "chardev/telnet.h"

#include <glib.h>
#include <string.h>

enum { EOR = 239, SE = 240, NOP = 241, BRK = 243, SB = 250, WILL = 251, WONT = 252, DO = 253, DONT = 254, IAC = 255 };
enum { BINARY = 0, ECHO = 1, SUPPRESS_GO_AHEAD = 3, TERMINAL_TYPE = 24, END_OF_RECORD = 25, WINDOW_SIZE = 31 };

struct fixture {
    struct telnet telnet;
    uint8_t greeting[TELNET_GREETING_MAX];
    size_t greeting_size;
    uint8_t data[256];
    uint8_t answer[256];
    struct telnet_found found;
};

static void begin(struct fixture *fixture, bool server, bool tn3270)
{
    struct telnet_role role = {.server = server, .tn3270 = tn3270};

    fixture->greeting_size = telnet_begin(&fixture->telnet, &role, fixture->greeting);
}

static void decode(struct fixture *fixture, const void *from, size_t size)
{
    g_assert_cmpuint(telnet_decode_bound(size), <=, sizeof(fixture->data));
    fixture->found = (struct telnet_found){.data = fixture->data, .answer = fixture->answer};
    telnet_decode(&fixture->telnet, from, size, &fixture->found);
}

#define DECODE(fixture, ...) decode(fixture, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
#define ASSERT_BYTES(bytes, size, ...)                                                                                 \
    g_assert_cmpmem(bytes, size, ((const uint8_t[]){__VA_ARGS__}), sizeof((const uint8_t[]){__VA_ARGS__}))
#define ASSERT_DATA(fixture, ...) ASSERT_BYTES((fixture)->found.data, (fixture)->found.data_size, __VA_ARGS__)
#define ASSERT_ANSWER(fixture, ...) ASSERT_BYTES((fixture)->found.answer, (fixture)->found.answer_size, __VA_ARGS__)

static void test_greeting(void)
{
    struct fixture fixture;

    begin(&fixture, true, false);
    ASSERT_BYTES(fixture.greeting, fixture.greeting_size, IAC, WILL, ECHO, IAC, WILL, SUPPRESS_GO_AHEAD, IAC, WILL,
                 BINARY, IAC, DO, BINARY);
    begin(&fixture, true, true);
    ASSERT_BYTES(fixture.greeting, fixture.greeting_size, IAC, DO, END_OF_RECORD, IAC, WILL, END_OF_RECORD, IAC, DO,
                 BINARY, IAC, WILL, BINARY, IAC, DO, TERMINAL_TYPE, IAC, SB, TERMINAL_TYPE, 1, IAC, SE);
    begin(&fixture, false, false);
    g_assert_cmpuint(fixture.greeting_size, ==, 0);
}

static void test_commands_are_taken_out(void)
{
    struct fixture fixture;

    begin(&fixture, true, false);
    DECODE(&fixture, 'a', IAC, NOP, 'b', IAC, SB, WINDOW_SIZE, 'x', IAC, IAC, 'x', IAC, SE, 'c', IAC, IAC, 'd', IAC,
           BRK, 'e', IAC, EOR);
    ASSERT_DATA(&fixture, 'a', 'b', 'c', IAC, 'd', 'e');
    g_assert_cmpuint(fixture.found.answer_size, ==, 0);
    g_assert_cmpuint(fixture.found.breaks, ==, 1);
}

static void test_options(void)
{
    struct fixture fixture;

    begin(&fixture, true, false);
    /* Consent to what we asked for, and refusal of it, are not answered. */
    DECODE(&fixture, IAC, DO, ECHO, IAC, DONT, SUPPRESS_GO_AHEAD, IAC, WILL, BINARY, IAC, WONT, BINARY);
    ASSERT_ANSWER(&fixture, IAC, DONT, BINARY);
    /* What we do not have is refused, each time. */
    DECODE(&fixture, IAC, WILL, WINDOW_SIZE, IAC, DO, TERMINAL_TYPE, IAC, WILL, ECHO, IAC, WILL, 255);
    ASSERT_ANSWER(&fixture, IAC, DONT, WINDOW_SIZE, IAC, WONT, TERMINAL_TYPE, IAC, DONT, ECHO, IAC, DONT, 255);
    /* Switching off is confirmed once. */
    DECODE(&fixture, IAC, DONT, ECHO, IAC, DONT, ECHO, IAC, WONT, WINDOW_SIZE);
    ASSERT_ANSWER(&fixture, IAC, WONT, ECHO);
    DECODE(&fixture, IAC, DO, ECHO, IAC, DO, ECHO);
    ASSERT_ANSWER(&fixture, IAC, WONT, ECHO, IAC, WONT, ECHO);
}

static void test_client_agrees(void)
{
    struct fixture fixture;

    begin(&fixture, false, false);
    DECODE(&fixture, IAC, WILL, ECHO, IAC, WILL, SUPPRESS_GO_AHEAD, IAC, WILL, BINARY, IAC, DO, BINARY);
    ASSERT_ANSWER(&fixture, IAC, DO, ECHO, IAC, DO, SUPPRESS_GO_AHEAD, IAC, DO, BINARY, IAC, WILL, BINARY);
}

static void test_carriage_return(void)
{
    struct fixture fixture;

    begin(&fixture, true, false);
    DECODE(&fixture, 'a', '\r', 0, 'b', '\r', '\n', 0, '\r');
    ASSERT_DATA(&fixture, 'a', '\r', 'b', '\r', '\n', 0, '\r');
    DECODE(&fixture, 0, 'c', IAC, WILL, BINARY, '\r', 0);
    ASSERT_DATA(&fixture, 'c', '\r', 0);
}

static void test_tn3270_keeps_records(void)
{
    struct fixture fixture;
    uint8_t quoted[4];

    begin(&fixture, true, true);
    DECODE(&fixture, IAC, WILL, TERMINAL_TYPE, IAC, SB, TERMINAL_TYPE, 0, 'I', 'B', 'M', IAC, SE, 'a', IAC, IAC, IAC,
           EOR);
    ASSERT_DATA(&fixture, 'a', IAC, IAC, IAC, EOR);
    ASSERT_BYTES(quoted, telnet_encode(&fixture.telnet, (const uint8_t[]){IAC, EOR}, 2, quoted), IAC, EOR);
}

static void test_encode(void)
{
    struct fixture fixture;
    uint8_t quoted[6];
    uint8_t brk[TELNET_BREAK_SIZE];

    begin(&fixture, true, false);
    ASSERT_BYTES(quoted, telnet_encode(&fixture.telnet, (const uint8_t[]){'a', IAC, 'b'}, 3, quoted), 'a', IAC, IAC,
                 'b');
    telnet_encode_break(brk);
    ASSERT_BYTES(brk, sizeof(brk), IAC, BRK);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/telnet/greeting", test_greeting);
    g_test_add_func("/telnet/commands", test_commands_are_taken_out);
    g_test_add_func("/telnet/options", test_options);
    g_test_add_func("/telnet/client", test_client_agrees);
    g_test_add_func("/telnet/carriage-return", test_carriage_return);
    g_test_add_func("/telnet/tn3270", test_tn3270_keeps_records);
    g_test_add_func("/telnet/encode", test_encode);
    return g_test_run();
}
