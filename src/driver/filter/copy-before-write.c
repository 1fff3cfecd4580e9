/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy-before-write: before a place of its file changes for the first time, what is there is copied to the target.
 * Options:
 *  - file: the node whose data it shows;
 *  - target: gets the old data, at the same place; at least as long as the file;
 *  - bitmap: {node, name} of a dirty bitmap; only what it marks at the time of opening is saved (default: everything);
 *  - on-cbw-error: break-guest-write (default) fails the write where saving fails; break-snapshot lets it through, and
 *    saves no more: the saved state is lost;
 *  - cbw-timeout: seconds that saving may take before it counts as failed (default 0: any time);
 *  - min-cluster-size: bytes, a power of two: what is saved at a time, at least (default 0; never less than 64 KiB or a
 *    cluster of the target).
 */
#include "driver/filter/copy-before-write.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "base/bitmap.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/units.h"
#include "block/block-copy.h"
#include "block/describe.h"
#include "block/dirty-bitmap.h"
#include "block/driver.h"
#include "block/graph-change.h"
#include "block/node.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"

enum { CLUSTER_BYTES_MIN = 64 * 1024 };
#define CLUSTER_BYTES_MAX (UINT64_C(1) << 31)

struct cbw_node {
    struct edge *file; /* const after open, as all up to `copy` */
    struct edge *target;
    bool break_snapshot;
    int64_t timeout_ns; /* 0: none */
    struct block_copy *copy;
    struct bitmap *saved; /* a bit a cluster: what is being saved; NULL: all of it */
    int lost;             /* atomic: negative errno; 0 */
    struct co_group late; /* copies that outlive the request that began them */
};

struct block_copy *copy_before_write_copy(const struct node *node)
{
    return ((struct cbw_node *)node_state(node))->copy;
}

int copy_before_write_lost(const struct node *node)
{
    return __atomic_load_n(&((struct cbw_node *)node_state(node))->lost, __ATOMIC_ACQUIRE);
}

/* --- opening --- */

/* Bytes that are copied as one; 0 and the error. */
static uint32_t CO_FN co_choose_cluster(struct node *target, const struct blockdev_options_cbw *options,
                                        struct error **err)
{
    uint64_t wanted = options->has_min_cluster_size ? options->min_cluster_size : 0;
    struct node_info info = {0};

    if (wanted && (!is_power_of_two(wanted) || wanted > CLUSTER_BYTES_MAX)) {
        error_set(err, "min-cluster-size needs to be a power of 2 and at most %" PRIu64 ", and is %" PRIu64,
                  CLUSTER_BYTES_MAX, wanted);
        return 0;
    }
    (void)co_node_get_info(target, &info);
    return (uint32_t)MAX(MAX(wanted, CLUSTER_BYTES_MIN), info.cluster_size);
}

/* What is to be saved: all, or what the bitmap says. */
static bool mark_all(struct node *node, const struct block_dirty_bitmap *reference, struct error **err)
{
    struct cbw_node *cbw = node_state(node);
    struct node *owner;
    struct dirty_bitmap *bitmap;
    uint64_t length = block_copy_length(cbw->copy);
    uint32_t cluster = block_copy_cluster_size(cbw->copy);
    uint64_t offset = 0, bytes = 0;

    if (!reference) {
        block_copy_mark(cbw->copy, 0, length);
        return true;
    }
    owner = node_find_sibling(node, reference->node, err);
    bitmap = owner ? dirty_bitmap_find(owner, reference->name, err) : NULL;
    if (!bitmap || !dirty_bitmap_check(bitmap, DIRTY_BITMAP_ALLOW_READ_ONLY, err))
        return false;
    if (dirty_bitmap_length(bitmap) != length)
        return error_set(err, "Bitmap '%s' is for %" PRIu64 " bytes, and the file has %" PRIu64, reference->name,
                         dirty_bitmap_length(bitmap), length);
    cbw->saved = bitmap_new((length + cluster - 1) / cluster);
    while (dirty_bitmap_next_area(bitmap, offset + bytes, length, 0, &offset, &bytes)) {
        block_copy_mark(cbw->copy, offset, bytes);
        bitmap_set(cbw->saved, offset / cluster,
                   (align_up(offset + bytes, cluster) - align_down(offset, cluster)) / cluster);
    }
    return true;
}

/* Where the target shows the file: who reads it while something is saved must not see what is written next. */
static bool CO_FN co_guard_readers(struct cbw_node *cbw, struct node *node, struct error **err)
{
    struct node *target = edge_child(cbw->target);
    struct graph_change *change;

    if (!node_reaches(target, edge_child(cbw->file)))
        return true;
    change = co_graph_change_begin(node_graph(node));
    co_graph_change_drain(change, target);
    node_allow_serialising(target);
    block_copy_set_serialising(cbw->copy);
    block_copy_set_explicit_zeroes(cbw->copy);
    return co_graph_change_end(change, true, err);
}

static bool CO_FN cbw_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    const struct blockdev_options_cbw *own = &options->u.copy_before_write;
    struct cbw_node *cbw = node_state(node);
    struct block_copy_options copy = {0};

    cbw->break_snapshot = own->has_on_cbw_error && own->on_cbw_error == ON_CBW_ERROR_BREAK_SNAPSHOT;
    cbw->timeout_ns = own->has_cbw_timeout ? own->cbw_timeout * NS_PER_S : 0;
    cbw->file = co_node_add_child(node, "file", own->file, EDGE_FILTERED | EDGE_PRIMARY, err);
    if (!cbw->file)
        return false;
    cbw->target = co_node_add_child(node, "target", own->target, EDGE_DATA, err);
    if (!cbw->target)
        return false;
    copy.source = cbw->file;
    copy.target = cbw->target;
    copy.length = node_length(edge_child(cbw->file));
    copy.cluster_size = co_choose_cluster(edge_child(cbw->target), own, err);
    if (!copy.cluster_size)
        return false;
    if (node_length(edge_child(cbw->target)) < copy.length)
        return error_set(err, "Target '%s' has %" PRIu64 " bytes, and the file '%s' has %" PRIu64,
                         node_name(edge_child(cbw->target)), node_length(edge_child(cbw->target)),
                         node_name(edge_child(cbw->file)), copy.length);
    cbw->copy = block_copy_new(&copy);
    if (co_guard_readers(cbw, node, err) && mark_all(node, own->bitmap, err))
        return true;
    block_copy_free(cbw->copy);
    return false;
}

static void CO_FN cbw_co_close(struct node *node)
{
    struct cbw_node *cbw = node_state(node);

    co_group_wait(&cbw->late);
    block_copy_free(cbw->copy);
    bitmap_free(cbw->saved);
}

/*
 * Nobody may get past the filter with a write once somebody uses it; before that it stands beside. The target may be
 * an overlay of the file, so that what is not saved yet shows through: then it bears the writes that come through here.
 */
static void cbw_child_permissions(const struct node *node, const struct edge *edge, uint32_t perm, uint32_t shared,
                                  uint32_t *ret_perm, uint32_t *ret_shared)
{
    const struct cbw_node *cbw = node_state(node);

    if (edge_role(edge) & EDGE_FILTERED) {
        *ret_perm = perm ? perm | PERM_CONSISTENT_READ : 0;
        *ret_shared = perm ? shared & ~(uint32_t)(PERM_WRITE | PERM_RESIZE) : PERM_ALL;
        return;
    }
    *ret_perm = PERM_CONSISTENT_READ | PERM_WRITE;
    *ret_shared = PERM_ALL & ~(uint32_t)PERM_RESIZE;
    if (!cbw->file || !node_reaches(edge_child(edge), edge_child(cbw->file)))
        *ret_shared &= ~(uint32_t)PERM_WRITE;
}

/* --- saving --- */

/* A copy that may outlive who asked for it; both run on one loop. Freed by the last of them. */
struct save {
    struct cbw_node *cbw;
    uint64_t offset;
    uint64_t bytes;
    int result;
    bool done;
    bool abandoned;
    struct co_condition finished;
};

static void save_free(struct save *save)
{
    co_condition_done(&save->finished);
    g_free(save);
}

static void save_run(void *opaque)
{
    struct save *save = opaque;
    struct cbw_node *cbw = save->cbw;
    bool is_read;

    save->result = co_block_copy(cbw->copy, save->offset, save->bytes, true, &is_read);
    save->done = true;
    if (save->abandoned)
        save_free(save);
    else
        co_condition_broadcast(&save->finished);
    co_group_done(&cbw->late);
}

static int CO_FN co_save_in_time(struct cbw_node *cbw, uint64_t offset, uint64_t bytes)
{
    struct save *save = g_new0(struct save, 1);
    struct co_deadline deadline;
    int waited = 0;
    int ret;

    *save = (struct save){.cbw = cbw, .offset = offset, .bytes = bytes};
    co_group_add(&cbw->late, 1);
    co_spawn(loop_current(), save_run, save);
    co_deadline_begin(&deadline, cbw->timeout_ns);
    while (!save->done && !waited)
        waited = co_condition_wait(&save->finished, NULL);
    co_deadline_end(&deadline);
    /* A client that leaves does not make saving fail. */
    while (!save->done && waited == -ECANCELED)
        co_condition_wait_always(&save->finished, NULL);
    if (!save->done) {
        save->abandoned = true;
        return -ETIMEDOUT;
    }
    ret = save->result;
    save_free(save);
    return ret;
}

/* Before a change of the range: 0, or why the change must not be. */
static int CO_FN co_save(struct node *node, uint64_t offset, uint64_t bytes)
{
    struct cbw_node *cbw = node_state(node);
    bool is_read;
    int ret;

    if (__atomic_load_n(&cbw->lost, __ATOMIC_ACQUIRE) || offset >= block_copy_length(cbw->copy))
        return 0;
    if (cbw->timeout_ns)
        ret = co_save_in_time(cbw, offset, bytes);
    else
        ret = co_block_copy(cbw->copy, offset, bytes, true, &is_read);
    if (!ret || !cbw->break_snapshot)
        return ret;
    __atomic_store_n(&cbw->lost, ret, __ATOMIC_RELEASE);
    return 0;
}

/* --- the saved state --- */

/* 0, or why the range cannot be read as it was. */
static int check_saved(const struct cbw_node *cbw, uint64_t offset, uint64_t bytes)
{
    uint64_t cluster = block_copy_cluster_size(cbw->copy);
    uint64_t end = (offset + bytes + cluster - 1) / cluster;

    if (__atomic_load_n(&cbw->lost, __ATOMIC_ACQUIRE))
        return -EACCES;
    if (offset + bytes > block_copy_length(cbw->copy))
        return -EIO;
    return cbw->saved && bitmap_next_clear(cbw->saved, offset / cluster, end) < end ? -EACCES : 0;
}

/* Under a claim nobody saves or overwrites the range. */
static int CO_FN co_read_claimed(struct cbw_node *cbw, uint64_t offset, uint64_t bytes, const struct io_vector *iov)
{
    uint64_t at = 0;
    int ret = 0;

    while (at < bytes && !ret) {
        uint64_t now;
        bool marked = block_copy_is_marked(cbw->copy, offset + at, bytes - at, &now);
        unsigned count = io_vector_slice_count(iov, at, now);
        struct iovec *segments = loop_alloc(count * sizeof(struct iovec));
        struct io_vector slice = io_vector_slice(iov, at, now, segments);

        ret = co_edge_preadv(marked ? cbw->file : cbw->target, offset + at, now, &slice, 0);
        loop_release(segments, count * sizeof(struct iovec));
        at += now;
    }
    return ret;
}

int CO_FN co_copy_before_write_read(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov)
{
    struct cbw_node *cbw = node_state(node);
    int ret = check_saved(cbw, offset, bytes);
    struct block_copy_claim claim;

    if (ret || !bytes)
        return ret;
    co_block_copy_claim(cbw->copy, &claim, offset, bytes);
    ret = co_read_claimed(cbw, offset, bytes, iov);
    block_copy_release(cbw->copy, &claim, 0, 0, true);
    return ret ? ret : check_saved(cbw, offset, bytes);
}

int CO_FN co_copy_before_write_status(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                                      struct block_extent *ret)
{
    struct cbw_node *cbw = node_state(node);
    struct block_copy_claim claim;
    int result = check_saved(cbw, offset, 1);
    bool marked;

    if (result)
        return result;
    bytes = MIN(bytes, block_copy_length(cbw->copy) - offset);
    co_block_copy_claim(cbw->copy, &claim, offset, bytes);
    marked = block_copy_is_marked(cbw->copy, offset, bytes, &bytes);
    result = co_edge_block_status(marked ? cbw->file : cbw->target, offset, bytes, want_zero, ret);
    block_copy_release(cbw->copy, &claim, 0, 0, true);
    return result;
}

/* --- requests --- */

static int CO_FN cbw_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                               unsigned flags)
{
    struct cbw_node *cbw = node_state(node);

    return co_edge_preadv(cbw->file, offset, bytes, iov, flags);
}

static int CO_FN cbw_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                unsigned flags)
{
    struct cbw_node *cbw = node_state(node);
    int ret = co_save(node, offset, bytes);

    return ret ? ret : co_edge_pwritev(cbw->file, offset, bytes, iov, flags);
}

static int CO_FN cbw_co_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct cbw_node *cbw = node_state(node);
    int ret = co_save(node, offset, bytes);

    return ret ? ret : co_edge_pwrite_zeroes(cbw->file, offset, bytes, flags);
}

static int CO_FN cbw_co_copy_from(struct node *node, uint64_t offset, uint64_t bytes, struct node *from,
                                  uint64_t from_offset, unsigned flags)
{
    struct cbw_node *cbw = node_state(node);
    int ret = co_save(node, offset, bytes);

    return ret ? ret : co_edge_copy_from(cbw->file, offset, bytes, from, from_offset, flags);
}

static int CO_FN cbw_co_pdiscard(struct node *node, uint64_t offset, uint64_t bytes)
{
    struct cbw_node *cbw = node_state(node);
    int ret = co_save(node, offset, bytes);

    return ret ? ret : co_edge_pdiscard(cbw->file, offset, bytes);
}

/* Nothing is held back; but a copy that was given up on is still under way. */
static void cbw_drain_begin(struct node *node)
{
}

static void CO_FN cbw_drain_co_wait(struct node *node)
{
    struct cbw_node *cbw = node_state(node);

    co_group_wait(&cbw->late);
}

static void cbw_drain_end(struct node *node)
{
}

static const char *const cbw_significant_options[] = {"bitmap", "on-cbw-error", "cbw-timeout", "min-cluster-size",
                                                      NULL};

static const struct block_driver_drain cbw_drain = {
    .begin = cbw_drain_begin,
    .co_wait = cbw_drain_co_wait,
    .end = cbw_drain_end,
};

const struct block_driver copy_before_write_driver = {
    .name = "copy-before-write",
    .kind = BLOCK_DRIVER_FILTER,
    .nameless = true,
    .state_size = sizeof(struct cbw_node),
    .passthrough = true,
    .co_open = cbw_co_open,
    .co_close = cbw_co_close,
    .co_preadv = cbw_co_preadv,
    .co_pwritev = cbw_co_pwritev,
    .co_pwrite_zeroes = cbw_co_pwrite_zeroes,
    .co_copy_from = cbw_co_copy_from,
    .co_pdiscard = cbw_co_pdiscard,
    .child_permissions = cbw_child_permissions,
    .significant_options = cbw_significant_options,
    .drain = &cbw_drain,
};
