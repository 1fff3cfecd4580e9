/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One connection in the transmission phase: many calls at once, each answered in its time.
 *
 * All functions but nbd_link_new() run on the link's loop. Calls suspend in a coroutine of their
 * caller, which nothing cuts short; the bytes are moved by coroutines of the link, that are there only while calls are
 * in flight. So a link without calls has nothing running, and its loop may end.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/io-vector.h"
#include "driver/protocol/nbd/message.h"

struct loop;
struct nbd_link;
struct stream;

/* What a call gives back beside errors of the server: the connection broke, and nobody knows what became of it. */
enum { NBD_LINK_LOST = -4096 };

/* A request and its outcome; on the stack of who makes it. */
struct nbd_transfer {
    struct nbd_call call;        /* the cookie is the link's */
    const struct io_vector *iov; /* reads and writes: `call.bytes` of it from `iov_offset` on */
    size_t iov_offset;
    struct nbd_extent extent; /* block status */
};

/* Takes `stream`. `context_id`: of the metadata context whose status is asked for. */
struct nbd_link *nbd_link_new(struct stream *stream, struct loop *loop, enum nbd_mode mode,
                              uint32_t context_id) MUST_CHECK;

/* It has one reference at first; taken and given back on the link's loop, or where nothing of it runs. NULL is allowed
 * in unref. The last one frees it; nothing may be in flight then. */
struct nbd_link *nbd_link_ref(struct nbd_link *link);
void nbd_link_unref(struct nbd_link *link);

/* Tells the server that we are through; best effort. Nothing may be in flight. */
void CO_FN co_nbd_link_goodbye(struct nbd_link *link);

/* 0, or -errno of the server's, or NBD_LINK_LOST; then the link is broken for good. */
int CO_FN co_nbd_link_call(struct nbd_link *link, struct nbd_transfer *transfer);

bool nbd_link_is_broken(const struct nbd_link *link);
struct loop *nbd_link_loop(const struct nbd_link *link);
