/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Regions are few, and a request's buffers mostly lie in the same: the search begins with the largest. */
#include "export/virtio/memory.h"

#include <assert.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "loop/shared-memory.h"

struct guest_map {
    atomic_uint references;
    unsigned count;
    struct guest_region regions[]; /* the largest first */
};

static struct guest_map *map_of(unsigned count)
{
    struct guest_map *map = g_malloc0(sizeof(*map) + count * sizeof(map->regions[0]));

    map->count = count;
    atomic_init(&map->references, 1);
    return map;
}

struct guest_map *guest_map_new(void)
{
    return map_of(0);
}

struct guest_map *guest_map_ref(struct guest_map *map)
{
    unsigned before = atomic_fetch_add_explicit(&map->references, 1, memory_order_relaxed);

    assert(before);
    return map;
}

void guest_map_unref(struct guest_map *map)
{
    if (!map || atomic_fetch_sub_explicit(&map->references, 1, memory_order_acq_rel) != 1)
        return;
    for (unsigned i = 0; i < map->count; i++)
        shared_memory_unref(map->regions[i].memory);
    g_free(map);
}

static bool check_region(const struct guest_map *map, const struct guest_region *region, struct error **err)
{
    if (!region->size || !range_fits(region->guest_address, region->size, UINT64_MAX) ||
        !range_fits(region->user_address, region->size, UINT64_MAX))
        return error_set(err, "Memory region at guest address 0x%" PRIx64 ": bad size %" PRIu64, region->guest_address,
                         region->size);
    if (map->count >= GUEST_REGIONS_MAX)
        return error_set(err, "More than %d memory regions", GUEST_REGIONS_MAX);
    for (unsigned i = 0; i < map->count; i++) {
        const struct guest_region *other = &map->regions[i];

        if (ranges_overlap(region->guest_address, region->size, other->guest_address, other->size) ||
            ranges_overlap(region->user_address, region->size, other->user_address, other->size))
            return error_set(err, "Memory region at guest address 0x%" PRIx64 " overlaps the one at 0x%" PRIx64,
                             region->guest_address, other->guest_address);
    }
    return true;
}

struct guest_map *guest_map_add(const struct guest_map *map, const struct guest_region *region, struct error **err)
{
    struct guest_map *result;
    unsigned at = 0;

    assert(shared_memory_size(region->memory) >= region->size);
    if (!check_region(map, region, err))
        return NULL;
    result = map_of(map->count + 1);
    while (at < map->count && map->regions[at].size >= region->size)
        at++;
    memcpy(result->regions, map->regions, at * sizeof(map->regions[0]));
    result->regions[at] = *region;
    memcpy(&result->regions[at + 1], &map->regions[at], (map->count - at) * sizeof(map->regions[0]));
    for (unsigned i = 0; i < result->count; i++)
        shared_memory_ref(result->regions[i].memory);
    return result;
}

struct guest_map *guest_map_remove(const struct guest_map *map, const struct guest_region *region, struct error **err)
{
    unsigned at = 0;
    struct guest_map *result;

    while (at < map->count &&
           (map->regions[at].guest_address != region->guest_address ||
            map->regions[at].user_address != region->user_address || map->regions[at].size != region->size))
        at++;
    if (at == map->count) {
        error_set(err, "No memory region of %" PRIu64 " bytes at guest address 0x%" PRIx64, region->size,
                  region->guest_address);
        return NULL;
    }
    result = map_of(map->count - 1);
    memcpy(result->regions, map->regions, at * sizeof(map->regions[0]));
    memcpy(&result->regions[at], &map->regions[at + 1], (map->count - at - 1) * sizeof(map->regions[0]));
    for (unsigned i = 0; i < result->count; i++)
        shared_memory_ref(result->regions[i].memory);
    return result;
}

uint8_t *guest_map_find(const struct guest_map *map, uint64_t guest_address, uint64_t size, uint64_t *ret_size)
{
    for (unsigned i = 0; i < map->count; i++) {
        const struct guest_region *region = &map->regions[i];
        uint64_t inside = guest_address - region->guest_address;

        if (guest_address < region->guest_address || inside >= region->size)
            continue;
        *ret_size = MIN(size, region->size - inside);
        return shared_memory_base(region->memory) + inside;
    }
    return NULL;
}

uint8_t *guest_map_find_user(const struct guest_map *map, uint64_t user_address, uint64_t size)
{
    for (unsigned i = 0; i < map->count; i++) {
        const struct guest_region *region = &map->regions[i];

        if (user_address >= region->user_address && range_fits(user_address - region->user_address, size, region->size))
            return shared_memory_base(region->memory) + (user_address - region->user_address);
    }
    return NULL;
}

bool guest_map_read(const struct guest_map *map, uint64_t guest_address, void *to, size_t size)
{
    uint8_t *next = to;

    while (size) {
        uint64_t part;
        const uint8_t *from = guest_map_find(map, guest_address, size, &part);

        if (!from)
            return false;
        memcpy(next, from, part);
        next += part;
        guest_address += part;
        size -= part;
    }
    return true;
}

bool guest_map_address(const struct guest_map *map, const void *memory, uint64_t *ret)
{
    for (unsigned i = 0; i < map->count; i++) {
        const struct guest_region *region = &map->regions[i];
        uintptr_t base = (uintptr_t)shared_memory_base(region->memory);

        if ((uintptr_t)memory >= base && (uintptr_t)memory - base < region->size) {
            *ret = region->guest_address + ((uintptr_t)memory - base);
            return true;
        }
    }
    return false;
}

uint64_t guest_map_end(const struct guest_map *map)
{
    uint64_t end = 0;

    for (unsigned i = 0; i < map->count; i++)
        end = MAX(end, map->regions[i].guest_address + map->regions[i].size);
    return end;
}

bool guest_map_damaged(const struct guest_map *map)
{
    for (unsigned i = 0; i < map->count; i++) {
        if (shared_memory_damaged(map->regions[i].memory))
            return true;
    }
    return false;
}
