/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkdebug: passes requests on, and makes them fail, or stops them, at steps of the drivers above and of the core, so
 * that tests reach what happens only when something breaks. Options:
 *  - image: the node whose data it shows;
 *  - config: path of a file with rules, see blkdebug-rules.h;
 *  - inject-error, set-state: more rules;
 *  - align, max-transfer, opt-write-zero, max-write-zero, opt-discard, max-discard: what it asks of requests, bytes;
 *    0: what the child asks;
 *  - take-child-perms, unshare-child-perms: permissions that it uses, and keeps from others, beyond what is needed.
 *
 * Keeps: (1) no request below the preferred size of its kind is passed on, so that whoever asked has to find another
 * way; (2) a held request is in `held` until somebody takes it out, under the lock, and wakes it.
 */
#include "driver/filter/blkdebug.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "block/node.h"
#include "block/waiter.h"
#include "driver/filter/blkdebug-rules.h"
#include "loop/coroutine.h"
#include "loop/file.h"
#include "loop/lock.h"

enum { CONFIG_BYTES_MAX = 1 << 20 };

struct breakpoint {
    struct breakpoint *next;
    enum blkdebug_event event;
    char *tag;
    void (*on_held)(const char *tag); /* NULL: nobody wants to know */
};

/* A request that a breakpoint stopped; on its stack. */
struct held {
    struct held *next;
    const char *tag;
    struct coroutine *coroutine;
    bool released;
};

struct blkdebug_node {
    struct edge *image; /* const after open */
    struct blkdebug_rules rules;
    uint32_t align; /* the next are const after open; bytes, 0: as the child */
    uint32_t transfer_max;
    uint32_t zeroes_alignment;
    uint32_t zeroes_max;
    uint32_t discard_alignment;
    uint32_t discard_max;
    uint32_t take;
    uint32_t unshare;
    struct spin_lock spin;          /* of the rest */
    bool drained;                   /* nobody is held */
    struct breakpoint *breakpoints; /* owned, oldest first */
    struct held *held;              /* latest first */
    struct waiter *waiters;         /* for a request to be held */
};

static void breakpoint_free(struct breakpoint *breakpoint)
{
    g_free(breakpoint->tag);
    g_free(breakpoint);
}

/* --- options --- */

static bool CO_FN co_read_config(struct blkdebug_node *debug, const char *path, struct error **err)
{
    AUTO(fd) fd = co_file_open(path, O_RDONLY, 0);
    g_autofree char *text = NULL;
    struct stat stat;
    int ret = fd < 0 ? fd : co_file_stat(fd, &stat);

    if (ret >= 0 && (uint64_t)stat.st_size > CONFIG_BYTES_MAX)
        return error_set(err, "Could not read blkdebug config file: '%s' is longer than %d bytes", path,
                         CONFIG_BYTES_MAX);
    if (ret >= 0) {
        text = g_malloc0((gsize)stat.st_size + 1);
        ret = co_file_read_exact(fd, text, (size_t)stat.st_size, 0);
    }
    if (ret < 0)
        return error_set_errno(err, ret, "Could not read blkdebug config file '%s'", path);
    return blkdebug_rules_add_text(&debug->rules, text, err);
}

/* A limit must be whole units, each of which is a multiple of the child's. */
static bool take_limit(const char *name, bool has, int64_t value, uint64_t unit, uint32_t *ret, struct error **err)
{
    *ret = 0;
    if (!has || !value)
        return true;
    if (value < 0 || value > INT32_MAX || (uint64_t)value % unit)
        return error_set(err, "Cannot meet constraints with %s %" PRId64 ": it must be a multiple of %" PRIu64, name,
                         value, unit);
    *ret = (uint32_t)value;
    return true;
}

static bool take_limits(struct blkdebug_node *debug, const struct blockdev_options_blkdebug *own, struct error **err)
{
    uint64_t unit = MAX(node_get_limits(edge_child(debug->image))->request_alignment, 1);
    int64_t align = own->has_align ? own->align : 0;

    if (align < 0 || align > INT32_MAX || (align && !is_power_of_two((uint64_t)align)))
        return error_set(err, "Cannot meet constraints with align %" PRId64 ": it must be a power of two below 2^31",
                         align);
    debug->align = (uint32_t)align;
    unit = MAX(unit, debug->align);
    return take_limit("max-transfer", own->has_max_transfer, own->max_transfer, unit, &debug->transfer_max, err) &&
           take_limit("opt-write-zero", own->has_opt_write_zero, own->opt_write_zero, unit, &debug->zeroes_alignment,
                      err) &&
           take_limit("max-write-zero", own->has_max_write_zero, own->max_write_zero,
                      MAX(debug->zeroes_alignment, unit), &debug->zeroes_max, err) &&
           take_limit("opt-discard", own->has_opt_discard, own->opt_discard, unit, &debug->discard_alignment, err) &&
           take_limit("max-discard", own->has_max_discard, own->max_discard, MAX(debug->discard_alignment, unit),
                      &debug->discard_max, err);
}

static uint32_t permission_bits(const struct block_permission_array *names)
{
    static const uint32_t bits[BLOCK_PERMISSION__MAX] = {
        [BLOCK_PERMISSION_CONSISTENT_READ] = PERM_CONSISTENT_READ,
        [BLOCK_PERMISSION_WRITE] = PERM_WRITE,
        [BLOCK_PERMISSION_WRITE_UNCHANGED] = PERM_WRITE_UNCHANGED,
        [BLOCK_PERMISSION_RESIZE] = PERM_RESIZE,
    };
    uint32_t result = 0;

    for (size_t i = 0; names && i < names->count; i++)
        result |= bits[names->items[i]];
    return result;
}

static void CO_FN blkdebug_co_close(struct node *node)
{
    struct blkdebug_node *debug = node_state(node);

    assert(!debug->held);
    while (debug->breakpoints) {
        struct breakpoint *breakpoint = debug->breakpoints;

        debug->breakpoints = breakpoint->next;
        breakpoint_free(breakpoint);
    }
    blkdebug_rules_done(&debug->rules);
}

static bool CO_FN co_open(struct node *node, const struct blockdev_options_blkdebug *own, struct error **err)
{
    struct blkdebug_node *debug = node_state(node);

    if (own->config && *own->config && !co_read_config(debug, own->config, err))
        return false;
    if (!blkdebug_rules_add_options(&debug->rules, own, err))
        return false;
    debug->image = co_node_add_child(node, "image", own->image, EDGE_FILTERED | EDGE_PRIMARY, err);
    return debug->image && take_limits(debug, own, err);
}

static bool CO_FN blkdebug_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    const struct blockdev_options_blkdebug *own = &options->u.blkdebug;
    struct blkdebug_node *debug = node_state(node);
    unsigned compress;

    /* Needed by the permissions of the child. */
    debug->take = permission_bits(own->take_child_perms);
    debug->unshare = permission_bits(own->unshare_child_perms);
    blkdebug_rules_init(&debug->rules);
    if (!co_open(node, own, err)) {
        blkdebug_rules_done(&debug->rules);
        return false;
    }
    compress = node_can_compress(edge_child(debug->image)) ? IO_COMPRESSED : 0;
    node_set_flags(node, IO_FUA | IO_UNCHANGED | compress, IO_FUA | IO_UNCHANGED | IO_MAY_UNMAP | IO_NO_FALLBACK);
    blkdebug_rules_event(&debug->rules, BLKDEBUG_EVENT_NONE);
    return true;
}

static bool blkdebug_co_refresh_limits(struct node *node, struct node_limits *limits, struct error **err)
{
    const struct blkdebug_node *debug = node_state(node);

    if (debug->align)
        limits->request_alignment = MAX(limits->request_alignment, debug->align);
    if (debug->transfer_max)
        limits->transfer_max = debug->transfer_max;
    if (debug->zeroes_alignment)
        limits->zeroes_alignment = debug->zeroes_alignment;
    if (debug->zeroes_max)
        limits->zeroes_max = debug->zeroes_max;
    if (debug->discard_alignment)
        limits->discard_alignment = debug->discard_alignment;
    if (debug->discard_max)
        limits->discard_max = debug->discard_max;
    /* Those of the child count in smaller blocks, where it has any. */
    limits->zeroes_alignment = (uint32_t)align_up(limits->zeroes_alignment, limits->request_alignment);
    limits->discard_alignment = (uint32_t)align_up(limits->discard_alignment, limits->request_alignment);
    return true;
}

static void blkdebug_child_permissions(const struct node *node, const struct edge *edge, uint32_t perm, uint32_t shared,
                                       uint32_t *ret_perm, uint32_t *ret_shared)
{
    const struct blkdebug_node *debug = node_state(node);

    *ret_perm = perm | debug->take;
    *ret_shared = shared & ~debug->unshare;
}

/* "blkdebug:CONFIG:IMAGE" where that says it all. */
static char *blkdebug_filename(const struct node *node)
{
    const struct blockdev_options_blkdebug *own = &node_options(node)->u.blkdebug;
    const struct blkdebug_node *debug = node_state(node);
    g_autofree char *image = NULL;

    if (own->inject_error || own->set_state || own->has_align || own->has_max_transfer || own->has_opt_write_zero ||
        own->has_max_write_zero || own->has_opt_discard || own->has_max_discard || own->take_child_perms ||
        own->unshare_child_perms)
        return NULL;
    image = node_plain_filename(edge_child(debug->image));
    return image ? g_strdup_printf("blkdebug:%s:%s", own->config ? own->config : "", image) : NULL;
}

/* --- breakpoints --- */

/* Takes the breakpoint of the event out; NULL: there is none. Under the lock. */
static struct breakpoint *take_breakpoint(struct blkdebug_node *debug, enum blkdebug_event event)
{
    struct breakpoint **link = &debug->breakpoints;
    struct breakpoint *found;

    while (*link && (*link)->event != event)
        link = &(*link)->next;
    found = *link;
    if (found)
        *link = found->next;
    return found;
}

static void CO_FN blkdebug_co_event(struct node *node, enum blkdebug_event event)
{
    struct blkdebug_node *debug = node_state(node);
    struct held held = {.coroutine = co_self()};
    struct breakpoint *breakpoint;

    blkdebug_rules_event(&debug->rules, event);
    if (likely(!__atomic_load_n(&debug->breakpoints, __ATOMIC_RELAXED)))
        return;
    spin_lock(&debug->spin);
    breakpoint = debug->drained ? NULL : take_breakpoint(debug, event);
    spin_unlock(&debug->spin);
    if (!breakpoint)
        return;
    /* Said before anybody can resume it. */
    if (breakpoint->on_held)
        breakpoint->on_held(breakpoint->tag);
    held.tag = breakpoint->tag;
    spin_lock(&debug->spin);
    held.released = debug->drained;
    if (!held.released) {
        held.next = debug->held;
        debug->held = &held;
        waiters_wake(&debug->waiters);
    }
    while (!held.released) {
        spin_unlock(&debug->spin);
        co_suspend();
        spin_lock(&debug->spin);
    }
    spin_unlock(&debug->spin);
    breakpoint_free(breakpoint);
}

/* Lets go what is held under `tag` (NULL: under any): all, or the one that came first. Under the lock. */
static bool release(struct blkdebug_node *debug, const char *tag, bool all)
{
    struct held **first = NULL;
    bool any = false;

    for (struct held **link = &debug->held; *link;) {
        struct held *held = *link;

        if (tag && strcmp(held->tag, tag) != 0) {
            link = &held->next;
            continue;
        }
        any = true;
        if (!all) {
            first = link;
            link = &held->next;
            continue;
        }
        *link = held->next;
        held->released = true;
        co_wake(held->coroutine);
    }
    if (first) {
        struct held *held = *first;

        *first = held->next;
        held->released = true;
        co_wake(held->coroutine);
    }
    return any;
}

static struct blkdebug_node *find_below(const struct node *node)
{
    while (node && node_driver(node) != &blkdebug_driver) {
        const struct edge *primary = node_primary(node);

        node = primary ? edge_child(primary) : NULL;
    }
    return node ? node_state(node) : NULL;
}

int blkdebug_break(const struct node *node, const char *event, const char *tag, void (*on_held)(const char *tag))
{
    struct blkdebug_node *debug = find_below(node);
    int value = blkdebug_event_value(event);
    struct breakpoint *breakpoint, **link;

    if (!debug)
        return -ENOTSUP;
    if (value < 0)
        return -ENOENT;
    breakpoint = g_new0(struct breakpoint, 1);
    breakpoint->event = (enum blkdebug_event)value;
    breakpoint->tag = g_strdup(tag);
    breakpoint->on_held = on_held;
    spin_lock(&debug->spin);
    link = &debug->breakpoints;
    while (*link)
        link = &(*link)->next;
    __atomic_store_n(link, breakpoint, __ATOMIC_RELAXED);
    spin_unlock(&debug->spin);
    return 0;
}

int blkdebug_remove_break(const struct node *node, const char *tag)
{
    struct blkdebug_node *debug = find_below(node);
    bool any = false;

    if (!debug)
        return -ENOTSUP;
    spin_lock(&debug->spin);
    for (struct breakpoint **link = &debug->breakpoints; *link;) {
        struct breakpoint *breakpoint = *link;

        if (tag && strcmp(breakpoint->tag, tag) != 0) {
            link = &breakpoint->next;
            continue;
        }
        *link = breakpoint->next;
        breakpoint_free(breakpoint);
        any = true;
    }
    (void)release(debug, tag, true);
    spin_unlock(&debug->spin);
    return any ? 0 : -ENOENT;
}

int blkdebug_resume(const struct node *node, const char *tag, bool all)
{
    struct blkdebug_node *debug = find_below(node);
    bool any;

    if (!debug)
        return -ENOTSUP;
    spin_lock(&debug->spin);
    any = release(debug, tag, all);
    spin_unlock(&debug->spin);
    return any ? 0 : -ENOENT;
}

/* Under the lock. */
static bool is_held(const struct blkdebug_node *debug, const char *tag)
{
    const struct held *held = debug->held;

    while (held && strcmp(held->tag, tag) != 0)
        held = held->next;
    return held;
}

int blkdebug_is_held(const struct node *node, const char *tag)
{
    struct blkdebug_node *debug = find_below(node);
    bool held;

    if (!debug)
        return -ENOTSUP;
    spin_lock(&debug->spin);
    held = is_held(debug, tag);
    spin_unlock(&debug->spin);
    return held;
}

int CO_FN co_blkdebug_wait_break(const struct node *node, const char *tag)
{
    struct blkdebug_node *debug = find_below(node);

    if (!debug)
        return -ENOTSUP;
    spin_lock(&debug->spin);
    while (!is_held(debug, tag))
        co_waiter_wait(&debug->waiters, &debug->spin);
    spin_unlock(&debug->spin);
    return 0;
}

static void blkdebug_drain_begin(struct node *node)
{
    struct blkdebug_node *debug = node_state(node);

    spin_lock(&debug->spin);
    debug->drained = true;
    (void)release(debug, NULL, true);
    spin_unlock(&debug->spin);
}

static void blkdebug_drain_end(struct node *node)
{
    struct blkdebug_node *debug = node_state(node);

    spin_lock(&debug->spin);
    debug->drained = false;
    spin_unlock(&debug->spin);
}

/* --- requests --- */

static int CO_FN co_check(struct blkdebug_node *debug, enum blkdebug_io_type type, uint64_t offset, uint64_t bytes)
{
    bool immediately;
    int ret = blkdebug_rules_check(&debug->rules, type, offset, bytes, &immediately);

    if (ret && !immediately)
        co_yield ();
    return ret;
}

static int CO_FN blkdebug_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                    unsigned flags)
{
    struct blkdebug_node *debug = node_state(node);
    int ret = co_check(debug, BLKDEBUG_IO_TYPE_READ, offset, bytes);

    assert(is_aligned(offset | bytes, node_get_limits(node)->request_alignment));
    assert(!debug->transfer_max || bytes <= debug->transfer_max);
    return ret ? ret : co_edge_preadv(debug->image, offset, bytes, iov, flags);
}

static int CO_FN blkdebug_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                     unsigned flags)
{
    struct blkdebug_node *debug = node_state(node);
    int ret = co_check(debug, BLKDEBUG_IO_TYPE_WRITE, offset, bytes);

    assert(is_aligned(offset | bytes, node_get_limits(node)->request_alignment));
    assert(!debug->transfer_max || bytes <= debug->transfer_max);
    return ret ? ret : co_edge_pwritev_padded(debug->image, offset, bytes, iov, flags);
}

static int CO_FN blkdebug_co_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct blkdebug_node *debug = node_state(node);
    int ret;

    if (debug->zeroes_alignment && bytes < debug->zeroes_alignment)
        return -ENOTSUP;
    assert(!debug->zeroes_alignment || !(offset % debug->zeroes_alignment));
    assert(!debug->zeroes_max || bytes <= debug->zeroes_max);
    ret = co_check(debug, BLKDEBUG_IO_TYPE_WRITE_ZEROES, offset, bytes);
    return ret ? ret : co_edge_pwrite_zeroes_padded(debug->image, offset, bytes, flags);
}

static int CO_FN blkdebug_co_pdiscard(struct node *node, uint64_t offset, uint64_t bytes)
{
    struct blkdebug_node *debug = node_state(node);
    int ret;

    assert(!debug->discard_alignment || !(offset % debug->discard_alignment));
    assert(!debug->discard_max || bytes <= debug->discard_max);
    ret = co_check(debug, BLKDEBUG_IO_TYPE_DISCARD, offset, bytes);
    return ret ? ret : co_edge_pdiscard(debug->image, offset, bytes);
}

/* The core flushes the child afterwards. */
static int CO_FN blkdebug_co_flush(struct node *node)
{
    return co_check(node_state(node), BLKDEBUG_IO_TYPE_FLUSH, 0, 0);
}

static int CO_FN blkdebug_co_block_status(struct node *node, uint64_t offset, uint64_t bytes)
{
    return co_check(node_state(node), BLKDEBUG_IO_TYPE_BLOCK_STATUS, offset, bytes);
}

static const char *const blkdebug_significant_options[] = {
    "config",       "inject-error",     "set-state",           "align",
    "max-transfer", "opt-write-zero",   "max-write-zero",      "opt-discard",
    "max-discard",  "take-child-perms", "unshare-child-perms", NULL,
};

static const struct block_driver_drain blkdebug_drain = {
    .begin = blkdebug_drain_begin,
    .end = blkdebug_drain_end,
};

static const struct block_driver_debug blkdebug_debug = {
    .co_event = blkdebug_co_event,
    .co_block_status = blkdebug_co_block_status,
};

const struct block_driver blkdebug_driver = {
    .name = "blkdebug",
    .kind = BLOCK_DRIVER_FILTER,
    .state_size = sizeof(struct blkdebug_node),
    .co_open = blkdebug_co_open,
    .co_close = blkdebug_co_close,
    .co_preadv = blkdebug_co_preadv,
    .co_pwritev = blkdebug_co_pwritev,
    .co_pwrite_zeroes = blkdebug_co_pwrite_zeroes,
    .co_pdiscard = blkdebug_co_pdiscard,
    .co_flush = blkdebug_co_flush,
    .co_refresh_limits = blkdebug_co_refresh_limits,
    .child_permissions = blkdebug_child_permissions,
    .filename = blkdebug_filename,
    .significant_options = blkdebug_significant_options,
    .drain = &blkdebug_drain,
    .debug = &blkdebug_debug,
};
