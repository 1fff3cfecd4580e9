/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The NBD server's objects, private to this folder; docs/nbd-server.md says how they work together.
 *
 * The server and its exports belong to the main loop. A client starts on the main loop; when it has chosen an export,
 * it moves to that export's loop, serves requests there, and comes back to end. Fields say whose they are.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "export/nbd/budget.h"
#include "export/nbd/protocol.h"
#include "export/nbd/zeroes.h"
#include "loop/lock.h"

struct block_dirty_bitmap_or_str_array;
struct block_export_options;
struct co_task;
struct dirty_bitmap;
struct error;
struct export;
struct handle;
struct loop;
struct nbd_client;
struct nbd_request;
struct nbd_server;
struct object;
struct object_registry;
struct socket_listener;
struct stream;

enum {
    NBD_CONNECTIONS_DEFAULT = 100,
    NBD_HANDSHAKE_SECONDS_DEFAULT = 10,
    NBD_REQUESTS_MAX = 128,              /* in flight, of one client */
    NBD_RECEIVE_BYTES = 64 * 1024,       /* read in one go from a client that sends much */
    NBD_RECEIVE_IDLE_BYTES = 4096 + 512, /* while waiting for something to come: a small write fits */
    NBD_CONTEXTS_MAX = 64,               /* metadata contexts of one export */
    NBD_STATUS_BYTES = 64 * 1024,        /* of extents in one block status reply, for each context */
};

/* --- exports --- */

enum nbd_context_kind { NBD_CONTEXT_ALLOCATION, NBD_CONTEXT_ALLOCATION_DEPTH, NBD_CONTEXT_DIRTY_BITMAP };

/* Something that can be asked for each place of the export; its id on the wire is its index in the export. */
struct nbd_context {
    enum nbd_context_kind kind;
    char *name;                  /* "base:allocation" */
    struct dirty_bitmap *bitmap; /* NBD_CONTEXT_DIRTY_BITMAP: with a reference, busy for us */
};

/* State of an export; main loop, and const while clients have it. */
struct nbd_export {
    struct export *export;
    struct nbd_server *server;
    struct handle *handle;
    uint64_t serial; /* unique in the server's life: names may be used again */
    char *name;
    char *short_name;  /* for messages */
    char *description; /* NULL: none */
    bool writable;
    struct nbd_context contexts[NBD_CONTEXTS_MAX];
    unsigned context_count;
    unsigned next_loop;       /* main loop; of the export's, for the next client */
    GPtrArray *clients;       /* main loop; borrowed */
    struct co_condition idle; /* main loop; broadcast when a client has gone */
};

/* What is announced, and enforced, for a client in `mode`. */
uint32_t nbd_export_flags(const struct nbd_export *export, enum nbd_mode mode);

/* The smallest block (bytes, a power of two) that clients must keep to when they have asked for it. */
uint32_t nbd_export_min_block(const struct nbd_export *export);
uint32_t nbd_export_preferred_block(const struct nbd_export *export);

/* The loop on which a new client of the export is to run: the export's take turns. */
struct loop *nbd_export_pick_loop(struct nbd_export *export);

/* --- metadata contexts --- */

/* The bit for each context of `export` that `query` selects; `listing`: wildcards count too. */
uint64_t nbd_contexts_match(const struct nbd_export *export, const struct nbd_string *query, bool listing);

/* All contexts of `export`. */
uint64_t nbd_contexts_all(const struct nbd_export *export);

/*
 * The extents of a context from request->header.offset on, encoded at `to` (room for NBD_STATUS_BYTES) as the payload
 * of one chunk of the client's mode; its size in *ret_bytes. 0 or -errno.
 */
int CO_FN co_nbd_context_status(struct nbd_request *request, unsigned context, uint8_t *to, size_t *ret_bytes);

/* Adds a context for each of `wanted` (NULL: none). On failure those before it are there; who ends the export drops
 * all. */
bool nbd_export_take_bitmaps(struct nbd_export *export, const struct block_dirty_bitmap_or_str_array *wanted,
                             struct error **err) MUST_CHECK;

/* The run from `offset` on, cut to `bytes`, that a bitmap shows as dirty, or as clean. */
void nbd_bitmap_run(const struct nbd_context *context, uint64_t offset, uint64_t bytes, uint64_t *ret_bytes,
                    uint32_t *ret_status);

/* --- server --- */

struct nbd_server {
    struct object_registry *objects;
    struct loop *loop;
    struct socket_listener *listener;
    struct co_task *acceptor;
    struct object *tls_creds;   /* held; NULL: no TLS */
    char *tls_authz;            /* NULL: everybody */
    uint32_t connections_max;   /* 0: no limit */
    uint32_t handshake_seconds; /* 0: no limit */
    bool stopping;
    uint64_t next_serial;
    GPtrArray *exports;         /* borrowed */
    GPtrArray *clients;         /* borrowed: a client frees itself */
    struct co_condition left;   /* broadcast when a client has gone */
    void (*idle)(void *opaque); /* see nbd_server_watch(); NULL: nobody */
    void *idle_opaque;
    struct nbd_budget budget;
};

/* NULL where there is none of that name. */
struct nbd_export *nbd_server_find_export(struct nbd_server *server, const char *name, size_t length);

/* --- clients --- */

struct nbd_receiver {
    uint8_t *data; /* `idle` or a buffer of NBD_RECEIVE_BYTES from the loop */
    size_t capacity;
    size_t start; /* what has been received and not yet used: [start, end) */
    size_t end;
    bool was_full; /* the last time, there may have been more */
    uint8_t idle[NBD_RECEIVE_IDLE_BYTES];
};

struct nbd_client {
    struct nbd_server *server;
    struct co_task *task;  /* of nbd_client_run(); main loop */
    struct stream *stream; /* of whoever runs: handshake, then the client's loop */
    char *peer;            /* for messages */

    /* Settled by the handshake. */
    struct nbd_export *export; /* NULL: none chosen; attached to its list of clients */
    struct handle *handle;
    struct nbd_terms terms;
    uint64_t contexts;       /* bits of the selected ones ... */
    uint64_t context_serial; /* ... which are those of the export with this serial */
    bool is_old;             /* not fixed newstyle: EXPORT_NAME is all that works */
    bool no_zeroes;
    bool tls;

    /* The client's loop. */
    struct loop *loop;
    struct nbd_receiver receiver;
    struct nbd_allowance allowance;
    unsigned requests_in_flight;       /* received, and not yet answered by a finished send */
    struct nbd_request *replies_first; /* to be sent */
    struct nbd_request **replies_end;
    bool sending;             /* the sender's coroutine is there */
    bool broken;              /* nothing can be sent any more */
    struct co_condition room; /* broadcast when a request is through, and when the sender ends */
};

/* Starts to serve the connection `fd` (taken). Main loop. */
void nbd_client_start(struct nbd_server *server, int fd);

/* Makes the client end soon; requests that have begun run to their end. Main loop. */
void nbd_client_drop(struct nbd_client *client);

enum nbd_handshake { NBD_HANDSHAKE_FAILED, NBD_HANDSHAKE_ABORTED, NBD_HANDSHAKE_DONE };

/* From the greeting to the transmission phase; then client->export is set. Main loop. FAILED comes with the error. */
enum nbd_handshake CO_FN co_nbd_handshake(struct nbd_client *client, struct error **err) MUST_CHECK;

/* Receives requests and starts them until the client is through or broken. Client's loop. */
void CO_FN co_nbd_receive(struct nbd_client *client);

/* --- requests --- */

/* One message of a reply: a header, and payload that lies elsewhere. */
struct nbd_chunk {
    const uint8_t *data; /* NULL: none */
    uint32_t data_bytes;
    uint8_t head_bytes;
    uint8_t head[NBD_REPLY_HEADER_BYTES_MAX + 12]; /* with the fixed part of the payload */
};
enum { NBD_CHUNKS_MAX = NBD_PARTS_MAX };

/* From receiving to the end of sending its reply; client's loop. */
struct nbd_request {
    struct nbd_client *client;
    struct nbd_request *next; /* in the list of replies */
    struct nbd_request_header header;
    uint64_t contexts; /* block status: those that are asked for */
    uint64_t charged;  /* to the allowance, bytes */
    uint8_t *buffer;   /* from the loop; NULL: none */
    size_t buffer_bytes;
    struct nbd_chunk *chunks; /* `chunk`, or memory of the loop */
    unsigned chunk_count;
    struct nbd_chunk chunk;
};

/* A new request in flight; `charged` has been taken from the allowance and is the request's now. */
struct nbd_request *nbd_request_new(struct nbd_client *client, const struct nbd_request_header *header,
                                    uint64_t charged) MUST_CHECK;
void nbd_request_free(struct nbd_request *request);

/* Gets request->buffer; false where there is no memory. */
bool nbd_request_allocate(struct nbd_request *request, size_t bytes) MUST_CHECK;

/* Carries out a request that has been checked, and queues the reply. The entry of its coroutine. */
void nbd_request_run(void *request);

/* --- replies: each queues the final reply of `request`, which belongs to the sender then --- */

void nbd_reply_success(struct nbd_request *request);

/* The first `bytes` of the buffer, from `offset` of the export on. */
void nbd_reply_data(struct nbd_request *request, uint64_t offset, uint32_t bytes);

/* `count` payloads of block status, of `bytes[i]` each, NBD_STATUS_BYTES apart in the buffer. */
void nbd_reply_status(struct nbd_request *request, unsigned count, const size_t *bytes);

/* `text` is for people, and shortened when too long. */
void nbd_reply_error(struct nbd_request *request, enum nbd_error error, const char *format, ...) PRINTF_LIKE(3, 4);
