/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Throttle groups. Kept, under the group's lock:
 *  1. A member stands in the turns of a direction just while requests of it wait there.
 *  2. Where anybody waits in a direction, the first request of the first member there is its `watcher`: it sleeps until
 *     it may go; all others sleep until they are let go, or become the watcher. So there is one timer a direction.
 *  3. Whoever changes something calls dispatch(), which restores 2 and leaves nobody waiting who may go.
 */
#include "object/throttle-group.h"

#include <assert.h>
#include <errno.h>

#include "loop/coroutine.h"
#include "loop/loop.h"

/* All under the group's lock. Its memory ends when the request goes on, so it is woken under the lock too. */
struct throttle_waiter {
    struct throttle_waiter *next;
    struct coroutine *coroutine;
    uint64_t bytes;
    bool admitted;
};

static struct throttle_waiter *next_waiter(const struct throttle_group *group, enum throttle_direction direction)
{
    struct throttle_member *member = group->turns[direction].first;

    return member ? member->queues[direction].first : NULL;
}

/* --- queues --- */

static void turns_append(struct throttle_turns *turns, struct throttle_member *member,
                         enum throttle_direction direction)
{
    member->queues[direction].next_turn = NULL;
    if (turns->last)
        turns->last->queues[direction].next_turn = member;
    else
        turns->first = member;
    turns->last = member;
}

static void turns_remove(struct throttle_turns *turns, struct throttle_member *member,
                         enum throttle_direction direction)
{
    struct throttle_member *before = NULL;

    for (struct throttle_member *at = turns->first; at != member; at = at->queues[direction].next_turn)
        before = at;
    if (before)
        before->queues[direction].next_turn = member->queues[direction].next_turn;
    else
        turns->first = member->queues[direction].next_turn;
    if (turns->last == member)
        turns->last = before;
    member->queues[direction].next_turn = NULL;
}

static void queue_append(struct throttle_member *member, enum throttle_direction direction,
                         struct throttle_waiter *waiter)
{
    struct throttle_queue *queue = &member->queues[direction];

    waiter->next = NULL;
    if (queue->last) {
        queue->last->next = waiter;
    } else {
        queue->first = waiter;
        turns_append(&member->group->turns[direction], member, direction);
    }
    queue->last = waiter;
}

static void queue_remove(struct throttle_member *member, enum throttle_direction direction,
                         struct throttle_waiter *waiter)
{
    struct throttle_queue *queue = &member->queues[direction];
    struct throttle_turns *turns = &member->group->turns[direction];
    struct throttle_waiter *before = NULL;

    for (struct throttle_waiter *at = queue->first; at != waiter; at = at->next)
        before = at;
    if (before)
        before->next = waiter->next;
    else
        queue->first = waiter->next;
    if (queue->last == waiter)
        queue->last = before;
    if (!queue->first)
        turns_remove(turns, member, direction);
    if (turns->watcher == waiter)
        turns->watcher = NULL;
}

/* --- letting go --- */

static void wake(const struct throttle_waiter *waiter)
{
    if (!co_active() || waiter->coroutine != co_self())
        co_wake(waiter->coroutine);
}

/* Lets a request of `member` go, and gives the turn to the next member. */
static void admit(struct throttle_member *member, enum throttle_direction direction, struct throttle_waiter *waiter,
                  int64_t now_ns)
{
    struct throttle_group *group = member->group;
    struct throttle_turns *turns = &group->turns[direction];

    queue_remove(member, direction, waiter);
    if (member->queues[direction].first) {
        turns_remove(turns, member, direction);
        turns_append(turns, member, direction);
    }
    throttle_account(&group->throttle, direction, waiter->bytes, now_ns);
    group->last = direction;
    waiter->admitted = true;
    wake(waiter);
}

/* Lets the next request go, if one may: first of the direction that has not gone last. */
static bool admit_next(struct throttle_group *group, int64_t now_ns)
{
    for (int i = 1; i <= THROTTLE_DIRECTION__COUNT; i++) {
        enum throttle_direction direction = (group->last + i) % THROTTLE_DIRECTION__COUNT;
        struct throttle_member *member = group->turns[direction].first;

        if (member && !throttle_wait_ns(&group->throttle, direction, now_ns)) {
            admit(member, direction, member->queues[direction].first, now_ns);
            return true;
        }
    }
    return false;
}

static void dispatch(struct throttle_group *group)
{
    int64_t now_ns = loop_now_ns();

    while (admit_next(group, now_ns))
        ;
    for (int i = 0; i < THROTTLE_DIRECTION__COUNT; i++) {
        struct throttle_waiter *waiter = next_waiter(group, i);

        if (waiter && waiter != group->turns[i].watcher)
            wake(waiter);
        group->turns[i].watcher = waiter;
    }
}

/* Waits until `waiter` has been let go; under the group's lock, but for the waiting itself. */
static void CO_FN co_wait_admitted(struct throttle_member *member, enum throttle_direction direction,
                                   struct throttle_waiter *waiter)
{
    struct throttle_group *group = member->group;

    while (!waiter->admitted) {
        bool watches = group->turns[direction].watcher == waiter;
        int64_t now_ns = loop_now_ns();
        int64_t wait_ns = watches ? throttle_wait_ns(&group->throttle, direction, now_ns) : INT64_MAX / 2;
        struct co_deadline deadline;
        int result;

        spin_unlock(&group->spin);
        co_deadline_begin(&deadline, wait_ns);
        result = co_suspend_cancellable();
        co_deadline_end(&deadline);
        spin_lock(&group->spin);
        if (waiter->admitted)
            return;
        if (result == -ECANCELED || (result == -ETIMEDOUT && loop_now_ns() < now_ns + wait_ns))
            admit(member, direction, waiter, loop_now_ns());
        dispatch(group);
    }
}

void CO_FN co_throttle_wait(struct throttle_member *member, enum throttle_direction direction, uint64_t bytes)
{
    struct throttle_group *group = member->group;
    struct throttle_waiter waiter = {.bytes = bytes};

    if (!atomic_load_explicit(&group->active[direction], memory_order_relaxed))
        return;
    spin_lock(&group->spin);
    if (member->drains || (!group->turns[THROTTLE_READ].first && !group->turns[THROTTLE_WRITE].first &&
                           !throttle_wait_ns(&group->throttle, direction, loop_now_ns()))) {
        throttle_account(&group->throttle, direction, bytes, loop_now_ns());
        group->last = direction;
    } else {
        waiter.coroutine = co_self();
        queue_append(member, direction, &waiter);
        dispatch(group);
        co_wait_admitted(member, direction, &waiter);
    }
    spin_unlock(&group->spin);
}

/* --- members and limits --- */

void throttle_member_init(struct throttle_member *member, struct throttle_group *group)
{
    *member = (struct throttle_member){.group = group};
    spin_lock(&group->spin);
    group->members++;
    spin_unlock(&group->spin);
}

void throttle_member_done(struct throttle_member *member)
{
    struct throttle_group *group = member->group;

    for (int i = 0; i < THROTTLE_DIRECTION__COUNT; i++)
        assert(!member->queues[i].first);
    spin_lock(&group->spin);
    assert(group->members > 0);
    group->members--;
    spin_unlock(&group->spin);
    member->group = NULL;
}

void throttle_member_drain_begin(struct throttle_member *member)
{
    struct throttle_group *group = member->group;

    spin_lock(&group->spin);
    member->drains++;
    for (int i = 0; i < THROTTLE_DIRECTION__COUNT; i++) {
        while (member->queues[i].first)
            admit(member, i, member->queues[i].first, loop_now_ns());
    }
    dispatch(group);
    spin_unlock(&group->spin);
}

void throttle_member_drain_end(struct throttle_member *member)
{
    spin_lock(&member->group->spin);
    assert(member->drains > 0);
    member->drains--;
    spin_unlock(&member->group->spin);
}

void throttle_group_configure(struct throttle_group *group, const struct throttle_config *config)
{
    spin_lock(&group->spin);
    throttle_configure(&group->throttle, config, loop_now_ns());
    for (int i = 0; i < THROTTLE_DIRECTION__COUNT; i++) {
        atomic_store_explicit(&group->active[i], throttle_is_active(&group->throttle, i), memory_order_relaxed);
        /* Whoever watches has the wrong time in mind. */
        group->turns[i].watcher = NULL;
    }
    dispatch(group);
    spin_unlock(&group->spin);
}

void throttle_group_get_config(struct throttle_group *group, struct throttle_config *ret)
{
    spin_lock(&group->spin);
    *ret = group->throttle.config;
    spin_unlock(&group->spin);
}

void throttle_group_done(struct throttle_group *group)
{
    assert(!group->members);
}
