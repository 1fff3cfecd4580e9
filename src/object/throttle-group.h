/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Throttle groups: limits that several members share. A member is whatever makes requests that have to wait: one
 * throttle node is one member. The requests of a member are served in their order, reads and writes apart; members take
 * turns, request by request, and so do reads and writes where one limit counts both.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/throttle.h"
#include "loop/lock.h"

struct error;
struct object;
struct object_registry;
struct throttle_member;
struct throttle_waiter; /* on the stack of a request that waits */

/* Members that have requests waiting, in the order in which they come to their turn. */
struct throttle_turns {
    struct throttle_member *first;
    struct throttle_member *last;
    struct throttle_waiter *watcher; /* who is next, and watches the clock */
};

/* Zero-filled memory: a group without limits. */
struct throttle_group {
    struct spin_lock spin;                         /* of all here, and of the queues of members */
    struct throttle throttle;                      /* times are loop_now_ns() */
    atomic_bool active[THROTTLE_DIRECTION__COUNT]; /* read without the lock: whether there is anything to wait for */
    struct throttle_turns turns[THROTTLE_DIRECTION__COUNT];
    enum throttle_direction last; /* who went last */
    uint32_t members;
};

/* Asserts that no member is left. */
void throttle_group_done(struct throttle_group *group);

/* Sets all limits, which must have been checked; requests that wait follow at once. On any loop's thread. */
void throttle_group_configure(struct throttle_group *group, const struct throttle_config *config);
void throttle_group_get_config(struct throttle_group *group, struct throttle_config *ret);

struct throttle_queue {
    struct throttle_waiter *first;
    struct throttle_waiter *last;
    struct throttle_member *next_turn; /* in throttle_turns, while anything waits here */
};

struct throttle_member {
    struct throttle_group *group; /* borrowed */
    struct throttle_queue queues[THROTTLE_DIRECTION__COUNT];
    uint32_t drains; /* while not zero, nothing waits */
};

/* Joins and leaves `group`; when leaving, no request may be waiting. */
void throttle_member_init(struct throttle_member *member, struct throttle_group *group);
void throttle_member_done(struct throttle_member *member);

/*
 * Waits until a request of so many bytes may go, and counts it. Any loop. Who is cancelled, or past a deadline, goes at
 * once: a request that is in the graph always finishes.
 */
void CO_FN co_throttle_wait(struct throttle_member *member, enum throttle_direction direction, uint64_t bytes);

/* Between the two, which nest, requests of the member are counted and do not wait. On any loop's thread. */
void throttle_member_drain_begin(struct throttle_member *member);
void throttle_member_drain_end(struct throttle_member *member);

/* The object type throttle-group. */
extern const struct object_class throttle_group_class;

/* The group of the object `id`, held in *ret_object until object_release(); NULL and the error where there is none. */
struct throttle_group *throttle_group_hold(struct object_registry *registry, const char *id, struct object **ret_object,
                                           struct error **err) MUST_CHECK;
