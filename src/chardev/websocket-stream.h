/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A WebSocket on top of a stream: bytes in binary frames. Private to this folder. */
#pragma once

#include "base/compiler.h"

struct error;
struct stream;

/* Waits for a client's request and consents. Takes `lower` in any case. */
struct stream *CO_FN co_websocket_stream_accept(struct stream *lower, struct error **err) MUST_CHECK;

/* Asks the server, which is called `host`. Takes `lower` in any case. */
struct stream *CO_FN co_websocket_stream_connect(struct stream *lower, const char *host, struct error **err) MUST_CHECK;
