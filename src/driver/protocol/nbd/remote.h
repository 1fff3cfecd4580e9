/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An export of an NBD server as a node uses it: one connection, or several where the server lets us, made again when
 * they break. Main loop, but for co_nbd_remote_call().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "driver/protocol/nbd/handshake.h"
#include "driver/protocol/nbd/link.h"

struct error;
struct nbd_remote;
struct object;
struct socket_address;

/* Everything is copied or, the object, held. */
struct nbd_remote_options {
    const struct socket_address *server;
    const char *export;
    const char *context; /* NULL: none */
    struct object *tls_creds;
    const char *tls_hostname;
    uint32_t reconnect_delay_s; /* how long calls wait for a connection to come back */
    uint32_t open_timeout_s;    /* how long the first connection is tried for; 0: once */
};

/* NULL and the error where no connection can be made. */
struct nbd_remote *CO_FN co_nbd_remote_new(const struct nbd_remote_options *options, struct error **err) MUST_CHECK;

/* Ends all connections; no call is in flight. NULL is allowed. */
void CO_FN co_nbd_remote_free(struct nbd_remote *remote);

/* What was agreed on with the server; a connection made later has the same. */
const struct nbd_handshake_result *nbd_remote_terms(const struct nbd_remote *remote);

/* Any loop: 0 or -errno. A call whose connection broke is made again on the next one, for as long as calls wait. */
int CO_FN co_nbd_remote_call(struct nbd_remote *remote, struct nbd_transfer *transfer);

/* From now on calls wait so long. No call is in flight. */
void nbd_remote_set_reconnect_delay(struct nbd_remote *remote, uint32_t seconds);

/* Somebody waits for calls to end: where a connection is missing, it is tried at once and more often. */
void nbd_remote_hurry(struct nbd_remote *remote, bool hurry);
