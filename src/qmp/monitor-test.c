/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Monitors over real sockets, with commands made for the test: ones that wait, that may run out of band, that are big.
 */
#include "qmp/monitor.h"

#include <errno.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "chardev/chardev.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "object/object.h"
#include "qmp/command-set.h"
#include "qmp/daemon.h"
#include "qmp/dispatch.h"
#include "qmp/session.h"
#include "schema/json.h"

enum { BIG_BYTES = 100000, EVENT_BYTES = 10000 };

/* A daemon without a graph, and what its commands do. */
struct bench {
    struct daemon daemon; /* first: handlers get it */
    char *folder;
    bool open; /* lets `wait` return */
    struct co_condition opened;
    unsigned waiting; /* in `wait` */
    unsigned big;     /* how many were run */
    GString *log;     /* the arguments of `log`, one after the other */
};

static bool CO_FN co_run_negotiate(struct daemon *daemon, const struct json *arguments, struct json **ret,
                                   struct error **err)
{
    struct qmp_client *client = monitor_current_client(daemon->monitors);

    g_assert_nonnull(client);
    client->negotiated = true;
    client->oob = json_get(arguments, "enable");
    return true;
}

static bool CO_FN co_run_wait(struct daemon *daemon, const struct json *arguments, struct json **ret,
                              struct error **err)
{
    struct bench *bench = (struct bench *)daemon;

    bench->waiting++;
    while (!bench->open) {
        int result = co_condition_wait(&bench->opened, NULL);

        if (result) {
            bench->waiting--;
            return error_set_errno(err, result, "waited in vain");
        }
    }
    bench->waiting--;
    return true;
}

static bool CO_FN co_run_open(struct daemon *daemon, const struct json *arguments, struct json **ret,
                              struct error **err)
{
    struct bench *bench = (struct bench *)daemon;

    bench->open = true;
    co_condition_broadcast(&bench->opened);
    return true;
}

static bool CO_FN co_run_log(struct daemon *daemon, const struct json *arguments, struct json **ret, struct error **err)
{
    struct bench *bench = (struct bench *)daemon;

    g_string_append(bench->log, json_get_string(json_get(arguments, "text")));
    return true;
}

static bool CO_FN co_run_big(struct daemon *daemon, const struct json *arguments, struct json **ret, struct error **err)
{
    struct bench *bench = (struct bench *)daemon;
    g_autofree char *text = g_strnfill(BIG_BYTES, 'x');

    bench->big++;
    *ret = json_string(text);
    return true;
}

static const struct qmp_command commands[] = {
    {.name = "qmp_capabilities", .co_run = co_run_negotiate},   {.name = "wait", .co_run = co_run_wait},
    {.name = "open", .allow_oob = true, .co_run = co_run_open}, {.name = "log", .co_run = co_run_log},
    {.name = "big", .allow_oob = true, .co_run = co_run_big},
};

/* One end of a session. */
struct client {
    int fd;
    GString *input;
};

static void CO_FN co_receive_more(struct client *client)
{
    char buffer[65536];
    ssize_t size = co_socket_recv(client->fd, buffer, sizeof(buffer), 0);

    g_assert_cmpint(size, >, 0);
    g_string_append_len(client->input, buffer, size);
}

/* The next message as text, without the end of its line; owned. */
static char *CO_FN co_receive(struct client *client)
{
    const char *end;

    while (!(end = strstr(client->input->str, "\r\n")))
        co_receive_more(client);

    char *line = g_strndup(client->input->str, (gsize)(end - client->input->str));
    g_string_erase(client->input, 0, end + 2 - client->input->str);
    return line;
}

static void CO_FN co_expect(struct client *client, const char *expected)
{
    g_autofree char *line = co_receive(client);

    g_assert_cmpstr(line, ==, expected);
}

static void CO_FN co_send(struct client *client, const char *text)
{
    size_t size = strlen(text);

    while (size) {
        ssize_t sent = co_socket_send(client->fd, text, size, 0);

        g_assert_cmpint(sent, >, 0);
        text += sent;
        size -= (size_t)sent;
    }
}

/* Connects to monitor `number`, and negotiates with `capabilities` (NULL: not at all). */
static struct client CO_FN co_connect(struct bench *bench, unsigned number, const char *capabilities)
{
    AUTO(error) err = NULL;
    g_autofree char *path = g_strdup_printf("%s/m%u", bench->folder, number);
    struct socket_endpoint endpoint = {.family = SOCKET_UNIX, .path = path};
    struct client client = {.fd = co_socket_dial(&endpoint, &err), .input = g_string_new(NULL)};

    g_assert_null(err);
    g_autofree char *greeting = co_receive(&client);
    g_assert_true(g_str_has_prefix(greeting, "{\"QMP\": {"));
    if (capabilities) {
        co_send(&client, capabilities);
        co_expect(&client, "{\"return\": {}}");
    }
    return client;
}

static void disconnect(struct client *client)
{
    fd_close(client->fd);
    g_string_free(client->input, TRUE);
}

static const char plain[] = "{'execute': 'qmp_capabilities'}";
static const char oob[] = "{'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob']}}";

static void CO_FN co_bench_begin(struct bench *bench, unsigned monitors)
{
    *bench = (struct bench){0};
    bench->folder = g_dir_make_tmp("ashlar-qmp-XXXXXX", NULL);
    bench->log = g_string_new(NULL);
    bench->daemon.main_loop = loop_current();
    bench->daemon.objects = object_registry_new();
    bench->daemon.chardevs = chardev_registry_new(bench->daemon.objects);
    bench->daemon.commands = qmp_command_set_new(commands, G_N_ELEMENTS(commands));
    bench->daemon.monitors = monitor_registry_new(&bench->daemon, bench->daemon.commands);
    for (unsigned i = 0; i < monitors; i++) {
        AUTO(error) err = NULL;
        g_autofree char *id = g_strdup_printf("c%u", i);
        g_autofree char *text = g_strdup_printf("socket,id=%s,path=%s/m%u,server=on,wait=off", id, bench->folder, i);
        struct monitor_options options = {.chardev = id};
        bool help = false;

        g_assert_true(co_chardev_add_option(bench->daemon.chardevs, text, &help, &err));
        g_assert_true(monitor_add(bench->daemon.monitors, &options, &err));
    }
}

static void CO_FN co_bench_end(struct bench *bench)
{
    co_monitor_registry_stop(bench->daemon.monitors);
    co_monitor_registry_free(bench->daemon.monitors);
    co_chardev_registry_free(bench->daemon.chardevs);
    co_object_registry_free(bench->daemon.objects);
    qmp_command_set_free(bench->daemon.commands);
    co_condition_done(&bench->opened);
    g_assert_cmpuint(bench->waiting, ==, 0);
    g_assert_cmpint(g_rmdir(bench->folder), ==, 0);
    g_free(bench->folder);
    g_string_free(bench->log, TRUE);
}

static void CO_FN co_wait_waiting(struct bench *bench)
{
    while (!bench->waiting)
        g_assert_cmpint(co_sleep_ns(1000000), ==, 0);
}

static void CO_FN co_oob_overtakes(void *opaque)
{
    struct bench bench;

    co_bench_begin(&bench, 1);
    struct client client = co_connect(&bench, 0, oob);
    co_send(&client, "{'execute': 'wait', 'id': 1} {'execute': 'log', 'arguments': {'text': 'a'}, 'id': 2}"
                     "{'exec-oob': 'log', 'arguments': {'text': 'b'}, 'id': 3} {'exec-oob': 'open', 'id': 4}");
    co_expect(&client, "{\"id\": 3, \"error\": {\"class\": \"GenericError\", \"desc\": "
                       "\"The command log does not support OOB\"}}");
    co_expect(&client, "{\"return\": {}, \"id\": 4}");
    co_expect(&client, "{\"return\": {}, \"id\": 1}");
    co_expect(&client, "{\"return\": {}, \"id\": 2}");
    g_assert_cmpstr(bench.log->str, ==, "a");
    disconnect(&client);
    co_bench_end(&bench);
}

static void CO_FN co_oob_in_band_without_negotiation(void *opaque)
{
    struct bench bench;

    co_bench_begin(&bench, 1);
    struct client client = co_connect(&bench, 0, plain);
    co_send(&client, "{'exec-oob': 'open', 'id': 4}");
    co_expect(&client, "{\"id\": 4, \"error\": {\"class\": \"GenericError\", \"desc\": "
                       "\"QMP input member 'exec-oob' is unexpected\"}}");
    disconnect(&client);
    co_bench_end(&bench);
}

/* Commands of several monitors run one at a time, in the order in which they came. */
static void CO_FN co_one_after_the_other(void *opaque)
{
    struct bench bench;

    co_bench_begin(&bench, 3);
    struct client first = co_connect(&bench, 0, plain);
    struct client second = co_connect(&bench, 1, plain);
    struct client third = co_connect(&bench, 2, oob);
    co_send(&first, "{'execute': 'wait'}");
    co_wait_waiting(&bench);
    co_send(&second, "{'execute': 'wait'} {'execute': 'log', 'arguments': {'text': 'b'}}");
    co_send(&third, "{'exec-oob': 'open'} {'execute': 'log', 'arguments': {'text': 'c'}}");
    co_expect(&first, "{\"return\": {}}");
    for (unsigned i = 0; i < 2; i++) {
        co_expect(&second, "{\"return\": {}}");
        co_expect(&third, "{\"return\": {}}");
    }
    g_assert_cmpuint(bench.log->len, ==, 2);
    disconnect(&first);
    disconnect(&second);
    disconnect(&third);
    co_bench_end(&bench);
}

/* The input of a client is not read any further when its queue is full. */
static void CO_FN co_queue_bounded(void *opaque)
{
    struct bench bench;
    g_autofree char *text = g_strnfill(1 << 20, ' ');
    ssize_t sent = 0;
    size_t total = 0;

    co_bench_begin(&bench, 2);
    struct client flood = co_connect(&bench, 0, plain);
    struct client other = co_connect(&bench, 1, oob);
    co_send(&flood, "{'execute': 'wait'}");
    co_wait_waiting(&bench);
    for (unsigned i = 0; i < SESSION_REQUESTS_MAX; i++)
        co_send(&flood, "{'execute': 'log', 'arguments': {'text': 'x'}}");
    do {
        struct co_deadline deadline;

        co_deadline_begin(&deadline, 200000000);
        sent = co_socket_send(flood.fd, text, 1 << 20, 0);
        co_deadline_end(&deadline);
        total += sent > 0 ? (size_t)sent : 0;
        g_assert_cmpuint(total, <, 64 << 20);
    } while (sent > 0);
    g_assert_cmpint(sent, ==, -ETIMEDOUT);

    co_send(&other, "{'exec-oob': 'open'}");
    co_expect(&other, "{\"return\": {}}");
    for (unsigned i = 0; i < SESSION_REQUESTS_MAX + 1; i++)
        co_expect(&flood, "{\"return\": {}}");
    g_assert_cmpuint(bench.log->len, ==, SESSION_REQUESTS_MAX);
    disconnect(&flood);
    disconnect(&other);
    co_bench_end(&bench);
}

/* Commands of a client that does not read wait; those of others do not; none is lost or out of order. */
static void CO_FN co_congestion_costs_itself_only(void *opaque)
{
    struct bench bench;
    unsigned count = SESSION_REQUESTS_MAX;

    co_bench_begin(&bench, 2);
    struct client flood = co_connect(&bench, 0, plain);
    struct client other = co_connect(&bench, 1, plain);
    for (unsigned i = 0; i < count; i++) {
        g_autofree char *text = g_strdup_printf("{'execute': 'big', 'id': %u}", i);

        co_send(&flood, text);
    }
    for (unsigned i = 0; i < 100; i++) {
        co_send(&other, "{'execute': 'log', 'arguments': {'text': 'o'}}");
        co_expect(&other, "{\"return\": {}}");
    }
    /* What was run is what fits into the limit and the socket. */
    g_assert_cmpuint(bench.big, <, count);
    g_assert_cmpuint(bench.big, <=, 2 * SESSION_OUTPUT_HIGH / BIG_BYTES + 10);
    for (unsigned i = 0; i < count; i++) {
        g_autofree char *line = co_receive(&flood);
        g_autofree char *end = g_strdup_printf("\", \"id\": %u}", i);

        g_assert_true(g_str_has_suffix(line, end));
    }
    g_assert_cmpuint(bench.big, ==, count);
    disconnect(&flood);
    disconnect(&other);
    co_bench_end(&bench);
}

/* Out-of-band commands of a client that does not read stop too, although they pass the queue by. */
static void CO_FN co_oob_congestion(void *opaque)
{
    struct bench bench;
    unsigned count = 200;

    co_bench_begin(&bench, 1);
    struct client flood = co_connect(&bench, 0, oob);
    for (unsigned i = 0; i < count; i++)
        co_send(&flood, "{'exec-oob': 'big'}");
    while (!bench.big)
        g_assert_cmpint(co_sleep_ns(1000000), ==, 0);
    for (unsigned i = 0; i < 20; i++)
        g_assert_cmpint(co_sleep_ns(1000000), ==, 0);
    g_assert_cmpuint(bench.big, <=, 2 * SESSION_OUTPUT_HIGH / BIG_BYTES + 10);
    for (unsigned i = 0; i < count; i++) {
        g_autofree char *line = co_receive(&flood);

        g_assert_cmpuint(strlen(line), >, BIG_BYTES);
    }
    g_assert_cmpuint(bench.big, ==, count);
    disconnect(&flood);
    co_bench_end(&bench);
}

/* While commands are held back, clients are greeted and may send; out-of-band commands run. */
static void CO_FN co_held_back(void *opaque)
{
    struct bench bench;

    co_bench_begin(&bench, 2);
    struct client client = co_connect(&bench, 0, oob);
    monitor_registry_hold(bench.daemon.monitors);
    struct client other = co_connect(&bench, 1, NULL);
    co_send(&other, plain);
    co_send(&client, "{'execute': 'log', 'arguments': {'text': 'x'}} {'exec-oob': 'open', 'id': 1}");
    co_expect(&client, "{\"return\": {}, \"id\": 1}");
    g_assert_cmpstr(bench.log->str, ==, "");
    monitor_registry_release(bench.daemon.monitors);
    co_expect(&client, "{\"return\": {}}");
    co_expect(&other, "{\"return\": {}}");
    g_assert_cmpstr(bench.log->str, ==, "x");
    disconnect(&client);
    disconnect(&other);
    co_bench_end(&bench);
}

static struct json *event_new(unsigned number)
{
    g_autofree char *padding = g_strnfill(EVENT_BYTES, 'e');
    struct json *event = json_object();

    json_set(event, "event", json_string(padding));
    json_set(event, "n", json_int(number));
    return event;
}

/* Events for a client that does not read are kept up to the limit, and come again once it reads. */
static void CO_FN co_events_bounded(void *opaque)
{
    struct bench bench;
    unsigned sent = 3 * SESSION_EVENTS_MAX / EVENT_BYTES;
    unsigned received = 0;

    co_bench_begin(&bench, 1);
    struct client client = co_connect(&bench, 0, plain);
    for (unsigned i = 0; i < sent; i++) {
        AUTO(json) event = event_new(i);

        monitor_broadcast(bench.daemon.monitors, event);
    }
    co_send(&client, "{'execute': 'log', 'arguments': {'text': 'x'}}");
    for (;;) {
        g_autofree char *line = co_receive(&client);

        if (!strcmp(line, "{\"return\": {}}"))
            break;
        received++;
    }
    g_assert_cmpuint(received, >=, SESSION_EVENTS_MAX / (2 * EVENT_BYTES));
    g_assert_cmpuint(received, <=, SESSION_EVENTS_MAX / EVENT_BYTES + 1);

    AUTO(json) event = event_new(sent);
    monitor_broadcast(bench.daemon.monitors, event);
    g_autofree char *line = co_receive(&client);
    g_assert_nonnull(strstr(line, "eee"));
    disconnect(&client);
    co_bench_end(&bench);
}

static void CO_FN co_events_after_negotiation_only(void *opaque)
{
    struct bench bench;
    AUTO(json) early = event_new(1);
    AUTO(json) late = event_new(2);

    co_bench_begin(&bench, 2);
    struct client silent = co_connect(&bench, 0, NULL);
    struct client client = co_connect(&bench, 1, plain);
    monitor_broadcast(bench.daemon.monitors, early);
    g_autofree char *line = co_receive(&client);
    g_assert_nonnull(strstr(line, "\"n\": 1"));
    co_send(&silent, plain);
    co_expect(&silent, "{\"return\": {}}");
    monitor_broadcast(bench.daemon.monitors, late);
    g_autofree char *first = co_receive(&silent);
    g_assert_nonnull(strstr(first, "\"n\": 2"));
    disconnect(&silent);
    disconnect(&client);
    co_bench_end(&bench);
}

/* Stopping cuts a command's waits short; its client learns of it, and nothing behind it is run. */
static void CO_FN co_stop_cancels_command(void *opaque)
{
    struct bench bench;

    co_bench_begin(&bench, 1);
    struct client client = co_connect(&bench, 0, plain);
    co_send(&client, "{'execute': 'wait', 'id': 1} {'execute': 'log', 'arguments': {'text': 'x'}}");
    co_wait_waiting(&bench);
    co_monitor_registry_stop(bench.daemon.monitors);
    co_expect(&client, "{\"id\": 1, \"error\": {\"class\": \"GenericError\", \"desc\": "
                       "\"waited in vain: Operation canceled\"}}");
    g_assert_cmpstr(bench.log->str, ==, "");

    /* Events still come, requests are passed over. */
    AUTO(json) event = event_new(1);
    monitor_broadcast(bench.daemon.monitors, event);
    g_autofree char *line = co_receive(&client);
    g_assert_nonnull(strstr(line, "\"n\": 1"));
    co_send(&client, "{'execute': 'log', 'arguments': {'text': 'x'}}");
    co_bench_end(&bench);
    disconnect(&client);
}

/* A client that goes while its command runs does not keep the next one waiting for long; the command goes on. */
static void CO_FN co_vanish_while_running(void *opaque)
{
    struct bench bench;

    co_bench_begin(&bench, 1);
    struct client client = co_connect(&bench, 0, plain);
    co_send(&client, "{'execute': 'wait'} {'execute': 'log', 'arguments': {'text': 'x'}}");
    co_wait_waiting(&bench);
    disconnect(&client);
    struct client next = co_connect(&bench, 0, NULL);
    g_assert_cmpuint(bench.waiting, ==, 1);
    bench.open = true;
    co_condition_broadcast(&bench.opened);
    co_send(&next, plain);
    co_expect(&next, "{\"return\": {}}");
    g_assert_cmpstr(bench.log->str, ==, "x");
    disconnect(&next);
    co_bench_end(&bench);
}

/* Replies that came before the end are delivered before the session is closed. */
static void CO_FN co_output_before_the_end(void *opaque)
{
    struct bench bench;
    unsigned count = 5;

    co_bench_begin(&bench, 1);
    struct client client = co_connect(&bench, 0, plain);
    for (unsigned i = 0; i < count; i++)
        co_send(&client, "{'execute': 'big'}");
    while (bench.big < count)
        g_assert_cmpint(co_sleep_ns(1000000), ==, 0);
    struct co_task *end = co_task_start(loop_current(), (co_entry *)co_bench_end, &bench);
    for (unsigned i = 0; i < count; i++) {
        g_autofree char *line = co_receive(&client);

        g_assert_cmpuint(strlen(line), >, BIG_BYTES);
    }
    char byte;
    g_assert_cmpint(co_socket_recv(client.fd, &byte, 1, 0), <=, 0);
    co_task_join(end);
    disconnect(&client);
}

static void run_test(gconstpointer test)
{
    struct loop_options options = {.name = "test"};
    struct loop *loop = loop_new(&options, NULL);

    g_assert_nonnull(loop);
    co_run(loop, (co_entry *)(uintptr_t)test, NULL);
    loop_free(loop);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        co_entry *test;
    } tests[] = {
        {"/monitor/oob-overtakes", co_oob_overtakes},
        {"/monitor/oob-in-band-without-negotiation", co_oob_in_band_without_negotiation},
        {"/monitor/one-after-the-other", co_one_after_the_other},
        {"/monitor/queue-bounded", co_queue_bounded},
        {"/monitor/congestion-costs-itself-only", co_congestion_costs_itself_only},
        {"/monitor/oob-congestion", co_oob_congestion},
        {"/monitor/held-back", co_held_back},
        {"/monitor/events-bounded", co_events_bounded},
        {"/monitor/events-after-negotiation-only", co_events_after_negotiation_only},
        {"/monitor/stop-cancels-command", co_stop_cancels_command},
        {"/monitor/vanish-while-running", co_vanish_while_running},
        {"/monitor/output-before-the-end", co_output_before_the_end},
    };

    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++)
        g_test_add_data_func(tests[i].name, (gconstpointer)(uintptr_t)tests[i].test, run_test);
    return g_test_run();
}
