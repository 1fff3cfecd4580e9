/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* TLS as a stream over another stream. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct error;
struct stream;
struct tls_creds;
struct tls_engine;

/* Strings and pointers are borrowed while co_tls_stream_open() runs; but `creds`, and what `done` releases, for the
 * life of the stream. */
struct tls_stream_options {
    const struct tls_engine *engine;
    struct tls_creds *creds;
    const char *host_name; /* clients; NULL: none */
    /* PSK servers, as in struct tls_session_options; only during the handshake. */
    char *(*find_psk)(void *opaque, const char *username);
    /* Whether the peer, whose proven name is `identity` (NULL: none), may come in; NULL: it may. */
    bool (*co_admit)(void *opaque, const char *identity, struct error **err);
    void *opaque;
    /* Called once with `done_opaque` when the stream is freed, or not made. */
    void (*done)(void *done_opaque);
    void *done_opaque;
};

/*
 * Does the handshake over `lower`, taken in any case, and checks the peer. The stream, owned; or NULL and the error.
 * Deadlines and cancellation hold. A peer that is refused is told so.
 */
struct stream *CO_FN co_tls_stream_open(struct stream *lower, const struct tls_stream_options *options,
                                        struct error **err) MUST_CHECK;
