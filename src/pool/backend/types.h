/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The tables of all types of pools, one a file of this folder, and what several of them say alike. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct pool_backend;
struct pool_error;

extern const struct pool_backend dir_backend;
extern const struct pool_backend fs_backend;
extern const struct pool_backend netfs_backend;
extern const struct pool_backend logical_backend;
extern const struct pool_backend iscsi_backend;
extern const struct pool_backend iscsi_direct_backend;
extern const struct pool_backend scsi_backend;
extern const struct pool_backend mpath_backend;
extern const struct pool_backend disk_backend;

/* Building with any flags but one of NO_OVERWRITE and OVERWRITE is an error, which names `function`. */
bool check_build_flags(unsigned flags, const char *function, struct pool_error **err);
