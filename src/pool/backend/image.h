/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Images inside of volumes, by our block drivers: making, resizing, copying. Main loop; all may suspend. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct pool;
struct pool_error;
struct volume;

/* Whether an image as `volume` asks for can be made; completes what follows from its backing image. */
bool CO_FN co_image_check(struct pool *pool, struct volume *volume, unsigned flags, struct pool_error **err);

/* Makes it in the file or device of `volume`, which is there. `flags`: enum volume_create_flags. */
bool CO_FN co_image_make(struct pool *pool, struct volume *volume, unsigned flags, struct pool_error **err);

bool CO_FN co_image_resize(struct pool *pool, struct volume *volume, uint64_t capacity, struct pool_error **err);

/* Copies all that `source` shows, its backing images included, to `volume`, which is there and new: reads as zeroes. */
bool CO_FN co_image_copy(struct pool *pool, struct volume *volume, struct pool *source_pool, struct volume *source,
                         struct pool_error **err);

/* An encrypted volume whose secret is not known gets the one that is kept for its path, where there is one. */
void CO_FN co_image_find_secret(struct pool *pool, struct volume *volume);
