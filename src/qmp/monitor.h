/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QMP monitors: sessions over chardevs, dispatch of commands, and events to everybody who negotiated. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "gen/types.h"

struct daemon;
struct error;
struct monitor_registry;

struct monitor_registry *monitor_registry_new(struct daemon *daemon);
void CO_FN co_monitor_registry_free(struct monitor_registry *registry);

/* --monitor: a QMP session on the chardev. */
bool monitor_add(struct monitor_registry *registry, const struct monitor_options *options,
                 struct error **err) MUST_CHECK;
