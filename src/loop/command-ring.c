/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The loop looks at the ring once a turn, as at any event source; its event descriptor is armed while the loop sleeps
 * only. Work that the kernel has put off to our thread is done in the call that submits, or that reaps.
 */
#include "loop/command-ring.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <liburing.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/error.h"
#include "loop/coroutine.h"
#include "loop/event.h"
#include "loop/loop-internal.h"

enum { ENTRY_BYTES = 128 };

/* Of who waits, from the loop's free lists. */
struct ring_op {
    struct ring_op *previous;
    struct ring_op *next;
    struct coroutine *coroutine;
    int result;
    bool done;
};

struct command_ring {
    struct io_uring ring;
    struct loop *loop;
    int fd; /* signalled by the kernel */
    struct event_source *source;
    struct co_task *reaper;
    struct ring_op *ops; /* under way */
    bool flushing;       /* the coroutine that submits is there */
    bool closed;
};

static void end_op(struct command_ring *ring, struct ring_op *op, int result)
{
    assert(!op->done);
    if (op->next)
        op->next->previous = op->previous;
    if (op->previous)
        op->previous->next = op->next;
    else
        ring->ops = op->next;
    op->result = result;
    op->done = true;
    co_wake(op->coroutine);
}

static void reap(struct command_ring *ring)
{
    struct io_uring_cqe *cqe;

    while (!io_uring_peek_cqe(&ring->ring, &cqe)) {
        struct ring_op *op = (struct ring_op *)(uintptr_t)cqe->user_data;
        int result = cqe->res;

        io_uring_cqe_seen(&ring->ring, cqe);
        end_op(ring, op, result);
    }
}

/* --- looking --- */

static bool look(void *opaque)
{
    struct io_uring *ring = &((struct command_ring *)opaque)->ring;

    return io_uring_cq_ready(ring) ||
           (IO_URING_READ_ONCE(*ring->sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
}

static void set_signals(struct command_ring *ring, bool wanted)
{
    int result = io_uring_cq_eventfd_toggle(&ring->ring, wanted);

    assert(!result);
}

static bool rest(void *opaque)
{
    set_signals(opaque, true);
    atomic_thread_fence(memory_order_seq_cst);
    return look(opaque);
}

static const struct event_source_ops source_ops = {.look = look, .rest = rest};

static void reaper_run(void *opaque)
{
    struct command_ring *ring = opaque;

    while (!co_event_wait(ring->source)) {
        set_signals(ring, false);
        (void)io_uring_get_events(&ring->ring);
        reap(ring);
    }
}

/* --- commands --- */

static void submit(struct command_ring *ring)
{
    int result = io_uring_submit_and_get_events(&ring->ring);

    assert(result >= 0 || result == -EBUSY || result == -EAGAIN || result == -EINTR || result == -ENOMEM);
    reap(ring);
}

static void flush_run(void *opaque)
{
    struct command_ring *ring = opaque;

    ring->flushing = false;
    if (!ring->closed)
        submit(ring);
}

static struct io_uring_sqe *take_entry(struct command_ring *ring)
{
    struct io_uring_sqe *entry = io_uring_get_sqe(&ring->ring);

    while (!entry) {
        submit(ring);
        entry = io_uring_get_sqe(&ring->ring);
    }
    memset((void *)entry, 0, ENTRY_BYTES);
    return entry;
}

static struct ring_op *begin_op(struct command_ring *ring)
{
    struct ring_op *op = loop_alloc(sizeof(*op));

    *op = (struct ring_op){.coroutine = co_self(), .next = ring->ops};
    if (op->next)
        op->next->previous = op;
    ring->ops = op;
    return op;
}

int co_ring_command(struct command_ring *ring, const struct ring_command *command)
{
    struct io_uring_sqe *entry;
    struct ring_op *op;
    int result;

    assert(ring->loop == loop_self());
    if (ring->closed)
        return -ECANCELED;
    op = begin_op(ring);
    entry = take_entry(ring);
    entry->opcode = IORING_OP_URING_CMD;
    entry->fd = command->fd;
    entry->cmd_op = command->operation;
    entry->addr = command->address;
    entry->len = command->length;
    entry->user_data = (uintptr_t)op;
    memcpy(entry->cmd, command->data, sizeof(command->data));
    /* Behind everything that is ready now, which may have commands, too. */
    if (!ring->flushing) {
        ring->flushing = true;
        co_spawn(ring->loop, flush_run, ring);
    }
    while (!op->done)
        co_suspend();
    result = op->result;
    loop_release(op, sizeof(*op));
    return result;
}

/* --- life --- */

static bool set_up(struct command_ring *ring, unsigned depth, struct error **err)
{
    const unsigned flags = IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                           IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL;
    int result = io_uring_queue_init(depth, &ring->ring, flags);

    if (result < 0)
        return error_set_errno(err, result, "io_uring for commands to drivers");
    io_uring_ring_dontfork(&ring->ring);
    ring->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    result = ring->fd < 0 ? -errno : io_uring_register_eventfd(&ring->ring, ring->fd);
    if (result < 0)
        error_set_errno(err, result, "io_uring for commands to drivers");
    else
        ring->source = event_source_new(ring->fd, &source_ops, ring, err);
    if (ring->source)
        return true;
    io_uring_queue_exit(&ring->ring);
    fd_close(ring->fd);
    return false;
}

struct command_ring *command_ring_new(unsigned depth, struct error **err)
{
    struct command_ring *ring;

    if (loop_self()->ops != &uring_backend_ops) {
        error_set(err, "the loop is not on io_uring");
        return NULL;
    }
    ring = g_new0(struct command_ring, 1);
    ring->loop = loop_self();
    if (!set_up(ring, depth, err)) {
        g_free(ring);
        return NULL;
    }
    ring->reaper = co_task_start(ring->loop, reaper_run, ring);
    return ring;
}

void co_command_ring_close(struct command_ring *ring)
{
    assert(ring->loop == loop_self() && !ring->closed);
    ring->closed = true;
    co_task_cancel(ring->reaper);
    co_task_join(TAKE(ring->reaper));
    co_event_source_free(TAKE(ring->source));
    while (ring->flushing)
        co_yield ();
    io_uring_queue_exit(&ring->ring);
    fd_close(ring->fd);
    while (ring->ops)
        end_op(ring, ring->ops, -ECANCELED);
}

void command_ring_free(struct command_ring *ring)
{
    if (!ring)
        return;
    assert(ring->closed && !ring->ops && !ring->flushing);
    g_free(ring);
}
