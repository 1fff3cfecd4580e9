/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * quorum: several children that should hold the same data, all are written to, and reading is a vote. Options:
 *  - children: the nodes, of one length;
 *  - vote-threshold: how many must agree on what is read, and how many must have done what is written or flushed;
 *  - read-pattern: "quorum" (default): all are read and vote; "fifo": the first that does not fail;
 *  - rewrite-corrupted: what is outvoted is written over (default false);
 *  - blkverify: of two children, a difference is an error that is told on stderr (default false).
 *
 * QUORUM_REPORT_BAD tells of each child that failed, or that the others have outvoted; QUORUM_FAILURE of a request that
 * too few agreed on. Children come and go with x-blockdev-change; names are "children.N", by the order of their coming.
 */
#include "driver/filter/quorum.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "block/driver.h"
#include "block/graph-change.h"
#include "block/node.h"
#include "block/transaction.h"
#include "driver/filter/quorum-vote.h"
#include "gen/events.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"

enum {
    SECTOR_BYTES = 512,
    CHILDREN_MAX = 32,
    TRANSFER_BYTES_MAX = 4 << 20, /* each child's answer to a read is held in memory */
};

struct quorum_node {
    struct edge *children[CHILDREN_MAX]; /* request: in the order of their coming */
    unsigned count;                      /* request */
    unsigned threshold;                  /* const after open, as the rest */
    bool fifo;
    bool rewrite;
    bool verify;
    unsigned next_index; /* main loop: of the next child's name */

    /*
     * Each change holds it beside the others; a vote that was not unanimous takes it alone, and is held again: what was
     * read beside a write may be old at one child and new at another, which is nobody's fault, and writing it over
     * would undo the write.
     */
    struct co_rwlock changes;
};

/* --- options --- */

static bool check_options(const struct blockdev_options_quorum *own, struct error **err)
{
    bool verify = own->has_blkverify && own->blkverify;
    bool fifo = own->has_read_pattern && own->read_pattern == QUORUM_READ_PATTERN_FIFO;

    if (own->children->count < 1)
        return error_set(err, "Number of provided children must be 1 or more");
    if (own->children->count > CHILDREN_MAX)
        return error_set(err, "Number of provided children must be %d at most: there are %zu", CHILDREN_MAX,
                         own->children->count);
    if (own->vote_threshold < 1)
        return error_set(err, "Parameter 'vote-threshold' expects a value >= 1: it is %" PRId64, own->vote_threshold);
    if ((uint64_t)own->vote_threshold > own->children->count)
        return error_set(err, "threshold may not exceed children count: it is %" PRId64 " of %zu", own->vote_threshold,
                         own->children->count);
    if (fifo)
        return true;
    if (verify && (own->children->count != 2 || own->vote_threshold != 2))
        return error_set(err, "blkverify=on can only be set if there are exactly two files and vote-threshold is 2");
    if (verify && own->has_rewrite_corrupted && own->rewrite_corrupted)
        return error_set(err, "rewrite-corrupted=on cannot be used with blkverify=on");
    return true;
}

static bool CO_FN quorum_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    const struct blockdev_options_quorum *own = &options->u.quorum;
    struct quorum_node *quorum = node_state(node);

    if (!check_options(own, err))
        return false;
    quorum->threshold = (unsigned)own->vote_threshold;
    quorum->fifo = own->has_read_pattern && own->read_pattern == QUORUM_READ_PATTERN_FIFO;
    quorum->rewrite = own->has_rewrite_corrupted && own->rewrite_corrupted && !quorum->fifo;
    quorum->verify = own->has_blkverify && own->blkverify && !quorum->fifo;
    for (; quorum->count < own->children->count; quorum->count++) {
        g_autofree char *name = g_strdup_printf("children.%u", quorum->next_index++);
        struct edge *edge = co_node_add_child(node, name, own->children->items[quorum->count], EDGE_DATA, err);

        if (!edge)
            return false;
        quorum->children[quorum->count] = edge;
    }
    node_set_flags(node, IO_FUA | IO_UNCHANGED, IO_FUA | IO_MAY_UNMAP | IO_UNCHANGED);
    return true;
}

static void CO_FN quorum_co_close(struct node *node)
{
    struct quorum_node *quorum = node_state(node);

    co_rwlock_done(&quorum->changes);
}

static int64_t CO_FN quorum_co_length(struct node *node)
{
    const struct quorum_node *quorum = node_state(node);
    uint64_t length = node_length(edge_child(quorum->children[0]));

    for (unsigned i = 1; i < quorum->count; i++) {
        if (node_length(edge_child(quorum->children[i])) != length)
            return -EIO;
    }
    return (int64_t)length;
}

static bool CO_FN quorum_co_refresh_limits(struct node *node, struct node_limits *limits, struct error **err)
{
    const struct quorum_node *quorum = node_state(node);
    uint32_t most = TRANSFER_BYTES_MAX;

    for (unsigned i = 0; i < quorum->count; i++) {
        const struct node_limits *child = node_get_limits(edge_child(quorum->children[i]));

        limits->request_alignment = MAX(limits->request_alignment, child->request_alignment);
    }
    limits->transfer_max = limits->transfer_max ? MIN(limits->transfer_max, most) : most;
    limits->transfer_max =
        (uint32_t)align_down(MAX(limits->transfer_max, limits->request_alignment), limits->request_alignment);
    return true;
}

/* Nobody else may write: the copies would differ. */
static void quorum_child_permissions(const struct node *node, const struct edge *edge, uint32_t perm, uint32_t shared,
                                     uint32_t *ret_perm, uint32_t *ret_shared)
{
    const struct quorum_node *quorum = node_state(node);

    *ret_perm = perm;
    if (quorum->rewrite && perm && !node_read_only(node))
        *ret_perm |= PERM_WRITE;
    *ret_shared = shared & (PERM_CONSISTENT_READ | PERM_WRITE_UNCHANGED);
}

/* --- events --- */

static int64_t sector_of(uint64_t offset)
{
    return (int64_t)(offset / SECTOR_BYTES);
}

static int64_t sectors_of(uint64_t offset, uint64_t bytes)
{
    return (int64_t)((offset + bytes + SECTOR_BYTES - 1) / SECTOR_BYTES) - sector_of(offset);
}

/* `result` 0: the child is outvoted. */
static void report_bad(const struct node *node, enum quorum_op_type type, const struct edge *edge, uint64_t offset,
                       uint64_t bytes, int result)
{
    g_autofree char *name = g_strdup(node_name(edge_child(edge)));
    g_autofree char *error = result ? g_strdup(g_strerror(-result)) : NULL;
    struct quorum_report_bad_event data = {
        .type = type,
        .error = error,
        .node_name = name,
        .sector_num = sector_of(offset),
        .sectors_count = sectors_of(offset, bytes),
    };

    if (node_events(node))
        event_send_quorum_report_bad(node_events(node), &data);
}

static void report_failure(const struct node *node, uint64_t offset, uint64_t bytes)
{
    g_autofree char *name = g_strdup(node_name(node));
    struct quorum_failure_event data = {
        .reference = name,
        .sector_num = sector_of(offset),
        .sectors_count = sectors_of(offset, bytes),
    };

    if (node_events(node))
        event_send_quorum_failure(node_events(node), &data);
}

/* --- asking all children at once --- */

enum request_kind { REQUEST_READ, REQUEST_WRITE, REQUEST_ZERO, REQUEST_FLUSH };

struct ballot;

/* One child's part of a request. */
struct share {
    struct ballot *ballot;
    struct edge *edge;
    struct io_vector iov; /* where a read goes; of a write, the caller's */
    struct iovec segment; /* of a buffer of its own */
    void *buffer;         /* NULL: none */
};

/* A request on its way to all children. On the stack of the request. */
struct ballot {
    struct node *node;
    enum request_kind kind;
    uint64_t offset;
    uint64_t bytes;
    unsigned flags;
    unsigned count;
    struct co_group group;
    struct share shares[CHILDREN_MAX];
    struct quorum_answer answers[CHILDREN_MAX];
};

static enum quorum_op_type event_type(enum request_kind kind)
{
    if (kind == REQUEST_READ)
        return QUORUM_OP_TYPE_READ;
    return kind == REQUEST_FLUSH ? QUORUM_OP_TYPE_FLUSH : QUORUM_OP_TYPE_WRITE;
}

static int CO_FN co_ask(const struct ballot *ballot, const struct share *share)
{
    switch (ballot->kind) {
    case REQUEST_READ:
        return co_edge_preadv(share->edge, ballot->offset, ballot->bytes, &share->iov, ballot->flags);
    case REQUEST_WRITE:
        return co_edge_pwritev(share->edge, ballot->offset, ballot->bytes, &share->iov, ballot->flags);
    case REQUEST_ZERO:
        return co_edge_pwrite_zeroes(share->edge, ballot->offset, ballot->bytes, ballot->flags);
    case REQUEST_FLUSH:
        return co_edge_flush(share->edge);
    }
    assert(!"kind");
    return -EINVAL;
}

static void CO_FN co_ask_one(struct share *share)
{
    struct ballot *ballot = share->ballot;
    struct quorum_answer *answer = &ballot->answers[share - ballot->shares];

    answer->result = co_ask(ballot, share);
    if (answer->result)
        report_bad(ballot->node, event_type(ballot->kind), share->edge, ballot->offset, ballot->bytes, answer->result);
}

static void CO_FN co_ask_entry(void *opaque)
{
    struct share *share = opaque;

    co_ask_one(share);
    co_group_done(&share->ballot->group);
}

/* Asks all but those that have failed before; how many did not fail. */
static unsigned CO_FN co_ask_all(struct ballot *ballot)
{
    unsigned good = 0;

    for (unsigned i = 1; i < ballot->count; i++) {
        if (ballot->answers[i].result)
            continue;
        co_group_add(&ballot->group, 1);
        co_spawn(loop_current(), co_ask_entry, &ballot->shares[i]);
    }
    if (!ballot->answers[0].result)
        co_ask_one(&ballot->shares[0]);
    co_group_wait(&ballot->group);
    for (unsigned i = 0; i < ballot->count; i++)
        good += !ballot->answers[i].result;
    return good;
}

/* On the loop's free list, as it is large. */
static struct ballot *ballot_new(struct node *node, enum request_kind kind, uint64_t offset, uint64_t bytes,
                                 const struct io_vector *iov, unsigned flags)
{
    const struct quorum_node *quorum = node_state(node);
    struct ballot *ballot = loop_alloc(sizeof(*ballot));

    memset(ballot, 0, sizeof(*ballot));
    ballot->node = node;
    ballot->kind = kind;
    ballot->offset = offset;
    ballot->bytes = bytes;
    ballot->flags = flags;
    ballot->count = quorum->count;
    for (unsigned i = 0; i < quorum->count; i++) {
        ballot->shares[i] = (struct share){.ballot = ballot, .edge = quorum->children[i]};
        if (iov)
            ballot->shares[i].iov = *iov;
        ballot->answers[i].data = &ballot->shares[i].iov;
    }
    return ballot;
}

static void ballot_free(struct ballot *ballot)
{
    for (unsigned i = 0; i < ballot->count; i++) {
        if (ballot->shares[i].buffer)
            loop_buffer_put(ballot->shares[i].buffer, ballot->bytes);
    }
    loop_release(ballot, sizeof(*ballot));
}

/* --- reading --- */

/* All but the first read to memory of their own. */
static bool give_buffers(struct ballot *ballot)
{
    for (unsigned i = 1; i < ballot->count; i++) {
        struct share *share = &ballot->shares[i];

        share->buffer = loop_buffer_get(ballot->bytes);
        if (!share->buffer)
            return false;
        share->segment = (struct iovec){.iov_base = share->buffer, .iov_len = ballot->bytes};
        share->iov = io_vector_of(&share->segment, 1);
    }
    return true;
}

/* Writes what has won over what has lost. */
static void CO_FN co_rewrite(struct ballot *ballot, unsigned winner)
{
    const struct io_vector *right = &ballot->shares[winner].iov;

    for (unsigned i = 0; i < ballot->count; i++) {
        int ret;

        if (ballot->answers[i].result || ballot->answers[i].same_as == winner)
            continue;
        ret = co_edge_pwritev(ballot->shares[i].edge, ballot->offset, ballot->bytes, right, 0);
        if (ret)
            report_bad(ballot->node, QUORUM_OP_TYPE_WRITE, ballot->shares[i].edge, ballot->offset, ballot->bytes, ret);
    }
}

/* With blkverify both must agree. */
static int verify(struct ballot *ballot)
{
    const struct io_vector *a = &ballot->shares[0].iov, *b = &ballot->shares[1].iov;
    size_t at;

    if (ballot->answers[0].result || ballot->answers[1].result)
        return quorum_vote_error(ballot->answers, ballot->count);
    at = io_vector_difference(a, b);
    if (at == a->size)
        return 0;
    log_error("quorum: node '%s': offset=%" PRIu64 " bytes=%" PRIu64 " contents mismatch at offset %" PRIu64,
              node_name(ballot->node), ballot->offset, ballot->bytes, ballot->offset + at);
    return -EIO;
}

/* Of the answers of `good` children, after their votes were counted for `winner`. */
static int CO_FN co_elect(struct ballot *ballot, unsigned good, int winner)
{
    const struct quorum_node *quorum = node_state(ballot->node);

    if (quorum->verify)
        return verify(ballot);
    if (good < quorum->threshold) {
        report_failure(ballot->node, ballot->offset, ballot->bytes);
        return quorum_vote_error(ballot->answers, ballot->count);
    }
    if (winner < 0 || ballot->answers[winner].votes < quorum->threshold) {
        report_failure(ballot->node, ballot->offset, ballot->bytes);
        return -EIO;
    }
    for (unsigned i = 0; i < ballot->count; i++) {
        if (!ballot->answers[i].result && ballot->answers[i].same_as != (unsigned)winner)
            report_bad(ballot->node, QUORUM_OP_TYPE_READ, ballot->shares[i].edge, ballot->offset, ballot->bytes, 0);
    }
    if (quorum->rewrite && !node_read_only(ballot->node))
        co_rewrite(ballot, (unsigned)winner);
    /* The first one's memory is the caller's. */
    if (winner > 0)
        io_vector_write(&ballot->shares[0].iov, 0, ballot->shares[winner].buffer, ballot->bytes);
    return 0;
}

static int CO_FN co_read_voting(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov)
{
    struct quorum_node *quorum = node_state(node);
    struct ballot *ballot = ballot_new(node, REQUEST_READ, offset, bytes, iov, 0);
    int ret = -ENOMEM;

    if (give_buffers(ballot)) {
        unsigned good = co_ask_all(ballot);
        int winner = quorum_vote(ballot->answers, ballot->count);

        if (winner < 0 || ballot->answers[winner].votes == good) {
            ret = co_elect(ballot, good, winner);
        } else {
            co_rwlock_write_lock(&quorum->changes);
            good = co_ask_all(ballot);
            ret = co_elect(ballot, good, quorum_vote(ballot->answers, ballot->count));
            co_rwlock_unlock(&quorum->changes);
        }
    }
    ballot_free(ballot);
    return ret;
}

static int CO_FN co_read_fifo(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov)
{
    const struct quorum_node *quorum = node_state(node);
    int ret = -EIO;

    for (unsigned i = 0; i < quorum->count; i++) {
        ret = co_edge_preadv(quorum->children[i], offset, bytes, iov, 0);
        if (!ret)
            return 0;
        report_bad(node, QUORUM_OP_TYPE_READ, quorum->children[i], offset, bytes, ret);
    }
    return ret;
}

static int CO_FN quorum_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                  unsigned flags)
{
    const struct quorum_node *quorum = node_state(node);

    return quorum->fifo ? co_read_fifo(node, offset, bytes, iov) : co_read_voting(node, offset, bytes, iov);
}

/* --- changes --- */

static int CO_FN co_change(struct ballot *ballot)
{
    struct quorum_node *quorum = node_state(ballot->node);
    unsigned good;
    int ret = 0;

    co_rwlock_read_lock(&quorum->changes);
    good = co_ask_all(ballot);
    co_rwlock_unlock(&quorum->changes);
    if (good < quorum->threshold) {
        ret = quorum_vote_error(ballot->answers, ballot->count);
        if (ballot->kind != REQUEST_FLUSH)
            report_failure(ballot->node, ballot->offset, ballot->bytes);
    }
    ballot_free(ballot);
    return ret;
}

static int CO_FN quorum_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                   unsigned flags)
{
    return co_change(ballot_new(node, REQUEST_WRITE, offset, bytes, iov, flags));
}

static int CO_FN quorum_co_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    return co_change(ballot_new(node, REQUEST_ZERO, offset, bytes, NULL, flags));
}

static int CO_FN quorum_co_flush_to_children(struct node *node)
{
    return co_change(ballot_new(node, REQUEST_FLUSH, 0, 0, NULL, 0));
}

/* Zeroes are where all have zeroes. */
static int CO_FN quorum_co_block_status(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                                        struct block_extent *ret)
{
    const struct quorum_node *quorum = node_state(node);
    uint64_t zero = bytes, data = 0;

    for (unsigned i = 0; i < quorum->count; i++) {
        struct block_extent extent;
        int result = co_edge_block_status(quorum->children[i], offset, bytes, want_zero, &extent);

        if (result) {
            report_bad(node, QUORUM_OP_TYPE_READ, quorum->children[i], offset, bytes, result);
            data = bytes;
        } else if (extent.flags & BLOCK_ZERO) {
            zero = MIN(zero, extent.bytes);
        } else {
            data = MAX(data, extent.bytes);
        }
    }
    *ret = (struct block_extent){.bytes = data ? data : zero};
    ret->flags = (data ? BLOCK_DATA : BLOCK_ZERO) | BLOCK_ALLOCATED;
    return 0;
}

static int CO_FN quorum_co_truncate(struct node *node, const struct truncate_request *request, struct error **err)
{
    const struct quorum_node *quorum = node_state(node);

    for (unsigned i = 0; i < quorum->count; i++) {
        int ret = co_edge_truncate(quorum->children[i], request, err);

        if (ret)
            return ret;
    }
    return 0;
}

/* --- children that come and go --- */

struct new_child {
    struct node *node;
    const char *name;
};

static void CO_FN co_added(void *opaque)
{
    struct new_child *new_child = opaque;
    struct quorum_node *quorum = node_state(new_child->node);

    assert(quorum->count < CHILDREN_MAX);
    quorum->children[quorum->count] = node_child(new_child->node, new_child->name);
    assert(quorum->children[quorum->count]);
    quorum->count++;
    quorum->next_index++;
}

static const struct transaction_ops added_ops = {.co_commit = co_added};

static bool CO_FN quorum_co_add_child(struct node *node, struct node *child, struct error **err)
{
    struct quorum_node *quorum = node_state(node);
    g_autofree char *name = g_strdup_printf("children.%u", quorum->next_index);
    struct new_child new_child = {.node = node, .name = name};
    struct graph_change *change;
    bool ok;

    if (quorum->verify)
        return error_set(err, "Cannot add a child to a quorum in blkverify mode");
    if (quorum->count == CHILDREN_MAX)
        return error_set(err, "Too many children: quorum '%s' takes at most %d", node_name(node), CHILDREN_MAX);
    if (!node_reaches(child, node) && node_length(child) != node_length(node))
        return error_set(err, "Node '%s' has %" PRIu64 " bytes, and the children of quorum '%s' %" PRIu64,
                         node_name(child), node_length(child), node_name(node), node_length(node));
    change = co_graph_change_begin(node_graph(node));
    ok = co_graph_change_add_child(change, node, name, child, EDGE_DATA, err);
    graph_change_add(change, node, &added_ops, &new_child);
    return co_graph_change_end(change, ok, err);
}

struct gone_child {
    struct quorum_node *quorum;
    unsigned index; /* among the children */
    struct edge *edge;
};

static void CO_FN co_gone_abort(void *opaque)
{
    struct gone_child *gone = opaque;
    struct quorum_node *quorum = gone->quorum;

    memmove(quorum->children + gone->index + 1, quorum->children + gone->index,
            (quorum->count - gone->index) * sizeof(*quorum->children));
    quorum->children[gone->index] = gone->edge;
    quorum->count++;
}

static const struct transaction_ops gone_ops = {.co_abort = co_gone_abort};

static bool CO_FN quorum_co_remove_child(struct node *node, struct edge *edge, struct error **err)
{
    struct quorum_node *quorum = node_state(node);
    struct gone_child gone = {.quorum = quorum, .edge = edge};
    g_autofree char *last = g_strdup_printf("children.%u", quorum->next_index - 1);
    bool was_last = !strcmp(edge_name(edge), last);
    struct graph_change *change;

    if (quorum->count <= quorum->threshold)
        return error_set(err, "The number of children cannot be lower than the vote threshold %u", quorum->threshold);
    if (quorum->verify)
        return error_set(err, "Cannot remove a child of a quorum in blkverify mode");
    while (quorum->children[gone.index] != edge)
        gone.index++;
    change = co_graph_change_begin(node_graph(node));
    co_graph_change_drain(change, node);
    quorum->count--;
    memmove(quorum->children + gone.index, quorum->children + gone.index + 1,
            (quorum->count - gone.index) * sizeof(*quorum->children));
    graph_change_add(change, node, &gone_ops, &gone);
    co_graph_change_remove_child(change, edge);
    if (!co_graph_change_end(change, true, err))
        return false;
    quorum->next_index -= was_last;
    return true;
}

static const char *const quorum_significant_options[] = {"blkverify", "vote-threshold", "rewrite-corrupted",
                                                         "read-pattern", NULL};

static const struct block_driver_children quorum_children = {
    .co_add = quorum_co_add_child,
    .co_remove = quorum_co_remove_child,
};

const struct block_driver quorum_driver = {
    .name = "quorum",
    .kind = BLOCK_DRIVER_FORMAT,
    .state_size = sizeof(struct quorum_node),
    .flushes_children = true,
    .co_open = quorum_co_open,
    .co_close = quorum_co_close,
    .co_preadv = quorum_co_preadv,
    .co_pwritev = quorum_co_pwritev,
    .co_pwrite_zeroes = quorum_co_pwrite_zeroes,
    .co_flush_to_children = quorum_co_flush_to_children,
    .co_block_status = quorum_co_block_status,
    .co_truncate = quorum_co_truncate,
    .co_length = quorum_co_length,
    .co_refresh_limits = quorum_co_refresh_limits,
    .child_permissions = quorum_child_permissions,
    .significant_options = quorum_significant_options,
    .children = &quorum_children,
};
