/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The memory that the driver lets the device use: regions of I/O addresses, mapped as far as they are needed. */
#pragma once

#include <stdint.h>

#include "base/compiler.h"

struct guest_map;
struct vduse_kernel;

/* All regions that there are now; owned. */
struct guest_map *vduse_iotlb_map(const struct vduse_kernel *kernel) MUST_CHECK;

/* A new map: that of `map` and the region in which `address` lies; NULL: there is none. Any thread. */
struct guest_map *vduse_iotlb_grow(const struct vduse_kernel *kernel, const struct guest_map *map,
                                   uint64_t address) MUST_CHECK;
