/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/per-loop.h"

#include <assert.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

enum { CACHE_LINE_BYTES = 64 };

void per_loop_init(struct per_loop *per_loop, size_t size, void (*init)(struct per_loop *per_loop, void *part))
{
    assert(size);
    per_loop->size = size;
    per_loop->init = init;
}

void per_loop_done(struct per_loop *per_loop)
{
    for (unsigned i = 0; i < PER_LOOP_GROUPS; i++) {
        struct per_loop_group *group = per_loop->groups[i];

        for (unsigned j = 0; group && j < PER_LOOP_GROUP; j++)
            free(group->parts[j]);
        g_free(group);
    }
}

static void *part_new(size_t size)
{
    size_t rounded = align_up(size, CACHE_LINE_BYTES);
    void *part = aligned_alloc(CACHE_LINE_BYTES, rounded);

    if (!part)
        abort();
    memset(part, 0, rounded);
    return part;
}

void *per_loop_make(struct per_loop *per_loop, unsigned index)
{
    struct per_loop_group *group;
    void *part;

    assert(index < LOOP_COUNT_MAX);
    spin_lock(&per_loop->spin);
    group = per_loop->groups[index / PER_LOOP_GROUP];
    if (!group) {
        group = g_new0(struct per_loop_group, 1);
        __atomic_store_n(&per_loop->groups[index / PER_LOOP_GROUP], group, __ATOMIC_RELEASE);
    }
    part = group->parts[index % PER_LOOP_GROUP];
    if (!part) {
        part = part_new(per_loop->size);
        if (per_loop->init)
            per_loop->init(per_loop, part);
        __atomic_store_n(&group->parts[index % PER_LOOP_GROUP], part, __ATOMIC_RELEASE);
    }
    spin_unlock(&per_loop->spin);
    return part;
}

void *per_loop_next(const struct per_loop *per_loop, unsigned *index)
{
    while (*index < LOOP_COUNT_MAX) {
        void *part = per_loop_peek(per_loop, (*index)++);

        if (part)
            return part;
    }
    return NULL;
}
