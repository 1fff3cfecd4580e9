/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * QMP monitors: each serves one client after the other over its chardev. All of them share the queue of in-band
 * commands, and every client that has negotiated gets every event. Main loop.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "gen/types.h"

struct daemon;
struct error;
struct json;
struct monitor_registry;
struct qmp_client;
struct qmp_command_set;

/* `commands` is what clients may execute; it must stay. */
struct monitor_registry *monitor_registry_new(struct daemon *daemon, const struct qmp_command_set *commands) MUST_CHECK;

/* Lets in-band commands wait until monitor_registry_release(); the one that is running goes on. */
void monitor_registry_hold(struct monitor_registry *registry);
void monitor_registry_release(struct monitor_registry *registry);

/* No further command is run; the one that is running is cancelled and gets its reply. Sessions live on for events. */
void CO_FN co_monitor_registry_stop(struct monitor_registry *registry);

/* After co_monitor_registry_stop(): sends clients what waits for them, for a second at most, and ends all sessions. */
void CO_FN co_monitor_registry_free(struct monitor_registry *registry);

/* --monitor: a QMP session on the chardev. */
bool monitor_add(struct monitor_registry *registry, const struct monitor_options *options,
                 struct error **err) MUST_CHECK;

/* Sends `event`, a whole message, to every client that has negotiated. */
void monitor_broadcast(struct monitor_registry *registry, const struct json *event);

/* Whose in-band command is running; NULL: none. */
struct qmp_client *monitor_current_client(struct monitor_registry *registry);

const struct qmp_command_set *monitor_commands(const struct monitor_registry *registry);
