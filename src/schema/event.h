/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where events of the schema go. gen/events.h has an event_send_NAME(sink, data) for each. */
#pragma once

struct json;
struct event_sink;

struct event_sink {
    /* Any thread. `data` is taken; NULL: the event has none. */
    void (*send)(struct event_sink *sink, const char *name, struct json *data);
};
