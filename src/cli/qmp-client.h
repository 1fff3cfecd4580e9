/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Asking a running daemon over its QMP socket: one command after the other, and events that came meanwhile. */
#pragma once

#include <stdbool.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct error;
struct json;
struct qmp_client;

/* Connected to the Unix socket at `path`, greeted, ready for commands. NULL: *err. */
struct qmp_client *CO_FN co_qmp_client_new(const char *path, struct error **err) MUST_CHECK;
void qmp_client_free(struct qmp_client *client); /* NULL is allowed */
AUTO_DEFINE(qmp_client, struct qmp_client *, qmp_client_free)

/* What `command` returns, owned; NULL: *err, with the daemon's class and text. `arguments` are taken, NULL: none. */
struct json *CO_FN co_qmp_client_call(struct qmp_client *client, const char *command, struct json *arguments,
                                      struct error **err) MUST_CHECK;
/* The same, where what it returns says nothing. */
bool CO_FN co_qmp_client_do(struct qmp_client *client, const char *command, struct json *arguments, struct error **err);

/* Waits for the event `name` whose data have `value` under `key`, unless it has come since we are connected. */
bool CO_FN co_qmp_client_wait(struct qmp_client *client, const char *name, const char *key, const char *value,
                              struct error **err);
