/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The epoll back end, for kernels and containers that forbid io_uring. Sockets are tried first and waited for when they
 * are not ready; files are read and written by worker threads, except for data that is in memory already.
 *
 * Registrations are one-shot and are left behind disarmed, so that closing a descriptor needs no word to the loop, on
 * which of the loops it may have been waited for.
 */
#include "loop/loop-internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "base/units.h"

enum { EVENTS_MAX = 64, FD_MAX = 1 << 24 };

struct epoll_waiter {
    struct epoll_waiter *next;
    struct coroutine *coroutine;
    int events;
    int ready; /* the events that have come; not in the list any more */
};

struct epoll {
    int fd;
    bool coarse; /* the kernel waits for whole milliseconds only */
    struct watch wake;
    uint32_t capacity;
    struct epoll_waiter **waiters; /* by descriptor */
};

/* The data of a registration: a descriptor, or a watch. */
enum { EPOLL_DATA_WATCH = 1 };

static struct epoll *epoll_of(struct loop *loop)
{
    return loop->state;
}

/* --- watches --- */

static int epoll_watch(struct loop *loop, struct watch *watch)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = (uintptr_t)watch | EPOLL_DATA_WATCH};

    return epoll_ctl(epoll_of(loop)->fd, EPOLL_CTL_ADD, watch->fd, &event) ? -errno : 0;
}

static void epoll_unwatch(struct loop *loop, struct watch *watch)
{
    assert(watch->ending);
    (void)epoll_ctl(epoll_of(loop)->fd, EPOLL_CTL_DEL, watch->fd, NULL);
    watch->ended = true;
}

static void epoll_wake_ready(struct watch *watch)
{
    /* What has been handed over is in the inbox; edge-triggered, so the counter need not be read. */
}

static void epoll_kick(struct loop *loop)
{
    eventfd_write(epoll_of(loop)->wake.fd, 1);
}

/* --- waiting for descriptors --- */

/* Room for `fd` in the table. */
static struct epoll_waiter **epoll_waiters(struct epoll *epoll, int fd)
{
    assert(fd >= 0);
    assert(fd < FD_MAX);
    if ((uint32_t)fd >= epoll->capacity) {
        uint32_t capacity = MAX(64, epoll->capacity);

        while (capacity <= (uint32_t)fd)
            capacity *= 2;
        epoll->waiters = g_renew(struct epoll_waiter *, epoll->waiters, capacity);
        memset(epoll->waiters + epoll->capacity, 0, (capacity - epoll->capacity) * sizeof(*epoll->waiters));
        epoll->capacity = capacity;
    }
    return &epoll->waiters[fd];
}

/* Arms the descriptor for what its waiters want: 0 or -errno. */
static int epoll_arm(struct epoll *epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLONESHOT, .data.u64 = (uint64_t)fd << 1};
    int failed;

    for (struct epoll_waiter *waiter = *epoll_waiters(epoll, fd); waiter; waiter = waiter->next)
        event.events |= (uint32_t)waiter->events;
    failed = epoll_ctl(epoll->fd, EPOLL_CTL_MOD, fd, &event);
    if (failed && errno == ENOENT)
        failed = epoll_ctl(epoll->fd, EPOLL_CTL_ADD, fd, &event);
    return failed ? -errno : 0;
}

static void epoll_remove(struct epoll *epoll, int fd, struct epoll_waiter *waiter)
{
    struct epoll_waiter **link = epoll_waiters(epoll, fd);

    while (*link != waiter) {
        assert(*link);
        link = &(*link)->next;
    }
    *link = waiter->next;
}

static void epoll_dispatch(struct epoll *epoll, int fd, int events)
{
    struct epoll_waiter **link = epoll_waiters(epoll, fd);

    while (*link) {
        struct epoll_waiter *waiter = *link;
        int ready = events & (waiter->events | EPOLLERR | EPOLLHUP);

        if (ready) {
            waiter->ready = ready;
            *link = waiter->next;
            co_wake(waiter->coroutine);
        } else {
            link = &waiter->next;
        }
    }
    if (epoll->waiters[fd])
        (void)epoll_arm(epoll, fd);
}

/* Waits in the order: register, suspend, and on cancellation take the registration back. */
static int epoll_wait_for(struct loop *loop, int fd, int events, struct cancellable *wait)
{
    struct epoll *epoll = epoll_of(loop);
    struct epoll_waiter waiter = {.coroutine = loop->current, .events = events};
    struct epoll_waiter **first = epoll_waiters(epoll, fd);
    int result;

    waiter.next = *first;
    *first = &waiter;
    result = epoll_arm(epoll, fd);
    if (result < 0) {
        epoll_remove(epoll, fd, &waiter);
        /* A regular file: always ready. */
        return result == -EPERM ? events : result;
    }
    while (!waiter.ready && (result = cancellable_reason(wait)) == 0)
        co_suspend();
    if (waiter.ready)
        return waiter.ready;
    epoll_remove(epoll, fd, &waiter);
    if (epoll->waiters[fd])
        (void)epoll_arm(epoll, fd);
    else
        (void)epoll_ctl(epoll->fd, EPOLL_CTL_DEL, fd, NULL);
    return result;
}

static int epoll_co_poll(int fd, int events)
{
    struct cancellable wait;
    int result;

    static_assert(POLLIN == EPOLLIN && POLLOUT == EPOLLOUT && POLLERR == EPOLLERR && POLLHUP == EPOLLHUP,
                  "poll and epoll name events alike");
    result = cancellable_begin(&wait);
    if (result < 0)
        return result;
    result = epoll_wait_for(loop_self(), fd, events, &wait);
    cancellable_end(&wait);
    return result;
}

/* --- turns --- */

static int epoll_wait_events(struct epoll *epoll, struct epoll_event *events, int64_t timeout_ns)
{
    struct timespec timeout = {.tv_sec = timeout_ns / NS_PER_S, .tv_nsec = timeout_ns % NS_PER_S};
    int64_t timeout_ms;
    int count;

    if (timeout_ns > 0 && !epoll->coarse) {
        count = epoll_pwait2(epoll->fd, events, EVENTS_MAX, &timeout, NULL);
        if (count >= 0 || errno != ENOSYS)
            return count;
        epoll->coarse = true;
    }
    timeout_ms = timeout_ns < 0 ? -1 : (timeout_ns + NS_PER_MS - 1) / NS_PER_MS;
    return epoll_wait(epoll->fd, events, EVENTS_MAX, (int)MIN(timeout_ms, INT_MAX));
}

static void epoll_turn(struct loop *loop, int64_t timeout_ns)
{
    struct epoll *epoll = epoll_of(loop);
    struct epoll_event events[EVENTS_MAX];
    int count;

    if (unlikely(loop->native || loop->private_ring)) {
        native_aio_submit(loop->native);
        private_ring_submit(loop->private_ring);
        if (loop->ready.first)
            timeout_ns = 0;
    }
    do {
        count = epoll_wait_events(epoll, events, timeout_ns);
        assert(count >= 0 || errno == EINTR);
        for (int i = 0; i < count; i++) {
            uint64_t data = events[i].data.u64;

            if (data & EPOLL_DATA_WATCH) {
                struct watch *watch = (struct watch *)(uintptr_t)(data & ~(uint64_t)EPOLL_DATA_WATCH);

                watch->ready(watch);
            } else {
                epoll_dispatch(epoll, (int)(data >> 1), (int)events[i].events);
            }
        }
        timeout_ns = 0;
    } while (count == EVENTS_MAX);
}

/* --- sockets --- */

/* After an operation that did not have to wait: lets others run once in a while. */
static void CO_FN co_epoll_done(struct loop *loop)
{
    if (loop->budget)
        loop->budget--;
    else
        co_yield ();
}

typedef ssize_t epoll_attempt(const void *request);

/* Tries, and waits, until it is done: the attempt's result, or the wait's error. */
static ssize_t epoll_co_run(int fd, int events, epoll_attempt *attempt, const void *request)
{
    struct loop *loop = loop_self();
    struct cancellable wait;
    ssize_t result;

    result = cancellable_begin(&wait);
    if (result < 0)
        return result;
    for (;;) {
        result = attempt(request);
        if (result == -EINTR)
            continue;
        if (result != -EAGAIN || !events)
            break;
        result = epoll_wait_for(loop, fd, events, &wait);
        if (result < 0)
            break;
    }
    cancellable_end(&wait);
    co_epoll_done(loop);
    return result;
}

static ssize_t attempt_accept(const void *request)
{
    const int *fd = request;
    int accepted;

    /* A blocking descriptor that somebody passed to us would stop the thread. */
    struct pollfd ready = {.fd = *fd, .events = POLLIN};

    if (poll(&ready, 1, 0) == 0)
        return -EAGAIN;
    accepted = accept4(*fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    return accepted < 0 ? -errno : accepted;
}

static int epoll_co_accept(int fd)
{
    return (int)epoll_co_run(fd, POLLIN, attempt_accept, &fd);
}

/* Makes `fd` non-blocking for as long as connecting takes; the flags before. */
static int nonblocking_begin(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags >= 0 && !(flags & O_NONBLOCK))
        (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    return flags;
}

static void nonblocking_end(int fd, int flags)
{
    if (flags >= 0 && !(flags & O_NONBLOCK))
        (void)fcntl(fd, F_SETFL, flags);
}

struct epoll_connect {
    int fd;
    const struct sockaddr *address;
    socklen_t size;
};

static ssize_t attempt_connect(const void *request)
{
    const struct epoll_connect *call = request;

    return connect(call->fd, call->address, call->size) ? -errno : 0;
}

static int epoll_co_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    struct epoll_connect request = {.fd = fd, .address = address, .size = size};
    int flags = nonblocking_begin(fd);
    /* A Unix socket says -EAGAIN when the listener's queue is full; polling does not tell when there is room. */
    ssize_t result = epoll_co_run(fd, 0, attempt_connect, &request);

    while (result == -EAGAIN && co_sleep_ns(NS_PER_MS) == 0)
        result = epoll_co_run(fd, 0, attempt_connect, &request);
    if (result == -EAGAIN)
        result = co_cancelled() ? -ECANCELED : -ETIMEDOUT;
    nonblocking_end(fd, flags);
    return (int)result;
}

static ssize_t attempt_transfer(const void *request)
{
    return posix_socket_transfer(request);
}

static ssize_t epoll_co_transfer(const struct socket_request *request)
{
    int events = request->write ? POLLOUT : POLLIN;

    return epoll_co_run(request->fd, request->flags & MSG_DONTWAIT ? 0 : events, attempt_transfer, request);
}

/* --- other descriptors --- */

/* read(2) or write(2) of a blocking descriptor that is ready, with as much as surely does not block. */
static ssize_t ready_transfer(const struct socket_request *call)
{
    enum { TERMINAL_PIECE = 64 }; /* a terminal that is ready for writing has more room than this */
    struct pollfd ready = {.fd = call->fd, .events = call->write ? POLLOUT : POLLIN};
    size_t size = call->write ? MIN(call->size, (size_t)TERMINAL_PIECE) : call->size;

    if (poll(&ready, 1, 0) == 0) {
        errno = EAGAIN;
        return -1;
    }
    return call->write ? write(call->fd, call->data, size) : read(call->fd, call->data, size);
}

static ssize_t attempt_descriptor(const void *request)
{
    const struct socket_request *call = request;
    struct iovec iov = {.iov_base = call->data, .iov_len = call->size};
    int flags = fcntl(call->fd, F_GETFL);
    ssize_t moved;

    if (flags < 0)
        return -errno;
    if (flags & O_NONBLOCK) {
        moved = call->write ? write(call->fd, call->data, call->size) : read(call->fd, call->data, call->size);
    } else {
        moved = call->write ? pwritev2(call->fd, &iov, 1, -1, RWF_NOWAIT) : preadv2(call->fd, &iov, 1, -1, RWF_NOWAIT);
        if (moved < 0 && errno != EAGAIN)
            moved = ready_transfer(call);
    }
    return moved < 0 ? -errno : moved;
}

static ssize_t epoll_co_read(int fd, void *to, size_t size)
{
    struct socket_request request = {.fd = fd, .data = to, .size = size};

    return epoll_co_run(fd, POLLIN, attempt_descriptor, &request);
}

static ssize_t epoll_co_write(int fd, const void *from, size_t size)
{
    struct socket_request request = {.fd = fd, .write = true, .data = (void *)(uintptr_t)from, .size = size};

    return epoll_co_run(fd, POLLOUT, attempt_descriptor, &request);
}

/* Where the other side has made it block, and full, it is awake or does not want to be woken. */
static void epoll_signal(struct loop *loop, int fd, bool nonblocking)
{
    struct pollfd ready = {.fd = fd, .events = POLLOUT};

    if (poll(&ready, 1, 0) == 1 && ready.revents & POLLOUT)
        (void)!eventfd_write(fd, 1);
}

/* --- files --- */

static ssize_t epoll_co_file_transfer(const struct file_request *request, enum file_engine engine)
{
    struct file_request at_once = *request;
    ssize_t moved;

    if (engine == FILE_ENGINE_NATIVE)
        return co_native_aio_transfer(request);
    if (engine == FILE_ENGINE_IO_URING)
        return co_private_ring_transfer(request);
    if (engine == FILE_ENGINE_THREADS || request->write)
        return co_posix_transfer(request);
    at_once.rwf_flags |= RWF_NOWAIT;
    moved = posix_transfer(&at_once);
    if (moved < 0)
        return co_posix_transfer(request);
    co_epoll_done(loop_self());
    return moved;
}

static bool epoll_engine_available(struct loop *loop, enum file_engine engine, struct error **err)
{
    if (engine == FILE_ENGINE_IO_URING)
        return private_ring_available(loop, err);
    return engine != FILE_ENGINE_NATIVE || native_aio_available(loop, err);
}

/* --- life --- */

static bool epoll_open(struct loop *loop, const struct loop_options *options, struct error **err)
{
    struct epoll *epoll = g_new0(struct epoll, 1);

    epoll->fd = epoll_create1(EPOLL_CLOEXEC);
    epoll->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (epoll->fd < 0 || epoll->wake.fd < 0) {
        error_set_errno(err, errno, "Failed to create the descriptors of an event loop");
        if (epoll->fd >= 0)
            close(epoll->fd);
        if (epoll->wake.fd >= 0)
            close(epoll->wake.fd);
        g_free(epoll);
        return false;
    }
    loop->state = epoll;
    epoll->wake.ready = epoll_wake_ready;
    (void)epoll_watch(loop, &epoll->wake);
    return true;
}

static void epoll_close(struct loop *loop)
{
    struct epoll *epoll = epoll_of(loop);

    close(epoll->fd);
    close(epoll->wake.fd);
    g_free(epoll->waiters);
    g_free(epoll);
    loop->state = NULL;
}

static const struct loop_file_ops epoll_file_ops = {
    .co_open = posix_co_file_open,
    .close = posix_file_close,
    .co_transfer = epoll_co_file_transfer,
    .engine_available = epoll_engine_available,
    .co_sync = posix_co_file_sync,
    .co_allocate = posix_co_file_allocate,
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

const struct loop_backend_ops epoll_backend_ops = {
    .open = epoll_open,
    .close = epoll_close,
    .turn = epoll_turn,
    .kick = epoll_kick,
    .now_ns = clock_now_ns,
    .watch = epoll_watch,
    .unwatch = epoll_unwatch,
    .co_accept = epoll_co_accept,
    .co_connect = epoll_co_connect,
    .co_transfer = epoll_co_transfer,
    .co_read = epoll_co_read,
    .co_write = epoll_co_write,
    .co_poll = epoll_co_poll,
    .signal = epoll_signal,
    .shutdown = posix_socket_shutdown,
    .co_work = co_worker_pool_run,
    .file = &epoll_file_ops,
};
