/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Mounting what a pool's source names on its target, by libmount. May suspend. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct pool;
struct pool_error;

/* What is mounted where. Zero: `type` NULL is found out, `options` NULL: the usual ones. */
struct mount_request {
    const char *source;
    const char *target;
    const char *type;
    char *options; /* comma-separated, owned by the caller */
};

bool CO_FN co_mount(const struct mount_request *request, struct pool_error **err);
bool CO_FN co_unmount(const char *target, struct pool_error **err);

/* Whether `source` is what is mounted on `target`, links resolved. */
bool CO_FN co_is_mounted(const char *source, const char *target);

/* "nodev,nosuid,noexec", then `more` (NULL: nothing), then the options of the pool's XML; owned. */
char *mount_options(const struct pool *pool, const char *more);
