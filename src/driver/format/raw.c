/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * raw: the bytes of its file as they are, or a window of them. Options:
 *  - file: the node with the data;
 *  - offset: where in it the window begins, bytes, a multiple of 512 (default 0);
 *  - size: its length, bytes, a multiple of 512 (default: up to the end of the file, and following it).
 *
 * Keeps: (1) a window with a size lies inside the file as long as nobody else resizes that, which it does not allow;
 * (2) no request leaves the window: the core keeps it inside the length, and a window with a size never grows.
 */
#include "driver/format/raw.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "block/driver.h"
#include "block/image.h"
#include "block/node.h"
#include "block/probe.h"
#include "loop/lock.h"

enum { RAW_UNIT = 512 };

/* All const after open but the lock. */
struct raw_node {
    struct co_mutex guard; /* of writes to the start of a guarded image */
    struct edge *file;
    uint64_t offset;
    uint64_t size; /* has_size */
    bool has_size;
    struct { /* main loop: between a prepare to reopen and its abort */
        uint64_t offset;
        uint64_t size;
        bool has_size;
    } before;
};

static bool raw_options_check(const struct blockdev_options_raw *options, uint64_t file_length, struct error **err)
{
    uint64_t offset = options->has_offset ? (uint64_t)options->offset : 0;
    uint64_t size = options->has_size ? (uint64_t)options->size : 0;

    if (options->has_offset && options->offset < 0)
        return error_set(err, "Parameter 'offset' expects a non-negative number below 2^64: it is %" PRId64,
                         options->offset);
    if (options->has_size && options->size < 0)
        return error_set(err, "Parameter 'size' expects a non-negative number below 2^64: it is %" PRId64,
                         options->size);
    if (offset > file_length)
        return error_set(err, "Offset (%" PRIu64 ") cannot be greater than size of the containing file (%" PRIu64 ")",
                         offset, file_length);
    if (!is_aligned(offset, RAW_UNIT))
        return error_set(err, "Specified offset is not multiple of %d: it is %" PRIu64, RAW_UNIT, offset);
    if (size > file_length - offset)
        return error_set(err,
                         "The sum of offset (%" PRIu64 ") and size (%" PRIu64 ") has to be smaller or equal to the "
                         " actual size of the containing file (%" PRIu64 ")",
                         offset, size, file_length);
    if (!is_aligned(size, RAW_UNIT))
        return error_set(err, "Specified size is not multiple of %d: it is %" PRIu64, RAW_UNIT, size);
    return true;
}

static void raw_take_options(struct raw_node *raw, const struct blockdev_options_raw *options)
{
    raw->offset = options->has_offset ? (uint64_t)options->offset : 0;
    raw->has_size = options->has_size;
    raw->size = options->has_size ? (uint64_t)options->size : 0;
}

static bool CO_FN raw_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    const struct blockdev_options_raw *own = &options->u.raw;
    struct raw_node *raw = node_state(node);

    /* Without a window the role is that of a filter's child: whoever uses the node uses the file in the same way. */
    raw->file = co_node_add_child(node, "file", own->file, EDGE_DATA | EDGE_PRIMARY, err);
    if (!raw->file || !raw_options_check(own, node_length(edge_child(raw->file)), err))
        return false;
    raw_take_options(raw, own);
    return true;
}

static bool CO_FN raw_co_reopen_prepare(struct node *node, const struct blockdev_options *options, struct error **err)
{
    struct raw_node *raw = node_state(node);

    if (!raw_options_check(&options->u.raw, node_length(edge_child(raw->file)), err))
        return false;
    raw->before.offset = raw->offset;
    raw->before.size = raw->size;
    raw->before.has_size = raw->has_size;
    raw_take_options(raw, &options->u.raw);
    return true;
}

static void CO_FN raw_co_reopen_commit(struct node *node)
{
}

static void CO_FN raw_co_reopen_abort(struct node *node)
{
    struct raw_node *raw = node_state(node);

    raw->offset = raw->before.offset;
    raw->size = raw->before.size;
    raw->has_size = raw->before.has_size;
}

static bool raw_has_window(const struct node *node)
{
    const struct blockdev_options_raw *options = &node_options(node)->u.raw;

    return options->has_offset || options->has_size;
}

static void raw_child_permissions(const struct node *node, const struct edge *edge, uint32_t perm, uint32_t shared,
                                  uint32_t *ret_perm, uint32_t *ret_shared)
{
    *ret_perm = perm;
    /* A window must stay inside the file. */
    *ret_shared = raw_has_window(node) ? shared & ~(uint32_t)PERM_RESIZE : shared;
}

static uint64_t raw_length_by_child(const struct node *node, uint64_t child_length)
{
    const struct raw_node *raw = node_state(node);

    if (raw->has_size)
        return raw->size;
    return child_length > raw->offset ? child_length - raw->offset : 0;
}

static void CO_FN raw_co_close(struct node *node)
{
    struct raw_node *raw = node_state(node);

    co_mutex_done(&raw->guard);
}

/* Whether a write up to there may be: a window with a size cannot grow. */
static bool raw_may_write(const struct raw_node *raw, uint64_t offset, uint64_t bytes)
{
    return !raw->has_size || range_fits(offset, bytes, raw->size);
}

static int CO_FN raw_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                               unsigned flags)
{
    const struct raw_node *raw = node_state(node);

    co_edge_event(raw->file, BLKDEBUG_EVENT_READ_AIO);
    return co_edge_preadv(raw->file, offset + raw->offset, bytes, iov, flags);
}

/*
 * An image is raw by guess as long as its start looks like no other format; so a write that would change this is
 * refused. Two at the same time could get together what none of them may: in such images they wait for each other.
 */
static int CO_FN raw_co_guarded_write(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                      unsigned flags)
{
    struct raw_node *raw = node_state(node);
    uint8_t head[IMAGE_PROBE_BYTES] = {0};
    size_t size = MIN(MAX(node_length(node), offset + bytes), sizeof(head));
    size_t part = MIN(bytes, sizeof(head) - offset);
    int result;

    co_mutex_lock(&raw->guard);
    result = co_edge_pread(raw->file, raw->offset, size, head, 0);
    if (!result) {
        io_vector_read(iov, 0, head + offset, part);
        if (strcmp(probe_format(block_drivers, head, size, NULL), "raw") != 0)
            result = -EPERM;
    }
    if (!result)
        result = co_edge_pwritev(raw->file, offset + raw->offset, bytes, iov, flags);
    co_mutex_unlock(&raw->guard);
    return result;
}

static int CO_FN raw_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                unsigned flags)
{
    const struct raw_node *raw = node_state(node);

    if (!raw_may_write(raw, offset, bytes))
        return -ENOSPC;
    co_edge_event(raw->file, BLKDEBUG_EVENT_WRITE_AIO);
    if (unlikely(node_is_guarded(node)) && offset < IMAGE_PROBE_BYTES)
        return raw_co_guarded_write(node, offset, bytes, iov, flags);
    return co_edge_pwritev(raw->file, offset + raw->offset, bytes, iov, flags);
}

static int CO_FN raw_co_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    const struct raw_node *raw = node_state(node);

    if (!raw_may_write(raw, offset, bytes))
        return -ENOSPC;
    return co_edge_pwrite_zeroes(raw->file, offset + raw->offset, bytes, flags);
}

static int CO_FN raw_co_copy_from(struct node *node, uint64_t offset, uint64_t bytes, struct node *from,
                                  uint64_t from_offset, unsigned flags)
{
    const struct raw_node *raw = node_state(node);

    if (!raw_may_write(raw, offset, bytes))
        return -ENOSPC;
    if (unlikely(node_is_guarded(node)) && offset < IMAGE_PROBE_BYTES)
        return -ENOTSUP;
    return co_edge_copy_from(raw->file, offset + raw->offset, bytes, from, from_offset, flags);
}

static int CO_FN raw_co_reserve(struct node *node, uint64_t offset, uint64_t bytes)
{
    const struct raw_node *raw = node_state(node);

    return raw_may_write(raw, offset, bytes) ? co_edge_reserve(raw->file, offset + raw->offset, bytes) : -ENOTSUP;
}

static int CO_FN raw_co_pdiscard(struct node *node, uint64_t offset, uint64_t bytes)
{
    const struct raw_node *raw = node_state(node);

    return co_edge_pdiscard(raw->file, offset + raw->offset, bytes);
}

static int CO_FN raw_co_block_status(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                                     struct block_extent *ret)
{
    const struct raw_node *raw = node_state(node);
    int result = co_edge_block_status(raw->file, offset + raw->offset, bytes, want_zero, ret);

    /* Whatever the file has, there is nothing else behind it. */
    ret->flags |= BLOCK_ALLOCATED;
    return result;
}

static int CO_FN raw_co_truncate(struct node *node, const struct truncate_request *request, struct error **err)
{
    const struct raw_node *raw = node_state(node);
    struct truncate_request of_file = *request;

    if (raw->has_size) {
        error_set(err, "Cannot resize fixed-size raw disks");
        return -ENOTSUP;
    }
    if (request->length > NODE_LENGTH_MAX - raw->offset) {
        error_set(err, "Disk size too large for the chosen offset: %" PRIu64 " bytes at %" PRIu64, request->length,
                  raw->offset);
        return -EFBIG;
    }
    of_file.length += raw->offset;
    return co_edge_truncate(raw->file, &of_file, err);
}

static char *raw_filename(const struct node *node)
{
    const struct raw_node *raw = node_state(node);

    return raw_has_window(node) ? NULL : node_plain_filename(edge_child(raw->file));
}

static const char *const raw_significant_options[] = {"offset", "size", NULL};

static const struct image_option raw_image_options[] = {
    {"size", IMAGE_OPTION_SIZE, "Virtual disk size", NULL},
    {NULL},
};

static const struct block_driver_image raw_image = {
    .options = raw_image_options,
};

static const char *const raw_reopen_options[] = {"offset", "size", NULL};

static const struct block_driver_reopen raw_reopen = {
    .options = raw_reopen_options,
    .co_prepare = raw_co_reopen_prepare,
    .co_commit = raw_co_reopen_commit,
    .co_abort = raw_co_reopen_abort,
};

const struct block_driver raw_driver = {
    .name = "raw",
    .kind = BLOCK_DRIVER_FORMAT,
    .state_size = sizeof(struct raw_node),
    .passthrough = true,
    .co_open = raw_co_open,
    .co_close = raw_co_close,
    .co_preadv = raw_co_preadv,
    .co_pwritev = raw_co_pwritev,
    .co_pwrite_zeroes = raw_co_pwrite_zeroes,
    .co_copy_from = raw_co_copy_from,
    .co_reserve = raw_co_reserve,
    .co_pdiscard = raw_co_pdiscard,
    .co_block_status = raw_co_block_status,
    .co_truncate = raw_co_truncate,
    .length_by_child = raw_length_by_child,
    .child_permissions = raw_child_permissions,
    .filename = raw_filename,
    .significant_options = raw_significant_options,
    .reopen = &raw_reopen,
    .image = &raw_image,
};
