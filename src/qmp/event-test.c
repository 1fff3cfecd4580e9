/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/event.h"

#include <glib.h>
#include <string.h>

#include "base/cleanup.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "schema/json.h"

/* What has arrived: "NAME(data)" each. */
static void receive(void *opaque, const struct json *event)
{
    GPtrArray *received = opaque;
    const struct json *data = json_get(event, "data");
    const struct json *timestamp = json_get(event, "timestamp");
    g_autofree char *text = data ? json_format(data, false) : g_strdup("");

    g_assert_cmpint(json_get_int(json_get(timestamp, "seconds")), >, 1500000000);
    g_assert_cmpint(json_get_int(json_get(timestamp, "microseconds")), <, 1000000);
    g_assert_true(loop_current());
    g_ptr_array_add(received, g_strdup_printf("%s%s", json_get_string(json_get(event, "event")), text));
}

static void assert_received(GPtrArray *received, const char *expected)
{
    g_ptr_array_add(received, NULL);
    g_autofree char *all = g_strjoinv(" ", (char **)received->pdata);

    g_ptr_array_remove_index(received, received->len - 1);
    g_assert_cmpstr(all, ==, expected);
}

static struct json *about(const char *key, const char *subject, int64_t number)
{
    struct json *data = json_object();

    json_set(data, key, json_string(subject));
    json_set(data, "n", json_int(number));
    return data;
}

static void CO_FN co_unlimited(void *opaque)
{
    g_autoptr(GPtrArray) received = g_ptr_array_new_with_free_func(g_free);
    struct qmp_events *events = qmp_events_new(loop_current(), receive, received);

    for (int64_t i = 0; i < 3; i++)
        qmp_events_send(events, "BLOCK_EXPORT_DELETED", about("id", "e", i));
    qmp_events_send(events, "BARE", NULL);
    assert_received(received,
                    "BLOCK_EXPORT_DELETED{\"id\": \"e\", \"n\": 0} BLOCK_EXPORT_DELETED{\"id\": \"e\", \"n\": 1} "
                    "BLOCK_EXPORT_DELETED{\"id\": \"e\", \"n\": 2} BARE");
    co_qmp_events_free(events);
}

/* The first at once, of the rest the last, for each subject; what is held back is delivered at the end. */
static void CO_FN co_limited(void *opaque)
{
    g_autoptr(GPtrArray) received = g_ptr_array_new_with_free_func(g_free);
    struct qmp_events *events = qmp_events_new(loop_current(), receive, received);

    for (int64_t i = 0; i < 3; i++)
        qmp_events_send(events, "QUORUM_REPORT_BAD", about("node-name", "a", i));
    qmp_events_send(events, "QUORUM_REPORT_BAD", about("node-name", "b", 0));
    qmp_events_send(events, "QUORUM_FAILURE", about("reference", "a", 0));
    assert_received(received, "QUORUM_REPORT_BAD{\"node-name\": \"a\", \"n\": 0} "
                              "QUORUM_REPORT_BAD{\"node-name\": \"b\", \"n\": 0} "
                              "QUORUM_FAILURE{\"reference\": \"a\", \"n\": 0}");
    g_ptr_array_set_size(received, 0);
    co_qmp_events_free(events);
    assert_received(received, "QUORUM_REPORT_BAD{\"node-name\": \"a\", \"n\": 2}");
}

/* A window closes after a second, with what it held back; then the next event comes at once again. */
static void CO_FN co_windows_close(void *opaque)
{
    g_autoptr(GPtrArray) received = g_ptr_array_new_with_free_func(g_free);
    struct qmp_events *events = qmp_events_new(loop_current(), receive, received);
    int64_t started_ns = loop_now_ns();

    qmp_events_send(events, "VSERPORT_CHANGE", about("id", "p", 0));
    qmp_events_send(events, "VSERPORT_CHANGE", about("id", "p", 1));
    while (received->len < 2)
        g_assert_cmpint(co_sleep_ns(10000000), ==, 0);
    g_assert_cmpint(loop_now_ns() - started_ns, >=, 1000000000);

    /* The delivery opened another window, in which nothing follows. */
    g_ptr_array_set_size(received, 0);
    while (!received->len) {
        g_assert_cmpint(co_sleep_ns(1100000000), ==, 0);
        qmp_events_send(events, "VSERPORT_CHANGE", about("id", "p", 2));
    }
    assert_received(received, "VSERPORT_CHANGE{\"id\": \"p\", \"n\": 2}");
    co_qmp_events_free(events);
}

enum { CROSSING_EVENTS = 1000 };

static void send_many(void *opaque)
{
    for (int64_t i = 0; i < CROSSING_EVENTS; i++)
        qmp_events_send(opaque, "CROSSING", about("id", "x", i));
}

/* Events from another thread arrive on the main loop, in their order, and none is lost at the end. */
static void CO_FN co_other_thread(void *opaque)
{
    g_autoptr(GPtrArray) received = g_ptr_array_new_with_free_func(g_free);
    struct qmp_events *events = qmp_events_new(loop_current(), receive, received);
    struct loop_options options = {.name = "other"};
    struct loop_thread *thread = loop_thread_new(&options, NULL);

    g_assert_nonnull(thread);
    struct co_task *task = co_task_start(loop_thread_loop(thread), send_many, events);
    co_task_join(task);
    co_qmp_events_free(events);
    co_loop_thread_free(thread);
    g_assert_cmpuint(received->len, ==, CROSSING_EVENTS);
    for (guint i = 0; i < received->len; i++) {
        g_autofree char *expected = g_strdup_printf("CROSSING{\"id\": \"x\", \"n\": %u}", i);

        g_assert_cmpstr(received->pdata[i], ==, expected);
    }
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
        {"/event/unlimited", co_unlimited},
        {"/event/limited", co_limited},
        {"/event/windows-close", co_windows_close},
        {"/event/other-thread", co_other_thread},
    };

    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++)
        g_test_add_data_func(tests[i].name, (gconstpointer)(uintptr_t)tests[i].test, run_test);
    return g_test_run();
}
