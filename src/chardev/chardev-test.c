/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Chardevs as their users see them: on each loop, with real peers at the other end. */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/error.h"
#include "chardev/chardev-internal.h"
#include "chardev/ringbuf.h"
#include "loop/file.h"
#include "loop/loop-test.h"
#include "loop/socket.h"

struct fixture {
    struct chardev_registry *registry;
    char *directory;
    char *path; /* of a socket */
};

static struct fixture *fixture_new(void)
{
    struct fixture *fixture = g_new0(struct fixture, 1);

    fixture->registry = chardev_registry_new(NULL);
    fixture->directory = g_dir_make_tmp("chardev-XXXXXX", NULL);
    fixture->path = g_build_filename(fixture->directory, "s", NULL);
    return fixture;
}

static void co_fixture_free(struct fixture *fixture)
{
    co_chardev_registry_free(fixture->registry);
    g_assert_cmpint(g_rmdir(fixture->directory), ==, 0);
    g_free(fixture->directory);
    g_free(fixture->path);
    g_free(fixture);
}

/* Adds by an option line, in which %s is the path of the socket. */
static void co_add(struct fixture *fixture, const char *format)
{
    AUTO(error) err = NULL;
    char **parts = g_strsplit(format, "%s", 0);
    g_autofree char *text = g_strjoinv(fixture->path, parts);
    bool help;

    g_strfreev(parts);
    if (!co_chardev_add_option(fixture->registry, text, &help, &err))
        g_error("%s: %s", text, error_message(err));
    g_assert_false(help);
}

static void co_add_fails(struct fixture *fixture, const char *text, const char *message)
{
    AUTO(error) err = NULL;
    bool help;

    g_assert_false(co_chardev_add_option(fixture->registry, text, &help, &err));
    g_assert_cmpstr(error_message(err), ==, message);
}

static struct chardev_frontend *claim(struct fixture *fixture, const char *id)
{
    AUTO(error) err = NULL;
    struct chardev_frontend *frontend = chardev_claim(fixture->registry, id, &err);

    if (!frontend)
        g_error("%s", error_message(err));
    return frontend;
}

static int co_dial(struct fixture *fixture)
{
    struct socket_endpoint endpoint = {.family = SOCKET_UNIX, .path = fixture->path};
    AUTO(error) err = NULL;
    int fd = co_socket_dial(&endpoint, &err);

    if (fd < 0)
        g_error("%s", error_message(err));
    return fd;
}

static void co_expect(struct chardev_frontend *frontend, const char *text)
{
    g_autofree char *got = g_malloc0(strlen(text) + 1);
    size_t size = 0;

    while (size < strlen(text)) {
        ssize_t moved = co_chardev_read(frontend, got + size, strlen(text) - size);

        g_assert_cmpint(moved, >, 0);
        size += (size_t)moved;
    }
    g_assert_cmpstr(got, ==, text);
}

static void co_expect_fd(int fd, const char *text)
{
    g_autofree char *got = g_malloc0(strlen(text) + 1);

    g_assert_cmpint(co_socket_recv(fd, got, strlen(text), MSG_WAITALL), ==, strlen(text));
    g_assert_cmpstr(got, ==, text);
}

static void co_say(struct chardev_frontend *frontend, const char *text)
{
    g_assert_cmpint(co_chardev_write(frontend, text, strlen(text)), ==, 0);
}

static void co_say_fd(int fd, const char *text)
{
    g_assert_cmpint(co_socket_send(fd, text, strlen(text), 0), ==, strlen(text));
}

static char *filename_of(struct fixture *fixture, const char *id)
{
    AUTO(chardev_info_array) array = chardev_query(fixture->registry);

    for (size_t i = 0; i < array->count; i++) {
        if (!strcmp(array->items[i]->label, id))
            return g_strdup(array->items[i]->filename);
    }
    return NULL;
}

/* Waits until query-chardev calls it so. */
static void co_wait_named(struct fixture *fixture, const char *id, const char *prefix)
{
    for (;;) {
        g_autofree char *name = filename_of(fixture, id);

        if (g_str_has_prefix(name, prefix))
            return;
        g_assert_cmpint(co_sleep_ns(1000000), ==, 0);
    }
}

/* --- the registry --- */

static void co_test_registry(void *opaque)
{
    struct fixture *fixture = fixture_new();
    AUTO(error) err = NULL;
    AUTO(error) busy = NULL;
    AUTO(error) taken = NULL;
    struct chardev_frontend *frontend;

    co_add(fixture, "null,id=a");
    co_add(fixture, "backend=null,id=b");
    co_add_fails(fixture, "null,id=a", "Chardev with id 'a' already exists");
    co_add_fails(fixture, "null,id=1a", "Parameter 'id' expects an identifier");
    co_add_fails(fixture, "vc,id=v", "'vc' is not a valid char driver name");
    frontend = claim(fixture, "a");
    g_assert_null(chardev_claim(fixture->registry, "a", &taken));
    g_assert_cmpstr(error_message(taken), ==, "Device 'a' is in use");
    g_assert_null(chardev_claim(fixture->registry, "z", &err));
    g_assert_cmpstr(error_message(err), ==, "chardev \"z\" not found");
    g_assert_false(co_chardev_remove(fixture->registry, "a", &busy));
    g_assert_cmpstr(error_message(busy), ==, "Chardev 'a' is busy");
    g_assert_cmpint(co_chardev_wait_open(frontend), ==, 0);
    co_say(frontend, "into the void");
    co_chardev_release(frontend);
    g_assert_true(co_chardev_remove(fixture->registry, "a", NULL));
    g_assert_false(co_chardev_remove(fixture->registry, "a", NULL));
    co_fixture_free(fixture);
}

static void co_test_change(void *opaque)
{
    struct fixture *fixture = fixture_new();
    struct chardev_common none = {0};
    struct chardev_backend null = {.type = CHARDEV_BACKEND_KIND_NULL, .u.null.data = &none};
    struct chardev_common bad_log = {.logfile = (char *)"/dev/null/log"};
    struct chardev_backend bad = {.type = CHARDEV_BACKEND_KIND_NULL, .u.null.data = &bad_log};
    AUTO(chardev_return) ret = NULL;
    AUTO(error) err = NULL;

    co_add(fixture, "ringbuf,id=a");
    g_assert_false(co_chardev_change(fixture->registry, "a", &bad, &ret, &err));
    g_assert_cmpstr(error_message(err), ==,
                    "Failed to add chardev 'a': Could not create '/dev/null/log': Not a directory");
    g_autofree char *still = filename_of(fixture, "a");
    g_assert_cmpstr(still, ==, "ringbuf");
    g_assert_true(co_chardev_change(fixture->registry, "a", &null, &ret, NULL));
    g_autofree char *now = filename_of(fixture, "a");
    g_assert_cmpstr(now, ==, "null");
    co_fixture_free(fixture);
}

static void co_test_ringbuf(void *opaque)
{
    struct fixture *fixture = fixture_new();
    struct ringbuf_read_options some = {.size = 4, .whole_characters = true};
    struct ringbuf_read_options all = {.size = UINT64_MAX};
    g_autofree uint8_t *head = NULL;
    g_autofree uint8_t *tail = NULL;
    struct chardev_frontend *frontend;
    size_t size;

    co_add(fixture, "ringbuf,id=r,size=8");
    co_add_fails(fixture, "ringbuf,id=x,size=1000", "size of ringbuf chardev must be power of two");
    frontend = claim(fixture, "r");
    g_assert_cmpint(co_chardev_wait_open(frontend), ==, 0);
    co_say(frontend, "0123456789");
    g_assert_true(chardev_ringbuf_append(fixture->registry, "r", "ab\xc3\xa9z", 5, NULL));
    /* 789 and what came behind; the é does not fit into four bytes with what is before it, "789a", then "bé". */
    g_assert_true(chardev_ringbuf_take(fixture->registry, "r", &some, &head, &size, NULL));
    g_assert_cmpmem(head, size, "789a", 4);
    some.size = 2;
    g_free(TAKE(head));
    g_assert_true(chardev_ringbuf_take(fixture->registry, "r", &some, &head, &size, NULL));
    g_assert_cmpmem(head, size, "b", 1);
    g_assert_true(chardev_ringbuf_take(fixture->registry, "r", &all, &tail, &size, NULL));
    g_assert_cmpmem(tail, size, "\xc3\xa9z", 3);
    co_chardev_release(frontend);
    co_fixture_free(fixture);
}

/* --- sockets --- */

static void co_test_socket_server(void *opaque)
{
    struct fixture *fixture = fixture_new();
    g_autofree char *expected = g_strdup_printf("unix:%s,server=on", fixture->path);
    struct chardev_frontend *frontend;
    char byte;
    int second;
    int first;

    co_add(fixture, "socket,id=s,path=%s,server=on,wait=off");
    co_wait_named(fixture, "s", "disconnected:unix:");
    frontend = claim(fixture, "s");
    first = co_dial(fixture);
    second = co_dial(fixture);
    co_say_fd(first, "one");
    co_say_fd(second, "two");
    g_assert_cmpint(co_chardev_wait_open(frontend), ==, 0);
    co_wait_named(fixture, "s", expected);
    co_expect(frontend, "one");
    co_say(frontend, "hello one");
    co_expect_fd(first, "hello one");
    chardev_hang_up(frontend);
    g_assert_cmpint(co_socket_recv(first, &byte, 1, 0), ==, 0);
    g_assert_cmpint(co_chardev_write(frontend, "x", 1), ==, -EPIPE);
    g_assert_cmpint(co_chardev_read(frontend, &byte, 1), ==, 0);
    g_assert_cmpint(co_chardev_wait_open(frontend), ==, 0);
    co_expect(frontend, "two");
    /* A peer that has said all it had to say still gets its answer. */
    g_assert_cmpint(shutdown(second, SHUT_WR), ==, 0);
    g_assert_cmpint(co_chardev_read(frontend, &byte, 1), ==, 0);
    co_say(frontend, "hello two");
    co_expect_fd(second, "hello two");
    co_chardev_release(frontend);
    g_assert_cmpint(co_socket_recv(second, &byte, 1, 0), ==, 0);
    fd_close(first);
    fd_close(second);
    co_fixture_free(fixture);
}

/* With nobody to read, peers come and go; what the last one left is there for a front end that comes late. */
static void co_test_socket_unattended(void *opaque)
{
    struct fixture *fixture = fixture_new();
    struct chardev_frontend *frontend;
    char byte;

    co_add(fixture, "socket,id=s,path=%s,server=on,wait=off");
    for (int i = 0; i < 3; i++) {
        int fd = co_dial(fixture);

        co_wait_named(fixture, "s", "unix:");
        fd_close(fd);
        co_wait_named(fixture, "s", "disconnected:");
    }
    int fd = co_dial(fixture);
    co_say_fd(fd, "late");
    co_wait_named(fixture, "s", "unix:");
    fd_close(fd);
    frontend = claim(fixture, "s");
    g_assert_cmpint(co_chardev_wait_open(frontend), ==, 0);
    co_expect(frontend, "late");
    g_assert_cmpint(co_chardev_read(frontend, &byte, 1), ==, 0);
    co_chardev_release(frontend);
    co_fixture_free(fixture);
}

static void co_ignore_session(void *opaque)
{
    struct chardev_frontend *frontend = opaque;
    g_autofree char *bytes = g_malloc0(1 << 20);
    int result = 0;

    for (int i = 0; i < 64 && !result; i++)
        result = co_chardev_write(frontend, bytes, 1 << 20);
    g_assert_cmpint(result, ==, -EPIPE);
}

/* A peer that does not read stops its writer, and nobody else; its end ends the waiting. */
static void co_test_socket_stuck(void *opaque)
{
    struct fixture *fixture = fixture_new();
    struct chardev_frontend *frontend;
    struct co_task *writer;
    int fd;

    co_add(fixture, "socket,id=s,path=%s,server=on,wait=off");
    frontend = claim(fixture, "s");
    fd = co_dial(fixture);
    g_assert_cmpint(co_chardev_wait_open(frontend), ==, 0);
    writer = co_task_start(loop_current(), co_ignore_session, frontend);
    g_assert_cmpint(co_sleep_ns(1000000), ==, 0);
    co_wait_named(fixture, "s", "unix:");
    fd_close(fd);
    co_task_join(writer);
    co_chardev_release(frontend);
    co_fixture_free(fixture);
}

struct speech {
    struct chardev_frontend *frontend;
    const char *text;
};

static void co_speak(void *opaque)
{
    const struct speech *speech = opaque;

    co_say(speech->frontend, speech->text);
}

/* Our client and our server, with what the options lay on top of the socket. */
static void co_test_pair(struct fixture *fixture, const char *options)
{
    g_autofree char *server = g_strdup_printf("socket,id=server,path=%%s,server=on,wait=off%s", options);
    g_autofree char *client = g_strdup_printf("socket,id=client,path=%%s%s,reconnect-ms=1", options);
    g_autofree char *large = g_strnfill(200000, '\xff');
    struct chardev_frontend *here;
    struct chardev_frontend *there;
    char byte;

    co_add(fixture, server);
    co_add(fixture, client);
    here = claim(fixture, "server");
    there = claim(fixture, "client");
    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(co_chardev_wait_open(here), ==, 0);
        g_assert_cmpint(co_chardev_wait_open(there), ==, 0);
        co_say(there, "ping \xff\xff\r\n");
        co_expect(here, "ping \xff\xff\r\n");
        co_say(here, "pong \xff");
        co_expect(there, "pong \xff");
        co_say(here, "");
        co_say(there, "a");
        co_expect(here, "a");
        chardev_hang_up(i ? here : there);
        g_assert_cmpint(co_chardev_read(i ? there : here, &byte, 1), ==, 0);
        /* Who has read to the end lets go of the session by asking for the next. */
        g_assert_cmpint(co_chardev_wait_open(i ? there : here), ==, 0);
    }
    g_assert_cmpint(co_chardev_wait_open(here), ==, 0);
    g_assert_cmpint(co_chardev_wait_open(there), ==, 0);
    struct speech speech = {.frontend = there, .text = large};
    struct co_task *speaker = co_task_start(loop_current(), co_speak, &speech);
    co_expect(here, large);
    co_task_join(speaker);
    co_chardev_release(here);
    co_chardev_release(there);
    g_assert_true(co_chardev_remove(fixture->registry, "client", NULL));
    g_assert_true(co_chardev_remove(fixture->registry, "server", NULL));
}

static void co_test_layers(void *opaque)
{
    struct fixture *fixture = fixture_new();

    co_test_pair(fixture, "");
    co_test_pair(fixture, ",telnet=on");
    co_test_pair(fixture, ",websocket=on");
    co_test_pair(fixture, ",websocket=on,telnet=on");
    co_fixture_free(fixture);
}

static void co_test_break(void *opaque)
{
    struct fixture *fixture = fixture_new();
    struct chardev_frontend *here;
    struct chardev_frontend *there;

    co_add(fixture, "socket,id=server,path=%s,server=on,wait=off,telnet=on");
    co_add(fixture, "socket,id=client,path=%s,telnet=on");
    here = claim(fixture, "server");
    there = claim(fixture, "client");
    g_assert_cmpint(co_chardev_wait_open(here), ==, 0);
    g_assert_cmpint(co_chardev_wait_open(there), ==, 0);
    g_assert_true(co_chardev_send_break(fixture->registry, "client", NULL));
    co_say(there, "x");
    co_expect(here, "x");
    g_assert_cmpint(chardev_find(fixture->registry, "server")->break_count, ==, 1);
    co_chardev_release(here);
    co_chardev_release(there);
    co_fixture_free(fixture);
}

/* --- several on one, one on several --- */

static void co_test_mux(void *opaque)
{
    struct fixture *fixture = fixture_new();
    struct chardev_frontend *first;
    struct chardev_frontend *second;
    char byte;
    int fd;

    co_add(fixture, "socket,id=m,path=%s,server=on,wait=off,mux=on");
    co_add_fails(fixture, "mux,id=x,chardev=m-base", "Device 'm-base' is in use");
    co_add_fails(fixture, "mux,id=x,chardev=none", "mux: base chardev none not found");
    first = claim(fixture, "m");
    second = claim(fixture, "m");
    fd = co_dial(fixture);
    g_assert_cmpint(co_chardev_wait_open(first), ==, 0);
    g_assert_cmpint(co_chardev_wait_open(second), ==, 0);
    /* The focus is on the latest; both are heard. */
    co_say_fd(fd, "for second\x01"
                  "cfor first\x01");
    co_expect(second, "for second");
    co_expect(first, "for first");
    co_say(first, "by first");
    co_expect_fd(fd, "by first");
    co_say(second, "by second");
    co_expect_fd(fd, "by second");
    co_say_fd(fd, "\x01\x01zb\x01"
                  "b");
    co_expect(first, "\x01"
                     "b");
    /* At the end of the input both can still answer, one after the other. */
    g_assert_cmpint(shutdown(fd, SHUT_WR), ==, 0);
    g_assert_cmpint(co_chardev_read(first, &byte, 1), ==, 0);
    g_assert_cmpint(co_chardev_read(second, &byte, 1), ==, 0);
    co_say(first, "bye first");
    chardev_hang_up(first);
    co_say(second, "bye second");
    co_expect_fd(fd, "bye firstbye second");
    chardev_hang_up(second);
    g_assert_cmpint(co_socket_recv(fd, &byte, 1, 0), ==, 0);
    fd_close(fd);
    fd = co_dial(fixture);
    co_say_fd(fd, "again");
    g_assert_cmpint(co_chardev_wait_open(first), ==, 0);
    g_assert_cmpint(co_chardev_wait_open(second), ==, 0);
    co_expect(first, "again");
    g_assert_cmpint(chardev_find(fixture->registry, "m")->break_count, ==, 1);
    co_chardev_release(first);
    co_say_fd(fd, "rest");
    co_expect(second, "rest");
    /* A front end that hangs up ends it for all. */
    chardev_hang_up(second);
    g_assert_cmpint(co_socket_recv(fd, &byte, 1, 0), ==, 0);
    co_chardev_release(second);
    fd_close(fd);
    co_fixture_free(fixture);
}

static void co_test_mux_full(void *opaque)
{
    struct fixture *fixture = fixture_new();
    g_autofree char *large = g_strnfill(20000, 'x');
    struct chardev_frontend *frontend;
    int fd;

    co_add(fixture, "socket,id=m,path=%s,server=on,wait=off,mux=on");
    fd = co_dial(fixture);
    co_say_fd(fd, large);
    frontend = claim(fixture, "m");
    g_assert_cmpint(co_chardev_wait_open(frontend), ==, 0);
    co_expect(frontend, large);
    co_say_fd(fd, large);
    fd_close(fd);
    co_expect(frontend, large);
    co_chardev_release(frontend);
    co_fixture_free(fixture);
}

static void co_test_hub(void *opaque)
{
    struct fixture *fixture = fixture_new();
    struct chardev_frontend *frontend;
    struct ringbuf_read_options all = {.size = UINT64_MAX};
    g_autofree uint8_t *kept = NULL;
    size_t size;
    char byte;
    int fd;

    co_add(fixture, "socket,id=a,path=%s,server=on,wait=off");
    co_add(fixture, "ringbuf,id=b");
    co_add_fails(fixture, "hub,id=h,chardevs.0=a,chardevs.1=z", "hub: chardev can't be found by id 'z'");
    co_add_fails(fixture, "hub,id=h,chardevs.0=a,chardevs.1=a", "Device 'a' is in use");
    co_add(fixture, "hub,id=h,chardevs.0=a,chardevs.1=b");
    frontend = claim(fixture, "h");
    g_assert_cmpint(co_chardev_wait_open(frontend), ==, 0);
    co_say(frontend, "to the ring,");
    fd = co_dial(fixture);
    co_say_fd(fd, "in");
    co_expect(frontend, "in");
    co_say(frontend, "to both");
    co_expect_fd(fd, "to both");
    g_assert_true(chardev_ringbuf_take(fixture->registry, "b", &all, &kept, &size, NULL));
    g_assert_cmpmem(kept, size, "to the ring,to both", 19);
    chardev_hang_up(frontend);
    g_assert_cmpint(co_socket_recv(fd, &byte, 1, 0), ==, 0);
    g_assert_cmpint(co_chardev_wait_open(frontend), ==, 0);
    co_chardev_release(frontend);
    fd_close(fd);
    co_fixture_free(fixture);
}

/* The last one that has said all it had to say gets its answer. */
static void co_test_hub_last(void *opaque)
{
    struct fixture *fixture = fixture_new();
    struct chardev_frontend *frontend;
    char byte;
    int fd;

    co_add(fixture, "socket,id=a,path=%s,server=on,wait=off");
    co_add(fixture, "hub,id=h,chardevs.0=a");
    frontend = claim(fixture, "h");
    for (int i = 0; i < 2; i++) {
        fd = co_dial(fixture);
        co_say_fd(fd, "question");
        g_assert_cmpint(shutdown(fd, SHUT_WR), ==, 0);
        g_assert_cmpint(co_chardev_wait_open(frontend), ==, 0);
        co_expect(frontend, "question");
        g_assert_cmpint(co_chardev_read(frontend, &byte, 1), ==, 0);
        co_say(frontend, "answer");
        co_expect_fd(fd, "answer");
        chardev_hang_up(frontend);
        g_assert_cmpint(co_socket_recv(fd, &byte, 1, 0), ==, 0);
        fd_close(fd);
    }
    co_chardev_release(frontend);
    co_fixture_free(fixture);
}

/* --- terminals and datagrams --- */

static void co_test_pty(void *opaque)
{
    struct fixture *fixture = fixture_new();
    g_autofree char *name = NULL;
    struct chardev_frontend *frontend;
    char byte;

    co_add(fixture, "pty,id=p,path=%s");
    name = filename_of(fixture, "p");
    g_assert_true(g_str_has_prefix(name, "pty:/dev/pts/"));
    frontend = claim(fixture, "p");
    g_assert_cmpint(co_chardev_write(frontend, "x", 1), ==, -EPIPE);
    for (int i = 0; i < 3; i++) {
        int fd = co_file_open(fixture->path, O_RDWR | O_NOCTTY, 0);
        char text[3] = "";

        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(co_chardev_wait_open(frontend), ==, 0);
        co_say(frontend, "hi");
        g_assert_cmpint(co_fd_read(fd, text, 2), ==, 2);
        g_assert_cmpstr(text, ==, "hi");
        g_assert_cmpint(co_fd_write(fd, "in\n", 3), ==, 3);
        co_expect(frontend, "in\n");
        g_assert_cmpint(co_fd_write(fd, "last", 4), ==, 4);
        fd_close(fd);
        co_expect(frontend, "last");
        g_assert_cmpint(co_chardev_read(frontend, &byte, 1), ==, 0);
    }
    co_chardev_release(frontend);
    g_assert_true(g_file_test(fixture->path, G_FILE_TEST_IS_SYMLINK));
    g_assert_true(co_chardev_remove(fixture->registry, "p", NULL));
    g_assert_false(g_file_test(fixture->path, G_FILE_TEST_IS_SYMLINK));
    co_fixture_free(fixture);
}

/* What somebody wrote and left before there was a front end. */
static void co_test_pty_left(void *opaque)
{
    struct fixture *fixture = fixture_new();
    struct chardev_frontend *frontend;
    char byte;
    int fd;

    co_add(fixture, "pty,id=p,path=%s");
    fd = co_file_open(fixture->path, O_RDWR | O_NOCTTY, 0);
    g_assert_cmpint(co_fd_write(fd, "left", 4), ==, 4);
    fd_close(fd);
    g_assert_cmpint(co_sleep_ns(2000000), ==, 0);
    frontend = claim(fixture, "p");
    g_assert_cmpint(co_chardev_wait_open(frontend), ==, 0);
    co_expect(frontend, "left");
    g_assert_cmpint(co_chardev_read(frontend, &byte, 1), ==, 0);
    co_chardev_release(frontend);
    co_fixture_free(fixture);
}

/* Two that talk to each other; what is too much for one read is not lost. */
static void co_test_udp(void *opaque)
{
    struct fixture *fixture = fixture_new();
    struct socket_endpoint any = {.family = SOCKET_INET, .host = "127.0.0.1", .port = "0"};
    AUTO(error) err = NULL;
    struct socket_listener *here = co_socket_listen(&any, 1, &err);
    struct socket_listener *there = co_socket_listen(&any, 1, &err);
    g_autofree char *option_a = NULL;
    g_autofree char *option_b = NULL;
    struct chardev_frontend *a;
    struct chardev_frontend *b;

    /* Ports that nobody else has, most likely in the other protocol neither. */
    g_assert_nonnull(here);
    g_assert_nonnull(there);
    option_a = g_strdup_printf("udp,id=a,host=127.0.0.1,port=%u,localaddr=127.0.0.1,localport=%u",
                               socket_listener_port(there), socket_listener_port(here));
    option_b = g_strdup_printf("udp,id=b,host=127.0.0.1,port=%u,localaddr=127.0.0.1,localport=%u",
                               socket_listener_port(here), socket_listener_port(there));
    co_add(fixture, option_a);
    a = claim(fixture, "a");
    g_assert_cmpint(co_chardev_wait_open(a), ==, 0);
    co_say(a, "lost");
    co_say(a, "lost, too");
    co_add(fixture, option_b);
    b = claim(fixture, "b");
    g_assert_cmpint(co_chardev_wait_open(b), ==, 0);
    co_say(b, "one");
    co_say(b, "two");
    co_expect(a, "on");
    co_expect(a, "etwo");
    co_say(a, "back");
    co_expect(b, "back");
    co_chardev_release(a);
    co_chardev_release(b);
    socket_listener_free(here);
    socket_listener_free(there);
    co_fixture_free(fixture);
}

/* --- files --- */

static void co_test_pipe(void *opaque)
{
    struct fixture *fixture = fixture_new();
    g_autofree char *in = g_strconcat(fixture->path, ".in", NULL);
    g_autofree char *out = g_strconcat(fixture->path, ".out", NULL);
    struct chardev_frontend *frontend;
    char text[7] = "";

    g_assert_cmpint(mkfifo(in, 0600), ==, 0);
    g_assert_cmpint(mkfifo(out, 0600), ==, 0);
    co_add(fixture, "pipe,id=p,path=%s");
    frontend = claim(fixture, "p");
    g_assert_cmpint(co_chardev_wait_open(frontend), ==, 0);
    for (int i = 0; i < 2; i++) {
        int fd = co_file_open(in, O_WRONLY, 0);

        g_assert_cmpint(co_fd_write(fd, "input", 5), ==, 5);
        fd_close(fd);
        co_expect(frontend, "input");
        co_say(frontend, "output");
        fd = co_file_open(out, O_RDONLY, 0);
        g_assert_cmpint(co_fd_read(fd, text, 6), ==, 6);
        g_assert_cmpstr(text, ==, "output");
        fd_close(fd);
    }
    co_chardev_release(frontend);
    g_assert_cmpint(g_unlink(in) | g_unlink(out), ==, 0);
    co_fixture_free(fixture);
}

static void co_test_file(void *opaque)
{
    struct fixture *fixture = fixture_new();
    g_autofree char *in = g_build_filename(fixture->directory, "in", NULL);
    g_autofree char *log = g_build_filename(fixture->directory, "log", NULL);
    g_autofree char *option = g_strdup_printf("file,id=f,path=%%s,input-path=%s,logfile=%s", in, log);
    g_autofree char *written = NULL;
    g_autofree char *logged = NULL;
    struct chardev_frontend *frontend;
    char byte;

    g_assert_true(g_file_set_contents(in, "input", -1, NULL));
    co_add(fixture, option);
    frontend = claim(fixture, "f");
    g_assert_cmpint(co_chardev_wait_open(frontend), ==, 0);
    co_expect(frontend, "input");
    g_assert_cmpint(co_chardev_read(frontend, &byte, 1), ==, 0);
    co_say(frontend, "output");
    co_chardev_release(frontend);
    g_assert_true(co_chardev_remove(fixture->registry, "f", NULL));
    g_assert_true(g_file_get_contents(fixture->path, &written, NULL, NULL));
    g_assert_true(g_file_get_contents(log, &logged, NULL, NULL));
    g_assert_cmpstr(written, ==, "output");
    g_assert_cmpstr(logged, ==, "output");
    g_assert_cmpint(g_unlink(in) | g_unlink(log) | g_unlink(fixture->path), ==, 0);
    co_fixture_free(fixture);
}

static void co_cancelled_wait(void *opaque)
{
    g_assert_cmpint(co_chardev_wait_open(opaque), ==, -ECANCELED);
}

static void co_cancelled_read(void *opaque)
{
    char byte;

    g_assert_cmpint(co_chardev_read(opaque, &byte, 1), ==, -ECANCELED);
}

static void co_cancel(co_entry *entry, struct chardev_frontend *frontend)
{
    struct co_task *task = co_task_start(loop_current(), entry, frontend);

    g_assert_cmpint(co_sleep_ns(1000000), ==, 0);
    co_task_cancel(task);
    co_task_join(task);
}

static void co_test_cancel(void *opaque)
{
    struct fixture *fixture = fixture_new();
    struct chardev_frontend *frontend;
    int fd;

    co_add(fixture, "socket,id=s,path=%s,server=on,wait=off");
    frontend = claim(fixture, "s");
    co_cancel(co_cancelled_wait, frontend);
    fd = co_dial(fixture);
    g_assert_cmpint(co_chardev_wait_open(frontend), ==, 0);
    co_cancel(co_cancelled_read, frontend);
    co_say_fd(fd, "still there");
    co_expect(frontend, "still there");
    co_chardev_release(frontend);
    fd_close(fd);
    co_add(fixture, "null,id=n");
    frontend = claim(fixture, "n");
    g_assert_cmpint(co_chardev_wait_open(frontend), ==, 0);
    co_cancel(co_cancelled_read, frontend);
    co_chardev_release(frontend);
    co_fixture_free(fixture);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    loop_test_add_real("chardev/registry", co_test_registry);
    loop_test_add_real("chardev/change", co_test_change);
    loop_test_add_real("chardev/ringbuf", co_test_ringbuf);
    loop_test_add_real("chardev/socket/server", co_test_socket_server);
    loop_test_add_real("chardev/socket/unattended", co_test_socket_unattended);
    loop_test_add_real("chardev/socket/stuck", co_test_socket_stuck);
    loop_test_add_real("chardev/socket/layers", co_test_layers);
    loop_test_add_real("chardev/socket/break", co_test_break);
    loop_test_add_real("chardev/mux/sharing", co_test_mux);
    loop_test_add_real("chardev/mux/full", co_test_mux_full);
    loop_test_add_real("chardev/hub/sharing", co_test_hub);
    loop_test_add_real("chardev/hub/last", co_test_hub_last);
    loop_test_add_real("chardev/pty/sessions", co_test_pty);
    loop_test_add_real("chardev/pty/left", co_test_pty_left);
    loop_test_add_real("chardev/udp", co_test_udp);
    loop_test_add_real("chardev/pipe", co_test_pipe);
    loop_test_add_real("chardev/file", co_test_file);
    loop_test_add_real("chardev/cancel", co_test_cancel);
    return g_test_run();
}
