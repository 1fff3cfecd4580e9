/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rate limits: an event of a limited kind is delivered at once, and opens a window of one second. Of those that follow
 * within the window only the last is kept; it is delivered at the end, and opens the next window. Each subject (the
 * node or the port that the event is about) has a window of its own.
 */
#include "qmp/event.h"

#include <assert.h>
#include <glib.h>
#include <string.h>

#include "base/trace.h"
#include "base/units.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "schema/json.h"

static const int64_t window_ns = NS_PER_S;

/* The events that come at most once a second, and the member of their data that tells subjects apart. */
static const struct {
    const char *name;
    const char *subject;
} limited[] = {
    {"BLOCK_IO_ERROR", "node-name"},
    {"QUORUM_FAILURE", "reference"},
    {"QUORUM_REPORT_BAD", "node-name"},
    {"VSERPORT_CHANGE", "id"},
};

struct window {
    struct qmp_events *events;
    char *key;
    struct json *last; /* owned; came within the window; NULL: none */
    struct co_task *closer;
};

struct qmp_events {
    struct loop *main_loop;
    qmp_event_receiver *receiver;
    void *receiver_opaque;
    struct co_group crossing; /* from other threads */
    GHashTable *windows;      /* key: struct window; main loop */
    bool ending;              /* main loop */
};

/* An event between two threads. */
struct crossing {
    struct qmp_events *events;
    const char *name;
    struct json *event;
};

static void window_free(void *opaque)
{
    struct window *window = opaque;

    assert(!window->last);
    g_free(window->key);
    g_free(window);
}

struct qmp_events *qmp_events_new(struct loop *main_loop, qmp_event_receiver *receiver, void *opaque)
{
    struct qmp_events *events = g_new0(struct qmp_events, 1);

    events->main_loop = main_loop;
    events->receiver = receiver;
    events->receiver_opaque = opaque;
    events->windows = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, window_free);
    return events;
}

static void CO_FN co_close_window(void *opaque)
{
    struct window *window = opaque;
    struct qmp_events *events = window->events;

    for (;;) {
        int waited = co_sleep_ns(window_ns);

        if (!window->last)
            break;
        AUTO(json) event = TAKE(window->last);
        events->receiver(events->receiver_opaque, event);
        if (waited)
            break;
    }
    if (events->ending)
        return; /* co_qmp_events_free() waits, and frees the window */
    co_task_detach(window->closer);
    g_hash_table_remove(events->windows, window->key);
}

/* What tells windows apart: the event's name and its subject; owned. NULL: the event has no limit. */
static char *window_key(const char *name, const struct json *event)
{
    for (size_t i = 0; i < G_N_ELEMENTS(limited); i++) {
        if (strcmp(limited[i].name, name))
            continue;
        const struct json *data = json_get(event, "data");
        const struct json *subject = data ? json_get(data, limited[i].subject) : NULL;

        return g_strdup_printf("%s %s", name, subject ? json_get_string(subject) : "");
    }
    return NULL;
}

/* On the main loop; `event` is taken. */
static void deliver(struct qmp_events *events, const char *name, struct json *event)
{
    AUTO(json) owned = event;
    g_autofree char *key = window_key(name, event);
    struct window *window = key ? g_hash_table_lookup(events->windows, key) : NULL;

    if (window && !events->ending) {
        json_free(window->last);
        window->last = TAKE(owned);
        return;
    }
    events->receiver(events->receiver_opaque, event);
    if (!key || events->ending)
        return;
    window = g_new0(struct window, 1);
    window->events = events;
    window->key = TAKE(key);
    g_hash_table_insert(events->windows, window->key, window);
    window->closer = co_task_start(events->main_loop, co_close_window, window);
}

static void arrive(void *opaque)
{
    struct crossing *crossing = opaque;
    struct qmp_events *events = crossing->events;

    deliver(events, crossing->name, crossing->event);
    g_free(crossing);
    co_group_done(&events->crossing);
}

static struct json *event_new(const char *name, struct json *data)
{
    int64_t now_us = loop_wall_time_us();
    struct json *timestamp = json_object();
    struct json *event = json_object();

    json_set(timestamp, "seconds", json_int(now_us / 1000000));
    json_set(timestamp, "microseconds", json_int(now_us % 1000000));
    json_set(event, "timestamp", timestamp);
    json_set(event, "event", json_string(name));
    if (data)
        json_set(event, "data", data);
    return event;
}

void qmp_events_send(struct qmp_events *events, const char *name, struct json *data)
{
    struct json *event = event_new(name, data);

    TRACE(qmp_event, "%s", name);
    if (loop_current() == events->main_loop) {
        deliver(events, name, event);
        return;
    }

    struct crossing *crossing = g_new0(struct crossing, 1);
    crossing->events = events;
    crossing->name = name;
    crossing->event = event;
    co_group_add(&events->crossing, 1);
    co_spawn(events->main_loop, arrive, crossing);
}

void co_qmp_events_free(struct qmp_events *events)
{
    GHashTableIter iter;
    void *window;

    if (!events)
        return;
    co_group_wait(&events->crossing);
    events->ending = true;
    g_hash_table_iter_init(&iter, events->windows);
    while (g_hash_table_iter_next(&iter, NULL, &window))
        co_task_cancel(((struct window *)window)->closer);
    g_hash_table_iter_init(&iter, events->windows);
    while (g_hash_table_iter_next(&iter, NULL, &window))
        co_task_join(((struct window *)window)->closer);
    g_hash_table_destroy(events->windows);
    g_free(events);
}
