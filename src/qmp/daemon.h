/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All state of a storage daemon. Handlers of QMP commands get it; two of them fit in one test process. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "loop/lock.h"
#include "schema/event.h"

struct chardev_registry;
struct export_registry;
struct graph;
struct job_registry;
struct loop;
struct monitor_registry;
struct object_registry;
struct qmp_command_set;
struct qmp_events;

struct daemon {
    struct loop *main_loop;
    struct event_sink events; /* to all monitors */
    struct object_registry *objects;
    struct chardev_registry *chardevs;
    struct graph *graph;
    struct job_registry *jobs;
    struct export_registry *exports;
    struct monitor_registry *monitors;

    /* The daemon's own. */
    struct qmp_command_set *commands;
    struct qmp_events *event_queue;
    bool quit;
    struct co_condition quit_asked;
};

/* Makes all registries, on the running loop, which becomes the main loop. In-band commands wait for daemon_started().
 */
struct daemon *daemon_new(void) MUST_CHECK;

/* Everything that the command line asks for is there: clients' commands do not meet it half done. */
void daemon_started(struct daemon *daemon);

/*
 * Ends everything, users before what they use: no further command, jobs cancelled, exports stopped, images flushed and
 * closed, their events delivered, then monitors, chardevs, objects.
 */
void CO_FN co_daemon_free(struct daemon *daemon);

/* Asks the program to end: the `quit` command and signals. co_daemon_wait_quit() returns then. Main loop. */
void daemon_quit(struct daemon *daemon);
void CO_FN co_daemon_wait_quit(struct daemon *daemon);
