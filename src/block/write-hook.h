/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whoever must know of each change of a node's data: dirty bitmaps, jobs. Hooks are called on the loop of the request,
 * several at the same time, for writes, zero writes and discards; parts of one request may come apart.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "block/statistics.h"

struct node;
struct write_hook;

struct write_hook_ops {
    /* Before the change: 0, or a negative errno that refuses it. Optional. */
    int (*co_before)(struct write_hook *hook, uint64_t offset, uint64_t bytes);
    /* After it, whatever its result: on failure the range may have been changed in part. Optional. */
    void (*after)(struct write_hook *hook, uint64_t offset, uint64_t bytes, int result);
};

/* Embed this. */
struct write_hook {
    const struct write_hook_ops *ops;
};

/* Inside a drain of all handles that reach `node`. Borrowed until removed. */
void node_add_write_hook(struct node *node, struct write_hook *hook);
void node_remove_write_hook(struct node *node, struct write_hook *hook);
