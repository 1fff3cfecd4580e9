/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files that hold the old content or the new, whenever the machine stops. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"

struct pool_error;

/* Gives the file at `path` that content, mode 0600: written beside it, made sure to be on the disk, then put in its
 * place. The folder must exist. Domain "none". */
bool CO_FN co_replace_file(const char *path, const void *data, size_t size, struct pool_error **err) MUST_CHECK;

/* Makes sure that the name of a file that has just been given it is on the disk: syncs its folder. 0 or -errno. */
int CO_FN co_sync_name(const char *path) MUST_CHECK;
