/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bin/io-request.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "bin/io.h"
#include "block/handle.h"
#include "loop/file.h"
#include "loop/loop.h"

enum { MISALIGNMENT = 16, PATTERN_FILE_BYTES_MAX = 1 << 30 };

struct io_request *io_request_new(struct io_session *session)
{
    struct io_request *request = g_new0(struct io_request, 1);

    request->session = session;
    request->pattern = IO_PATTERN_DEFAULT;
    return request;
}

void io_request_free(struct io_request *request)
{
    if (!request)
        return;
    free(request->memory);
    g_free(request->segments);
    g_free(request);
}

bool io_request_allocate(struct io_request *request)
{
    size_t offset = request->session->misalign ? MISALIGNMENT : 0;
    size_t size = align_up(MAX(request->bytes, 1) + offset, LOOP_BUFFER_ALIGNMENT);
    uint8_t *data;

    assert(request->bytes <= IO_REQUEST_BYTES_MAX);
    request->memory = aligned_alloc(LOOP_BUFFER_ALIGNMENT, size);
    if (!request->memory) {
        printf("no memory for %" PRIu64 " bytes\n", request->bytes);
        return false;
    }
    request->data = data = request->memory + offset;
    if (request->writes)
        memset(data, request->pattern, request->bytes);
    if (!request->segment_count) {
        request->segment_count = 1;
        request->segments = g_new0(struct iovec, 1);
        request->segments[0].iov_len = request->bytes;
    }
    for (unsigned i = 0; i < request->segment_count; i++) {
        request->segments[i].iov_base = data;
        data += request->segments[i].iov_len;
    }
    assert(data == request->data + request->bytes);
    return true;
}

bool co_io_request_fill(struct io_request *request, const char *path)
{
    g_autofree char *content = NULL;
    AUTO(error) error = NULL;
    size_t size;

    assert(request->writes);
    if (!co_file_load(path, PATTERN_FILE_BYTES_MAX, &content, &size, &error)) {
        int errno_value = error_get_errno(error);

        (void)fprintf(stderr, "%s: %s\n", path, errno_value ? g_strerror(errno_value) : error_message(error));
        return false;
    }
    if (!size) {
        (void)fprintf(stderr, "%s: file is empty\n", path);
        return false;
    }
    for (uint64_t at = 0; at < request->bytes; at += size)
        memcpy(request->data + at, content, MIN(size, request->bytes - at));
    return true;
}

static int CO_FN co_transfer(struct io_request *request)
{
    struct handle *handle = request->session->image->handle;
    struct io_vector iov = {0};

    if (request->vm_state) {
        iov = io_vector_of(request->segments, request->segment_count);
        return request->writes ? co_handle_vm_state_write(handle, request->offset, &iov)
                               : co_handle_vm_state_read(handle, request->offset, &iov);
    }
    /* Test suites expect the same error for reads and writes that leave the image. */
    if (!range_fits(request->offset, request->bytes, handle_length(handle)))
        return -EIO;
    if (request->zeroes)
        return co_handle_pwrite_zeroes(handle, request->offset, request->bytes, request->flags);
    iov = io_vector_of(request->segments, request->segment_count);
    return request->writes ? co_handle_pwritev(handle, request->offset, request->bytes, &iov, request->flags)
                           : co_handle_preadv(handle, request->offset, request->bytes, &iov, request->flags);
}

static bool verify(const struct io_request *request)
{
    const uint8_t *from;

    if (!request->verify)
        return true;
    from = request->data + request->verify_offset;
    for (uint64_t i = 0; i < request->verify_bytes; i++) {
        if (from[i] != request->pattern) {
            printf("Pattern verification failed at offset %" PRIu64 ", %" PRIu64 " bytes\n",
                   request->offset + request->verify_offset, request->verify_bytes);
            return false;
        }
    }
    return true;
}

bool co_io_request_run(struct io_request *request, const char *failing)
{
    struct io_report report = {
        .verb = request->writes ? "wrote" : "read",
        .offset = request->offset,
        .requested = request->bytes,
        .done = request->bytes,
        .machine = request->machine_report,
    };
    int64_t started_ns = loop_now_ns();
    int ret = co_transfer(request);
    bool ok;

    report.duration_ns = loop_now_ns() - started_ns;
    if (ret < 0) {
        printf("%s failed: %s\n", failing, g_strerror(-ret));
        return false;
    }
    ok = verify(request);
    if (request->quiet)
        return ok;
    if (request->dump)
        io_dump(request->data, request->bytes, request->offset);
    io_report_print(&report);
    return ok;
}
