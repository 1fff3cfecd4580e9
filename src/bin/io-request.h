/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One read or write of ashlar-io: what it moves, and how that goes. */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct error;
struct io_session;

enum {
    IO_REQUEST_BYTES_MAX = 2147483136, /* whole sectors that fit an int: what one request may have */
    IO_PATTERN_DEFAULT = 0xcd,
};

struct io_request {
    struct io_session *session;
    bool writes;
    bool zeroes;         /* without a buffer */
    bool vm_state;       /* beside the disk */
    bool machine_report; /* -C */
    bool quiet;          /* -q */
    bool dump;           /* -v */
    unsigned flags;      /* enum io_flags of block/handle.h */
    uint64_t offset;
    uint64_t bytes;

    bool verify; /* what is read against `pattern` */
    uint8_t pattern;
    uint64_t verify_offset; /* in the data */
    uint64_t verify_bytes;

    unsigned segment_count;
    struct iovec *segments; /* owned; the buffer cut to the lengths that were asked for */
    uint8_t *memory;        /* owned; NULL: none */
    uint8_t *data;          /* where in `memory` the data start */
};

struct io_request *io_request_new(struct io_session *session);
void io_request_free(struct io_request *request); /* NULL is allowed */
AUTO_DEFINE(io_request, struct io_request *, io_request_free)

/* Memory for all bytes: writes get the pattern. False, and the reason printed, where there is not so much. */
bool io_request_allocate(struct io_request *request) MUST_CHECK;

/* Fills a write with what the file `path` holds, repeated; false: it cannot be read, or is empty, which is printed. */
bool CO_FN co_io_request_fill(struct io_request *request, const char *path) MUST_CHECK;

/* Does it and prints what came of it; failures under the name `failing` ("read", "writev", ...). */
bool CO_FN co_io_request_run(struct io_request *request, const char *failing);
