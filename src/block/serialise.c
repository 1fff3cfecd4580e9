/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests that must not overlap with others: a write that reads, changes and writes back a block of which it was given
 * a part, and whatever is marked IO_SERIALISING. Most nodes never see one and track nothing (enum node_tracking).
 *
 * Where a node tracks, each request in flight is in a list of its loop's part of the node. A serialiser
 *  (1) takes its place among the serialisers of the node, and waits for those before it that overlap;
 *  (2) publishes itself in every part: from then on other requests that overlap wait before they get into its list;
 *  (3) waits for those that overlap and were in a list already.
 * Publishing in a part and counting what is in its list happen under the part's lock, so each request is counted by the
 * serialiser, and later found by it at its end, or sees it first. parts.spin is held meanwhile, so that no part is made
 * behind its back; a part that is made later starts with all that is published.
 *
 * Nobody waits in a circle: serialisers wait for earlier ones and for listed requests, listed requests wait for nothing
 * at this node, and unlisted ones hold nothing.
 *
 * Locks, in their order: node->parts.spin, then node_part.spin or node->serialisers_spin.
 */
#include "block/graph-internal.h"

#include <assert.h>
#include <errno.h>

#include "base/checked.h"

/* A serialiser as one part sees it. */
struct publication {
    struct publication *next;
    struct serialiser *serialiser;
};

static void publish_in(struct node_part *part, struct serialiser *serialiser)
{
    struct publication *publication = g_new0(struct publication, 1);

    *publication = (struct publication){.next = part->publications, .serialiser = serialiser};
    part->publications = publication;
}

static void unpublish_in(struct node_part *part, const struct serialiser *serialiser)
{
    struct publication **link = &part->publications;
    struct publication *found;

    while ((*link)->serialiser != serialiser)
        link = &(*link)->next;
    found = *link;
    *link = found->next;
    g_free(found);
}

void node_part_init(struct per_loop *per_loop, void *part)
{
    struct node *node = container_of(per_loop, struct node, parts);

    spin_lock(&node->serialisers_spin);
    for (struct serialiser *s = node->serialisers; s; s = s->next) {
        if (s->published)
            publish_in(part, s);
    }
    spin_unlock(&node->serialisers_spin);
}

/* Whether the two keep away from each other. */
static bool excludes(const struct serialiser *serialiser, const struct tracked *tracked)
{
    return (tracked->write || serialiser->reads_too) &&
           ranges_overlap(serialiser->offset, serialiser->bytes, tracked->offset, tracked->bytes);
}

/* --- ordinary requests --- */

/* Under the part's lock. */
static bool must_wait(const struct node_part *part, const struct tracked *tracked)
{
    for (const struct publication *p = part->publications; p; p = p->next) {
        if (excludes(p->serialiser, tracked))
            return true;
    }
    return false;
}

void CO_FN co_track_begin(struct node_part *part, struct tracked *tracked)
{
    tracked->part = part;
    spin_lock(&part->spin);
    while (must_wait(part, tracked))
        co_waiter_wait(&part->waiters, &part->spin);
    tracked->before = NULL;
    tracked->next = part->requests;
    if (tracked->next)
        tracked->next->before = tracked;
    part->requests = tracked;
    spin_unlock(&part->spin);
}

void track_end(struct tracked *tracked)
{
    struct node_part *part = tracked->part;

    spin_lock(&part->spin);
    if (tracked->before)
        tracked->before->next = tracked->next;
    else
        part->requests = tracked->next;
    if (tracked->next)
        tracked->next->before = tracked->before;
    /* Those that are published and overlap have counted it. They need the part's lock to end, so they are still there.
     */
    for (const struct publication *p = part->publications; p; p = p->next) {
        struct serialiser *serialiser = p->serialiser;

        if (excludes(serialiser, tracked) && !__atomic_sub_fetch(&serialiser->overlapped, 1, __ATOMIC_ACQ_REL))
            co_wake(serialiser->coroutine);
    }
    spin_unlock(&part->spin);
}

/* --- serialisers --- */

/* Whether an earlier one that still is there overlaps. serialisers_spin is held. */
static bool has_predecessor(const struct node *node, const struct serialiser *serialiser)
{
    for (const struct serialiser *s = node->serialisers; s != serialiser; s = s->next) {
        assert(s);
        if (ranges_overlap(s->offset, s->bytes, serialiser->offset, serialiser->bytes))
            return true;
    }
    return false;
}

static void remove_serialiser(struct node *node, struct serialiser *serialiser)
{
    struct serialiser **link = &node->serialisers;

    while (*link != serialiser) {
        assert(*link);
        link = &(*link)->next;
    }
    *link = serialiser->next;
    waiters_wake(&node->serialiser_waiters);
}

/* Step (1): false where it would wait and must not. */
static bool CO_FN co_take_place(struct node *node, struct serialiser *serialiser, bool no_wait)
{
    struct serialiser **link = &node->serialisers;
    bool ok = true;

    spin_lock(&node->serialisers_spin);
    while (*link)
        link = &(*link)->next;
    serialiser->next = NULL;
    *link = serialiser;
    while (ok && has_predecessor(node, serialiser)) {
        ok = !no_wait;
        if (ok)
            co_waiter_wait(&node->serialiser_waiters, &node->serialisers_spin);
    }
    if (!ok)
        remove_serialiser(node, serialiser);
    spin_unlock(&node->serialisers_spin);
    return ok;
}

/* Step (2). */
static void publish(struct node *node, struct serialiser *serialiser)
{
    struct node_part *part;

    spin_lock(&node->parts.spin);
    spin_lock(&node->serialisers_spin);
    serialiser->published = true;
    spin_unlock(&node->serialisers_spin);
    for (unsigned i = 0; (part = per_loop_next(&node->parts, &i));) {
        spin_lock(&part->spin);
        publish_in(part, serialiser);
        for (const struct tracked *tracked = part->requests; tracked; tracked = tracked->next) {
            if (excludes(serialiser, tracked))
                __atomic_add_fetch(&serialiser->overlapped, 1, __ATOMIC_RELAXED);
        }
        spin_unlock(&part->spin);
    }
    spin_unlock(&node->parts.spin);
}

int CO_FN co_serialise_begin(struct node *node, struct serialiser *serialiser, bool no_wait)
{
    assert(node->tracking != NODE_TRACKS_NOTHING);
    assert(node->tracking == NODE_TRACKS_ALL || !serialiser->reads_too);
    serialiser->coroutine = co_self();
    serialiser->published = false;
    serialiser->overlapped = 1;
    if (!co_take_place(node, serialiser, no_wait))
        return -EBUSY;
    publish(node, serialiser);
    if (__atomic_sub_fetch(&serialiser->overlapped, 1, __ATOMIC_ACQ_REL) && no_wait) {
        serialise_end(node, serialiser);
        return -EBUSY;
    }
    while (__atomic_load_n(&serialiser->overlapped, __ATOMIC_ACQUIRE))
        co_suspend();
    return 0;
}

void serialise_end(struct node *node, struct serialiser *serialiser)
{
    struct node_part *part;

    /* First out of the parts: whoever takes its place finds them as they were. */
    spin_lock(&node->parts.spin);
    for (unsigned i = 0; (part = per_loop_next(&node->parts, &i));) {
        spin_lock(&part->spin);
        unpublish_in(part, serialiser);
        waiters_wake(&part->waiters);
        spin_unlock(&part->spin);
    }
    spin_lock(&node->serialisers_spin);
    remove_serialiser(node, serialiser);
    spin_unlock(&node->serialisers_spin);
    spin_unlock(&node->parts.spin);
}
