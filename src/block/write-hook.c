/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who watches the writes of a node, and why a write leaves the short way. */
#include "block/write-hook.h"

#include <assert.h>

#include "block/graph-internal.h"

void node_set_hook(struct node *node, enum node_hooks hook, bool set)
{
    if (set)
        __atomic_or_fetch(&node->hooks, hook, __ATOMIC_ACQ_REL);
    else
        __atomic_and_fetch(&node->hooks, ~(uint32_t)hook, __ATOMIC_ACQ_REL);
}

void node_add_write_hook(struct node *node, struct write_hook *hook)
{
    g_ptr_array_add(node->write_hooks, hook);
    node_set_hook(node, NODE_HOOK_WRITE_HOOKS, true);
}

void node_remove_write_hook(struct node *node, struct write_hook *hook)
{
    bool found = g_ptr_array_remove(node->write_hooks, hook);

    assert(found);
    node_set_hook(node, NODE_HOOK_WRITE_HOOKS, node->write_hooks->len > 0);
}
