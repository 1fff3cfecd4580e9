/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The io_uring back end. A turn submits everything that coroutines have prepared, waits, and reaps, in one system call.
 * The description of an operation lies on the stack of the coroutine that waits for it, so an operation that is
 * cancelled is waited for all the same.
 */
#include "loop/loop-internal.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <liburing.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/error.h"
#include "base/units.h"

enum { SQ_ENTRIES = 256, CQ_ENTRIES = 4096 };

struct uring {
    struct io_uring ring;
    struct watch wake; /* an eventfd that kick() writes to; it is never read, polling it tells of each write */
    bool reminding;    /* a reminder is under way */
    struct __kernel_timespec reminder; /* its delay */
};

/* An operation under way. The user_data of its entry; that of a watch has the lowest bit set, 0 is ignored; and one is
 * the reminder's. */
struct uring_op {
    struct coroutine *coroutine;
    int result;
    bool done;
};
enum { USER_DATA_WATCH = 1, USER_DATA_REMINDER = 2 };

/* Best first; a kernel that does not know a flag refuses. */
static const unsigned setup_flags[] = {
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
    IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
    IORING_SETUP_SUBMIT_ALL,
    0,
};

static struct uring *uring_of(struct loop *loop)
{
    return loop->state;
}

/* What io_uring_enter(2) may say of a ring that is in order: a signal, time, or that the kernel is short of something.
 */
static bool enter_result_valid(int result)
{
    return result >= 0 || result == -EINTR || result == -ETIME || result == -EBUSY || result == -EAGAIN ||
           result == -ENOMEM;
}

static void uring_flush(struct uring *uring)
{
    int result = io_uring_submit(&uring->ring);

    assert(enter_result_valid(result));
}

static void uring_reap(struct loop *loop);

/* An entry to fill in; makes room first where there is none. */
static struct io_uring_sqe *uring_sqe(struct loop *loop)
{
    struct uring *uring = uring_of(loop);
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);

    while (unlikely(!sqe)) {
        uring_flush(uring);
        sqe = io_uring_get_sqe(&uring->ring);
        if (!sqe) {
            /* The completion side is full: the kernel takes nothing more before that is emptied. */
            io_uring_get_events(&uring->ring);
            uring_reap(loop);
        }
    }
    return sqe;
}

/* --- watches --- */

static uint64_t watch_data(const struct watch *watch)
{
    return (uintptr_t)watch | USER_DATA_WATCH;
}

static int uring_watch(struct loop *loop, struct watch *watch)
{
    struct io_uring_sqe *sqe = uring_sqe(loop);

    io_uring_prep_poll_multishot(sqe, watch->fd, POLLIN);
    sqe->user_data = watch_data(watch);
    return 0;
}

static void uring_unwatch(struct loop *loop, struct watch *watch)
{
    struct io_uring_sqe *sqe = uring_sqe(loop);

    assert(watch->ending);
    io_uring_prep_cancel64(sqe, watch_data(watch), 0);
    sqe->user_data = 0;
}

static void uring_watch_event(struct loop *loop, struct watch *watch, const struct io_uring_cqe *cqe)
{
    if (!(cqe->flags & IORING_CQE_F_MORE)) {
        watch->error = watch->removable && cqe->res < 0 ? cqe->res : 0;
        watch->ended = watch->ending || watch->error;
        if (!watch->ended)
            (void)uring_watch(loop, watch);
    }
    watch->ready(watch);
}

static void uring_wake_ready(struct watch *watch)
{
    /* What has been handed over is in the inbox. */
}

static void uring_kick(struct loop *loop)
{
    eventfd_write(uring_of(loop)->wake.fd, 1);
}

static void uring_remind(struct loop *loop, int64_t delay_ns)
{
    struct uring *uring = uring_of(loop);
    struct io_uring_sqe *sqe;

    if (uring->reminding)
        return;
    sqe = uring_sqe(loop);
    uring->reminder.tv_sec = delay_ns / NS_PER_S;
    uring->reminder.tv_nsec = delay_ns % NS_PER_S;
    io_uring_prep_timeout(sqe, &uring->reminder, 0, 0);
    sqe->user_data = USER_DATA_REMINDER;
    uring->reminding = true;
}

/* --- turns --- */

static void uring_complete(struct loop *loop, const struct io_uring_cqe *cqe)
{
    if (cqe->user_data & USER_DATA_WATCH) {
        uring_watch_event(loop, (struct watch *)(uintptr_t)(cqe->user_data & ~(uint64_t)USER_DATA_WATCH), cqe);
    } else if (cqe->user_data == USER_DATA_REMINDER) {
        uring_of(loop)->reminding = false;
    } else if (cqe->user_data) {
        struct uring_op *op = (struct uring_op *)(uintptr_t)cqe->user_data;

        assert(!op->done);
        op->result = cqe->res;
        op->done = true;
        co_wake(op->coroutine);
    }
}

static void uring_reap(struct loop *loop)
{
    struct io_uring_cq *cq = &uring_of(loop)->ring.cq;
    unsigned mask = *cq->kring_mask;
    unsigned head;

    /* Each is copied and taken before it is acted on, since what it leads to may reap, too. */
    while ((head = *cq->khead) != io_uring_smp_load_acquire(cq->ktail)) {
        const struct io_uring_cqe *cqe = &cq->cqes[head & mask];
        struct io_uring_cqe taken = {.user_data = cqe->user_data, .res = cqe->res, .flags = cqe->flags};

        io_uring_smp_store_release(cq->khead, head + 1);
        uring_complete(loop, &taken);
    }
}

static bool uring_has_events(struct loop *loop)
{
    struct io_uring *ring = &uring_of(loop)->ring;

    return io_uring_cq_ready(ring) ||
           (IO_URING_READ_ONCE(*ring->sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
}

static void uring_turn(struct loop *loop, int64_t timeout_ns)
{
    struct uring *uring = uring_of(loop);
    struct __kernel_timespec timeout;
    struct io_uring_cqe *cqe;
    int result = 0;

    if (unlikely(loop->native)) {
        native_aio_submit(loop->native);
        if (loop->ready.first)
            timeout_ns = 0;
    }
    if (timeout_ns < 0) {
        result = io_uring_submit_and_wait(&uring->ring, 1);
    } else if (timeout_ns > 0) {
        timeout.tv_sec = timeout_ns / NS_PER_S;
        timeout.tv_nsec = timeout_ns % NS_PER_S;
        result = io_uring_submit_and_wait_timeout(&uring->ring, &cqe, 1, &timeout, NULL);
    } else if (io_uring_sq_ready(&uring->ring) || !(uring->ring.flags & IORING_SETUP_TASKRUN_FLAG) ||
               uring_has_events(loop)) {
        result = io_uring_submit_and_get_events(&uring->ring);
    }
    assert(enter_result_valid(result));
    uring_reap(loop);
}

/* --- operations --- */

static void uring_cancel(struct loop *loop, struct uring_op *op)
{
    struct io_uring_sqe *sqe = uring_sqe(loop);

    io_uring_prep_cancel(sqe, op, 0);
    sqe->user_data = 0;
}

/* Waits for the operation that `sqe` describes; nothing cuts it short. */
static int uring_wait(struct loop *loop, struct io_uring_sqe *sqe)
{
    struct uring_op op = {.coroutine = loop->current};
    uint32_t batch = loop_take_batch(loop);

    sqe->user_data = (uintptr_t)&op;
    if (unlikely(batch) && io_uring_sq_ready(&uring_of(loop)->ring) >= batch)
        uring_flush(uring_of(loop));
    while (!op.done)
        co_suspend();
    return op.result;
}

/* The same, cancellable. `sqe` must be the last that was taken. */
static int uring_wait_cancellable(struct loop *loop, struct io_uring_sqe *sqe, struct cancellable *wait)
{
    struct uring_op op = {.coroutine = loop->current};
    bool cancelling = false;
    int reason = 0;

    sqe->user_data = (uintptr_t)&op;
    while (!op.done) {
        co_suspend();
        if (op.done || cancelling)
            continue;
        reason = cancellable_reason(wait);
        if (reason) {
            cancelling = true;
            uring_cancel(loop, &op);
        }
    }
    /* What has been done in spite of the cancellation counts: data that has moved must not be forgotten. */
    return cancelling && (op.result == -ECANCELED || op.result == -EINTR) ? reason : op.result;
}

static int uring_co_poll(int fd, int events)
{
    struct loop *loop = loop_self();
    struct io_uring_sqe *sqe;
    struct cancellable wait;
    int result;

    result = cancellable_begin(&wait);
    if (result < 0)
        return result;
    sqe = uring_sqe(loop);
    io_uring_prep_poll_add(sqe, fd, (unsigned)events);
    result = uring_wait_cancellable(loop, sqe, &wait);
    cancellable_end(&wait);
    return result;
}

static void uring_prepare_accept(struct io_uring_sqe *sqe, const void *request)
{
    const int *fd = request;

    io_uring_prep_accept(sqe, *fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

struct connect_request {
    int fd;
    const struct sockaddr *address;
    socklen_t size;
};

static void uring_prepare_connect(struct io_uring_sqe *sqe, const void *request)
{
    const struct connect_request *connect = request;

    io_uring_prep_connect(sqe, connect->fd, connect->address, connect->size);
}

static void uring_prepare_socket(struct io_uring_sqe *sqe, const void *request)
{
    const struct socket_request *socket = request;
    int flags = socket->flags | MSG_NOSIGNAL;

    if (socket->message && socket->write)
        io_uring_prep_sendmsg(sqe, socket->fd, socket->message, (unsigned)flags);
    else if (socket->message)
        io_uring_prep_recvmsg(sqe, socket->fd, socket->message, (unsigned)flags);
    else if (socket->write)
        io_uring_prep_send(sqe, socket->fd, socket->data, socket->size, flags);
    else
        io_uring_prep_recv(sqe, socket->fd, socket->data, socket->size, flags);
}

static void uring_prepare_descriptor(struct io_uring_sqe *sqe, const void *request)
{
    const struct socket_request *descriptor = request;
    unsigned size = (unsigned)MIN(descriptor->size, (size_t)INT_MAX);

    if (descriptor->write)
        io_uring_prep_write(sqe, descriptor->fd, descriptor->data, size, (uint64_t)-1);
    else
        io_uring_prep_read(sqe, descriptor->fd, descriptor->data, size, (uint64_t)-1);
}

/* A cancellable operation, repeated as long as a signal interrupts it or the descriptor is not ready. */
static int uring_co_run(int fd, int events, void (*prepare)(struct io_uring_sqe *sqe, const void *request),
                        const void *request)
{
    struct loop *loop = loop_self();
    struct cancellable wait;
    int result;

    for (;;) {
        struct io_uring_sqe *sqe;

        result = cancellable_begin(&wait);
        if (unlikely(result < 0))
            return result;
        sqe = uring_sqe(loop);
        prepare(sqe, request);
        result = uring_wait_cancellable(loop, sqe, &wait);
        cancellable_end(&wait);
        if (likely(result != -EINTR && result != -EAGAIN))
            return result;
        if (result == -EAGAIN) {
            if (!events)
                return result;
            result = uring_co_poll(fd, events);
            if (result < 0)
                return result;
        }
    }
}

static int uring_co_accept(int fd)
{
    return uring_co_run(fd, POLLIN, uring_prepare_accept, &fd);
}

static int uring_co_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    struct connect_request request = {.fd = fd, .address = address, .size = size};

    return uring_co_run(fd, 0, uring_prepare_connect, &request);
}

static ssize_t uring_co_transfer(const struct socket_request *request)
{
    /* What does not wait needs no turn of the loop. */
    if (request->flags & MSG_DONTWAIT)
        return co_cancelled() ? -ECANCELED : posix_socket_transfer(request);
    return uring_co_run(request->fd, request->write ? POLLOUT : POLLIN, uring_prepare_socket, request);
}

static ssize_t uring_co_read(int fd, void *to, size_t size)
{
    struct socket_request request = {.fd = fd, .data = to, .size = size};

    return uring_co_run(fd, POLLIN, uring_prepare_descriptor, &request);
}

static ssize_t uring_co_write(int fd, const void *from, size_t size)
{
    struct socket_request request = {.fd = fd, .write = true, .data = (void *)(uintptr_t)from, .size = size};

    return uring_co_run(fd, POLLOUT, uring_prepare_descriptor, &request);
}

/*
 * Nobody waits for it, and a failure says that the other side is awake or does not want to be woken. Where it may
 * block, a thread of the kernel's does.
 */
static void uring_signal(struct loop *loop, int fd, bool nonblocking)
{
    static const uint64_t one = 1;
    struct io_uring_sqe *sqe = uring_sqe(loop);

    io_uring_prep_write(sqe, fd, &one, sizeof(one), (uint64_t)-1);
    sqe->rw_flags = nonblocking ? RWF_NOWAIT : 0;
    sqe->user_data = 0;
    if (uring_of(loop)->ring.features & IORING_FEAT_CQE_SKIP)
        sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
}

/* --- files --- */

void uring_prepare_file(struct io_uring_sqe *sqe, const struct file_request *request)
{
    const struct iovec *iov = request->iov;
    bool single = request->iov_count == 1 && iov->iov_len <= INT_MAX;

    if (single && request->write)
        io_uring_prep_write(sqe, request->fd, iov->iov_base, (unsigned)iov->iov_len, request->offset);
    else if (single)
        io_uring_prep_read(sqe, request->fd, iov->iov_base, (unsigned)iov->iov_len, request->offset);
    else if (request->write)
        io_uring_prep_writev(sqe, request->fd, iov, (unsigned)request->iov_count, request->offset);
    else
        io_uring_prep_readv(sqe, request->fd, iov, (unsigned)request->iov_count, request->offset);
    sqe->rw_flags = request->rwf_flags;
}

static ssize_t uring_co_file_transfer(const struct file_request *request, enum file_engine engine)
{
    struct loop *loop = loop_self();
    int result;

    if (unlikely(engine == FILE_ENGINE_THREADS))
        return co_posix_transfer(request);
    if (unlikely(engine == FILE_ENGINE_NATIVE))
        return co_native_aio_transfer(request);
    do {
        struct io_uring_sqe *sqe = uring_sqe(loop);

        uring_prepare_file(sqe, request);
        result = uring_wait(loop, sqe);
    } while (unlikely(result == -EINTR || result == -EAGAIN));
    return result;
}

static int uring_co_file_sync(int fd, bool data_only)
{
    struct loop *loop = loop_self();
    int result;

    do {
        struct io_uring_sqe *sqe = uring_sqe(loop);

        io_uring_prep_fsync(sqe, fd, data_only ? IORING_FSYNC_DATASYNC : 0);
        result = uring_wait(loop, sqe);
    } while (result == -EINTR);
    return result;
}

static int uring_co_file_allocate(int fd, int mode, uint64_t offset, uint64_t bytes)
{
    struct loop *loop = loop_self();
    int result;

    do {
        struct io_uring_sqe *sqe = uring_sqe(loop);

        io_uring_prep_fallocate(sqe, fd, mode, (off_t)offset, (off_t)bytes);
        result = uring_wait(loop, sqe);
    } while (result == -EINTR);
    return result;
}

static bool uring_engine_available(struct loop *loop, enum file_engine engine, struct error **err)
{
    return engine != FILE_ENGINE_NATIVE || native_aio_available(loop, err);
}

/* --- life --- */

static int uring_setup(struct io_uring *ring)
{
    int result = -EINVAL;

    for (size_t i = 0; i < G_N_ELEMENTS(setup_flags); i++) {
        struct io_uring_params params = {
            .flags = setup_flags[i] | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
            .cq_entries = CQ_ENTRIES,
        };

        result = io_uring_queue_init_params(SQ_ENTRIES, ring, &params);
        if (result != -EINVAL)
            break;
    }
    return result;
}

static bool uring_open(struct loop *loop, const struct loop_options *options, struct error **err)
{
    /* Of the kernels that know these two, all have multishot polling and everything else that is used here. */
    const unsigned needed = IORING_FEAT_EXT_ARG | IORING_FEAT_RSRC_TAGS;
    struct uring *uring = g_new0(struct uring, 1);
    int result;

    result = uring_setup(&uring->ring);
    if (result < 0) {
        g_free(uring);
        return error_set_errno(err, result, "The kernel does not let us use io_uring");
    }
    if ((uring->ring.features & needed) != needed) {
        io_uring_queue_exit(&uring->ring);
        g_free(uring);
        return error_set(err, "The kernel is too old for io_uring: Linux 5.13 is needed");
    }
    uring->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (uring->wake.fd < 0) {
        error_set_errno(err, errno, "Failed to create an event descriptor");
        io_uring_queue_exit(&uring->ring);
        g_free(uring);
        return false;
    }
    io_uring_ring_dontfork(&uring->ring);
    /* Saves the look-up of the descriptor on each system call; where the kernel cannot, it is looked up. */
    (void)io_uring_register_ring_fd(&uring->ring);
    loop->state = uring;
    uring->wake.ready = uring_wake_ready;
    (void)uring_watch(loop, &uring->wake);
    return true;
}

static void uring_close(struct loop *loop)
{
    struct uring *uring = uring_of(loop);

    io_uring_queue_exit(&uring->ring);
    close(uring->wake.fd);
    g_free(uring);
    loop->state = NULL;
}

static const struct loop_file_ops uring_file_ops = {
    .co_open = posix_co_file_open,
    .close = posix_file_close,
    .co_transfer = uring_co_file_transfer,
    .engine_available = uring_engine_available,
    .co_sync = uring_co_file_sync,
    .co_allocate = uring_co_file_allocate,
    .co_truncate = posix_co_file_truncate,
    .co_stat = posix_co_file_stat,
    .co_seek = posix_co_file_seek,
    .co_copy_range = posix_co_file_copy_range,
    .co_advise = posix_co_file_advise,
    .co_ioctl = posix_co_file_ioctl,
    .co_unlink = posix_co_file_unlink,
    .co_rename = posix_co_file_rename,
    .lock_set = posix_file_lock_set,
    .lock_test = posix_file_lock_test,
};

const struct loop_backend_ops uring_backend_ops = {
    .open = uring_open,
    .close = uring_close,
    .turn = uring_turn,
    .has_events = uring_has_events,
    .kick = uring_kick,
    .remind = uring_remind,
    .now_ns = clock_now_ns,
    .watch = uring_watch,
    .unwatch = uring_unwatch,
    .co_accept = uring_co_accept,
    .co_connect = uring_co_connect,
    .co_transfer = uring_co_transfer,
    .co_read = uring_co_read,
    .co_write = uring_co_write,
    .co_poll = uring_co_poll,
    .signal = uring_signal,
    .shutdown = posix_socket_shutdown,
    .co_work = co_worker_pool_run,
    .file = &uring_file_ops,
};
