/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The NBD server: one listening address, and everybody who comes there. All on the main loop. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "gen/types.h"

struct co_condition;
struct error;
struct export_driver;
struct nbd_server;
struct object_registry;

/* NULL and the error where it cannot listen, or its TLS credentials are not fit. */
struct nbd_server *CO_FN co_nbd_server_new(struct object_registry *objects, const struct nbd_server_options *options,
                                           struct error **err) MUST_CHECK;

/*
 * Waits for `gone`, which tells of clients that are through, or for a moment. Clients wait for their requests, and a
 * throttle node may hold those back: a drain before this lets them go, and the next one what came just after it.
 */
void CO_FN co_nbd_wait_for_client(struct co_condition *gone);

/* Stops listening and drops all clients; returns when the last is gone. Exports stay. */
void CO_FN co_nbd_server_close(struct nbd_server *server);

/* It must be closed and have no exports. NULL is allowed. */
void nbd_server_free(struct nbd_server *server);

/* `idle` is called on the main loop whenever the last client goes, if it had come as far as to an export. */
void nbd_server_watch(struct nbd_server *server, void (*idle)(void *opaque), void *opaque);

/* The address in use: "unix:PATH", "inet:HOST:PORT". Borrowed. */
const char *nbd_server_address(const struct nbd_server *server);

extern const struct export_driver nbd_export_driver;
