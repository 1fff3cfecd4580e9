/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Uploads and downloads on a connection. A stream is known by its procedure and the serial of the call that opened it.
 * Each has a coroutine: an upload writes to the disk what has come, and what waits counts as requests of its client; a
 * download has at most two packets on their way. Main loop.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "pool/rpc/packet.h"

struct pool_error;
struct rpc_client;
struct rpc_stream;
struct volume_stream;

/* Begins the stream that the call with `header` has opened; `volume` is taken. Nothing is sent before the caller
 * suspends. `sparse`: holes may be in it. */
void rpc_stream_open(struct rpc_client *client, const struct rpc_header *header, struct volume_stream *volume,
                     bool upload, bool sparse);

/* Whether the client may have another one open: each holds a descriptor and memory. */
bool rpc_stream_may_open(const struct rpc_client *client, struct pool_error **err);

/* A packet of a stream, or of one that is no more. */
void rpc_stream_accept(struct rpc_client *client, const struct rpc_header *header, const uint8_t *packet,
                       size_t length);

/* The daemon is about to end: the stream fails, and its client is told. */
void rpc_stream_stop(struct rpc_stream *stream);

/* The connection has ended. */
void rpc_stream_wake(struct rpc_stream *stream);
