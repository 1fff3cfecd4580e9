/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kernel has regions for the rings and one for all data that it copies; the latter comes to be with the first
 * request, which is why regions are also looked for later.
 */
#include "export/vduse/iotlb.h"

#include <linux/vduse.h>
#include <stddef.h>
#include <sys/ioctl.h>

#include "base/trace.h"
#include "export/vduse/kernel.h"
#include "export/virtio/memory.h"
#include "loop/file.h"
#include "loop/shared-memory.h"

/* The first region that overlaps a range, in *entry, added to `map`; NULL: there is none, or it cannot be mapped. */
static struct guest_map *add_region(const struct vduse_kernel *kernel, const struct guest_map *map,
                                    struct vduse_iotlb_entry *entry, bool *ret_found)
{
    AUTO(fd) fd = vduse_call(kernel, VDUSE_IOTLB_GET_FD, entry);
    AUTO(shared_memory) memory = NULL;
    struct guest_region region;

    *ret_found = fd >= 0;
    if (fd < 0 || entry->start > entry->last || entry->last - entry->start >= SIZE_MAX / 2)
        return NULL;
    region = (struct guest_region){
        .guest_address = entry->start, .user_address = entry->start, .size = entry->last - entry->start + 1};
    /* What may only be read can be written without effect: a driver that has us write there gets what it deserves. */
    memory = shared_memory_map_device(fd, entry->offset, (size_t)region.size, entry->perm != VDUSE_ACCESS_RO, NULL);
    if (!memory)
        return NULL;
    region.memory = memory;
    TRACE(vduse_region, "0x%llx to 0x%llx", (unsigned long long)entry->start, (unsigned long long)entry->last);
    return guest_map_add(map, &region, NULL);
}

struct guest_map *vduse_iotlb_map(const struct vduse_kernel *kernel)
{
    struct guest_map *map = guest_map_new();
    uint64_t at = 0;

    for (unsigned i = 0; i < GUEST_REGIONS_MAX; i++) {
        struct vduse_iotlb_entry entry = {.start = at, .last = UINT64_MAX};
        bool found;
        struct guest_map *next = add_region(kernel, map, &entry, &found);

        if (next) {
            guest_map_unref(map);
            map = next;
        }
        if (!found || entry.last < at || entry.last == UINT64_MAX)
            break;
        at = entry.last + 1;
    }
    return map;
}

struct guest_map *vduse_iotlb_grow(const struct vduse_kernel *kernel, const struct guest_map *map, uint64_t address)
{
    struct vduse_iotlb_entry entry = {.start = address, .last = address};
    bool found;

    return add_region(kernel, map, &entry, &found);
}
