/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * preallocate: gives a growing file space in large pieces. It stands between a format and the file, and shows the file
 * only as far as there is data. Options:
 *  - file: the node that grows;
 *  - prealloc-align: the file's length becomes a multiple of this, bytes, a multiple of 512 (default 1 MiB);
 *  - prealloc-size: how much more than needed is allocated, bytes (default 128 MiB).
 *
 * Keeps: (1) data_end <= file_end, and all between them reads as zeroes; (2) data_end is raised before a write that
 * reaches beyond it is made; (3) what is allocated ahead is given back when nobody writes any more, and when the node
 * closes. After a crash the file is longer than it need be, which does no harm to formats.
 */
#include "driver/filter/preallocate.h"

#include <assert.h>
#include <inttypes.h>

#include "base/checked.h"
#include "base/error.h"
#include "block/driver.h"
#include "block/node.h"
#include "loop/lock.h"

enum { UNIT = 512, ALIGN_DEFAULT = 1 << 20, SIZE_DEFAULT = 128 << 20 };

struct settings {
    uint64_t align;
    uint64_t size;
};

struct preallocate_node {
    struct edge *file;        /* const after open */
    struct settings settings; /* written in a drain */
    struct settings before;   /* between a prepare to reopen and its end */
    struct co_mutex lock;     /* of growing */
    bool writes;              /* main loop: somebody may write */
    uint64_t data_end;        /* atomic, bytes */
    uint64_t file_end;        /* atomic, written under the lock or in a drain */
};

static uint64_t get(const uint64_t *number)
{
    return __atomic_load_n(number, __ATOMIC_ACQUIRE);
}

static void set(uint64_t *number, uint64_t value)
{
    __atomic_store_n(number, value, __ATOMIC_RELEASE);
}

static void raise_to(uint64_t *number, uint64_t value)
{
    uint64_t now = get(number);

    while (now < value && !__atomic_compare_exchange_n(number, &now, value, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        ;
}

/* --- options --- */

static bool take_settings(const struct preallocate_node *preallocate, const struct blockdev_options_preallocate *own,
                          struct settings *ret, struct error **err)
{
    uint32_t block = node_get_limits(edge_child(preallocate->file))->request_alignment;
    int64_t align = own->has_prealloc_align ? own->prealloc_align : ALIGN_DEFAULT;
    int64_t size = own->has_prealloc_size ? own->prealloc_size : SIZE_DEFAULT;

    if (align <= 0 || align % UNIT)
        return error_set(err,
                         "prealloc-align parameter of preallocate filter is not aligned to %d: it is %" PRId64 " bytes",
                         UNIT, align);
    if ((uint64_t)align % block)
        return error_set(err,
                         "prealloc-align parameter of preallocate filter is not aligned to underlying node request "
                         "alignment (%" PRIu32 "): it is %" PRId64 " bytes",
                         block, align);
    if (align > INT64_MAX / 4 || size < 0 || size > INT64_MAX / 4)
        return error_set(
            err, "prealloc-align and prealloc-size expect at most %" PRId64 " bytes, they are %" PRId64 " and %" PRId64,
            INT64_MAX / 4, align, size);
    *ret = (struct settings){.align = (uint64_t)align, .size = (uint64_t)size};
    return true;
}

static void forget_ends(struct preallocate_node *preallocate)
{
    uint64_t length = node_length(edge_child(preallocate->file));

    set(&preallocate->data_end, length);
    set(&preallocate->file_end, length);
}

static bool CO_FN preallocate_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    const struct blockdev_options_preallocate *own = &options->u.preallocate;
    struct preallocate_node *preallocate = node_state(node);

    preallocate->file = co_node_add_child(node, "file", own->file, EDGE_FILTERED | EDGE_PRIMARY, err);
    if (!preallocate->file || !take_settings(preallocate, own, &preallocate->settings, err))
        return false;
    forget_ends(preallocate);
    node_set_flags(node, IO_FUA | IO_UNCHANGED | IO_REGISTERED, IO_MAY_UNMAP | IO_NO_FALLBACK | IO_UNCHANGED);
    node_set_read_flags(node, IO_PREFETCH | IO_REGISTERED);
    return true;
}

static bool CO_FN preallocate_co_reopen_prepare(struct node *node, const struct blockdev_options *options,
                                                struct error **err)
{
    struct preallocate_node *preallocate = node_state(node);
    struct settings settings;

    if (!take_settings(preallocate, &options->u.preallocate, &settings, err))
        return false;
    preallocate->before = preallocate->settings;
    preallocate->settings = settings;
    return true;
}

static void CO_FN preallocate_co_reopen_commit(struct node *node)
{
}

static void CO_FN preallocate_co_reopen_abort(struct node *node)
{
    struct preallocate_node *preallocate = node_state(node);

    preallocate->settings = preallocate->before;
}

/* --- giving back --- */

/* Cuts the file at the end of the data; nobody writes. What fails is space that is not saved. */
static void CO_FN co_give_back(struct preallocate_node *preallocate)
{
    struct truncate_request request = {.length = get(&preallocate->data_end), .exact = true};

    if (request.length == get(&preallocate->file_end))
        return;
    (void)co_edge_truncate(preallocate->file, &request, NULL);
    set(&preallocate->file_end, request.length);
}

/* Before the permission to resize the file is given up, and before it is taken: until then others may change the file.
 */
static bool CO_FN preallocate_co_permission_prepare(struct node *node, uint32_t perm, uint32_t shared,
                                                    struct error **err)
{
    struct preallocate_node *preallocate = node_state(node);
    bool writes = perm & (PERM_WRITE | PERM_RESIZE);

    if (!writes)
        co_give_back(preallocate);
    else if (!preallocate->writes)
        forget_ends(preallocate);
    preallocate->writes = writes;
    return true;
}

static void CO_FN preallocate_co_permission_end(struct node *node)
{
}

static void CO_FN preallocate_co_close(struct node *node)
{
    struct preallocate_node *preallocate = node_state(node);

    co_mutex_done(&preallocate->lock);
}

/* Whoever writes makes it resize; nobody else may then, as it remembers where the file ends. */
static void preallocate_child_permissions(const struct node *node, const struct edge *edge, uint32_t perm,
                                          uint32_t shared, uint32_t *ret_perm, uint32_t *ret_shared)
{
    bool writes = perm & (PERM_WRITE | PERM_RESIZE);

    *ret_perm = writes ? perm | PERM_WRITE | PERM_RESIZE : perm;
    *ret_shared = writes ? shared & ~(uint32_t)(PERM_WRITE | PERM_RESIZE) : shared;
}

/* --- requests --- */

static int CO_FN preallocate_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                       unsigned flags)
{
    const struct preallocate_node *preallocate = node_state(node);

    return co_edge_preadv(preallocate->file, offset, bytes, iov, flags);
}

/* Allocates for data up to `end`, which lies behind the file's; where that does not work the write grows the file. */
static void CO_FN co_reserve(struct preallocate_node *preallocate, uint64_t end)
{
    uint64_t from, to;

    co_mutex_lock(&preallocate->lock);
    from = get(&preallocate->file_end);
    if (end > from && end <= INT64_MAX / 4) {
        to = end + preallocate->settings.size + preallocate->settings.align - 1;
        to -= to % preallocate->settings.align;
        if (!co_edge_pwrite_zeroes(preallocate->file, from, to - from, IO_NO_FALLBACK))
            set(&preallocate->file_end, to);
    }
    co_mutex_unlock(&preallocate->lock);
}

static int CO_FN preallocate_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                        unsigned flags)
{
    struct preallocate_node *preallocate = node_state(node);
    uint64_t end = offset + bytes;
    int ret;

    if (likely(end <= get(&preallocate->data_end)))
        return co_edge_pwritev(preallocate->file, offset, bytes, iov, flags);
    if (end > get(&preallocate->file_end))
        co_reserve(preallocate, end);
    raise_to(&preallocate->data_end, end);
    ret = co_edge_pwritev(preallocate->file, offset, bytes, iov, flags);
    raise_to(&preallocate->file_end, MIN(end, node_length(edge_child(preallocate->file))));
    return ret;
}

static int CO_FN preallocate_co_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct preallocate_node *preallocate = node_state(node);
    uint64_t end = offset + bytes, data_end = get(&preallocate->data_end);
    int ret;

    if (end > get(&preallocate->file_end))
        co_reserve(preallocate, end);
    raise_to(&preallocate->data_end, end);
    /* Nothing has been written there. */
    if (offset >= data_end && end <= get(&preallocate->file_end))
        return 0;
    ret = co_edge_pwrite_zeroes(preallocate->file, offset, bytes, flags);
    raise_to(&preallocate->file_end, MIN(end, node_length(edge_child(preallocate->file))));
    return ret;
}

static int CO_FN preallocate_co_pdiscard(struct node *node, uint64_t offset, uint64_t bytes)
{
    const struct preallocate_node *preallocate = node_state(node);

    return co_edge_pdiscard(preallocate->file, offset, bytes);
}

static int64_t CO_FN preallocate_co_length(struct node *node)
{
    struct preallocate_node *preallocate = node_state(node);

    /* Without a writer of ours, others may change the file. */
    if (!(node_used_permissions(node) & (PERM_WRITE | PERM_RESIZE)))
        forget_ends(preallocate);
    return (int64_t)get(&preallocate->data_end);
}

static int CO_FN preallocate_co_truncate(struct node *node, const struct truncate_request *request, struct error **err)
{
    struct preallocate_node *preallocate = node_state(node);
    int ret = 0;

    co_mutex_lock(&preallocate->lock);
    if (request->length < get(&preallocate->data_end) || request->length > get(&preallocate->file_end) ||
        request->preallocation != PREALLOC_MODE_OFF) {
        /* Modes of preallocation are about what is added to the data, so the file has to end where that does. */
        co_give_back(preallocate);
        ret = co_edge_truncate(preallocate->file, request, err);
        if (!ret)
            set(&preallocate->file_end, request->length);
    }
    if (!ret)
        set(&preallocate->data_end, request->length);
    co_mutex_unlock(&preallocate->lock);
    return ret;
}

static const char *const preallocate_reopen_options[] = {"prealloc-align", "prealloc-size", NULL};

static const struct block_driver_reopen preallocate_reopen = {
    .options = preallocate_reopen_options,
    .co_prepare = preallocate_co_reopen_prepare,
    .co_commit = preallocate_co_reopen_commit,
    .co_abort = preallocate_co_reopen_abort,
};

static const struct block_driver_permission preallocate_permission = {
    .co_prepare = preallocate_co_permission_prepare,
    .co_commit = preallocate_co_permission_end,
    .co_abort = preallocate_co_permission_end,
};

const struct block_driver preallocate_driver = {
    .name = "preallocate",
    .kind = BLOCK_DRIVER_FILTER,
    .state_size = sizeof(struct preallocate_node),
    .co_open = preallocate_co_open,
    .co_close = preallocate_co_close,
    .co_preadv = preallocate_co_preadv,
    .co_pwritev = preallocate_co_pwritev,
    .co_pwrite_zeroes = preallocate_co_pwrite_zeroes,
    .co_pdiscard = preallocate_co_pdiscard,
    .co_truncate = preallocate_co_truncate,
    .co_length = preallocate_co_length,
    .child_permissions = preallocate_child_permissions,
    .permission = &preallocate_permission,
    .reopen = &preallocate_reopen,
};
