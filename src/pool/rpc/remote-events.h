/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who wants to hear of what happens to pools and secrets. Main loop. */
#pragma once

#include "pool/secrets.h"
#include "pool/storage.h"

struct remote_events;
struct rpc_client;
struct secret_id;

struct remote_events *remote_events_new(void);
void remote_events_free(struct remote_events *events);

/* Listens to `storage` until remote_events_unlisten(). */
void remote_events_listen(struct remote_events *events, struct storage *storage);
void remote_events_unlisten(struct remote_events *events, struct storage *storage);

/* Something happened to a secret; fits secrets_options, `events` being a struct remote_events. */
void remote_events_secret(void *events, const struct secret_id *secret, enum secret_event event);

/* The client wants to hear no more. */
void remote_events_forget(struct remote_events *events, struct rpc_client *client);
