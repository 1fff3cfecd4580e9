/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which format an image has, by its first bytes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

struct block_driver;
struct error;
struct handle;

/*
 * The name of the format of what starts with `head` and is called `filename` (NULL: nothing); "raw" where it looks like
 * none. `size`: at most IMAGE_PROBE_BYTES, less where the image is shorter. This build need not have a driver for it.
 * `drivers`: as block_drivers[]. Any thread; borrowed, for ever.
 */
const char *probe_format(const struct block_driver *const *drivers, const uint8_t *head, size_t size,
                         const char *filename);

/* The same of what `handle`, which may read, shows. Borrowed, for ever; NULL and the error: it cannot be read. */
const char *CO_FN co_probe_handle(struct handle *handle, const char *filename, struct error **err) MUST_CHECK;
