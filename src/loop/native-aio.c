/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Linux AIO, for files opened with O_DIRECT: what the `native` engine means. Requests of a turn go to the kernel in one
 * call; completions are announced by an event descriptor and read from memory that the kernel shares.
 */
#include "loop/loop-internal.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <linux/aio_abi.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"

enum { NATIVE_DEPTH = 128 };

struct native_request {
    struct iocb control;
    struct native_request *next; /* waits for a place among those under way */
    struct coroutine *coroutine;
    int64_t result;
    bool done;
};

struct native_aio {
    struct watch watch; /* its descriptor is signalled by each completion; watches see each time, so it is never read */
    aio_context_t context;
    struct native_request *first; /* not handed over yet */
    struct native_request *last;
    unsigned waiting;
    unsigned under_way;
    struct loop *loop;
};

static void native_complete(struct native_request *request, int64_t result)
{
    request->result = result;
    request->done = true;
    co_wake(request->coroutine);
}

void native_aio_submit(struct native_aio *native)
{
    while (native && native->first && native->under_way < NATIVE_DEPTH) {
        struct iocb *batch[NATIVE_DEPTH];
        long count = 0;
        long taken;

        for (struct native_request *i = native->first; i && native->under_way + count < NATIVE_DEPTH; i = i->next)
            batch[count++] = &i->control;
        taken = syscall(SYS_io_submit, native->context, count, batch);
        if (taken < 0 && errno == EINTR)
            continue;
        /* The kernel is out of memory for requests: those under way free some; without any, the first one fails. */
        if (taken < 0 && errno == EAGAIN && native->under_way)
            return;
        if (taken <= 0) {
            struct native_request *failed = native->first;
            int64_t result = taken < 0 ? -errno : -EIO;

            native->first = failed->next;
            native->waiting--;
            native_complete(failed, result);
            continue;
        }
        native->under_way += (unsigned)taken;
        native->waiting -= (unsigned)taken;
        for (long i = 0; i < taken; i++)
            native->first = native->first->next;
    }
    if (native && !native->first)
        native->last = NULL;
}

static void native_ready(struct watch *watch)
{
    struct native_aio *native = container_of(watch, struct native_aio, watch);
    struct io_event events[NATIVE_DEPTH];
    struct timespec at_once = {0};
    long count;

    do {
        count = syscall(SYS_io_getevents, native->context, 0L, (long)NATIVE_DEPTH, events, &at_once);
    } while (count < 0 && errno == EINTR);
    assert(count >= 0);
    assert(native->under_way >= count);
    native->under_way -= (unsigned)count;
    for (long i = 0; i < count; i++) {
        struct native_request *request = (struct native_request *)(uintptr_t)events[i].data;

        native_complete(request, events[i].res);
    }
}

static bool native_open(struct loop *loop, struct error **err)
{
    struct native_aio *native;
    int result;

    if (loop->native)
        return true;
    native = g_new0(struct native_aio, 1);
    native->loop = loop;
    native->watch.ready = native_ready;
    native->watch.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (native->watch.fd < 0) {
        error_set_errno(err, errno, "Failed to create an event descriptor");
        g_free(native);
        return false;
    }
    if (syscall(SYS_io_setup, NATIVE_DEPTH, &native->context) < 0) {
        error_set_errno(err, errno, "Failed to set up Linux AIO");
        close(native->watch.fd);
        g_free(native);
        return false;
    }
    result = loop->ops->watch(loop, &native->watch);
    assert(!result);
    loop->native = native;
    return true;
}

bool native_aio_available(struct loop *loop, struct error **err)
{
    return native_open(loop, err);
}

void native_aio_free(struct native_aio *native)
{
    if (!native)
        return;
    assert(!native->first);
    assert(!native->under_way);
    syscall(SYS_io_destroy, native->context);
    close(native->watch.fd);
    g_free(native);
}

ssize_t co_native_aio_transfer(const struct file_request *request)
{
    struct loop *loop = loop_self();
    struct native_request native = {
        .coroutine = co_self(),
        .control =
            {
                .aio_data = (uintptr_t)&native,
                .aio_lio_opcode = request->write ? IOCB_CMD_PWRITEV : IOCB_CMD_PREADV,
                .aio_fildes = (uint32_t)request->fd,
                .aio_buf = (uintptr_t)request->iov,
                .aio_nbytes = (uint64_t)request->iov_count,
                .aio_offset = (int64_t)request->offset,
                .aio_rw_flags = request->rwf_flags,
                .aio_flags = IOCB_FLAG_RESFD,
            },
    };
    uint32_t batch = loop_take_batch(loop);

    /* A system that has run out of AIO contexts still gets its data. */
    if (!native_open(loop, NULL))
        return co_posix_transfer(request);
    native.control.aio_resfd = (uint32_t)loop->native->watch.fd;
    if (loop->native->last)
        loop->native->last->next = &native;
    else
        loop->native->first = &native;
    loop->native->last = &native;
    loop->native->waiting++;
    if (batch && loop->native->waiting >= batch)
        native_aio_submit(loop->native);
    while (!native.done)
        co_suspend();
    return (ssize_t)native.result;
}
