/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A part of an object for each loop that uses it, so that threads don't share cache lines: counters, gates. A part is
 * made when its loop first asks for it, starts zero-filled, and stays until the object goes (a later loop with the same
 * index goes on with it). Each begins at a cache line of its own.
 *
 * Finding one's own part takes no lock and no atomic read-modify-write. What others may look at in a part is guarded by
 * a lock in it, or is written by its loop alone with the counter functions below.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "loop/lock.h"
#include "loop/loop.h"

enum { PER_LOOP_GROUP = 16, PER_LOOP_GROUPS = LOOP_COUNT_MAX / PER_LOOP_GROUP };

struct per_loop_group {
    void *parts[PER_LOOP_GROUP]; /* atomic, NULL: not made */
};

struct per_loop {
    struct per_loop_group *groups[PER_LOOP_GROUPS]; /* atomic, NULL: not made */
    struct spin_lock spin;                          /* whoever makes a part, or must see all of them, holds it */
    size_t size;                                    /* of a part, bytes; const */
    /* Sets up a new part, under `spin`; NULL: zero-filled is right. */
    void (*init)(struct per_loop *per_loop, void *part); /* const */
};

/* Before anything else; `per_loop` is zero-filled. */
void per_loop_init(struct per_loop *per_loop, size_t size, void (*init)(struct per_loop *per_loop, void *part));
void per_loop_done(struct per_loop *per_loop);

/* The part at `index`, or NULL. Any thread. */
static inline void *per_loop_peek(const struct per_loop *per_loop, unsigned index)
{
    const struct per_loop_group *group = __atomic_load_n(&per_loop->groups[index / PER_LOOP_GROUP], __ATOMIC_ACQUIRE);

    return group ? __atomic_load_n(&group->parts[index % PER_LOOP_GROUP], __ATOMIC_ACQUIRE) : NULL;
}

void *per_loop_make(struct per_loop *per_loop, unsigned index);

/* The part of the calling loop. */
static inline void *per_loop_get(struct per_loop *per_loop)
{
    unsigned index = loop_index(loop_current());
    void *part = per_loop_peek(per_loop, index);

    return likely(part) ? part : per_loop_make(per_loop, index);
}

/* Each part that has been made: for (unsigned i = 0; (part = per_loop_next(&x, &i));) */
void *per_loop_next(const struct per_loop *per_loop, unsigned *index);

/* Counters that one loop writes and any thread reads. */
static inline void counter_add(uint64_t *counter, uint64_t value)
{
    __atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + value, __ATOMIC_RELEASE);
}

static inline uint64_t counter_get(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_ACQUIRE);
}

static inline void counter_set(uint64_t *counter, uint64_t value)
{
    __atomic_store_n(counter, value, __ATOMIC_RELEASE);
}

static inline void counter_raise(uint64_t *counter, uint64_t value)
{
    if (value > __atomic_load_n(counter, __ATOMIC_RELAXED))
        __atomic_store_n(counter, value, __ATOMIC_RELEASE);
}
