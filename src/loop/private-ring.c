/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A ring for the files of a loop that is not built on one: what the `io_uring` engine means on the epoll back end. An
 * event descriptor announces completions; the loop submits before it waits.
 */
#include "loop/loop-internal.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/error.h"

enum { PRIVATE_ENTRIES = 128 };

struct private_op {
    struct coroutine *coroutine;
    int result;
    bool done;
};

struct private_ring {
    struct watch watch; /* its descriptor is signalled by completions; edge-triggered, so never read */
    struct io_uring ring;
};

static void private_ring_reap(struct private_ring *private)
{
    struct io_uring_cqe *cqe;

    while (!io_uring_peek_cqe(&private->ring, &cqe)) {
        struct private_op *op = (struct private_op *)(uintptr_t)cqe->user_data;

        op->result = cqe->res;
        op->done = true;
        io_uring_cqe_seen(&private->ring, cqe);
        co_wake(op->coroutine);
    }
}

static void private_ring_ready(struct watch *watch)
{
    private_ring_reap(container_of(watch, struct private_ring, watch));
}

void private_ring_submit(struct private_ring *private)
{
    int result;

    if (!private || !io_uring_sq_ready(&private->ring))
        return;
    result = io_uring_submit(&private->ring);
    assert(result >= 0 || result == -EBUSY || result == -EAGAIN || result == -EINTR);
    /* What was in memory already has ended. */
    private_ring_reap(private);
}

bool private_ring_available(struct loop *loop, struct error **err)
{
    struct private_ring *private;
    int result;

    if (loop->private_ring)
        return true;
    private = g_new0(struct private_ring, 1);
    result = io_uring_queue_init(PRIVATE_ENTRIES, &private->ring, 0);
    if (result < 0) {
        g_free(private);
        return error_set_errno(err, result, "The kernel does not let us use io_uring");
    }
    private->watch.ready = private_ring_ready;
    private->watch.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    result = private->watch.fd < 0 ? -errno : io_uring_register_eventfd(&private->ring, private->watch.fd);
    if (result < 0) {
        error_set_errno(err, result, "Failed to set up io_uring");
        io_uring_queue_exit(&private->ring);
        fd_close(private->watch.fd);
        g_free(private);
        return false;
    }
    io_uring_ring_dontfork(&private->ring);
    result = loop->ops->watch(loop, &private->watch);
    assert(!result);
    loop->private_ring = private;
    return true;
}

void private_ring_free(struct private_ring *private)
{
    if (!private)
        return;
    io_uring_queue_exit(&private->ring);
    close(private->watch.fd);
    g_free(private);
}

static struct io_uring_sqe *private_ring_sqe(struct private_ring *private)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&private->ring);

    while (!sqe) {
        private_ring_submit(private);
        private_ring_reap(private);
        sqe = io_uring_get_sqe(&private->ring);
    }
    return sqe;
}

ssize_t co_private_ring_transfer(const struct file_request *request)
{
    struct loop *loop = loop_self();
    uint32_t batch = loop_take_batch(loop);
    struct private_op op;

    if (!private_ring_available(loop, NULL))
        return co_posix_transfer(request);
    do {
        struct io_uring_sqe *sqe = private_ring_sqe(loop->private_ring);

        op = (struct private_op){.coroutine = co_self()};
        uring_prepare_file(sqe, request);
        sqe->user_data = (uintptr_t)&op;
        if (batch && io_uring_sq_ready(&loop->private_ring->ring) >= batch)
            private_ring_submit(loop->private_ring);
        while (!op.done)
            co_suspend();
    } while (op.result == -EINTR || op.result == -EAGAIN);
    return op.result;
}
