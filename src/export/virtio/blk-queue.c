/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A coroutine waits for kicks and takes requests out, each of which runs in a coroutine of its own; what has ended
 * within a turn of the loop is told in one go.
 */
#include "export/virtio/blk-queue.h"

#include <assert.h>

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "export/virtio/blk.h"
#include "export/virtio/memory.h"
#include "export/virtio/queue.h"
#include "loop/coroutine.h"
#include "loop/event.h"
#include "loop/loop.h"
#include "loop/socket.h"

struct request {
    struct virtio_blk_queue *queue;
    struct virtq_buffer buffer;
};

static void tell_run(void *opaque)
{
    struct virtio_blk_queue *queue = opaque;

    /* More may end while the signal is on its way. */
    while (virtqueue_must_notify(queue->ring))
        queue->ops->co_interrupt(queue);
    queue->telling = false;
    co_condition_broadcast(&queue->idle);
}

static void tell(struct virtio_blk_queue *queue)
{
    if (queue->telling)
        return;
    queue->telling = true;
    co_spawn(queue->loop, tell_run, queue);
}

static void CO_FN co_declare_broken(struct virtio_blk_queue *queue)
{
    if (queue->declared_broken)
        return;
    queue->declared_broken = true;
    log_warning("export '%s': queue %u is broken: %s", queue->name, queue->index, virtqueue_why(queue->ring));
    queue->ops->co_broken(queue);
}

static void request_run(void *opaque)
{
    struct request *request = opaque;
    struct virtio_blk_queue *queue = request->queue;
    uint32_t written = 0;

    if (!co_virtio_blk_do(queue->blk, &request->buffer, &written) && !virtqueue_broken(queue->ring)) {
        virtqueue_break(queue->ring, "request without a status byte");
        co_declare_broken(queue);
    }
    if (unlikely(queue->fragile && guest_map_damaged(request->buffer.map)) && !virtqueue_broken(queue->ring)) {
        virtqueue_break(queue->ring, "address of a page that is not there");
        co_declare_broken(queue);
    }
    virtqueue_push(queue->ring, &request->buffer, written);
    loop_release(request, sizeof(*request));
    tell(queue);
}

/* Starts what is there; false: the queue is broken. */
static bool CO_FN co_take_requests(struct virtio_blk_queue *queue)
{
    int result;

    do {
        struct request *request = loop_alloc(sizeof(*request));

        request->queue = queue;
        result = virtqueue_pop(queue->ring, &request->buffer);
        if (result == 1) {
            TRACE(virtio_blk_request, "%s queue %u id %u", queue->name, queue->index, request->buffer.id);
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

static bool has_available(void *opaque)
{
    const struct virtio_blk_queue *queue = opaque;

    return virtqueue_has_available(queue->ring);
}

static bool want_kicks(void *opaque)
{
    struct virtio_blk_queue *queue = opaque;

    if (!queue->kicks_wanted) {
        queue->kicks_wanted = true;
        virtqueue_want_kicks(queue->ring, true);
    }
    return virtqueue_has_available(queue->ring);
}

static const struct event_source_ops kick_ops = {.look = has_available, .rest = want_kicks};

/* Kicks are wanted only while the loop sleeps; else it looks. */
static void serve_run(void *opaque)
{
    struct virtio_blk_queue *queue = opaque;
    AUTO(error) error = NULL;
    struct event_source *source = event_source_new(queue->kick_fd, &kick_ops, queue, &error);

    if (!source) {
        virtqueue_break(queue->ring, "kicks: %s", error_message(error));
        co_declare_broken(queue);
        return;
    }
    queue->kicks_wanted = false;
    virtqueue_want_kicks(queue->ring, false);
    while (co_take_requests(queue) && !co_event_wait(source)) {
        if (queue->kicks_wanted)
            virtqueue_want_kicks(queue->ring, false);
        queue->kicks_wanted = false;
    }
    co_event_source_free(source);
}

void co_virtio_blk_queue_start(struct virtio_blk_queue *queue, struct virtqueue *ring)
{
    struct loop *home = loop_current();

    assert(!queue->started);
    queue->started = true;
    co_move_to(queue->loop);
    queue->ring = ring;
    queue->declared_broken = false;
    queue->server = co_task_start(queue->loop, serve_run, queue);
    co_move_to(home);
    TRACE(virtio_blk_queue_start, "%s queue %u", queue->name, queue->index);
}

uint32_t co_virtio_blk_queue_stop(struct virtio_blk_queue *queue)
{
    struct loop *home = loop_current();
    uint32_t base;

    assert(queue->started);
    co_move_to(queue->loop);
    co_task_cancel(queue->server);
    co_task_join(TAKE(queue->server));
    while (queue->telling || virtqueue_outstanding(queue->ring))
        co_condition_wait_always(&queue->idle, NULL);
    base = virtqueue_base(queue->ring);
    virtqueue_free(TAKE(queue->ring));
    /* Signals leave with the turn, before anybody closes their descriptors. */
    co_yield ();
    co_move_to(home);
    queue->started = false;
    TRACE(virtio_blk_queue_stop, "%s queue %u at 0x%x", queue->name, queue->index, base);
    return base;
}

uint32_t co_virtio_blk_queue_base(struct virtio_blk_queue *queue)
{
    struct loop *home = loop_current();
    uint32_t base;

    assert(queue->started);
    co_move_to(queue->loop);
    base = virtqueue_base(queue->ring);
    co_move_to(home);
    return base;
}

void co_virtio_blk_queue_set_fd(struct virtio_blk_queue *queue, int *slot, int fd)
{
    struct loop *home = loop_current();
    bool started = queue->started;

    if (started)
        co_move_to(queue->loop);
    while (queue->telling)
        co_condition_wait_always(&queue->idle, NULL);
    co_yield ();
    fd_close(*slot);
    *slot = fd;
    if (started)
        co_move_to(home);
}

bool co_virtio_blk_queue_set_map(struct virtio_blk_queue *queue, struct guest_map *map, struct error **err)
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

void co_virtio_blk_queue_set_log(struct virtio_blk_queue *queue, struct dirty_log *log, uint64_t used_address)
{
    struct loop *home = loop_current();

    if (!queue->started)
        return;
    co_move_to(queue->loop);
    virtqueue_set_log(queue->ring, log, used_address);
    co_move_to(home);
}
