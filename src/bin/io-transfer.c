/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The commands that read and write. */
#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "bin/io-request.h"
#include "bin/io.h"
#include "block/handle.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

enum { SECTOR_BYTES = 512 };

static bool is_sector_aligned(uint64_t value, const char *what)
{
    if (is_aligned(value, SECTOR_BYTES))
        return true;
    printf("%" PRIu64 " is not a sector-aligned value for '%s'\n", value, what);
    return false;
}

/* The two words "off len" that end a command. */
static bool parse_range(struct io_request *request, const struct io_words *words, bool without_fallback)
{
    if (words->first != words->count - 2)
        return io_usage(words->words[0]);
    if (!io_parse_size(words->words[words->first], &request->offset) ||
        !io_parse_size(words->words[words->first + 1], &request->bytes))
        return false;
    if (request->bytes > IO_REQUEST_BYTES_MAX && !without_fallback) {
        printf("length cannot exceed %d%s, given %s\n", IO_REQUEST_BYTES_MAX, request->writes ? " without -n" : "",
               words->words[words->first + 1]);
        return false;
    }
    return true;
}

/* The words "off len [len..]" that end a command: a segment for each length. */
static bool parse_segments(struct io_request *request, const struct io_words *words)
{
    int count = words->count - words->first - 1;

    if (count < 1)
        return io_usage(words->words[0]);
    if (!io_parse_size(words->words[words->first], &request->offset))
        return false;
    request->segments = g_new0(struct iovec, (size_t)count);
    for (int i = 0; i < count; i++) {
        const char *text = words->words[words->first + 1 + i];
        uint64_t bytes;

        if (!io_parse_size(text, &bytes))
            return false;
        if (bytes > IO_REQUEST_BYTES_MAX) {
            printf("Argument '%s' exceeds maximum size %d\n", text, IO_REQUEST_BYTES_MAX);
            return false;
        }
        if (request->bytes > IO_REQUEST_BYTES_MAX - bytes) {
            printf("The total number of bytes exceed the maximum size %d\n", IO_REQUEST_BYTES_MAX);
            return false;
        }
        request->bytes += bytes;
        request->segments[request->segment_count++].iov_len = bytes;
    }
    return true;
}

/* The letters that mean the same in every command; false: it is none of them. */
static bool take_common(struct io_request *request, int letter)
{
    switch (letter) {
    case 'C':
        request->machine_report = true;
        return true;
    case 'q':
        request->quiet = true;
        return true;
    case 'v':
        request->dump = true;
        return true;
    case 'f':
        request->flags |= IO_FUA;
        return true;
    case 'p':
        return true;
    default:
        return false;
    }
}

/* --- read --- */

struct read_options {
    bool vm_state;
    bool has_offset;
    bool has_length;
};

static bool parse_read(struct io_request *request, struct io_words *words, struct read_options *options)
{
    int letter;

    while ((letter = io_option_next(words, "bCl:pP:qs:v")) != -1) {
        bool ok = true;

        if (take_common(request, letter))
            continue;
        switch (letter) {
        case 'b':
            options->vm_state = true;
            break;
        case 'l':
            options->has_length = true;
            ok = io_parse_size(words->value, &request->verify_bytes);
            break;
        case 'P':
            request->verify = true;
            ok = io_parse_pattern(words->value, &request->pattern);
            break;
        case 's':
            options->has_offset = true;
            ok = io_parse_size(words->value, &request->verify_offset);
            break;
        default:
            return io_usage(words->words[0]);
        }
        if (!ok)
            return false;
    }
    return parse_range(request, words, false);
}

static bool check_read(struct io_request *request, const struct read_options *options, const char *name)
{
    if (!request->verify && (options->has_length || options->has_offset))
        return io_usage(name);
    if (!options->has_length)
        request->verify_bytes = request->bytes - MIN(request->bytes, request->verify_offset);
    if (!range_fits(request->verify_offset, request->verify_bytes, request->bytes)) {
        printf("pattern verification range exceeds end of read data\n");
        return false;
    }
    return !options->vm_state ||
           (is_sector_aligned(request->offset, "offset") && is_sector_aligned(request->bytes, "count"));
}

bool co_io_read(struct io_session *session, int count, char **words)
{
    AUTO(io_request) request = io_request_new(session);
    struct io_words rest = {.count = count, .words = words};
    struct read_options options = {0};

    if (!parse_read(request, &rest, &options) || !check_read(request, &options, words[0]))
        return false;
    request->vm_state = options.vm_state;
    return io_request_allocate(request) && co_io_request_run(request, "read");
}

/* A read into segments; *ret_invalid (NULL: not known here) where one that fails is asked for instead. */
static bool parse_readv(struct io_request *request, struct io_words *words, bool *ret_invalid)
{
    int letter;

    while ((letter = io_option_next(words, ret_invalid ? "CP:iqv" : "CP:qv")) != -1) {
        if (take_common(request, letter))
            continue;
        if (letter == 'i') {
            *ret_invalid = true;
            return true;
        }
        if (letter != 'P')
            return io_usage(words->words[0]);
        request->verify = true;
        if (!io_parse_pattern(words->value, &request->pattern))
            return false;
    }
    if (!parse_segments(request, words))
        return false;
    request->verify_bytes = request->bytes;
    return io_request_allocate(request);
}

bool co_io_readv(struct io_session *session, int count, char **words)
{
    AUTO(io_request) request = io_request_new(session);
    struct io_words rest = {.count = count, .words = words};

    return parse_readv(request, &rest, NULL) && co_io_request_run(request, "readv");
}

/* --- write --- */

struct write_options {
    bool vm_state;
    bool compressed;
    bool has_pattern;
    const char *source; /* NULL: none */
};

static bool parse_write(struct io_request *request, struct io_words *words, struct write_options *options)
{
    int letter;

    while ((letter = io_option_next(words, "bcCfnpP:qs:uz")) != -1) {
        if (take_common(request, letter))
            continue;
        switch (letter) {
        case 'b':
            options->vm_state = true;
            break;
        case 'c':
            options->compressed = true;
            break;
        case 'n':
            request->flags |= IO_NO_FALLBACK;
            break;
        case 'P':
            options->has_pattern = true;
            if (!io_parse_pattern(words->value, &request->pattern))
                return false;
            break;
        case 's':
            options->source = words->value;
            break;
        case 'u':
            request->flags |= IO_MAY_UNMAP;
            break;
        case 'z':
            request->zeroes = true;
            break;
        default:
            return io_usage(words->words[0]);
        }
    }
    return true;
}

/* Whether the options go together; otherwise the reason has been printed. */
static bool check_write_options(const struct io_request *request, const struct write_options *options)
{
    const char *reason = NULL;

    if (options->vm_state && request->zeroes)
        reason = "-b and -z cannot be specified at the same time";
    else if ((request->flags & IO_FUA) && (options->vm_state || options->compressed))
        reason = "-f and -b or -c cannot be specified at the same time";
    else if ((request->flags & IO_NO_FALLBACK) && !request->zeroes)
        reason = "-n requires -z to be specified";
    else if ((request->flags & IO_MAY_UNMAP) && !request->zeroes)
        reason = "-u requires -z to be specified";
    else if (request->zeroes + options->has_pattern + !!options->source > 1)
        reason = "Only one of -z, -P, and -s can be specified at the same time";
    if (reason)
        printf("%s\n", reason);
    return !reason;
}

bool co_io_write(struct io_session *session, int count, char **words)
{
    AUTO(io_request) request = io_request_new(session);
    struct io_words rest = {.count = count, .words = words};
    struct write_options options = {0};

    request->writes = true;
    if (!parse_write(request, &rest, &options))
        return false;
    if (rest.first != count - 2)
        return io_usage(words[0]);
    if (!check_write_options(request, &options))
        return false;
    if (!parse_range(request, &rest, request->flags & IO_NO_FALLBACK))
        return false;
    if ((options.vm_state || options.compressed) &&
        (!is_sector_aligned(request->offset, "offset") || !is_sector_aligned(request->bytes, "count")))
        return false;
    request->vm_state = options.vm_state;
    if (options.compressed && !request->zeroes)
        request->flags |= IO_COMPRESSED;
    if (!request->zeroes && !io_request_allocate(request))
        return false;
    if (options.source && !co_io_request_fill(request, options.source))
        return false;
    return co_io_request_run(request, "write");
}

bool co_io_writev(struct io_session *session, int count, char **words)
{
    AUTO(io_request) request = io_request_new(session);
    struct io_words rest = {.count = count, .words = words};
    int letter;

    request->writes = true;
    while ((letter = io_option_next(&rest, "CfqP:")) != -1) {
        if (take_common(request, letter))
            continue;
        if (letter != 'P')
            return io_usage(words[0]);
        if (!io_parse_pattern(rest.value, &request->pattern))
            return false;
    }
    return parse_segments(request, &rest) && io_request_allocate(request) && co_io_request_run(request, "writev");
}

/* --- asynchronous ones --- */

static void CO_FN co_run_async(void *opaque)
{
    AUTO(io_request) request = opaque;

    (void)co_io_request_run(request, request->writes ? "aio_write" : "readv");
    co_group_done(&request->session->pending);
}

static bool start_async(struct io_request *request)
{
    co_group_add(&request->session->pending, 1);
    co_spawn(loop_current(), co_run_async, request);
    return true;
}

/* -i: a request that nobody could carry out, for the counters of those; with it nothing else happens. */
static bool CO_FN co_inject_invalid(const struct io_request *request)
{
    struct handle *handle = request->session->image->handle;
    uint8_t byte = 0;

    printf("injecting invalid %s request\n", request->writes ? "write" : "read");
    if (request->writes)
        (void)co_handle_pwrite(handle, INT64_MAX, 1, &byte, 0);
    else
        (void)co_handle_pread(handle, INT64_MAX, 1, &byte, 0);
    return true;
}

bool co_io_aio_read(struct io_session *session, int count, char **words)
{
    AUTO(io_request) request = io_request_new(session);
    struct io_words rest = {.count = count, .words = words};
    bool invalid = false;

    if (!parse_readv(request, &rest, &invalid))
        return false;
    return invalid ? co_inject_invalid(request) : start_async(TAKE(request));
}

static bool CO_FN co_parse_aio_write(struct io_request *request, struct io_words *words, bool *ret_done)
{
    int letter;

    while ((letter = io_option_next(words, "CfiP:quz")) != -1) {
        if (take_common(request, letter))
            continue;
        switch (letter) {
        case 'i':
            *ret_done = true;
            return co_inject_invalid(request);
        case 'P':
            if (!io_parse_pattern(words->value, &request->pattern))
                return false;
            break;
        case 'u':
            request->flags |= IO_MAY_UNMAP;
            break;
        case 'z':
            request->zeroes = true;
            break;
        default:
            return io_usage(words->words[0]);
        }
    }
    if (words->first > words->count - 2)
        return io_usage(words->words[0]);
    if (request->zeroes && words->first != words->count - 2) {
        printf("-z supports only a single length parameter\n");
        return false;
    }
    if ((request->flags & IO_MAY_UNMAP) && !request->zeroes) {
        printf("-u requires -z to be specified\n");
        return false;
    }
    return true;
}

bool co_io_aio_write(struct io_session *session, int count, char **words)
{
    AUTO(io_request) request = io_request_new(session);
    struct io_words rest = {.count = count, .words = words};
    bool done = false;

    request->writes = true;
    if (!co_parse_aio_write(request, &rest, &done) || done)
        return done;
    if (request->zeroes)
        return parse_range(request, &rest, true) && start_async(TAKE(request));
    return parse_segments(request, &rest) && io_request_allocate(request) && start_async(TAKE(request));
}

bool co_io_aio_flush(struct io_session *session, int count, char **words)
{
    co_group_wait(&session->pending);
    return true;
}
