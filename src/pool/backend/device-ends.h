/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where labels and superblocks lie on a device. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct pool_error;

/* Overwrites the first and the last megabyte with zeroes, so that nothing is recognised there. May suspend. */
bool CO_FN co_device_clear_ends(const char *device, struct pool_error **err);
