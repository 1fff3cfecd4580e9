/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The exports of a daemon, of all types, by id; and the one NBD server that all NBD exports share.
 *
 * Keeps: an export in the list has a handle and a started driver; it leaves the list, and its id is free again, when
 * its driver has stopped and its handle is gone, and then the event is sent.
 */
#include <assert.h>

#include "base/error.h"
#include "base/trace.h"
#include "base/units.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/node.h"
#include "export/export.h"
#include "export/fuse/export.h"
#include "export/nbd/server.h"
#include "export/vduse/export.h"
#include "export/vhost-user/export.h"
#include "gen/events.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "object/iothread.h"
#include "object/object.h"

enum { DELETE_PATIENCE_MS = 500 };

struct export
{
    struct export_registry *registry;
    const struct export_driver *driver;
    char *id;
    char *node_name;
    struct handle *handle; /* NULL: it is being freed */
    unsigned loop_count;
    struct loop **loops;
    struct object **iothreads; /* held, one for each loop; NULL: the main loop's */
    bool fixed;                /* to its loops, whoever wants the node moved */
    bool shutting_down;
    void *state;
};

struct export_registry {
    struct graph *graph;
    struct object_registry *objects;
    struct event_sink *events;
    struct loop *loop;        /* the main one */
    GPtrArray *exports;       /* the newest last */
    struct co_condition gone; /* broadcast when one has left the list */
    struct nbd_server *nbd_server;
};

/* Who is to be removed; by name, as it may have gone until then. */
struct export_removal {
    struct export_registry *registry;
    char id[];
};

/* Every type of export that this build has. */
static const struct export_driver *const drivers[] = {&fuse_export_driver, &nbd_export_driver, &vduse_export_driver,
                                                      &vhost_user_export_driver};

bool export_type_offered(enum block_export_type type)
{
    for (size_t i = 0; i < G_N_ELEMENTS(drivers); i++) {
        if (drivers[i]->type == type)
            return true;
    }
    return false;
}

static const struct export_driver *find_driver(enum block_export_type type, struct error **err)
{
    for (size_t i = 0; i < G_N_ELEMENTS(drivers); i++) {
        if (drivers[i]->type == type)
            return drivers[i];
    }
    error_set(err, "No driver found for the requested export type '%s'", block_export_type_name(type));
    return NULL;
}

struct export_registry *export_registry_new(struct graph *graph, struct object_registry *objects,
                                            struct event_sink *events)
{
    struct export_registry *registry = g_new0(struct export_registry, 1);

    registry->graph = graph;
    registry->objects = objects;
    registry->events = events;
    registry->loop = loop_current();
    registry->exports = g_ptr_array_new();
    return registry;
}

static struct export *find_export(struct export_registry *registry, const char *id)
{
    for (unsigned i = 0; i < registry->exports->len; i++) {
        struct export *export = g_ptr_array_index(registry->exports, i);

        if (!strcmp(export->id, id))
            return export;
    }
    return NULL;
}

/* A letter, then letters, digits, '-', '.' and '_'. */
static bool id_is_valid(const char *id)
{
    if (!g_ascii_isalpha(*id))
        return false;
    while (*id && (g_ascii_isalnum(*id) || strchr("-._", *id)))
        id++;
    return !*id;
}

static void CO_FN co_export_free(struct export *export)
{
    co_handle_free(TAKE(export->handle));
    for (unsigned i = 0; i < export->loop_count; i++)
        object_release(export->iothreads[i]);
    g_free(export->iothreads);
    g_free(export->loops);
    g_free(export->state);
    g_free(export->id);
    g_free(export->node_name);
    g_free(export);
}

static void export_resized(void *opaque, uint64_t length)
{
    struct export *export = opaque;

    if (export->driver->resized && !export->shutting_down)
        export->driver->resized(export, length);
}

static const struct handle_ops export_handle_ops = {.resized = export_resized};

static bool hold_iothread(struct export *export, const char *id, struct error **err)
{
    struct object *object = NULL;
    struct loop *loop = iothread_hold_loop(export->registry->objects, id, &object, err);

    if (!loop)
        return false;
    for (unsigned i = 0; i < export->loop_count; i++) {
        if (export->loops[i] != loop)
            continue;
        object_release(object);
        return error_set(err, "iothread '%s' is named twice", id);
    }
    export->loops[export->loop_count] = loop;
    export->iothreads[export->loop_count++] = object;
    return true;
}

/* The loops that serve the export, each once. */
static bool take_loops(struct export *export, const struct block_export_iothreads *from, struct error **err)
{
    bool several = from && from->kind == BLOCK_EXPORT_IOTHREADS_KIND_MULTI;
    size_t count = several ? from->u.multi->count : 1;

    if (!count || count > LOOP_COUNT_MAX)
        return error_set(err, "An export cannot be served by %zu iothreads", count);
    export->loops = g_new0(struct loop *, count);
    export->iothreads = g_new0(struct object *, count);
    for (size_t i = 0; from && i < count; i++) {
        if (!hold_iothread(export, several ? from->u.multi->items[i] : from->u.single, err))
            return false;
    }
    if (!from)
        export->loops[export->loop_count++] = loop_current();
    return true;
}

static bool CO_FN co_export_open(struct export *export, const struct block_export_options *options, struct error **err)
{
    struct export_registry *registry = export->registry;
    g_autofree char *name = g_strdup_printf("block export '%s'", export->id);
    struct handle_options handle = {
        .name = name,
        .perm = PERM_CONSISTENT_READ,
        /* Clients may hear of a new length, but not that another program takes the end of their disk away. */
        .shared = PERM_ALL & ~PERM_RESIZE,
        .follows_length = true,
        .bears_inactive = options->has_allow_inactive && options->allow_inactive,
        .writethrough = options->has_writethrough && options->writethrough,
        .reports_errors = true,
        .ops = &export_handle_ops,
        .opaque = export,
    };
    struct node *node = graph_find(registry->graph, options->node_name, err);

    if (!node || !take_loops(export, options->iothread, err))
        return false;
    if (options->has_writable && options->writable) {
        if (node_read_only(node))
            return error_set(err, "Cannot export read-only node as writable");
        handle.perm |= PERM_WRITE;
        if (options->type == BLOCK_EXPORT_TYPE_FUSE && options->u.fuse.has_growable && options->u.fuse.growable)
            handle.perm |= PERM_RESIZE;
    }
    export->handle = co_handle_new(node, &handle, err);
    return export->handle;
}

bool co_export_add(struct export_registry *registry, const struct block_export_options *options, struct error **err)
{
    const struct export_driver *driver;
    struct export *export;

    if (!id_is_valid(options->id))
        return error_set(err, "Invalid block export id '%.80s'", options->id);
    if (find_export(registry, options->id))
        return error_set(err, "Block export id '%s' is already in use", options->id);
    driver = find_driver(options->type, err);
    if (!driver)
        return false;
    export = g_new0(struct export, 1);
    export->registry = registry;
    export->driver = driver;
    export->id = g_strdup(options->id);
    export->node_name = g_strdup(options->node_name);
    export->fixed = options->has_fixed_iothread && options->fixed_iothread;
    export->state = g_malloc0(driver->state_size);
    if (!co_export_open(export, options, err) || !driver->co_start(export, options, err)) {
        co_export_free(export);
        return false;
    }
    g_ptr_array_add(registry->exports, export);
    TRACE(export_add, "%s", export->id);
    return true;
}

/* Takes an export down that is marked as shutting down. */
static void CO_FN co_export_remove(struct export *export)
{
    struct export_registry *registry = export->registry;
    struct block_export_deleted_event event = {.id = export->id};

    assert(export->shutting_down);
    export->driver->co_stop(export);
    co_handle_free(TAKE(export->handle));
    g_ptr_array_remove(registry->exports, export);
    TRACE(export_delete, "%s", export->id);
    event_send_block_export_deleted(registry->events, &event);
    co_export_free(export);
    co_condition_broadcast(&registry->gone);
}

static void export_remove_run(void *opaque)
{
    co_export_remove(opaque);
}

bool co_export_delete(struct export_registry *registry, const char *id, enum block_export_remove_mode mode,
                      struct error **err)
{
    struct export *export = find_export(registry, id);
    struct co_deadline deadline;

    if (!export)
        return error_set(err, "Export '%s' is not found", id);
    if (export->shutting_down)
        return error_set(err, "Export '%s' is already shutting down", id);
    if (mode == BLOCK_EXPORT_REMOVE_MODE_SAFE && export->driver->in_use(export)) {
        error_set(err, "export '%s' still in use", id);
        error_hint(err, "Use mode='hard' to force client disconnect");
        return false;
    }
    export->shutting_down = true;
    co_spawn(loop_current(), export_remove_run, export);
    co_deadline_begin(&deadline, DELETE_PATIENCE_MS * NS_PER_MS);
    while (find_export(registry, id)) {
        if (co_condition_wait(&registry->gone, NULL) < 0)
            break;
    }
    co_deadline_end(&deadline);
    return true;
}

/* Takes all exports down, or (driver not NULL) all of one type; newest first. */
static void CO_FN co_export_remove_all(struct export_registry *registry, const struct export_driver *driver)
{
    for (;;) {
        struct export *next = NULL;
        bool waiting = false;

        for (unsigned i = registry->exports->len; i-- && !next;) {
            struct export *export = g_ptr_array_index(registry->exports, i);

            if (driver && export->driver != driver)
                continue;
            if (export->shutting_down)
                waiting = true;
            else
                next = export;
        }
        if (next) {
            next->shutting_down = true;
            co_export_remove(next);
        } else if (waiting) {
            co_condition_wait_always(&registry->gone, NULL);
        } else {
            return;
        }
    }
}

static void CO_FN co_nbd_server_end(struct export_registry *registry)
{
    struct nbd_server *server = TAKE(registry->nbd_server);

    /* Without clients first, so that no new one comes to an export while others are taken down. */
    co_nbd_server_close(server);
    co_export_remove_all(registry, &nbd_export_driver);
    nbd_server_free(server);
}

void co_export_registry_free(struct export_registry *registry)
{
    if (!registry)
        return;
    if (registry->nbd_server)
        co_nbd_server_end(registry);
    co_export_remove_all(registry, NULL);
    g_ptr_array_unref(registry->exports);
    co_condition_done(&registry->gone);
    g_free(registry);
}

struct block_export_info_array *export_query(struct export_registry *registry)
{
    struct block_export_info_array *array = g_new0(struct block_export_info_array, 1);

    array->items = g_new0(struct block_export_info *, registry->exports->len);
    for (unsigned i = registry->exports->len; i--;) {
        const struct export *export = g_ptr_array_index(registry->exports, i);
        struct block_export_info *info = g_new0(struct block_export_info, 1);

        info->id = g_strdup(export->id);
        info->type = export->driver->type;
        /* Not always the one it was made on: jobs and snapshots move it. */
        info->node_name = g_strdup(export->handle ? node_name(handle_node(export->handle)) : export->node_name);
        info->shutting_down = export->shutting_down;
        array->items[array->count++] = info;
    }
    return array;
}

const char *export_id(const struct export *export)
{
    return export->id;
}

void *export_state(struct export *export)
{
    return export->state;
}

struct graph *export_graph(struct export *export)
{
    return export->registry->graph;
}

struct handle *export_handle(struct export *export)
{
    return export->handle;
}

struct loop *export_loop(struct export *export)
{
    return export->loops[0];
}

const char *export_fixing(const struct export_registry *registry, const char *node_name)
{
    for (unsigned i = 0; i < registry->exports->len; i++) {
        const struct export *export = g_ptr_array_index(registry->exports, i);

        if (export->fixed && !strcmp(export->node_name, node_name))
            return export->id;
    }
    return NULL;
}

struct loop *const *export_loops(struct export *export, unsigned *ret_count)
{
    *ret_count = export->loop_count;
    return export->loops;
}

struct export *export_sibling(const struct export *export, const struct export *previous)
{
    const GPtrArray *all = export->registry->exports;
    bool after = !previous;

    for (unsigned i = 0; i < all->len; i++) {
        struct export *other = g_ptr_array_index(all, i);

        if (after && other != export && other->driver == export->driver)
            return other;
        after |= other == previous;
    }
    return NULL;
}

static void remove_soon_run(void *opaque)
{
    struct export_registry *registry = ((struct export_removal *)opaque)->registry;
    g_autofree struct export_removal *removal = opaque;
    struct export *export = find_export(registry, removal->id);

    if (export && !export->shutting_down) {
        export->shutting_down = true;
        co_export_remove(export);
    }
}

void export_remove_soon(struct export *export)
{
    struct export_removal *removal = g_malloc0(sizeof(*removal) + strlen(export->id) + 1);

    removal->registry = export->registry;
    memcpy(removal->id, export->id, strlen(export->id) + 1);
    co_spawn(export->registry->loop, remove_soon_run, removal);
}

struct nbd_server *export_nbd_server(struct export *export)
{
    return export->registry->nbd_server;
}

struct nbd_server *export_registry_nbd_server(struct export_registry *registry)
{
    return registry->nbd_server;
}

bool co_nbd_server_start(struct export_registry *registry, const struct nbd_server_options *options, struct error **err)
{
    if (registry->nbd_server)
        return error_set(err, "NBD server already running");
    registry->nbd_server = co_nbd_server_new(registry->objects, options, err);
    return registry->nbd_server;
}

bool co_nbd_server_stop(struct export_registry *registry, struct error **err)
{
    if (!registry->nbd_server)
        return error_set(err, "NBD server not running");
    co_nbd_server_end(registry);
    return true;
}
