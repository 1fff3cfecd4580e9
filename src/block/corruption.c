/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Corruption that is found while a node is in use: no write makes it worse, and somebody is told, once. */
#include <inttypes.h>
#include <stdarg.h>

#include "base/log.h"
#include "block/graph-internal.h"
#include "gen/events.h"

void node_fence(struct node *node, uint64_t offset, uint64_t bytes, const char *format, ...)
{
    va_list args;

    if (__atomic_fetch_or(&node->hooks, NODE_HOOK_FENCED, __ATOMIC_ACQ_REL) & NODE_HOOK_FENCED)
        return;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    log_bare_error("%s: Marking image as corrupt: %s; further corruption events will be suppressed", node->driver->name,
                   text);
    if (!node->graph->events)
        return;
    g_autofree char *device = g_strdup("");
    struct block_image_corrupted_event data = {
        .device = device,
        .node_name = node->name,
        .msg = text,
        .has_offset = bytes > 0,
        .offset = (int64_t)offset,
        .has_size = bytes > 0,
        .size = (int64_t)bytes,
        .fatal = true,
    };

    event_send_block_image_corrupted(node->graph->events, &data);
}
