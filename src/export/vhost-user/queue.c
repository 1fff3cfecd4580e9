/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A queue as the front end has set it up, and how it hears of what has been done: through event descriptors. */
#include <errno.h>

#include "base/checked.h"
#include "base/error.h"
#include "export/vhost-user/device.h"
#include "export/virtio/blk.h"
#include "export/virtio/inflight.h"
#include "export/virtio/memory.h"
#include "export/virtio/queue.h"
#include "loop/event.h"
#include "loop/shared-memory.h"

static void CO_FN co_interrupt(struct virtio_blk_queue *work)
{
    struct vhost_user_queue *queue = container_of(work, struct vhost_user_queue, work);

    if (queue->call_fd >= 0)
        event_signal(queue->call_fd, atomic_load(&queue->call_nonblocking));
}

static void CO_FN co_broken(struct virtio_blk_queue *work)
{
    const struct vhost_user_queue *queue = container_of(work, struct vhost_user_queue, work);

    if (queue->error_fd >= 0)
        event_signal(queue->error_fd, event_is_nonblocking(queue->error_fd));
}

const struct virtio_blk_queue_ops vhost_user_queue_ops = {.co_interrupt = co_interrupt, .co_broken = co_broken};

/* Its part of the table of requests in flight, if it has one. */
static bool find_table(struct vhost_user_queue *queue, const struct vhost_user_device *device, bool packed,
                       struct error **err)
{
    size_t bytes = inflight_region_size(device->inflight_queue_size, packed);
    size_t offset = queue->work.index * bytes;

    queue->table = NULL;
    if (!device->inflight || queue->work.index >= device->inflight_queues)
        return true;
    if (queue->size > device->inflight_queue_size)
        return error_set(err, "it has %u places, and the table of requests in flight %u", queue->size,
                         device->inflight_queue_size);
    /* The kind of ring may have been chosen after the table came. */
    if (!range_fits(offset, bytes, shared_memory_size(device->inflight)))
        return error_set(err, "the table of requests in flight has %zu bytes, and needs %zu",
                         shared_memory_size(device->inflight), offset + bytes);
    queue->table = shared_memory_base(device->inflight) + offset;
    return true;
}

static struct virtqueue *make_ring(struct vhost_user_queue *queue, struct vhost_user_device *device, struct error **err)
{
    struct virtqueue_setup setup = {
        .size = queue->size,
        .packed = device->features & VIRTIO_FEATURE(VIRTIO_F_RING_PACKED),
        .event_index = device->features & VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX),
        .indirect = device->features & VIRTIO_FEATURE(VIRTIO_F_INDIRECT_DESC),
        .in_order = device->features & VIRTIO_FEATURE(VIRTIO_F_IN_ORDER),
        .descriptors = queue->descriptors,
        .driver_area = queue->available,
        .device_area = queue->used,
        .base = queue->base,
    };

    if (!find_table(queue, device, setup.packed, err))
        return NULL;
    setup.inflight = queue->table;
    return virtqueue_new(&setup, device->map, err);
}

static uint64_t log_address(const struct vhost_user_queue *queue)
{
    return queue->log_used ? queue->log_address : UINT64_MAX;
}

bool co_vhost_user_queue_start(struct vhost_user_queue *queue, struct vhost_user_device *device, struct error **err)
{
    struct virtqueue *ring;

    if (queue->work.started)
        return true;
    ring = make_ring(queue, device, err);
    if (!ring) {
        queue->table = NULL;
        return error_prefix(err, "queue %u: ", queue->work.index);
    }
    virtqueue_set_log(ring, vhost_user_device_log(device), log_address(queue));
    co_virtio_blk_queue_start(&queue->work, ring);
    return true;
}

void co_vhost_user_queue_stop(struct vhost_user_queue *queue)
{
    if (queue->work.started)
        queue->base = co_virtio_blk_queue_stop(&queue->work);
}

void co_vhost_user_queue_set_log(struct vhost_user_queue *queue, struct dirty_log *log)
{
    co_virtio_blk_queue_set_log(&queue->work, log, log_address(queue));
}
