/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * throttle: passes requests on as the limits of a group allow. Options:
 *  - throttle-group: id of the throttle-group object, which must exist and cannot be deleted meanwhile; may change
 *    while the node is open;
 *  - file: the node whose data it shows.
 *
 * Reads count as reads, writes, zero writes and discards as writes, each with its bytes; flushes don't count. A drain
 * lets everything go that waits, counted all the same.
 */
#include "driver/filter/throttle.h"

#include "block/driver.h"
#include "block/node.h"
#include "object/object.h"
#include "object/throttle-group.h"

struct throttle_node {
    struct edge *file;             /* const after open */
    struct object *group;          /* written in a drain; held */
    struct object *next;           /* between a prepare to reopen and its end: held; NULL: none */
    struct throttle_group *to;     /* that of `next` */
    struct throttle_member member; /* guarded by its group */
};

static bool CO_FN throttle_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    const struct blockdev_options_throttle *own = &options->u.throttle;
    struct throttle_node *throttle = node_state(node);
    struct throttle_group *group = throttle_group_hold(node_objects(node), own->throttle_group, &throttle->group, err);

    if (!group)
        return false;
    throttle->file = co_node_add_child(node, "file", own->file, EDGE_FILTERED | EDGE_PRIMARY, err);
    if (!throttle->file) {
        object_release(throttle->group);
        return false;
    }
    throttle_member_init(&throttle->member, group);
    return true;
}

static void CO_FN throttle_co_close(struct node *node)
{
    struct throttle_node *throttle = node_state(node);

    throttle_member_done(&throttle->member);
    object_release(throttle->group);
}

static int CO_FN throttle_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                    unsigned flags)
{
    struct throttle_node *throttle = node_state(node);

    co_throttle_wait(&throttle->member, THROTTLE_READ, bytes);
    return co_edge_preadv(throttle->file, offset, bytes, iov, flags);
}

static int CO_FN throttle_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                     unsigned flags)
{
    struct throttle_node *throttle = node_state(node);

    co_throttle_wait(&throttle->member, THROTTLE_WRITE, bytes);
    return co_edge_pwritev(throttle->file, offset, bytes, iov, flags);
}

static int CO_FN throttle_co_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct throttle_node *throttle = node_state(node);

    co_throttle_wait(&throttle->member, THROTTLE_WRITE, bytes);
    return co_edge_pwrite_zeroes(throttle->file, offset, bytes, flags);
}

static int CO_FN throttle_co_pdiscard(struct node *node, uint64_t offset, uint64_t bytes)
{
    struct throttle_node *throttle = node_state(node);

    co_throttle_wait(&throttle->member, THROTTLE_WRITE, bytes);
    return co_edge_pdiscard(throttle->file, offset, bytes);
}

static void throttle_drain_begin(struct node *node)
{
    struct throttle_node *throttle = node_state(node);

    throttle_member_drain_begin(&throttle->member);
}

static void throttle_drain_end(struct node *node)
{
    struct throttle_node *throttle = node_state(node);

    throttle_member_drain_end(&throttle->member);
}

/* --- reopening: with another group --- */

static bool CO_FN throttle_co_reopen_prepare(struct node *node, const struct blockdev_options *options,
                                             struct error **err)
{
    struct throttle_node *throttle = node_state(node);

    throttle->to = throttle_group_hold(node_objects(node), options->u.throttle.throttle_group, &throttle->next, err);
    return throttle->to;
}

static void CO_FN throttle_co_reopen_commit(struct node *node)
{
    struct throttle_node *throttle = node_state(node);

    /* It rests, as it will in the other group until the drain ends. */
    throttle_member_drain_end(&throttle->member);
    throttle_member_done(&throttle->member);
    object_release(throttle->group);
    throttle->group = TAKE(throttle->next);
    throttle_member_init(&throttle->member, TAKE(throttle->to));
    throttle_member_drain_begin(&throttle->member);
}

static void CO_FN throttle_co_reopen_abort(struct node *node)
{
    struct throttle_node *throttle = node_state(node);

    object_release(TAKE(throttle->next));
    throttle->to = NULL;
}

static const char *const throttle_reopen_options[] = {"throttle-group", NULL};

static const struct block_driver_reopen throttle_reopen = {
    .options = throttle_reopen_options,
    .co_prepare = throttle_co_reopen_prepare,
    .co_commit = throttle_co_reopen_commit,
    .co_abort = throttle_co_reopen_abort,
};

static const char *const throttle_significant_options[] = {"throttle-group", NULL};

static const struct block_driver_drain throttle_drain = {
    .begin = throttle_drain_begin,
    .end = throttle_drain_end,
};

const struct block_driver throttle_filter_driver = {
    .name = "throttle",
    .kind = BLOCK_DRIVER_FILTER,
    .state_size = sizeof(struct throttle_node),
    .passthrough = true,
    .co_open = throttle_co_open,
    .co_close = throttle_co_close,
    .co_preadv = throttle_co_preadv,
    .co_pwritev = throttle_co_pwritev,
    .co_pwrite_zeroes = throttle_co_pwrite_zeroes,
    .co_pdiscard = throttle_co_pdiscard,
    .significant_options = throttle_significant_options,
    .drain = &throttle_drain,
    .reopen = &throttle_reopen,
};
