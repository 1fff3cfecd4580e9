/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A reader for each queue takes what is there and starts a coroutine for each request, so that what they ask of the
 * disk goes there together. A request must be read into a buffer for the largest; small ones move to a small one, so
 * that the large buffer stays with the reader. Neither taking a request nor answering it waits: both happen at once.
 */
#include "export/fuse/session.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/fuse.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>

#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/socket.h"

enum {
    PAGE_BYTES = 4096,
    BUFFER_BYTES = PAGE_BYTES + FUSE_WRITE_BYTES_MAX,
    SMALL_BYTES = 64 * 1024 + PAGE_BYTES,
    REQUESTS_AT_ONCE = 32, /* taken before they get their turn */
};

size_t fuse_request_offset(void)
{
    return PAGE_BYTES - sizeof(struct fuse_in_header) - sizeof(struct fuse_write_in);
}

void fuse_request_place(struct fuse_request *request, const uint8_t *in, size_t size)
{
    const size_t write = sizeof(struct fuse_write_in);

    assert(size >= sizeof(struct fuse_in_header));
    request->in = in;
    request->size = size;
    request->argument = in + sizeof(struct fuse_in_header);
    request->argument_bytes = size - sizeof(struct fuse_in_header);
    request->data = request->argument + write;
    request->data_bytes = request->argument_bytes > write ? request->argument_bytes - write : 0;
}

static void request_run(void *opaque)
{
    struct fuse_request request = *(struct fuse_request *)opaque;

    loop_release(opaque, sizeof(request));
    co_fuse_handle(&request);
    loop_buffer_put(request.buffer, request.capacity);
    co_group_done(&request.queue->requests);
}

/* Starts a request that lies in *buffer, which stays the reader's or is replaced. */
static void start_request(struct fuse_queue *queue, uint8_t **buffer, size_t size)
{
    size_t offset = fuse_request_offset();
    struct fuse_request *request = loop_alloc(sizeof(*request));
    size_t small = size <= PAGE_BYTES - offset ? PAGE_BYTES : SMALL_BYTES;

    *request = (struct fuse_request){.file = queue->file, .queue = queue};
    if (offset + size <= small) {
        request->capacity = small;
        request->buffer = loop_buffer_get(small);
        if (request->buffer)
            memcpy(request->buffer + offset, *buffer + offset, size);
    } else {
        request->capacity = BUFFER_BYTES;
        request->buffer = loop_buffer_get(BUFFER_BYTES);
        if (request->buffer) {
            uint8_t *fresh = request->buffer;

            request->buffer = *buffer;
            *buffer = fresh;
        }
    }
    co_group_add(&queue->requests, 1);
    if (!request->buffer) {
        /* The system has no memory: one after the other, in the reader's own. */
        request->buffer = *buffer;
        fuse_request_place(request, *buffer + offset, size);
        co_fuse_handle(request);
        co_group_done(&queue->requests);
        loop_release(request, sizeof(*request));
        return;
    }
    fuse_request_place(request, request->buffer + offset, size);
    co_spawn(loop_current(), request_run, request);
}

static void read_run(void *opaque)
{
    struct fuse_queue *queue = opaque;
    struct fuse_file *file = queue->file;
    size_t offset = fuse_request_offset();
    uint8_t *buffer = loop_buffer_get(BUFFER_BYTES);
    unsigned taken = 0;
    ssize_t got = 0;

    while (buffer && !co_cancelled()) {
        got = fd_read_now(queue->fd, buffer + offset, BUFFER_BYTES - offset);
        if (got >= (ssize_t)sizeof(struct fuse_in_header)) {
            start_request(queue, &buffer, (size_t)got);
            if (++taken % REQUESTS_AT_ONCE == 0)
                co_yield ();
        } else if (got == -EAGAIN) {
            got = co_fd_poll(queue->fd, POLLIN);
            if (got < 0)
                break;
        } else if (got != -ENOENT) { /* ENOENT: it was interrupted in between */
            break;
        }
    }
    loop_buffer_put(buffer, BUFFER_BYTES);
    if (got != -ECANCELED && !co_cancelled() && !atomic_exchange(&file->gone, true))
        file->unmounted(file);
}

/* Another descriptor for the same mount, with a list of its own of what is to be answered; or else the same one. */
static int CO_FN co_clone(int fd)
{
    uint32_t source = (uint32_t)fd;
    AUTO(fd) clone = co_file_open("/dev/fuse", O_RDWR | O_NONBLOCK, 0);

    return clone < 0 || ioctl(clone, FUSE_DEV_IOC_CLONE, &source) ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : TAKE_FD(clone);
}

void co_fuse_file_open_queues(struct fuse_file *file, int fd, struct loop *const *loops, unsigned count)
{
    assert(count);
    file->queues = g_new0(struct fuse_queue, count);
    for (unsigned i = 0; i < count; i++) {
        file->queues[i] = (struct fuse_queue){.file = file, .loop = loops[i], .fd = i ? co_clone(fd) : fd};
        /* No more descriptors: fewer queues. */
        if (file->queues[i].fd < 0)
            break;
        file->queue_count++;
    }
}

void fuse_file_close_queues(struct fuse_file *file)
{
    for (unsigned i = 1; i < file->queue_count; i++)
        fd_close(file->queues[i].fd);
}

void fuse_file_free_queues(struct fuse_file *file)
{
    fuse_rings_free(file);
    g_free(TAKE(file->queues));
    file->queue_count = 0;
}

void fuse_file_start(struct fuse_file *file)
{
    for (unsigned i = 0; i < file->queue_count; i++)
        file->queues[i].reader = co_task_start(file->queues[i].loop, read_run, &file->queues[i]);
}

void co_fuse_file_stop(struct fuse_file *file)
{
    for (unsigned i = 0; i < file->queue_count; i++)
        co_task_cancel(file->queues[i].reader);
    for (unsigned i = 0; i < file->queue_count; i++)
        co_task_join(TAKE(file->queues[i].reader));
    for (unsigned i = 0; i < file->queue_count; i++)
        co_group_wait(&file->queues[i].requests);
    co_fuse_rings_stop(file);
}
