/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One QMP request to one reply: the rules for its members, negotiation, and the call of the command. Nothing here knows
 * how bytes come and go.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct daemon;
struct error;
struct json;
struct qmp_command_set;

/* What a client may do; zero-filled before it has negotiated. Main loop. */
struct qmp_client {
    struct daemon *daemon;
    const struct qmp_command_set *commands;
    bool negotiated;
    bool oob; /* it has enabled out-of-band execution */
};

/* The first message of a session; owned. */
struct json *qmp_greeting(void) MUST_CHECK;

/* Whether `client` may ask for out-of-band execution, and `request` does. */
bool qmp_request_is_oob(const struct qmp_client *client, const struct json *request);

/* Runs `request` (taken), any JSON value at all, and returns the reply, owned. */
struct json *CO_FN co_qmp_dispatch(struct qmp_client *client, struct json *request) MUST_CHECK;

/* The reply that says `error`; `id` (taken) is echoed, NULL: none. */
struct json *qmp_error_reply(struct json *id, const struct error *error) MUST_CHECK;
