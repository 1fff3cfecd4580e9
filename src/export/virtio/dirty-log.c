/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The front end clears bits while we set others, so each byte is changed at once. */
#include "export/virtio/dirty-log.h"

#include <stdbool.h>

#include "export/virtio/memory.h"
#include "loop/shared-memory.h"

struct dirty_log {
    struct shared_memory *memory;
    uint8_t *bits;
    uint64_t pages;
};

struct dirty_log *dirty_log_new(struct shared_memory *memory)
{
    struct dirty_log *log = g_new0(struct dirty_log, 1);

    log->memory = memory;
    log->bits = shared_memory_base(memory);
    log->pages = (uint64_t)shared_memory_size(memory) * 8;
    return log;
}

void dirty_log_free(struct dirty_log *log)
{
    if (!log)
        return;
    shared_memory_unref(log->memory);
    g_free(log);
}

void dirty_log_mark(struct dirty_log *log, uint64_t guest_address, uint64_t size)
{
    uint64_t page = guest_address / DIRTY_LOG_PAGE_BYTES;
    uint64_t last;

    if (!size || size > UINT64_MAX - guest_address)
        return;
    last = (guest_address + size - 1) / DIRTY_LOG_PAGE_BYTES;
    for (; page <= last && page < log->pages; page++)
        __atomic_fetch_or(&log->bits[page / 8], (uint8_t)(1u << page % 8), __ATOMIC_SEQ_CST);
}

void dirty_log_mark_memory(struct dirty_log *log, const struct guest_map *map, const void *memory, uint64_t size)
{
    uint64_t guest_address;

    if (guest_map_address(map, memory, &guest_address))
        dirty_log_mark(log, guest_address, size);
}
