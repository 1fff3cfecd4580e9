/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The "vhost-user-blk" export: listens, and serves one front end after the other. */
#include "export/vhost-user/export.h"

#include <assert.h>
#include <errno.h>

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "base/units.h"
#include "driver/protocol/virtio-blk/vhost-user-message.h"
#include "export/export.h"
#include "export/vhost-user/device.h"
#include "export/virtio/blk.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "schema/socket-address.h"

enum { BACKLOG = 16, RETRY_MS = 100, BLOCK_SIZE_DEFAULT = 512 };

struct vhost_user_export {
    struct export *export;
    struct virtio_blk blk;
    struct socket_listener *listener;
    struct co_task *server;
    struct vhost_user_device *device; /* NULL: no front end is connected */
    bool telling;                     /* a coroutine tells the front end of a new length */
    struct co_condition told;
};

static void CO_FN co_serve_front_end(struct vhost_user_export *own, int socket)
{
    unsigned loop_count;
    struct loop *const *loops = export_loops(own->export, &loop_count);
    AUTO(error) why = NULL;
    struct vhost_user_message *message = g_new(struct vhost_user_message, 1);
    struct vhost_user_device *device;
    bool going = true;

    own->device = vhost_user_device_new(&own->blk, export_id(own->export), socket, loops, loop_count);
    TRACE(vhost_user_connect, "%s", export_id(own->export));
    while (going && co_vhost_user_receive(socket, false, message, &why) == 1) {
        going = co_vhost_user_device_handle(own->device, message, &why);
        vhost_user_message_done(message);
    }
    if (why && !co_cancelled())
        log_warning("export '%s': vhost-user connection dropped: %s", export_id(own->export), error_message(why));
    device = TAKE(own->device);
    while (own->telling)
        co_condition_wait_always(&own->told, NULL);
    co_vhost_user_device_free(device);
    g_free(message);
    TRACE(vhost_user_disconnect, "%s", export_id(own->export));
}

static void serve_run(void *opaque)
{
    struct vhost_user_export *own = opaque;

    while (!co_cancelled()) {
        int fd = co_socket_listener_accept(own->listener);

        if (fd >= 0) {
            co_serve_front_end(own, fd);
            fd_close(fd);
        } else if (fd != -ECANCELED && fd != -ECONNABORTED && fd != -EINTR) {
            (void)!co_sleep_ns(RETRY_MS * NS_PER_MS);
        }
    }
}

static bool CO_FN co_start(struct export *export, const struct block_export_options *options, struct error **err)
{
    struct vhost_user_export *own = export_state(export);
    const struct block_export_options_vhost_user_blk *from = &options->u.vhost_user_blk;
    struct virtio_blk_options blk = {
        .handle = export_handle(export),
        .serial = export_id(export),
        .block_size = BLOCK_SIZE_DEFAULT,
        .queues = from->has_num_queues ? from->num_queues : 1,
        .writable = options->has_writable && options->writable,
        .writethrough = options->has_writethrough && options->writethrough,
    };
    struct socket_endpoint endpoint;

    if (from->has_logical_block_size)
        blk.block_size = (uint32_t)MIN(from->logical_block_size, UINT32_MAX);
    if (blk.queues > VHOST_USER_QUEUES_MAX)
        return error_set(err, "num-queues must be at most %d: it is %u", VHOST_USER_QUEUES_MAX, blk.queues);
    if (from->addr->type != SOCKET_ADDRESS_TYPE_UNIX && from->addr->type != SOCKET_ADDRESS_TYPE_FD)
        return error_set(err, "vhost-user-blk needs a socket of type 'unix' or 'fd', not '%s'",
                         socket_address_type_name(from->addr->type));
    if (!virtio_blk_init(&own->blk, &blk, err) || !socket_address_endpoint(from->addr, &endpoint, err))
        return false;
    own->export = export;
    own->listener = co_socket_listen(&endpoint, BACKLOG, err);
    if (!own->listener)
        return false;
    /* Descriptors come by other sockets only. */
    if (socket_listener_port(own->listener)) {
        socket_listener_free(TAKE(own->listener));
        return error_set(err, "vhost-user-blk needs a UNIX socket, which file descriptor '%s' is not",
                         from->addr->u.fd.str);
    }
    own->server = co_task_start(loop_current(), serve_run, own);
    return true;
}

static bool in_use(struct export *export)
{
    const struct vhost_user_export *own = export_state(export);

    return own->device;
}

static void CO_FN co_stop(struct export *export)
{
    struct vhost_user_export *own = export_state(export);

    co_task_cancel(own->server);
    co_task_join(TAKE(own->server));
    assert(!own->device);
    socket_listener_free(TAKE(own->listener));
    co_condition_done(&own->told);
}

static void tell_run(void *opaque)
{
    struct vhost_user_export *own = opaque;

    if (own->device)
        co_vhost_user_device_changed(own->device);
    own->telling = false;
    co_condition_broadcast(&own->told);
}

static void resized(struct export *export, uint64_t length)
{
    struct vhost_user_export *own = export_state(export);

    if (!own->device || own->telling)
        return;
    own->telling = true;
    co_spawn(loop_current(), tell_run, own);
}

const struct export_driver vhost_user_export_driver = {
    .type = BLOCK_EXPORT_TYPE_VHOST_USER_BLK,
    .state_size = sizeof(struct vhost_user_export),
    .co_start = co_start,
    .in_use = in_use,
    .co_stop = co_stop,
    .resized = resized,
};
