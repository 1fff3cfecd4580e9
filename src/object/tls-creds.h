/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the users of tls-creds-* and authz-* objects need: sessions over a stream, and the yes or no to a peer's name.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "gen/types.h"

struct error;
struct object;
struct object_registry;
struct stream;

/* Holds the tls-creds-* object `id`, made for `endpoint`; the error says what it is instead. */
struct object *tls_creds_hold(struct object_registry *registry, const char *id,
                              enum q_crypto_tls_creds_endpoint endpoint, struct error **err) MUST_CHECK;

/*
 * Does the handshake over `lower` (taken in any case) and checks the peer: certificate (clients: also against
 * `host_name`), and `authz_id` (servers; NULL: everybody). A stream over TLS, owned, or NULL. Deadlines and
 * cancellation hold.
 */
struct stream *CO_FN co_tls_stream_new(struct stream *lower, struct object *creds, const char *host_name,
                                       const char *authz_id, struct error **err) MUST_CHECK;

/* Whether the authz-* object `authz_id` lets `identity` in; an error also where there is no such object. */
bool CO_FN co_authz_check(struct object_registry *registry, const char *authz_id, const char *identity,
                          struct error **err) MUST_CHECK;
