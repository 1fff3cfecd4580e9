/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Readers wait for requests and start a coroutine for each. A request must be read into a buffer for the largest; small
 * ones move to a small one, so that the large buffers stay with the readers.
 */
#include "export/fuse/session.h"

#include <assert.h>
#include <errno.h>
#include <linux/fuse.h>
#include <string.h>

#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/socket.h"

enum {
    PAGE_BYTES = 4096,
    BUFFER_BYTES = PAGE_BYTES + FUSE_WRITE_BYTES_MAX,
    SMALL_BYTES = 64 * 1024 + PAGE_BYTES,
};

size_t fuse_request_offset(void)
{
    return PAGE_BYTES - sizeof(struct fuse_in_header) - sizeof(struct fuse_write_in);
}

static void request_run(void *opaque)
{
    struct fuse_request request = *(struct fuse_request *)opaque;

    loop_release(opaque, sizeof(request));
    co_fuse_handle(&request);
    loop_buffer_put(request.buffer, request.capacity);
    co_group_done(&request.file->requests);
}

/* Starts a request that lies in *buffer, which stays the reader's or is replaced. */
static void start_request(struct fuse_file *file, uint8_t **buffer, size_t size)
{
    size_t offset = fuse_request_offset();
    struct fuse_request *request = loop_alloc(sizeof(*request));
    size_t small = size <= PAGE_BYTES - offset ? PAGE_BYTES : SMALL_BYTES;

    *request = (struct fuse_request){.file = file, .size = size};
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
    co_group_add(&file->requests, 1);
    if (!request->buffer) {
        /* The system has no memory: one after the other, in the reader's own. */
        request->buffer = *buffer;
        request->in = *buffer + offset;
        co_fuse_handle(request);
        co_group_done(&file->requests);
        loop_release(request, sizeof(*request));
        return;
    }
    request->in = request->buffer + offset;
    co_spawn(loop_current(), request_run, request);
}

static void read_run(void *opaque)
{
    struct fuse_file *file = opaque;
    size_t offset = fuse_request_offset();
    uint8_t *buffer = loop_buffer_get(BUFFER_BYTES);
    ssize_t got = 0;

    while (buffer && !co_cancelled()) {
        got = co_fd_read(file->fd, buffer + offset, BUFFER_BYTES - offset);
        if (got >= (ssize_t)sizeof(struct fuse_in_header))
            start_request(file, &buffer, (size_t)got);
        else if (got != -ENOENT && got != -EINTR && got != -EAGAIN) /* ENOENT: it was interrupted in between */
            break;
    }
    loop_buffer_put(buffer, BUFFER_BYTES);
    if (got != -ECANCELED && !atomic_exchange(&file->gone, true))
        file->unmounted(file);
}

void fuse_file_start(struct fuse_file *file)
{
    for (unsigned i = 0; i < FUSE_READERS; i++)
        file->readers[i] = co_task_start(file->loop, read_run, file);
}

void co_fuse_file_stop(struct fuse_file *file)
{
    for (unsigned i = 0; i < FUSE_READERS; i++)
        co_task_cancel(file->readers[i]);
    for (unsigned i = 0; i < FUSE_READERS; i++)
        co_task_join(TAKE(file->readers[i]));
    co_group_wait(&file->requests);
}
