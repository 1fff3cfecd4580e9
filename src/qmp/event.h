/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Events on their way from wherever they happen to the monitors: they get their time stamp, come to the main loop, and
 * are thinned out where the interface says so.
 */
#pragma once

#include "base/compiler.h"

struct json;
struct loop;
struct qmp_events;

/* Who gets the messages: `event` (borrowed) is complete. Called on the main loop. */
typedef void qmp_event_receiver(void *opaque, const struct json *event);

struct qmp_events *qmp_events_new(struct loop *main_loop, qmp_event_receiver *receiver, void *opaque) MUST_CHECK;

/* Delivers what is on its way or held back. Nobody may send any more. */
void CO_FN co_qmp_events_free(struct qmp_events *events);

/* Any thread. `data` is taken; NULL: none. On the main loop it is delivered, or held back, before this returns. */
void qmp_events_send(struct qmp_events *events, const char *name, struct json *data);
