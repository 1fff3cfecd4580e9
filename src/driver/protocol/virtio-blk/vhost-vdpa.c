/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a driver does to a device, as requests to its descriptor (the kernel's header linux/vhost.h). The device may be
 * hardware, whose driver waits for it, so requests are made on worker threads. Closing the descriptor resets the
 * device.
 */
#include "driver/protocol/virtio-blk/vhost-vdpa.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/trace.h"
#include "driver/protocol/virtio-blk/disk.h"
#include "driver/protocol/virtio-blk/transport.h"
#include "loop/coroutine.h"
#include "loop/event.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "loop/socket.h"

/* Last: it has macros of the names of our constants. */
#include <linux/vhost.h>

/* Where a packed ring begins: at place 0 of both sides, with the wrap bits set. */
#define PACKED_BASE 0x80008000u

enum { DEVICE_ID_BLOCK = 2, PAGE_BYTES = 4096, ADDRESS_FIRST = 1 << 20, STATUS_NEEDS_RESET = 64 };

#define BACKEND_FEATURE(name) (UINT64_C(1) << VHOST_BACKEND_F_##name)

struct vdpa_front {
    struct virtio_transport transport;
    int fd;
    int config_fd; /* signalled when the configuration has changed */
    uint32_t config_bytes;
    struct event_source *config_source;
    struct co_task *listener;
};

static struct vdpa_front *front_of(struct virtio_transport *transport)
{
    return (struct vdpa_front *)transport;
}

static bool CO_FN co_call(struct vdpa_front *front, unsigned long request, void *argument, const char *what,
                          struct error **err)
{
    int result = co_file_ioctl(front->fd, request, argument);

    return result >= 0 || error_set_errno(err, result, "%s", what);
}

static bool CO_FN co_set_status(struct vdpa_front *front, uint8_t status, struct error **err)
{
    return co_call(front, VHOST_VDPA_SET_STATUS, &status, "setting the device's status", err);
}

/* --- what a transport does --- */

static bool CO_FN co_set_features(struct virtio_transport *transport, uint64_t features, struct error **err)
{
    struct vdpa_front *front = front_of(transport);
    uint8_t status = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER;

    if (!co_call(front, VHOST_SET_FEATURES, &features, "agreeing on features", err) ||
        !co_set_status(front, status | VIRTIO_STATUS_FEATURES_OK, err) ||
        !co_call(front, VHOST_VDPA_GET_STATUS, &status, "asking for the device's status", err))
        return false;
    return status & VIRTIO_STATUS_FEATURES_OK || error_set(err, "the device refuses features 0x%" PRIx64, features);
}

static bool CO_FN co_read_config(struct virtio_transport *transport, uint8_t to[VIRTIO_BLK_CONFIG_BYTES],
                                 struct error **err)
{
    struct vdpa_front *front = front_of(transport);
    union {
        struct vhost_vdpa_config head;
        uint8_t bytes[sizeof(struct vhost_vdpa_config) + VIRTIO_BLK_CONFIG_BYTES];
    } config = {.head = {.len = MIN(front->config_bytes, (uint32_t)VIRTIO_BLK_CONFIG_BYTES)}};

    if (!co_call(front, VHOST_VDPA_GET_CONFIG, &config, "reading the device's configuration", err))
        return false;
    /* What a device does not have, because it is older, reads as zeroes. */
    memcpy(to, config.bytes + sizeof(config.head), VIRTIO_BLK_CONFIG_BYTES);
    return true;
}

static bool CO_FN co_share_memory(struct virtio_transport *transport, int fd, void *base, uint64_t address, size_t size,
                                  struct error **err)
{
    struct vhost_msg_v2 message = {
        .type = VHOST_IOTLB_MSG_V2,
        .iotlb = {.iova = address,
                  .size = align_up(size, PAGE_BYTES),
                  .uaddr = (uintptr_t)base,
                  .perm = VHOST_ACCESS_RW,
                  .type = VHOST_IOTLB_UPDATE},
    };
    ssize_t written = fd_write_now(front_of(transport)->fd, &message, sizeof(message));

    if (written == sizeof(message))
        return true;
    return error_set_errno(err, written < 0 ? (int)written : -EIO, "sharing %zu bytes of memory with the device", size);
}

static bool CO_FN co_start_queue(struct virtio_transport *transport, const struct virtio_queue_place *place,
                                 struct error **err)
{
    struct vdpa_front *front = front_of(transport);
    struct vhost_vring_state state = {.index = place->index, .num = place->size};
    struct vhost_vring_addr address = {.index = place->index,
                                       .desc_user_addr = place->descriptors,
                                       .avail_user_addr = place->driver_area,
                                       .used_user_addr = place->device_area};
    struct vhost_vring_file kick = {.index = place->index, .fd = place->kick_fd};
    struct vhost_vring_file call = {.index = place->index, .fd = place->call_fd};
    const char *what = "setting up a queue";

    if (!co_call(front, VHOST_SET_VRING_NUM, &state, what, err))
        return false;
    state.num = place->packed ? PACKED_BASE : 0;
    if (!co_call(front, VHOST_SET_VRING_BASE, &state, what, err) ||
        !co_call(front, VHOST_SET_VRING_ADDR, &address, what, err) ||
        !co_call(front, VHOST_SET_VRING_CALL, &call, what, err) ||
        !co_call(front, VHOST_SET_VRING_KICK, &kick, what, err))
        return false;
    state.num = 1;
    return co_call(front, VHOST_VDPA_SET_VRING_ENABLE, &state, what, err);
}

/* The configuration has changed, or the device has failed. */
static void listener_run(void *opaque)
{
    struct vdpa_front *front = opaque;

    while (!co_event_wait(front->config_source)) {
        const struct virtio_watcher *watcher = front->transport.watcher;
        uint8_t status = 0;

        if (!watcher)
            continue;
        if (!co_call(front, VHOST_VDPA_GET_STATUS, &status, "status", NULL) || status & STATUS_NEEDS_RESET) {
            TRACE(vhost_vdpa_lost, "status %u", status);
            watcher->co_lost(front->transport.watcher_opaque, "the device needs a reset");
            return;
        }
        watcher->co_config_changed(front->transport.watcher_opaque);
    }
}

static bool CO_FN co_go(struct virtio_transport *transport, struct error **err)
{
    struct vdpa_front *front = front_of(transport);

    front->config_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (front->config_fd < 0)
        return error_set_errno(err, errno, "no event descriptor");
    front->config_source = event_source_new(front->config_fd, NULL, NULL, err);
    if (!front->config_source ||
        !co_call(front, VHOST_VDPA_SET_CONFIG_CALL, &front->config_fd, "waiting for changes of the configuration", err))
        return false;
    front->listener = co_task_start(loop_current(), listener_run, front);
    return co_set_status(
        front, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK,
        err);
}

static void CO_FN co_front_free(struct virtio_transport *transport)
{
    struct vdpa_front *front = front_of(transport);

    transport->watcher = NULL;
    if (front->listener)
        co_task_cancel(front->listener);
    co_task_join(TAKE(front->listener));
    co_event_source_free(front->config_source);
    fd_close(front->config_fd);
    fd_close(front->fd);
    g_free(front);
}

static const struct virtio_transport_ops vdpa_ops = {
    .co_set_features = co_set_features,
    .co_read_config = co_read_config,
    .co_share_memory = co_share_memory,
    .co_start_queue = co_start_queue,
    .co_go = co_go,
    .co_free = co_front_free,
};

/* --- opening --- */

static bool CO_FN co_greet(struct vdpa_front *front, struct error **err)
{
    const uint64_t needed = BACKEND_FEATURE(IOTLB_MSG_V2);
    uint64_t backend = 0;
    uint32_t device = 0;

    if (!co_call(front, VHOST_VDPA_GET_DEVICE_ID, &device, "it is no vhost-vdpa device", err))
        return false;
    if (device != DEVICE_ID_BLOCK)
        return error_set(err, "it is a virtio device of kind %u, not a disk (%d)", device, DEVICE_ID_BLOCK);
    if (!co_call(front, VHOST_SET_OWNER, NULL, "taking the device", err) ||
        !co_call(front, VHOST_GET_BACKEND_FEATURES, &backend, "asking what the kernel can do", err))
        return false;
    if ((backend & needed) != needed)
        return error_set(err, "the kernel does not know the messages by which memory is shared");
    backend = needed;
    return co_call(front, VHOST_SET_BACKEND_FEATURES, &backend, "agreeing with the kernel", err);
}

static bool CO_FN co_look(struct vdpa_front *front, struct error **err)
{
    struct virtio_transport *transport = &front->transport;
    struct vhost_vdpa_iova_range range;
    uint32_t queues;

    if (!co_set_status(front, 0, err) || !co_set_status(front, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER, err) ||
        !co_call(front, VHOST_GET_FEATURES, &transport->offered, "asking for features", err) ||
        !co_call(front, VHOST_VDPA_GET_VRING_NUM, &transport->queue_size_max, "asking for the size of queues", err) ||
        !co_call(front, VHOST_VDPA_GET_IOVA_RANGE, &range, "asking for addresses", err) ||
        !co_call(front, VHOST_VDPA_GET_CONFIG_SIZE, &front->config_bytes, "asking for the configuration", err) ||
        !co_call(front, VHOST_VDPA_GET_VQS_COUNT, &queues, "asking for the number of queues", err))
        return false;
    if (!queues || queues > VIRTIO_BLK_QUEUES_MAX)
        return error_set(err, "the device has %" PRIu32 " queues", queues);
    transport->queues_max = queues;
    transport->address_first = align_up(MAX(range.first, (uint64_t)ADDRESS_FIRST), PAGE_BYTES);
    transport->address_last = range.last;
    return true;
}

struct virtio_transport *co_vhost_vdpa_connect(const char *path, struct error **err)
{
    struct vdpa_front *front;
    int fd = co_file_open(path, O_RDWR | O_NONBLOCK, 0);

    if (fd < 0) {
        error_set_errno(err, fd, "Could not open '%s'", path);
        if (fd == -ENOENT)
            error_hint(err,
                       "vDPA devices are there when the kernel has loaded vhost_vdpa and a driver that makes them");
        return NULL;
    }
    front = g_new0(struct vdpa_front, 1);
    front->transport.ops = &vdpa_ops;
    front->fd = fd;
    front->config_fd = -1;
    if (co_greet(front, err) && co_look(front, err))
        return &front->transport;
    co_front_free(&front->transport);
    error_prefix(err, "vhost-vdpa device '%s': ", path);
    return NULL;
}
