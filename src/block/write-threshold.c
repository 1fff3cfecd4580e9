/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The write threshold of a node: the first write that reaches beyond it sends an event and takes the threshold away, so
 * that who manages thin storage can extend it in time.
 */
#include "block/graph-internal.h"
#include "gen/events.h"

void node_set_write_threshold(struct node *node, uint64_t threshold)
{
    __atomic_store_n(&node->write_threshold, threshold, __ATOMIC_RELEASE);
    node_set_hook(node, NODE_HOOK_THRESHOLD, threshold > 0);
}

uint64_t node_get_write_threshold(const struct node *node)
{
    return __atomic_load_n(&node->write_threshold, __ATOMIC_ACQUIRE);
}

void write_threshold_check(struct node *node, uint64_t end)
{
    uint64_t threshold = node_get_write_threshold(node);
    struct block_write_threshold_event data = {.node_name = node->name, .write_threshold = threshold};

    if (!threshold || end <= threshold)
        return;
    /* Of several writes that pass it at once, one sends the event. */
    if (!__atomic_compare_exchange_n(&node->write_threshold, &threshold, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return;
    data.amount_exceeded = end - data.write_threshold;
    if (node->graph->events)
        event_send_block_write_threshold(node->graph->events, &data);
}
