/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keeps: (1) a change of the source is marked, or made in the target too, before its writer hears of its end; (2) two
 * active writes to one cluster are made in one order on both sides: each holds a claim on it throughout. A write hook
 * on the source sees all changes of it, also those of others than the filter.
 */
#include "job/mirror-filter.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "block/block-copy.h"
#include "block/driver.h"
#include "block/graph-change.h"
#include "block/node.h"
#include "block/write-hook.h"
#include "job/job.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"

struct mirror_node {
    struct edge *file;       /* const after open, as all up to `loop` */
    struct edge *target;     /* NULL: the file itself, for stream jobs */
    struct block_copy *copy; /* set right after open */
    struct loop *loop;
    bool active;             /* atomic */
    bool asked;              /* atomic: the job rests until something is marked */
    int error;               /* atomic: negative errno; 0 */
    bool stopped;            /* main loop */
    struct job *job;         /* main loop; NULL: none */
    struct co_group notices; /* on their way to the job */
    struct node *watched;    /* main loop: the source, which has `hook`; NULL: not yet, or no longer */
    struct write_hook hook;
};

/* --- telling the job --- */

static void tell_job(void *opaque)
{
    struct mirror_node *mirror = opaque;

    if (mirror->job)
        job_kick(mirror->job);
    co_group_done(&mirror->notices);
}

static void notify(struct mirror_node *mirror)
{
    if (!__atomic_load_n(&mirror->asked, __ATOMIC_SEQ_CST))
        return;
    if (!__atomic_exchange_n(&mirror->asked, false, __ATOMIC_SEQ_CST))
        return;
    co_group_add(&mirror->notices, 1);
    co_spawn(mirror->loop, tell_job, mirror);
}

/* --- changes --- */

/* One change, to be made on either side. */
struct change {
    uint64_t offset;
    uint64_t bytes;
    const struct io_vector *iov; /* NULL: zeroes, or a discard */
    bool discard;
    unsigned flags;
};

static int CO_FN co_make(struct edge *edge, const struct change *change)
{
    if (change->iov)
        return co_edge_pwritev(edge, change->offset, change->bytes, change->iov, change->flags);
    if (change->discard)
        return co_edge_pdiscard(edge, change->offset, change->bytes);
    return co_edge_pwrite_zeroes(edge, change->offset, change->bytes, change->flags);
}

static int CO_FN co_change_both(struct mirror_node *mirror, const struct change *change)
{
    struct change at_target = *change;
    struct block_copy_claim claim;
    int target_ret = 0;
    int ret;

    /* A side that cannot do it fast does it anyhow. */
    at_target.flags &= ~(unsigned)(IO_NO_FALLBACK | IO_REGISTERED);
    co_block_copy_claim(mirror->copy, &claim, change->offset, change->bytes);
    ret = co_make(mirror->file, change);
    if (!ret)
        target_ret = co_make(mirror->target, &at_target);
    if (target_ret) {
        int none = 0;

        __atomic_compare_exchange_n(&mirror->error, &none, target_ret, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    /* What a discard leaves is not defined, on either side. */
    block_copy_release(mirror->copy, &claim, change->offset, change->bytes, !ret && !target_ret && !change->discard);
    if (ret || target_ret || change->discard)
        notify(mirror);
    return ret;
}

/* What the job has read before is not written after this. */
static int CO_FN co_change_in_place(struct mirror_node *mirror, const struct change *change)
{
    struct block_copy_claim claim;
    int ret;

    co_block_copy_claim(mirror->copy, &claim, change->offset, change->bytes);
    ret = co_make(mirror->file, change);
    block_copy_release(mirror->copy, &claim, 0, 0, true);
    return ret;
}

static int CO_FN co_change(struct node *node, const struct change *change)
{
    struct mirror_node *mirror = node_state(node);

    if (!mirror->target)
        return co_change_in_place(mirror, change);
    if (__atomic_load_n(&mirror->active, __ATOMIC_ACQUIRE))
        return co_change_both(mirror, change);
    /* The hook marks it. */
    return co_make(mirror->file, change);
}

static void source_changed(struct write_hook *hook, uint64_t offset, uint64_t bytes, int result)
{
    struct mirror_node *mirror = (struct mirror_node *)((char *)hook - offsetof(struct mirror_node, hook));

    if (block_copy_changed(mirror->copy, offset, bytes))
        notify(mirror);
}

static const struct write_hook_ops mirror_hook_ops = {.after = source_changed};

static int CO_FN co_source_changes(struct write_hook *hook, uint64_t offset, uint64_t bytes)
{
    struct mirror_node *mirror = (struct mirror_node *)((char *)hook - offsetof(struct mirror_node, hook));

    co_block_copy_before(mirror->copy, offset, bytes);
    return 0;
}

static void source_has_changed(struct write_hook *hook, uint64_t offset, uint64_t bytes, int result)
{
    struct mirror_node *mirror = (struct mirror_node *)((char *)hook - offsetof(struct mirror_node, hook));

    block_copy_after(mirror->copy);
}

static const struct write_hook_ops stream_hook_ops = {.co_before = co_source_changes, .after = source_has_changed};

static int CO_FN mirror_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                  unsigned flags)
{
    struct mirror_node *mirror = node_state(node);

    return co_edge_preadv(mirror->file, offset, bytes, iov, flags);
}

static int CO_FN mirror_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                   unsigned flags)
{
    struct change change = {.offset = offset, .bytes = bytes, .iov = iov, .flags = flags};

    return co_change(node, &change);
}

static int CO_FN mirror_co_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct change change = {.offset = offset, .bytes = bytes, .flags = flags};

    return co_change(node, &change);
}

static int CO_FN mirror_co_pdiscard(struct node *node, uint64_t offset, uint64_t bytes)
{
    struct change change = {.offset = offset, .bytes = bytes, .discard = true};

    return co_change(node, &change);
}

/* --- opening --- */

static bool CO_FN mirror_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    bool in_place = options->driver == BLOCKDEV_DRIVER_COPY_ON_READ;
    const struct blockdev_ref *file = in_place ? options->u.copy_on_read.file : options->u.copy_before_write.file;
    struct mirror_node *mirror = node_state(node);

    mirror->loop = loop_current();
    mirror->file = co_node_add_child(node, "file", file, EDGE_FILTERED | EDGE_PRIMARY, err);
    if (!mirror->file || in_place)
        return mirror->file;
    mirror->target = co_node_add_child(node, "target", options->u.copy_before_write.target, EDGE_DATA, err);
    return mirror->target;
}

static void CO_FN mirror_co_close(struct node *node)
{
    struct mirror_node *mirror = node_state(node);

    assert(!mirror->watched);
    co_group_wait(&mirror->notices);
    block_copy_free(mirror->copy);
}

/* The length of the source stays. */
static void mirror_child_permissions(const struct node *node, const struct edge *edge, uint32_t perm, uint32_t shared,
                                     uint32_t *ret_perm, uint32_t *ret_shared)
{
    const struct mirror_node *mirror = node_state(node);

    if (mirror->stopped && edge_role(edge) & EDGE_FILTERED) {
        *ret_perm = perm;
        *ret_shared = shared;
    } else if (mirror->stopped || (edge_role(edge) & EDGE_FILTERED && !perm)) {
        *ret_perm = 0;
        *ret_shared = PERM_ALL;
    } else if (edge_role(edge) & EDGE_FILTERED) {
        *ret_perm = perm | PERM_CONSISTENT_READ | (mirror->target ? 0u : PERM_WRITE_UNCHANGED);
        /* Others are watched; and what is written to the target of a commit, which lies below the source, changes
         * nothing that the source shows. */
        *ret_shared = (shared & ~(uint32_t)PERM_RESIZE) | PERM_WRITE;
    } else {
        /* Nothing is read there, so that what it lies on may still be put below it. */
        *ret_perm = PERM_WRITE;
        *ret_shared = PERM_CONSISTENT_READ | PERM_WRITE_UNCHANGED;
    }
}

#define MIRROR_DRIVER(driver_name)                                                                                     \
    {                                                                                                                  \
        .name = driver_name, .kind = BLOCK_DRIVER_FILTER, .nameless = true, .state_size = sizeof(struct mirror_node),  \
        .passthrough = true, .co_open = mirror_co_open, .co_close = mirror_co_close, .co_preadv = mirror_co_preadv,    \
        .co_pwritev = mirror_co_pwritev, .co_pwrite_zeroes = mirror_co_pwrite_zeroes,                                  \
        .co_pdiscard = mirror_co_pdiscard, .child_permissions = mirror_child_permissions,                              \
    }

static const struct block_driver mirror_driver = MIRROR_DRIVER("mirror_top");
static const struct block_driver commit_driver = MIRROR_DRIVER("commit_top");
static const struct block_driver stream_driver = MIRROR_DRIVER("copy-on-read");

struct node *CO_FN co_mirror_filter_open(const struct mirror_filter_options *options, struct error **err)
{
    struct blockdev_ref file = {.kind = BLOCKDEV_REF_KIND_REFERENCE,
                                .u.reference = (char *)(uintptr_t)node_name(options->source)};
    struct blockdev_ref target = {.kind = BLOCKDEV_REF_KIND_REFERENCE};
    /* Options of a driver that the schema knows, and that has the same children. */
    struct blockdev_options definition = {
        .driver = options->target ? BLOCKDEV_DRIVER_COPY_BEFORE_WRITE : BLOCKDEV_DRIVER_COPY_ON_READ,
        .node_name = (char *)(uintptr_t)options->node_name,
        .has_read_only = true,
        .read_only = node_read_only(options->source),
        .has_discard = true,
        .discard = BLOCKDEV_DISCARD_OPTIONS_UNMAP,
    };
    struct block_copy_options copy = {.cluster_size = options->granularity, .length = node_length(options->source)};
    const struct block_driver *driver = !options->target     ? &stream_driver
                                        : options->is_commit ? &commit_driver
                                                             : &mirror_driver;
    struct mirror_node *mirror;
    struct node *node;

    if (options->target) {
        target.u.reference = (char *)(uintptr_t)node_name(options->target);
        definition.u.copy_before_write.file = &file;
        definition.u.copy_before_write.target = &target;
    } else {
        definition.u.copy_on_read.file = &file;
    }
    node = co_graph_open_node(node_graph(options->source), driver, &definition, err);
    if (!node)
        return NULL;
    mirror = node_state(node);
    copy.source = mirror->file;
    copy.target = mirror->target ? mirror->target : mirror->file;
    mirror->copy = block_copy_new(&copy);
    mirror->active = options->active;
    return node;
}

/* --- for the job --- */

struct block_copy *mirror_filter_copy(const struct node *node)
{
    return ((struct mirror_node *)node_state(node))->copy;
}

struct edge *mirror_filter_target(const struct node *node)
{
    return ((struct mirror_node *)node_state(node))->target;
}

void mirror_filter_set_active(struct node *node, bool active)
{
    __atomic_store_n(&((struct mirror_node *)node_state(node))->active, active, __ATOMIC_RELEASE);
}

bool mirror_filter_active(const struct node *node)
{
    return __atomic_load_n(&((struct mirror_node *)node_state(node))->active, __ATOMIC_ACQUIRE);
}

void mirror_filter_set_job(struct node *node, struct job *job)
{
    ((struct mirror_node *)node_state(node))->job = job;
}

void mirror_filter_ask(struct node *node)
{
    __atomic_store_n(&((struct mirror_node *)node_state(node))->asked, true, __ATOMIC_SEQ_CST);
}

int mirror_filter_take_error(struct node *node)
{
    return __atomic_exchange_n(&((struct mirror_node *)node_state(node))->error, 0, __ATOMIC_SEQ_CST);
}

void mirror_filter_watch(struct node *node, struct node *source)
{
    struct mirror_node *mirror = node_state(node);

    assert(!mirror->watched);
    mirror->watched = source;
    mirror->hook.ops = mirror->target ? &mirror_hook_ops : &stream_hook_ops;
    node_add_write_hook(mirror->watched, &mirror->hook);
}

void CO_FN co_mirror_filter_unwatch(struct node *node)
{
    struct mirror_node *mirror = node_state(node);
    struct graph_change *change;

    change = co_graph_change_begin(node_graph(node));
    co_graph_change_drain(change, mirror->watched);
    node_remove_write_hook(TAKE(mirror->watched), &mirror->hook);
    (void)co_graph_change_end(change, true, NULL);
}

void mirror_filter_set_stopped(struct node *node, bool stopped)
{
    ((struct mirror_node *)node_state(node))->stopped = stopped;
}
