/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/daemon.h"

#include <assert.h>
#include <glib.h>

#include "block/graph.h"
#include "chardev/chardev.h"
#include "export/export.h"
#include "job/job.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "object/object.h"
#include "qmp/command-set.h"
#include "qmp/event.h"
#include "qmp/monitor.h"

static void send_event(struct event_sink *sink, const char *name, struct json *data)
{
    struct daemon *daemon = container_of(sink, struct daemon, events);

    qmp_events_send(daemon->event_queue, name, data);
}

static void broadcast_event(void *opaque, const struct json *event)
{
    struct daemon *daemon = opaque;

    monitor_broadcast(daemon->monitors, event);
}

static void quit_at_mux(void *opaque)
{
    daemon_quit(opaque);
}

struct daemon *daemon_new(void)
{
    struct daemon *daemon = g_new0(struct daemon, 1);

    daemon->main_loop = loop_current();
    assert(daemon->main_loop);
    daemon->events.send = send_event;
    daemon->event_queue = qmp_events_new(daemon->main_loop, broadcast_event, daemon);
    daemon->commands = qmp_command_set_new(qmp_commands, qmp_command_count);
    daemon->objects = object_registry_new();
    daemon->chardevs = chardev_registry_new(daemon->objects);
    chardev_registry_set_quit(daemon->chardevs, quit_at_mux, daemon);
    daemon->graph = graph_new(daemon->objects, &daemon->events);
    daemon->jobs = job_registry_new(&daemon->events);
    daemon->exports = export_registry_new(daemon->graph, daemon->objects, &daemon->events);
    daemon->monitors = monitor_registry_new(daemon, daemon->commands);
    monitor_registry_hold(daemon->monitors);
    return daemon;
}

void daemon_started(struct daemon *daemon)
{
    if (!daemon->quit)
        monitor_registry_release(daemon->monitors);
}

void co_daemon_free(struct daemon *daemon)
{
    assert(co_active());
    co_monitor_registry_stop(daemon->monitors);
    co_job_registry_free(daemon->jobs);
    co_export_registry_free(daemon->exports);
    co_graph_free(daemon->graph);
    co_qmp_events_free(daemon->event_queue);
    co_monitor_registry_free(daemon->monitors);
    co_chardev_registry_free(daemon->chardevs);
    co_object_registry_free(daemon->objects);
    qmp_command_set_free(daemon->commands);
    co_condition_done(&daemon->quit_asked);
    g_free(daemon);
}

void daemon_quit(struct daemon *daemon)
{
    assert(loop_current() == daemon->main_loop);
    daemon->quit = true;
    monitor_registry_hold(daemon->monitors);
    co_condition_broadcast(&daemon->quit_asked);
}

void co_daemon_wait_quit(struct daemon *daemon)
{
    while (!daemon->quit)
        co_condition_wait_always(&daemon->quit_asked, NULL);
}
