/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A byte stream in both directions: a socket, or TLS, WebSocket or Telnet on top of one. One coroutine may read while
 * another writes; two may not do the same at once.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct stream;

/* Embed struct stream as the first member. */
struct stream_ops {
    /* Bytes moved, at least one; reading: 0 at the end. -errno, -ECANCELED and -ETIMEDOUT included. */
    ssize_t (*co_readv)(struct stream *stream, const struct iovec *iov, int count);
    ssize_t (*co_writev)(struct stream *stream, const struct iovec *iov, int count);
    /* Reading what is there; -EAGAIN where that is nothing. Optional: -EAGAIN. */
    ssize_t (*co_read_now)(struct stream *stream, void *to, size_t size);
    /* Says goodbye to the peer (TLS close_notify, ...), best effort; optional. */
    void (*co_shutdown)(struct stream *stream);
    /* Makes waits of both directions end with an error, from any thread. */
    void (*abort)(struct stream *stream);
    void (*free)(struct stream *stream);
};

struct stream {
    const struct stream_ops *ops;
    int fd; /* what lies beneath, for naming the peer; -1: none */
};

/* Takes `fd`, a connected non-blocking socket. */
struct stream *stream_new_socket(int fd) MUST_CHECK;

ssize_t CO_FN co_stream_read(struct stream *stream, void *to, size_t size); /* some */
ssize_t CO_FN co_stream_readv(struct stream *stream, const struct iovec *iov, int count);
ssize_t CO_FN co_stream_read_now(struct stream *stream, void *to, size_t size);  /* does not wait: -EAGAIN */
int CO_FN co_stream_read_exact(struct stream *stream, void *to, size_t size);    /* 0; -ECONNRESET at an early end */
int CO_FN co_stream_write(struct stream *stream, const void *from, size_t size); /* all of it: 0 */
int CO_FN co_stream_writev(struct stream *stream, struct iovec *iov, int count); /* all of it; changes `iov` */
void CO_FN co_stream_shutdown(struct stream *stream);
void stream_abort(struct stream *stream);
void stream_free(struct stream *stream); /* NULL is allowed */
AUTO_DEFINE(stream, struct stream *, stream_free)
