/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory of a guest, as far as its front end shares it: regions with the address that the guest knows them by and
 * the one that the front end does. A map is never changed, so requests that hold one go on with it while the device
 * gets another.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct error;
struct iovec;
struct shared_memory;

enum { GUEST_REGIONS_MAX = 509 }; /* as many slots as kernels take */

struct guest_region {
    uint64_t guest_address;
    uint64_t user_address; /* in the front end's process */
    uint64_t size;
    struct shared_memory *memory; /* the region begins with it */
};

struct guest_map;

/* An empty map; one reference. */
struct guest_map *guest_map_new(void) MUST_CHECK;

/*
 * A new map: that of `map` and `region`, whose memory gets a reference of its own. NULL and the error: it is empty,
 * wraps, overlaps another one, or there are too many.
 */
struct guest_map *guest_map_add(const struct guest_map *map, const struct guest_region *region,
                                struct error **err) MUST_CHECK;

/* A new map without the region of these addresses and size; NULL and the error where there is none. */
struct guest_map *guest_map_remove(const struct guest_map *map, const struct guest_region *region,
                                   struct error **err) MUST_CHECK;

/* References; any thread. NULL is allowed in unref. */
struct guest_map *guest_map_ref(struct guest_map *map);
void guest_map_unref(struct guest_map *map);
AUTO_DEFINE(guest_map, struct guest_map *, guest_map_unref)

/*
 * The memory at an address, as far as it lies in one piece: at most `size`, in *ret_size. NULL: nothing is there.
 * guest_map_find_user(): by the front end's address, and all `size` bytes or nothing.
 */
uint8_t *guest_map_find(const struct guest_map *map, uint64_t guest_address, uint64_t size, uint64_t *ret_size);
uint8_t *guest_map_find_user(const struct guest_map *map, uint64_t user_address, uint64_t size);

/* Copies from the guest; false where part of the range is not there. */
bool guest_map_read(const struct guest_map *map, uint64_t guest_address, void *to, size_t size) MUST_CHECK;

/* The guest's address of memory that guest_map_find() gave; false where it is of no region. */
bool guest_map_address(const struct guest_map *map, const void *memory, uint64_t *ret) MUST_CHECK;

/* One past the highest guest address; 0: there is no region. */
uint64_t guest_map_end(const struct guest_map *map);

/* Whether the front end has cut the file behind a region. */
bool guest_map_damaged(const struct guest_map *map);
