/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Serving one image: it is opened, exported, and served until the last client has gone or a signal comes. */
#include <glib.h>
#include <inttypes.h>

#include "base/error.h"
#include "base/trace.h"
#include "bin/nbd.h"
#include "block/graph.h"
#include "block/handle.h"
#include "cli/pid-file.h"
#include "cli/temporary-image.h"
#include "cli/tool.h"
#include "export/export.h"
#include "export/nbd/server.h"
#include "gen/types.h"
#include "loop/coroutine.h"
#include "loop/daemonize.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "object/object.h"
#include "object/tls-creds.h"
#include "schema/event.h"
#include "schema/json.h"

struct serving {
    struct nbd_program *program;
    struct event_sink events; /* nobody listens */
    struct image *base;       /* beneath a temporary image; NULL: none */
    struct image *image;
    const char *node; /* what is exported */
    struct export_registry *exports;
    struct pid_file *pid_file;
    bool quit;
    struct co_condition quit_asked;

    struct co_task *device; /* NULL: there is none */
    struct error *device_error;
};

static const char offset_node[] = "offset";

static void drop_event(struct event_sink *sink, const char *name, struct json *data)
{
    json_free(data);
}

static void quit(struct serving *serving)
{
    serving->quit = true;
    co_condition_broadcast(&serving->quit_asked);
}

/* --- the image --- */

static bool CO_FN co_open_image(struct serving *serving, struct error **err)
{
    struct nbd_program *program = serving->program;
    struct image_open open = program->open;

    open.writable = open.writable && !program->snapshot;
    serving->image = co_image_open(program->tool, &open, err);
    if (!serving->image)
        return open.snapshot ? false : error_prefix(err, "Failed to blk_new_open '%s': ", program->image);
    if (program->snapshot && !program->open.snapshot) {
        serving->base = TAKE(serving->image);
        serving->image = co_temporary_image_open(program->tool, serving->base, err);
        if (!serving->image)
            return error_prefix(err, "Failed to blk_new_open '%s': ", program->image);
    }
    serving->node = serving->image->name;
    return true;
}

/* A node that starts where the offset says. */
static bool CO_FN co_add_offset(struct serving *serving, struct error **err)
{
    uint64_t length = handle_length(serving->image->handle), offset = serving->program->offset;
    AUTO(blockdev_options) options = NULL;
    AUTO(json) json = json_object();

    if (!offset)
        return true;
    if (offset >= length)
        return error_set(err, "Offset (%" PRIu64 ") cannot be greater than size of the containing file (%" PRIu64 ")",
                         offset, length);
    json_set(json, "driver", json_string("raw"));
    json_set(json, "node-name", json_string(offset_node));
    json_set(json, "file", json_string(serving->image->name));
    json_set(json, "offset", json_uint(offset));
    json_set(json, "read-only", json_bool(handle_is_read_only(serving->image->handle)));
    if (serving->program->open.unmap)
        json_set(json, "discard", json_string("unmap"));
    options = blockdev_options_parse(json, err);
    if (!options || !co_graph_add(serving->program->tool->graph, options, err))
        return false;
    serving->node = offset_node;
    return true;
}

/* --- the export --- */

static struct json *server_address(const struct nbd_program *program)
{
    struct json *address = json_object();

    if (program->passed_fd >= 0) {
        g_autofree char *number = g_strdup_printf("%d", program->passed_fd);

        json_set(address, "type", json_string("fd"));
        json_set(address, "str", json_string(number));
    } else if (program->socket) {
        json_set(address, "type", json_string("unix"));
        json_set(address, "path", json_string(program->socket));
    } else {
        json_set(address, "type", json_string("inet"));
        json_set(address, "host", json_string(program->bind));
        json_set(address, "port", json_string(program->port));
    }
    return address;
}

static bool CO_FN co_start_server(struct serving *serving, struct error **err)
{
    const struct nbd_program *program = serving->program;
    AUTO(nbd_server_options) options = NULL;
    AUTO(json) json = json_object();

    json_set(json, "addr", server_address(program));
    json_set(json, "max-connections", json_uint(program->clients_max));
    if (program->has_handshake_seconds)
        json_set(json, "handshake-max-seconds", json_uint(program->handshake_seconds));
    if (program->tls_creds)
        json_set(json, "tls-creds", json_string(program->tls_creds));
    if (program->tls_authz)
        json_set(json, "tls-authz", json_string(program->tls_authz));
    options = nbd_server_options_parse(json, err);
    return options && co_nbd_server_start(serving->exports, options, err);
}

static bool CO_FN co_add_export(struct serving *serving, struct error **err)
{
    const struct nbd_program *program = serving->program;
    AUTO(block_export_options) options = NULL;
    AUTO(json) json = json_object();

    json_set(json, "type", json_string("nbd"));
    json_set(json, "id", json_string("export"));
    json_set(json, "node-name", json_string(serving->node));
    /* A temporary image can be written to even where clients shall not. */
    json_set(json, "writable", json_bool(program->open.writable && !handle_is_read_only(serving->image->handle)));
    json_set(json, "writethrough", json_bool(program->open.cache.writethrough));
    json_set(json, "name", json_string(program->export_name ? program->export_name : ""));
    if (program->description)
        json_set(json, "description", json_string(program->description));
    json_set(json, "allocation-depth", json_bool(program->allocation_depth));
    if (program->bitmaps)
        json_set(json, "bitmaps", json_clone(program->bitmaps));
    options = block_export_options_parse(json, err);
    return options && co_export_add(serving->exports, options, err);
}

static void last_client_left(void *opaque)
{
    struct serving *serving = opaque;

    if (!serving->program->persistent)
        quit(serving);
}

/* --- from start to end --- */

static bool tell_started(void *opaque, struct error **err)
{
    struct serving *serving = opaque;
    int fd = TAKE_FD(serving->program->started_fd);

    return fd < 0 || daemonize_finish(fd, err);
}

static void CO_FN co_run_device(void *opaque)
{
    struct serving *serving = opaque;

    (void)!co_nbd_device_serve(serving->program, tell_started, serving, &serving->device_error);
    quit(serving);
}

static void CO_FN co_watch_signals(void *opaque)
{
    struct serving *serving = opaque;

    if (co_signal_wait(&serving->program->signals) >= 0)
        quit(serving);
}

/* Before anything else is begun: whether there are such credentials. */
static bool check_tls(const struct nbd_program *program, struct error **err)
{
    struct object *creds;

    if (!program->tls_creds)
        return true;
    creds = tls_creds_hold(program->tool->objects, program->tls_creds, Q_CRYPTO_TLS_CREDS_ENDPOINT_SERVER, err);
    if (!creds)
        return error_prefix(err, "Failed to get TLS creds: ");
    object_release(creds);
    return true;
}

static bool CO_FN co_start(struct serving *serving, struct error **err)
{
    struct nbd_program *program = serving->program;

    if (!check_tls(program, err) || !co_open_image(serving, err) || !co_add_offset(serving, err))
        return false;
    serving->exports = export_registry_new(program->tool->graph, program->tool->objects, &serving->events);
    if (!co_start_server(serving, err) || !co_add_export(serving, err))
        return false;
    nbd_server_watch(export_registry_nbd_server(serving->exports), last_client_left, serving);
    if (program->pid_path) {
        serving->pid_file = co_pid_file_new(program->pid_path, 0600, err);
        if (!serving->pid_file)
            return false;
    }
    if (program->device)
        serving->device = co_task_start(loop_current(), co_run_device, serving);
    return program->device || tell_started(serving, err);
}

static void CO_FN co_stop(struct serving *serving)
{
    struct nbd_program *program = serving->program;

    /* The device first: it is a client, in a call to the kernel that ends only so. */
    if (serving->device && !serving->device_error)
        (void)!co_nbd_device_disconnect(program->device, NULL);
    co_task_join(TAKE(serving->device));
    if (serving->exports)
        co_export_registry_free(serving->exports);
    if (serving->node == offset_node)
        (void)!co_graph_delete(program->tool->graph, offset_node, NULL);
    co_image_close(program->tool, serving->image);
    co_image_close(program->tool, serving->base);
    co_pid_file_free(serving->pid_file);
}

bool co_nbd_serve(struct nbd_program *program, struct error **err)
{
    struct serving serving = {.program = program, .events.send = drop_event};
    struct co_task *signals = co_task_start(loop_current(), co_watch_signals, &serving);
    bool ok = co_start(&serving, err);

    while (ok && !serving.quit)
        co_condition_wait_always(&serving.quit_asked, NULL);
    co_task_cancel(signals);
    co_task_join(signals);
    co_stop(&serving);
    co_condition_done(&serving.quit_asked);
    if (serving.device_error)
        return error_move(err, TAKE(serving.device_error));
    return ok;
}
