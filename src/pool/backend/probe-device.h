/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What libblkid sees on a device: a file system or other superblock first, else a partition table. May suspend. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct pool_error;

/*
 * `format`: the word of the pool's XML ("ext4", "dos", "lvm2"), by which errors call it; `type`: libblkid's word for
 * it ("ext4", "dos", "LVM2_member").
 *
 * About to write to the device: goes on only where nothing is recognised, else POOL_ERROR_POOL_BUILT (formatted
 * already, or otherwise) or POOL_ERROR_PROBE_FAILED.
 */
bool CO_FN co_device_check_unused(const char *device, const char *format, const char *type, struct pool_error **err);

/* About to use it: goes on only where it has that format, else POOL_ERROR_PROBE_FAILED ("is unrecognized, requires
 * build") or POOL_ERROR_OPERATION_INVALID. */
bool CO_FN co_device_check_format(const char *device, const char *format, const char *type, struct pool_error **err);

/* libblkid's word for what is there; owned, NULL: nothing, or nothing that can be told. */
char *CO_FN co_device_find_format(const char *device);
