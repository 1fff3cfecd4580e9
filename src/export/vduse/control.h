/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Devices come and go at /dev/vduse/control, and are used at /dev/vduse/NAME. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct error;
struct virtio_blk;

/* What a new device is like. */
struct vduse_device_plan {
    const char *name;
    const struct virtio_blk *blk;
    uint16_t queue_size;
};

/* Whether a device can have this name. */
bool vduse_name_check(const char *name, struct error **err) MUST_CHECK;

/*
 * Creates a device and opens it: its descriptor in *ret_fd, owned. One of that name that a driver uses and whose
 * server has gone is opened as it is: *ret_found.
 */
bool CO_FN co_vduse_create(const struct vduse_device_plan *plan, int *ret_fd, bool *ret_found,
                           struct error **err) MUST_CHECK;

/* Takes away a device that nobody has open: 0; -EBUSY: it is on the vDPA bus; or another -errno. */
int CO_FN co_vduse_destroy(const char *name) MUST_CHECK;
