/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A queue at work, on its loop: a coroutine waits for kicks and takes requests out, each of which runs in a coroutine
 * of its own; what has ended within a turn of the loop is told in one go.
 */
#include <assert.h>
#include <errno.h>

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "export/vhost-user/device.h"
#include "export/vhost-user/protocol.h"
#include "export/virtio/blk.h"
#include "export/virtio/inflight.h"
#include "export/virtio/memory.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/shared-memory.h"
#include "loop/socket.h"

struct request {
    struct vhost_user_queue *queue;
    struct virtq_buffer buffer;
};

static void CO_FN co_signal(int fd)
{
    uint64_t one = 1;

    if (fd >= 0)
        (void)!co_fd_write(fd, &one, sizeof(one));
}

static void tell_run(void *opaque)
{
    struct vhost_user_queue *queue = opaque;

    /* More may end while the signal is on its way. */
    while (virtqueue_must_notify(queue->ring))
        co_signal(queue->call_fd);
    queue->telling = false;
    co_condition_broadcast(&queue->idle);
}

static void tell(struct vhost_user_queue *queue)
{
    if (queue->telling)
        return;
    queue->telling = true;
    co_spawn(queue->loop, tell_run, queue);
}

static void CO_FN co_declare_broken(struct vhost_user_queue *queue)
{
    log_warning("export '%s': queue %u is broken: %s", queue->name, queue->index, virtqueue_why(queue->ring));
    co_signal(queue->error_fd);
}

static void request_run(void *opaque)
{
    struct request *request = opaque;
    struct vhost_user_queue *queue = request->queue;
    uint32_t written = 0;

    if (!co_virtio_blk_do(queue->blk, &request->buffer, &written) && !virtqueue_broken(queue->ring)) {
        virtqueue_break(queue->ring, "request without a status byte");
        co_declare_broken(queue);
    }
    virtqueue_push(queue->ring, &request->buffer, written);
    loop_release(request, sizeof(*request));
    tell(queue);
}

/* Starts what is there; false: the queue is broken. */
static bool CO_FN co_take_requests(struct vhost_user_queue *queue)
{
    int result;

    do {
        struct request *request = loop_alloc(sizeof(*request));

        request->queue = queue;
        result = virtqueue_pop(queue->ring, &request->buffer);
        if (result == 1) {
            TRACE(vhost_user_request, "%s queue %u id %u", queue->name, queue->index, request->buffer.id);
            co_spawn(queue->loop, request_run, request);
        } else {
            loop_release(request, sizeof(*request));
        }
    } while (result == 1);
    if (!result)
        return true;
    co_declare_broken(queue);
    return false;
}

/* Everything that is there, also what comes between the last look and the wish to be woken. */
static bool CO_FN co_process(struct vhost_user_queue *queue)
{
    virtqueue_want_kicks(queue->ring, false);
    if (!co_take_requests(queue))
        return false;
    virtqueue_want_kicks(queue->ring, true);
    return co_take_requests(queue);
}

static void serve_run(void *opaque)
{
    struct vhost_user_queue *queue = opaque;
    bool working = co_process(queue);

    while (working) {
        uint64_t kicks;
        ssize_t got = co_fd_read(queue->kick_fd, &kicks, sizeof(kicks));

        working = got > 0 && co_process(queue);
    }
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

    if (device->inflight && queue->index < device->inflight_queues) {
        if (queue->size > device->inflight_queue_size) {
            error_set(err, "it has %u places, and the table of requests in flight %u", queue->size,
                      device->inflight_queue_size);
            return NULL;
        }
        setup.inflight = shared_memory_base(device->inflight) +
                         queue->index * inflight_region_size(device->inflight_queue_size, setup.packed);
    }
    return virtqueue_new(&setup, device->map, err);
}

static uint64_t log_address(const struct vhost_user_queue *queue)
{
    return queue->log_used ? queue->log_address : UINT64_MAX;
}

bool co_vhost_user_queue_start(struct vhost_user_queue *queue, struct vhost_user_device *device, struct error **err)
{
    struct loop *home = loop_current();
    struct virtqueue *ring;

    if (queue->started)
        return true;
    ring = make_ring(queue, device, err);
    if (!ring)
        return error_prefix(err, "queue %u: ", queue->index);
    virtqueue_set_log(ring, device->log, log_address(queue));
    queue->started = true;
    co_move_to(queue->loop);
    queue->ring = ring;
    queue->server = co_task_start(queue->loop, serve_run, queue);
    co_move_to(home);
    TRACE(vhost_user_queue_start, "%s queue %u of %u places", queue->name, queue->index, queue->size);
    return true;
}

void co_vhost_user_queue_stop(struct vhost_user_queue *queue)
{
    struct loop *home = loop_current();
    uint32_t base;

    if (!queue->started)
        return;
    co_move_to(queue->loop);
    co_task_cancel(queue->server);
    co_task_join(TAKE(queue->server));
    while (queue->telling || virtqueue_outstanding(queue->ring))
        co_condition_wait_always(&queue->idle, NULL);
    base = virtqueue_base(queue->ring);
    virtqueue_free(TAKE(queue->ring));
    co_move_to(home);
    queue->base = base;
    queue->started = false;
    TRACE(vhost_user_queue_stop, "%s queue %u at 0x%x", queue->name, queue->index, base);
}

void co_vhost_user_queue_set_fd(struct vhost_user_queue *queue, int *slot, int fd)
{
    struct loop *home = loop_current();
    bool started = queue->started;

    if (started)
        co_move_to(queue->loop);
    while (queue->telling)
        co_condition_wait_always(&queue->idle, NULL);
    fd_close(*slot);
    *slot = fd;
    if (started)
        co_move_to(home);
}

bool co_vhost_user_queue_set_map(struct vhost_user_queue *queue, struct guest_map *map, struct error **err)
{
    struct loop *home = loop_current();
    bool done;

    if (!queue->started)
        return true;
    co_move_to(queue->loop);
    done = virtqueue_set_map(queue->ring, map, err);
    co_move_to(home);
    return done;
}

void co_vhost_user_queue_set_log(struct vhost_user_queue *queue, struct dirty_log *log)
{
    struct loop *home = loop_current();

    if (!queue->started)
        return;
    co_move_to(queue->loop);
    virtqueue_set_log(queue->ring, log, log_address(queue));
    co_move_to(home);
}
