/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Exports: a node offered to the outside. The registry keeps them by id; a driver (nbd, vhost-user-blk, fuse,
 * vduse-blk) is a vtable in one explicit array. All here runs on the main loop.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "gen/types.h"

struct error;
struct event_sink;
struct export;
struct export_registry;
struct graph;
struct handle;
struct loop;
struct nbd_server;
struct object_registry;

struct export_driver {
    enum block_export_type type;
    size_t state_size;
    /* The export's handle exists; `export`'s state is zero-filled. On failure co_stop() is not called. */
    bool (*co_start)(struct export *export, const struct block_export_options *options, struct error **err);
    /* Whether clients are connected (removal in mode safe is refused then). */
    bool (*in_use)(struct export *export);
    /* Drops clients, waits for their requests; afterwards nothing of the driver uses the handle. */
    void (*co_stop)(struct export *export);
    /* The node has another length, in bytes. Optional. */
    void (*resized)(struct export *export, uint64_t length);
};

/* Whether this build has a driver for exports of `type`. */
bool export_type_offered(enum block_export_type type);

struct export_registry *export_registry_new(struct graph *graph, struct object_registry *objects,
                                            struct event_sink *events);
void CO_FN co_export_registry_free(struct export_registry *registry); /* stops all, and the NBD server */

/*
 * Deletion gives the running requests of a dropped client a moment to end; when they take longer, the export stays,
 * shown as shutting down, and goes when they have. BLOCK_EXPORT_DELETED tells when it has gone.
 */
bool CO_FN co_export_add(struct export_registry *registry, const struct block_export_options *options,
                         struct error **err) MUST_CHECK;
bool CO_FN co_export_delete(struct export_registry *registry, const char *id, enum block_export_remove_mode mode,
                            struct error **err) MUST_CHECK;
struct block_export_info_array *export_query(struct export_registry *registry);

/* The id of an export that keeps the node where it is (fixed-iothread); NULL: none does. */
const char *export_fixing(const struct export_registry *registry, const char *node_name);

const char *export_id(const struct export *export);
void *export_state(struct export *export);
struct graph *export_graph(struct export *export);
struct handle *export_handle(struct export *export);
struct loop *export_loop(struct export *export); /* of its first iothread, or the main loop */

/* Those of all its iothreads, each once; at least one. */
struct loop *const *export_loops(struct export *export, unsigned *ret_count);

/* The next export of the same driver after `previous` (NULL: the first), without `export` itself; NULL: no more. */
struct export *export_sibling(const struct export *export, const struct export *previous);

/* What it showed has gone from outside, so that it is to go, too. Any loop; harmless where it is going already. */
void export_remove_soon(struct export *export);

/* The NBD server of the export's registry; NULL: none is running. */
struct nbd_server *export_nbd_server(struct export *export);
struct nbd_server *export_registry_nbd_server(struct export_registry *registry);

/* nbd-server-start and -stop, and --nbd-server. */
bool CO_FN co_nbd_server_start(struct export_registry *registry, const struct nbd_server_options *options,
                               struct error **err) MUST_CHECK;
bool CO_FN co_nbd_server_stop(struct export_registry *registry, struct error **err) MUST_CHECK;
