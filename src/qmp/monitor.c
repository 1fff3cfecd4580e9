/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/monitor.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "base/units.h"
#include "chardev/chardev.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "qmp/daemon.h"
#include "qmp/queue.h"
#include "qmp/session.h"

struct monitor {
    struct monitor_registry *registry;
    char *name; /* its id, or else that of its chardev */
    bool has_id;
    bool pretty;
    struct chardev_frontend *frontend; /* owned */
    struct qmp_session *session;       /* owned; NULL: no client */
    struct co_task *task;
};

struct monitor_registry {
    struct daemon *daemon;
    const struct qmp_command_set *commands;
    struct qmp_queue *queue;
    GPtrArray *monitors; /* of struct monitor */
};

/* What clients get at the end of the program is waited for so long, in all. */
static const int64_t farewell_ns = NS_PER_S;

struct monitor_registry *monitor_registry_new(struct daemon *daemon, const struct qmp_command_set *commands)
{
    struct monitor_registry *registry = g_new0(struct monitor_registry, 1);

    registry->daemon = daemon;
    registry->commands = commands;
    registry->queue = qmp_queue_new(daemon->main_loop);
    registry->monitors = g_ptr_array_new();
    return registry;
}

void co_monitor_registry_stop(struct monitor_registry *registry)
{
    co_qmp_queue_stop(registry->queue);
}

void monitor_registry_hold(struct monitor_registry *registry)
{
    qmp_queue_hold(registry->queue);
}

void monitor_registry_release(struct monitor_registry *registry)
{
    qmp_queue_release(registry->queue);
}

static void CO_FN co_monitor_free(struct monitor *monitor)
{
    co_task_cancel(monitor->task);
    co_task_join(monitor->task);
    assert(!monitor->session);
    co_chardev_release(monitor->frontend);
    g_free(monitor->name);
    g_free(monitor);
}

void co_monitor_registry_free(struct monitor_registry *registry)
{
    struct co_deadline deadline;

    if (!registry)
        return;
    co_deadline_begin(&deadline, farewell_ns);
    for (guint i = 0; i < registry->monitors->len; i++) {
        struct monitor *monitor = registry->monitors->pdata[i];

        if (!monitor->session)
            continue;
        struct qmp_session *session = qmp_session_ref(monitor->session);
        co_qmp_session_flush(session);
        qmp_session_unref(session);
    }
    co_deadline_end(&deadline);
    for (guint i = registry->monitors->len; i > 0; i--)
        co_monitor_free(registry->monitors->pdata[i - 1]);
    g_ptr_array_free(registry->monitors, TRUE);
    qmp_queue_free(registry->queue);
    g_free(registry);
}

/* One client after the other. */
static void CO_FN co_serve(void *opaque)
{
    struct monitor *monitor = opaque;
    struct qmp_session_options options = {
        .name = monitor->name,
        .pretty = monitor->pretty,
        .daemon = monitor->registry->daemon,
        .commands = monitor->registry->commands,
    };

    while (!co_cancelled() && !co_chardev_wait_open(monitor->frontend)) {
        monitor->session = qmp_session_new(monitor->frontend, monitor->registry->queue, &options);
        co_qmp_session_run(monitor->session);
        qmp_session_unref(TAKE(monitor->session));
        chardev_hang_up(monitor->frontend);
    }
}

static bool id_in_use(const struct monitor_registry *registry, const char *id)
{
    for (guint i = 0; i < registry->monitors->len; i++) {
        const struct monitor *monitor = registry->monitors->pdata[i];

        if (monitor->has_id && !strcmp(monitor->name, id))
            return true;
    }
    return false;
}

bool monitor_add(struct monitor_registry *registry, const struct monitor_options *options, struct error **err)
{
    if (options->has_mode && options->mode != MONITOR_MODE_CONTROL)
        return error_set(err, "Only QMP is supported");
    if (options->id && id_in_use(registry, options->id))
        return error_set(err, "Duplicate ID '%s' for monitor", options->id);

    struct chardev_frontend *frontend = chardev_claim(registry->daemon->chardevs, options->chardev, err);
    if (!frontend)
        return false;

    struct monitor *monitor = g_new0(struct monitor, 1);
    monitor->registry = registry;
    monitor->name = g_strdup(options->id ? options->id : options->chardev);
    monitor->has_id = options->id;
    monitor->pretty = options->has_pretty && options->pretty;
    monitor->frontend = frontend;
    g_ptr_array_add(registry->monitors, monitor);
    monitor->task = co_task_start(registry->daemon->main_loop, co_serve, monitor);
    return true;
}

void monitor_broadcast(struct monitor_registry *registry, const struct json *event)
{
    for (guint i = 0; i < registry->monitors->len; i++) {
        const struct monitor *monitor = registry->monitors->pdata[i];

        if (monitor->session)
            qmp_session_event(monitor->session, event);
    }
}

struct qmp_client *monitor_current_client(struct monitor_registry *registry)
{
    struct qmp_session *session = qmp_queue_current(registry->queue);

    return session ? qmp_session_client(session) : NULL;
}

const struct qmp_command_set *monitor_commands(const struct monitor_registry *registry)
{
    return registry->commands;
}
