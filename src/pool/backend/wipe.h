/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Overwriting files and devices, by the published patterns. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "pool/backend.h"

/* The file or device at `path`, all of it; after each pass it is on the disk. Ends early, with an error, when `*stop`
 * has become true. May suspend. */
bool CO_FN co_wipe_path(const char *path, enum volume_wipe_algorithm algorithm, const bool *stop,
                        struct pool_error **err);

/* Zeroes over a part; 0 or -errno, -ECANCELED when `*stop` has become true (NULL: it never does). May suspend. */
int CO_FN co_wipe_range(int fd, uint64_t offset, uint64_t bytes, const bool *stop);

/* One time over the whole: with random bytes, or with `count` bytes repeated, or reading back that all are such. */
struct wipe_pass {
    enum wipe_kind { WIPE_RANDOM, WIPE_BYTES, WIPE_VERIFY } kind;
    uint8_t bytes[3];
    uint8_t count;
};
enum { WIPE_PASSES_MAX = 64 };

/* The passes of an algorithm, into `ret`: their number. */
size_t wipe_passes(enum volume_wipe_algorithm algorithm, struct wipe_pass ret[WIPE_PASSES_MAX]);

/* What the pass has from `offset` on. */
void wipe_fill(const struct wipe_pass *pass, uint64_t offset, uint8_t *to, size_t size);
